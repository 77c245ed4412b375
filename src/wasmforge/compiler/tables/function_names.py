"""Function names: index to name, for backtraces, profilers and disassembly.

The link step of a compiler makes the section `.name.wasm` from the name section with `encode`; `lookup` searches it in
place, so that a module with ten thousand names costs nothing until one is wanted.

Encoding: u32 n, then n triples of u32 (function index, offset, length) sorted by index, then the names in UTF-8, to
whose first byte the offsets are relative.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["encode", "lookup"]


def encode(names: Mapping[int, str]) -> bytes:
    """The section for a mapping of function indices to names."""
    triples = array("I", (len(names),))
    strings = bytearray()
    for x, name in sorted(names.items()):
        encoded = name.encode("utf-8", "replace")
        triples.extend((x, len(strings), len(encoded)))
        strings += encoded
    return triples.tobytes() + bytes(strings)


def lookup(section: memoryview | bytes, x: int) -> str | None:
    """The name of function `x`, or None if it has none. Raises `WasmtimeError` when the section is damaged."""
    view = memoryview(section).cast("B")
    count = int.from_bytes(view[:4], "little")
    strings_at = 4 + 12 * count
    if len(view) < strings_at:
        raise WasmtimeError("damaged compiled module: the function names are cut off")
    triples = view[4:strings_at].cast("I")
    found = bisect_left(triples[::3], x)
    if found == count or triples[3 * found] != x:
        return None
    start = strings_at + triples[3 * found + 1]
    return bytes(view[start : start + triples[3 * found + 2]]).decode("utf-8", "replace")
