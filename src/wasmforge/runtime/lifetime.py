"""Undoing what an object has registered outside of Python (entries in the handler's tables, a stack from a pool, type
indices) when it goes. `VMStore`, `EngineCode`, `StoreCode` and `TypeCollection` use it; memory itself is owned by
`mapping.Mmap` and needs none of it.

Two threats, both attacked in tests/runtime/test_lifetime.py.

The garbage collector runs every `__del__` of a cycle before it frees anything, in any order, so others' finalisers may
still use what ours has undone. So while the collector works, undoing waits until it has finished.

A `__del__` cannot run at all at the recursion limit: the interpreter reports a RecursionError and goes on. So what is
to be undone stands in a table here until it has been, and whatever a dead owner has left is found later, when the
table has doubled.
"""

from __future__ import annotations

import gc
from _weakref import ref
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["collecting", "died", "undo_after", "undo_left_behind"]

_FIRST_SWEEP: Final = 256

_keys: Final = count()
_undo: Final[dict[int, tuple[ref[object], Callable[[], None]]]] = {}
_waiting: Final[list[int]] = []
_sweep_at = _FIRST_SWEEP
_collecting = False


def undo_after(owner: object, undo: Callable[[], None]) -> int:
    """Promises to call `undo` some time after `owner` is gone; at once if its `__del__` calls `died` with the key that
    this returns.

    `undo` must not refer to `owner`, and must hold the mappings whose addresses it unregisters: otherwise another
    thread could map and register the same addresses first. It may be called again after it failed half-way.
    """
    if len(_undo) >= _sweep_at:
        undo_left_behind()
    key = next(_keys)
    _undo[key] = ref(owner), undo
    return key


def collecting() -> bool:
    """Whether the garbage collector works at the moment, so that finalisers run of what others may still use."""
    return _collecting


def died(key: int) -> None:
    """Undoes what belongs to a key, now or when the garbage collector has finished."""
    if _collecting:
        _waiting.append(key)
    else:
        _run(key)


def undo_left_behind() -> None:
    """Undoes what owners have left behind whose `__del__` failed. Does nothing while the garbage collector works: the
    weak references of garbage are dead before its finalisers have run."""
    global _sweep_at
    if _collecting:
        return
    for key, (owner, _) in list(_undo.items()):
        if owner() is None:
            _run(key)
    _sweep_at = max(_FIRST_SWEEP, 2 * len(_undo))


def _run(key: int) -> None:
    entry = _undo.get(key)
    if entry is not None:
        entry[1]()
        _undo.pop(key, None)


def _watch_collector(phase: str, _info: dict[str, int]) -> None:
    global _collecting
    _collecting = phase == "start"
    if not _collecting:
        while _waiting:
            _run(_waiting.pop())


gc.callbacks.append(_watch_collector)
