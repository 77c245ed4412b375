"""The table of simple instructions: opcode to one line of LLVM IR. The translator emits these without looking at
them; an instruction that can trap, branch or touch memory has an emitter in `translate` instead.

An operand that is a float is never a constant that LLVM can see (see `translate`), so that rows may use plain fadd,
fmul and so on and still quieten every signalling NaN.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wasmforge.compiler.llvm.context import BOOL
from wasmforge.syntax.instructions import BY_MNEMONIC
from wasmforge.syntax.types import F32, F64, I32, I64, ValType

__all__ = ["DECLARATIONS", "LOADS", "SHIFTS", "SIMPLE", "STORES", "TRUNCATIONS", "Access", "SimpleRow", "Truncation"]


class SimpleRow(NamedTuple):
    """`template` has one `%s` an operand. `opaque` results go through an arithmetic fence: LLVM could know them
    otherwise as float constants (integers converted or reinterpreted) or as a float that was widened."""

    template: str
    operands: int
    result: ValType
    opaque: bool = False


class Access(NamedTuple):
    """A load or store: type of the value, LLVM's type in memory, how a load widens it ("" for not), size in bytes."""

    type: ValType
    memory_type: str
    extension: str
    size: int


class Truncation(NamedTuple):
    """A trapping float-to-integer conversion: legal operands lie strictly between `low` and `high`, which are exact
    in the operand's type (specification, section 4.3.2, trunc_u and trunc_s)."""

    operand: ValType
    result: ValType
    instruction: str
    low: float
    high: float


_TYPES: Final = (("i32", I32, "i32"), ("i64", I64, "i64"))
_FLOATS: Final = (("f32", F32, "float"), ("f64", F64, "double"))

_INTEGER_UNARY: Final = {"clz": "ctlz", "ctz": "cttz"}
_INTEGER_BINARY: Final = ("add", "sub", "mul", "and", "or", "xor")
_INTEGER_COMPARISONS: Final = {
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
_FLOAT_UNARY: Final = {
    "abs": "fabs",
    "ceil": "ceil",
    "floor": "floor",
    "trunc": "trunc",
    "nearest": "roundeven",
    "sqrt": "sqrt",
}
_FLOAT_BINARY: Final = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_FLOAT_COMPARISONS: Final = {"eq": "oeq", "ne": "une", "lt": "olt", "gt": "ogt", "le": "ole", "ge": "oge"}

_CONVERSIONS: Final = (
    ("i32.wrap_i64", "trunc i64 %s to i32", I32, False),
    ("i64.extend_i32_s", "sext i32 %s to i64", I64, False),
    ("i64.extend_i32_u", "zext i32 %s to i64", I64, False),
    ("f32.convert_i32_s", "sitofp i32 %s to float", F32, True),
    ("f32.convert_i32_u", "uitofp i32 %s to float", F32, True),
    ("f32.convert_i64_s", "sitofp i64 %s to float", F32, True),
    ("f32.convert_i64_u", "uitofp i64 %s to float", F32, True),
    ("f64.convert_i32_s", "sitofp i32 %s to double", F64, True),
    ("f64.convert_i32_u", "uitofp i32 %s to double", F64, True),
    ("f64.convert_i64_s", "sitofp i64 %s to double", F64, True),
    ("f64.convert_i64_u", "uitofp i64 %s to double", F64, True),
    ("f32.demote_f64", "fptrunc double %s to float", F32, False),
    ("f64.promote_f32", "fpext float %s to double", F64, True),
    ("i32.reinterpret_f32", "bitcast float %s to i32", I32, False),
    ("i64.reinterpret_f64", "bitcast double %s to i64", I64, False),
    ("f32.reinterpret_i32", "bitcast i32 %s to float", F32, True),
    ("f64.reinterpret_i64", "bitcast i64 %s to double", F64, True),
)


def _simple_rows() -> dict[str, SimpleRow]:
    rows = {}
    for name, t, ir in _TYPES:
        for mnemonic, intrinsic in _INTEGER_UNARY.items():
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"call {ir} @llvm.{intrinsic}.{ir}({ir} %s, i1 false)", 1, t)
        rows[f"{name}.popcnt"] = SimpleRow(f"call {ir} @llvm.ctpop.{ir}({ir} %s)", 1, t)
        for mnemonic in _INTEGER_BINARY:
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"{mnemonic} {ir} %s, %s", 2, t)
        for mnemonic, predicate in _INTEGER_COMPARISONS.items():
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"icmp {predicate} {ir} %s, %s", 2, BOOL)
    for name, t, ir in _FLOATS:
        for mnemonic, intrinsic in _FLOAT_UNARY.items():
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"call {ir} @llvm.{intrinsic}.{name}({ir} %s)", 1, t)
        rows[f"{name}.neg"] = SimpleRow(f"fneg {ir} %s", 1, t)
        rows[f"{name}.copysign"] = SimpleRow(f"call {ir} @llvm.copysign.{name}({ir} %s, {ir} %s)", 2, t)
        for mnemonic, instruction in _FLOAT_BINARY.items():
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"{instruction} {ir} %s, %s", 2, t)
        for mnemonic, predicate in _FLOAT_COMPARISONS.items():
            rows[f"{name}.{mnemonic}"] = SimpleRow(f"fcmp {predicate} {ir} %s, %s", 2, BOOL)
    for mnemonic, template, t, opaque in _CONVERSIONS:
        rows[mnemonic] = SimpleRow(template, 1, t, opaque)
    for to_name, to, to_ir in _TYPES:
        for from_name, _, from_ir in _FLOATS:
            for sign in "su":
                intrinsic = f"@llvm.fpto{sign}i.sat.{to_ir}.{from_name}"
                rows[f"{to_name}.trunc_sat_{from_name}_{sign}"] = SimpleRow(
                    f"call {to_ir} {intrinsic}({from_ir} %s)", 1, to
                )
    return rows


