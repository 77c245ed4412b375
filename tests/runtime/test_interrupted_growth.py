"""Growth and instantiation that the handler of a signal (Ctrl-C) ends with an exception: a memory or table has grown or
has not, and what compiled code reads of it is what this process holds; what registered its addresses does not keep
them. Handlers run at the calls and returns of functions, which is where a profile function is called, and it can raise
as they can."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from tests.runtime.compiling import Workshop
from wasmforge.compiler.environ import VMMemoryDefinition, VMTableDefinition
from wasmforge.runtime import VMStore
from wasmforge.runtime.libc import address_of
from wasmforge.runtime.lock import LOCK
from wasmforge.runtime.vm.traps import RuntimeTrap
from wasmforge.syntax.types import EXTERNREF, PAGE_SIZE, Limits, MemoryType, TableType

SMALL_TO_SMALL, SMALL_TO_MAPPED, MAPPED_TO_MAPPED, WITHIN_CAPACITY = (2, 7), (2, 300), (300, 1000), (300, 500)


class Interrupt(BaseException):
    pass


def interrupt_at(event: int, call: Callable[[], object]) -> bool:
    """Makes a call that ends at its `event`-th call or return of a function. Returns whether it has so many.

    Not at the call of `__exit__` at the end of a `with` block: CPython runs handlers behind calls, so never there, and
    the lock of that block would stay locked for all threads but this one.
    """
    seen = 0

    def on_event(frame: FrameType, kind: str, argument: object) -> None:
        nonlocal seen
        if kind == "c_call" and getattr(argument, "__name__", "") == "__exit__":
            return
        seen += frame.f_code is not interrupt_at.__code__  # its own call that ends the profile
        if seen == event:
            raise Interrupt

    sys.setprofile(on_event)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
        assert not LOCK._is_owned()  # type: ignore[attr-defined]
    return False


@pytest.mark.parametrize("sizes", [SMALL_TO_SMALL, SMALL_TO_MAPPED, MAPPED_TO_MAPPED, WITHIN_CAPACITY])
def test_an_interrupted_table_has_grown_or_has_not(sizes: tuple[int, int]) -> None:
    store = Workshop().store
    old, new = sizes
    for event in range(1, 1000):
        table = store.new_table(TableType(EXTERNREF, Limits(old)), "thing")
        if sizes == WITHIN_CAPACITY:
            table.grow(1, "thing")  # doubles the capacity
        before = table.size
        interrupted = interrupt_at(event, lambda: table.grow(new - before, "other"))  # noqa: B023
        # Threat: compiled code would write to storage that is gone, or beyond its end.
        base = store.arena.read_u64(table.definition + VMTableDefinition.BASE)
        assert base == address_of(table._words)
        assert table.size == store.arena.read_u64(table.definition + VMTableDefinition.CURRENT_ELEMENTS)
        assert table.size in (before, new)
        assert table.size <= table._capacity == len(table._words)
        assert [table.get(k) for k in range(before)] == ["thing"] * before
        assert {table.get(k) for k in range(before, table.size)} <= {"other"}
        table.grow(new + 1 - table.size, "last")
        assert table.get(new) == "last"
        if not interrupted:
            break
    assert event > 8  # it was interrupted in several places
    assert event < 999


def test_an_interrupted_memory_has_grown_or_has_not() -> None:
    store = Workshop().store
    for event in range(1, 1000):
        memory = store.new_memory(MemoryType(Limits(1)))
        interrupted = interrupt_at(event, lambda: memory.grow(2))  # noqa: B023
        length = store.arena.read_u64(memory.definition + VMMemoryDefinition.CURRENT_LENGTH)
        assert length == memory.byte_length
        assert memory.pages in (1, 3)
        memory.grow(1)
        assert not any(memory.view()[-PAGE_SIZE:])
        if not interrupted:
            break
    assert 3 < event < 999


TEXT = """(module (memory (export "memory") 1) (table 300 externref)
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0))))"""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # finalisers of what was half made
def test_after_an_interrupted_instantiation_the_next_one_works() -> None:
    workshop = Workshop()
    module = workshop.module(TEXT)
    for event in range(1, 5000):
        store = VMStore(workshop.engine)
        interrupted = interrupt_at(event, lambda: store.instantiate(module, []))  # noqa: B023
        load = store.instantiate(module, []).export("load").make_callable()  # type: ignore[union-attr]
        assert load(0) == 0
        with pytest.raises(RuntimeTrap, match="out of bounds memory access"):
            load(PAGE_SIZE)
        if not interrupted:
            break
    assert 30 < event < 4999
