"""Vector literals: what stands behind `v128.const`, in modules and in scripts of the test suites (section 6.5.12).

The parser of instructions reads them, the printer writes them, and `wast.script` reads those of results, whose lanes
may be patterns.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wasmforge.text.literals import F32_FORMAT, F64_FORMAT, FloatFormat, float_bits, integer
from wasmforge.text.reader import Reader

__all__ = ["SHAPES", "VectorShape", "lane_bits", "vector_literal", "vector_shape", "vector_text"]


class VectorShape(NamedTuple):
    lanes: int
    bits: int
    floats: FloatFormat | None


SHAPES: Final[dict[str, VectorShape]] = {
    "i8x16": VectorShape(16, 8, None),
    "i16x8": VectorShape(8, 16, None),
    "i32x4": VectorShape(4, 32, None),
    "i64x2": VectorShape(2, 64, None),
    "f32x4": VectorShape(4, 32, F32_FORMAT),
    "f64x2": VectorShape(2, 64, F64_FORMAT),
}


_ENDS: Final = frozenset(("", "(", ")"))


def vector_shape(reader: Reader) -> VectorShape:
    """The shape that a literal begins with. Raises `ParseError` when so many lanes cannot follow."""
    shape = SHAPES.get(reader.tokens[reader.at])
    if shape is None:
        raise reader.unexpected("the shape of a vector, such as i32x4")
    reader.at += 1
    if any(token in _ENDS for token in reader.tokens[reader.at : reader.at + shape.lanes]):
        raise reader.error(f"wrong number of lane literals: expected {shape.lanes}")
    return shape


def lane_bits(reader: Reader, shape: VectorShape) -> int:
    """One lane's literal as an unsigned bit pattern."""
    token = reader.tokens[reader.at]
    value: int | None
    if shape.floats is None:
        value = integer(token)
        if value is not None and not -(1 << (shape.bits - 1)) <= value < 1 << shape.bits:
            raise reader.error(f"constant out of range: i{shape.bits} lane {token[:40]}")
    else:
        try:
            value = float_bits(token, shape.floats)
        except ValueError as e:
            raise reader.error(str(e)) from None
    if value is None:
        raise reader.unexpected("the literal of a lane")
    reader.at += 1
    return value & (1 << shape.bits) - 1


def vector_literal(reader: Reader) -> int:
    """A shape and its lanes, as a bit pattern with lane 0 lowest."""
    shape = vector_shape(reader)
    value = 0
    for k in range(shape.lanes):
        value |= lane_bits(reader, shape) << k * shape.bits
    if reader.at_number():
        raise reader.error(f"wrong number of lane literals: expected {shape.lanes}")
    return value


def vector_text(bits: int) -> str:
    """A literal that reads back as this bit pattern."""
    return "i32x4 " + " ".join(f"{bits >> 32 * k & 0xFFFF_FFFF:#010x}" for k in range(4))
