"""How accesses to a memory are checked: what compiled code may leave to guard pages, and what it must compare. Both
compilers ask `memory_plan` for every memory; the runtime (`runtime/vm/memory.py`) keeps the other half of the bargain.

An access touches the `size` bytes from `index + offset` on, and traps unless they all lie below the memory's length.
Let `end` be `offset + size`, which is a constant. With the inaccessible guard behind the memory these are enough:

- 32-bit memory, `end` within the guard: nothing. The whole index space is reserved.
- 64-bit memory, `end` within the guard: `index < length`. What then lies beyond the length lies in inaccessible pages.

Both need a length that is a whole number of the host's pages, so not the memories with pages of one byte, and signals.
Everything else compares the sum with the length, and knows that a memory is never smaller than its type says.
"""

from __future__ import annotations

from wasmforge.syntax.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.compiler.environ import Tunables
    from wasmforge.syntax.types import MemoryType

__all__ = ["INDEX_SPACE", "UNREACHABLE_SIZE", "MemoryPlan", "memory_plan"]

INDEX_SPACE: Final = 1 << 32
"""Bytes that a 32-bit index reaches."""

UNREACHABLE_SIZE: Final = 1 << 60
"""No memory is this large, since a process has less address space: an access that ends behind it always traps. Twice
the sum of an index and an end below it fits an i64, in which the baseline compiler computes."""


class MemoryPlan(NamedTuple):
    """`guard` is the largest `end` that the guard behind the memory is good for, 0 if none; `minimum` the bytes that
    the memory has at least; the length of a `shared` one changes at any time."""

    is_64: bool
    page_size_log2: int
    minimum: int
    guard: int
    shared: bool


def memory_plan(memory: MemoryType, tunables: Tunables) -> MemoryPlan:
    """The plan for a memory of this type."""
    guarded = tunables.signals_based_traps and memory.page_size_log2 == 16
    if not memory.is_64 and tunables.memory_reservation < INDEX_SPACE:
        guarded = False
    guard = tunables.memory_guard_size if guarded else 0
    return MemoryPlan(memory.is_64, memory.page_size_log2, memory.minimum_bytes, guard, memory.shared)
