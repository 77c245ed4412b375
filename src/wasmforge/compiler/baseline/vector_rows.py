"""A row for every vector instruction: its emitter, the machine instruction, and a few numbers that the emitter
explains. `function` calls `instruction`, which reads the number of the instruction and hands over.
"""

from __future__ import annotations

from wasmforge.compiler.baseline import vector_float as floats
from wasmforge.compiler.baseline import vector_integer as integers
from wasmforge.compiler.baseline import vector_lanes as lanes
from wasmforge.compiler.baseline import vector_relaxed as relaxed
from wasmforge.compiler.baseline import vector_shift as shifts
from wasmforge.compiler.baseline.asm import Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.values import ONES
from wasmforge.compiler.baseline.vector_forms import Row, lanes_of
from wasmforge.compiler.baseline.vector_integer import COMMUTATIVE, IMMEDIATE, REVERSED
from wasmforge.compiler.baseline.vector_op import AVX2Op, VectorOp
from wasmforge.syntax.instructions import BY_MNEMONIC
from wasmforge.syntax.vectors import VECTOR_INSTRUCTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["instruction"]

_V = VectorOp


def _binary(op: int, flags: int = 0, immediate: int = 0) -> Row:
    return Row(integers.binary, op, flags, immediate)


def _unary(op: int, immediate: int = -1) -> Row:
    return Row(integers.unary, op, 0, 0) if immediate < 0 else Row(integers.unary, op, IMMEDIATE, immediate)


def _integer_arithmetic() -> dict[str, Row]:
    """By lane: the operations that the machine has for most of them."""
    commutative = {
        "add": (_V.PADDB, _V.PADDW, _V.PADDD, _V.PADDQ),
        "add_sat_s": (_V.PADDSB, _V.PADDSW, 0, 0),
        "add_sat_u": (_V.PADDUSB, _V.PADDUSW, 0, 0),
        "mul": (0, _V.PMULLW, _V.PMULLD, 0),
        "min_s": (_V.PMINSB, _V.PMINSW, _V.PMINSD, 0),
        "min_u": (_V.PMINUB, _V.PMINUW, _V.PMINUD, 0),
        "max_s": (_V.PMAXSB, _V.PMAXSW, _V.PMAXSD, 0),
        "max_u": (_V.PMAXUB, _V.PMAXUW, _V.PMAXUD, 0),
        "avgr_u": (_V.PAVGB, _V.PAVGW, 0, 0),
        "eq": (_V.PCMPEQB, _V.PCMPEQW, _V.PCMPEQD, _V.PCMPEQQ),
    }
    ordered = {
        "sub": (_V.PSUBB, _V.PSUBW, _V.PSUBD, _V.PSUBQ),
        "sub_sat_s": (_V.PSUBSB, _V.PSUBSW, 0, 0),
        "sub_sat_u": (_V.PSUBUSB, _V.PSUBUSW, 0, 0),
        "gt_s": (_V.PCMPGTB, _V.PCMPGTW, _V.PCMPGTD, _V.PCMPGTQ),
    }
    unary = {"abs": (_V.PABSB, _V.PABSW, _V.PABSD, 0)}
    rows: dict[str, Row] = {}
    for k, shape in enumerate(("i8x16", "i16x8", "i32x4", "i64x2")):
        for name, ops in commutative.items():
            if ops[k]:
                rows[f"{shape}.{name}"] = _binary(ops[k], COMMUTATIVE)
        for name, ops in ordered.items():
            if ops[k]:
                rows[f"{shape}.{name}"] = _binary(ops[k])
        for name, ops in unary.items():
            if ops[k]:
                rows[f"{shape}.{name}"] = _unary(ops[k])
        equal = commutative["eq"][k]
        greater = ordered["gt_s"][k]
        rows[f"{shape}.ne"] = Row(integers.complement, equal, COMMUTATIVE)
        rows[f"{shape}.lt_s"] = _binary(greater, REVERSED)
        rows[f"{shape}.neg"] = Row(integers.negate, ordered["sub"][k])
        rows[f"{shape}.all_true"] = Row(integers.all_true, equal)
        if shape == "i64x2":
            rows["i64x2.le_s"] = Row(integers.complement, greater)
            rows["i64x2.ge_s"] = Row(integers.complement, greater, REVERSED)
            continue
        for sign in "su":
            least, greatest = commutative[f"min_{sign}"][k], commutative[f"max_{sign}"][k]
            rows[f"{shape}.le_{sign}"] = Row(integers.compare_by_extreme, least, 0, equal)
            rows[f"{shape}.ge_{sign}"] = Row(integers.compare_by_extreme, greatest, 0, equal)
        rows[f"{shape}.gt_u"] = Row(integers.compare_by_extreme, commutative["min_u"][k], 1, equal)
        rows[f"{shape}.lt_u"] = Row(integers.compare_by_extreme, commutative["max_u"][k], 1, equal)
    return rows


