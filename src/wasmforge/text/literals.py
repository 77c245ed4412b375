"""Numbers as the text format writes them, to integers and bit patterns and back (specification, section 6.3).

The parser and the script parser read with these; the printer writes with them. Floating-point literals are rounded
once: a decimal f32 does not go through f64 unless that cannot change the result.
"""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from typing import Final

__all__ = [
    "FloatFormat",
    "F32_FORMAT",
    "F64_FORMAT",
    "float_bits",
    "float_text",
    "integer",
    "is_number",
    "natural",
]

_NATURAL: Final = re.compile(r"0x[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*|[0-9]+(?:_[0-9]+)*")
_INTEGER: Final = re.compile(r"[+-]?(?:0x[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*|[0-9]+(?:_[0-9]+)*)")
_DIGITS: Final = r"[0-9]+(?:_[0-9]+)*"
_HEX_DIGITS: Final = r"[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*"
_FLOAT: Final = re.compile(
    rf"([+-]?)(?:"
    rf"(?P<hex>0x(?P<whole>{_HEX_DIGITS})(?:\.(?P<fraction>{_HEX_DIGITS})?)?(?:[pP](?P<exponent>[+-]?{_DIGITS}))?)"
    rf"|(?P<decimal>{_DIGITS}(?:\.(?:{_DIGITS})?)?(?:[eE][+-]?{_DIGITS})?)"
    rf"|(?P<inf>inf)|nan(?::0x(?P<payload>{_HEX_DIGITS}))?)"
)

_MOST_DIGITS: Final = 20
"""Decimal digits of 2^64. Longer numbers (leading zeros aside) are out of every range; Python limits the length
of what it converts."""


class FloatFormat:
    """What rounding needs to know of a binary floating-point format (IEEE 754)."""

    def __init__(self, bits: int, fraction: int, pack: str, integer_pack: str) -> None:
        self.bits = bits
        self.fraction = fraction
        """Bits of the significand that are stored."""
        self.bias = (1 << (bits - fraction - 2)) - 1
        self.infinity = ((1 << (bits - fraction - 1)) - 1) << fraction
        self.pack = pack
        self.integer_pack = integer_pack


F32_FORMAT: Final = FloatFormat(32, 23, "<f", "<I")
F64_FORMAT: Final = FloatFormat(64, 52, "<d", "<Q")


def is_number(token: str) -> bool:
    """Whether the token is an integer or floating-point literal."""
    return _FLOAT.fullmatch(token) is not None


def natural(token: str) -> int | None:
    """The value of an unsigned integer literal, None when the token is none. A value of more than 64 bits may come
    out as any number that large."""
    if _NATURAL.fullmatch(token) is None:
        return None
    return _magnitude(token)


def integer(token: str) -> int | None:
    """The value of an integer literal with an optional sign, None when the token is none; large values as in
    `natural`."""
    if _INTEGER.fullmatch(token) is None:
        return None
    if token[0] == "-":
        return -_magnitude(token[1:])
    return _magnitude(token[1:] if token[0] == "+" else token)


def _magnitude(digits: str) -> int:
    if "_" in digits:
        digits = digits.replace("_", "")
    if digits[:2] == "0x":
        return int(digits, 16)
    if len(digits) > _MOST_DIGITS:
        digits = digits.lstrip("0")
        if len(digits) > _MOST_DIGITS:
            return int(float("1e20"))
    return int(digits or "0")


def float_bits(token: str, form: FloatFormat) -> int | None:
    """The bit pattern of a floating-point literal, None when the token is none.

    Raises `ValueError` when the value rounds to infinity or the NaN payload does not fit (section 6.3.2).
    """
    match = _FLOAT.fullmatch(token)
    if match is None:
        return None
    sign = (match[1] == "-") << (form.bits - 1)
    if match["decimal"] is not None:
        magnitude = _decimal_bits(match["decimal"].replace("_", ""), form)
    elif match["hex"] is not None:
        magnitude = _hexadecimal_bits(match, form)
    elif match["inf"] is not None:
        return sign | form.infinity
    elif match["payload"] is None:
        return sign | form.infinity | 1 << (form.fraction - 1)
    else:
        payload = int(match["payload"].replace("_", ""), 16)
        if not 0 < payload < 1 << form.fraction:
            raise ValueError("constant out of range")
        return sign | form.infinity | payload
    if magnitude >= form.infinity:
        raise ValueError("constant out of range")
    return sign | magnitude


