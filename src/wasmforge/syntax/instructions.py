"""The instruction table: one row an instruction (mnemonic, opcode, immediates, signature, feature).

It drives the decoder, the validator, the encoder, the text parser and the printer, and the LLVM compiler
keys its own rows by the same opcodes. To add an instruction, add a row here (CONTRIBUTING.md has the rest).

An opcode is one integer: the byte itself, or `prefix << 12 | number` for the prefixed ones (0xFC, 0xFD, 0xFE).
"""

from __future__ import annotations

from wasmforge.syntax import atomics, vectors
from wasmforge.syntax.features import Feature
from wasmforge.syntax.record import IntEnum, record
from wasmforge.syntax.types import F32, F64, I32, I64, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = [
    "BY_MNEMONIC",
    "EMPTY_BLOCK",
    "BY_OPCODE",
    "INSTRUCTIONS",
    "Feature",
    "Immediate",
    "Instruction",
    "InstructionRow",
    "Opcode",
    "block_result",
    "block_type_of",
    "is_block",
    "opcode_bytes",
]


class Immediate(IntEnum):
    """The kinds of immediates. The value of each, in an instruction object, is given in parentheses."""

    BLOCK_TYPE = 1  # (int: a type index >= 0, or what `block_type_of` makes of a result)
    LABEL = 2  # (int)
    LABEL_TABLE = 3  # br_table: (tuple of ints, the default last)
    FUNC = 4
    TYPE = 5
    TABLE = 6
    MEMORY = 7
    GLOBAL = 8
    LOCAL = 9
    ELEM = 10
    DATA = 11
    MEMARG = 12  # (tuple: alignment exponent, memory index, offset)
    I32_CONST = 13  # (int, signed)
    I64_CONST = 14  # (int, signed)
    F32_CONST = 15  # (int: the bit pattern)
    F64_CONST = 16  # (int: the bit pattern)
    REF_TYPE = 17  # a heap type (int: the type of nullable references to it)
    SELECT_TYPES = 18  # (tuple of value types)
    LANE = 19  # (int)
    LANES = 20  # i8x16.shuffle: (16 bytes)
    V128_CONST = 21  # (int: the bit pattern, lane 0 lowest)
    ORDERING = 22  # atomic.fence: (int, 0 so far)


@record(frozen=True, slots=True)
class InstructionRow:
    """`params` and `results` are None for instructions whose type depends on the context: control,
    parametric, variable, reference and table instructions. `access` is the number of bytes that a load or a
    store touches, `lanes` the number of lanes that a lane immediate selects from; 0 for all others."""

    mnemonic: str
    opcode: int
    immediates: tuple[Immediate, ...] = ()
    params: tuple[ValType, ...] | None = None
    results: tuple[ValType, ...] | None = None
    feature: Feature = Feature.MVP
    access: int = 0
    constant: bool = False  # allowed in constant expressions
    lanes: int = 0
    extended_constant: bool = False  # there only since the extended constants


@record(frozen=True, slots=True)
class Instruction:
    """One decoded instruction: its row, and its immediates in the order of `row.immediates`, in the value
    forms that `Immediate` gives.

    `binary.instructions` makes these from bytes, with `offset` the position of the opcode; the text parser
    makes them for `binary.encode_expression`, where `offset` means nothing.
    """

    row: InstructionRow
    immediates: tuple[Any, ...] = ()
    offset: int = 0


def _numeric(opcode: int, mnemonics: str, params: tuple[ValType, ...], result: ValType) -> list[InstructionRow]:
    return [InstructionRow(m, opcode + k, (), params, (result,)) for k, m in enumerate(mnemonics.split())]


def _load(opcode: int, mnemonic: str, result: ValType, size: int) -> InstructionRow:
    return InstructionRow(mnemonic, opcode, (Immediate.MEMARG,), (I32,), (result,), access=size)