_SHIFT_LEFT: Final = 6 << 32
_SHIFT_RIGHT: Final = 2 << 32
_SHIFT_RIGHT_SIGNED: Final = 4 << 32


def _integer_shapes() -> dict[str, Row]:
    """Shifts, widening, narrowing, and what a single shape has."""
    rows = {
        "i8x16.shl": Row(shifts.shift_bytes, number=shifts.LEFT),
        "i8x16.shr_s": Row(shifts.shift_bytes, number=shifts.RIGHT_SIGNED),
        "i8x16.shr_u": Row(shifts.shift_bytes, number=shifts.RIGHT_UNSIGNED),
        "i16x8.shl": Row(shifts.shift_lanes, _V.PSLLW, 15, _SHIFT_LEFT | _V.SHIFT_W),
        "i16x8.shr_s": Row(shifts.shift_lanes, _V.PSRAW, 15, _SHIFT_RIGHT_SIGNED | _V.SHIFT_W),
        "i16x8.shr_u": Row(shifts.shift_lanes, _V.PSRLW, 15, _SHIFT_RIGHT | _V.SHIFT_W),
        "i32x4.shl": Row(shifts.shift_lanes, _V.PSLLD, 31, _SHIFT_LEFT | _V.SHIFT_D),
        "i32x4.shr_s": Row(shifts.shift_lanes, _V.PSRAD, 31, _SHIFT_RIGHT_SIGNED | _V.SHIFT_D),
        "i32x4.shr_u": Row(shifts.shift_lanes, _V.PSRLD, 31, _SHIFT_RIGHT | _V.SHIFT_D),
        "i64x2.shl": Row(shifts.shift_lanes, _V.PSLLQ, 63, _SHIFT_LEFT | _V.SHIFT_Q),
        "i64x2.shr_s": Row(shifts.shift_right_quadwords),
        "i64x2.shr_u": Row(shifts.shift_lanes, _V.PSRLQ, 63, _SHIFT_RIGHT | _V.SHIFT_Q),
        "i64x2.abs": Row(integers.absolute),
        "i64x2.mul": Row(integers.multiply),
        "i8x16.popcnt": Row(integers.population),
        "i16x8.q15mulr_sat_s": Row(integers.q15, _V.PMULHRSW, COMMUTATIVE),
        "i32x4.dot_i16x8_s": _binary(_V.PMADDWD, COMMUTATIVE),
        "i8x16.narrow_i16x8_s": _binary(_V.PACKSSWB),
        "i8x16.narrow_i16x8_u": _binary(_V.PACKUSWB),
        "i16x8.narrow_i32x4_s": _binary(_V.PACKSSDW),
        "i16x8.narrow_i32x4_u": _binary(_V.PACKUSDW),
        "i16x8.extadd_pairwise_i8x16_s": Row(integers.pairwise_signed_bytes),
        "i16x8.extadd_pairwise_i8x16_u": Row(integers.with_constant, _V.PMADDUBSW, literal=lanes_of(1, 1)),
        "i32x4.extadd_pairwise_i16x8_s": Row(integers.with_constant, _V.PMADDWD, literal=lanes_of(1, 2)),
        "i32x4.extadd_pairwise_i16x8_u": Row(integers.pairwise_unsigned_words),
        "i8x16.bitmask": Row(integers.bitmask, _V.PMOVMSKB),
        "i16x8.bitmask": Row(integers.bitmask, _V.PMOVMSKB, 0, 1),
        "i32x4.bitmask": Row(integers.bitmask, _V.MOVMSKPS),
        "i64x2.bitmask": Row(integers.bitmask, _V.MOVMSKPD),
        "v128.and": _binary(_V.PAND, COMMUTATIVE),
        "v128.or": _binary(_V.POR, COMMUTATIVE),
        "v128.xor": _binary(_V.PXOR, COMMUTATIVE),
        "v128.andnot": _binary(_V.PANDN, REVERSED),
        "v128.not": Row(integers.with_constant, _V.PXOR, literal=ONES),
        "v128.bitselect": Row(integers.bitselect),
        "v128.any_true": Row(integers.any_true),
    }
    widening = {
        "i16x8": ("i8x16", _V.PMOVSXBW, _V.PMOVZXBW),
        "i32x4": ("i16x8", _V.PMOVSXWD, _V.PMOVZXWD),
        "i64x2": ("i32x4", _V.PMOVSXDQ, _V.PMOVZXDQ),
    }
    for shape, (source, signed, unsigned) in widening.items():
        for sign, op in (("s", signed), ("u", unsigned)):
            rows[f"{shape}.extend_low_{source}_{sign}"] = _unary(op)
            rows[f"{shape}.extend_high_{source}_{sign}"] = Row(integers.extend_high, op)
    for sign, extend, high, double in (
        ("s", _V.PMOVSXBW, _V.PMULHW, _V.PMULDQ),
        ("u", _V.PMOVZXBW, _V.PMULHUW, _V.PMULUDQ),
    ):
        product = integers.extended_product
        words = integers.extended_product_of_words
        rows |= {
            f"i16x8.extmul_low_i8x16_{sign}": Row(product, _V.PMULLW, 0, extend),
            f"i16x8.extmul_high_i8x16_{sign}": Row(product, _V.PMULLW, 0xEE, extend),
            f"i32x4.extmul_low_i16x8_{sign}": Row(words, high, 0, _V.PUNPCKLWD),
            f"i32x4.extmul_high_i16x8_{sign}": Row(words, high, 0, _V.PUNPCKHWD),
            f"i64x2.extmul_low_i32x4_{sign}": Row(product, double, 0x50),
            f"i64x2.extmul_high_i32x4_{sign}": Row(product, double, 0xFA),
        }
    return rows


