"""Waiting on behalf of a guest: for descriptors of the host and for time to pass, and never longer than the deadline
of the calling thread allows (`runtime/deadline.py`), which cannot interrupt Python code by itself. In a program with
threads (`turns.py`) the others have their turn meanwhile, and the end of the program ends every wait.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from wasmforge.wasi.turns import Turn

__all__ = ["aside", "check", "poll", "ready", "sleep"]

_DEADLINES: Final = "wasmforge.runtime.deadline"
_TURNS: Final = "wasmforge.wasi.turns"

LONGEST_WAIT: Final = 3600.0
"""Seconds of one wait of the host; longer ones are made of several. (A timeout may be 584 years, which overflows.)"""


def _limited(seconds: float | None) -> float:
    """No more than the deadline leaves. A process that never imported the module has none."""
    seconds = LONGEST_WAIT if seconds is None else min(seconds, LONGEST_WAIT)
    deadlines = sys.modules.get(_DEADLINES)
    left: float | None = None if deadlines is None else deadlines.remaining()
    return seconds if left is None else min(seconds, left)


def _turn() -> Turn | None:
    """The call of a program with threads that the calling thread is in."""
    turns = sys.modules.get(_TURNS)
    return None if turns is None else turns.current()


def check() -> None:
    """Raises what a deadline that is over raises, and what ends a thread whose program has ended."""
    deadlines = sys.modules.get(_DEADLINES)
    if deadlines is not None:
        deadlines.check()
    turn = _turn()
    if turn is not None:
        turn.check()


def aside(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls what may wait for another thread of the guest."""
    turn = _turn()
    if turn is None:
        return function(*arguments)
    with turn.given_up():
        return function(*arguments)


def sleep(seconds: float) -> None:
    """Lets time pass, perhaps less than asked for."""
    import time

    seconds = _limited(seconds)
    turn = _turn()
    if turn is None:
        time.sleep(seconds)
    else:
        turn.sleep(seconds)
    check()


def poll(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
    """Waits until one of the descriptors (to events of poll(2)) has something, for `seconds` or a part of that; None is
    without end. What happened, by descriptor."""
    import select

    poll = select.poll()  # select.select would refuse descriptors above 1023
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    # Milliseconds, rounded up, so that the last part of a wait does not spin.
    milliseconds = -(-_limited(seconds) * 1000 // 1)
    turn = _turn()
    found = dict(poll.poll(milliseconds) if turn is None else turn.poll(poll, milliseconds))
    check()
    return found


def ready(descriptor: int, write: bool, always: bool = False) -> None:
    """Waits until a read or a write will not block; without a deadline only if `always`, since then the host's own
    waiting does."""
    deadlines = sys.modules.get(_DEADLINES)
    turn = _turn()
    if not always and turn is None and (deadlines is None or deadlines.remaining() is None):
        return
    import select

    wanted = {descriptor: select.POLLOUT if write else select.POLLIN}
    # Another thread of the guest may have taken what was there before this one has its turn again: the last look is
    # one that does not wait, and so keeps the turn.
    while not poll(wanted, None) or (turn is not None and not poll(wanted, 0)):
        pass