def _store(opcode: int, mnemonic: str, operand: ValType, size: int) -> InstructionRow:
    return InstructionRow(mnemonic, opcode, (Immediate.MEMARG,), (I32, operand), (), access=size)


def _integer(t: ValType, n: str, test: int, arithmetic: int) -> list[InstructionRow]:
    comparisons = f"{n}.eq {n}.ne {n}.lt_s {n}.lt_u {n}.gt_s {n}.gt_u {n}.le_s {n}.le_u {n}.ge_s {n}.ge_u"
    binary = (
        f"{n}.add {n}.sub {n}.mul {n}.div_s {n}.div_u {n}.rem_s {n}.rem_u {n}.and {n}.or {n}.xor "
        f"{n}.shl {n}.shr_s {n}.shr_u {n}.rotl {n}.rotr"
    )
    return [
        *_numeric(test, f"{n}.eqz", (t,), I32),
        *_numeric(test + 1, comparisons, (t, t), I32),
        *_numeric(arithmetic, f"{n}.clz {n}.ctz {n}.popcnt", (t,), t),
        *_numeric(arithmetic + 3, binary, (t, t), t),
    ]


def _float(t: ValType, n: str, comparison: int, arithmetic: int) -> list[InstructionRow]:
    unary = f"{n}.abs {n}.neg {n}.ceil {n}.floor {n}.trunc {n}.nearest {n}.sqrt"
    binary = f"{n}.add {n}.sub {n}.mul {n}.div {n}.min {n}.max {n}.copysign"
    return [
        *_numeric(comparison, f"{n}.eq {n}.ne {n}.lt {n}.gt {n}.le {n}.ge", (t, t), I32),
        *_numeric(arithmetic, unary, (t,), t),
        *_numeric(arithmetic + 7, binary, (t, t), t),
    ]


def _constants(rows: list[InstructionRow]) -> list[InstructionRow]:
    """Marks add, sub and mul on integers as allowed in constant expressions (extended constants)."""
    allowed = {f"{n}.{o}" for n in ("i32", "i64") for o in ("add", "sub", "mul")}
    return [
        InstructionRow(
            r.mnemonic, r.opcode, r.immediates, r.params, r.results, r.feature, r.access, True, extended_constant=True
        )
        if r.mnemonic in allowed
        else r
        for r in rows
    ]


_CONTROL: Final = [
    InstructionRow("unreachable", 0x00),
    InstructionRow("nop", 0x01, (), (), ()),
    InstructionRow("block", 0x02, (Immediate.BLOCK_TYPE,)),
    InstructionRow("loop", 0x03, (Immediate.BLOCK_TYPE,)),
    InstructionRow("if", 0x04, (Immediate.BLOCK_TYPE,)),
    InstructionRow("else", 0x05),
    InstructionRow("end", 0x0B),
    InstructionRow("br", 0x0C, (Immediate.LABEL,)),
    InstructionRow("br_if", 0x0D, (Immediate.LABEL,)),
    InstructionRow("br_table", 0x0E, (Immediate.LABEL_TABLE,)),
    InstructionRow("return", 0x0F),
    InstructionRow("call", 0x10, (Immediate.FUNC,)),
    InstructionRow("call_indirect", 0x11, (Immediate.TYPE, Immediate.TABLE)),
    InstructionRow("return_call", 0x12, (Immediate.FUNC,), feature=Feature.TAIL_CALL),
    InstructionRow("return_call_indirect", 0x13, (Immediate.TYPE, Immediate.TABLE), feature=Feature.TAIL_CALL),
    InstructionRow("call_ref", 0x14, (Immediate.TYPE,), feature=Feature.FUNCTION_REFERENCES),
    InstructionRow("return_call_ref", 0x15, (Immediate.TYPE,), feature=Feature.FUNCTION_REFERENCES),
    InstructionRow("br_on_null", 0xD5, (Immediate.LABEL,), feature=Feature.FUNCTION_REFERENCES),
    InstructionRow("br_on_non_null", 0xD6, (Immediate.LABEL,), feature=Feature.FUNCTION_REFERENCES),
]