def _float_shape(shape: str, double: int) -> dict[str, Row]:
    # Instructions for doubles have the prefix 66.
    wide: int = 0x660000 * double
    size = 8 if double else 4
    sign = 1 << (8 * size - 1)
    compare = _V.CMPPS + wide
    rows = {
        "add": _binary(_V.ADDPS + wide, COMMUTATIVE),
        "sub": _binary(_V.SUBPS + wide),
        "mul": _binary(_V.MULPS + wide, COMMUTATIVE),
        "div": _binary(_V.DIVPS + wide),
        "min": Row(floats.minimum, _V.MINPS + wide, 0, double),
        "max": Row(floats.maximum, _V.MAXPS + wide, 0, double),
        # minps gives its second operand unless the first is less: the definitions of pmin and pmax, turned around.
        "pmin": _binary(_V.MINPS + wide, REVERSED),
        "pmax": _binary(_V.MAXPS + wide, REVERSED),
        "relaxed_min": Row(relaxed.minimum, _V.MINPS + wide, 0, double),
        "relaxed_max": Row(relaxed.maximum, _V.MAXPS + wide, 0, double),
        "relaxed_madd": Row(relaxed.multiply_add, AVX2Op.VFMADD213PS, double, AVX2Op.VFMADD231PS),
        "relaxed_nmadd": Row(relaxed.multiply_add, AVX2Op.VFNMADD213PS, double, AVX2Op.VFNMADD231PS),
        "sqrt": _unary(_V.SQRTPS + wide),
        "abs": Row(integers.with_constant, _V.PAND, literal=lanes_of(sign - 1, size)),
        "neg": Row(integers.with_constant, _V.PXOR, literal=lanes_of(sign, size)),
        "eq": _binary(compare, COMMUTATIVE | IMMEDIATE, 0),
        "ne": _binary(compare, COMMUTATIVE | IMMEDIATE, 4),
        "lt": _binary(compare, IMMEDIATE, 1),
        "le": _binary(compare, IMMEDIATE, 2),
        "gt": _binary(compare, REVERSED | IMMEDIATE, 1),
        "ge": _binary(compare, REVERSED | IMMEDIATE, 2),
        "splat": Row(lanes.splat_float, _V.MOVDDUP if double else AVX2Op.VBROADCASTSS, size),
        "extract_lane": Row(lanes.extract_float, 0, size),
        "replace_lane": Row(lanes.replace_float, 0, size),
    }
    for name, mode in (("nearest", 8), ("floor", 9), ("ceil", 10), ("trunc", 11)):
        rows[name] = _unary(_V.ROUNDPD if double else _V.ROUNDPS, mode)
    return {f"{shape}.{name}": row for name, row in rows.items()}


