"""Numbers of the text format (specification, section 6.3.2): ranges, and exact rounding to f32 and f64."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmforge.text.literals import F32_FORMAT, F64_FORMAT, FloatFormat, float_bits, float_text, integer, natural

FORMATS = {"f32": F32_FORMAT, "f64": F64_FORMAT}


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("0", 0),
        ("007", 7),
        ("1_000", 1000),
        ("0xff", 255),
        ("0xF_f", 255),
        ("18446744073709551615", 2**64 - 1),
        ("0" * 5000 + "12", 12),
        ("-1", None),
        ("+1", None),
        ("1__0", None),
        ("_1", None),
        ("1_", None),
        ("0x", None),
        ("0X1", None),
        ("1a", None),
        ("", None),
    ],
)
def test_naturals(token: str, value: int | None) -> None:
    assert natural(token) == value


@pytest.mark.parametrize(
    ("token", "value"), [("-1", -1), ("+1", 1), ("-0x10", -16), ("0", 0), ("--1", None), ("-", None), ("1.0", None)]
)
def test_integers(token: str, value: int | None) -> None:
    assert integer(token) == value


def test_a_decimal_longer_than_python_converts_is_merely_out_of_range() -> None:
    value = natural("9" * 10_000)
    assert value is not None
    assert value >= 2**64


@pytest.mark.parametrize(
    ("token", "f32", "f64"),
    [
        ("0", 0, 0),
        ("-0", 1 << 31, 1 << 63),
        ("-0.0e-10", 1 << 31, 1 << 63),
        ("1", 0x3F800000, 0x3FF0000000000000),
        ("1.", 0x3F800000, 0x3FF0000000000000),
        ("+1.5e0", 0x3FC00000, 0x3FF8000000000000),
        ("1_0.0_0e0_1", 0x42C80000, 0x4059000000000000),
        ("0x1p0", 0x3F800000, 0x3FF0000000000000),
        ("0x1.8", 0x3FC00000, 0x3FF8000000000000),
        ("0xA_0.8P-0_4", 0x41208000, 0x4024100000000000),
        ("inf", 0x7F800000, 0x7FF0000000000000),
        ("-inf", 0xFF800000, 0xFFF0000000000000),
        ("nan", 0x7FC00000, 0x7FF8000000000000),
        ("-nan", 0xFFC00000, 0xFFF8000000000000),
        ("nan:0x1", 0x7F800001, 0x7FF0000000000001),
        ("-nan:0x7f_ffff", 0xFFFFFFFF, 0xFFF00000007FFFFF),
    ],
)
def test_floats(token: str, f32: int, f64: int) -> None:
    assert float_bits(token, F32_FORMAT) == f32
    assert float_bits(token, F64_FORMAT) == f64


@pytest.mark.parametrize(
    ("token", "bits"),
    [
        # Between two f32 values, and just beside the middle where f64 already rounds to the middle.
        ("0x1.000001p0", 0x3F800000),
        ("0x1.00000100000000001p0", 0x3F800001),
        ("0x1.000002fffffffffffp0", 0x3F800001),
        ("0x1.000003p0", 0x3F800002),
        ("1.00000005960464477539062500000000000000000000000000000000000000000001", 0x3F800001),
        ("1.000000059604644775390625", 0x3F800000),
        ("1.00000005960464477539062499999999999999999999999999999999999999999999", 0x3F800000),
        ("8388608.500000000000000000000000000000001", 0x4B000001),
        ("8388608.5", 0x4B000000),
        ("8388609.5", 0x4B000002),
        # Subnormals, and the smallest of all.
        ("0x1p-149", 1),
        ("0x1p-150", 0),
        ("0x1.00000000000000000000001p-150", 1),
        ("0x0.000001p-126", 0),
        ("0x0.000002p-126", 1),
        ("0x0.ffffffp-126", 0x00800000),
        ("1.1754943508222875e-38", 0x00800000),
        ("1e-46", 0),
        ("7.006492321624085354618e-46", 0),
        ("7.006492321624085354619e-46", 1),
        # The largest, and what still rounds to it.
        ("0x1.fffffep127", 0x7F7FFFFF),
        ("0x1.fffffefffffffp127", 0x7F7FFFFF),
        ("340282356779733661637539395458142568447.9999", 0x7F7FFFFF),
        ("0x0p9999999999999999999999999", 0),
        ("0x1p-9999999999999999999999999", 0),
        ("0e99999999999999999999999999", 0),
        ("1e-99999999999999999999999999", 0),
    ],
)
def test_f32_is_rounded_once(token: str, bits: int) -> None:
    assert float_bits(token, F32_FORMAT) == bits


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "token",
    [
        "1e400",
        "-1e400",
        "0x1p1024",
        "0x1p99999999999999999999",
        "1e99999999999999999999",
        "nan:0x0",
        "nan:0x10000000000000",
    ],
)
def test_floats_out_of_range(token: str, form: str) -> None:
    with pytest.raises(ValueError, match="constant out of range"):
        float_bits(token, FORMATS[form])


@pytest.mark.parametrize(
    "token", ["0x1.ffffffp127", "340282356779733661637539395458142568448", "nan:0x80_0000", "0x1p128"]
)
def test_f32_out_of_range(token: str) -> None:
    with pytest.raises(ValueError, match="constant out of range"):
        float_bits(token, F32_FORMAT)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "1e",
        ".5",
        "1..",
        "1e+",
        "0x1p",
        "0x.8",
        "infinity",
        "NaN",
        "nan:1",
        "nan:0x",
        "nan:canonical",
        "1_e1",
        "0x1p1.0",
    ],
)
def test_what_is_no_float(token: str) -> None:
    assert float_bits(token, F64_FORMAT) is None


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_every_bit_pattern_survives_printing(form: str, data: st.DataObject) -> None:
    f = FORMATS[form]
    bits = data.draw(st.integers(0, 2**f.bits - 1))
    assert float_bits(float_text(bits, f), f) == bits


def _nearest(value: Fraction, f: FloatFormat) -> int:
    """The reference: rounding by comparing with exact fractions, bit pattern by bit pattern (bisection)."""

    def exact(bits: int) -> Fraction:
        exponent, fraction = bits >> f.fraction, bits & (1 << f.fraction) - 1
        scale = Fraction(2) ** (max(exponent, 1) - f.bias - f.fraction)
        return (fraction + ((1 << f.fraction) if exponent else 0)) * scale

    low, high = 0, f.infinity
    while high - low > 1:
        middle = (low + high) // 2
        if exact(middle) <= value:
            low = middle
        else:
            high = middle
    below, above = value - exact(low), exact(high) - value
    if below == above:
        return low if low % 2 == 0 else high
    return low if below < above else high


@pytest.mark.parametrize("form", FORMATS)
@given(
    digits=st.integers(0, 10**25),
    exponent=st.integers(-70, 30),
)
@settings(max_examples=300, deadline=None)
def test_decimals_round_to_the_nearest(form: str, digits: int, exponent: int) -> None:
    f = FORMATS[form]
    expected = _nearest(digits * Fraction(10) ** exponent, f)
    try:
        bits = float_bits(f"{digits}e{exponent}", f)
    except ValueError:
        bits = f.infinity
    assert bits == expected


@given(bits=st.integers(0, 0x7F7FFFFE), side=st.sampled_from((-1, 0, 1)))
@settings(max_examples=300, deadline=None)
def test_decimals_beside_the_middle_of_two_f32_values(bits: int, side: int) -> None:
    low = Fraction(struct.unpack("<f", bits.to_bytes(4, "little"))[0])
    high = Fraction(struct.unpack("<f", (bits + 1).to_bytes(4, "little"))[0])
    middle = (low + high) / 2
    # Middles have finite decimal expansions, of up to 150 digits.
    digits = middle * 10**160
    assert digits.denominator == 1
    expected = bits + 1 if side > 0 or (side == 0 and bits % 2) else bits
    assert float_bits(f"{digits.numerator + side}e-160", F32_FORMAT) == expected


@given(mantissa=st.integers(1, 2**80), exponent=st.integers(-1200, 1000))
@settings(max_examples=500, deadline=None)
def test_hexadecimals_round_as_python_does(mantissa: int, exponent: int) -> None:
    token = f"0x{mantissa:x}p{exponent}"
    try:
        expected = float.fromhex(token)
    except OverflowError:
        expected = math.inf
    try:
        bits = float_bits(token, F64_FORMAT)
    except ValueError:
        bits = F64_FORMAT.infinity
    assert bits is not None
    assert struct.unpack("<d", bits.to_bytes(8, "little"))[0] == expected


def test_printed_floats_are_short() -> None:
    assert [float_text(b, F32_FORMAT) for b in (0x3DCCCCCD, 0x3F800000, 0x7F7FFFFF, 1)] == [
        "0.1",
        "1",
        "3.4028235e+38",
        "1e-45",
    ]
    assert float_text(0x3FB999999999999A, F64_FORMAT) == "0.1"