_PARAMETRIC: Final = [
    InstructionRow("drop", 0x1A),
    InstructionRow("select", 0x1B),
    InstructionRow("select", 0x1C, (Immediate.SELECT_TYPES,), feature=Feature.REFERENCE_TYPES),
]

_VARIABLE: Final = [
    InstructionRow("local.get", 0x20, (Immediate.LOCAL,)),
    InstructionRow("local.set", 0x21, (Immediate.LOCAL,)),
    InstructionRow("local.tee", 0x22, (Immediate.LOCAL,)),
    InstructionRow("global.get", 0x23, (Immediate.GLOBAL,), constant=True),
    InstructionRow("global.set", 0x24, (Immediate.GLOBAL,)),
]

_REFERENCE: Final = [
    InstructionRow("ref.null", 0xD0, (Immediate.REF_TYPE,), feature=Feature.REFERENCE_TYPES, constant=True),
    InstructionRow("ref.is_null", 0xD1, feature=Feature.REFERENCE_TYPES),
    InstructionRow("ref.func", 0xD2, (Immediate.FUNC,), feature=Feature.REFERENCE_TYPES, constant=True),
    InstructionRow("ref.as_non_null", 0xD4, feature=Feature.FUNCTION_REFERENCES),
]

_TABLE: Final = [
    InstructionRow("table.get", 0x25, (Immediate.TABLE,), feature=Feature.REFERENCE_TYPES),
    InstructionRow("table.set", 0x26, (Immediate.TABLE,), feature=Feature.REFERENCE_TYPES),
    # In the binary the element segment comes first, in the text the table does (section 6.5.4).
    InstructionRow("table.init", 0xFC00C, (Immediate.ELEM, Immediate.TABLE), (I32, I32, I32), (), Feature.BULK_MEMORY),
    InstructionRow("elem.drop", 0xFC00D, (Immediate.ELEM,), (), (), Feature.BULK_MEMORY),
    InstructionRow("table.copy", 0xFC00E, (Immediate.TABLE, Immediate.TABLE), (I32, I32, I32), (), Feature.BULK_MEMORY),
    InstructionRow("table.grow", 0xFC00F, (Immediate.TABLE,), feature=Feature.REFERENCE_TYPES),
    InstructionRow("table.size", 0xFC010, (Immediate.TABLE,), (), (I32,), Feature.REFERENCE_TYPES),
    InstructionRow("table.fill", 0xFC011, (Immediate.TABLE,), feature=Feature.REFERENCE_TYPES),
]

_MEMORY: Final = [
    _load(0x28, "i32.load", I32, 4),
    _load(0x29, "i64.load", I64, 8),
    _load(0x2A, "f32.load", F32, 4),
    _load(0x2B, "f64.load", F64, 8),
    _load(0x2C, "i32.load8_s", I32, 1),
    _load(0x2D, "i32.load8_u", I32, 1),
    _load(0x2E, "i32.load16_s", I32, 2),
    _load(0x2F, "i32.load16_u", I32, 2),
    _load(0x30, "i64.load8_s", I64, 1),
    _load(0x31, "i64.load8_u", I64, 1),
    _load(0x32, "i64.load16_s", I64, 2),
    _load(0x33, "i64.load16_u", I64, 2),
    _load(0x34, "i64.load32_s", I64, 4),
    _load(0x35, "i64.load32_u", I64, 4),
    _store(0x36, "i32.store", I32, 4),
    _store(0x37, "i64.store", I64, 8),
    _store(0x38, "f32.store", F32, 4),
    _store(0x39, "f64.store", F64, 8),
    _store(0x3A, "i32.store8", I32, 1),
    _store(0x3B, "i32.store16", I32, 2),
    _store(0x3C, "i64.store8", I64, 1),
    _store(0x3D, "i64.store16", I64, 2),
    _store(0x3E, "i64.store32", I64, 4),
    InstructionRow("memory.size", 0x3F, (Immediate.MEMORY,), (), (I32,)),
    InstructionRow("memory.grow", 0x40, (Immediate.MEMORY,), (I32,), (I32,)),
    InstructionRow(
        "memory.init", 0xFC008, (Immediate.DATA, Immediate.MEMORY), (I32, I32, I32), (), Feature.BULK_MEMORY
    ),
    InstructionRow("data.drop", 0xFC009, (Immediate.DATA,), (), (), Feature.BULK_MEMORY),
    InstructionRow(
        "memory.copy", 0xFC00A, (Immediate.MEMORY, Immediate.MEMORY), (I32, I32, I32), (), Feature.BULK_MEMORY
    ),
    InstructionRow("memory.fill", 0xFC00B, (Immediate.MEMORY,), (I32, I32, I32), (), Feature.BULK_MEMORY),
]