def _conversions() -> dict[str, Row]:
    return {
        "f32x4.convert_i32x4_s": _unary(_V.CVTDQ2PS),
        "f32x4.convert_i32x4_u": Row(floats.from_unsigned),
        "f64x2.convert_low_i32x4_s": _unary(_V.CVTDQ2PD),
        "f64x2.convert_low_i32x4_u": Row(floats.from_unsigned_low),
        "f32x4.demote_f64x2_zero": _unary(_V.CVTPD2PS),
        "f64x2.promote_low_f32x4": _unary(_V.CVTPS2PD),
        "i32x4.trunc_sat_f32x4_s": Row(floats.truncate_singles),
        "i32x4.trunc_sat_f32x4_u": Row(floats.truncate_singles_unsigned),
        "i32x4.trunc_sat_f64x2_s_zero": Row(floats.truncate_doubles),
        "i32x4.trunc_sat_f64x2_u_zero": Row(floats.truncate_doubles_unsigned),
    }


def _moves() -> dict[str, Row]:
    splat, extract, replace = lanes.splat, lanes.extract, lanes.replace
    rows = {
        "v128.const": Row(lanes.constant),
        "i8x16.shuffle": Row(lanes.shuffle),
        "i8x16.swizzle": Row(lanes.swizzle),
        "i8x16.splat": Row(splat, AVX2Op.VPBROADCASTB, 1),
        "i16x8.splat": Row(splat, AVX2Op.VPBROADCASTW, 2),
        "i32x4.splat": Row(splat, AVX2Op.VPBROADCASTD, 4),
        "i64x2.splat": Row(splat, AVX2Op.VPBROADCASTQ, 8),
        "i8x16.extract_lane_s": Row(extract, _V.PEXTRB, 1, Op.MOVSX8),
        "i8x16.extract_lane_u": Row(extract, _V.PEXTRB, 1),
        "i16x8.extract_lane_s": Row(extract, _V.PEXTRW, 2, Op.MOVSX16),
        "i16x8.extract_lane_u": Row(extract, _V.PEXTRW, 2),
        "i32x4.extract_lane": Row(extract, _V.PEXTRD, 4),
        "i64x2.extract_lane": Row(extract, _V.PEXTRD, 8),
        "i8x16.replace_lane": Row(replace, _V.PINSRB, 1),
        "i16x8.replace_lane": Row(replace, _V.PINSRW, 2),
        "i32x4.replace_lane": Row(replace, _V.PINSRD, 4),
        "i64x2.replace_lane": Row(replace, _V.PINSRD, 8),
        "v128.load": Row(lanes.load, Op.MOVUPS, 16),
        "v128.load32_zero": Row(lanes.load, Op.MOVSS, 4),
        "v128.load64_zero": Row(lanes.load, Op.MOVSD, 8),
        "v128.load8_splat": Row(lanes.load_splat, AVX2Op.VPBROADCASTB, 1),
        "v128.load16_splat": Row(lanes.load_splat, AVX2Op.VPBROADCASTW, 2),
        "v128.load32_splat": Row(lanes.load_splat, AVX2Op.VBROADCASTSS, 4),
        "v128.load64_splat": Row(lanes.load_splat, _V.MOVDDUP, 8),
        "v128.store": Row(lanes.store),
    }
    extensions = {
        "8x8": (_V.PMOVSXBW, _V.PMOVZXBW),
        "16x4": (_V.PMOVSXWD, _V.PMOVZXWD),
        "32x2": (_V.PMOVSXDQ, _V.PMOVZXDQ),
    }
    for name, (signed, unsigned) in extensions.items():
        rows[f"v128.load{name}_s"] = Row(lanes.load, signed, 8)
        rows[f"v128.load{name}_u"] = Row(lanes.load, unsigned, 8)
    for size, insert, extraction in (
        (1, _V.PINSRB, _V.PEXTRB),
        (2, _V.PINSRW, _V.PEXTRW),
        (4, _V.PINSRD, _V.PEXTRD),
        (8, _V.PINSRD, _V.PEXTRD),
    ):
        rows[f"v128.load{8 * size}_lane"] = Row(lanes.load_lane, insert, size)
        rows[f"v128.store{8 * size}_lane"] = Row(lanes.store_lane, extraction, size)
    return rows


