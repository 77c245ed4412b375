"""LEB128 (specification, section 5.2.2): shortest encodings, and the bounds of the decoders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmforge.binary.leb128 import encode_signed, encode_unsigned, read_signed, read_unsigned
from wasmforge.syntax.errors import MalformedError


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (624485, "e58e26"),
        (2**32 - 1, "ffffffff0f"),
        (2**64 - 1, "ff" * 9 + "01"),
    ],
)
def test_unsigned_encodings(value: int, encoded: str) -> None:
    assert encode_unsigned(value).hex() == encoded
    assert read_unsigned(bytes.fromhex(encoded), 0, 64) == (value, len(encoded) // 2)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (63, "3f"),
        (64, "c000"),
        (-1, "7f"),
        (-64, "40"),
        (-65, "bf7f"),
        (-123456, "c0bb78"),
        (-(2**31), "8080808078"),
        (2**31 - 1, "ffffffff07"),
        (-(2**63), "80" * 9 + "7f"),
    ],
)
def test_signed_encodings(value: int, encoded: str) -> None:
    assert encode_signed(value).hex() == encoded
    assert read_signed(bytes.fromhex(encoded), 0, 64) == (value, len(encoded) // 2)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_unsigned_round_trip_ignores_what_follows(value: int, rest: bytes) -> None:
    encoded = encode_unsigned(value)
    assert read_unsigned(b"\xff" + encoded + rest, 1, 64) == (value, 1 + len(encoded))


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=3))
def test_signed_round_trip_ignores_what_follows(value: int, rest: bytes) -> None:
    encoded = encode_signed(value)
    assert read_signed(encoded + rest, 0, 64) == (value, len(encoded))


@pytest.mark.parametrize(("encoded", "value"), [("8000", 0), ("8080808000", 0), ("8a80808000", 10)])
def test_padding_is_allowed_up_to_the_width(encoded: str, value: int) -> None:
    assert read_unsigned(bytes.fromhex(encoded), 0, 32)[0] == value
    assert read_signed(bytes.fromhex(encoded), 0, 32)[0] == value


@pytest.mark.parametrize(
    ("encoded", "bits", "reason"),
    [
        ("808080808000", 32, "integer representation too long"),
        ("ffffffff10", 32, "integer too large"),
        ("ffffffff1f", 32, "integer too large"),
        ("80" * 10 + "00", 64, "integer representation too long"),
        ("80" * 9 + "02", 64, "integer too large"),
        ("80808080", 32, "unexpected end"),
        ("", 32, "unexpected end"),
    ],
)
def test_unsigned_bounds(encoded: str, bits: int, reason: str) -> None:
    with pytest.raises(MalformedError, match=f"^{reason}"):
        read_unsigned(bytes.fromhex(encoded), 0, bits)


@pytest.mark.parametrize(
    ("encoded", "bits", "reason"),
    [
        ("808080808000", 32, "integer representation too long"),
        ("ffffffff0f", 32, "integer too large"),  # the sign bit is set, the bits above are not
        ("8080808008", 32, "integer too large"),
        ("8080808070", 32, "integer too large"),  # the other way round
        ("8080808060", 33, "integer too large"),
        ("80" * 9 + "01", 64, "integer too large"),
        ("80" * 9 + "7e", 64, "integer too large"),
        ("ff", 64, "unexpected end"),
    ],
)
def test_signed_bounds(encoded: str, bits: int, reason: str) -> None:
    with pytest.raises(MalformedError, match=f"^{reason}"):
        read_signed(bytes.fromhex(encoded), 0, bits)


@given(st.binary(max_size=12), st.sampled_from([32, 33, 64]))
def test_values_are_in_range_and_nothing_else_is_raised(data: bytes, bits: int) -> None:
    for read, low, high in (
        (read_unsigned, 0, 2**bits),
        (read_signed, -(2 ** (bits - 1)), 2 ** (bits - 1)),
    ):
        try:
            value, after = read(data, 0, bits)
        except MalformedError as error:
            assert 0 <= error.offset <= len(data)
        else:
            assert low <= value < high
            assert 0 < after <= len(data)


def test_the_base_is_added_to_offsets() -> None:
    with pytest.raises(MalformedError) as caught:
        read_unsigned(b"\0\x80", 1, 32, base=0x100)
    assert caught.value.offset == 0x102
    assert "(at offset 0x102)" in str(caught.value)