def _decimal_bits(digits: str, form: FloatFormat) -> int:
    value = float(digits)
    bits = int(struct.unpack("<Q", struct.pack("<d", value))[0])
    if form is F64_FORMAT or value == 0.0:
        return bits
    if bits >= F64_FORMAT.infinity:
        return form.infinity
    # Rounding twice differs from rounding once only when the f64 lies exactly between two f32 values and the
    # decimal does not: then the decimal decides the direction.
    mantissa, exponent = _parts(bits)
    rounded = _round(mantissa, exponent, form)
    above = _round(mantissa * 2 + 1, exponent - 1, form)
    below = _round(mantissa * 2 - 1, exponent - 1, form)
    if above != below:
        exact = Decimal(digits)
        if exact > Decimal(value):
            return above
        if exact < Decimal(value):
            return below
    return rounded


def _parts(bits: int) -> tuple[int, int]:
    """A positive finite f64 as `mantissa * 2 ** exponent`."""
    exponent = bits >> 52
    mantissa = bits & (1 << 52) - 1
    return (mantissa | 1 << 52, exponent - 1075) if exponent else (mantissa, -1074)


def _hexadecimal_bits(match: re.Match[str], form: FloatFormat) -> int:
    whole = match["whole"].replace("_", "")
    fraction = (match["fraction"] or "").replace("_", "")
    exponent = (match["exponent"] or "0").replace("_", "")
    # An exponent beyond 18 digits decides alone: no text is long enough for the mantissa to make up for it.
    sign = -1 if exponent[0] == "-" else 1
    exponent = exponent.lstrip("+-").lstrip("0")
    power = sign * (int(exponent or "0") if len(exponent) <= 18 else 10**18)
    return _round(int(whole + fraction, 16), power - 4 * len(fraction), form)


def _round(mantissa: int, exponent: int, form: FloatFormat) -> int:
    """The bit pattern nearest to `mantissa * 2 ** exponent`, ties to even; infinity's when it is too large."""
    if mantissa == 0:
        return 0
    # Units of the last place: those of the value's binade, but not below those of the subnormals.
    top = mantissa.bit_length() + exponent
    if top > form.bias + 2:
        return form.infinity
    lowest = 1 - form.bias - form.fraction
    unit = max(top - form.fraction - 1, lowest)
    if top < lowest - 1:
        return 0
    shift = unit - exponent
    if shift <= 0:
        quotient = mantissa << -shift
    else:
        quotient = mantissa >> shift
        rest = mantissa & (1 << shift) - 1
        half = 1 << (shift - 1)
        if rest > half or (rest == half and quotient & 1):
            quotient += 1
    # Adding instead of or-ing lets a carry out of the fraction raise the exponent, up to infinity.
    if quotient >> form.fraction:
        return ((unit - lowest) << form.fraction) + quotient
    return quotient


def float_text(bits: int, form: FloatFormat) -> str:
    """The shortest literal that reads back as this bit pattern: decimal, or `inf`, or `nan` with its payload."""
    sign = "-" if bits >> (form.bits - 1) else ""
    magnitude = bits & (1 << (form.bits - 1)) - 1
    if magnitude == form.infinity:
        return sign + "inf"
    if magnitude > form.infinity:
        payload = magnitude - form.infinity
        return f"{sign}nan" if payload == 1 << (form.fraction - 1) else f"{sign}nan:{payload:#x}"
    value = struct.unpack(form.pack, magnitude.to_bytes(form.bits // 8, "little"))[0]
    if form is F32_FORMAT:
        for digits in range(1, 10):
            text = f"{value:.{digits}g}"
            if _decimal_bits(text, form) == magnitude:
                break
    else:
        text = repr(value)
    return sign + text.removesuffix(".0")
