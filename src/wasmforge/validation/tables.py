"""What the body validator knows of each one-byte opcode, as bytes indexed by opcode, built from the instruction table.

Ordinary instructions, those whose type does not depend on the context, need nothing but these rows; `KIND` tells the
loop which of the shapes below an opcode has. Prefixed ordinary instructions come as a dictionary of signatures.
"""

from __future__ import annotations

from wasmforge.binary.types import VALUE_TYPE_BYTES
from wasmforge.syntax.instructions import BY_OPCODE, INSTRUCTIONS, InstructionRow
from wasmforge.syntax.types import V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "BINARY",
    "BLOCK_RESULT",
    "CONTEXT",
    "KIND",
    "LOAD",
    "NATURAL_ALIGNMENT",
    "NONE",
    "OPERAND",
    "PREFIXED",
    "RESULT",
    "STORE",
    "UNARY",
    "VALUE_TYPE",
    "VALUE_TYPE_WITHOUT_V128",
]

NONE: Final = 0
"""No instruction."""
CONTEXT: Final = 1
"""Anything that the loop handles by opcode."""
UNARY: Final = 2
"""One operand, one result."""
BINARY: Final = 3
"""Two operands of one type, one result."""
LOAD: Final = 4
STORE: Final = 5


def _kind(row: InstructionRow) -> int:
    if row.access:
        return LOAD if row.results else STORE
    if row.immediates or row.params is None or row.results is None:
        return CONTEXT
    if len(row.results) != 1:
        return CONTEXT
    if len(row.params) == 1:
        return UNARY
    return BINARY if len(row.params) == 2 and row.params[0] == row.params[1] else CONTEXT


def _table(value: dict[int, int]) -> bytes:
    return bytes(value.get(opcode, 0) for opcode in range(256))


_ONE_BYTE: Final = {opcode: row for opcode, row in BY_OPCODE.items() if opcode < 256}

KIND: Final = _table({opcode: _kind(row) for opcode, row in _ONE_BYTE.items()})

OPERAND: Final = _table({opcode: row.params[-1] for opcode, row in _ONE_BYTE.items() if row.params})
"""The type of the last operand; of a store, that of the value."""

RESULT: Final = _table({opcode: row.results[0] for opcode, row in _ONE_BYTE.items() if row.results})

NATURAL_ALIGNMENT: Final = _table(
    {opcode: row.access.bit_length() - 1 for opcode, row in _ONE_BYTE.items() if row.access}
)
"""The exponent of the alignment of a load or a store."""

VALUE_TYPE: Final = _table(dict.fromkeys(VALUE_TYPE_BYTES, 1))
"""1 for bytes that are value types."""

VALUE_TYPE_WITHOUT_V128: Final = _table({t: int(t != V128) for t in VALUE_TYPE_BYTES})
"""The same for an engine whose vectors are switched off."""

BLOCK_RESULT: Final[list[list[int]]] = [[t] if VALUE_TYPE[t] else [] for t in range(256)]
"""The results that a one-byte block type stands for; lists are shared, so that labels compare by identity first."""

PREFIXED: Final[dict[int, tuple[list[int], list[int]]]] = {
    row.opcode: (list(row.params), list(row.results))
    for row in INSTRUCTIONS
    if row.opcode >= 256 and row.params is not None and row.results is not None
}
"""Operands and results of the prefixed instructions whose type does not depend on the context. Those with
immediates are here too: the loop checks their indices and then comes here for the types."""
