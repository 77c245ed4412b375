"""How much processor time a program has taken, across fork: what tier-up and the growing cache wait for, and measure
themselves by.

A child's own count begins at 0. What was noted before it was made would be far ahead of that, so that a server's
children, say, would optimise nothing until each has taken as much time as its parent had.
"""

from __future__ import annotations

import os
from time import process_time

__all__ = ["age"]

_ancestors = 0.0
_at_fork = 0.0


def age() -> float:
    """Seconds of processor time that this process has taken, and its ancestors had when they forked."""
    return _ancestors + process_time()


def _before_fork() -> None:
    global _at_fork
    _at_fork = age()


def _after_fork_in_child() -> None:
    global _ancestors
    _ancestors = _at_fork


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
