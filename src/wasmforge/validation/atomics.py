"""What the body validator knows of each atomic instruction, as tables indexed by the number behind the prefix 0xFE.

Built from the instruction table; `body` reads them in its walk.
"""

from __future__ import annotations

from wasmforge.syntax.instructions import BY_OPCODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.syntax.instructions import InstructionRow

__all__ = ["ATOMIC_ALIGNMENT", "ATOMIC_PARAMS", "ATOMIC_RESULTS", "COUNT", "FENCE", "NO_INSTRUCTION"]

_ROWS: Final[dict[int, InstructionRow]] = {o & 0xFFF: row for o, row in BY_OPCODE.items() if o >> 12 == 0xFE}
COUNT: Final = max(_ROWS) + 1
"""Length of the tables."""

NO_INSTRUCTION: Final = 255
FENCE: Final = 254


def _alignment(number: int) -> int:
    row = _ROWS.get(number)
    if row is None:
        return NO_INSTRUCTION
    return row.access.bit_length() - 1 if row.access else FENCE


ATOMIC_ALIGNMENT: Final = bytes(_alignment(n) for n in range(COUNT))
"""The exponent of the alignment of an access, which must be written in its memarg, or one of the constants above."""
ATOMIC_PARAMS: Final[list[list[int]]] = [list(_ROWS[n].params or ()) if n in _ROWS else [] for n in range(COUNT)]
ATOMIC_RESULTS: Final[list[list[int]]] = [list(_ROWS[n].results or ()) if n in _ROWS else [] for n in range(COUNT)]
