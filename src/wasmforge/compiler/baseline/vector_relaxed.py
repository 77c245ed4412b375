"""Emitters of the relaxed vector instructions: what the host does fastest, or, if the tunables say so, what the
deterministic profile of the specification wants.
"""

from __future__ import annotations

from wasmforge.compiler.baseline import vector_float as floats
from wasmforge.compiler.baseline import vector_integer as integers
from wasmforge.compiler.baseline import vector_lanes as lanes
from wasmforge.compiler.baseline.asm import avx
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH
from wasmforge.compiler.baseline.vector_forms import Row, done, fresh, target, three, two, with_literal, zero
from wasmforge.compiler.baseline.vector_op import AVX2Op, VectorOp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["dot", "dot_add", "lane_select", "maximum", "minimum", "multiply_add", "q15", "swizzle", "truncate"]

_PSHUFB: Final = Row(integers.binary, VectorOp.PSHUFB)
_CVTTPS2DQ: Final = Row(integers.unary, VectorOp.CVTTPS2DQ)
_CVTTPD2DQ: Final = Row(integers.unary, VectorOp.CVTTPD2DQ)
_MINPS: Final = Row(integers.binary, VectorOp.MINPS)
_MINPD: Final = Row(integers.binary, VectorOp.MINPD)
_MAXPS: Final = Row(integers.binary, VectorOp.MAXPS)
_MAXPD: Final = Row(integers.binary, VectorOp.MAXPD)

_HIGH_HALF: Final = 0xEE
_ONE_WORDS: Final = b"\1\0" * 8


def swizzle(s: Body, row: Row) -> None:
    if s.context.deterministic:
        lanes.swizzle(s, row)
    else:
        integers.binary(s, _PSHUFB)


def truncate(s: Body, row: Row) -> None:
    """`number`: 1 unsigned, 2 from doubles. The machine has no unsigned ones, and nothing shorter than saturation gives
    results that the specification allows for all that is out of range, the same for singles and doubles (4.3.6)."""
    number = row.number
    if number == 1:
        floats.truncate_singles_unsigned(s, row)
    elif number == 3:
        floats.truncate_doubles_unsigned(s, row)
    elif not s.context.deterministic:
        integers.unary(s, _CVTTPS2DQ if number == 0 else _CVTTPD2DQ)
    elif number == 0:
        floats.truncate_singles(s, row)
    else:
        floats.truncate_doubles(s, row)


def minimum(s: Body, row: Row) -> None:
    if s.context.deterministic:
        floats.minimum(s, row)
    else:
        integers.binary(s, _MINPD if row.other else _MINPS)


def maximum(s: Body, row: Row) -> None:
    if s.context.deterministic:
        floats.maximum(s, row)
    else:
        integers.binary(s, _MAXPD if row.other else _MAXPS)


def q15(s: Body, row: Row) -> None:
    if s.context.deterministic:
        integers.q15(s, row)
    else:
        integers.binary(s, row)


def multiply_add(s: Body, row: Row) -> None:
    """`a * b + c`, or `c - a * b`. Fused, `op` overwrites a factor, `other` the sum; `number`: of doubles. Not fused
    in the specification's deterministic profile, which every host can do."""
    c = s.pop_read(True)
    b = s.pop_read(True)
    a = s.pop_read(True)
    double = row.number
    if s.context.deterministic or not s.context.has_avx:
        r = fresh(s, c, c)
        three(s, VectorOp.MULPD if double else VectorOp.MULPS, FLOAT_SCRATCH, a, b)
        if row.op == AVX2Op.VFMADD213PS:
            three(s, VectorOp.ADDPD if double else VectorOp.ADDPS, r, FLOAT_SCRATCH, c)
        else:
            three(s, VectorOp.SUBPD if double else VectorOp.SUBPS, r, c, FLOAT_SCRATCH)
        s.release(a)
        s.release(b)
        s.release(c)
        done(s, r)
        return
    r = target(s, a, b, c)
    if r == a:
        s.rr(avx(row.op, b), double, r, c)
    elif r == b:
        s.rr(avx(row.op, a), double, r, c)
    else:
        s.move(r, c)
        s.rr(avx(row.other, a), double, r, b)
    done(s, r)


def lane_select(s: Body, row: Row) -> None:
    """By the highest bit of each lane of the mask. `op` looks at that, where there is AVX and it has the lane; else a
    mask is made by `other`, the comparison with zero."""
    if s.context.deterministic:
        integers.bitselect(s, row)
        return
    mask = s.pop_read(True)
    b = s.pop_read(True)
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a, b, mask)
    s.release(t)
    if s.context.has_avx and row.op:
        s.rr(avx(row.op, b), 0, r, a)
        s.byte((mask & 15) << 4)
        done(s, r)
        return
    # b ^ ((a ^ b) & mask)
    zero(s, FLOAT_SCRATCH)
    three(s, row.other, FLOAT_SCRATCH, FLOAT_SCRATCH, mask)
    three(s, VectorOp.PXOR, t, a, b)
    three(s, VectorOp.PAND, FLOAT_SCRATCH, FLOAT_SCRATCH, t)
    three(s, VectorOp.PXOR, r, b, FLOAT_SCRATCH)
    done(s, r)


def dot(s: Body, row: Row) -> None:
    """Products of signed bytes and bytes of 7 bits, which the machine takes as unsigned, summed by pairs with
    saturation."""
    b = s.pop_read(True)
    a = s.pop_read(True)
    if not s.context.deterministic:
        r = target(s, a, b)
        three(s, VectorOp.PMADDUBSW, r, b, a)
        done(s, r)
        return
    t = s.alloc_float()
    r = target(s, a, b)
    _signed_dot(s, r, a, b, t)
    s.release(t)
    done(s, r)


def dot_add(s: Body, row: Row) -> None:
    c = s.pop_read(True)
    b = s.pop_read(True)
    a = s.pop_read(True)
    t = s.alloc_float()
    r = fresh(s, c, c)
    if s.context.deterministic:
        _signed_dot(s, r, a, b, t)
    else:
        three(s, VectorOp.PMADDUBSW, r, b, a)
    with_literal(s, VectorOp.PMADDWD, r, r, _ONE_WORDS, 0)
    three(s, VectorOp.PADDD, r, r, c)
    s.release(t)
    s.release(a)
    s.release(b)
    s.release(c)
    done(s, r)


def _signed_dot(s: Body, r: i64, a: i64, b: i64, t: i64) -> None:
    """`r`, which may be `a` or `b`: the pairs' sums of products of signed bytes."""
    two(s, VectorOp.PMOVSXBW, FLOAT_SCRATCH, a)
    two(s, VectorOp.PMOVSXBW, t, b)
    three(s, VectorOp.PMULLW, t, t, FLOAT_SCRATCH)
    two(s, VectorOp.PSHUFD, FLOAT_SCRATCH, a)
    s.byte(_HIGH_HALF)
    two(s, VectorOp.PMOVSXBW, FLOAT_SCRATCH, FLOAT_SCRATCH)
    two(s, VectorOp.PSHUFD, r, b)
    s.byte(_HIGH_HALF)
    two(s, VectorOp.PMOVSXBW, r, r)
    three(s, VectorOp.PMULLW, r, r, FLOAT_SCRATCH)
    three(s, VectorOp.PHADDSW, t, t, r)
    s.move(r, t)
