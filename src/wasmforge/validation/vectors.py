"""What the body validator knows of each vector instruction, as tables indexed by the number behind the prefix 0xFD.

Built from the instruction table; `body` reads them in its walk.
"""

from __future__ import annotations

from wasmforge.syntax import vectors
from wasmforge.syntax.instructions import BY_OPCODE, Immediate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.syntax.instructions import InstructionRow

__all__ = [
    "ACCESS",
    "ACCESS_LANE",
    "COUNT",
    "FIRST_RELAXED",
    "LANE",
    "LITERAL",
    "NO_INSTRUCTION",
    "PLAIN",
    "SHUFFLE",
    "VECTOR_ALIGNMENT",
    "VECTOR_KIND",
    "VECTOR_LANES",
    "VECTOR_PARAMS",
    "VECTOR_RESULTS",
]

NO_INSTRUCTION: Final = 0
PLAIN: Final = 1
"""No immediates."""
LANE: Final = 2
SHUFFLE: Final = 3
LITERAL: Final = 4
ACCESS: Final = 5
ACCESS_LANE: Final = 6
"""A load or store of one lane."""

_KINDS: Final[dict[tuple[Immediate, ...], int]] = {
    (): PLAIN,
    (Immediate.LANE,): LANE,
    (Immediate.LANES,): SHUFFLE,
    (Immediate.V128_CONST,): LITERAL,
    (Immediate.MEMARG,): ACCESS,
    (Immediate.MEMARG, Immediate.LANE): ACCESS_LANE,
}

_ROWS: Final[dict[int, InstructionRow]] = {o & 0xFFF: row for o, row in BY_OPCODE.items() if o >> 12 == 0xFD}
COUNT: Final = max(_ROWS) + 1
"""Length of the tables."""
FIRST_RELAXED: Final = vectors.FIRST_RELAXED

VECTOR_KIND: Final = bytes(_KINDS[_ROWS[n].immediates] if n in _ROWS else NO_INSTRUCTION for n in range(COUNT))
VECTOR_LANES: Final = bytes(_ROWS[n].lanes if n in _ROWS else 0 for n in range(COUNT))
VECTOR_ALIGNMENT: Final = bytes(max(_ROWS[n].access.bit_length() - 1, 0) if n in _ROWS else 0 for n in range(COUNT))
"""The exponent of the natural alignment of an access."""
VECTOR_PARAMS: Final[list[list[int]]] = [list(_ROWS[n].params or ()) if n in _ROWS else [] for n in range(COUNT)]
VECTOR_RESULTS: Final[list[list[int]]] = [list(_ROWS[n].results or ()) if n in _ROWS else [] for n in range(COUNT)]
