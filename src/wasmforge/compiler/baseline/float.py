"""Emitters of float instructions: arithmetic, comparisons, minimum and maximum, signs, rounding.

SSE quietens NaNs by itself (specification, section 4.3.3); `f32.neg` and its like change bits only. `function` calls
these with the opcode.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.integer import push_condition
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, NONE, SCRATCH
from wasmforge.compiler.baseline.rows import ENCODING, NUMBER, WIDE
from wasmforge.compiler.baseline.values import REG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["binary", "compare", "copysign", "minimum", "resize", "round_", "sign", "square_root"]

_EQ: Final = 0
_NE: Final = 1
_LT: Final = 2
_LE: Final = 4


def _first(s: Body, k: i64, v: i64, i: i64, hint: i64) -> i64:
    """The first operand of an instruction in the register of its result."""
    if hint < 0 and k == REG:
        return v
    r = hint if hint >= 0 else s.alloc_float()
    s.load(r, k, v, i)
    s.discard(k, v)
    return r


def binary(s: Body, op: i64) -> None:
    """add, sub, mul, div. Of two NaNs the first operand decides which comes out, and either may (section 4.3.3)."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.drop()
    j = s.depth
    k2: i64 = s.kinds[j]
    v2: i64 = s.values[j]
    hint = s.hint(True)
    in_place = hint >= 0 and s.where(k, v) == hint
    exchange = k == REG and k2 != REG and (hint < 0 or s.where(k2, v2) != hint)
    if NUMBER[op] and (in_place or exchange):
        k, k2 = k2, k
        v, v2 = v2, v
        i, j = j, i
    elif in_place:
        hint = NONE
    r = _first(s, k2, v2, j, hint)
    s.use_float(ENCODING[op], r, k, v, i)
    s.discard(k, v)
    s.finish(r, hint)


