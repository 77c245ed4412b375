"""LEB128, the variable-length integers of the binary format (specification, section 5.2.2).

The encoders append to a bytearray or return bytes and always write the shortest form; the decoders enforce the
bounds of the specification. The decoder, the encoder and the instruction codec use them; the validator has the
one-byte case inlined and comes here for the rest.
"""

from __future__ import annotations

from wasmforge.syntax.errors import MalformedError

__all__ = ["encode_signed", "encode_unsigned", "read_signed", "read_unsigned", "write_signed", "write_unsigned"]


def write_unsigned(out: bytearray, value: int) -> None:
    """Appends the shortest unsigned encoding of `value` (which must not be negative)."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def write_signed(out: bytearray, value: int) -> None:
    """Appends the shortest signed encoding of `value`."""
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)


def encode_name(name: str, errors: str = "strict") -> bytes:
    """A name (specification, section 5.2.4): its length in bytes, then its UTF-8; `errors` as `str.encode` has it."""
    raw = name.encode(errors=errors)
    return encode_unsigned(len(raw)) + raw


def encode_unsigned(value: int) -> bytes:
    """The shortest unsigned encoding of `value` (which must not be negative)."""
    out = bytearray()
    write_unsigned(out, value)
    return bytes(out)


def encode_signed(value: int) -> bytes:
    """The shortest signed encoding of `value`."""
    out = bytearray()
    write_signed(out, value)
    return bytes(out)


def read_unsigned(data: bytes, at: int, bits: int = 32, base: int = 0) -> tuple[int, int]:
    """Reads an unsigned integer of at most `bits` bits that starts at `data[at]`.

    Returns the value and the index after it. Raises `MalformedError`, with `base` added to the offset, when the
    bytes end, when there are more of them than `ceil(bits / 7)`, or when bits beyond `bits` are set.
    """
    start = at
    value = 0
    shift = 0
    end = len(data)
    while True:
        if at >= end:
            raise MalformedError("unexpected end of section or function", base + at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if shift + 7 >= bits:
            if byte >= 0x80:
                raise MalformedError("integer representation too long", base + start)
            if byte >> (bits - shift):
                raise MalformedError("integer too large", base + start)
            return value, at
        if byte < 0x80:
            return value, at
        shift += 7


def read_signed(data: bytes, at: int, bits: int, base: int = 0) -> tuple[int, int]:
    """Reads a signed integer of at most `bits` bits that starts at `data[at]`.

    Returns the value and the index after it. Raises `MalformedError`, with `base` added to the offset, when the
    bytes end, when there are more of them than `ceil(bits / 7)`, or when the bits beyond `bits` do not repeat
    the sign.
    """
    start = at
    value = 0
    shift = 0
    end = len(data)
    while True:
        if at >= end:
            raise MalformedError("unexpected end of section or function", base + at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if shift + 7 >= bits:
            if byte >= 0x80:
                raise MalformedError("integer representation too long", base + start)
            # The sign bit is bit `bits - shift - 1` of the last byte; it and those above must agree.
            above = byte >> (bits - shift - 1)
            if above and above != 0x7F >> (bits - shift - 1):
                raise MalformedError("integer too large", base + start)
        if byte < 0x80:
            shift += 7
            return (value - (1 << shift) if byte & 0x40 else value), at
        shift += 7
