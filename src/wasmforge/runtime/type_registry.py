"""Types made canonical for an engine (tables A2-07, A3-05): equal function types of all its modules and host functions
get one number, the `VMSharedTypeIndex`, so that a signature check in machine code compares two u32. Module loading
and host functions register types; vmctx records, import checks and `VMFuncRef`s hold the numbers.

A type of the engine is *closed*: where it names other types, the numbers are those of the registry. What is registered
are recursion groups (`syntax.canonical`), most of one type; a group holds a registration of every type that it names.
"""

from __future__ import annotations

from _struct import pack

from wasmforge.runtime.libc import address_of
from wasmforge.runtime.lifetime import died, undo_after
from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.canonical import group_key, groups
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import CONCRETE, FuncType, GlobalType, TableType, type_index, with_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NewType

    from wasmforge.syntax.canonical import GroupKey
    from wasmforge.syntax.types import MemoryType, ValType

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

    __slots__ = ("_by_group", "_by_type", "_counts", "_free", "_groups", "_lock", "_types")

    def __init__(self) -> None:
        # Reentrant: an allocation inside may start a garbage collection whose finalisers unregister types.
        self._lock = LOCK
        self._by_group: dict[GroupKey, _Group] = {}
        self._by_type: dict[FuncType, VMSharedTypeIndex] = {}  # closed; of several like it the oldest
        self._groups: list[_Group | None] = []
        self._types: list[FuncType | None] = []
        self._counts: list[int] = []
        self._free: list[VMSharedTypeIndex] = []

    def __len__(self) -> int:
        """The number of types that are in use."""
        return sum([len(group.members) for group in self._by_group.values()])

    def register(
        self, types: Sequence[FuncType], rec_groups: Sequence[tuple[int, int]] = ()
    ) -> list[VMSharedTypeIndex]:
        """The index of each type of a module, each counted once more; undo it with `unregister`. Raises WasmtimeError,
        having counted none, when there are too many types."""
        indices: list[VMSharedTypeIndex] = []
        with self._lock:
            try:
                for start, end in groups(len(types), rec_groups):
                    group = self._group(group_key(types, start, end, indices), types[start:end], indices, start)
                    for index in group.members:
                        self._counts[index] += 1
                        indices.append(index)
            except WasmtimeError:
                self.unregister(indices)
                raise
        return indices

    def register_closed(self, types: Iterable[FuncType]) -> list[VMSharedTypeIndex]:
        """As `register`, for types of this registry or such as are made of them."""
        indices: list[VMSharedTypeIndex] = []
        with self._lock:
            try:
                for t in types:
                    index = self._by_type.get(t)
                    if index is None:
                        group = self._group(((t.params, t.results),), (t,), None, 0)
                        (index,) = group.members
                    self._counts[index] += 1
                    indices.append(index)
            except WasmtimeError:
                self.unregister(indices)
                raise
        return indices

    def _group(
        self, key: GroupKey, types: Sequence[FuncType], names: list[VMSharedTypeIndex] | None, start: int
    ) -> _Group:
        """The group of a key, made if there is none, of types that are closed by `names` and their own indices, or are
        closed already. A group that nobody counts must be counted before the lock is given back."""
        group = self._by_group.get(key)
        if group is not None:
            return group
        if len(self._types) - len(self._free) + len(types) > MAX_TYPES:
            raise WasmtimeError(f"more than {MAX_TYPES} different function types in one engine; drop modules")
        group = _Group(key)
        for _ in types:
            if self._free:
                index = self._free.pop()
            else:
                index = VMSharedTypeIndex(len(self._types))
                self._types.append(None)
                self._counts.append(0)
                self._groups.append(None)
            self._groups[index] = group
            group.members.append(index)
        for index, t in zip(group.members, types, strict=True):
            closed = t
            if names is not None:
                params = _closed(t.params, names, start, group.members)
                results = _closed(t.results, names, start, group.members)
                closed = t if params is t.params and results is t.results else FuncType(params, results)
            self._types[index] = closed
            self._by_type.setdefault(closed, index)
        group.named.extend(self._named(group))
        for named in group.named:
            self._counts[named] += 1
        self._by_group[key] = group
        return group

    def _named(self, group: _Group) -> list[VMSharedTypeIndex]:
        """The types of other groups that those of a group name."""
        found: set[int] = set()
        for index in group.members:
            t = self.lookup(index)
            found.update([type_index(v) for v in t.params + t.results if v >= CONCRETE])
        return [VMSharedTypeIndex(x) for x in sorted(found.difference(group.members))]

    def unregister(self, indices: list[VMSharedTypeIndex]) -> None:
        """Takes back one registration of each, and removes it from the list. A group that nobody uses frees its slots
        for others.

        Threat: a freed index that a VMFuncRef still carries would make two types equal, and a call through it jump
        with the wrong signature. So whoever writes an index into a record keeps the registration until the record's
        store is gone.
        """
        with self._lock:
            while indices:
                index = indices[-1]
                self._counts[index] -= 1
                indices.pop()
                group = self._groups[index]
                if group is not None and not any(self._counts[member] for member in group.members):
                    self._drop(group)
                    indices.extend(group.named)  # not by recursion: types may name each other in long chains

    def _drop(self, group: _Group) -> None:
        del self._by_group[group.key]
        for index in group.members:
            t = self._types[index]
            if t is not None and self._by_type.get(t) == index:
                del self._by_type[t]
            self._types[index] = None
            self._groups[index] = None
            self._free.append(index)

    def lookup(self, index: int) -> FuncType:
        """The type of an index that is in use. Raises LookupError otherwise."""
        t = self._types[index]
        if t is None:
            raise LookupError(f"type index {index} is not in use")
        return t