def compare(s: Body, op: i64) -> None:
    """Comparisons are false for NaN, except ne. `ucomis` says "unordered" by all of its flags being set, so that only
    "above" and "above or equal" are false then; less-than is above with the operands exchanged."""
    number: i64 = NUMBER[op]
    wide: i64 = WIDE[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    if number in (_EQ, _NE):
        # Equal or unordered are one flag; a comparison to a mask tells them apart without a second jump.
        s.drop()
        j = s.depth
        s.load(FLOAT_SCRATCH, s.kinds[j], s.values[j], j)
        s.discard(s.kinds[j], s.values[j])
        r = s.where(k, v)
        owned: i64 = NONE
        if r < 0:
            owned = s.alloc_float()
            s.load(owned, k, v, i)
            r = owned
        s.rr(Op.CMPSD + (0 if wide else Op.SINGLE), 0, FLOAT_SCRATCH, r)
        s.byte(0)
        s.discard(k, v)
        if owned >= 0:
            s.release(owned)
        s.rr(Op.MOV_FROM_VECTOR, 0, FLOAT_SCRATCH, SCRATCH)
        s.rr(Op.TEST, 0, SCRATCH, SCRATCH)
        push_condition(s, Condition.NOT_EQUAL if number == _EQ else Condition.EQUAL)
        return
    if number in (_LT, _LE):
        # (second, first): the second must be in a register.
        j = s.depth - 1
        k2: i64 = s.kinds[j]
        v2: i64 = s.values[j]
        r = s.where(k, v)
        owned = NONE
        if r < 0:
            owned = s.alloc_float()
            s.load(owned, k, v, i)
            r = owned
            # Allocating may have moved the first operand, which is still on the stack.
            k2 = s.kinds[j]
            v2 = s.values[j]
        s.drop()
        s.use_float(ENCODING[op], r, k2, v2, j)
        s.discard(k, v)
        s.discard(k2, v2)
        if owned >= 0:
            s.release(owned)
    else:
        other = s.where(k, v)
        if other >= 0:
            s.lock(other)
        r = s.pop_read(True)
        s.use_float(ENCODING[op], r, k, v, i)
        s.release(r)
        if other >= 0:
            s.release(other)
    push_condition(s, Condition.ABOVE if number == _LT or number == _LT + 1 else Condition.ABOVE_EQUAL)


def minimum(s: Body, op: i64) -> None:
    """min and max: NaN if one operand is, and -0 is less than 0; the machine's instruction does neither."""
    wide: i64 = WIDE[op]
    single: i64 = 0 if wide else Op.SINGLE
    maximum = NUMBER[op] == 1
    other = s.pop_read(True)
    s.lock(other)
    s.drop()
    j = s.depth
    hint = s.hint(True)
    if hint == other:
        hint = NONE
    r = _first(s, s.kinds[j], s.values[j], j, hint)
    s.rr(Op.UCOMISD if wide else Op.UCOMISS, 0, r, other)
    different = s.skip_if(Condition.NOT_EQUAL)
    unordered = s.skip_if(Condition.PARITY)
    s.rr(Op.ANDPS if maximum else Op.ORPS, 0, r, other)
    done = s.skip()
    s.skip_end(unordered)
    s.rr(Op.ADDSD + single, 0, r, other)
    done_too = s.skip()
    s.skip_end(different)
    s.rr(ENCODING[op], 0, r, other)
    s.skip_end(done)
    s.skip_end(done_too)
    s.release(other)
    s.finish(r, hint)


def _mask(s: Body, wide: i64, sign: bool) -> None:
    """Makes the scratch register the mask of the sign bit, or of all others."""
    s.rr(Op.PCMPEQD, 0, FLOAT_SCRATCH, FLOAT_SCRATCH)
    s.rr(Op.PSHIFTQ_IMMEDIATE if wide else Op.PSHIFTD_IMMEDIATE, 0, 6 if sign else 2, FLOAT_SCRATCH)
    s.byte((63 if wide else 31) if sign else 1)


def sign(s: Body, op: i64) -> None:
    """abs and neg."""
    negate = NUMBER[op] == 1
    s.drop()
    j = s.depth
    hint = s.hint(True)
    r = _first(s, s.kinds[j], s.values[j], j, hint)
    _mask(s, WIDE[op], negate)
    s.rr(Op.XORPS if negate else Op.ANDPS, 0, r, FLOAT_SCRATCH)
    s.finish(r, hint)


def copysign(s: Body, op: i64) -> None:
    other = s.pop_read(True)
    s.lock(other)
    s.drop()
    j = s.depth
    hint = s.hint(True)
    if hint == other:
        hint = NONE
    r = _first(s, s.kinds[j], s.values[j], j, hint)
    _mask(s, WIDE[op], False)
    s.rr(Op.ANDPS, 0, r, FLOAT_SCRATCH)
    s.rr(Op.ANDNPS, 0, FLOAT_SCRATCH, other)
    s.rr(Op.ORPS, 0, r, FLOAT_SCRATCH)
    s.release(other)
    s.finish(r, hint)


def _unary(s: Body, encoding: i64, rounding: i64) -> None:
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    origin = s.where(k, v)
    hint = s.hint(True)
    if hint >= 0:
        r = hint
    elif k == REG:
        r = v
    else:
        r = s.alloc_float()
    if origin >= 0 and (origin == r or k == REG or s.where(k, v) == origin):
        s.rr(encoding, 0, r, origin)
    else:
        # Through the result's register: it breaks the dependency on what was in it, and leaves no constant with an
        # immediate behind its displacement, which `rc` does not allow for.
        s.load(r, k, v, i)
        s.rr(encoding, 0, r, r)
    if rounding >= 0:
        s.byte(rounding)
    if k == REG and r != v:
        s.release(v)
    s.finish(r, hint)


def square_root(s: Body, op: i64) -> None:
    _unary(s, ENCODING[op], NONE)


def round_(s: Body, op: i64) -> None:
    """ceil, floor, trunc, nearest."""
    _unary(s, ENCODING[op], NUMBER[op])


def resize(s: Body, op: i64) -> None:
    """promote and demote."""
    _unary(s, ENCODING[op], NONE)