def _relaxed() -> dict[str, Row]:
    return {
        "i8x16.relaxed_swizzle": Row(relaxed.swizzle),
        "i32x4.relaxed_trunc_f32x4_s": Row(relaxed.truncate, number=0),
        "i32x4.relaxed_trunc_f32x4_u": Row(relaxed.truncate, number=1),
        "i32x4.relaxed_trunc_f64x2_s_zero": Row(relaxed.truncate, number=2),
        "i32x4.relaxed_trunc_f64x2_u_zero": Row(relaxed.truncate, number=3),
        "i8x16.relaxed_laneselect": Row(relaxed.lane_select, AVX2Op.VPBLENDVB, 0, _V.PCMPGTB),
        "i16x8.relaxed_laneselect": Row(relaxed.lane_select, 0, 0, _V.PCMPGTW),
        "i32x4.relaxed_laneselect": Row(relaxed.lane_select, AVX2Op.VBLENDVPS, 0, _V.PCMPGTD),
        "i64x2.relaxed_laneselect": Row(relaxed.lane_select, AVX2Op.VBLENDVPD, 0, _V.PCMPGTQ),
        "i16x8.relaxed_q15mulr_s": Row(relaxed.q15, _V.PMULHRSW, COMMUTATIVE),
        "i16x8.relaxed_dot_i8x16_i7x16_s": Row(relaxed.dot),
        "i32x4.relaxed_dot_i8x16_i7x16_add_s": Row(relaxed.dot_add),
    }


_BY_MNEMONIC: Final = {
    **_integer_arithmetic(),
    **_integer_shapes(),
    **_float_shape("f32x4", 0),
    **_float_shape("f64x2", 1),
    **_conversions(),
    **_moves(),
    **_relaxed(),
}

_FIRST: Final = 0xFD000


def _by_number() -> list[Row]:
    """Raises KeyError for a row that no instruction has, or the other way round."""
    numbers = {mnemonic: BY_MNEMONIC[mnemonic].opcode - _FIRST for mnemonic in _BY_MNEMONIC}
    rows = [_BY_MNEMONIC["v128.const"]] * (1 + max(number for number, *_ in VECTOR_INSTRUCTIONS))
    for _, mnemonic, *_ in VECTOR_INSTRUCTIONS:
        rows[numbers[mnemonic]] = _BY_MNEMONIC[mnemonic]
    return rows


_ROWS: Final[list[Row]] = _by_number()


def instruction(s: Body) -> None:
    """Compiles the instruction whose prefix has been read."""
    row = _ROWS[s.unsigned()]
    row.emit(s, row)
