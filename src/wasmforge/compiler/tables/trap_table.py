"""The trap table: which machine instructions may fault, and what a fault there means.

The link step of a compiler makes the section `.wasmforge.traps` with `encode`; the runtime calls `lookup` with the
program counter of a memory fault. A fault at a place that the table does not know is a bug of ours, never a trap.

Encoding: u32 n, then n u32 text offsets in strictly ascending order, then n bytes. An entry holds from its
text offset to the next one's; its byte is 1 + TrapKind, or 0 for code that must not fault.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.errors import WasmtimeError

__all__ = ["encode", "lookup"]


def encode(text_offsets: array[int], codes: array[int]) -> bytes:
    """The section, from an `array("I")` and an `array("B")` of the same length; repeated codes are left out."""
    kept_offsets = array("I")
    kept_codes = array("B")
    last = 0
    for offset, code in zip(text_offsets, codes, strict=True):
        if code == last:
            continue
        if kept_offsets and offset <= kept_offsets[-1]:
            raise ValueError("text offsets must ascend")
        kept_offsets.append(offset)
        kept_codes.append(code)
        last = code
    return array("I", (len(kept_offsets),)).tobytes() + kept_offsets.tobytes() + kept_codes.tobytes()


def lookup(section: memoryview | bytes, text_offset: int) -> TrapKind | None:
    """The trap that a fault of the machine instruction at `text_offset` stands for, or None if none may happen there.

    Raises `WasmtimeError` when the section's sizes contradict each other.
    """
    view = memoryview(section).cast("B")
    count = int.from_bytes(view[:4], "little")
    if len(view) != 4 + 5 * count:
        raise WasmtimeError("damaged compiled module: the trap table's length is wrong")
    offsets = view[4 : 4 + 4 * count].cast("I")
    found = bisect_right(offsets, text_offset) - 1
    if found < 0:
        return None
    code: int = view[4 + 4 * count + found]
    try:
        return TrapKind(code - 1) if code else None
    except ValueError:
        raise WasmtimeError(f"damaged compiled module: trap code {code} in the trap table") from None
