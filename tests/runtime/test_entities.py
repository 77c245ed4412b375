"""Memories, tables, globals and host functions of a store, without a module (specification, sections 4.2.7 to
4.2.9)."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from tests.runtime.compiling import Workshop
from wasmforge.runtime import VMFunction
from wasmforge.runtime.vm.limits import MAX_TABLE_ELEMENTS
from wasmforge.runtime.vm.traps import RuntimeTrap
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    PAGE_SIZE,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
)


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


# --- Memories ------------------------------------------------------------------------------------------------------


def test_memory_starts_as_zeros_and_grows_in_place(workshop: Workshop) -> None:
    memory = workshop.store.new_memory(MemoryType(Limits(1, 3)))
    view = memory.view()
    assert len(view) == memory.byte_length == PAGE_SIZE
    assert not any(view)
    view[5] = 7
    base = memory.base
    assert memory.grow(2) == 1
    assert memory.base == base
    assert len(view) == PAGE_SIZE  # an old view keeps its length, and still shows the memory
    view[6] = 8
    assert bytes(memory.view()[4:8]) == b"\0\7\x08\0"
    assert not any(memory.view()[PAGE_SIZE:])
    assert memory.type == MemoryType(Limits(3, 3))
    assert memory.declared_type == MemoryType(Limits(1, 3))


@pytest.mark.parametrize("delta", [3, 65536, 2**32 - 1, 2**64 - 1])
def test_memory_growth_beyond_the_maximum_changes_nothing(workshop: Workshop, delta: int) -> None:
    memory = workshop.store.new_memory(MemoryType(Limits(1, 3)))
    assert memory.grow(delta) == -1
    assert memory.pages == 1
    assert memory.grow(0) == 1


def test_memory_can_have_all_65536_pages(workshop: Workshop) -> None:
    memory = workshop.store.new_memory(MemoryType(Limits(0, None)))
    assert memory.view().nbytes == 0
    assert memory.grow(65535) == 0
    assert memory.grow(1) == 65535
    assert memory.grow(1) == -1
    memory.write(b"end", 2**32 - 3)
    assert memory.read(2**32 - 4, 2**32) == b"\0end"


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, PAGE_SIZE + 1), (5, 4), (PAGE_SIZE + 1, PAGE_SIZE + 1)])
def test_memory_reads_outside_are_refused(workshop: Workshop, start: int, stop: int) -> None:
    memory = workshop.store.new_memory(MemoryType(Limits(1, 2)))
    with pytest.raises(IndexError):
        memory.read(start, stop)


@pytest.mark.parametrize("start", [-1, PAGE_SIZE - 2, PAGE_SIZE, 2**64])
def test_memory_writes_outside_are_refused(workshop: Workshop, start: int) -> None:
    memory = workshop.store.new_memory(MemoryType(Limits(1, 2)))
    with pytest.raises(IndexError):
        memory.write(b"abc", start)
    assert not any(memory.view())
    assert memory.write(struct.pack("<Q", 1), PAGE_SIZE - 8) == 8


def test_memory_limit_of_the_store(workshop: Workshop) -> None:
    workshop.store.limits.memory_size = 2 * PAGE_SIZE
    memory = workshop.store.new_memory(MemoryType(Limits(1, None)))
    assert memory.grow(1) == 1
    assert memory.grow(1) == -1
    with pytest.raises(WasmtimeError, match="exceeds memory limits"):
        workshop.store.new_memory(MemoryType(Limits(3, None)))


def test_small_reservations_only_without_signals() -> None:
    """Attack: compiled code that leaves checks to the guard pages relies on 4 GiB, whatever the tunables say."""
    small = Workshop(memory_reservation=1 << 20, memory_guard_size=1 << 16)
    memory = small.store.new_memory(MemoryType(Limits(1, None)))
    assert memory.reservation.length >= (4 << 30) + (1 << 16)
    checked = Workshop(memory_reservation=1 << 20, memory_guard_size=1 << 16, signals_based_traps=False)
    memory = checked.store.new_memory(MemoryType(Limits(1, None)))
    assert memory.reservation.length == (1 << 20) + (2 << 16)
    assert memory.grow(15) == 1
    assert memory.grow(1) == -1


# --- Tables --------------------------------------------------------------------------------------------------------


def test_table_of_externrefs(workshop: Workshop) -> None:
    thing = object()
    table = workshop.store.new_table(TableType(EXTERNREF, Limits(2, 1000)), thing)
    assert table.get(0) is thing and table.get(1) is thing
    table.set(1, None)
    assert table.get(1) is None
    assert table.grow(998, "new") == 2
    assert table.grow(1, None) == -1
    assert [table.get(k) for k in (0, 1, 2, 999)] == [thing, None, "new", "new"]
    table.fill(1, 5, 2)
    assert [table.get(k) for k in (1, 2, 3)] == [5, 5, "new"]
    assert table.type == TableType(EXTERNREF, Limits(1000, 1000))


def test_table_of_functions(workshop: Workshop) -> None:
    function = workshop.store.new_function(FuncType((), ()), lambda: None)
    table = workshop.store.new_table(TableType(FUNCREF, Limits(1, None)), function)
    assert table.get(0) == function
    for wrong in ("f", 1, print):
        with pytest.raises(TypeError, match="expected funcref"):
            table.set(0, wrong)
    # Attack: the address of a function of another store dangles when that store is gone.
    with pytest.raises(WasmtimeError, match="value used with wrong store"):
        table.set(0, Workshop().store.new_function(FuncType((), ()), lambda: None))
    assert table.get(0) == function


@pytest.mark.parametrize("index", [-1, 2, 2**32, 2**64])
def test_table_access_out_of_bounds_traps(workshop: Workshop, index: int) -> None:
    table = workshop.store.new_table(TableType(EXTERNREF, Limits(2, None)))
    for access in (lambda: table.get(index), lambda: table.set(index, 1), lambda: table.fill(index, 1, 1)):
        with pytest.raises(RuntimeTrap, match="undefined element: out of bounds table access"):
            access()
    with pytest.raises(RuntimeTrap):
        table.fill(1, "x", 2)
    assert table.get(1) is None  # nothing was written


def test_table_growth_is_bounded_without_limits(workshop: Workshop) -> None:
    """Attack: a guest that grows a table for ever."""
    table = workshop.store.new_table(TableType(FUNCREF, Limits(0, None)))
    assert table.grow_raw(2**32 - 1, 0) == -1
    assert table.grow_raw(MAX_TABLE_ELEMENTS + 1, 0) == -1
    assert table.grow_raw(MAX_TABLE_ELEMENTS, 0) == 0
    assert table.grow_raw(1, 0) == -1
    with pytest.raises(WasmtimeError, match="exceeds table limits"):
        workshop.store.new_table(TableType(FUNCREF, Limits(MAX_TABLE_ELEMENTS + 1, None)))


def test_table_keeps_its_elements_while_it_moves(workshop: Workshop) -> None:
    table = workshop.store.new_table(TableType(EXTERNREF, Limits(0, None)))
    for k in range(3000):
        assert table.grow(1, k) == k
    assert [table.get(k) for k in range(3000)] == list(range(3000))


# --- Globals -------------------------------------------------------------------------------------------------------

VALUES: list[tuple[ValType, object, object]] = [
    (I32, -1, -1),
    (I32, 2**32 - 1, -1),
    (I32, -(2**31), -(2**31)),
    (I64, 2**64 - 1, -1),
    (I64, 2**63 - 1, 2**63 - 1),
    (F32, 1.5, 1.5),
    (F32, 1e300, math.inf),
    (F32, -1e300, -math.inf),
    (F64, -0.0, -0.0),
    (F64, 3, 3.0),
    (EXTERNREF, "x", "x"),
    (EXTERNREF, None, None),
    (FUNCREF, None, None),
]


@pytest.mark.parametrize(("t", "given", "found"), VALUES)
def test_global_values(workshop: Workshop, t: ValType, given: object, found: object) -> None:
    cell = workshop.store.new_global(GlobalType(t, True), given)
    assert cell.get() == found
    cell.set_raw(0)
    cell.set(given)
    assert cell.get() == found
    assert str(cell.get()) == str(found)  # the sign of a zero


@pytest.mark.parametrize(
    ("t", "wrong", "error"),
    [
        (I32, 2**32, OverflowError),
        (I32, -(2**31) - 1, OverflowError),
        (I64, 2**64, OverflowError),
        (I32, 1.0, TypeError),
        (I64, "1", TypeError),
        (F32, "1", TypeError),
        (FUNCREF, 1, TypeError),
    ],
)
def test_global_refuses_other_values(workshop: Workshop, t: ValType, wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        workshop.store.new_global(GlobalType(t, True), wrong)


def test_immutable_global(workshop: Workshop) -> None:
    cell = workshop.store.new_global(GlobalType(I32, False), 5)
    with pytest.raises(WasmtimeError, match="immutable global cannot be set"):
        cell.set(6)
    assert cell.get() == 5


# --- Host functions and identity -----------------------------------------------------------------------------------


def test_host_function_is_callable_from_python(workshop: Workshop) -> None:
    function = workshop.store.new_function(FuncType((I32, F64), (F64, I32)), lambda a, b: (b, a), name="swap")
    assert function.make_callable()(1, 2.5) == [2.5, 1]
    assert function.make_callable() is function.make_callable()
    with pytest.raises(TypeError, match=r"swap\(\)"):
        function.make_callable()(1)
    assert workshop.store.function_at(function.address) is function


def test_references_have_one_handle_while_they_live(workshop: Workshop) -> None:
    refs = workshop.store.externrefs
    a, b = object(), [1]
    assert refs.handle(a) == refs.handle(a) != refs.handle(b)
    assert refs.value(refs.handle(b)) is b
    assert refs.handle(None) == 0
    with pytest.raises(LookupError):
        refs.value(77)


def test_functions_appear_as_the_embedders_objects(workshop: Workshop) -> None:
    class Wrapped:
        def __init__(self, function: VMFunction) -> None:
            self.function = function

    store = workshop.store
    store.wrap_function = Wrapped
    store.unwrap_function = lambda value: value.function if isinstance(value, Wrapped) else None
    function = store.new_function(FuncType((), ()), lambda: None)
    table = store.new_table(TableType(FUNCREF, Limits(1, None)), Wrapped(function))
    found: Any = table.get(0)
    assert isinstance(found, Wrapped) and found.function == function
    cell: Any = store.new_global(GlobalType(FUNCREF, True), found)
    assert cell.get().function == function
    echo = store.new_function(FuncType((FUNCREF,), (FUNCREF,)), lambda f: f).make_callable()
    assert echo(found).function == function
