"""`run --invoke` reads arguments by type and prints results as Wasmtime does (reference, E10-11)."""

from __future__ import annotations

import struct

import pytest

from wasmforge.cli.errors import CommandError
from wasmforge.cli.values import format_result, parse_argument


@pytest.mark.parametrize(
    ("ty", "text", "value"),
    [
        ("i32", "0", 0),
        ("i32", "-5", -5),
        ("i32", "+5", 5),
        ("i32", "2147483647", 2**31 - 1),
        ("i32", "-2147483648", -(2**31)),
        ("i32", "0x10", 16),
        ("i32", "0X7fffffff", 2**31 - 1),
        ("i64", "-9223372036854775808", -(2**63)),
        ("f32", "1.5", 1.5),
        ("f64", "-1e300", -1e300),
        ("f64", "inf", float("inf")),
    ],
)
def test_arguments(ty: str, text: str, value: float) -> None:
    assert parse_argument(ty, text) == value


@pytest.mark.parametrize(
    ("ty", "text"),
    [
        *(
            ("i32", text)
            for text in ("", " 1", "1_000", "1.0", "x", "0x", "2147483648", "-2147483649", "0xffffffff", "٣")
        ),
        *(("i64", text) for text in ("9223372036854775808", "-")),
        *(("f64", text) for text in ("", "x", "1,5")),
        ("funcref", "0"),
        ("anyref", "0"),
    ],
)
def test_arguments_that_are_none(ty: str, text: str) -> None:
    with pytest.raises(CommandError):
        parse_argument(ty, text)


def single(value: float) -> float:
    result: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return result


@pytest.mark.parametrize(
    ("ty", "value", "text"),
    [
        ("i32", -1, "-1"),
        ("i64", 2**63 - 1, "9223372036854775807"),
        ("f64", 1.0, "1"),
        ("f64", 0.1, "0.1"),
        ("f64", -0.0, "-0"),
        ("f64", 1e21, "1000000000000000000000"),
        ("f64", 1e-7, "0.0000001"),
        ("f64", float("nan"), "NaN"),
        ("f64", float("-inf"), "-inf"),
        ("f32", single(0.1), "0.1"),
        ("f32", single(16777216.0), "16777216"),
        ("f32", single(1.17549435e-38), "0.000000000000000000000000000000000000011754944"),
        ("f32", float("inf"), "inf"),
        ("funcref", None, "<null funcref>"),
        ("funcref", object(), "<funcref>"),
        ("anyref", None, "<null externref>"),
        ("anyref", "x", "<externref>"),
    ],
)
def test_results(ty: str, value: object, text: str) -> None:
    assert format_result(ty, value) == text
