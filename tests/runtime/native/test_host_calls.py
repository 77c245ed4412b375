"""Wasm to Python: host functions, builtins written in Python, and exceptions through wasm frames."""

from __future__ import annotations

import sys
import threading
import traceback
from typing import Any

import pytest

from tests.runtime.native.fake import Store, exceptions_seen, ft
from tests.runtime.native.guest import HOST, HOST_MANY, MANY_PARAMS, SIGNATURES, TABLE_INIT, VOID_III, code
from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL, HOST_FLAG_CALLER, StoreContext
from wasmforge.runtime.native import gates
from wasmforge.syntax.errors import WasmtimeError

I_I = ft("i", "i")
FLAGS = pytest.mark.parametrize("flags", [0, CALL_FLAG_RELEASE_GIL])


@FLAGS
def test_host_function_is_called_with_values(store: Store, flags: int) -> None:
    seen: list[tuple[Any, ...]] = []

    def host(*arguments: Any) -> Any:
        seen.append(arguments)
        return 2.5, 1.5, -(2**40), -7

    store.set_import(1, host, HOST_MANY)
    result = store.function("call_host_many", HOST_MANY, flags)(-1, 2**63 + 1, 0.5, 1e300)
    assert seen == [(-1, -(2**63) + 1, 0.5, 1e300)]
    assert result == [2.5, 1.5, -(2**40), -7]


@FLAGS
def test_many_host_calls_in_a_row(store: Store, flags: int) -> None:
    store.set_import(0, lambda x: x + 1, HOST)
    assert store.function("host_loop", I_I, flags)(10_000) == 10_000


def test_registers_survive_a_host_call(store: Store) -> None:
    store.set_import(0, lambda x: 0, HOST)
    keep = store.function("host_keep", I_I)

    def expected(n: int) -> int:
        k = [(n * (2 * i + 3)) & 0xFFFFFFFF for i in range(6)]
        total = k[0]
        for v in k[1:]:
            total ^= v
        return total - 2**32 if total >= 2**31 else total

    for n in range(1, 2000, 7):
        assert keep(n) == expected(n)


def test_a_list_or_any_sequence_serves_as_results(store: Store) -> None:
    store.set_import(1, lambda *_: [1, 2, 3, 4], HOST_MANY)
    assert store.function("call_host_many", HOST_MANY)(0, 0, 0, 0) == [1.0, 2.0, 3, 4]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ("x", TypeError, r"log\(\) result 1: expected i32, got str"),
        (None, TypeError, r"log\(\) result 1: expected i32, got NoneType"),
        (1.5, TypeError, r"log\(\) result 1: expected i32, got float"),
        ((1,), TypeError, r"log\(\) result 1: expected i32, got tuple"),
        (2**32, OverflowError, r"log\(\) result 1: out of range for i32"),
    ],
)
def test_wrong_result(store: Store, result: object, error: type[Exception], message: str) -> None:
    store.set_import(0, lambda _: result, HOST, name="log")
    with pytest.raises(error, match=message):
        store.function("call_host", I_I)(1)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (5, TypeError, r"log\(\) must return a tuple or list of 4 results, got int"),
        ((1, 2), TypeError, r"log\(\) must return 4 results, got 2"),
        ((1, 2, "x", 4), TypeError, r"log\(\) result 3: expected i64, got str"),
        ((1, 2, 2**64, 4), OverflowError, r"log\(\) result 3: out of range for i64"),
    ],
)
def test_wrong_results(store: Store, result: object, error: type[Exception], message: str) -> None:
    store.set_import(1, lambda *_: result, HOST_MANY, name="log")
    with pytest.raises(error, match=message):
        store.function("call_host_many", HOST_MANY)(0, 0, 0, 0)


def test_a_result_where_none_is_wanted(store: Store) -> None:
    with pytest.raises(TypeError, match=r"host\(\) has no results in its type but returned an object of type int"):
        store.host_function(lambda: 5, ft(""))()
    assert store.host_function(lambda: None, ft(""))() is None


def test_the_caller_is_passed_on_request(store: Store) -> None:
    seen: list[tuple[int, ...]] = []

    def host(caller: int, x: int) -> int:
        seen.append((caller, x))
        return 0

    store.set_import(0, host, HOST, HOST_FLAG_CALLER)
    store.function("call_host", I_I)(7)
    assert seen == [(store.vmctx, 7)]