_CONST: Final = [
    InstructionRow("i32.const", 0x41, (Immediate.I32_CONST,), (), (I32,), constant=True),
    InstructionRow("i64.const", 0x42, (Immediate.I64_CONST,), (), (I64,), constant=True),
    InstructionRow("f32.const", 0x43, (Immediate.F32_CONST,), (), (F32,), constant=True),
    InstructionRow("f64.const", 0x44, (Immediate.F64_CONST,), (), (F64,), constant=True),
]

_CONVERSIONS: Final = [
    InstructionRow(mnemonic, opcode, (), (source,), (target,), feature)
    for mnemonic, opcode, source, target, feature in (
        ("i32.wrap_i64", 0xA7, I64, I32, Feature.MVP),
        ("i32.trunc_f32_s", 0xA8, F32, I32, Feature.MVP),
        ("i32.trunc_f32_u", 0xA9, F32, I32, Feature.MVP),
        ("i32.trunc_f64_s", 0xAA, F64, I32, Feature.MVP),
        ("i32.trunc_f64_u", 0xAB, F64, I32, Feature.MVP),
        ("i64.extend_i32_s", 0xAC, I32, I64, Feature.MVP),
        ("i64.extend_i32_u", 0xAD, I32, I64, Feature.MVP),
        ("i64.trunc_f32_s", 0xAE, F32, I64, Feature.MVP),
        ("i64.trunc_f32_u", 0xAF, F32, I64, Feature.MVP),
        ("i64.trunc_f64_s", 0xB0, F64, I64, Feature.MVP),
        ("i64.trunc_f64_u", 0xB1, F64, I64, Feature.MVP),
        ("f32.convert_i32_s", 0xB2, I32, F32, Feature.MVP),
        ("f32.convert_i32_u", 0xB3, I32, F32, Feature.MVP),
        ("f32.convert_i64_s", 0xB4, I64, F32, Feature.MVP),
        ("f32.convert_i64_u", 0xB5, I64, F32, Feature.MVP),
        ("f32.demote_f64", 0xB6, F64, F32, Feature.MVP),
        ("f64.convert_i32_s", 0xB7, I32, F64, Feature.MVP),
        ("f64.convert_i32_u", 0xB8, I32, F64, Feature.MVP),
        ("f64.convert_i64_s", 0xB9, I64, F64, Feature.MVP),
        ("f64.convert_i64_u", 0xBA, I64, F64, Feature.MVP),
        ("f64.promote_f32", 0xBB, F32, F64, Feature.MVP),
        ("i32.reinterpret_f32", 0xBC, F32, I32, Feature.MVP),
        ("i64.reinterpret_f64", 0xBD, F64, I64, Feature.MVP),
        ("f32.reinterpret_i32", 0xBE, I32, F32, Feature.MVP),
        ("f64.reinterpret_i64", 0xBF, I64, F64, Feature.MVP),
        ("i32.extend8_s", 0xC0, I32, I32, Feature.SIGN_EXTENSION),
        ("i32.extend16_s", 0xC1, I32, I32, Feature.SIGN_EXTENSION),
        ("i64.extend8_s", 0xC2, I64, I64, Feature.SIGN_EXTENSION),
        ("i64.extend16_s", 0xC3, I64, I64, Feature.SIGN_EXTENSION),
        ("i64.extend32_s", 0xC4, I64, I64, Feature.SIGN_EXTENSION),
        ("i32.trunc_sat_f32_s", 0xFC000, F32, I32, Feature.SATURATING_FLOAT_TO_INT),
        ("i32.trunc_sat_f32_u", 0xFC001, F32, I32, Feature.SATURATING_FLOAT_TO_INT),
        ("i32.trunc_sat_f64_s", 0xFC002, F64, I32, Feature.SATURATING_FLOAT_TO_INT),
        ("i32.trunc_sat_f64_u", 0xFC003, F64, I32, Feature.SATURATING_FLOAT_TO_INT),
        ("i64.trunc_sat_f32_s", 0xFC004, F32, I64, Feature.SATURATING_FLOAT_TO_INT),
        ("i64.trunc_sat_f32_u", 0xFC005, F32, I64, Feature.SATURATING_FLOAT_TO_INT),
        ("i64.trunc_sat_f64_s", 0xFC006, F64, I64, Feature.SATURATING_FLOAT_TO_INT),
        ("i64.trunc_sat_f64_u", 0xFC007, F64, I64, Feature.SATURATING_FLOAT_TO_INT),
    )
]

