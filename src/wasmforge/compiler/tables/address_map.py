"""The address map: which instruction of the module a machine instruction belongs to.

The link step of a compiler makes the section `.wasmforge.addrmap` with `encode`; backtraces and profilers call `lookup`
on the mapped section, which is searched where it lies and never decoded as a whole.

Encoding: u32 n, then n u32 text offsets in strictly ascending order, then n u32 positions in the module's binary.
An entry holds from its text offset to the next one's. Position 0xFFFFFFFF means "no instruction" (trampolines,
padding, code that the compiler could not attribute).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["NO_POSITION", "encode", "lookup"]

NO_POSITION: Final = 0xFFFFFFFF


def encode(text_offsets: array[int], positions: array[int]) -> bytes:
    """The section, from two `array("I")` of the same length; entries that repeat the one before are left out."""
    kept_offsets = array("I")
    kept_positions = array("I")
    last = -1
    for offset, position in zip(text_offsets, positions, strict=True):
        if position == last:
            continue
        if kept_offsets and offset <= kept_offsets[-1]:
            raise ValueError("text offsets must ascend")
        kept_offsets.append(offset)
        kept_positions.append(position)
        last = position
    return array("I", (len(kept_offsets),)).tobytes() + kept_offsets.tobytes() + kept_positions.tobytes()


def lookup(section: memoryview | bytes, text_offset: int) -> int | None:
    """The position in the binary of the instruction that the machine code at `text_offset` belongs to, or None.

    For a return address pass the address minus one, so that the call itself is looked up. Raises `WasmtimeError`
    when the section's sizes contradict each other.
    """
    if len(section) % 4:
        raise WasmtimeError("damaged compiled module: the address map has a fraction of an entry")
    words = memoryview(section).cast("B").cast("I")
    count = words[0] if words else 0
    if len(words) != 2 * count + 1 and words:
        raise WasmtimeError("damaged compiled module: the address map's length is wrong")
    found = bisect_right(words, text_offset, 1, count + 1) - 1
    if found < 1:
        return None
    position: int = words[found + count]
    return None if position == NO_POSITION else position
