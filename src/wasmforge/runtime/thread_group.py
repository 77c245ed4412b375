"""`ThreadGroup`: the threads of one guest program, which end together. `wasi/threads.py` makes one for a program that
may spawn threads; whatever waits on behalf of a guest (`vm/shared_memory.py`, `wasi/waiting.py`) asks `current`.

A thread of a guest is somewhere in wasm, parked at an address of a shared memory, or in a host function. `end` reaches
each: it injects a call into wasm (`deadline.request`), wakes the parked, and makes a descriptor readable beside which
host functions wait.
"""

from __future__ import annotations

import _thread
import os

from wasmforge.runtime.deadline import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.shared_memory import SharedLinearMemory

__all__ = ["Stopped", "ThreadGroup", "current"]

_local = _thread._local()


class Stopped(BaseException):
    """Unwinds a thread whose program has ended. No `Exception`: a host function must not take it for its guest's."""


def current() -> ThreadGroup | None:
    """The group whose guest the calling thread runs."""
    group: ThreadGroup | None = getattr(_local, "group", None)
    return None if group is None or group.closed else group


class ThreadGroup:
    """The threads of one program. The first end counts; `error` is what the main thread raises then (None: nothing).

    `wake` is a descriptor that is readable from the end on.
    """

    __slots__ = ("__weakref__", "_lock", "_parked", "_stores", "closed", "ended", "error", "wake")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._stores: dict[int, Any] = {}  # weak references: the main store may be gone before the group
        self._parked: dict[Any, tuple[SharedLinearMemory, int]] = {}
        self.ended = False
        self.closed = False
        self.error: BaseException | None = None
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # names of modules may be gone at the very end
        wake = getattr(self, "wake", -1)
        if wake >= 0:
            close(wake)

    def enter(self, spawned: bool = False) -> ThreadGroup | None:
        """The calling thread runs guests of this group from now on. Returns the group that it belonged to."""
        before = current()
        _local.group = self
        if spawned:
            _local.spawned = True
        return before

    def leave(self, before: ThreadGroup | None) -> None:
        """The calling thread belongs to `before` again."""
        if getattr(_local, "group", None) is self:
            _local.group = before

    def add(self, store: VMStore) -> bool:
        """Adds the store of a thread. False when the program has ended."""
        with self._lock:
            if self.ended:
                return False
            self._stores[store.id] = store.weak
            return True

    def remove(self, store_id: int) -> None:
        with self._lock:
            self._stores.pop(store_id, None)

    def end(self, error: BaseException | None) -> bool:
        """Ends the program: every other thread stops where it is. False when it had ended before."""
        with self._lock:
            if self.ended:
                return False
            self.error = error
            self.ended = True
        os.eventfd_write(self.wake, 1)
        self.interrupt()
        return True

    def interrupt(self) -> None:
        """Tells every thread that is left that the program has ended."""
        with self._lock:  # so that nothing is requested of a store that has left
            for weak in self._stores.values():
                store = weak()
                if store is not None:
                    request(store, self.check)
            parked = list(self._parked.items())
        for lock, (memory, address) in parked:
            memory.wake(address, lock)

    def check(self) -> None:
        """Raises what ends the calling thread once the program has ended."""
        if self.ended and not self.closed:
            if self.error is None or getattr(_local, "spawned", False):
                raise Stopped
            raise self.error

    def park(self, lock: Any, memory: SharedLinearMemory, address: int) -> None:
        """The calling thread is about to wait for `lock`. Raises when the program has ended: nobody would wake it."""
        with self._lock:
            if not self.ended:
                self._parked[lock] = memory, address
        self.check()

    def unpark(self, lock: Any) -> None:
        """It has stopped waiting. Raises when that was because the program has ended."""
        with self._lock:
            self._parked.pop(lock, None)
        self.check()
