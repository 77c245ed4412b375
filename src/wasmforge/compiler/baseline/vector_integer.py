"""Emitters of vector instructions that are one machine instruction, and of those of integers: comparisons,
multiplications, reductions to a number. The table in `vector_rows` names the emitter of each.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op, avx
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.integer import push_condition
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH
from wasmforge.compiler.baseline.values import ONES
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
    "COMMUTATIVE",
    "IMMEDIATE",
    "REVERSED",
    "absolute",
    "all_true",
    "any_true",
    "binary",
    "bitmask",
    "bitselect",
    "compare_by_extreme",
    "complement",
    "extend_high",
    "extended_product",
    "extended_product_of_words",
    "multiply",
    "negate",
    "pairwise_signed_bytes",
    "pairwise_unsigned_words",
    "population",
    "q15",
    "unary",
    "with_constant",
]

COMMUTATIVE: Final = 1
REVERSED: Final = 2
"""The machine instruction takes the operands the other way round."""
IMMEDIATE: Final = 4
"""`other` is an immediate byte."""

_HIGH_HALF: Final = 0xEE
"""For pshufd: the upper half into both."""


# --- One instruction ---------------------------------------------------------------------------------------------


def _binary(s: Body, row: Row) -> i64:
    """Writes an instruction of two operands and returns its result. The second machine operand may be in memory."""
    flags = row.number
    behind: i64 = 1 if flags & IMMEDIATE else 0
    d = s.depth
    last_in_register = s.where(s.kinds[d - 1], s.values[d - 1]) >= 0
    first_in_register = s.where(s.kinds[d - 2], s.values[d - 2]) >= 0
    exchange = flags & REVERSED != 0
    if flags & COMMUTATIVE and last_in_register and not first_in_register:
        exchange = True
    k: i64
    v: i64
    i: i64
    a: i64
    if exchange:
        a = s.pop_read(True)
        s.drop()
        i = s.depth
        k = s.kinds[i]
        v = s.values[i]
    else:
        s.drop()
        i = s.depth
        k = s.kinds[i]
        v = s.values[i]
        b = s.where(k, v)
        if b >= 0:
            s.lock(b)
        a = s.pop_read(True)
    b = s.where(k, v)
    if b >= 0:
        s.lock(b)
    hint = s.hint(True)
    s.hinted = hint
    s.release(a)
    if b >= 0:
        s.release(b)
    r = hint if hint >= 0 else s.alloc_float()
    if s.context.has_avx:
        s.use_vector(avx(row.op, a), r, k, v, i, behind)
    elif b >= 0:
        three(s, row.op, r, a, b)
    else:
        s.move(r, a)
        s.use_vector(row.op, r, k, v, i, behind)
    if behind:
        s.byte(row.other)
    return r


def binary(s: Body, row: Row) -> None:
    done(s, _binary(s, row))


def complement(s: Body, row: Row) -> None:
    """A comparison that the machine has the opposite of."""
    r = _binary(s, row)
    with_literal(s, VectorOp.PXOR, r, r, ONES, 0)
    done(s, r)


def unary(s: Body, row: Row) -> None:
    behind: i64 = 1 if row.number & IMMEDIATE else 0
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    a = s.where(k, v)
    if a >= 0:
        s.lock(a)
    hint = s.hint(True)
    s.hinted = hint
    if a >= 0:
        s.release(a)
    r = hint if hint >= 0 else s.alloc_float()
    s.use_vector(avx(row.op, 0) if s.context.has_avx else row.op, r, k, v, i, behind)
    if behind:
        s.byte(row.other)
    done(s, r)


def with_constant(s: Body, row: Row) -> None:
    """One operand, and a constant as the second."""
    a = s.pop_read(True)
    r = target(s, a)
    with_literal(s, row.op, r, a, row.literal, 0)
    done(s, r)


def bitselect(s: Body, row: Row) -> None:
    mask = s.pop_read(True)
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = target(s, mask, b, a)
    three(s, VectorOp.PANDN, FLOAT_SCRATCH, mask, b)
    if r == mask:
        three(s, VectorOp.PAND, r, mask, a)
    else:
        three(s, VectorOp.PAND, r, a, mask)
    three(s, VectorOp.POR, r, r, FLOAT_SCRATCH)
    done(s, r)


# --- Comparisons and signs ---------------------------------------------------------------------------------------


def compare_by_extreme(s: Body, row: Row) -> None:
    """The machine compares signed, and for greater only: `a >= b` if a is the maximum, `a <= b` if it is the minimum,
    and the opposites. `other` is the comparison for equality."""
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = fresh(s, a, b)
    three(s, row.op, r, a, b)
    three(s, row.other, r, r, a)
    if row.number:
        with_literal(s, VectorOp.PXOR, r, r, ONES, 0)
    s.release(a)
    s.release(b)
    done(s, r)


def negate(s: Body, row: Row) -> None:
    a = s.pop_read(True)
    r = fresh(s, a, a)
    zero(s, r)
    three(s, row.op, r, r, a)
    s.release(a)
    done(s, r)


def absolute(s: Body, row: Row) -> None:
    """i64x2.abs: with the mask of negative lanes m, (a ^ m) - m."""
    a = s.pop_read(True)
    zero(s, FLOAT_SCRATCH)
    three(s, VectorOp.PCMPGTQ, FLOAT_SCRATCH, FLOAT_SCRATCH, a)
    r = target(s, a)
    three(s, VectorOp.PXOR, r, a, FLOAT_SCRATCH)
    three(s, VectorOp.PSUBQ, r, r, FLOAT_SCRATCH)
    done(s, r)


# --- Products and sums -------------------------------------------------------------------------------------------


def multiply(s: Body, row: Row) -> None:
    """i64x2.mul from 32-bit products: low * low + ((high * low' + high' * low) << 32)."""
    b = s.pop_read(True)
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a, b)
    shift(s, VectorOp.SHIFT_Q, 2, FLOAT_SCRATCH, a, 32)
    three(s, VectorOp.PMULUDQ, FLOAT_SCRATCH, FLOAT_SCRATCH, b)
    shift(s, VectorOp.SHIFT_Q, 2, t, b, 32)
    three(s, VectorOp.PMULUDQ, t, t, a)
    three(s, VectorOp.PADDQ, t, t, FLOAT_SCRATCH)
    shift(s, VectorOp.SHIFT_Q, 6, t, t, 32)
    if r == b:
        three(s, VectorOp.PMULUDQ, r, b, a)
    else:
        three(s, VectorOp.PMULUDQ, r, a, b)
    three(s, VectorOp.PADDQ, r, r, t)
    s.release(t)
    done(s, r)


def extended_product(s: Body, row: Row) -> None:
    """extmul of bytes and of doublewords: each operand extended or spread first. `op` multiplies, `other` extends; with
    `number`, the operands are shuffled by it instead, or (`_HIGH_HALF`) before."""
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = target(s, a, b)
    _spread(s, row, FLOAT_SCRATCH, a)
    _spread(s, row, r, b)
    three(s, row.op, r, r, FLOAT_SCRATCH)
    done(s, r)


def _spread(s: Body, row: Row, to: i64, a: i64) -> None:
    if row.number:
        two(s, VectorOp.PSHUFD, to, a)
        s.byte(row.number)
        a = to
    if row.other:
        two(s, row.other, to, a)


def extended_product_of_words(s: Body, row: Row) -> None:
    """extmul of words: both halves of the products, unpacked. `op` gives the upper halves, `other` unpacks."""
    b = s.pop_read(True)
    a = s.pop_read(True)
    r = target(s, a, b)
    three(s, row.op, FLOAT_SCRATCH, a, b)
    if r == b:
        three(s, VectorOp.PMULLW, r, b, a)
    else:
        three(s, VectorOp.PMULLW, r, a, b)
    three(s, row.other, r, r, FLOAT_SCRATCH)
    done(s, r)


def extend_high(s: Body, row: Row) -> None:
    a = s.pop_read(True)
    r = target(s, a)
    two(s, VectorOp.PSHUFD, r, a)
    s.byte(_HIGH_HALF)
    two(s, row.op, r, r)
    done(s, r)


_ONE_BYTES: Final = lanes_of(1, 1)
_ONE_WORDS: Final = lanes_of(1, 2)
_LEAST_WORDS: Final = lanes_of(0x8000, 2)
_TWO_LEAST_WORDS: Final = lanes_of(0x10000, 4)


def pairwise_signed_bytes(s: Body, row: Row) -> None:
    """pmaddubsw takes its first operand as unsigned: the ones."""
    a = s.pop_read(True)
    r = fresh(s, a, a)
    s.rv(Op.MOVAPS, 0, r, _ONE_BYTES, 0)
    three(s, VectorOp.PMADDUBSW, r, r, a)
    s.release(a)
    done(s, r)


def pairwise_unsigned_words(s: Body, row: Row) -> None:
    """pmaddwd takes words as signed, so they move by 32768 before, and the sums back."""
    a = s.pop_read(True)
    r = target(s, a)
    with_literal(s, VectorOp.PXOR, r, a, _LEAST_WORDS, 0)
    with_literal(s, VectorOp.PMADDWD, r, r, _ONE_WORDS, 0)
    with_literal(s, VectorOp.PADDD, r, r, _TWO_LEAST_WORDS, 0)
    done(s, r)


def q15(s: Body, row: Row) -> None:
    """i16x8.q15mulr_sat_s: only -1 times -1 overflows, to the least number instead of the greatest."""
    r = _binary(s, row)
    with_literal(s, VectorOp.PCMPEQW, FLOAT_SCRATCH, r, _LEAST_WORDS, 0)
    three(s, VectorOp.PXOR, r, r, FLOAT_SCRATCH)
    done(s, r)


_NIBBLES: Final = lanes_of(0x0F, 1)
_BITS_OF_NIBBLE: Final = bytes(n.bit_count() for n in range(16))


def population(s: Body, row: Row) -> None:
    """i8x16.popcnt: both nibbles from a table."""
    a = s.pop_read(True)
    t = s.alloc_float()
    r = target(s, a)
    with_literal(s, VectorOp.PAND, FLOAT_SCRATCH, a, _NIBBLES, 0)
    s.rv(Op.MOVAPS, 0, t, _BITS_OF_NIBBLE, 0)
    three(s, VectorOp.PSHUFB, t, t, FLOAT_SCRATCH)
    shift(s, VectorOp.SHIFT_W, 2, r, a, 4)
    with_literal(s, VectorOp.PAND, r, r, _NIBBLES, 0)
    s.rv(Op.MOVAPS, 0, FLOAT_SCRATCH, _BITS_OF_NIBBLE, 0)
    three(s, VectorOp.PSHUFB, FLOAT_SCRATCH, FLOAT_SCRATCH, r)
    three(s, VectorOp.PADDB, r, t, FLOAT_SCRATCH)
    s.release(t)
    done(s, r)


# --- Reductions ----------------------------------------------------------------------------------------------------


def any_true(s: Body, row: Row) -> None:
    a = s.pop_read(True)
    two(s, VectorOp.PTEST, a, a)
    s.release(a)
    push_condition(s, Condition.NOT_EQUAL)


def all_true(s: Body, row: Row) -> None:
    """`op` compares lanes with zero; none may be."""
    a = s.pop_read(True)
    zero(s, FLOAT_SCRATCH)
    three(s, row.op, FLOAT_SCRATCH, FLOAT_SCRATCH, a)
    two(s, VectorOp.PTEST, FLOAT_SCRATCH, FLOAT_SCRATCH)
    s.release(a)
    push_condition(s, Condition.EQUAL)


def bitmask(s: Body, row: Row) -> None:
    """`other`: words become bytes before."""
    a = s.pop_read(True)
    origin = a
    if row.other:
        three(s, VectorOp.PACKSSWB, FLOAT_SCRATCH, a, a)
        origin = FLOAT_SCRATCH
    s.release(a)
    hint = s.hint(False)
    r = hint if hint >= 0 else s.alloc()
    two(s, row.op, r, origin)
    if row.other:
        s.rr8(Op.MOVZX8, 0, r, r)
    s.finish(r, hint)
