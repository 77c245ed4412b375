"""Threads come and go: alternate stacks are freed, a reused thread pointer is noticed, stacks are pooled."""

from __future__ import annotations

import ctypes
import threading

import pytest

from tests.runtime.native.fake import GUARD_SIZE, Store, Trap, ft
from tests.runtime.native.guest import code
from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL, StoreContext
from wasmforge.compiler.trap import TrapKind
from wasmforge.runtime.native import StackPool
from wasmforge.runtime.native.stacks import CLEANED_EVERY
from wasmforge.syntax.errors import WasmtimeError

I_I = ft("i", "i")


def mappings() -> int:
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def in_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_every_new_thread_can_overflow_the_stack_of_an_old_store(store: Store) -> None:
    """glibc gives the next thread the same thread pointer; without an alternate stack the overflow would kill us."""
    recurse = store.function("recurse16", I_I)
    pointers = set()
    kinds: list[int] = []

    def run() -> None:
        pointers.add(threading.get_ident())
        try:
            recurse(1)
        except Trap as trap:
            kinds.append(trap.kind)

    for _ in range(20):
        in_thread(run)
    assert kinds == [TrapKind.STACK_OVERFLOW] * 20
    assert len(pointers) < 20, "this system does not reuse thread pointers: the test shows nothing"


def test_alternate_stacks_are_freed(store: Store) -> None:
    load = store.function("load", I_I)

    def run() -> None:
        with pytest.raises(Trap):
            load(-1)

    for _ in range(5):
        in_thread(run)
    before = mappings()
    for _ in range(100):
        in_thread(run)
    # A leak is a mapping a thread; the allocator may take a few for itself meanwhile.
    assert mappings() <= before + 50


def test_faulthandlers_alternate_stack_is_kept(store: Store) -> None:
    """A thread that has an alternate stack keeps it: somebody may rely on it."""
    libc = ctypes.CDLL(None)
    load = store.function("load", I_I)
    same: list[bool] = []

    def run() -> None:
        own = ctypes.create_string_buffer(32768)
        words = (ctypes.c_uint64 * 3)(ctypes.addressof(own), 0, 32768)
        assert libc.sigaltstack(words, None) == 0
        with pytest.raises(Trap):
            load(-1)
        now = (ctypes.c_uint64 * 3)()
        libc.sigaltstack(None, now)
        same.append(now[0] == words[0])
        words[:] = [0, 2, 0]
        libc.sigaltstack(words, None)

    in_thread(run)
    assert same == [True]


def test_a_store_moves_between_threads(store: Store) -> None:
    add = store.function("add", ft("ii", "i"), CALL_FLAG_RELEASE_GIL)
    results: list[int] = []
    for k in range(10):
        in_thread(lambda k=k: results.append(add(k, 1)))
        results.append(add(k, 1))
    assert results == [v for k in range(10) for v in (k + 1, k + 1)]
    assert store.words[StoreContext.THREAD // 8] & (2**48 - 1) == threading.get_ident()


def test_stack_pool() -> None:
    pool = StackPool(keep=2)
    stacks = [pool.allocate(100_000) for _ in range(3)]
    for stack in stacks:
        assert stack.low % 4096 == stack.high % 4096 == 0
        assert stack.size == 102400
        ctypes.memset(stack.low, 0xFF, stack.size)
    before = mappings()
    for stack in stacks:
        pool.release(stack)
    assert mappings() < before, "only two are kept"
    for _ in range(CLEANED_EVERY):
        pool.release(pool.allocate(100_000))
    again = [pool.allocate(100_000) for _ in range(2)]
    assert {s.low for s in again} <= {s.low for s in stacks}
    deep = ctypes.string_at(again[0].low, again[0].size - 65536)
    assert deep == bytes(len(deep)), "memory below the top went back to the system"
    assert pool.allocate(1).size == 16384
    with pytest.raises(WasmtimeError, match="cannot reserve"):
        pool.allocate(1 << 60)
    pool.close()


def test_stack_guard_is_inaccessible() -> None:
    pool = StackPool()
    stack = pool.allocate()
    with open("/proc/self/maps") as file:
        for line in file:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= stack.low - 1 < end:
                assert line.split()[1] == "---p"
                assert start <= stack.low - GUARD_SIZE
                break
        else:
            raise AssertionError("the guard is not mapped")
    pool.release(stack)
    pool.close()


def test_store_contexts_of_many_stores(store: Store) -> None:
    stores = [Store(code(), identity=k) for k in range(50)]
    for s in stores:
        with pytest.raises(Trap) as caught:
            s.function("load", I_I)(-1)
        assert caught.value.store == s.words[StoreContext.STORE // 8]
    for s in stores:
        s.close()
