"""Stopping wasm that runs: after a time (`Deadline`), or because another thread wants it (`request`). Limits of calls
and of the sandbox are built on it; a wasm loop pays nothing for it.

How it works. A deadline is a timer of the kernel that sends a signal to the very thread that runs wasm, so that nobody
needs the GIL, which an endless loop in wasm would keep for ever. The signal handler (`native/interrupts.py`) marks the
store and makes the thread call `_on_stop` at the interrupted instruction, or before wasm goes on if it is in the host;
what that raises unwinds the wasm frames, and if it returns, wasm goes on as if nothing had happened. The signal comes
again every few milliseconds until the deadline is taken back, so that none can be lost, a host function that swallows
the exception gains nothing, and stores that are entered within the deadline are stopped too.

What it cannot stop is Python: a host function that waits or computes goes on, and its wasm ends when it returns.
Functions that wait on behalf of a guest ask `remaining` and `check`.
"""

from __future__ import annotations

import _thread
import os
import time

from wasmforge.compiler.environ import StoreContext
from wasmforge.runtime.native import gates
from wasmforge.runtime.native.signals import STOP_SIGNAL
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from typing import Final

    from wasmforge.runtime.store import VMStore
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["Deadline", "Periodic", "check", "remaining", "request", "withdraw"]

_REPEAT: Final = 5_000_000
"""Nanoseconds between the signals after the first one."""

_SYS_TIMER_CREATE: Final = 222
_SYS_TIMER_SETTIME: Final = 223
_SYS_TIMER_DELETE: Final = 226
_CLOCK_MONOTONIC: Final = 1
_SIGEV_THREAD_ID: Final = 4
_TIMER_ABSTIME: Final = 1
_THREAD_MASK: Final = (1 << 48) - 1

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_pthread_kill: Final = ctypes.pythonapi.pthread_kill  # keeps the GIL, see `request`
_pthread_kill.argtypes = (ctypes.c_ulong, ctypes.c_int)


class _Slots:
    """The slots of `Gates.stop_slots` that are free."""

    def __init__(self) -> None:
        self.words = gates().stop_slots()
        self.lock = _thread.allocate_lock()
        self.free: list[int] = []
        self.used = 0

    def take(self) -> int:
        with self.lock:
            if self.free:
                return self.free.pop()
            if self.used == len(self.words):
                raise WasmtimeError("too many threads have deadlines")
            self.used += 1
            return self.used - 1

    def give_back(self, slot: int) -> None:
        self.words[slot] = 0
        self.free.append(slot)


def _create_timer(value: int) -> int:
    """A timer of the kernel that sends STOP_SIGNAL with `value`, the address of a slot, to the calling thread."""
    event = (ctypes.c_uint64 * 8)()  # struct sigevent: value, signal and kind, thread
    event[0] = value
    event[1] = STOP_SIGNAL | _SIGEV_THREAD_ID << 32
    event[2] = _thread.get_native_id()
    timer = ctypes.c_int()
    if _syscall(_SYS_TIMER_CREATE, _CLOCK_MONOTONIC, ctypes.addressof(event), ctypes.addressof(timer), None):
        error = ctypes.get_errno()
        raise WasmtimeError(f"no timer for a deadline: {os.strerror(error)}")
    number: int = timer.value
    return number


def _set_timer(timer: int, setting: ctypes.Array[ctypes.c_uint64], at: int, repeat: int) -> None:
    """Sets a timer to a time in nanoseconds, 0 for never, and again after each `repeat`."""
    setting[0], setting[1] = divmod(repeat, 1_000_000_000)
    setting[2], setting[3] = divmod(at, 1_000_000_000)
    if _syscall(_SYS_TIMER_SETTIME, timer, _TIMER_ABSTIME, ctypes.addressof(setting), None):
        raise WasmtimeError(f"cannot set the timer of a deadline: {os.strerror(ctypes.get_errno())}")


class _ThreadTimer:
    """The timer of one thread, and the deadlines that it stands for: those of nested calls, outermost first."""

    def __init__(self) -> None:
        slots = _slots()
        self.deadlines: list[Deadline] = []
        self._slots = slots
        self._slot = slots.take()
        self._address = ctypes.addressof(slots.words) + 8 * self._slot
        self._setting = (ctypes.c_uint64 * 4)()
        try:
            self._timer = self._create()
        except BaseException:
            slots.give_back(self._slot)
            raise

    def _create(self) -> int:
        timer = _create_timer(self._address)
        self._process = os.getpid()
        return timer

    def set(self) -> None:
        """Sets the timer to the earliest of the deadlines, or stops it. The innermost store is the one that is marked:
        its wasm runs."""
        if self._process != os.getpid():  # timers are not inherited by a child process
            self._timer = self._create()
        deadlines = self.deadlines
        self._slots.words[self._slot] = deadlines[-1].context if deadlines else 0
        at = min((d.at for d in deadlines), default=0)
        _set_timer(self._timer, self._setting, at, _REPEAT if at else 0)

    def __del__(
        self,
        getpid: Callable[[], int] = os.getpid,
        syscall: Callable[..., int] = _syscall,
        delete: int = _SYS_TIMER_DELETE,
    ) -> None:
        """The thread ends. (Names of modules may be gone when the process ends.)"""
        timer = getattr(self, "_timer", None)
        if timer is not None:
            if self._process == getpid():
                syscall(delete, timer, 0, None, None)
            self._slots.give_back(self._slot)


