"""`ExternRefTable`: the Python objects that a store's wasm refers to. Wasm holds u32 handles; the gates and the value
conversions of tables and globals turn objects into handles and back.

An object has one handle for as long as it has any. Handles are collected when their number has doubled and no wasm of
the store is active, so that every handle that wasm can still use stands in a table, a global or an element segment.
"""

from __future__ import annotations

from sys import getrefcount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["ExternRefTable"]

FIRST_SWEEP: Final = 1024
MAX_HANDLES: Final = (1 << 32) - 1

_probe: Final = [object()]
# Counted in the same form of expression as in `sweep`, because CPython versions differ in what they count.
_ALONE: Final = getrefcount(_probe[0])


class ExternRefTable:
    """Handles of one store. 0 is null.

    `roots` returns the handles that the store's tables, globals and segments hold, and how many places it looked at;
    `is_active` says whether wasm of the store is on a stack.
    """

    __slots__ = ("_free", "_handles", "_is_active", "_objects", "_roots", "_sweep_at")

    def __init__(self, roots: Callable[[], tuple[set[int], int]], is_active: Callable[[], bool]) -> None:
        self._objects: list[object] = [None]
        self._handles: dict[int, int] = {}  # by id(object); the object is alive because `_objects` holds it
        self._free: list[int] = []
        self._roots = roots
        self._is_active = is_active
        self._sweep_at = FIRST_SWEEP

    def __len__(self) -> int:
        """The number of handles in use."""
        return len(self._handles)

    def handle(self, value: object) -> int:
        """The handle of an object; a new one if it has none. Raises OverflowError when all are in use."""
        if value is None:
            return 0
        handle = self._handles.get(id(value))
        if handle is not None:
            return handle
        if len(self._handles) >= self._sweep_at and not self._is_active():
            self.sweep()
        if self._free:
            handle = self._free.pop()
            self._objects[handle] = value
        else:
            handle = len(self._objects)
            if handle > MAX_HANDLES:
                raise OverflowError("more than 2**32 - 1 externrefs in one store")
            self._objects.append(value)
        self._handles[id(value)] = handle
        return handle

    def value(self, handle: int) -> object:
        """The object of a handle. Raises LookupError for one that is not in use, which wasm cannot have."""
        value = self._objects[handle]
        if value is None and handle:
            raise LookupError(f"externref handle {handle} is not in use")
        return value

    def sweep(self) -> None:
        """Frees the handles that nothing can use any more. Only while no wasm of the store is active.

        Threat: a handle freed too early names another object later, and the guest gets what it was never given. While
        arguments are converted a handle may exist that no root holds yet; but then the caller still holds the object
        itself. So a handle is only freed when, besides no root having it, nobody but this table refers to the object.
        """
        live, looked_at = self._roots()
        objects = self._objects
        dead = [h for h in self._handles.values() if h not in live and getrefcount(objects[h]) == _ALONE]
        # Dropping an object may run its __del__, which may come back here: the table is consistent before that.
        dropped = []
        for handle in dead:
            dropped.append(objects[handle])
            del self._handles[id(objects[handle])]
            objects[handle] = None
        self._free.extend(dead)
        # Threat: a guest with a huge table makes each sweep slow. The work is spread over as many new handles.
        self._sweep_at = max(FIRST_SWEEP, 2 * len(self._handles), len(self._handles) + looked_at // 4)
        del dropped
