"""The table of vector instructions in LLVM IR: operand types, result type, and the lines that compute it. `vectors.py`
emits these; only accesses to memory, literals and shuffles need more.

Generic IR stands where LLVM selects the best instructions from it at every level of `target.LEVELS`, and x86 intrinsics
where it does not, or where its generic operation says more than WebAssembly's does and costs for that. Figures of the
choices are in docs/rationale.md.

A line is formatted with the operands, then the results of the lines before it, by position; `{lane}` is the lane
immediate. As for scalars (see `translate`), arithmetic never sees a float that LLVM could know: operands of float types
come opaque, and a row whose result is a float made of integers, or has lanes that are known, ends in a fence.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from wasmforge.compiler.target import host_level
from wasmforge.syntax.instructions import BY_MNEMONIC

__all__ = ["FENCES", "VectorRow", "declarations", "rows"]


class VectorRow(NamedTuple):
    """`operands` and `result` are LLVM types; `i1` is a condition, which `lines` leave as such. `uses` are the
    positions that each line names."""

    operands: tuple[str, ...]
    result: str
    lines: tuple[str, ...]
    uses: tuple[tuple[int, ...], ...] = ()


class _Shape(NamedTuple):
    name: str  # of the text format
    lanes: int
    lane: str  # the type of a lane in LLVM

    @property
    def ir(self) -> str:
        return f"<{self.lanes} x {self.lane}>"

    @property
    def suffix(self) -> str:
        """As in the names of overloaded intrinsics."""
        return f"v{self.lanes}{_SUFFIXES.get(self.lane, self.lane)}"


_SUFFIXES: Final = {"float": "f32", "double": "f64"}

_I8: Final = _Shape("i8x16", 16, "i8")
_I16: Final = _Shape("i16x8", 8, "i16")
_I32: Final = _Shape("i32x4", 4, "i32")
_I64: Final = _Shape("i64x2", 2, "i64")
_F32: Final = _Shape("f32x4", 4, "float")
_F64: Final = _Shape("f64x2", 2, "double")
_INTEGERS: Final = (_I8, _I16, _I32, _I64)
_FLOATS: Final = (_F32, _F64)
_V: Final = _I64.ir
"""The canonical type."""

FENCES: Final = {s.ir: f"call {s.ir} @llvm.arithmetic.fence.{s.suffix}({s.ir} {{0}})" for s in _FLOATS}
"""The types whose operands must be opaque, and how they become so."""

_PREDICATES: Final = {
    "eq": "eq",
    "ne": "ne",
    "lt_s": "slt",
    "lt_u": "ult",
    "gt_s": "sgt",
    "gt_u": "ugt",
    "le_s": "sle",
    "le_u": "ule",
    "ge_s": "sge",
    "ge_u": "uge",
}
_FLOAT_PREDICATES: Final = {"eq": "oeq", "ne": "une", "lt": "olt", "gt": "ogt", "le": "ole", "ge": "oge"}
_INTEGER_INTRINSICS: Final = {
    "add_sat_s": "sadd.sat",
    "add_sat_u": "uadd.sat",
    "sub_sat_s": "ssub.sat",
    "sub_sat_u": "usub.sat",
    "min_s": "smin",
    "min_u": "umin",
    "max_s": "smax",
    "max_u": "umax",
}
_FLOAT_UNARY: Final = {
    "abs": "fabs",
    "ceil": "ceil",
    "floor": "floor",
    "trunc": "trunc",
    "nearest": "roundeven",
    "sqrt": "sqrt",
}

_Rows = dict[str, VectorRow]


def _row(operands: str, result: str, *lines: str) -> VectorRow:
    """`operands` separated by semicolons."""
    return VectorRow(tuple(operands.split(";")) if operands else (), result, lines)


def _unary(s: _Shape, *lines: str) -> VectorRow:
    return VectorRow((s.ir,), s.ir, lines)


def _binary(s: _Shape, *lines: str) -> VectorRow:
    return VectorRow((s.ir, s.ir), s.ir, lines)


def _mask(indices: range) -> str:
    return f"<{len(indices)} x i32> <{', '.join(f'i32 {k}' for k in indices)}>"


def _splat_lines(s: _Shape, scalar: str, first: int) -> tuple[str, ...]:
    """Lines that fill a vector with a scalar; `first` is the position of the first of their results."""
    return (
        f"insertelement {s.ir} poison, {s.lane} {scalar}, i64 0",
        f"shufflevector {s.ir} {{{first}}}, {s.ir} poison, <{s.lanes} x i32> zeroinitializer",
    )


def _integer_rows(s: _Shape) -> _Rows:
    t, n = s.ir, s.name
    scalar = "i64" if s.lane == "i64" else "i32"
    bits = int(s.lane[1:])
    narrow = bits < 32
    rows = {
        f"{n}.splat": _row(scalar, t, f"trunc i32 {{0}} to {s.lane}", *_splat_lines(s, "{1}", 2))
        if narrow
        else _row(scalar, t, *_splat_lines(s, "{0}", 1)),
        f"{n}.replace_lane": _row(
            f"{t};{scalar}",
            t,
            *((f"trunc i32 {{1}} to {s.lane}",) if narrow else ()),
            f"insertelement {t} {{0}}, {s.lane} {{{2 if narrow else 1}}}, i64 {{lane}}",
        ),
        f"{n}.neg": _unary(s, f"sub {t} zeroinitializer, {{0}}"),
        f"{n}.abs": _unary(s, f"call {t} @llvm.abs.{s.suffix}({t} {{0}}, i1 false)"),
        f"{n}.add": _binary(s, f"add {t} {{0}}, {{1}}"),
        f"{n}.sub": _binary(s, f"sub {t} {{0}}, {{1}}"),
        f"{n}.mul": _binary(s, f"mul {t} {{0}}, {{1}}"),
        f"{n}.all_true": _row(
            t,
            "i1",
            f"icmp eq {t} {{0}}, zeroinitializer",
            f"bitcast <{s.lanes} x i1> {{1}} to i{s.lanes}",
            f"icmp eq i{s.lanes} {{2}}, 0",
        ),
        f"{n}.bitmask": _row(
            t,
            "i32",
            f"icmp slt {t} {{0}}, zeroinitializer",
            f"bitcast <{s.lanes} x i1> {{1}} to i{s.lanes}",
            f"zext i{s.lanes} {{2}} to i32",
        ),
        f"{n}.relaxed_laneselect": _row(
            f"{t};{t};{t}",
            t,
            f"icmp slt {t} {{2}}, zeroinitializer",
            f"select <{s.lanes} x i1> {{3}}, {t} {{0}}, {t} {{1}}",
        ),
    }
    if narrow:
        for sign, extension in (("s", "sext"), ("u", "zext")):
            rows[f"{n}.extract_lane_{sign}"] = _row(
                t, "i32", f"extractelement {t} {{0}}, i64 {{lane}}", f"{extension} {s.lane} {{1}} to i32"
            )
    else:
        rows[f"{n}.extract_lane"] = _row(t, scalar, f"extractelement {t} {{0}}, i64 {{lane}}")
    for name, intrinsic in _INTEGER_INTRINSICS.items():
        rows[f"{n}.{name}"] = _binary(s, f"call {t} @llvm.{intrinsic}.{s.suffix}({t} {{0}}, {t} {{1}})")
    for name, predicate in _PREDICATES.items():
        rows[f"{n}.{name}"] = _binary(s, f"icmp {predicate} {t} {{0}}, {{1}}", f"sext <{s.lanes} x i1> {{2}} to {t}")
    for name, instruction in (("shl", "shl"), ("shr_s", "ashr"), ("shr_u", "lshr")):
        # The count is taken modulo the width of a lane; where it is no constant, x86 takes it from a register at once.
        count = {8: "trunc i32 {2} to i8", 16: "trunc i32 {2} to i16", 64: "zext i32 {2} to i64"}.get(bits)
        lines = [f"and i32 {{1}}, {bits - 1}", *([count] if count else [])]
        at = 2 + len(lines) - 1
        lines += _splat_lines(s, f"{{{at}}}", at + 1)
        rows[f"{n}.{name}"] = _row(f"{t};i32", t, *lines, f"{instruction} {t} {{0}}, {{{at + 2}}}")
    return rows


def _widening_rows(narrow: _Shape, wide: _Shape) -> _Rows:
    rows = {}
    t = wide.ir
    half = f"<{wide.lanes} x {narrow.lane}>"
    for half_name, first in (("low", 0), ("high", wide.lanes)):
        pick = f"shufflevector {narrow.ir} {{%d}}, {narrow.ir} poison, {_mask(range(first, first + wide.lanes))}"
        for sign, extension in (("s", "sext"), ("u", "zext")):
            rows[f"{wide.name}.extend_{half_name}_{narrow.name}_{sign}"] = _row(
                narrow.ir, t, pick % 0, f"{extension} {half} {{1}} to {t}"
            )
            rows[f"{wide.name}.extmul_{half_name}_{narrow.name}_{sign}"] = _row(
                f"{narrow.ir};{narrow.ir}",
                t,
                pick % 0,
                pick % 1,
                f"{extension} {half} {{2}} to {t}",
                f"{extension} {half} {{3}} to {t}",
                f"mul {t} {{4}}, {{5}}",
            )
    return rows


def _average(s: _Shape) -> VectorRow:
    wide = f"<{s.lanes} x i{2 * int(s.lane[1:])}>"
    return _binary(
        s,
        f"zext {s.ir} {{0}} to {wide}",
        f"zext {s.ir} {{1}} to {wide}",
        f"add {wide} {{2}}, {{3}}",
        f"add {wide} {{4}}, splat (i{2 * int(s.lane[1:])} 1)",
        f"lshr {wide} {{5}}, splat (i{2 * int(s.lane[1:])} 1)",
        f"trunc {wide} {{6}} to {s.ir}",
    )


def _float_rows(s: _Shape, integers: _Shape) -> _Rows:
    t, n, sx, i = s.ir, s.name, s.suffix, integers.ir
    x86 = "sse.%s.ps" if s is _F32 else "sse2.%s.pd"

    def native(name: str, first: int, second: int) -> str:
        # minps and maxps give their second operand when the operands are both zeros or one is a NaN.
        return f"call {t} @llvm.x86.{x86 % name}({t} {{{first}}}, {t} {{{second}}})"

    def exact(name: str, combine: str) -> VectorRow:
        """Both orders differ for zeros of two signs only, whose bits are combined; a sum is the right NaN, quiet and
        canonical if the operands are."""
        return _binary(
            s,
            native(name, 0, 1),
            native(name, 1, 0),
            f"bitcast {t} {{2}} to {i}",
            f"bitcast {t} {{3}} to {i}",
            f"{combine} {i} {{4}}, {{5}}",
            f"bitcast {i} {{6}} to {t}",
            f"fcmp uno {t} {{0}}, {{1}}",
            f"fadd {t} {{0}}, {{1}}",
            f"select <{s.lanes} x i1> {{8}}, {t} {{9}}, {t} {{7}}",
        )

    rows = {
        f"{n}.splat": _row(s.lane, t, *_splat_lines(s, "{0}", 1)),
        f"{n}.extract_lane": _row(t, s.lane, f"extractelement {t} {{0}}, i64 {{lane}}"),
        f"{n}.replace_lane": _row(f"{t};{s.lane}", t, f"insertelement {t} {{0}}, {s.lane} {{1}}, i64 {{lane}}"),
        f"{n}.neg": _unary(s, f"fneg {t} {{0}}"),
        f"{n}.min": exact("min", "or"),
        f"{n}.max": exact("max", "and"),
        f"{n}.pmin": _binary(s, native("min", 1, 0)),
        f"{n}.pmax": _binary(s, native("max", 1, 0)),
        f"{n}.relaxed_min": _binary(s, native("min", 0, 1)),
        f"{n}.relaxed_max": _binary(s, native("max", 0, 1)),
    }
    for name, intrinsic in _FLOAT_UNARY.items():
        rows[f"{n}.{name}"] = _unary(s, f"call {t} @llvm.{intrinsic}.{sx}({t} {{0}})")
    for name in ("add", "sub", "mul", "div"):
        rows[f"{n}.{name}"] = _binary(s, f"f{name} {t} {{0}}, {{1}}")
    for name, predicate in _FLOAT_PREDICATES.items():
        rows[f"{n}.{name}"] = _row(
            f"{t};{t}", i, f"fcmp {predicate} {t} {{0}}, {{1}}", f"sext <{s.lanes} x i1> {{2}} to {i}"
        )
    fused = f"call {t} @llvm.fma.{sx}({t} {{%s}}, {t} {{1}}, {t} {{2}})"
    rows[f"{n}.relaxed_madd"] = _row(f"{t};{t};{t}", t, fused % "0")
    rows[f"{n}.relaxed_nmadd"] = _row(f"{t};{t};{t}", t, f"fneg {t} {{0}}", fused % "3")
    return rows


def _unfused_rows(s: _Shape) -> _Rows:
    """For processors without FMA."""
    t = s.ir
    return {
        f"{s.name}.relaxed_madd": _row(f"{t};{t};{t}", t, f"fmul {t} {{0}}, {{1}}", f"fadd {t} {{3}}, {{2}}"),
        f"{s.name}.relaxed_nmadd": _row(f"{t};{t};{t}", t, f"fmul {t} {{0}}, {{1}}", f"fsub {t} {{2}}, {{3}}"),
    }


def _narrowing_rows() -> _Rows:
    rows = {}
    for wide, narrow, signed, unsigned in (
        (_I16, _I8, "sse2.packsswb.128", "sse2.packuswb.128"),
        (_I32, _I16, "sse2.packssdw.128", "sse41.packusdw"),
    ):
        for sign, intrinsic in (("s", signed), ("u", unsigned)):
            rows[f"{narrow.name}.narrow_{wide.name}_{sign}"] = _row(
                f"{wide.ir};{wide.ir}",
                narrow.ir,
                f"call {narrow.ir} @llvm.x86.{intrinsic}({wide.ir} {{0}}, {wide.ir} {{1}})",
            )
    return rows


_B, _W, _D, _Q, _S, _P = _I8.ir, _I16.ir, _I32.ir, _I64.ir, _F32.ir, _F64.ir

_MADDUBS: Final = f"call {_W} @llvm.x86.ssse3.pmadd.ub.sw.128({_B} {{%s}}, {_B} {{%s}})"
_BYTE_ONES: Final = f"{_B} splat (i8 1)"
_MADDWD: Final = f"call {_D} @llvm.x86.sse2.pmadd.wd({_W} {{%d}}, {_W} %s)"
_PSHUFB: Final = f"call {_B} @llvm.x86.ssse3.pshuf.b.128({_B} {{0}}, {_B} {{%d}})"
_MULHRS: Final = f"call {_W} @llvm.x86.ssse3.pmul.hr.sw.128({_W} {{0}}, {_W} {{1}})"

_BITSELECT: Final = (
    f"and {_V} {{0}}, {{2}}",
    f"xor {_V} {{2}}, splat (i64 -1)",
    f"and {_V} {{1}}, {{4}}",
    f"or {_V} {{3}}, {{5}}",
)

_TRUNCATE_LOW: Final = f"call {_D} @llvm.x86.sse2.cvttps2dq({_S} {{%d}})"
"""Gives 0x80000000 for what does not fit."""
_TRUNCATE_DOUBLES: Final = f"call {_D} @llvm.x86.sse2.cvttpd2dq({_P} {{%d}})"
_MAX_S: Final = f"call {_S} @llvm.x86.sse.max.ps({_S} {{%d}}, {_S} %s)"
_MIN_D: Final = f"call {_P} @llvm.x86.sse2.min.pd({_P} {{%d}}, {_P} %s)"
_MAX_D: Final = f"call {_P} @llvm.x86.sse2.max.pd({_P} {{%d}}, {_P} %s)"

# min and max give their second operand for a NaN, which here is a zero.
_UNSIGNED_DOUBLES: Final = (
    _MAX_D % (0, "zeroinitializer"),
    _MIN_D % (1, "splat (double 4294967295.0)"),
    f"call {_P} @llvm.trunc.v2f64({_P} {{2}})",
    # Adding 2**52 puts the integer into the low bits of the significand.
    f"fadd {_P} {{3}}, splat (double 4503599627370496.0)",
    f"bitcast {_P} {{4}} to {_D}",
    f"shufflevector {_D} {{5}}, {_D} zeroinitializer, <4 x i32> <i32 0, i32 2, i32 4, i32 4>",
)

_SPECIAL: Final[_Rows] = {
    "v128.not": _row(_V, _V, f"xor {_V} {{0}}, splat (i64 -1)"),
    "v128.and": _row(f"{_V};{_V}", _V, f"and {_V} {{0}}, {{1}}"),
    "v128.or": _row(f"{_V};{_V}", _V, f"or {_V} {{0}}, {{1}}"),
    "v128.xor": _row(f"{_V};{_V}", _V, f"xor {_V} {{0}}, {{1}}"),
    "v128.andnot": _row(f"{_V};{_V}", _V, f"xor {_V} {{1}}, splat (i64 -1)", f"and {_V} {{0}}, {{2}}"),
    "v128.bitselect": _row(f"{_V};{_V};{_V}", _V, *_BITSELECT),
    "v128.any_true": _row(_V, "i1", f"bitcast {_V} {{0}} to i128", "icmp ne i128 {1}, 0"),
    "i8x16.popcnt": _unary(_I8, f"call {_B} @llvm.ctpop.v16i8({_B} {{0}})"),
    "i8x16.avgr_u": _average(_I8),
    "i16x8.avgr_u": _average(_I16),
    # pshufb looks at bit 7 and bits 0 to 3 of an index: adding 0x70 sets bit 7 of all from 16 on, and only of those.
    "i8x16.swizzle": _binary(_I8, f"call {_B} @llvm.uadd.sat.v16i8({_B} {{1}}, {_B} splat (i8 112))", _PSHUFB % 2),
    "i8x16.relaxed_swizzle": _binary(_I8, _PSHUFB % 1),
    # pmulhrsw differs for -1 times -1 only, which it gives as -1.
    "i16x8.q15mulr_sat_s": _binary(
        _I16,
        _MULHRS,
        f"icmp eq {_W} {{2}}, splat (i16 -32768)",
        f"sext <8 x i1> {{3}} to {_W}",
        f"xor {_W} {{2}}, {{4}}",
    ),
    "i16x8.relaxed_q15mulr_s": _binary(_I16, _MULHRS),
    "i32x4.dot_i16x8_s": _row(f"{_W};{_W}", _D, _MADDWD % (0, "{1}")),
    "i16x8.extadd_pairwise_i8x16_s": _row(
        _B, _W, f"call {_W} @llvm.x86.ssse3.pmadd.ub.sw.128({_BYTE_ONES}, {_B} {{0}})"
    ),
    "i16x8.extadd_pairwise_i8x16_u": _row(
        _B, _W, f"call {_W} @llvm.x86.ssse3.pmadd.ub.sw.128({_B} {{0}}, {_BYTE_ONES})"
    ),
    "i32x4.extadd_pairwise_i16x8_s": _row(_W, _D, _MADDWD % (0, "splat (i16 1)")),
    "i32x4.extadd_pairwise_i16x8_u": _row(
        _D, _D, f"and {_D} {{0}}, splat (i32 65535)", f"lshr {_D} {{0}}, splat (i32 16)", f"add {_D} {{1}}, {{2}}"
    ),
    # The second operand's bytes have seven bits, so that it may count as unsigned, which pmaddubsw wants first.
    "i16x8.relaxed_dot_i8x16_i7x16_s": _row(f"{_B};{_B}", _W, _MADDUBS % (1, 0)),
    "i32x4.relaxed_dot_i8x16_i7x16_add_s": _row(
        f"{_B};{_B};{_D}", _D, _MADDUBS % (1, 0), _MADDWD % (3, "splat (i16 1)"), f"add {_D} {{4}}, {{2}}"
    ),
    "f32x4.convert_i32x4_s": _row(_D, _S, f"sitofp {_D} {{0}} to {_S}", FENCES[_S].replace("{0}", "{1}")),
    "f32x4.convert_i32x4_u": _row(_D, _S, f"uitofp {_D} {{0}} to {_S}", FENCES[_S].replace("{0}", "{1}")),
    **{
        f"f64x2.convert_low_i32x4_{sign}": _row(
            _D,
            _P,
            f"shufflevector {_D} {{0}}, {_D} poison, <2 x i32> <i32 0, i32 1>",
            f"{instruction} <2 x i32> {{1}} to {_P}",
            FENCES[_P].replace("{0}", "{2}"),
        )
        for sign, instruction in (("s", "sitofp"), ("u", "uitofp"))
    },
    "f32x4.demote_f64x2_zero": _row(
        _P,
        _S,
        f"fptrunc {_P} {{0}} to <2 x float>",
        "shufflevector <2 x float> {1}, <2 x float> zeroinitializer, <4 x i32> <i32 0, i32 1, i32 2, i32 3>",
        FENCES[_S].replace("{0}", "{2}"),
    ),
    "f64x2.promote_low_f32x4": _row(
        _S,
        _P,
        f"shufflevector {_S} {{0}}, {_S} poison, <2 x i32> <i32 0, i32 1>",
        f"fpext <2 x float> {{1}} to {_P}",
        FENCES[_P].replace("{0}", "{2}"),
    ),
    "i32x4.trunc_sat_f32x4_s": _row(
        _S,
        _D,
        _TRUNCATE_LOW % 0,
        f"fcmp oge {_S} {{0}}, splat (float 2147483648.0)",
        f"sext <4 x i1> {{2}} to {_D}",
        f"xor {_D} {{1}}, {{3}}",  # 0x80000000 to 0x7fffffff
        f"fcmp ord {_S} {{0}}, {{0}}",
        f"sext <4 x i1> {{5}} to {_D}",
        f"and {_D} {{4}}, {{6}}",
    ),
    "i32x4.trunc_sat_f32x4_u": _row(
        _S,
        _D,
        _MAX_S % (0, "zeroinitializer"),
        # What is above 2**31, saturated as a signed number, added to the rest, which is 2**31 then.
        f"fsub {_S} {{1}}, splat (float 2147483648.0)",
        f"fcmp oge {_S} {{2}}, splat (float 2147483648.0)",
        f"sext <4 x i1> {{3}} to {_D}",
        _TRUNCATE_LOW % 2,
        f"xor {_D} {{5}}, {{4}}",
        f"call {_D} @llvm.smax.v4i32({_D} {{6}}, {_D} zeroinitializer)",
        _TRUNCATE_LOW % 1,
        f"add {_D} {{8}}, {{7}}",
    ),
    "i32x4.trunc_sat_f64x2_s_zero": _row(
        _P,
        _D,
        f"fcmp ord {_P} {{0}}, {{0}}",
        f"select <2 x i1> {{1}}, {_P} splat (double 2147483647.0), {_P} zeroinitializer",
        _MIN_D % (0, "{2}"),
        _TRUNCATE_DOUBLES % 3,
    ),
    "i32x4.trunc_sat_f64x2_u_zero": _row(_P, _D, *_UNSIGNED_DOUBLES),
    "i32x4.relaxed_trunc_f32x4_s": _row(_S, _D, _TRUNCATE_LOW % 0),
    "i32x4.relaxed_trunc_f64x2_s_zero": _row(_P, _D, _TRUNCATE_DOUBLES % 0),
    "i32x4.relaxed_trunc_f64x2_u_zero": _row(_P, _D, *_UNSIGNED_DOUBLES),
}


def _deterministic_dot(operands: int) -> tuple[str, ...]:
    """Signed products, their pairs added with saturation; `operands` is where the results begin."""
    n = operands
    picks = [
        f"shufflevector {_B} {{{operand}}}, {_B} poison, {_mask(parity)}"
        for parity in (range(0, 16, 2), range(1, 16, 2))
        for operand in (0, 1)
    ]
    extensions = [f"sext <8 x i8> {{{n + k}}} to {_W}" for k in range(4)]
    return (
        *picks,
        *extensions,
        f"mul {_W} {{{n + 4}}}, {{{n + 5}}}",
        f"mul {_W} {{{n + 6}}}, {{{n + 7}}}",
        f"call {_W} @llvm.sadd.sat.v8i16({_W} {{{n + 8}}}, {_W} {{{n + 9}}})",
    )


def _deterministic_rows(native: _Rows) -> _Rows:
    """The relaxed instructions in the specification's deterministic profile (section 4.3.6 with every parameter 0): as
    their strict counterparts, multiply-add not fused, and pairs of products added with saturation. (Wasmtime 42 fuses
    and wraps around in its deterministic mode.)"""
    rows = {
        "i8x16.relaxed_swizzle": native["i8x16.swizzle"],
        "i16x8.relaxed_q15mulr_s": native["i16x8.q15mulr_sat_s"],
        "i16x8.relaxed_dot_i8x16_i7x16_s": _row(f"{_B};{_B}", _W, *_deterministic_dot(2)),
        "i32x4.relaxed_dot_i8x16_i7x16_add_s": _row(
            f"{_B};{_B};{_D}",
            _D,
            *_deterministic_dot(3),
            _MADDWD % (13, "splat (i16 1)"),
            f"add {_D} {{14}}, {{2}}",
        ),
    }
    for source, zero in (("f32x4", ""), ("f64x2", "_zero")):
        for sign in "su":
            relaxed = f"i32x4.relaxed_trunc_{source}_{sign}{zero}"
            rows[relaxed] = native[f"i32x4.trunc_sat_{source}_{sign}{zero}"]
    for s in _INTEGERS:
        rows[f"{s.name}.relaxed_laneselect"] = native["v128.bitselect"]
    for s in _FLOATS:
        rows[f"{s.name}.relaxed_min"] = native[f"{s.name}.min"]
        rows[f"{s.name}.relaxed_max"] = native[f"{s.name}.max"]
        rows |= _unfused_rows(s)
    return rows


def _all() -> _Rows:
    found: _Rows = {}
    for s in _INTEGERS:
        found |= _integer_rows(s)
    for narrow, wide in ((_I8, _I16), (_I16, _I32), (_I32, _I64)):
        found |= _widening_rows(narrow, wide)
    found |= _float_rows(_F32, _I32) | _float_rows(_F64, _I64) | _narrowing_rows() | _SPECIAL
    return {m: row for m, row in found.items() if m in BY_MNEMONIC}  # there is no i8x16.mul, for one


_ROWS: Final = _all()
_ROWS["i32x4.relaxed_trunc_f32x4_u"] = _ROWS["i32x4.trunc_sat_f32x4_u"]
"""As the one of f64x2: both must agree on what is out of range (4.3.6), and nothing shorter gives one of the results
that are allowed."""
_DETERMINISTIC: Final = _deterministic_rows(_ROWS)

_cache: dict[bool, dict[int, VectorRow]] = {}


def rows(deterministic: bool) -> dict[int, VectorRow]:
    """The rows by opcode, for this computer; relaxed instructions native, or by the deterministic profile."""
    found = _cache.get(deterministic)
    if found is None:
        chosen = dict(_ROWS)
        if host_level() == "x86-64-v2" and not deterministic:
            for s in _FLOATS:
                chosen |= _unfused_rows(s)
        if deterministic:
            chosen |= _DETERMINISTIC
        found = _cache[deterministic] = {BY_MNEMONIC[m].opcode: _with_uses(row) for m, row in chosen.items()}
    return found


def _with_uses(row: VectorRow) -> VectorRow:
    return row._replace(uses=tuple(tuple(map(int, _POSITION.findall(line))) for line in row.lines))


_POSITION: Final = re.compile(r"\{(\d+)\}")
_CALL: Final = re.compile(r"call (\S.*?) (@[\w.]+)\((.*)\)$")
_TYPE: Final = re.compile(r"(<\d+ x \w+>|\w+) ")

_declarations = ""


def declarations() -> str:
    """The intrinsics that the rows call, for modules with vectors."""
    global _declarations
    if not _declarations:
        found = {}
        every = [line for row in (*_ROWS.values(), *_DETERMINISTIC.values()) for line in row.lines]
        for line in (*every, *FENCES.values()):
            match = _CALL.match(line)
            if match is not None:
                result, name, arguments = match.groups()
                types = [_TYPE.match(a) for a in arguments.split(", ")]
                found[name] = f"declare {result} {name}({', '.join(t[1] for t in types if t)})\n"
        _declarations = "".join(found.values())
    return _declarations