_VECTOR_IMMEDIATES: Final = {
    vectors.PLAIN: (),
    vectors.LANE: (Immediate.LANE,),
    vectors.SHUFFLE: (Immediate.LANES,),
    vectors.CONST: (Immediate.V128_CONST,),
    vectors.MEMARG: (Immediate.MEMARG,),
    vectors.MEMARG_LANE: (Immediate.MEMARG, Immediate.LANE),
}

_VECTORS: Final = [
    InstructionRow(
        mnemonic,
        0xFD000 | number,
        _VECTOR_IMMEDIATES[kind],
        params,
        results,
        Feature.SIMD if number < vectors.FIRST_RELAXED else Feature.RELAXED_SIMD,
        access,
        kind == vectors.CONST,
        lanes,
    )
    for number, mnemonic, kind, params, results, access, lanes in vectors.VECTOR_INSTRUCTIONS
]

_WIDE_ARITHMETIC: Final = [
    InstructionRow(mnemonic, opcode, (), (I64,) * params, (I64, I64), Feature.WIDE_ARITHMETIC)
    for mnemonic, opcode, params in (
        ("i64.add128", 0xFC013, 4),
        ("i64.sub128", 0xFC014, 4),
        ("i64.mul_wide_s", 0xFC015, 2),
        ("i64.mul_wide_u", 0xFC016, 2),
    )
]

_ATOMICS: Final = [
    InstructionRow(
        mnemonic,
        0xFE000 | number,
        (Immediate.ORDERING,) if number == atomics.FENCE else (Immediate.MEMARG,),
        params,
        results,
        Feature.THREADS,
        access,
    )
    for number, mnemonic, params, results, access in atomics.ATOMIC_INSTRUCTIONS
]

INSTRUCTIONS: Final[tuple[InstructionRow, ...]] = (
    *_CONTROL,
    *_PARAMETRIC,
    *_VARIABLE,
    *_REFERENCE,
    *_TABLE,
    *_MEMORY,
    *_CONST,
    *_constants(_integer(I32, "i32", 0x45, 0x67)),
    *_constants(_integer(I64, "i64", 0x50, 0x79)),
    *_float(F32, "f32", 0x5B, 0x8B),
    *_float(F64, "f64", 0x61, 0x99),
    *_CONVERSIONS,
    *_VECTORS,
    *_WIDE_ARITHMETIC,
    *_ATOMICS,
)
"""Every instruction that the project knows, in no particular order."""

BY_OPCODE: Final[dict[int, InstructionRow]] = {r.opcode: r for r in INSTRUCTIONS}