def _closed(
    types: tuple[ValType, ...], names: Sequence[int], start: int, members: Sequence[int]
) -> tuple[ValType, ...]:
    """Value types of a module with the indices of the engine, which are `members` from type index `start` on."""
    for t in types:
        if t >= CONCRETE:
            break
    else:
        return types
    found = []
    for t in types:
        x = type_index(t)
        found.append(t if x < 0 else with_index(t, names[x] if x < start else members[x - start]))
    return tuple(found)


class _Group:
    """A recursion group: the indices of its types, and of the types of other groups that these name."""

    __slots__ = ("key", "members", "named")

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.members: list[VMSharedTypeIndex] = []
        self.named: list[VMSharedTypeIndex] = []


class TypeCollection:
    """The registrations of one artifact: module type index to VMSharedTypeIndex. Dropping it unregisters them.

    `type_ids_address` is where machine code finds the same list, an array of u32 (vmctx.TYPE_IDS), valid while this
    object lives.
    """

    __slots__ = ("__weakref__", "_ids", "_indices", "_key", "registry", "type_ids_address")

    def __init__(
        self,
        registry: TypeRegistry,
        types: Sequence[FuncType],
        rec_groups: Sequence[tuple[int, int]] = (),
        *,
        closed: bool = False,
    ) -> None:
        """`closed` if the types are of the registry already, or made of such."""
        self._key: int | None = None
        self.registry = registry
        registered = registry.register_closed(types) if closed else registry.register(types, rec_groups)
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

    def function_type(self, module_type_index: int) -> FuncType:
        """The closed type."""
        return self.registry.lookup(self._indices[module_type_index])

    def close(self, t: ValType) -> ValType:
        """A value type of the module with the index of the engine."""
        return with_index(t, self._indices[type_index(t)]) if t >= CONCRETE else t

    def close_extern(self, t: TableType | MemoryType | GlobalType) -> TableType | MemoryType | GlobalType:
        """The same for the type of a table or a global."""
        if isinstance(t, TableType):
            return t if t.element < CONCRETE else TableType(self.close(t.element), t.limits)
        if isinstance(t, GlobalType):
            return t if t.content < CONCRETE else GlobalType(self.close(t.content), t.mutable)
        return t
