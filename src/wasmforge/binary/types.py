"""Value types, reference types and heap types in the binary format (specification, sections 5.3.1 to 5.3.4).

The decoder, the instruction codec, the encoder and the validator of bodies read and write types with these; a type of a
proposal that is not implemented is told from garbage by `features.type_error`.
"""

from __future__ import annotations

from wasmforge.binary.features import type_error
from wasmforge.binary.leb128 import read_signed, write_signed
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.types import CONCRETE, INDEX_SHIFT, NON_NULL, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "HEAP_TYPE_BYTES",
    "VALUE_TYPE_BYTES",
    "read_heap_type",
    "read_reference_type",
    "read_value_type",
    "write_heap_type",
    "write_value_type",
]

HEAP_TYPE_BYTES: Final = bytes((0x70, 0x6F))
"""Abstract heap types, which are also the short forms of nullable references to them."""

VALUE_TYPE_BYTES: Final = bytes((0x7F, 0x7E, 0x7D, 0x7C, 0x7B)) + HEAP_TYPE_BYTES
"""Value types of one byte."""

_REF: Final = 0x64
_REF_NULL: Final = 0x63
_UNEXPECTED_END: Final = "unexpected end of section or function"


def read_heap_type(data: bytes, at: int, base: int) -> tuple[int, int]:
    """Reads a heap type at `data[at]`. Returns the type of nullable references to it and the index after it; `base`
    is added to offsets in errors."""
    if at >= len(data):
        raise MalformedError(_UNEXPECTED_END, base + at)
    first = data[at]
    if first in HEAP_TYPE_BYTES:
        return first, at + 1
    if first & 0xC0 == 0x40:
        raise type_error(first, f"malformed heap type {first:#04x}", base + at)
    x, after = read_signed(data, at, 33, base)
    if x < 0:
        raise MalformedError("malformed heap type", base + at)
    return CONCRETE | x << INDEX_SHIFT, after


def read_reference_type(data: bytes, at: int, base: int, message: str = "malformed reference type") -> tuple[int, int]:
    """Reads a reference type. Returns it and the index after it."""
    if at >= len(data):
        raise MalformedError(_UNEXPECTED_END, base + at)
    first = data[at]
    if first in HEAP_TYPE_BYTES:
        return first, at + 1
    if first in (_REF, _REF_NULL):
        t, after = read_heap_type(data, at + 1, base)
        return (t | NON_NULL if first == _REF else t), after
    raise type_error(first, f"{message} {first:#04x}", base + at)


def read_value_type(data: bytes, at: int, base: int, message: str = "malformed value type") -> tuple[int, int]:
    """Reads a value type. Returns it and the index after it."""
    if at < len(data) and data[at] in VALUE_TYPE_BYTES:
        return data[at], at + 1
    return read_reference_type(data, at, base, message)


def write_heap_type(out: bytearray, t: int) -> None:
    """Appends the heap type of a reference type."""
    if t >= CONCRETE:
        write_signed(out, t >> INDEX_SHIFT)
    else:
        out.append(t & ~NON_NULL)


def write_value_type(out: bytearray, t: ValType) -> None:
    """Appends a value type in its shortest form."""
    if t < NON_NULL:
        out.append(t)
        return
    out.append(_REF if t & NON_NULL else _REF_NULL)
    write_heap_type(out, t)
