"""Emitters of vector instructions that move lanes: constants, splats, single lanes, shuffles; of loads and stores."""

from __future__ import annotations

from wasmforge.compiler.baseline.access import emit_access, folded_offset, take_address
from wasmforge.compiler.baseline.asm import Op, avx
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, NONE, SCRATCH
from wasmforge.compiler.baseline.values import CONST, LOCAL, VECTOR_CONST
from wasmforge.compiler.baseline.vector_forms import (
    Row,
    done,
    memory_form,
    push_literal,
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
    "constant",
    "extract",
    "extract_float",
    "load",
    "load_lane",
    "load_splat",
    "replace",
    "replace_float",
    "shuffle",
    "splat",
    "splat_float",
    "store",
    "store_lane",
    "swizzle",
]


def _lane(s: Body) -> i64:
    """Reads a lane immediate."""
    x: i64 = s.code[s.pc]
    s.pc += 1
    return x


def constant(s: Body, row: Row) -> None:
    s.pc += 16
    push_literal(s, s.code[s.pc - 16 : s.pc])


# --- Splats --------------------------------------------------------------------------------------------------------


def _push_splat(s: Body, size: i64) -> None:
    """Replaces a constant on top of the stack by the vector of it."""
    s.drop()
    value = s.values[s.depth]
    lane = (value % (1 << 64)).to_bytes(8, "little")[:size]
    push_literal(s, lane * (16 // len(lane)))


def splat(s: Body, row: Row) -> None:
    """Of an integer: `op` is AVX2's broadcast, `number` the size of a lane."""
    if s.kinds[s.depth - 1] == CONST:
        _push_splat(s, row.number)
        return
    origin = s.pop_read(False)
    hint = s.hint(True)
    s.release(origin)
    r = hint if hint >= 0 else s.alloc_float()
    s.hinted = hint
    op: i64 = Op.MOV_TO_VECTOR
    if s.context.has_avx:
        s.rr(avx(op, 0), 1 if row.number == 8 else 0, r, origin)
    else:
        s.rr(op, 1 if row.number == 8 else 0, r, origin)
    _spread(s, row, r, r)
    done(s, r)


def _spread(s: Body, row: Row, r: i64, a: i64) -> None:
    """Copies the lowest lane of `a` to all of `r`."""
    size = row.number
    if s.context.has_avx:
        s.rr(avx(row.op, 0), 0, r, a)
    elif size == 1:
        zero(s, FLOAT_SCRATCH)
        three(s, VectorOp.PSHUFB, r, a, FLOAT_SCRATCH)
    elif size == 2:
        s.rr(VectorOp.PSHUFLW, 0, r, a)
        s.byte(0)
        s.rr(VectorOp.PSHUFD, 0, r, r)
        s.byte(0)
    else:
        s.rr(VectorOp.PSHUFD, 0, r, a)
        s.byte(0 if size == 4 else 0x44)


def splat_float(s: Body, row: Row) -> None:
    if s.kinds[s.depth - 1] == CONST:
        _push_splat(s, row.number)
        return
    a = s.pop_read(True)
    r = target(s, a)
    _spread(s, row, r, a)
    done(s, r)


# --- Single lanes --------------------------------------------------------------------------------------------------


def extract(s: Body, row: Row) -> None:
    """Of integers: `op` is the extraction, `other` the sign extension, `number` the size of a lane."""
    lane = _lane(s)
    wide: i64 = 1 if row.number == 8 else 0
    a = s.pop_read(True)
    s.release(a)
    hint = s.hint(False)
    r = hint if hint >= 0 else s.alloc()
    op = row.op
    if lane == 0 and row.number >= 4:
        op = Op.MOV_FROM_VECTOR
    s.rr(avx(op, 0) if s.context.has_avx else op, wide, a, r)
    if op != Op.MOV_FROM_VECTOR:
        s.byte(lane)
    if row.other == Op.MOVSX8:
        s.rr8(Op.MOVSX8, 0, r, r)
    elif row.other:
        s.rr(row.other, 0, r, r)
    s.finish(r, hint)


def extract_float(s: Body, row: Row) -> None:
    """Lane 0 is where a float is anyway, in a register, slot or home."""
    lane = _lane(s)
    d = s.depth - 1
    if s.kinds[d] == VECTOR_CONST:
        literal = s.literals[s.values[d]]
        start: i64 = lane * row.number
        s.drop()
        # As constants of the stack are: f32 patterns unsigned, those of 64 bits signed.
        s.push(CONST, int.from_bytes(literal[start : start + row.number], "little", signed=row.number == 8))
        return
    if lane == 0:
        return
    a = s.pop_read(True)
    r = target(s, a)
    two(s, VectorOp.PSHUFD, r, a)
    s.byte(0xEE if row.number == 8 else lane)
    done(s, r)


def replace(s: Body, row: Row) -> None:
    lane = _lane(s)
    wide: i64 = 1 if row.number == 8 else 0
    value = s.pop_read(False)
    a = s.pop_read(True)
    r = target(s, a)
    s.release(value)
    op = memory_form(s, row.op, r, a)
    s.rr(op, wide, r, value)
    s.byte(lane)
    done(s, r)


def replace_float(s: Body, row: Row) -> None:
    lane = _lane(s)
    value = s.pop_read(True)
    a = s.pop_read(True)
    r = target(s, a, value)
    if row.number == 4:
        three(s, VectorOp.INSERTPS, r, a, value)
        s.byte(lane << 4)
    else:
        three(s, Op.MOVSD if lane == 0 else VectorOp.UNPCKLPD, r, a, value)
    done(s, r)


# --- Shuffles ------------------------------------------------------------------------------------------------------

_INTERLEAVED: Final = (
    (1, VectorOp.PUNPCKLBW, VectorOp.PUNPCKHBW),
    (2, VectorOp.PUNPCKLWD, VectorOp.PUNPCKHWD),
    (4, VectorOp.PUNPCKLDQ, VectorOp.PUNPCKHDQ),
    (8, VectorOp.PUNPCKLQDQ, VectorOp.PUNPCKHQDQ),
)


def _interleaving(size: int, start: int, swapped: bool) -> bytes:
    """What punpck does, as the lanes of a shuffle."""
    lanes: list[int] = []
    for k in range(start, start + 8, size):
        one, other = range(k, k + size), range(k + 16, k + 16 + size)
        lanes += (*other, *one) if swapped else (*one, *other)
    return bytes(lanes)


_UNPACK: Final[dict[bytes, tuple[int, bool]]] = {
    _interleaving(size, 8 * high, swapped): (op, swapped)
    for size, *ops in _INTERLEAVED
    for high, op in enumerate(ops)
    for swapped in (False, True)
}
"""Shuffles that are an unpacking, and whether its operands are swapped."""

_IDENTITY: Final = bytes(range(16))
_OUTSIDE: Final = 0x80
"""As a lane of pshufb: zero."""


def _same(s: Body) -> bool:
    """Whether both operands are one local."""
    d = s.depth - 1
    return s.kinds[d] == LOCAL and s.kinds[d - 1] == LOCAL and s.values[d] == s.values[d - 1]


def shuffle(s: Body, row: Row) -> None:
    lanes: bytes = s.code[s.pc : s.pc + 16]
    s.pc += 16
    if _same(s):
        lanes = bytes([x & 15 for x in lanes])
    if max(lanes) < 16:
        s.drop()
        s.discard(s.kinds[s.depth], s.values[s.depth])
        _shuffle_one(s, lanes)
        return
    b = s.pop_read(True)
    if min(lanes) >= 16:
        s.drop()
        s.discard(s.kinds[s.depth], s.values[s.depth])
        _shuffle_register(s, bytes([x - 16 for x in lanes]), b)
        return
    a = s.pop_read(True)
    r = target(s, a, b)
    _shuffle_two(s, lanes, r, a, b)
    done(s, r)


def _doublewords(lanes: bytes) -> bytes:
    """The lanes as those of a shuffle of doublewords, or nothing if they are none."""
    found: list[int] = []
    k: i64 = 0
    while k < 16:
        x: int = lanes[k]
        if x & 3 or lanes[k + 1] != x + 1 or lanes[k + 2] != x + 2 or lanes[k + 3] != x + 3:
            return b""
        found.append(x >> 2)
        k += 4
    return bytes(found)


def _selector(d: bytes) -> int:
    """Four doublewords as the immediate of pshufd and shufps."""
    return d[0] & 3 | (d[1] & 3) << 2 | (d[2] & 3) << 4 | (d[3] & 3) << 6


def _shuffle_one(s: Body, lanes: bytes) -> None:
    """A shuffle of the topmost operand alone."""
    if lanes == _IDENTITY:
        return
    _shuffle_register(s, lanes, s.pop_read(True))


def _shuffle_register(s: Body, lanes: bytes, a: i64) -> None:
    r = target(s, a)
    d = _doublewords(lanes)
    if lanes == _IDENTITY:
        s.move(r, a)
    elif d:
        two(s, VectorOp.PSHUFD, r, a)
        s.byte(_selector(d))
    else:
        with_literal(s, VectorOp.PSHUFB, r, a, lanes, 0)
    done(s, r)


def _shuffle_two(s: Body, lanes: bytes, r: i64, a: i64, b: i64) -> None:
    """The cases of one instruction, or else a pshufb of each operand."""
    unpack = _UNPACK.get(lanes)
    if unpack is not None:
        op, swapped = unpack
        if swapped:
            three(s, op, r, b, a)
        else:
            three(s, op, r, a, b)
        return
    first: int = lanes[0]
    if lanes == bytes([(first + k) & 31 for k in range(16)]):
        if first < 16:
            three(s, VectorOp.PALIGNR, r, b, a)
        else:
            three(s, VectorOp.PALIGNR, r, a, b)
        s.byte(first & 15)
        return
    blend = _blend(lanes)
    if blend >= 0:
        three(s, VectorOp.PBLENDW, r, a, b)
        s.byte(blend)
        return
    d = _doublewords(lanes)
    if d and d[0] >> 2 == d[1] >> 2 and d[2] >> 2 == d[3] >> 2:
        if d[0] < 4:
            three(s, VectorOp.SHUFPS, r, a, b)
        else:
            three(s, VectorOp.SHUFPS, r, b, a)
        s.byte(_selector(d))
        return
    from_a = bytes([x if x < 16 else _OUTSIDE for x in lanes])
    from_b = bytes([x - 16 if x >= 16 else _OUTSIDE for x in lanes])
    with_literal(s, VectorOp.PSHUFB, FLOAT_SCRATCH, a, from_a, 0)
    with_literal(s, VectorOp.PSHUFB, r, b, from_b, 0)
    three(s, VectorOp.POR, r, r, FLOAT_SCRATCH)


def _blend(lanes: bytes) -> i64:
    """The immediate of pblendw if every word stays in its place, or `NONE`."""
    mask: i64 = 0
    k: i64 = 0
    one: i64 = 1
    while k < 8:
        x: i64 = lanes[2 * k]
        if x & 15 != 2 * k or lanes[2 * k + 1] != x + 1:
            return NONE
        if x >= 16:
            mask |= one << k
        k += 1
    return mask


_SATURATION: Final = b"\x70" * 16


def swizzle(s: Body, row: Row) -> None:
    """pshufb gives 0 for indices from 128 on only; adding 0x70 with saturation brings those from 16 on there."""
    d = s.depth - 1
    if s.kinds[d] == VECTOR_CONST:
        indices = bytes([x if x < 16 else _OUTSIDE for x in s.literals[s.values[d]]])
        s.drop()
        _shuffle_indices(s, indices)
        return
    index = s.pop_read(True)
    a = s.pop_read(True)
    r = target(s, a, index)
    with_literal(s, VectorOp.PADDUSB, FLOAT_SCRATCH, index, _SATURATION, 0)
    three(s, VectorOp.PSHUFB, r, a, FLOAT_SCRATCH)
    done(s, r)


def _shuffle_indices(s: Body, indices: bytes) -> None:
    a = s.pop_read(True)
    r = target(s, a)
    with_literal(s, VectorOp.PSHUFB, r, a, indices, 0)
    done(s, r)


# --- Memory --------------------------------------------------------------------------------------------------------
#
# `number` of a row is the size of the access.


def _end_access(s: Body) -> None:
    """What follows does not fault; the index is no longer wanted."""
    s.mark(0)
    if s.found.index >= 0:
        s.release(s.found.index)


def load(s: Body, row: Row) -> None:
    """Loads that are one instruction, `op`."""
    offset = folded_offset(s)
    take_address(s, offset, row.number)
    hint = s.hint(True)
    r = hint if hint >= 0 else s.alloc_float()
    emit_access(s, avx(row.op, 0) if s.context.has_avx else row.op, 0, r)
    _end_access(s)
    s.finish(r, hint)


def load_splat(s: Body, row: Row) -> None:
    """`op` is AVX2's broadcast; without it the lane is loaded and spread."""
    if s.context.has_avx:
        load(s, row)
        return
    offset = folded_offset(s)
    take_address(s, offset, row.number)
    hint = s.hint(True)
    s.hinted = hint
    r = hint if hint >= 0 else s.alloc_float()
    if row.number < 4:
        emit_access(s, Op.MOVZX8 if row.number == 1 else Op.MOVZX16, 0, SCRATCH)
        _end_access(s)
        s.rr(Op.MOV_TO_VECTOR, 0, r, SCRATCH)
    else:
        emit_access(s, Op.MOVSS if row.number == 4 else Op.MOVSD, 0, r)
        _end_access(s)
    _spread(s, row, r, r)
    done(s, r)


def load_lane(s: Body, row: Row) -> None:
    offset = folded_offset(s)
    lane = _lane(s)
    a = s.pop_read(True)
    take_address(s, offset, row.number)
    r = target(s, a)
    op = memory_form(s, row.op, r, a)
    emit_access(s, op, 1 if row.number == 8 else 0, r)
    s.byte(lane)
    _end_access(s)
    done(s, r)


def store(s: Body, row: Row) -> None:
    offset = folded_offset(s)
    a = s.pop_read(True)
    take_address(s, offset, 16)
    emit_access(s, Op.MOVUPS_STORE, 0, a)
    _end_access(s)
    s.release(a)


def store_lane(s: Body, row: Row) -> None:
    offset = folded_offset(s)
    lane = _lane(s)
    a = s.pop_read(True)
    take_address(s, offset, row.number)
    op = row.op
    if lane == 0 and row.number >= 4:
        op = Op.MOVSS_STORE if row.number == 4 else Op.MOVSD_STORE
        emit_access(s, op, 0, a)
    else:
        emit_access(s, avx(op, 0) if s.context.has_avx else op, 1 if row.number == 8 else 0, a)
        s.byte(lane)
    _end_access(s)
    s.release(a)
