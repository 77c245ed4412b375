"""Memories from Python: copies, views that share the bytes, growth, and what lies outside."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import cast

import pytest

import wasmforge
from wasmforge import Engine, Limits, Memory, MemoryType, Store, WasmtimeError
from wasmforge.instance import InstanceExports

Instantiate = Callable[..., InstanceExports]

PAGE = 65536

MODULE = """(module (memory (export "memory") 1 4)
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "poke") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


@pytest.fixture
def x(instantiate: Instantiate) -> InstanceExports:
    return instantiate(MODULE)


def memory_of(x: InstanceExports) -> Memory:
    return cast(Memory, x["memory"])


def test_both_sides_see_what_the_other_writes(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    memory.write(store, b"\x07\x08", 100)
    assert [x["peek"](store, 100), x["peek"](store, 101)] == [7, 8]
    x["poke"](store, 102, 255)
    assert memory.read(store, 100, 103) == b"\x07\x08\xff"


def test_a_view_shares_the_bytes_and_stays_when_the_memory_grows(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    view = memory.view(store)
    assert (len(view), view.format, view.readonly) == (PAGE, "B", False)
    view[5] = 9
    assert x["peek"](store, 5) == 9
    assert x["grow"](store, 2) == 1
    assert memory.size(store) == 3
    x["poke"](store, 6, 10)
    assert view[6] == 10
    assert len(view) == PAGE
    assert len(memory.view(store)) == 3 * PAGE


def test_ctypes_arrays_share_the_bytes(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    array = memory.get_buffer_ptr(store, 4, 8)
    array[0] = 3
    assert x["peek"](store, 8) == 3
    assert len(memory.get_buffer_ptr(store)) == PAGE
    memory.data_ptr(store)[9] = 4
    assert array[1] == 4
    for size, offset in ((1, PAGE), (PAGE + 1, 0), (PAGE, 1), (-1, 0), (1, -1)):
        with pytest.raises(IndexError):
            memory.get_buffer_ptr(store, size, offset)


def test_numpy_shares_the_bytes(store: Store, x: InstanceExports) -> None:
    numpy = pytest.importorskip("numpy")
    memory = memory_of(x)
    array = numpy.asarray(memory)
    assert (array.dtype, array.shape) == (numpy.uint8, (PAGE,))
    array[10:14] = [1, 2, 3, 4]
    assert memory.read(store, 10, 14) == b"\x01\x02\x03\x04"
    words = numpy.frombuffer(memory.get_buffer_ptr(store), dtype=numpy.uint32)
    words[0] = 0x01020304
    assert memory.read(store, 0, 4) == b"\x04\x03\x02\x01"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688")
def test_the_buffer_protocol(store: Store, x: InstanceExports) -> None:
    assert len(memoryview(memory_of(x))) == PAGE  # type: ignore[arg-type]


def test_views_outlive_everything_else(engine: Engine) -> None:
    """The bytes stay mapped, and readable and writable, as long as anything refers to them."""

    def make() -> tuple[memoryview, object]:
        store = Store(engine)
        memory = Memory(store, MemoryType(Limits(2, None)))
        memory.write(store, b"still here", 70000)
        return memory.view(store), memory.get_buffer_ptr(store, 10, 70000)

    views = [make() for _ in range(20)]
    gc.collect()
    for view, array in views:
        assert bytes(view[70000:70010]) == b"still here"
        view[70000] = 0
        assert bytes(array)[:2] == b"\0t"  # type: ignore[call-overload]


def test_growth_has_its_limits(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    assert memory.grow(store, 3) == 1
    for delta in (1, 10, 2**32, 2**64, 2**80):
        with pytest.raises(WasmtimeError, match=f"failed to grow memory by `{delta}`"):
            memory.grow(store, delta)
    assert memory.grow(store, 0) == 4
    assert x["grow"](store, 1) == -1
    assert memory.data_len(store) == 4 * PAGE


@pytest.mark.parametrize("start", [0, 1, -1, PAGE - 1, PAGE, -PAGE, -PAGE - 1, 2**70, -(2**70), None])
@pytest.mark.parametrize("length", [0, 1, PAGE, PAGE + 1])
def test_writes_stay_inside(store: Store, x: InstanceExports, start: int | None, length: int) -> None:
    """As a list's slice: negative numbers count from the end; nothing is cut off."""
    memory = memory_of(x)
    first = slice(start, None).indices(PAGE)[0]
    if first < PAGE and first + length <= PAGE:
        assert memory.write(store, bytes([1]) * length, start) == length
        assert sum(memory.read(store)) == length
    else:
        with pytest.raises(IndexError):
            memory.write(store, bytes([1]) * length, start)
        assert sum(memory.read(store)) == 0


def test_reads_cut_off(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    for start, stop in ((0, None), (PAGE - 1, 2**70), (-(2**70), 3), (5, 2), (PAGE, PAGE + 5), (None, None)):
        assert len(memory.read(store, start, stop)) == len(range(PAGE)[start:stop])


def test_what_can_be_written(store: Store, x: InstanceExports) -> None:
    memory = memory_of(x)
    for value in (b"abc", bytearray(b"abc"), memoryview(b"abc"), [97, 98, 99], memoryview(b"aXbXcX")[::2]):
        assert memory.write(store, value) == 3
        assert memory.read(store, 0, 3) == b"abc"
        memory.write(store, bytes(3))
    for wrong in ("abc", [256], [-1], None, 1.5):
        with pytest.raises((TypeError, ValueError)):
            memory.write(store, wrong)


def test_types_and_repr(store: Store) -> None:
    memory = Memory(store, MemoryType(Limits(1, 5)))
    memory.grow(store, 2)
    assert memory.type(store) == MemoryType(Limits(1, 5)), "growing does not change the type"
    assert repr(memory) == "<Memory of 3 pages>"
    for wrong in (1, Limits(1, 2), None):
        with pytest.raises(TypeError):
            Memory(store, wrong)  # type: ignore[arg-type]


def test_types_of_memories_with_64_bits_and_small_pages() -> None:
    """What the package's constructor takes (memory64 and custom-page-sizes proposals), and its texts."""
    t = MemoryType(Limits(1, 2), is_64=True, page_size_log2=0)
    assert (t.is_64, t.page_size, t.page_size_log2, t.limits) == (True, 1, 0, Limits(1, 2))
    assert t == MemoryType(Limits(1, 2), True, False, 0)
    assert t != MemoryType(Limits(1, 2), True)
    assert repr(t) == "MemoryType(Limits(1, 2), is_64=True, page_size_log2=0)"
    assert MemoryType(Limits(0, None)).page_size == PAGE
    assert MemoryType(Limits(0, 1 << 48), is_64=True).limits.max == 1 << 48
    assert MemoryType(Limits((1 << 32) - 1, None), page_size_log2=0).limits.min == (1 << 32) - 1
    for limits, more, message in (
        (Limits(1 << 32, None), {}, "minimum size too large"),
        (Limits(1 << 64, None), {"is_64": True}, "minimum size too large"),
        (Limits((1 << 48) + 1, None), {"is_64": True}, "minimum size is too large for this memory type's index type"),
        (Limits(65537, None), {}, "minimum size is too large for this memory type's index type"),
        (Limits(1, None), {"page_size_log2": 1}, r"page size must be 2\*\*16 or 2\*\*0, but was given 2\*\*1"),
    ):
        with pytest.raises(WasmtimeError, match=message):
            MemoryType(limits, **more)  # type: ignore[arg-type]


def test_a_memory_with_pages_of_one_byte(store: Store) -> None:
    memory = Memory(store, MemoryType(Limits(3, 10_000), page_size_log2=0))
    assert (memory.size(store), memory.data_len(store), memory.page_size(store)) == (3, 3, 1)
    assert memory.page_size_log2(store) == 0
    view = memory.view(store)
    assert len(view) == 3
    memory.write(store, b"abc")
    assert memory.grow(store, 4094) == 3
    assert memory.data_len(store) == 4097
    assert bytes(memory.read(store, 0, 5)) == b"abc\0\0"
    assert bytes(view) == b"abc"
    assert memory.type(store) == MemoryType(Limits(3, 10_000), page_size_log2=0)
    with pytest.raises(IndexError):
        memory.write(store, b"xy", 4096)
    with pytest.raises(WasmtimeError, match="failed to grow memory by `5904`"):
        memory.grow(store, 5904)


def test_a_memory_of_64_bits(store: Store) -> None:
    memory = Memory(store, MemoryType(Limits(1, None), is_64=True))
    assert memory.grow(store, 0x10000) == 1
    assert memory.data_len(store) == 0x10001 * PAGE
    assert memory.write(store, b"far", 0x1_0000_0000) == 3
    assert memory.read(store, 0x1_0000_0001, 0x1_0000_0003) == b"ar"
    with pytest.raises(WasmtimeError, match="failed to grow memory"):
        memory.grow(store, 1 << 47)
    with pytest.raises(WasmtimeError, match="exceeds the address space"):
        Memory(store, MemoryType(Limits(1 << 40, None), is_64=True))


@pytest.mark.parametrize("strategy", ["baseline", "llvm"])
def test_memories_of_64_bits_reserve_what_the_configuration_says(strategy: str) -> None:
    """Memories never move: they grow within `memory_reservation_for_growth`, and not at all without it."""
    config = wasmforge.Config()
    config.strategy = strategy
    config.memory_reservation = 0
    config.memory_reservation_for_growth = 2 * PAGE
    store = Store(Engine(config))
    text = '(module (memory i64 3) (func (export "f") (param i64) (result i64) (memory.grow (local.get 0))))'
    grow = wasmforge.Instance(store, wasmforge.Module(store.engine, text), []).exports(store)["f"]
    assert isinstance(grow, wasmforge.Func)
    assert [grow(store, delta) for delta in (3, 1, 2, 1, 1, 0)] == [-1, 3, -1, 4, -1, 5]


def test_several_memories_of_an_instance(store: Store, instantiate: Instantiate) -> None:
    """Each memory is an object of its own; data segments, exports and names find theirs."""
    x = instantiate(
        """(module (memory $a (export "a") 1) (memory $b (export "b") i64 2) (memory $c 1)
             (data (memory $b) (i64.const 65536) "two") (data (memory $c) (i32.const 1) "three")
             (data (i32.const 3) "one")
             (func (export "c") (param i32) (result i32) (i32.load8_u $c (local.get 0)))
             (func (export "copy") (memory.copy $a $b (i32.const 0) (i64.const 65536) (i32.const 3))))"""
    )
    assert memory(store, x, "b").read(store, 65536, 65539) == b"two"
    assert [x["c"](store, k) for k in range(3)] == [0, ord("t"), ord("h")]
    assert memory(store, x, "a").read(store, 0, 7) == b"\0\0\0one\0"
    x["copy"](store)
    assert memory(store, x, "a").read(store, 0, 7) == b"twoone\0"
    assert memory(store, x, "b").type(store).is_64


def memory(store: Store, x: InstanceExports, name: str) -> Memory:
    found = x[name]
    assert isinstance(found, Memory)
    return found


def test_scarce_address_space_leaves_less_room_to_grow() -> None:
    """Where the process may not reserve 64 GiB, a 64-bit memory takes what there is, and grows as far as that."""
    program = """
import resource
from wasmforge import Limits, Memory, MemoryType, Store, WasmtimeError
store = Store()
resource.setrlimit(resource.RLIMIT_AS, (20 << 30, 20 << 30))
memory = Memory(store, MemoryType(Limits(1, None), is_64=True))
assert memory.grow(store, 16384) == 1
memory.write(store, b"x", 1 << 30)
try:
    memory.grow(store, 1 << 19)
except WasmtimeError as error:
    assert "failed to grow memory" in str(error)
else:
    raise AssertionError("32 GiB")
try:
    Memory(store, MemoryType(Limits(1 << 19, None), is_64=True))
except WasmtimeError as error:
    assert "no room for" in str(error)
else:
    raise AssertionError("32 GiB")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
