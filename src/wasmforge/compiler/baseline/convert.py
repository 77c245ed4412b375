"""Emitters of conversions between integers and floats.

Truncations convert in double precision, into which every f32 fits exactly, to a 64-bit integer where that decides the
range. The machine answers what it cannot convert with the least number, which the code looks for; the rare cases are
told apart out of line.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import NOT_A_NUMBER, Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, SCRATCH, XMM0
from wasmforge.compiler.baseline.rows import ENCODING, NUMBER, WIDE
from wasmforge.compiler.baseline.values import CONST, REG, SLOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["from_integer", "reinterpret", "saturate", "truncate"]

# Doubles as bit patterns.
_TWO_63: Final = 0x43E0000000000000
_TWO_64: Final = 0x43F0000000000000
_MINUS_TWO_63: Final = -0x3C20000000000000
_ZERO: Final = 0
_LEAST: Final = -0x8000000000000000
_GREATEST: Final = 0x7FFFFFFFFFFFFFFF


def _operand(s: Body, wide: i64) -> None:
    """Pops a float into the scratch register, as a double."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.load(FLOAT_SCRATCH, k, v, i)
    if not wide:
        s.rr(Op.CVTSS2SD, 0, FLOAT_SCRATCH, FLOAT_SCRATCH)
    s.discard(k, v)


def _from_wide_range(s: Body, r: i64) -> None:
    """Converts the scratch register, which is at least 2**63 and below 2**64."""
    s.rc(Op.SUBSD, 0, FLOAT_SCRATCH, _TWO_63)
    s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
    s.rr(Op.BTC_IMMEDIATE, 1, 7, r)
    s.byte(63)


def truncate(s: Body, op: i64) -> None:
    """The truncations that trap."""
    number: i64 = NUMBER[op]
    _operand(s, WIDE[op])
    bad: i64 = NOT_A_NUMBER + FLOAT_SCRATCH
    r = s.alloc()
    if number < 2:
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        s.rr(Op.MOV if number == 1 else Op.MOVSXD, number ^ 1, SCRATCH, r)
        s.rr(Op.CMP, 1, SCRATCH, r)
        s.trap_if(Condition.NOT_EQUAL, bad)
        if number == 0:
            s.rr(Op.MOV, 0, r, r)
    elif number == 2:
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        s.group1(7, 1, r, 1)  # overflows for the least number only
        proceed = s.skip_if(Condition.NO_OVERFLOW)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _MINUS_TWO_63)
        s.trap_if(Condition.PARITY, bad)
        s.trap_if(Condition.NOT_EQUAL, bad)
        s.skip_end(proceed)
    else:
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _TWO_63)
        high = s.skip_if(Condition.ABOVE_EQUAL)
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        s.rr(Op.TEST, 1, r, r)
        s.trap_if(Condition.SIGN, bad)
        done = s.skip()
        s.skip_end(high)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _TWO_64)
        s.trap_if(Condition.ABOVE_EQUAL, bad)
        _from_wide_range(s, r)
        s.skip_end(done)
    hint = s.hint(False)
    if hint >= 0:
        s.move(hint, r)
        s.release(r)
        r = hint
    s.finish(r, hint)