def test_python_calls_a_host_function_through_the_gates(store: Store) -> None:
    """The entry gate meets the host gate with no wasm in between."""
    assert store.host_function(lambda *a: a[::-1], SIGNATURES["swap"])(1, 2, 3, 4) == [4.0, 3.0, 2, 1]
    values = [i if c in "iI" else float(i) for i, c in enumerate(MANY_PARAMS)]
    assert store.host_function(lambda *a: a, SIGNATURES["many"])(*values) == values
    with pytest.raises(ZeroDivisionError):
        store.host_function(lambda: 1 // 0, ft(""))()
    assert exceptions_seen[0][2] == ()


@FLAGS
def test_exception_comes_out_with_traceback_and_backtrace(store: Store, flags: int) -> None:
    class Boom(Exception):
        pass

    def host(x: int) -> int:
        raise Boom(x)

    store.set_import(0, host, HOST)
    with pytest.raises(Boom) as caught:
        store.function("host_loop", I_I, flags)(3)
    assert caught.value.args == (0,)
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names[-1] == "host"
    identity, exception, pcs, omitted = exceptions_seen[0]
    assert (identity, exception, omitted) == (1, caught.value, 0)
    assert exception.__traceback__ is not None, "the hook sees the traceback"
    assert [n for n in map(code().name, pcs) if n and "2" not in n] == ["host_loop"]


def test_an_exception_of_the_hook_wins(store: Store) -> None:
    def hook(*_: object) -> None:
        raise LookupError("hook")

    store.set_import(0, lambda x: 1 // x, HOST)
    gates().set_hooks(on_exception=hook)
    with pytest.raises(LookupError) as caught:
        store.function("host_loop", I_I)(1)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_the_hook_may_raise_the_same_exception(store: Store) -> None:
    def hook(identity: int, exception: BaseException, *_: object) -> None:
        raise exception

    store.set_import(0, lambda x: 1 // x, HOST)
    gates().set_hooks(on_exception=hook)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            store.function("host_loop", I_I)(1)


@FLAGS
def test_nested_activations_and_exceptions_through_them(store: Store, flags: int) -> None:
    depth = 0
    call = store.function("host_keep", I_I, flags)

    def host(x: int) -> int:
        nonlocal depth
        depth += 1
        try:
            if depth == 20:
                raise KeyError("bottom")
            return int(call(x)) & 0xFFFF
        finally:
            depth -= 1

    store.set_import(0, host, HOST)
    for _ in range(100):
        with pytest.raises(KeyError, match="bottom"):
            call(3)
        assert store.idle()
    assert depth == 0
    assert len([p for p in exceptions_seen[0][2] if code().name(p) == "host_keep"]) == 1


def test_exception_backtrace_covers_all_activations(store: Store) -> None:
    call = store.function("host_keep", I_I)
    seen: list[int] = []

    def hook(identity: int, exception: BaseException, pcs: tuple[int, ...], omitted: int) -> None:
        seen.append([code().name(p) for p in pcs].count("host_keep"))

    gates().set_hooks(on_exception=hook)
    store.set_import(0, lambda x: call(x - 1) if x else 1 // 0, HOST)
    with pytest.raises(ZeroDivisionError):
        call(4)
    assert seen == [5, 4, 3, 2, 1]


@FLAGS
def test_attack_activations_out_of_order(store: Store, flags: int) -> None:
    """Returning to wasm below which another activation still has frames would corrupt them (greenlet can do that)."""

    def host(x: int) -> int:
        store.words[StoreContext.LAST_EXIT_FP // 8] -= 4096  # what a suspended nested activation leaves
        return 0

    store.set_import(0, host, HOST)
    with pytest.raises(RuntimeError, match="reverse order"):
        store.function("call_host", I_I, flags)(1)
    assert store.idle()

    def grow(vmctx: int, pages: int, memory: int) -> int:
        return host(0)

    gates().set_builtin("memory_grow", grow)
    with pytest.raises(RuntimeError, match="reverse order"):
        store.function("grow", ft("I", "I"), flags)(1)
    assert store.idle()


def test_host_calls_release_the_gil_again(store: Store) -> None:
    """With CALL_FLAG_RELEASE_GIL another thread runs while wasm runs, before and after host calls."""
    ticks = 0
    stop = False

    def count() -> None:
        nonlocal ticks
        while not stop:
            ticks += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        store.set_import(0, lambda x: x, HOST)
        work = store.function("work", I_I, CALL_FLAG_RELEASE_GIL)
        store.function("host_loop", I_I, CALL_FLAG_RELEASE_GIL)(10)
        before = ticks
        work(20_000_000)
        assert ticks > before
    finally:
        stop = True
        thread.join()


def test_a_store_that_is_active_on_another_thread_is_refused(store: Store) -> None:
    errors: list[BaseException | None] = []
    add = store.function("add", ft("ii", "i"))

    def other() -> None:
        try:
            add(1, 2)
            errors.append(None)
        except WasmtimeError as error:
            errors.append(error)

    def host(x: int) -> int:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return int(add(x, 1))

    store.set_import(0, host, HOST)
    assert store.function("call_host", I_I)(4) == 5
    assert len(errors) == 1
    assert "another thread" in str(errors[0])
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert errors[1] is None, "an idle store may move to another thread"
    assert add(3, 4) == 7


def test_a_store_running_without_the_gil_is_refused(store: Store) -> None:
    """Two threads hammer one store with the GIL released: a refusal or the right result, never corruption."""
    work = store.function("work", I_I, CALL_FLAG_RELEASE_GIL)
    expected = work(2000)
    wrong: list[object] = []
    refused = [0, 0]

    def run(k: int) -> None:
        for _ in range(3000):
            try:
                if work(2000) != expected:
                    wrong.append(k)
            except WasmtimeError:
                refused[k] += 1

    threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert sum(refused) > 0
    assert store.idle()


def test_python_builtins(store: Store) -> None:
    calls: list[tuple[int, ...]] = []

    def grow(vmctx: int, pages: int, memory: int) -> int:
        calls.append((vmctx, pages, memory))
        return -1 if pages > 100 else 3

    gates().set_builtin("memory_grow", grow)
    function = store.function("grow", ft("I", "I"))
    assert function(1) == 3
    assert function(2**64 - 1) == -1
    assert calls == [(store.vmctx, 1, 7), (store.vmctx, 2**64 - 1, 7)]

    def init(vmctx: int, *arguments: int) -> None:
        calls.append(arguments)
        if arguments[4] == 9:
            raise LookupError("table")

    gates().set_builtin("table_init", init)
    table_init = store.function("table_init", TABLE_INIT)
    assert table_init(-1, 2, -3, 4, 5) is None
    assert calls[-1] == (2**32 - 1, 2, 2**64 - 3, 4, 5)
    with pytest.raises(LookupError, match="table"):
        table_init(0, 0, 0, 0, 9)
    gates().set_builtin("memory_grow", lambda *_: "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        function(1)
    with pytest.raises(WasmtimeError, match="part of the gates"):
        gates().set_builtin("trap", grow)


def test_native_memory_builtins(store: Store) -> None:
    import ctypes

    memory = (ctypes.c_uint8 * 65536).from_address(store.reservation)
    store.function("fill", VOID_III)(10, 0x1AB, 5)
    assert list(memory[9:16]) == [0, 0xAB, 0xAB, 0xAB, 0xAB, 0xAB, 0]
    memory[10:15] = [1, 2, 3, 4, 5]
    store.function("move", VOID_III)(12, 10, 5)
    assert list(memory[10:17]) == [1, 2, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("length", range(70))
def test_native_memory_builtins_of_every_short_length(store: Store, length: int) -> None:
    """Moves to either side with every overlap, also at the very end of the memory; nothing beside is written."""
    import ctypes

    memory = (ctypes.c_uint8 * 65536).from_address(store.reservation)
    move, fill = store.function("move", VOID_III), store.function("fill", VOID_III)
    before = bytes(range(1, 241))
    for base in (1000, 65536 - len(before)):
        for distance in (*range(-length - 1, length + 2), 90 - length):
            expected = bytearray(before)
            expected[80 + distance : 80 + distance + length] = before[80 : 80 + length]
            memory[base : base + len(before)] = list(before)
            move(base + 80 + distance, base + 80, length)
            assert bytes(memory[base : base + len(before)]) == expected
    end = 65536
    memory[end - 80 : end] = [7] * 80
    fill(end - length, 0x1AB, length)
    assert bytes(memory[end - 80 : end]) == b"\x07" * (80 - length) + b"\xab" * length
    fill(100, 0x1AB, length)
    assert bytes(memory[99 : 101 + length]) == b"\0" + b"\xab" * length + b"\0"


def test_deep_recursion_between_wasm_and_python(store: Store) -> None:
    """Python's own limit, our limit of the thread's stack, or the end of the wasm stack: always an exception."""
    from tests.runtime.native.fake import Trap

    call = store.function("call_host", I_I)
    store.set_import(0, lambda x: call(x), HOST)
    limit = sys.getrecursionlimit()
    outcomes = set()
    try:
        for n in (300, limit, 1_000_000):
            sys.setrecursionlimit(n)
            with pytest.raises((RecursionError, Trap)) as caught:
                call(1)
            outcomes.add(caught.type)
            assert store.idle()
    finally:
        sys.setrecursionlimit(limit)
    assert RecursionError in outcomes


def test_deep_recursion_on_a_small_thread_stack() -> None:
    """HOST_STACK_LIMIT: a thread of 1 MiB with an enormous wasm stack and no limit in Python must not crash."""
    big = Store(code(), stack_size=64 << 20)
    call = big.function("call_host", I_I)
    big.set_import(0, lambda x: call(x), HOST)
    seen: list[BaseException] = []

    def run() -> None:
        try:
            call(1)
        except RecursionError as error:
            seen.append(error)

    limit, size = sys.getrecursionlimit(), threading.stack_size(1 << 20)
    sys.setrecursionlimit(10_000_000)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
        sys.setrecursionlimit(limit)
    assert len(seen) == 1
    assert "between Python and wasm" in str(seen[0])
    big.close()