_the_slots: _Slots | None = None
_slots_lock = _thread.allocate_lock()
_threads = _thread._local()


def _slots() -> _Slots:
    global _the_slots
    with _slots_lock:
        if _the_slots is None:
            gates().set_hooks(on_stop=_on_stop)
            _the_slots = _Slots()
        return _the_slots


class Deadline:
    """Ends wasm of a store, in the calling thread, that runs for too long::

        with Deadline(vm_store, 2.5, lambda: TimeoutError("too slow")):
            function(...)

    Args:
        store: the store that is called; wasm of other stores that its host functions call counts too.
        seconds: how long, by the monotonic clock; 0 or less is over at once.
        expired: makes the exception that is raised in wasm. It may be asked again, as long as wasm goes on.

    Deadlines nest: each holds for what happens within it. Leaving the block takes the deadline back; if the time was
    over by then, nothing happens. Entering and leaving take 15 µs together.
    """

    __slots__ = ("_timer", "at", "context", "expired")

    def __init__(self, store: VMStore, seconds: float, expired: Callable[[], BaseException]) -> None:
        nanoseconds = int(min(max(seconds, 0), 1e9) * 1e9)  # 30 years, which the kernel can still add up
        self.context = store.context.address
        self.at = max(time.monotonic_ns() + nanoseconds, 1)
        self.expired = expired
        self._timer: _ThreadTimer | None = None

    def __enter__(self) -> Deadline:
        timer: _ThreadTimer | None = getattr(_threads, "timer", None)
        if timer is None:
            timer = _threads.timer = _ThreadTimer()
        gates().hook_stop()
        self._timer = timer
        timer.deadlines.append(self)
        try:
            timer.set()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.deadlines.remove(self)
            timer.set()


class Periodic:
    """Interrupts wasm of the calling thread again and again, to call `action` there, though nobody else gets the GIL;
    nothing happens while that thread runs no wasm.

    Args:
        seconds: between two interruptions, more than 0.
        action: what it raises unwinds wasm; when it returns, wasm goes on.
    """

    def __init__(self, seconds: float, action: Callable[[], None]) -> None:
        self._slots = _slots()
        gates().hook_stop()
        self._slot: int | None = self._slots.take()  # stays empty: no store is marked but the one that runs
        self._process = os.getpid()
        self._thread = _thread.get_ident()
        self._action = action
        try:
            self._timer = _create_timer(ctypes.addressof(self._slots.words) + 8 * self._slot)
        except BaseException:
            self._slots.give_back(self._slot)
            raise
        _periodic.setdefault(self._thread, []).append(action)
        interval = max(int(min(seconds, 1e9) * 1e9), 100_000)  # more often than that wasm would hardly get anywhere
        _set_timer(self._timer, (ctypes.c_uint64 * 4)(), time.monotonic_ns() + interval, interval)

    def close(self) -> None:
        """Ends it, from any thread."""
        slot, self._slot = self._slot, None
        if slot is not None:
            if self._process == os.getpid():
                _syscall(_SYS_TIMER_DELETE, self._timer, 0, None, None)
            actions = _periodic.get(self._thread, [])
            if self._action in actions:
                actions.remove(self._action)
            self._slots.give_back(slot)


_periodic: Final[dict[int, list[Callable[[], None]]]] = {}
"""What `Periodic` calls, by thread."""


def remaining() -> float | None:
    """Seconds until the first deadline of the calling thread, not less than 0; None when it has none. Functions that
    wait for something wait no longer."""
    timer: _ThreadTimer | None = getattr(_threads, "timer", None)
    if timer is None or not timer.deadlines:
        return None
    return max(min(d.at for d in timer.deadlines) - time.monotonic_ns(), 0) / 1e9


def check() -> None:
    """Raises the exception of a deadline of the calling thread that is over; the outermost one's."""
    timer: _ThreadTimer | None = getattr(_threads, "timer", None)
    if timer is not None:
        now = time.monotonic_ns()
        for deadline in timer.deadlines:
            if deadline.at <= now:
                raise deadline.expired()


_requests: Final[dict[int, list[Callable[[], None]]]] = {}


def request(store: VMStore, action: Callable[[], None]) -> None:
    """Has the thread that runs wasm of `store` call `action` as soon as possible, from any thread: at the instruction
    where wasm is, before it goes on after a host call, or, if it does not run, when it is entered next. What `action`
    raises unwinds wasm; when it returns, wasm goes on."""
    _slots()  # sets the hook
    gates().hook_stop()
    context = store.context.address
    _requests.setdefault(store.id, []).append(action)
    words = (ctypes.c_uint64 * (StoreContext.STOP // 8 + 1)).from_address(context)
    words[StoreContext.STOP // 8] = 1
    # A thread that has left wasm needs the GIL, which we hold, before it can end; so the number is that of a thread.
    if words[StoreContext.HOST_SP // 8] > 1:
        _pthread_kill(words[StoreContext.THREAD // 8] & _THREAD_MASK, STOP_SIGNAL)


def withdraw(store_id: int) -> None:
    """Forgets the requests that a store's thread has not taken up: the store goes, or what they were for is over."""
    _requests.pop(store_id, None)


def _on_stop(store_id: int) -> None:
    """The gates call this in the thread of a store that was told to stop."""
    for action in _requests.pop(store_id, ()):
        action()
    for action in list(_periodic.get(_thread.get_ident(), ())):
        action()
    check()