def saturate(s: Body, number: i64) -> None:
    """The truncations that saturate, with NaN as 0: 0 to 3 to an i32 from f32 signed, unsigned, f64 signed, unsigned,
    and 4 to 7 to an i64."""
    _operand(s, number >> 1 & 1)
    unsigned = number & 1 == 1
    r = s.alloc()
    if number < 4:
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        s.rr(Op.MOV if unsigned else Op.MOVSXD, 0 if unsigned else 1, SCRATCH, r)
        s.rr(Op.CMP, 1, SCRATCH, r)
        done = s.skip_if(Condition.EQUAL)
        s.immediate(r, 0)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _ZERO)
        nan = s.skip_if(Condition.PARITY)
        if unsigned:
            below = s.skip_if(Condition.BELOW)
            s.immediate(r, 0xFFFFFFFF)
        else:
            s.immediate(r, 0x80000000)
            below = s.skip_if(Condition.BELOW)
            s.immediate(r, 0x7FFFFFFF)
        s.skip_end(below)
        s.skip_end(nan)
        s.skip_end(done)
        if not unsigned:
            s.rr(Op.MOV, 0, r, r)
    elif not unsigned:
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        s.group1(7, 1, r, 1)
        done = s.skip_if(Condition.NO_OVERFLOW)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _ZERO)
        number_ = s.skip_if(Condition.NO_PARITY)
        s.immediate(r, 0)
        s.skip_end(number_)
        below = s.skip_if(Condition.BELOW_EQUAL)
        s.immediate(r, _GREATEST)
        s.skip_end(below)
        s.skip_end(done)
    else:
        s.immediate(r, 0)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _ZERO)
        below = s.skip_if(Condition.BELOW_EQUAL)  # or unordered
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _TWO_64)
        s.immediate(r, -1)
        above = s.skip_if(Condition.ABOVE_EQUAL)
        s.rc(Op.UCOMISD, 0, FLOAT_SCRATCH, _TWO_63)
        high = s.skip_if(Condition.ABOVE_EQUAL)
        s.rr(Op.CVTTSD2SI, 1, r, FLOAT_SCRATCH)
        done = s.skip()
        s.skip_end(high)
        _from_wide_range(s, r)
        s.skip_end(done)
        s.skip_end(above)
        s.skip_end(below)
    s.push(REG, r)


def from_integer(s: Body, op: i64) -> None:
    """convert. The destination is cleared first: the instruction keeps its upper part, and so would wait for it."""
    number: i64 = NUMBER[op]
    encoding: i64 = ENCODING[op]
    if number == 3:
        _from_unsigned(s, WIDE[op], encoding)
        return
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    hint = s.hint(True)
    x = hint if hint >= 0 else s.alloc_float()
    s.rr(Op.XORPS, 0, x, x)
    # An unsigned i32 is zero-extended, so that it is a small 64-bit number. A constant was never sign-extended.
    s.use(encoding, 0 if number == 0 else 1, x, k, v, i)
    s.discard(k, v)
    s.finish(x, hint)


def _from_unsigned(s: Body, wide: i64, encoding: i64) -> None:
    """From an i64: the upper half of the range is halved before, with the lost bit kept so that rounding stays
    right."""
    r = s.pop_owned(False)
    x = s.alloc_float()
    s.rr(Op.XORPS, 0, x, x)
    s.rr(Op.TEST, 1, r, r)
    high = s.skip_if(Condition.SIGN)
    s.rr(encoding, 1, x, r)
    done = s.skip()
    s.skip_end(high)
    s.rr(Op.MOV, 1, SCRATCH, r)
    s.rr(Op.SHIFT_IMMEDIATE, 1, 5, SCRATCH)
    s.byte(1)
    s.group1(4, 0, r, 1)
    s.rr(Op.OR, 1, SCRATCH, r)
    s.rr(encoding, 1, x, SCRATCH)
    s.rr(Op.ADDSD + (0 if wide else Op.SINGLE), 0, x, x)
    s.skip_end(done)
    s.release(r)
    s.push(REG, x)


def reinterpret(s: Body, op: i64) -> None:
    """Constants and slots have no class; registers and locals change theirs. Of an f32 only the lower half counts, so
    that the integer is zero-extended here."""
    d = s.depth - 1
    k: i64 = s.kinds[d]
    v: i64 = s.values[d]
    if k == CONST:
        return
    to_float = NUMBER[op] == 1
    wide: i64 = WIDE[op]
    if k == SLOT and (to_float or wide):
        return
    s.drop()
    origin = s.where(k, v)
    if to_float:
        r = s.alloc_float()
        s.load(r, k, v, d)
    else:
        r = s.alloc()
        if origin >= XMM0:
            s.rr(Op.MOV_FROM_VECTOR, wide, origin, r)
        else:
            s.use(Op.MOV, wide, r, k, v, d)
    s.discard(k, v)
    s.push(REG, r)
