"""The vector instructions of the instruction table as data: number behind the prefix 0xFD, mnemonic, signature, lanes
(specification, sections 4.4.3 and 5.4.9). `instructions` makes its rows from `VECTOR_INSTRUCTIONS`; the compilers have
tables of their own with the same mnemonics.
"""

from __future__ import annotations

from wasmforge.syntax.types import F32, F64, I32, I64, V128, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CONST", "FIRST_RELAXED", "LANE", "MEMARG", "MEMARG_LANE", "PLAIN", "SHUFFLE", "VECTOR_INSTRUCTIONS"]

PLAIN: Final = 0
LANE: Final = 1
SHUFFLE: Final = 2
CONST: Final = 3
MEMARG: Final = 4
MEMARG_LANE: Final = 5
"""What immediates an instruction has."""

FIRST_RELAXED: Final = 0x100
"""Numbers from here on are those of the relaxed-simd proposal."""

if TYPE_CHECKING:
    _Types = tuple[ValType, ...]
    _Instruction = tuple[int, str, int, _Types, _Types, int, int]

_V: Final = (V128,)
_VV: Final = (V128, V128)
_VVV: Final = (V128, V128, V128)


def _plain(number: int, names: str, params: _Types, results: _Types = _V) -> list[_Instruction]:
    """Consecutive numbers; `-` stands for one that no instruction has."""
    return [
        (number + k, name, PLAIN, params, results, 0, 0)
        for k, name in enumerate(names.split())
        if not name.endswith("-")
    ]


def _shaped(number: int, shape: str, names: str, params: _Types, results: _Types = _V) -> list[_Instruction]:
    return _plain(number, " ".join(f"{shape}.{name}" for name in names.split()), params, results)


def _accesses(number: int, names: str, sizes: tuple[int, ...], immediates: int = MEMARG) -> list[_Instruction]:
    """Loads and stores of `sizes` bytes; what has a lane immediate has as many lanes as fit."""
    found: list[_Instruction] = []
    for k, (name, size) in enumerate(zip(names.split(), sizes, strict=True)):
        load = name.startswith("load")
        lanes = 16 // size if immediates == MEMARG_LANE else 0
        params = (I32,) if load and not lanes else (I32, V128)
        found.append((number + k, f"v128.{name}", immediates, params, _V if load else (), size, lanes))
    return found


def _lanes(number: int, shape: str, extractions: str, scalar: ValType, lanes: int) -> list[_Instruction]:
    """The splat is elsewhere; extractions, then the replacement."""
    names = extractions.split()
    return [
        *((number + k, f"{shape}.{name}", LANE, _V, (scalar,), 0, lanes) for k, name in enumerate(names)),
        (number + len(names), f"{shape}.replace_lane", LANE, (V128, scalar), _V, 0, lanes),
    ]


_COMPARISONS: Final = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
_SHIFTS: Final = "shl shr_s shr_u"
_SATURATING: Final = "add add_sat_s add_sat_u sub sub_sat_s sub_sat_u"
_MINIMA: Final = "min_s min_u max_s max_u - avgr_u"
_FLOAT_BINARY: Final = "add sub mul div min max pmin pmax"


def _widening(number: int, shape: str, operation: str, source: str, params: _Types) -> list[_Instruction]:
    names = " ".join(f"{operation}_{half}_{source}_{sign}" for sign in "su" for half in ("low", "high"))
    return _shaped(number, shape, names, params)


