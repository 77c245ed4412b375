"""Emitters of float vector instructions: minimum and maximum, conversions, truncations, and the relaxed instructions.

The bit tricks of the conversions are the known ones: a float whose exponent makes its last bit worth 1 holds an integer
in its mantissa, 0x4B000000 being 2**23 as f32 and 0x43300000 the upper half of 2**52 as f64.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH
from wasmforge.compiler.baseline.vector_forms import (
    Row,
    done,
    fresh,
    lanes_of,
    shift,
    target,
    three,
    two,
    with_literal,
    zero,
)
from wasmforge.compiler.baseline.vector_op import VectorOp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = [
    "from_unsigned",
    "from_unsigned_low",
    "maximum",
    "minimum",
    "truncate_doubles",
    "truncate_doubles_unsigned",
    "truncate_singles",
    "truncate_singles_unsigned",
]

# Immediates of cmpps and roundps.
_UNORDERED: Final = 3
_NOT_LESS: Final = 5
_ORDERED: Final = 7
_TOWARDS_ZERO: Final = 11


# --- Minimum and maximum -----------------------------------------------------------------------------------------
#
# minps returns its second operand if one is NaN or both are zeros. So it is asked both ways, and what the answers make
# together has the sign of a -0, or is a NaN. Of NaNs everything below the quiet bit is cleared. `op` is minps or
# maxps, `other` 1 for doubles.


def minimum(s: Body, row: Row) -> None:
    double = row.other
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = fresh(s, a, b)
    three(s, row.op, FLOAT_SCRATCH, a, b)
    three(s, row.op, r, b, a)
    three(s, VectorOp.POR, FLOAT_SCRATCH, FLOAT_SCRATCH, r)
    _clear_payload(s, double, r)
    s.release(a)
    s.release(b)
    done(s, r)


def maximum(s: Body, row: Row) -> None:
    """Both answers differ in the sign of zeros, which subtracting the difference makes positive; and in NaNs."""
    double = row.other
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = fresh(s, a, b)
    three(s, row.op, FLOAT_SCRATCH, b, a)
    three(s, row.op, r, a, b)
    three(s, VectorOp.PXOR, r, r, FLOAT_SCRATCH)
    three(s, VectorOp.POR, FLOAT_SCRATCH, FLOAT_SCRATCH, r)
    three(s, VectorOp.SUBPD if double else VectorOp.SUBPS, FLOAT_SCRATCH, FLOAT_SCRATCH, r)
    _clear_payload(s, double, r)
    s.release(a)
    s.release(b)
    done(s, r)


def _clear_payload(s: Body, double: i64, r: i64) -> None:
    """Puts the scratch register into `r`, its NaNs made canonical."""
    s.move(r, FLOAT_SCRATCH)
    three(s, VectorOp.CMPPD if double else VectorOp.CMPPS, r, r, FLOAT_SCRATCH)
    s.byte(_UNORDERED)
    three(s, VectorOp.POR, FLOAT_SCRATCH, FLOAT_SCRATCH, r)
    shift(s, VectorOp.SHIFT_Q if double else VectorOp.SHIFT_D, 2, r, r, 13 if double else 10)
    three(s, VectorOp.PANDN, r, r, FLOAT_SCRATCH)


# --- Conversions -------------------------------------------------------------------------------------------------

_ODD_WORDS: Final = 0xAA
_LOW_MAGIC: Final = lanes_of(0x4B000000, 4)
_HIGH_MAGIC: Final = lanes_of(0x53000000, 4)
_BOTH_MAGIC: Final = lanes_of(0x53000080, 4)
_DOUBLE_HIGH_MAGIC: Final = lanes_of(0x43300000, 4)
_TWO_52: Final = lanes_of(0x4330000000000000, 8)
_TWO_31: Final = lanes_of(0x4F000000, 4)
_GREATEST_SIGNED: Final = lanes_of(0x41DFFFFFFFC00000, 8)
_GREATEST_UNSIGNED: Final = lanes_of(0x41EFFFFFFFE00000, 8)


def from_unsigned(s: Body, row: Row) -> None:
    """f32x4.convert_i32x4_u: the upper 16 bits in units of 2**16, exactly, plus the lower ones; rounds once."""
    a = s.pop_read(True)
    r = target(s, a)
    with_literal(s, VectorOp.PBLENDW, FLOAT_SCRATCH, a, _LOW_MAGIC, 1)
    s.byte(_ODD_WORDS)
    shift(s, VectorOp.SHIFT_D, 2, r, a, 16)
    with_literal(s, VectorOp.PBLENDW, r, r, _HIGH_MAGIC, 1)
    s.byte(_ODD_WORDS)
    with_literal(s, VectorOp.SUBPS, r, r, _BOTH_MAGIC, 0)
    three(s, VectorOp.ADDPS, r, r, FLOAT_SCRATCH)
    done(s, r)


def from_unsigned_low(s: Body, row: Row) -> None:
    """f64x2.convert_low_i32x4_u."""
    a = s.pop_read(True)
    r = target(s, a)
    with_literal(s, VectorOp.UNPCKLPS, r, a, _DOUBLE_HIGH_MAGIC, 0)
    with_literal(s, VectorOp.SUBPD, r, r, _TWO_52, 0)
    done(s, r)


def truncate_singles(s: Body, row: Row) -> None:
    """The machine answers what does not fit with the least number: turned into the greatest where the float is not
    below 2**31, and into 0 where it is no number."""
    a = s.pop_read(True)
    r = fresh(s, a, a)
    with_literal(s, VectorOp.CMPPS, FLOAT_SCRATCH, a, _TWO_31, 1)
    s.byte(_NOT_LESS)
    two(s, VectorOp.CVTTPS2DQ, r, a)
    three(s, VectorOp.PXOR, r, r, FLOAT_SCRATCH)
    s.move(FLOAT_SCRATCH, a)
    three(s, VectorOp.CMPPS, FLOAT_SCRATCH, FLOAT_SCRATCH, a)
    s.byte(_ORDERED)
    three(s, VectorOp.PAND, r, r, FLOAT_SCRATCH)
    s.release(a)
    done(s, r)


def truncate_singles_unsigned(s: Body, row: Row) -> None:
    """What is below 2**31 converts as it is. Above, 2**31 is subtracted, and the machine's answer 2**31 to the float
    itself added; from 2**32 on, the difference is made the greatest one."""
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a)
    zero(s, FLOAT_SCRATCH)
    three(s, VectorOp.MAXPS, t, a, FLOAT_SCRATCH)
    two(s, VectorOp.CVTTPS2DQ, r, t)
    with_literal(s, VectorOp.SUBPS, t, t, _TWO_31, 0)
    with_literal(s, VectorOp.CMPPS, FLOAT_SCRATCH, t, _TWO_31, 1)
    s.byte(_NOT_LESS)
    two(s, VectorOp.CVTTPS2DQ, t, t)
    three(s, VectorOp.PXOR, t, t, FLOAT_SCRATCH)
    zero(s, FLOAT_SCRATCH)
    three(s, VectorOp.PMAXSD, t, t, FLOAT_SCRATCH)
    three(s, VectorOp.PADDD, r, r, t)
    s.release(t)
    done(s, r)


def truncate_doubles(s: Body, row: Row) -> None:
    """minpd gives its second operand where the first is NaN, which is made 0 there."""
    a = s.pop_read(True)
    r = target(s, a)
    s.move(FLOAT_SCRATCH, a)
    three(s, VectorOp.CMPPD, FLOAT_SCRATCH, FLOAT_SCRATCH, a)
    s.byte(_ORDERED)
    with_literal(s, VectorOp.PAND, FLOAT_SCRATCH, FLOAT_SCRATCH, _GREATEST_SIGNED, 0)
    three(s, VectorOp.MINPD, r, a, FLOAT_SCRATCH)
    two(s, VectorOp.CVTTPD2DQ, r, r)
    done(s, r)


def truncate_doubles_unsigned(s: Body, row: Row) -> None:
    """Brought into range and truncated, the sum with 2**52 holds the integer in its lower half."""
    a = s.pop_read(True)
    r = target(s, a)
    zero(s, FLOAT_SCRATCH)
    three(s, VectorOp.MAXPD, r, a, FLOAT_SCRATCH)
    with_literal(s, VectorOp.MINPD, r, r, _GREATEST_UNSIGNED, 0)
    two(s, VectorOp.ROUNDPD, r, r)
    s.byte(_TOWARDS_ZERO)
    with_literal(s, VectorOp.ADDPD, r, r, _TWO_52, 0)
    three(s, VectorOp.SHUFPS, r, r, FLOAT_SCRATCH)
    s.byte(0x88)
    done(s, r)
