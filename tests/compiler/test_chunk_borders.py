"""Chunks are laid out one behind the other, and so are the rows of their tables: they ascend across every border."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from wasmforge.compiler.link import _CHUNK_ALIGNMENT, _Code
from wasmforge.compiler.tables import address_map
from wasmforge.compiler.tables.address_map import NO_POSITION


def chunk(name: str, size: int, rows: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        "text": b"\x90" * size,
        "constants": b"",
        "functions": [(name, 0, size)],
        "undefined": [],
        "relocations": b"",
        "offsets": array("I", (offset for offset, _ in rows)).tobytes(),
        "positions": array("I", (position for _, position in rows)).tobytes(),
        "codes": bytes(len(rows)),
    }


@pytest.mark.parametrize("size", [_CHUNK_ALIGNMENT - 1, _CHUNK_ALIGNMENT, _CHUNK_ALIGNMENT + 1])
def test_rows_ascend_where_one_chunk_ends_and_the_next_begins(size: int) -> None:
    """Also when the row that closes a chunk stands exactly where the next one starts."""
    closed = [(0, 100), (4, 104), (size, NO_POSITION)]
    code = _Code([chunk("a", size, closed), chunk("b", size, [(o, p + 50 if p < 200 else p) for o, p in closed])])
    section = address_map.encode(code.offsets, code.positions)
    second = code.symbols["b"].start
    assert address_map.lookup(section, 5) == 104
    assert address_map.lookup(section, second) == 150
    assert address_map.lookup(section, second + 5) == 154
    assert list(code.offsets) == sorted(set(code.offsets))
    assert len(code.offsets) == len(code.positions) == len(code.codes)
