"""Ctrl-C while wasm runs (contract of `runtime/native/interrupts.py`): it comes out as KeyboardInterrupt at once
wherever wasm is, and a handler that returns leaves wasm as if nothing had happened.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.runtime.native.fake import Store, exceptions_seen, ft
from tests.runtime.native.guest import HOST, code
from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL
from wasmforge.runtime.native import gates

I_I = ft("i", "i")


@pytest.fixture(autouse=True)
def counting_host(store: Store) -> None:
    store.set_import(0, lambda x: x + 1 if x < 2**31 - 1 else 0, HOST)


@contextmanager
def interrupter(low: float, high: float, number: int = signal.SIGINT) -> Iterator[Callable[[], None]]:
    """A child process that sends the signal a random time after each call of the yielded function. It must be a
    process: the wasm loop may hold the GIL.
    """
    read, write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(write)
        while os.read(read, 1):
            time.sleep(random.uniform(low, high))
            os.kill(parent, number)
        os._exit(0)
    os.close(read)
    try:
        yield lambda: os.write(write, b"x")  # type: ignore[misc]
    finally:
        os.close(write)
        os.waitpid(child, 0)


def interrupt_often(
    store: Store, call: Callable[[int], object], times: int, low: float = 0.0, high: float = 0.001
) -> None:
    with interrupter(low, high) as send:
        for _ in range(times):
            with pytest.raises(KeyboardInterrupt):
                send()
                call(3)
    assert store.idle()


@pytest.mark.parametrize("flags", [0, CALL_FLAG_RELEASE_GIL])
@pytest.mark.parametrize("name", ["endless", "endless_calls", "endless_host"])
def test_endless_wasm_raises_keyboard_interrupt(store: Store, name: str, flags: int) -> None:
    """Random instants in a tight loop, in prologues and epilogues, and in and around host calls."""
    interrupt_often(store, store.function(name, I_I, flags), 300)
    assert store.function("add", ft("ii", "i"))(2, 3) == 5


def test_interrupts_at_entry_and_return_are_not_lost(store: Store) -> None:
    """Signals that arrive in the gates themselves, before wasm or on the way back to it: a loop of short entries, each
    of which spins for ever if the interrupt is lost in a window.
    """
    endless = store.function("endless", I_I)
    nothing = store.function("nothing", ft("", ""))

    def call(_: int) -> None:
        for _ in range(random.randrange(3000)):
            nothing()
        endless(1)

    interrupt_often(store, call, 300, 0.0, 0.0002)


def test_interrupt_of_nested_activations(store: Store) -> None:
    inner = store.function("endless_calls", I_I)
    outer = store.function("endless_host", I_I)

    def host(x: int) -> int:
        if x > 5:
            return int(inner(3))
        return int(outer(x + 2))

    store.set_import(0, host, HOST)
    interrupt_often(store, outer, 200, 0.0, 0.002)


def test_long_memory_move_is_interrupted_afterwards(store: Store) -> None:
    interrupt_often(store, lambda _: store.function("endless_move", I_I)(60000), 100)


def run_with_handler(
    handler: Callable[[int, Any], None], body: Callable[[], bool], number: int = signal.SIGINT
) -> None:
    """Calls `body` until it returns false while signals 0 to 300 µs apart arrive, whose Python handler returns."""
    old = signal.signal(number, handler)
    gates().hook_signals()
    child = os.fork()
    if child == 0:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(random.uniform(0, 0.0003))
            os.kill(parent, number)
        os._exit(0)
    try:
        while body():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        signal.signal(number, old)
        gates().hook_signals()


@pytest.mark.parametrize("flags", [0, CALL_FLAG_RELEASE_GIL])
@pytest.mark.parametrize("name", ["work", "wide", "red_zone", "area_loop", "host_loop"])
def test_a_handler_that_returns_leaves_wasm_undisturbed(store: Store, name: str, flags: int) -> None:
    """All registers, flags and areas survive, although the handler runs wasm of the same store."""
    function = store.function(name, I_I, flags)
    swap = store.function("mixed", ft("iIfFiIfFiIfFiIfFiIfFiIfFrx", "iIfFiIfFiIfFiIfFiIfFiIfFrx"))
    values = [1, 2, 3.0, 4.0] * 6 + [None, None]
    store.set_import(0, lambda x: (x * 31 + 7) & 0x7FFFFFFF, HOST)
    expected = function(3000)
    hits = calls = 0

    def handler(number: int, frame: object) -> None:
        nonlocal hits
        hits += 1
        assert swap(*values) == values

    def body() -> bool:
        nonlocal calls
        calls += 1
        assert function(3000) == expected
        return hits < 400

    run_with_handler(handler, body)
    assert hits >= 400


def test_other_python_signal_handlers_run_too(store: Store) -> None:
    """SIGALRM with a handler that raises stops an endless loop: `signal.alarm` is a timeout for wasm."""

    class Timeout(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Timeout

    old = signal.signal(signal.SIGALRM, handler)
    try:
        gates().hook_signals()
        with pytest.raises(Timeout):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            store.function("endless", I_I)(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_making_a_callable_restores_the_hook(store: Store) -> None:
    """signal.signal puts CPython's handler in front of ours; the next callable that is made notices."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert gates()._signals.lost()
        endless = store.function("endless", I_I)
        assert not gates()._signals.lost()
        interrupt_often(store, endless, 3)
    finally:
        signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_ignored_and_default_signals_stay_so(store: Store, handler: signal.Handlers) -> None:
    old = signal.signal(signal.SIGTERM, handler)
    try:
        gates().hook_signals()
        with open("/proc/self/status") as file:
            status = dict(line.split(":", 1) for line in file)
        assert not int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_handler_may_change_mask_and_alternate_stack(store: Store) -> None:
    """Resuming restores the interrupted registers, not what the handler changed on purpose."""
    libc = ctypes.CDLL(None)
    work = store.function("work", I_I)
    stack = ctypes.create_string_buffer(65536)
    before = (ctypes.c_uint64 * 3)()
    now = (ctypes.c_uint64 * 3)()
    libc.sigaltstack(None, before)
    hits = 0

    def handler(number: int, frame: object) -> None:
        nonlocal hits
        hits += 1
        if hits == 20:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            assert libc.sigaltstack((ctypes.c_uint64 * 3)(ctypes.addressof(stack), 0, 65536), None) == 0

    def body() -> bool:
        work(100_000)  # long, so that the 20th signal comes in here and not in Python
        return hits < 25

    try:
        run_with_handler(handler, body)
        libc.sigaltstack(None, now)
        assert now[0] == ctypes.addressof(stack)
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        libc.sigaltstack(before, None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def test_a_signal_that_was_passed_on_counts_once(store: Store) -> None:
    """CPython writes a byte a signal to the wakeup file; asyncio reads them."""
    endless = store.function("endless", I_I, CALL_FLAG_RELEASE_GIL)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)

    ready = threading.Event()

    def send() -> None:
        ready.wait()
        time.sleep(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    signal.set_wakeup_fd(writer.fileno())
    try:
        for _ in range(5):
            thread = threading.Thread(target=send)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                ready.set()
                endless(1)
            ready.clear()
            thread.join()
            assert reader.recv(100) == bytes([signal.SIGINT])
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()


def test_signal_on_another_thread_reaches_the_main_thread(store: Store) -> None:
    """The kernel may deliver SIGINT to any thread; wasm loops on the main one, with the GIL released."""
    endless = store.function("endless", I_I, CALL_FLAG_RELEASE_GIL)
    ready = threading.Event()

    def send() -> None:
        ready.wait()
        time.sleep(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    for _ in range(20):
        ready.clear()
        thread = threading.Thread(target=send)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ready.set()
            endless(1)
        thread.join()


def test_interrupts_pass_a_thread_that_runs_wasm(store: Store) -> None:
    """Another thread's wasm is not stopped by a signal that is the main thread's business."""
    other = Store(code(), identity=2)
    results: list[int] = []
    work = other.function("work", I_I, CALL_FLAG_RELEASE_GIL)
    expected = work(300_000)
    thread = threading.Thread(target=lambda: results.extend(work(300_000) for _ in range(30)))
    caught = 0
    with interrupter(0.0, 0.0005) as send:
        thread.start()
        while thread.is_alive():
            with pytest.raises(KeyboardInterrupt):
                send()
                time.sleep(5)
            caught += 1
    thread.join()
    assert caught > 0
    assert results == [expected] * 30
    other.close()


def test_backtrace_of_an_interrupt_begins_at_the_interrupted_function(store: Store) -> None:
    with interrupter(0.002, 0.003) as send:
        with pytest.raises(KeyboardInterrupt) as caught:
            send()
            store.function("endless", I_I)(1)
    identity, exception, pcs, omitted = exceptions_seen[0]
    assert identity == 1
    assert exception is caught.value
    assert omitted == 0
    assert code().name(pcs[0]) == "endless"
    assert ctypes.string_at(pcs[0], 2) == b"\xeb\xfe", "the very instruction: a jump to itself"