BY_MNEMONIC: Final[dict[str, InstructionRow]] = {r.mnemonic: r for r in INSTRUCTIONS if r.opcode != 0x1C}
"""By the name in the text format. `select` stands for the untyped form; the parser picks the typed one
when a result annotation follows."""


class Opcode:
    """The opcodes that the phases name in code, taken from the table by mnemonic."""

    UNREACHABLE: Final = 0x00
    NOP: Final = 0x01
    BLOCK: Final = 0x02
    LOOP: Final = 0x03
    IF: Final = 0x04
    ELSE: Final = 0x05
    END: Final = 0x0B
    BR: Final = 0x0C
    BR_IF: Final = 0x0D
    BR_TABLE: Final = 0x0E
    RETURN: Final = 0x0F
    CALL: Final = 0x10
    CALL_INDIRECT: Final = 0x11
    RETURN_CALL: Final = 0x12
    RETURN_CALL_INDIRECT: Final = 0x13
    CALL_REF: Final = 0x14
    RETURN_CALL_REF: Final = 0x15
    DROP: Final = 0x1A
    SELECT: Final = 0x1B
    SELECT_TYPED: Final = 0x1C
    LOCAL_GET: Final = 0x20
    LOCAL_SET: Final = 0x21
    LOCAL_TEE: Final = 0x22
    GLOBAL_GET: Final = 0x23
    GLOBAL_SET: Final = 0x24
    TABLE_GET: Final = 0x25
    TABLE_SET: Final = 0x26
    MEMORY_SIZE: Final = 0x3F
    MEMORY_GROW: Final = 0x40
    I32_CONST: Final = 0x41
    I64_CONST: Final = 0x42
    F32_CONST: Final = 0x43
    F64_CONST: Final = 0x44
    REF_NULL: Final = 0xD0
    REF_IS_NULL: Final = 0xD1
    REF_FUNC: Final = 0xD2
    V128_CONST: Final = 0xFD00C
    I8X16_SHUFFLE: Final = 0xFD00D
    REF_AS_NON_NULL: Final = 0xD4
    BR_ON_NULL: Final = 0xD5
    BR_ON_NON_NULL: Final = 0xD6
    MEMORY_INIT: Final = 0xFC008
    DATA_DROP: Final = 0xFC009
    MEMORY_COPY: Final = 0xFC00A
    MEMORY_FILL: Final = 0xFC00B
    TABLE_INIT: Final = 0xFC00C
    ELEM_DROP: Final = 0xFC00D
    TABLE_COPY: Final = 0xFC00E
    TABLE_GROW: Final = 0xFC00F
    TABLE_SIZE: Final = 0xFC010
    TABLE_FILL: Final = 0xFC011
    I64_ADD128: Final = 0xFC013
    I64_SUB128: Final = 0xFC014
    I64_MUL_WIDE_S: Final = 0xFC015
    I64_MUL_WIDE_U: Final = 0xFC016


EMPTY_BLOCK: Final = -64
"""The block type without parameters and results."""


def block_type_of(result: int) -> int:
    """The block type with one result, as an immediate: negative, the value of its encoding where that is a byte."""
    return result - 0x80 if result < 0x80 else -result


def block_result(block_type: int) -> ValType:
    """The result that a negative block type other than `EMPTY_BLOCK` stands for."""
    return ValType(block_type + 0x80 if block_type > -0x80 else -block_type)


def is_block(opcode: int) -> bool:
    """Whether the instruction opens a block that an `end` closes."""
    return 0x02 <= opcode <= 0x04


def opcode_bytes(opcode: int) -> bytes:
    """The encoding of an opcode: one byte, or a prefix byte and an unsigned LEB128 number."""
    if opcode < 0x100:
        return bytes((opcode,))
    number = opcode & 0xFFF
    if number < 0x80:
        return bytes((opcode >> 12, number))
    return bytes((opcode >> 12, number & 0x7F | 0x80, number >> 7))
