"""Arguments and results of `run --invoke`: text to values by type, and back, as Wasmtime reads and prints them."""

from __future__ import annotations

from wasmforge.cli.errors import CommandError

__all__ = ["format_result", "parse_argument"]

_BITS = {"i32": 32, "i64": 64}


def parse_argument(ty: str, text: str) -> int | float:
    """The value of `text` for a parameter of type `ty`. Integers may be hexadecimal, with 0x.

    Raises CommandError when it is none, or `ty` cannot be written on a command line.
    """
    if ty in _BITS:
        return _integer(text, _BITS[ty])
    if ty in ("f32", "f64"):
        try:
            return float(text)
        except ValueError:
            raise CommandError(f"invalid float literal `{text}`") from None
    raise CommandError(f"unsupported argument type {ty}")


def _integer(text: str, bits: int) -> int:
    hexadecimal = text[:2] in ("0x", "0X")
    digits = text[2:] if hexadecimal else text
    if not digits.strip("+-").isalnum() or not digits.isascii():
        raise CommandError(f"invalid digit found in string `{text}`")
    try:
        value = int(digits, 16 if hexadecimal else 10)
    except ValueError:
        raise CommandError(f"invalid digit found in string `{text}`") from None
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        size = "large" if value > 0 else "small"
        raise CommandError(f"number too {size} to fit in target type: `{text}` for i{bits}")
    return value


def format_result(ty: str, value: object) -> str:
    """A result as a line of output. Floats print the shortest digits that give the value back, without an exponent."""
    if ty in _BITS:
        return str(value)
    if ty == "f32":
        assert isinstance(value, float)
        return _decimal(_shortest_f32(value))
    if ty == "f64":
        assert isinstance(value, float)
        return _decimal(repr(value))
    if ty == "v128":
        assert isinstance(value, bytes)
        return str(int.from_bytes(value, "little"))
    kind = "funcref" if ty == "funcref" else "externref"
    return f"<null {kind}>" if value is None else f"<{kind}>"


def _shortest_f32(value: float) -> str:
    """The shortest decimal that reads back as this single."""
    import struct

    single = struct.pack("<f", value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == single:
            return repr(float(text))
    return repr(value)


def _decimal(text: str) -> str:
    """Rust's form of a float: no exponent, no fraction of zero, NaN and inf as it spells them."""
    if text in ("inf", "-inf"):
        return text
    if text == "nan":
        return "NaN"
    if "e" in text:
        from decimal import Decimal

        text = f"{Decimal(text):f}"
    return text.removesuffix(".0")
