"""Equal types get equal indices (specification, section 3.1.5: equivalence of recursive types).

A type index means a place in a recursion group, and two groups are equal when their types are, references inside of the
group being compared by their place in it and all others by what they denote. Validation and the linker of images make
the type indices of one module canonical with this, the runtime's registry those of all modules of an engine.
"""

from __future__ import annotations

from wasmforge.syntax.types import CONCRETE, INDEX_SHIFT, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from wasmforge.syntax.types import FuncType

    GroupKey: TypeAlias = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

__all__ = ["canonical_types", "group_key", "groups", "rename"]

_INDEX: int = (1 << INDEX_SHIFT) - 1


def groups(count: int, rec_groups: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First and last index, exclusive, of every group of a module with `count` types."""
    at = 0
    for start, size in rec_groups:
        while at < start:
            yield at, at + 1
            at += 1
        yield start, start + size
        at = start + size
    while at < count:
        yield at, at + 1
        at += 1


def rename(types: tuple[ValType, ...], names: Sequence[int], start: int = 1 << 62) -> tuple[ValType, ...]:
    """Value types with other indices: `names[x]` for type index x, and negative numbers, which are no types, for
    references from `start` on, by their distance."""
    for t in types:
        if t >= CONCRETE:
            return tuple([_rename(t, names, start) for t in types])
    return types


def _rename(t: ValType, names: Sequence[int], start: int) -> ValType:
    if t < CONCRETE:
        return t
    index = t >> INDEX_SHIFT
    if index >= start:
        return ValType(-((index - start) << INDEX_SHIFT | t & _INDEX))
    return ValType(t & _INDEX | names[index] << INDEX_SHIFT)


def group_key(types: Sequence[FuncType], start: int, end: int, names: Sequence[int]) -> GroupKey:
    """What is equal for two groups when they are, given the canonical indices of all types before the group."""
    return tuple([(rename(ft.params, names, start), rename(ft.results, names, start)) for ft in types[start:end]])


def canonical_types(types: Sequence[FuncType], rec_groups: Sequence[tuple[int, int]] = ()) -> list[int]:
    """For every type index the smallest one of an equal type. References must name types of their own group or of
    groups before it, which validation checks."""
    first: dict[GroupKey, int] = {}
    found: list[int] = []
    for start, end in groups(len(types), rec_groups):
        same = first.setdefault(group_key(types, start, end, found), start)
        found.extend(range(same, same + end - start))
    return found
