"""Deadlines and requests stop wasm wherever it is, in any thread, and leave the store as usable as an exception of a
host function does (`runtime/deadline.py`). `native/test_windows.py` meets every instruction of the gates.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import wasmforge
from wasmforge.runtime.deadline import Deadline, check, remaining, request

GUEST = """(module
  (import "e" "host" (func $host (param i32) (result i32)))
  (memory 1 1)
  (func (export "loop") (loop $l (br $l)))
  (func (export "host_loop") (loop $l (drop (call $host (i32.const 1))) (br $l)))
  (func (export "builtin_loop") (loop $l (drop (memory.grow (i32.const 0))) (br $l)))
  (func (export "copy_loop")
    (loop $l (memory.copy (i32.const 0) (i32.const 1) (i32.const 1000)) (br $l)))
  (func $r (export "recursion") (param i32) (result i32)
    (loop $l (if (i32.lt_u (local.get 0) (i32.const 100))
      (then (drop (call $r (i32.add (local.get 0) (i32.const 1)))))) (br $l)) (unreachable))
  (func (export "count") (param i32) (result i32) (local i32)
    (loop $l
      (local.set 1 (i32.add (local.get 1) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get 1) (local.get 0))))
    (local.get 1))
  (func (export "call_host") (param i32) (result i32) (call $host (local.get 0))))"""


class Late(Exception):
    pass


@pytest.fixture(scope="module")
def module() -> wasmforge.Module:
    return wasmforge.Module(wasmforge.Engine(), GUEST)


def load(module: wasmforge.Module, host: Callable[[int], int] = lambda x: x) -> tuple[Any, Any]:
    app = wasmforge.load(module, {"e": {"host": host}})
    return app, app._store._context()


def in_thread(function: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if errors:
        raise errors[0]
    assert not thread.is_alive()


@pytest.mark.parametrize("where", ["main thread", "other thread"])
@pytest.mark.parametrize("name", ["loop", "host_loop", "builtin_loop", "copy_loop", "recursion"])
def test_endless_wasm_ends(module: wasmforge.Module, name: str, where: str) -> None:
    app, vm = load(module)

    def run() -> None:
        notes = ""
        for milliseconds in (1, 2, 3, 20, 20, 20):
            with pytest.raises(Late) as caught, Deadline(vm, milliseconds / 1000, Late):
                app[name](*([0] if name == "recursion" else []))
            # On a machine with other work the time may be over before the guest is entered: then no frame is noted.
            notes += "".join(getattr(caught.value, "__notes__", ()))
        assert "wasm backtrace" in notes
        assert app.count(5) == 5
        assert remaining() is None

    run() if where == "main thread" else in_thread(run)


def test_the_guest_may_release_the_gil(module: wasmforge.Module) -> None:
    """Two threads, each with a store and a deadline of its own."""
    ended: list[str] = []

    def run() -> None:
        store = wasmforge.Store(module._engine)
        host = wasmforge.Func(
            store, wasmforge.FuncType([wasmforge.ValType.i32()], [wasmforge.ValType.i32()]), lambda x: x
        )
        function = wasmforge.Instance(store, module, [host]).exports(store)["loop"]
        assert isinstance(function, wasmforge.Func)
        loop = function.bind(store, release_gil=True)
        with pytest.raises(Late), Deadline(store._context(), 0.05, Late):
            loop()
        ended.append("yes")

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 3


def test_what_ends_in_time_is_left_alone(module: wasmforge.Module) -> None:
    """Also by a signal that comes just after."""
    app, vm = load(module)
    for _ in range(300):
        with Deadline(vm, 0.0005, Late):
            with contextlib.suppress(Late):
                assert app.count(100) == 100
    time.sleep(0.01)
    assert app.count(1000) == 1000


def test_time_that_is_over_already(module: wasmforge.Module) -> None:
    app, vm = load(module)
    for seconds in (0, -1):
        with pytest.raises(Late), Deadline(vm, seconds, Late):
            app.loop()
    with Deadline(vm, 1e300, Late):
        assert app.count(3) == 3


def test_nested_deadlines(module: wasmforge.Module) -> None:
    """The inner one cannot outlast the outer one, whichever store it is for, and is gone after its block."""
    inner_app, inner = load(module)

    def host(x: int) -> int:
        if x == 1:
            with pytest.raises(Late, match="inner"), Deadline(inner, 0.01, lambda: Late("inner")):
                inner_app.loop()
            return 7
        with Deadline(inner, 60, lambda: Late("inner")):
            inner_app.loop()
        return 0

    app, vm = load(module, host)
    with Deadline(vm, 60, lambda: Late("outer")):
        assert app.call_host(1) == 7
    with pytest.raises(Late, match="outer"), Deadline(vm, 0.02, lambda: Late("outer")):
        app.call_host(2)
    # Without a deadline of its own, wasm of another store is stopped too.
    plain, _ = load(module, lambda x: inner_app.loop() or 0)
    with pytest.raises(Late, match="outer"), Deadline(plain._store._context(), 0.02, lambda: Late("outer")):
        plain.call_host(0)


def test_a_host_function_cannot_swallow_the_end(module: wasmforge.Module) -> None:
    inner_app, _ = load(module)
    swallowed = 0

    def host(x: int) -> int:
        nonlocal swallowed
        try:
            inner_app.loop()
        except Late:
            swallowed += 1
        return 0

    app, vm = load(module, host)
    with pytest.raises(Late), Deadline(vm, 0.01, Late):
        app.host_loop()
    assert swallowed <= 1


def test_a_waiting_host_function_can_ask(module: wasmforge.Module) -> None:
    seen: list[float] = []

    def host(x: int) -> int:
        left = remaining()
        assert left is not None
        seen.append(left)
        time.sleep(left)
        check()
        raise AssertionError("not over")

    app, vm = load(module, host)
    with pytest.raises(Late), Deadline(vm, 0.03, Late):
        app.call_host(1)
    assert 0 < seen[0] <= 0.03
    check()
    assert remaining() is None


def test_system_calls_of_the_host_survive(module: wasmforge.Module) -> None:
    """The signal interrupts them; Python starts them again."""
    read, write = os.pipe()

    def host(x: int) -> int:
        timer = threading.Timer(0.05, os.write, (write, b"x"))
        timer.start()
        assert os.read(read, 1) == b"x"
        timer.join()
        return 3

    app, vm = load(module, host)
    with pytest.raises(Late), Deadline(vm, 0.01, Late):
        app.call_host(1)
    os.close(read)
    os.close(write)


def test_ctrl_c_within_a_deadline(module: wasmforge.Module) -> None:
    app, vm = load(module)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.03)
        os.kill(os.getppid(), signal.SIGINT)
        os._exit(0)
    with pytest.raises(KeyboardInterrupt), Deadline(vm, 20, Late):
        app.loop()
    os.waitpid(pid, 0)
    assert remaining() is None


def test_somebody_elses_handler_of_the_signal(module: wasmforge.Module) -> None:
    """It is called for signals that are not ours, also when it was installed after ours."""
    app, vm = load(module)
    calls: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, frame: calls.append(number))
    try:
        with pytest.raises(Late), Deadline(vm, 0.01, Late):
            app.loop()
        assert calls == []
        os.kill(os.getpid(), signal.SIGURG)
        assert calls == [signal.SIGURG]
    finally:
        signal.signal(signal.SIGURG, before or signal.SIG_DFL)


def test_a_child_process_has_its_own_deadlines(module: wasmforge.Module) -> None:
    app, vm = load(module)
    with Deadline(vm, 20, Late):
        app.count(1)
    pid = os.fork()
    if pid == 0:
        try:
            with Deadline(vm, 0.01, Late):
                app.loop()
        except Late:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_threads_leave_nothing_behind(module: wasmforge.Module) -> None:
    """The kernel bounds timers a process; slots are used again."""
    from wasmforge.runtime import deadline

    def run() -> None:
        app, vm = load(module)
        with pytest.raises(Late), Deadline(vm, 0, Late):
            app.loop()

    run()
    for _ in range(20):
        in_thread(run)
    assert deadline._the_slots is not None
    assert deadline._the_slots.used < 20


# --- Requests of other threads


def test_request_resumes(module: wasmforge.Module) -> None:
    """The action runs in the thread of the guest; when it returns, wasm goes on."""
    store = wasmforge.Store(module._engine)
    host = wasmforge.Func(store, wasmforge.FuncType([wasmforge.ValType.i32()], [wasmforge.ValType.i32()]), lambda x: x)
    function = wasmforge.Instance(store, module, [host]).exports(store)["loop"]
    assert isinstance(function, wasmforge.Func)
    loop = function.bind(store, release_gil=True)
    vm = store._context()
    seen: list[int] = []
    reached = threading.Event()

    def action() -> None:
        seen.append(threading.get_ident())
        reached.set()

    def give_up() -> None:
        raise Late

    def guest() -> None:
        with pytest.raises(Late):
            loop()

    thread = threading.Thread(target=guest)
    thread.start()
    for _ in range(5):
        reached.clear()
        request(vm, action)
        assert reached.wait(20)
    request(vm, give_up)
    thread.join(20)
    assert not thread.is_alive()
    assert seen == [thread.ident] * 5


def test_request_of_a_store_at_rest(module: wasmforge.Module) -> None:
    """It waits for the next entry."""
    app, vm = load(module)
    seen: list[str] = []
    request(vm, lambda: seen.append("now"))
    assert seen == []
    assert app.count(3) == 3
    assert seen == ["now"]
