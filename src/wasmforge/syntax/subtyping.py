"""Which value types match which (specification, section 3.3): the one place that knows the hierarchy of heap types.

Validation asks it about the types of a module, whose indices it has made canonical (`canonical.py`), the runtime about
those of an engine's registry. Equal types have equal numbers there, so that whoever is in a hurry compares first.
"""

from __future__ import annotations

from wasmforge.syntax.types import BOTTOM_REFERENCE, CONCRETE, FUNCREF, NON_NULL, is_reference

__all__ = ["all_match", "matches"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def matches(t: int, expected: int) -> bool:
    """Whether every value of type `t` is one of type `expected`, both with canonical type indices."""
    if t == expected:
        return True
    if not is_reference(t) or not is_reference(expected):
        return False
    if t == BOTTOM_REFERENCE:
        return True
    if expected & NON_NULL and not t & NON_NULL:
        return False
    heap = t & ~NON_NULL
    wanted = expected & ~NON_NULL
    # Every concrete type is a function type.
    return heap == wanted or (heap >= CONCRETE and wanted == FUNCREF)


def all_match(types: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether there are as many types as expected, and each matches."""
    return len(types) == len(expected) and all(map(matches, types, expected))
