"""The implementation limits (specification, appendix A.1).

The decoder compares counts with them before it makes anything; the validator compares everything, for modules that came
from text. The numbers are those of wasmparser 0.244, so that a module runs here when it runs under Wasmtime 42; the
last four are our own. `TABLE_ENTRIES` is for the runtime, which allocates tables: the specification suite declares,
and never instantiates, a larger one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


__all__ = [
    "BODY_SIZE",
    "CUSTOM_SECTIONS",
    "DATA_SEGMENTS",
    "ELEMENT_SEGMENTS",
    "EXPORTS",
    "FUNCTIONS",
    "GLOBALS",
    "IMPORTS",
    "LOCALS",
    "MEMORIES",
    "MEMORY_BYTES",
    "MEMORY_BYTES_64",
    "NAMES",
    "NAME_BYTES",
    "NESTING",
    "OPERANDS",
    "PARAMS",
    "RESULTS",
    "TABLES",
    "TABLE_ENTRIES",
    "TABLE_MAXIMUM",
    "TABLE_MAXIMUM_64",
    "TYPES",
]

TYPES: Final = 1_000_000
FUNCTIONS: Final = 1_000_000
IMPORTS: Final = 1_000_000
EXPORTS: Final = 1_000_000
GLOBALS: Final = 1_000_000
ELEMENT_SEGMENTS: Final = 100_000
DATA_SEGMENTS: Final = 100_000
TABLES: Final = 100
NAME_BYTES: Final = 100_000
BODY_SIZE: Final = 7_654_321
LOCALS: Final = 50_000
"""Locals of a function, parameters included."""
PARAMS: Final = 1_000
RESULTS: Final = 1_000
TABLE_ENTRIES: Final = 10_000_000
"""Initial entries of a table."""
MEMORIES: Final = 100
MEMORY_BYTES: Final = 1 << 32
"""The size that the type of a 32-bit memory can name; with pages of one byte, one less."""
MEMORY_BYTES_64: Final = 1 << 64
"""The same of a 64-bit memory."""

TABLE_MAXIMUM: Final = 0xFFFF_FFFF
"""The size that the type of a 32-bit table can name (section 3.2.4)."""
TABLE_MAXIMUM_64: Final = (1 << 64) - 1

CUSTOM_SECTIONS: Final = 100_000
"""Threat: three bytes make a custom section, and its record takes fifty times as many."""
NAMES: Final = 1_000_000
"""Entries of the name section; those beyond are left out. Threat as above."""
NESTING: Final = 100_000
"""Blocks open at once. Threat: two bytes of body open a block, and every phase keeps a record for an open block."""
OPERANDS: Final = 1_000_000
"""Operands on the stack at once. Threat: two bytes of body push a thousand results, so that a body within the size
limit could ask for four billion."""