SIMPLE: Final[dict[int, SimpleRow]] = {BY_MNEMONIC[m].opcode: row for m, row in _simple_rows().items()}

SHIFTS: Final[dict[int, str]] = {
    BY_MNEMONIC[f"{n}.{mnemonic}"].opcode: instruction
    for n in ("i32", "i64")
    for mnemonic, instruction in (
        ("shl", "shl"),
        ("shr_s", "ashr"),
        ("shr_u", "lshr"),
        ("rotl", "@llvm.fshl."),
        ("rotr", "@llvm.fshr."),
    )
}
"""Shifts and rotations: LLVM's instruction, which wants a count below the width, or intrinsic, which does not."""

LOADS: Final[dict[int, Access]] = {
    BY_MNEMONIC[m].opcode: access
    for m, access in {
        "i32.load": Access(I32, "i32", "", 4),
        "i64.load": Access(I64, "i64", "", 8),
        "f32.load": Access(F32, "float", "", 4),
        "f64.load": Access(F64, "double", "", 8),
        "i32.load8_s": Access(I32, "i8", "sext", 1),
        "i32.load8_u": Access(I32, "i8", "zext", 1),
        "i32.load16_s": Access(I32, "i16", "sext", 2),
        "i32.load16_u": Access(I32, "i16", "zext", 2),
        "i64.load8_s": Access(I64, "i8", "sext", 1),
        "i64.load8_u": Access(I64, "i8", "zext", 1),
        "i64.load16_s": Access(I64, "i16", "sext", 2),
        "i64.load16_u": Access(I64, "i16", "zext", 2),
        "i64.load32_s": Access(I64, "i32", "sext", 4),
        "i64.load32_u": Access(I64, "i32", "zext", 4),
    }.items()
}

STORES: Final[dict[int, Access]] = {
    BY_MNEMONIC[m].opcode: access
    for m, access in {
        "i32.store": Access(I32, "i32", "", 4),
        "i64.store": Access(I64, "i64", "", 8),
        "f32.store": Access(F32, "float", "", 4),
        "f64.store": Access(F64, "double", "", 8),
        "i32.store8": Access(I32, "i8", "trunc", 1),
        "i32.store16": Access(I32, "i16", "trunc", 2),
        "i64.store8": Access(I64, "i8", "trunc", 1),
        "i64.store16": Access(I64, "i16", "trunc", 2),
        "i64.store32": Access(I64, "i32", "trunc", 4),
    }.items()
}

TRUNCATIONS: Final[dict[int, Truncation]] = {
    BY_MNEMONIC[m].opcode: truncation
    for m, truncation in {
        # The nearest f32 below -2**31 is -2**31 - 2**8, and so on: the bound itself is the first illegal value.
        "i32.trunc_f32_s": Truncation(F32, I32, "fptosi", -(2.0**31) - 2.0**8, 2.0**31),
        "i32.trunc_f32_u": Truncation(F32, I32, "fptoui", -1.0, 2.0**32),
        "i32.trunc_f64_s": Truncation(F64, I32, "fptosi", -(2.0**31) - 1, 2.0**31),
        "i32.trunc_f64_u": Truncation(F64, I32, "fptoui", -1.0, 2.0**32),
        "i64.trunc_f32_s": Truncation(F32, I64, "fptosi", -(2.0**63) - 2.0**40, 2.0**63),
        "i64.trunc_f32_u": Truncation(F32, I64, "fptoui", -1.0, 2.0**64),
        "i64.trunc_f64_s": Truncation(F64, I64, "fptosi", -(2.0**63) - 2.0**11, 2.0**63),
        "i64.trunc_f64_u": Truncation(F64, I64, "fptoui", -1.0, 2.0**64),
    }.items()
}


def _declarations() -> str:
    lines = []
    for t in ("i32", "i64"):
        lines += [f"declare {t} @llvm.{n}.{t}({t}, i1)" for n in ("ctlz", "cttz")]
        lines += [f"declare {t} @llvm.ctpop.{t}({t})"]
        lines += [f"declare {t} @llvm.{n}.{t}({t}, {t}, {t})" for n in ("fshl", "fshr")]
    for n, t in (("f32", "float"), ("f64", "double")):
        lines += [f"declare {t} @llvm.{i}.{n}({t})" for i in (*_FLOAT_UNARY.values(), "arithmetic.fence")]
        lines += [f"declare {t} @llvm.{i}.{n}({t}, {t})" for i in ("minimum", "maximum", "copysign")]
        lines += [f"declare {i} @llvm.fpto{s}i.sat.{i}.{n}({t})" for i in ("i32", "i64") for s in "su"]
    return "\n".join(lines) + "\n"


DECLARATIONS: Final = _declarations()
"""The intrinsics that rows and emitters call."""
