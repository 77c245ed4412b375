"""WASI preview 1: `poll_oneoff`, waiting for clocks and descriptors. A row of the table in `preview1.py`."""

from __future__ import annotations

import time

from wasmforge.wasi import abi, waiting
from wasmforge.wasi.errno import BADF, INVAL, SUCCESS, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.guest_memory import GuestMemory

MAX_SUBSCRIPTIONS: Final = 4096
"""A memory of 4 GiB could hold 89 million; each costs the host an object."""


def poll_oneoff(
    context: WasiContext, memory: GuestMemory, subscriptions: int, events: int, count: int, result: int
) -> None:
    poll(context, memory, subscriptions, events, count, result, abi.SUBSCRIPTION_SIZE)


def poll(
    context: WasiContext,
    memory: GuestMemory,
    subscriptions: int,
    events: int,
    count: int,
    result: int,
    size: int,
    convert: Callable[[bytes], bytes] | None = None,
) -> None:
    """`poll_oneoff` with subscriptions of `size` bytes, which `convert` turns into those of preview 1."""
    memory.check(subscriptions, count * size, 8)
    memory.check(events, count * abi.EVENT_SIZE, 8)
    if not 0 < count <= MAX_SUBSCRIPTIONS:
        raise WasiError(INVAL)
    poll = _Poll(context)
    for i in range(count):
        record = memory.read(subscriptions + i * size, size)
        poll.subscribe(record if convert is None else convert(record))
    occurred = poll.wait()
    memory.write(events, b"".join(occurred))
    memory.write_u32(result, len(occurred))


class _Poll:
    """One call: what it waits for, and until when."""

    def __init__(self, context: WasiContext) -> None:
        self._context = context
        self._ready: list[bytes] = []  # events that need no waiting
        self._clocks: list[tuple[int, int]] = []  # deadline on the host's monotonic clock in ns, user data
        self._timeouts: list[tuple[int, int]] = []  # the same on the guest's clock: nanoseconds from now, user data
        self._waiting: list[tuple[int, bool, int]] = []  # host descriptor, for writing, user data

    def subscribe(self, record: bytes) -> None:
        user_data, kind = abi.SUBSCRIPTION_HEAD.unpack_from(record)
        if kind == abi.EVENTTYPE_CLOCK:
            clock, timeout, _, flags = abi.SUBSCRIPTION_CLOCK.unpack_from(record, abi.SUBSCRIPTION_UNION)
            if clock > abi.CLOCK_MONOTONIC or flags & ~abi.SUBCLOCKFLAGS_ABSTIME:
                raise WasiError(INVAL)
            if flags & abi.SUBCLOCKFLAGS_ABSTIME:
                timeout -= self._context.clocks.now(clock)
            self._timeouts.append((timeout, user_data))
            self._clocks.append((time.monotonic_ns() + timeout, user_data))
            return
        if kind not in (abi.EVENTTYPE_FD_READ, abi.EVENTTYPE_FD_WRITE):
            raise WasiError(INVAL)
        (fd,) = abi.U32.unpack_from(record, abi.SUBSCRIPTION_UNION)
        write = kind == abi.EVENTTYPE_FD_WRITE
        # A bad descriptor fails the call, as in Wasmtime.
        target = self._context.descriptors.get(fd).poll_target(write)
        if target is None:
            self._ready.append(_fd_event(user_data, write))
        else:
            self._waiting.append((target, write, user_data))

    def wait(self) -> list[bytes]:
        """Waits for the first event and returns all that have occurred by then."""
        if self._clocks and self._clocks_are_replaced():
            return self._let_time_pass()
        deadline = min(self._clocks)[0] if self._clocks else None
        while True:
            left = 0 if self._ready else None
            if deadline is not None and left is None:
                left = max(deadline - time.monotonic_ns(), 0)
            occurred = self._ready + self._wait_for_descriptors(left)
            now = time.monotonic_ns()
            occurred += [
                abi.EVENT.pack(user_data, SUCCESS, abi.EVENTTYPE_CLOCK, 0, 0)
                for at, user_data in self._clocks
                if at <= now
            ]
            if occurred:
                return occurred

    def _clocks_are_replaced(self) -> bool:
        """Whether time passes as the embedder wants; then a guest that sleeps may be on time at once."""
        from wasmforge.wasi.clocks import Clocks

        return type(self._context.clocks).sleep is not Clocks.sleep

    def _let_time_pass(self) -> list[bytes]:
        """`wait` for clocks that do not follow the host's."""
        occurred = self._ready + (self._wait_for_descriptors(0) if self._waiting else [])
        passed = 0
        if not occurred:
            passed = max(min(self._timeouts)[0], 0)
            if not self._context.clocks.sleep(passed):
                waiting.sleep(passed / 1e9)
        occurred += [
            abi.EVENT.pack(user_data, SUCCESS, abi.EVENTTYPE_CLOCK, 0, 0)
            for timeout, user_data in self._timeouts
            if timeout <= passed
        ]
        return occurred

    def _wait_for_descriptors(self, left: int | None) -> list[bytes]:
        """Waits for at most `left` nanoseconds (None: without end), or a part of that."""
        seconds = None if left is None else left / 1e9
        if not self._waiting:
            if seconds != 0:
                waiting.sleep(waiting.LONGEST_WAIT if seconds is None else seconds)
            return []
        import select

        wanted: dict[int, int] = {}
        for target, write, _ in self._waiting:
            wanted[target] = wanted.get(target, 0) | (select.POLLOUT if write else select.POLLIN)
        found = waiting.poll(wanted, seconds)
        events = []
        for target, write, user_data in self._waiting:
            happened = found.get(target, 0)
            if happened & select.POLLNVAL:
                raise WasiError(BADF)
            if happened & ((select.POLLOUT if write else select.POLLIN) | select.POLLHUP | select.POLLERR):
                events.append(_fd_event(user_data, write, hangup=bool(happened & select.POLLHUP)))
        return events


def _fd_event(user_data: int, write: bool, hangup: bool = False) -> bytes:
    kind = abi.EVENTTYPE_FD_WRITE if write else abi.EVENTTYPE_FD_READ
    flags = abi.EVENT_FD_READWRITE_HANGUP if hangup else 0
    return abi.EVENT.pack(user_data, SUCCESS, kind, 1, flags)  # "at least one byte": nobody knows more
