"""WASI for a guest with threads, which share one context: `Turns`, by which one thread at a time is in a call, and the
table of descriptors that minds the others. `threads.py` makes them, `binding.py` puts them around the functions, and
`waiting.py` gives the turn up while a call waits.

Threat: threads of a guest race with each other as the guest likes. One that closes a descriptor while another reads
from it could have the host process open a file of its own under the same host number, which the guest would read then.
Two that close the same descriptor could free its number twice, and an object written in Python for one thread at a time
could be left half changed. So every call is one step, except where it waits; and what a call has looked up stays open
until the call is over, whatever others do while it waits.
"""

from __future__ import annotations

import _thread

from wasmforge.wasi.descriptors import DescriptorTable
from wasmforge.wasi.errno import MFILE, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable
    from typing import Any, Final

    from wasmforge.runtime.thread_group import ThreadGroup
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.descriptors import Descriptor

__all__ = ["SharedDescriptorTable", "Turn", "Turns", "current", "share"]

_SLICE: Final = 0.05
"""Seconds between looks at whether the program has ended, for a thread that waits for its turn."""

_local = _thread._local()


def current() -> Turn | None:
    """The innermost call that the calling thread is in."""
    turn: Turn | None = getattr(_local, "turn", None)
    return turn


class Turns:
    """Who may be in a call of WASI: one thread of the group."""

    __slots__ = ("group", "lock")

    def __init__(self, group: ThreadGroup) -> None:
        self.group = group
        self.lock: Any = _thread.RLock()  # an embedder's stream may call the guest, which calls WASI

    def around(self, call: Callable[..., int]) -> Callable[..., int]:
        """A host function for threads, from one for a single thread."""

        def in_turn(caller: Any, *values: int) -> int:
            turn = Turn(self)
            try:
                return call(caller, *values)
            finally:
                turn.end()

        return in_turn


class Turn:
    """A call; it begins when the object is made."""

    __slots__ = ("_lock", "_outer", "group", "held")

    def __init__(self, turns: Turns) -> None:
        self.group = turns.group
        self._lock = turns.lock
        self.held: list[tuple[SharedDescriptorTable, Descriptor]] = []
        while not self._lock.acquire(timeout=_SLICE):
            self.group.check()
        self._outer = current()
        _local.turn = self

    def end(self) -> None:
        _local.turn = self._outer
        try:
            while self.held:
                table, descriptor = self.held.pop()
                table.release(descriptor)
        finally:
            self._lock.release()

    def check(self) -> None:
        """Raises when the program has ended."""
        self.group.check()

    def given_up(self) -> _GivenUp:
        """A block within which others have their turn."""
        return _GivenUp(self._lock)

    def poll(self, poll: select.poll, milliseconds: float) -> list[tuple[int, int]]:
        """`poll.poll`, which the end of the program ends too. One that does not wait keeps the turn."""
        if not milliseconds:
            return poll.poll(0)
        wake = self.group.wake
        poll.register(wake, 1)  # POLLIN
        with self.given_up():
            found = poll.poll(milliseconds)
        return [(descriptor, events) for descriptor, events in found if descriptor != wake]

    def sleep(self, seconds: float) -> None:
        import select
        import time

        if seconds < 0.001:  # poll counts in milliseconds
            with self.given_up():
                time.sleep(seconds)
        else:
            self.poll(select.poll(), seconds * 1000)


class _GivenUp:
    """The lock is free within the block, however often the thread holds it."""

    __slots__ = ("_lock", "_state")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._state: Any = None

    def __enter__(self) -> None:
        self._state = self._lock._release_save()  # what threading.Condition does

    def __exit__(self, *_: object) -> None:
        self._lock._acquire_restore(self._state)


class SharedDescriptorTable(DescriptorTable):
    """A table whose descriptors stay open while a call uses them. Everything here happens in somebody's turn."""

    __slots__ = ("_condemned", "_users")

    def __init__(self, table: DescriptorTable) -> None:
        super().__init__(table.limit, table._native)
        self.exceeded = table.exceeded
        self._entries = table._entries
        self._free = table._free
        self._next = table._next
        self._users: dict[Descriptor, int] = {}
        self._condemned: set[Descriptor] = set()
        """What no number stands for any more, and a call still uses."""

    def get(self, number: int) -> Descriptor:
        descriptor = super().get(number)
        turn = current()
        if turn is not None:
            turn.held.append((self, descriptor))
            self._users[descriptor] = self._users.get(descriptor, 0) + 1
        return descriptor

    def release(self, descriptor: Descriptor) -> None:
        """A call is over that had got it."""
        users = self._users[descriptor] - 1
        if users:
            self._users[descriptor] = users
            return
        del self._users[descriptor]
        if descriptor in self._condemned:
            self._condemned.remove(descriptor)
            descriptor.close()

    def reserve(self) -> None:
        # Threat: a thread that waits keeps a descriptor of the host open that has no number any more. They count.
        if len(self._entries) + len(self._condemned) >= self.limit:
            raise WasiError(MFILE) if self.exceeded is None else self.exceeded()

    def _dispose(self, descriptor: Descriptor) -> None:
        if descriptor in self._users:
            self._condemned.add(descriptor)
        else:
            descriptor.close()


def share(context: WasiContext) -> None:
    """Prepares a context for threads. (Those that hold the table of before see the same entries, but mind nobody.)"""
    if not isinstance(context.descriptors, SharedDescriptorTable):
        context.native.share()
        context.descriptors = SharedDescriptorTable(context.descriptors)
