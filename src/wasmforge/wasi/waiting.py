"""Waiting on behalf of a guest: for descriptors of the host and for time to pass, and never longer than the deadline
of the calling thread allows (`runtime/deadline.py`), which cannot interrupt Python code by itself.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["check", "poll", "ready", "sleep"]

_DEADLINES: Final = "wasmforge.runtime.deadline"

LONGEST_WAIT: Final = 3600.0
"""Seconds of one wait of the host; longer ones are made of several. (A timeout may be 584 years, which overflows.)"""


def _limited(seconds: float | None) -> float:
    """No more than the deadline leaves. A process that never imported the module has none."""
    seconds = LONGEST_WAIT if seconds is None else min(seconds, LONGEST_WAIT)
    deadlines = sys.modules.get(_DEADLINES)
    left: float | None = None if deadlines is None else deadlines.remaining()
    return seconds if left is None else min(seconds, left)


def check() -> None:
    """Raises what a deadline that is over raises."""
    deadlines = sys.modules.get(_DEADLINES)
    if deadlines is not None:
        deadlines.check()


def sleep(seconds: float) -> None:
    """Lets time pass, perhaps less than asked for."""
    import time

    time.sleep(_limited(seconds))
    check()


def poll(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
    """Waits until one of the descriptors (to events of poll(2)) has something, for `seconds` or a part of that; None is
    without end. What happened, by descriptor."""
    import select

    poll = select.poll()  # select.select would refuse descriptors above 1023
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    # Milliseconds, rounded up, so that the last part of a wait does not spin.
    found = dict(poll.poll(-(-_limited(seconds) * 1000 // 1)))
    check()
    return found


def ready(descriptor: int, write: bool, always: bool = False) -> None:
    """Waits until a read or a write will not block; without a deadline only if `always`, since then the host's own
    waiting does."""
    deadlines = sys.modules.get(_DEADLINES)
    if not always and (deadlines is None or deadlines.remaining() is None):
        return
    import select

    while not poll({descriptor: select.POLLOUT if write else select.POLLIN}, None):
        pass
