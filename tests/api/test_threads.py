"""Atomic instructions and shared memories (threads proposal): results and traps in both compilers, instances that share
a memory between threads, waiting and waking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from wasmforge import (
    Config,
    Engine,
    Instance,
    Limits,
    Linker,
    Memory,
    MemoryType,
    Module,
    SharedMemory,
    Store,
    Trap,
    TrapCode,
    WasmtimeError,
    load,
)
from wasmforge.syntax.atomics import ATOMIC_INSTRUCTIONS, FENCE
from wasmforge.syntax.types import I64

STRATEGIES = ("llvm", "baseline")
SHARED = MemoryType(Limits(1, 4), shared=True)


def engine(strategy: str = "baseline", **settings: bool) -> Engine:
    config = Config()
    config.strategy = strategy
    config.shared_memory = True
    for name, value in settings.items():
        setattr(config, name, value)
    return Engine(config)


def wrapper(mnemonic: str, params: tuple[int, ...], results: tuple[int, ...], index: str, offset: int) -> str:
    """A function that executes one atomic instruction."""
    types = [index, *("i64" if t == I64 else "i32" for t in params[1:])]
    result = f"(result {'i64' if results[0] == I64 else 'i32'})" if results else ""
    gets = " ".join(f"(local.get {k})" for k in range(len(types)))
    return f'(func (export "{mnemonic}") (param {" ".join(types)}) {result} ({mnemonic} offset={offset} {gets}))'


def all_accesses(memory: str, index: str = "i32", offset: int = 0) -> str:
    functions = [
        wrapper(mnemonic, params, results, index, offset)
        for number, mnemonic, params, results, _ in ATOMIC_INSTRUCTIONS
        if number > FENCE
    ]
    return f"(module {memory} {' '.join(functions)})"


MEMORIES = {
    "32 bits": ('(memory (export "m") 1 1)', "i32", {}),
    "shared": ('(memory (export "m") 1 1 shared)', "i32", {}),
    "64 bits": ('(memory (export "m") i64 1 1)', "i64", {}),
    "compared": ('(memory (export "m") 1 1)', "i32", {"signals_based_traps": False}),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize("offset", [0, 24, 70000])
def test_every_access_checks_alignment_then_bounds(strategy: str, kind: str, offset: int) -> None:
    """Attack: an access at the edge of the memory, and beyond."""
    memory, index, settings = MEMORIES[kind]
    store = Store(engine(strategy, **settings))
    exports = Instance(store, Module(store.engine, all_accesses(memory, index, offset)), []).exports(store)
    for number, mnemonic, params, _, size in ATOMIC_INSTRUCTIONS:
        if number <= FENCE:
            continue
        function: Any = exports[mnemonic]
        values = [0] * (len(params) - 1)
        last = 65536 - size - offset
        if last >= 0:
            function(store, last, *values)
        for beyond in (max(last + size, 0), -size):
            with pytest.raises(Trap) as caught:
                function(store, beyond, *values)
            assert caught.value.trap_code is TrapCode.MEMORY_OUT_OF_BOUNDS, mnemonic
        for wrong in range(1, size):
            with pytest.raises(Trap) as caught:
                function(store, wrong, *values)
            assert caught.value.trap_code is TrapCode.HEAP_MISALIGNED, mnemonic


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "xchg": lambda a, b: b,
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_access_does_what_it_says(strategy: str) -> None:
    store = Store(engine(strategy))
    module = Module(store.engine, all_accesses('(memory (export "m") 1 1 shared)', offset=8))
    exports = Instance(store, module, []).exports(store)
    memory: Any = exports["m"]
    assert isinstance(memory, SharedMemory)
    before = bytes(range(0xE0, 0x100))
    operand, other = 0xF1E2D3C4B5A69788, 0x0123456789ABCDEF
    for number, mnemonic, params, results, size in ATOMIC_INSTRUCTIONS:
        if number <= FENCE:
            continue
        bits = 64 if I64 in (*params, *results) else 32
        for index in range(0, 8, size):
            memory.write(before, 0)
            old = int.from_bytes(before[8 + index : 8 + index + size], "little")
            mask = (1 << 8 * size) - 1
            values = [operand % (1 << bits)] * (len(params) == 2)
            new = operand & mask
            name = mnemonic.split(".")[-1].removesuffix("_u")
            if name.startswith("load"):
                new = old
            elif name == "cmpxchg":
                values = [old, other % (1 << bits)]
                new = other & mask
            elif name in OPERATIONS:
                new = OPERATIONS[name](old, operand) & mask
            function: Any = exports[mnemonic]
            result = function(store, index, *values)
            if results:
                assert result % (1 << bits) == old, mnemonic
            after = bytearray(before)
            after[8 + index : 8 + index + size] = new.to_bytes(size, "little")
            assert memory.read(0, 32) == after, mnemonic
            if name == "cmpxchg":  # and nothing when the value is another one
                assert function(store, index, new ^ 1, 7) % (1 << bits) == new, mnemonic
                assert memory.read(0, 32) == after, mnemonic


WAITING = """(module (import "" "m" (memory 1 4 shared))
  (func (export "wait32") (param i32 i32 i64) (result i32)
    (memory.atomic.wait32 offset=4 (local.get 0) (local.get 1) (local.get 2)))
  (func (export "wait64") (param i32 i64 i64) (result i32)
    (memory.atomic.wait64 offset=8 (local.get 0) (local.get 1) (local.get 2)))
  (func (export "notify") (param i32 i32) (result i32) (memory.atomic.notify offset=4 (local.get 0) (local.get 1)))
  (func (export "add") (param i32 i32)
    (loop $again
      (drop (i32.atomic.rmw.add (local.get 0) (i32.const 1)))
      (br_if $again (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))
  (func (export "spin") (loop $again (br_if $again (i32.eq (memory.size) (i32.const 1)))))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"""


def worker(shared: SharedMemory, module: Module) -> tuple[Store, Any]:
    store = Store(module._engine)
    return store, Instance(store, module, [shared]).exports(store)


@pytest.fixture(params=STRATEGIES)
def waiting(request: pytest.FixtureRequest) -> tuple[SharedMemory, Module]:
    e = engine(request.param)
    return SharedMemory(e, SHARED), Module(e, WAITING)


def test_waits_that_return_at_once(waiting: tuple[SharedMemory, Module]) -> None:
    store, exports = worker(*waiting)
    assert exports["wait32"](store, 0, 1, -1) == 1  # another value
    assert exports["wait64"](store, 0, 1, -1) == 1
    start = time.monotonic()
    assert exports["wait32"](store, 0, 0, 20_000_000) == 2  # time is over
    assert exports["wait64"](store, 0, 0, 0) == 2
    assert time.monotonic() - start >= 0.02
    assert exports["notify"](store, 0, -1) == 0
    for wrong, code in ((2, TrapCode.HEAP_MISALIGNED), (65536, TrapCode.MEMORY_OUT_OF_BOUNDS)):
        for call in (lambda: exports["wait32"](store, wrong, 0, 0), lambda: exports["notify"](store, wrong, 1)):  # noqa: B023
            with pytest.raises(Trap) as caught:
                call()
            assert caught.value.trap_code is code


def test_notified_threads_go_on_in_order(waiting: tuple[SharedMemory, Module]) -> None:
    shared, module = waiting
    woken: list[int] = []

    def wait(number: int) -> None:
        store, exports = worker(shared, module)
        assert exports["wait32"](store, 16, 0, -1) == 0
        woken.append(number)

    threads = [threading.Thread(target=wait, args=(k,)) for k in range(4)]
    for k, thread in enumerate(threads):
        thread.start()
        while sum(map(len, shared._memory._parked.values())) <= k:
            time.sleep(0.001)
    store, exports = worker(shared, module)
    assert exports["notify"](store, 16, 1) == 1
    threads[0].join(10)
    assert woken == [0]
    assert shared.atomic_notify(20, 100) == 3
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == [0, 1, 2, 3]
    assert not shared._memory._parked


def test_a_wait_on_an_unshared_memory_traps() -> None:
    for strategy in STRATEGIES:
        store = Store(engine(strategy))
        text = """(module (memory 1)
          (func (export "wait") (param i32) (result i32)
            (memory.atomic.wait32 (local.get 0) (i32.const 0) (i64.const 0)))
          (func (export "notify") (param i32) (result i32) (memory.atomic.notify (local.get 0) (i32.const 1))))"""
        exports: Any = Instance(store, Module(store.engine, text), []).exports(store)
        assert exports["notify"](store, 0) == 0
        with pytest.raises(Trap, match="atomic wait on non-shared memory"):
            exports["wait"](store, 0)
        with pytest.raises(Trap, match="out of bounds memory access"):
            exports["wait"](store, 65536)
        with pytest.raises(Trap, match="unaligned atomic"):
            exports["notify"](store, 65537)


def test_threads_count_together(waiting: tuple[SharedMemory, Module]) -> None:
    """Increments are not lost, and the threads run at the same time: none waits for another's end."""
    shared, module = waiting
    n, count = 4, 200_000

    def add() -> None:
        store, exports = worker(shared, module)
        exports["add"](store, 64, count)

    threads = [threading.Thread(target=add) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(shared.read(64, 68), "little") == n * count


def test_growth_shows_in_a_thread_that_runs(waiting: tuple[SharedMemory, Module]) -> None:
    """A loop without end in wasm lets Python run, and sees the new size."""
    shared, module = waiting
    store, exports = worker(shared, module)
    thread = threading.Thread(target=lambda: exports["spin"](store))
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    assert shared.grow(1) == 1
    thread.join(10)
    assert not thread.is_alive()
    other, exports = worker(shared, module)
    assert exports["grow"](other, 1) == 2
    assert exports["grow"](other, 2) == -1
    assert (shared.size(), shared.data_len()) == (3, 3 * 65536)
    with pytest.raises(WasmtimeError, match="failed to grow memory by `2`"):
        shared.grow(2)


def test_a_store_limits_the_growth_of_what_it_shares() -> None:
    e = engine()
    shared, module = SharedMemory(e, SHARED), Module(e, WAITING)
    store, exports = worker(shared, module)
    store.set_limits(memory_size=65536)
    assert exports["grow"](store, 1) == -1
    assert shared.grow(1) == 1


def test_a_shared_memory_needs_its_settings() -> None:
    with pytest.raises(WasmtimeError, match="shared memory support is disabled for this engine"):
        SharedMemory(Engine(), SHARED)
    with pytest.raises(WasmtimeError, match="shared memory must have the `shared` flag enabled"):
        SharedMemory(engine(), MemoryType(Limits(1, 2)))
    with pytest.raises(WasmtimeError, match="shared memories must have a maximum size"):
        MemoryType(Limits(1, None), shared=True)
    with pytest.raises(WasmtimeError, match="shared memory support is disabled"):
        Instance(store := Store(), Module(store.engine, "(module (memory 1 1 shared))"), [])
    for text in ("(module (memory 1 1 shared))", "(module (func (atomic.fence)))"):
        with pytest.raises(WasmtimeError, match=r"threads.*wasm_threads"):
            Module(engine(wasm_threads=False), text)


def test_linking_tells_shared_from_unshared() -> None:
    e = engine()
    store = Store(e)
    unshared = Memory(store, MemoryType(Limits(1, 4)))
    with pytest.raises(WasmtimeError, match="expected shared memory, found unshared memory"):
        Instance(store, Module(e, WAITING), [unshared])
    module = Module(e, '(module (import "" "m" (memory 1 4)))')
    with pytest.raises(WasmtimeError, match="expected unshared memory, found shared memory"):
        Instance(store, module, [SharedMemory(e, SHARED)])
    with pytest.raises(WasmtimeError, match="cross-`Engine` use of a shared memory"):
        Instance(store, Module(e, WAITING), [SharedMemory(engine(), SHARED)])


def test_linker_and_load_take_shared_memories() -> None:
    e = engine()
    shared = SharedMemory(e, SHARED)
    linker = Linker(e)
    store = Store(e)
    linker.define(store, "", "m", shared)
    for s in (store, Store(e)):
        exports = linker.instantiate(s, Module(e, WAITING)).exports(s)
        exports["add"](s, 0, 5)  # type: ignore[operator]
    assert shared.read(0, 4) == (10).to_bytes(4, "little")
    found = linker.get(store, "", "m")
    assert isinstance(found, SharedMemory)
    assert found.read(0, 1) == b"\n"
    app = load(WAITING, {"": {"m": shared}}, engine=e)
    app.add(0, 7)
    assert shared.view()[0] == 17
    assert shared.type().is_shared


def test_a_memory_outlives_its_stores() -> None:
    e = engine()
    shared = SharedMemory(e, SHARED)
    view = shared.view()
    store, exports = worker(shared, Module(e, WAITING))
    exports["add"](store, 100, 3)
    del shared, store, exports
    assert view[100] == 3


def test_memories_come_and_go() -> None:
    """Their address space returns: 64 of them would take 256 GiB, 5,000 more than there is."""
    e = engine()
    module = Module(e, WAITING)
    for _ in range(300):
        store, exports = worker(SharedMemory(e, SHARED), module)
        exports["add"](store, 0, 1)