VECTOR_INSTRUCTIONS: Final[tuple[_Instruction, ...]] = (
    *_accesses(
        0x00,
        "load load8x8_s load8x8_u load16x4_s load16x4_u load32x2_s load32x2_u load8_splat load16_splat load32_splat "
        "load64_splat store",
        (16, 8, 8, 8, 8, 8, 8, 1, 2, 4, 8, 16),
    ),
    (0x0C, "v128.const", CONST, (), _V, 0, 0),
    (0x0D, "i8x16.shuffle", SHUFFLE, _VV, _V, 0, 32),
    *_plain(0x0E, "i8x16.swizzle", _VV),
    *_plain(0x0F, "i8x16.splat i16x8.splat i32x4.splat", (I32,)),
    *_plain(0x12, "i64x2.splat", (I64,)),
    *_plain(0x13, "f32x4.splat", (F32,)),
    *_plain(0x14, "f64x2.splat", (F64,)),
    *_lanes(0x15, "i8x16", "extract_lane_s extract_lane_u", I32, 16),
    *_lanes(0x18, "i16x8", "extract_lane_s extract_lane_u", I32, 8),
    *_lanes(0x1B, "i32x4", "extract_lane", I32, 4),
    *_lanes(0x1D, "i64x2", "extract_lane", I64, 2),
    *_lanes(0x1F, "f32x4", "extract_lane", F32, 4),
    *_lanes(0x21, "f64x2", "extract_lane", F64, 2),
    *_shaped(0x23, "i8x16", _COMPARISONS, _VV),
    *_shaped(0x2D, "i16x8", _COMPARISONS, _VV),
    *_shaped(0x37, "i32x4", _COMPARISONS, _VV),
    *_shaped(0x41, "f32x4", "eq ne lt gt le ge", _VV),
    *_shaped(0x47, "f64x2", "eq ne lt gt le ge", _VV),
    *_plain(0x4D, "v128.not", _V),
    *_shaped(0x4E, "v128", "and andnot or xor", _VV),
    *_plain(0x52, "v128.bitselect", _VVV),
    *_plain(0x53, "v128.any_true", _V, (I32,)),
    *_accesses(0x54, "load8_lane load16_lane load32_lane load64_lane", (1, 2, 4, 8), MEMARG_LANE),
    *_accesses(0x58, "store8_lane store16_lane store32_lane store64_lane", (1, 2, 4, 8), MEMARG_LANE),
    *_accesses(0x5C, "load32_zero load64_zero", (4, 8)),
    *_plain(0x5E, "f32x4.demote_f64x2_zero f64x2.promote_low_f32x4", _V),
    *_shaped(0x60, "i8x16", "abs neg popcnt", _V),
    *_shaped(0x63, "i8x16", "all_true bitmask", _V, (I32,)),
    *_shaped(0x65, "i8x16", "narrow_i16x8_s narrow_i16x8_u", _VV),
    *_shaped(0x67, "f32x4", "ceil floor trunc nearest", _V),
    *_shaped(0x6B, "i8x16", _SHIFTS, (V128, I32)),
    *_shaped(0x6E, "i8x16", _SATURATING, _VV),
    *_shaped(0x74, "f64x2", "ceil floor", _V),
    *_shaped(0x76, "i8x16", "min_s min_u max_s max_u", _VV),
    *_plain(0x7A, "f64x2.trunc", _V),
    *_plain(0x7B, "i8x16.avgr_u", _VV),
    *_shaped(0x7C, "i16x8", "extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u", _V),
    *_shaped(0x7E, "i32x4", "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u", _V),
    *_shaped(0x80, "i16x8", "abs neg", _V),
    *_plain(0x82, "i16x8.q15mulr_sat_s", _VV),
    *_shaped(0x83, "i16x8", "all_true bitmask", _V, (I32,)),
    *_shaped(0x85, "i16x8", "narrow_i32x4_s narrow_i32x4_u", _VV),
    *_widening(0x87, "i16x8", "extend", "i8x16", _V),
    *_shaped(0x8B, "i16x8", _SHIFTS, (V128, I32)),
    *_shaped(0x8E, "i16x8", _SATURATING, _VV),
    *_plain(0x94, "f64x2.nearest", _V),
    *_shaped(0x95, "i16x8", "mul " + _MINIMA, _VV),
    *_widening(0x9C, "i16x8", "extmul", "i8x16", _VV),
    *_shaped(0xA0, "i32x4", "abs neg", _V),
    *_shaped(0xA3, "i32x4", "all_true bitmask", _V, (I32,)),
    *_widening(0xA7, "i32x4", "extend", "i16x8", _V),
    *_shaped(0xAB, "i32x4", _SHIFTS, (V128, I32)),
    *_shaped(0xAE, "i32x4", "add - - sub - - - mul min_s min_u max_s max_u dot_i16x8_s", _VV),
    *_widening(0xBC, "i32x4", "extmul", "i16x8", _VV),
    *_shaped(0xC0, "i64x2", "abs neg", _V),
    *_shaped(0xC3, "i64x2", "all_true bitmask", _V, (I32,)),
    *_widening(0xC7, "i64x2", "extend", "i32x4", _V),
    *_shaped(0xCB, "i64x2", _SHIFTS, (V128, I32)),
    *_shaped(0xCE, "i64x2", "add - - sub - - - mul eq ne lt_s gt_s le_s ge_s", _VV),
    *_widening(0xDC, "i64x2", "extmul", "i32x4", _VV),
    *_shaped(0xE0, "f32x4", "abs neg - sqrt", _V),
    *_shaped(0xE4, "f32x4", _FLOAT_BINARY, _VV),
    *_shaped(0xEC, "f64x2", "abs neg - sqrt", _V),
    *_shaped(0xF0, "f64x2", _FLOAT_BINARY, _VV),
    *_shaped(0xF8, "i32x4", "trunc_sat_f32x4_s trunc_sat_f32x4_u", _V),
    *_shaped(0xFA, "f32x4", "convert_i32x4_s convert_i32x4_u", _V),
    *_shaped(0xFC, "i32x4", "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero", _V),
    *_shaped(0xFE, "f64x2", "convert_low_i32x4_s convert_low_i32x4_u", _V),
    *_plain(0x100, "i8x16.relaxed_swizzle", _VV),
    *_shaped(0x101, "i32x4", "relaxed_trunc_f32x4_s relaxed_trunc_f32x4_u", _V),
    *_shaped(0x103, "i32x4", "relaxed_trunc_f64x2_s_zero relaxed_trunc_f64x2_u_zero", _V),
    *_shaped(0x105, "f32x4", "relaxed_madd relaxed_nmadd", _VVV),
    *_shaped(0x107, "f64x2", "relaxed_madd relaxed_nmadd", _VVV),
    *_plain(
        0x109,
        "i8x16.relaxed_laneselect i16x8.relaxed_laneselect i32x4.relaxed_laneselect i64x2.relaxed_laneselect",
        _VVV,
    ),
    *_shaped(0x10D, "f32x4", "relaxed_min relaxed_max", _VV),
    *_shaped(0x10F, "f64x2", "relaxed_min relaxed_max", _VV),
    *_shaped(0x111, "i16x8", "relaxed_q15mulr_s relaxed_dot_i8x16_i7x16_s", _VV),
    *_plain(0x113, "i32x4.relaxed_dot_i8x16_i7x16_add_s", _VVV),
)
"""Each as number, mnemonic, kind of immediates, parameters, results, bytes of memory that it touches, and lanes that a
lane immediate selects from (0 for none)."""
