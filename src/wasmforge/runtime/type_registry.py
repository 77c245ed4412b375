"""Types made canonical for an engine (tables A2-07, A3-05): equal function types of all its modules and host functions
get one number, the `VMSharedTypeIndex`, so that a signature check in machine code compares two u32. Module loading
and host functions register types; vmctx records, import checks and `VMFuncRef`s hold the numbers.
"""

from __future__ import annotations

from _struct import pack

from wasmforge.runtime.libc import address_of
from wasmforge.runtime.lifetime import died, undo_after
from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NewType

    from wasmforge.syntax.types import FuncType

__all__ = ["TypeCollection", "TypeRegistry", "VMSharedTypeIndex"]

if TYPE_CHECKING:
    VMSharedTypeIndex = NewType("VMSharedTypeIndex", int)
else:
    VMSharedTypeIndex = int
"""The engine-wide number of a type; a u32 in records. 2**32-1 is never given out."""

MAX_TYPES = 1 << 24
"""More distinct types than this at a time are refused (Wasmtime's slab has the same order of limit)."""


class TypeRegistry:
    """Function types of one engine, reference-counted; safe to use from several threads."""

    __slots__ = ("_by_type", "_counts", "_free", "_lock", "_types")

    def __init__(self) -> None:
        # Reentrant: an allocation inside may start a garbage collection whose finalisers unregister types.
        self._lock = LOCK
        self._by_type: dict[FuncType, VMSharedTypeIndex] = {}
        self._types: list[FuncType | None] = []
        self._counts: list[int] = []
        self._free: list[VMSharedTypeIndex] = []

    def __len__(self) -> int:
        """The number of types that are in use."""
        return len(self._by_type)

    def register(self, types: Iterable[FuncType]) -> list[VMSharedTypeIndex]:
        """The index of each type, each counted once more; undo it with `unregister`. Raises WasmtimeError, having
        counted none, when there are too many types."""
        indices: list[VMSharedTypeIndex] = []
        with self._lock:
            try:
                for t in types:
                    indices.append(self._register(t))  # noqa: PERF401  # what was counted before a failure matters
            except WasmtimeError:
                self.unregister(indices)
                raise
        return indices

    def _register(self, t: FuncType) -> VMSharedTypeIndex:
        index = self._by_type.get(t)
        if index is not None:
            self._counts[index] += 1
            return index
        if self._free:
            index = self._free.pop()
            self._types[index] = t
            self._counts[index] = 1
        else:
            if len(self._types) >= MAX_TYPES:
                raise WasmtimeError(f"more than {MAX_TYPES} different function types in one engine; drop modules")
            index = VMSharedTypeIndex(len(self._types))
            self._types.append(t)
            self._counts.append(1)
        self._by_type[t] = index
        return index

    def unregister(self, indices: list[VMSharedTypeIndex]) -> None:
        """Takes back one registration of each, and removes it from the list. A type that nobody uses frees its slot for
        another.

        Threat: a freed index that a VMFuncRef still carries would make two types equal, and a call through it jump
        with the wrong signature. So whoever writes an index into a record keeps the registration until the record's
        store is gone.
        """
        with self._lock:
            while indices:
                index = indices[-1]
                if self._counts[index] == 1:
                    t = self._types[index]
                    assert t is not None
                    del self._by_type[t]
                    self._types[index] = None
                    self._free.append(index)
                self._counts[index] -= 1
                indices.pop()

    def lookup(self, index: int) -> FuncType:
        """The type of an index that is in use. Raises LookupError otherwise."""
        t = self._types[index]
        if t is None:
            raise LookupError(f"type index {index} is not in use")
        return t


class TypeCollection:
    """The registrations of one artifact: module type index to VMSharedTypeIndex. Dropping it unregisters them.

    `type_ids_address` is where machine code finds the same list, an array of u32 (vmctx.TYPE_IDS), valid while this
    object lives.
    """

    __slots__ = ("__weakref__", "_ids", "_indices", "_key", "type_ids_address")

    def __init__(self, registry: TypeRegistry, types: Iterable[FuncType]) -> None:
        self._key: int | None = None
        registered = registry.register(types)
        self._key = undo_after(self, lambda: registry.unregister(registered))
        self._indices = tuple(registered)
        self._ids = pack(f"<{len(self._indices)}I", *self._indices)
        self.type_ids_address = address_of(self._ids)

    def __del__(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            died(key)

    def __len__(self) -> int:
        return len(self._indices)

    def shared_type(self, module_type_index: int) -> VMSharedTypeIndex:
        return self._indices[module_type_index]
