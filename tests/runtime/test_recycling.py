"""Mappings that go from one store to the next, attacked: what a store left must not be there for another one, and what
anybody still looks at must not be given away."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.runtime.compiling import Workshop, image
from tests.runtime.mappings import is_mapped
from wasmforge.compiler.environ import Tunables
from wasmforge.runtime import CompiledModule, EngineState, VMStore, mapping
from wasmforge.runtime.mapping import unmap_recycled
from wasmforge.runtime.vm.memory import LinearMemory, Reservation
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import Limits, MemoryType

PAGE = 1 << 16
READER = """(module (memory (export "m") 1) (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""

engine = EngineState(Tunables())


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    gc.collect()
    unmap_recycled()
    yield
    gc.collect()


def memory(pages: int, store: VMStore | None = None) -> LinearMemory:
    return (store or VMStore(engine)).new_memory(MemoryType(Limits(pages, None)))


def test_a_memory_begins_with_zeros_where_another_one_was() -> None:
    first = memory(3)
    base = first.base
    first.write(b"secret", 2 * PAGE)
    first.grow(2)
    first.write(b"\xff" * PAGE, 4 * PAGE)
    del first
    second = memory(5)
    assert second.base == base, "the attack needs the same address"
    assert bytes(second.view()) == bytes(5 * PAGE)


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_a_memory_ends_where_its_type_says_and_not_where_the_one_before_did(pages: int) -> None:
    long = memory(4)
    base = long.base
    del long
    workshop = Workshop()
    f = workshop.functions(READER.replace('"m") 1', f'"m") {pages}'))
    assert f.instance.export("m").base == base
    for address in (pages * PAGE, pages * PAGE + 4096, 4 * PAGE - 1, 4 * PAGE, 5 * PAGE):
        if address >= pages * PAGE:
            with pytest.raises(WasmtimeError, match="out of bounds"):
                f.load(address)
    assert f.grow(2) == pages
    assert f.load((pages + 2) * PAGE - 1) == 0
    with pytest.raises(WasmtimeError, match="out of bounds"):
        f.load((pages + 2) * PAGE)


@pytest.mark.parametrize("kind", ["view", "slice", "owner"])
def test_a_memory_that_somebody_looks_at_is_not_given_away(kind: str) -> None:
    first = memory(1)
    base = first.base
    first.write(b"mine", 0)
    looks: dict[str, Callable[[LinearMemory], Any]] = {
        "view": lambda m: m.view(),
        "slice": lambda m: m.view()[:8].cast("I"),
        "owner": lambda m: memoryview(m.reservation.owner),
    }
    looking = looks[kind](first)
    del first
    others = [memory(1) for _ in range(3)]
    assert all(other.base != base for other in others)
    if kind != "owner":
        assert bytes(looking)[:4] == b"mine"
    del looking
    assert not is_mapped(base)


def test_static_data_do_not_shine_through() -> None:
    """Pages of an image are mapped over a memory; another memory must not get them."""
    data = "".join(f"\\{k % 251:02x}" for k in range(40_000))
    module = CompiledModule.from_bytes(engine, image(f'(module (memory (export "m") 2) (data (i32.const 0) "{data}"))'))
    instance: Any = VMStore(engine).instantiate(module, [])
    first = instance.export("m")
    assert first.read(0, 3) == b"\x00\x01\x02"
    base = first.base
    del instance, first
    assert not is_mapped(base)
    assert bytes(memory(2).view()) == bytes(2 * PAGE)


def test_records_begin_with_zeros() -> None:
    """The arena of a store: its context, its vmctxs and its small tables."""
    store = VMStore(engine)
    address = store.context.address
    size = 60_000 - 36864
    store.arena.write(store.arena.allocate(size), b"\xff" * size)
    del store
    store = VMStore(engine)
    assert store.context.address == address, "the attack needs the same address"
    assert bytes(store.arena.view(store.arena.allocate(size), size)) == bytes(size)


def test_locked_pages_are_not_given_away() -> None:
    """The system keeps their contents whatever one asks."""
    first = memory(2)
    first.write(b"secret", 0)
    base = first.base
    if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(base), ctypes.c_size_t(4096)) != 0:
        pytest.skip("mlock is not allowed here")
    del first
    second = memory(1)
    assert second.read(0, 6) == bytes(6)


def test_garbage_in_cycles_is_not_given_away_while_finalisers_use_it() -> None:
    log: list[bool] = []

    class Finaliser:
        def __init__(self, used: LinearMemory) -> None:
            self.me, self.used = self, used

        def __del__(self) -> None:
            others = [memory(1) for _ in range(3)]
            log.append(all(other.base != self.used.base for other in others) and self.used.read(0, 4) == b"mine")

    first = memory(1)
    first.write(b"mine", 0)
    Finaliser(first)
    del first
    gc.collect()
    assert log == [True]


def test_only_so_many_wait() -> None:
    several = [memory(1) for _ in range(mapping.KEPT + 4)]
    reservations = [m.reservation.kind for m in several]
    assert len(set(reservations)) == 1
    del several
    assert len(mapping._free[reservations[0]]) == mapping.KEPT
    assert isinstance(memory(1).reservation, Reservation)
    assert len(mapping._free[reservations[0]]) == mapping.KEPT


def test_threads_never_share_a_mapping() -> None:
    """Attack: stores that come and go in four threads, each marking what it has."""
    wrong: list[str] = []

    def work(mark: int) -> None:
        for k in range(400):
            store = VMStore(engine)
            mine = [memory(1 + k % 3, store) for _ in range(1 + k % 2)]
            record = store.arena.allocate(256)
            for m in mine:
                if any(m.view()[:64]) or any(m.view()[-64:]):
                    wrong.append("a memory that is not empty")
                m.write(bytes([mark]) * 64, 0)
                m.write(bytes([mark]) * 64, m.byte_length - 64)
            if any(store.arena.view(record, 256)):
                wrong.append("a record that is not empty")
            store.arena.write(record, bytes([mark]) * 256)
            if any(bytes(m.view()[:64]) != bytes([mark]) * 64 for m in mine):
                wrong.append("a memory of two threads")
            if bytes(store.arena.view(record, 256)) != bytes([mark]) * 256:
                wrong.append("a record of two threads")

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
