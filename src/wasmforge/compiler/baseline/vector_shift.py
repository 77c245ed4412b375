"""Emitters of shifts of vectors. By a constant they are one instruction where the machine has the shape, and few where
it has not (bytes, signed quadwords); by a variable the count passes through the vector scratch register.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, SCRATCH
from wasmforge.compiler.baseline.values import CONST
from wasmforge.compiler.baseline.vector_forms import (
    Row,
    done,
    lanes_of,
    ones,
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

__all__ = ["LEFT", "RIGHT_SIGNED", "RIGHT_UNSIGNED", "shift_bytes", "shift_lanes", "shift_right_quadwords"]


def _variable_count(s: Body, mask: i64, more: i64) -> None:
    """Pops a shift count into the vector scratch register: modulo the width, plus `more`."""
    count = s.pop_read(False)
    s.rr(Op.MOV, 0, SCRATCH, count)
    s.group1(4, 0, SCRATCH, mask)
    if more:
        s.group1(0, 0, SCRATCH, more)
    two(s, Op.MOV_TO_VECTOR, FLOAT_SCRATCH, SCRATCH)
    s.release(count)


def _constant_count(s: Body) -> bool:
    return s.kinds[s.depth - 1] == CONST


def _pop_constant(s: Body, mask: i64) -> i64:
    s.drop()
    v: i64 = s.values[s.depth]
    return v & mask


def shift_lanes(s: Body, row: Row) -> None:
    """`op` takes the count from a register. `other` is the form with an immediate: its number in the group times 2**32,
    and the group. `number` is the greatest count."""
    constant = _constant_count(s)
    count: i64 = 0
    if constant:
        count = _pop_constant(s, row.number)
    else:
        _variable_count(s, row.number, 0)
    a = s.pop_read(True)
    r = target(s, a)
    if not constant:
        three(s, row.op, r, a, FLOAT_SCRATCH)
    elif count:
        shift(s, row.other & 0xFFFFFFFF, row.other >> 32, r, a, count)
    else:
        s.move(r, a)
    done(s, r)


LEFT: Final = 0
RIGHT_SIGNED: Final = 1
RIGHT_UNSIGNED: Final = 2


def shift_bytes(s: Body, row: Row) -> None:
    """Shifts of i8x16, which the machine lacks: words are shifted and what crossed over is masked away; or, for signed
    ones by a variable count, bytes become the upper halves of words."""
    if _constant_count(s):
        _shift_bytes_by_constant(s, row.number)
        return
    _variable_count(s, 7, 8 if row.number == RIGHT_SIGNED else 0)
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a)
    if row.number == RIGHT_SIGNED:
        three(s, VectorOp.PUNPCKHBW, t, a, a)
        three(s, VectorOp.PUNPCKLBW, r, a, a)
        three(s, VectorOp.PSRAW, t, t, FLOAT_SCRATCH)
        three(s, VectorOp.PSRAW, r, r, FLOAT_SCRATCH)
        three(s, VectorOp.PACKSSWB, r, r, t)
    else:
        op: i64 = VectorOp.PSLLW if row.number == LEFT else VectorOp.PSRLW
        ones(s, t)
        if row.number == RIGHT_UNSIGNED:
            shift(s, VectorOp.SHIFT_W, 2, t, t, 8)
        three(s, op, t, t, FLOAT_SCRATCH)
        three(s, op, r, a, FLOAT_SCRATCH)
        zero(s, FLOAT_SCRATCH)
        three(s, VectorOp.PSHUFB, t, t, FLOAT_SCRATCH)
        three(s, VectorOp.PAND, r, r, t)
    s.release(t)
    done(s, r)


def _shift_bytes_by_constant(s: Body, direction: i64) -> None:
    count = _pop_constant(s, 7)
    a = s.pop_read(True)
    r = target(s, a)
    n: int = count
    if n == 0:
        s.move(r, a)
    elif direction == LEFT:
        shift(s, VectorOp.SHIFT_W, 6, r, a, count)
        with_literal(s, VectorOp.PAND, r, r, lanes_of(0xFF << n & 0xFF, 1), 0)
    else:
        shift(s, VectorOp.SHIFT_W, 2, r, a, count)
        with_literal(s, VectorOp.PAND, r, r, lanes_of(0xFF >> n, 1), 0)
        if direction == RIGHT_SIGNED:
            _extend_sign(s, VectorOp.PSUBB, r, lanes_of(0x80 >> n, 1))
    done(s, r)


def _extend_sign(s: Body, subtract: i64, r: i64, sign: bytes) -> None:
    """Makes numbers signed whose sign is not in the highest bit: (r ^ sign) - sign."""
    with_literal(s, VectorOp.PXOR, r, r, sign, 0)
    with_literal(s, subtract, r, r, sign, 0)


def shift_right_quadwords(s: Body, row: Row) -> None:
    """i64x2.shr_s, which came with AVX-512 only."""
    r: i64
    if _constant_count(s):
        count = _pop_constant(s, 63)
        a = s.pop_read(True)
        r = target(s, a)
        n: int = count
        if n:
            shift(s, VectorOp.SHIFT_Q, 2, r, a, count)
            _extend_sign(s, VectorOp.PSUBQ, r, lanes_of(1 << 63 >> n, 8))
        else:
            s.move(r, a)
        done(s, r)
        return
    _variable_count(s, 63, 0)
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a)
    s.rv(Op.MOVAPS, 0, t, lanes_of(1 << 63, 8), 0)
    three(s, VectorOp.PSRLQ, t, t, FLOAT_SCRATCH)
    three(s, VectorOp.PSRLQ, r, a, FLOAT_SCRATCH)
    three(s, VectorOp.PXOR, r, r, t)
    three(s, VectorOp.PSUBQ, r, r, t)
    s.release(t)
    done(s, r)
