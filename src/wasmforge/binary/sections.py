"""The sections of the binary format: ids, order and names (specification, section 5.5.2).

The decoder checks the order and the encoder writes it; messages use the names.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


__all__ = ["SECTION_NAMES", "SECTION_ORDER", "Section"]


class Section:
    """Section ids. Plain integers, since the decoder compares them with bytes."""

    CUSTOM: Final = 0
    TYPE: Final = 1
    IMPORT: Final = 2
    FUNCTION: Final = 3
    TABLE: Final = 4
    MEMORY: Final = 5
    GLOBAL: Final = 6
    EXPORT: Final = 7
    START: Final = 8
    ELEMENT: Final = 9
    CODE: Final = 10
    DATA: Final = 11
    DATA_COUNT: Final = 12
    TAG: Final = 13


SECTION_NAMES: Final[dict[int, str]] = {
    Section.CUSTOM: "custom",
    Section.TYPE: "type",
    Section.IMPORT: "import",
    Section.FUNCTION: "function",
    Section.TABLE: "table",
    Section.MEMORY: "memory",
    Section.GLOBAL: "global",
    Section.EXPORT: "export",
    Section.START: "start",
    Section.ELEMENT: "element",
    Section.DATA_COUNT: "data count",
    Section.CODE: "code",
    Section.DATA: "data",
}
"""The sections that this version reads."""

SECTION_ORDER: Final[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11)
"""The order of the non-custom sections. The data count comes before the code, so that one pass over a body knows
which data segments exist."""
