"""A row for every instruction that an encoding and a few numbers describe: which emitter it has, the width of its
operands, the machine instruction, and one number more.

`function` picks the emitter by `CLASS`; the emitters read the rest of the row. All tables are indexed by opcode, the
prefixed opcodes have none.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.syntax.instructions import BY_MNEMONIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CLASS", "ENCODING", "NUMBER", "SWAPPED", "WIDE"]

ALU: Final = 1
"""Two operands, `op reg, r/m`; number: the immediate form in group 1."""
MULTIPLY: Final = 2
DIVIDE: Final = 3
"""Number: 1 unsigned, 2 remainder."""
SHIFT: Final = 4
"""Number: the instruction in the shift group."""
COMPARE: Final = 5
"""Number: the condition."""
EQZ: Final = 6
LOAD: Final = 7
STORE: Final = 8
"""Number: bytes."""
FLOAT_LOAD: Final = 9
EXTEND: Final = 10
"""One integer operand, `op reg, r/m`; number: bytes read."""
COUNT: Final = 11
FROM_INTEGER: Final = 12
"""Number: 1 unsigned, 2 from 64 bits. WIDE is that of the result."""
TO_FLOAT: Final = 13
"""reinterpret to a float."""
FLOAT_STORE: Final = 14
FLOAT_BINARY: Final = 15
FLOAT_COMPARE: Final = 16
"""Number: 0 eq, 1 ne, 2 lt, 3 gt, 4 le, 5 ge."""
MINIMUM: Final = 17
"""Number: 1 for the maximum."""
COPYSIGN: Final = 18
SIGN: Final = 19
"""Number: 0 abs, 1 neg."""
ROUND: Final = 20
"""Number: the rounding mode of roundsd, exceptions suppressed."""
SQUARE_ROOT: Final = 21
FLOAT_RESIZE: Final = 22
"""promote, demote."""
TRUNCATE: Final = 23
"""Number: 1 unsigned, 2 to 64 bits. WIDE is that of the operand."""
REINTERPRET: Final = 24
"""To an integer."""

FIRST_FLOAT: Final = FLOAT_STORE
LAST_FLOAT: Final = REINTERPRET
"""The classes from first to last take a float as topmost operand, those before take an integer."""


class _Row:
    def __init__(self, emitter: int, wide: int, encoding: int, number: int) -> None:
        self.emitter = emitter
        self.wide = wide
        self.encoding = encoding
        self.number = number


def _integer(n: str, wide: int) -> dict[str, _Row]:
    c = Condition
    rows = {
        "add": _Row(ALU, wide, Op.ADD, 0),
        "sub": _Row(ALU, wide, Op.SUB, 5),
        "and": _Row(ALU, wide, Op.AND, 4),
        "or": _Row(ALU, wide, Op.OR, 1),
        "xor": _Row(ALU, wide, Op.XOR, 6),
        "mul": _Row(MULTIPLY, wide, Op.IMUL, 0),
        "div_s": _Row(DIVIDE, wide, 0, 0),
        "div_u": _Row(DIVIDE, wide, 0, 1),
        "rem_s": _Row(DIVIDE, wide, 0, 2),
        "rem_u": _Row(DIVIDE, wide, 0, 3),
        "shl": _Row(SHIFT, wide, 0, 4),
        "shr_s": _Row(SHIFT, wide, 0, 7),
        "shr_u": _Row(SHIFT, wide, 0, 5),
        "rotl": _Row(SHIFT, wide, 0, 0),
        "rotr": _Row(SHIFT, wide, 0, 1),
        "eqz": _Row(EQZ, wide, 0, 0),
        "eq": _Row(COMPARE, wide, Op.CMP, c.EQUAL),
        "ne": _Row(COMPARE, wide, Op.CMP, c.NOT_EQUAL),
        "lt_s": _Row(COMPARE, wide, Op.CMP, c.LESS),
        "lt_u": _Row(COMPARE, wide, Op.CMP, c.BELOW),
        "gt_s": _Row(COMPARE, wide, Op.CMP, c.GREATER),
        "gt_u": _Row(COMPARE, wide, Op.CMP, c.ABOVE),
        "le_s": _Row(COMPARE, wide, Op.CMP, c.LESS_EQUAL),
        "le_u": _Row(COMPARE, wide, Op.CMP, c.BELOW_EQUAL),
        "ge_s": _Row(COMPARE, wide, Op.CMP, c.GREATER_EQUAL),
        "ge_u": _Row(COMPARE, wide, Op.CMP, c.ABOVE_EQUAL),
        "clz": _Row(COUNT, wide, Op.LZCNT, 0),
        "ctz": _Row(COUNT, wide, Op.TZCNT, 1),
        "popcnt": _Row(COUNT, wide, Op.POPCNT, 2),
        "load": _Row(LOAD, wide, Op.MOV, 0),
        "load8_s": _Row(LOAD, wide, Op.MOVSX8, 0),
        "load8_u": _Row(LOAD, 0, Op.MOVZX8, 0),
        "load16_s": _Row(LOAD, wide, Op.MOVSX16, 0),
        "load16_u": _Row(LOAD, 0, Op.MOVZX16, 0),
        "store": _Row(STORE, wide, Op.MOV_STORE, 8 if wide else 4),
        "store8": _Row(STORE, 0, Op.MOV_STORE8, 1),
        "store16": _Row(STORE, 0, Op.MOV_STORE, 2),
        "extend8_s": _Row(EXTEND, wide, Op.MOVSX8, 1),
        "extend16_s": _Row(EXTEND, wide, Op.MOVSX16, 2),
    }
    for k, source in enumerate(("f32", "f64")):
        rows[f"trunc_{source}_s"] = _Row(TRUNCATE, k, 0, 2 * wide)
        rows[f"trunc_{source}_u"] = _Row(TRUNCATE, k, 0, 2 * wide + 1)
    return {f"{n}.{mnemonic}": row for mnemonic, row in rows.items()}


def _float(n: str, wide: int) -> dict[str, _Row]:
    single = 0 if wide else Op.SINGLE
    binary = {
        "add": Op.ADDSD + single,
        "sub": Op.SUBSD + single,
        "mul": Op.MULSD + single,
        "div": Op.DIVSD + single,
    }
    rows = {
        **{m: _Row(FLOAT_BINARY, wide, encoding, int(m in ("add", "mul"))) for m, encoding in binary.items()},
        "min": _Row(MINIMUM, wide, Op.MINSD + single, 0),
        "max": _Row(MINIMUM, wide, Op.MAXSD + single, 1),
        "copysign": _Row(COPYSIGN, wide, 0, 0),
        "abs": _Row(SIGN, wide, 0, 0),
        "neg": _Row(SIGN, wide, 0, 1),
        "sqrt": _Row(SQUARE_ROOT, wide, Op.SQRTSD + single, 0),
        "load": _Row(FLOAT_LOAD, wide, Op.MOVSD + single, 0),
        "store": _Row(FLOAT_STORE, wide, Op.MOVSD_STORE + single, 8 if wide else 4),
    }
    for k, mnemonic in enumerate(("eq", "ne", "lt", "gt", "le", "ge")):
        rows[mnemonic] = _Row(FLOAT_COMPARE, wide, Op.UCOMISD if wide else Op.UCOMISS, k)
    for mnemonic, mode in (("nearest", 8), ("floor", 9), ("ceil", 10), ("trunc", 11)):
        rows[mnemonic] = _Row(ROUND, wide, Op.ROUNDSD if wide else Op.ROUNDSS, mode)
    for k, source in enumerate(("i32", "i64")):
        for unsigned, suffix in enumerate("su"):
            rows[f"convert_{source}_{suffix}"] = _Row(FROM_INTEGER, wide, Op.CVTSI2SD + single, 2 * k + unsigned)
    return {f"{n}.{mnemonic}": row for mnemonic, row in rows.items()}


_ROWS: Final = {
    **_integer("i32", 0),
    **_integer("i64", 1),
    **_float("f32", 0),
    **_float("f64", 1),
    "i64.load32_s": _Row(LOAD, 1, Op.MOVSXD, 0),
    "i64.load32_u": _Row(LOAD, 0, Op.MOV, 0),
    "i64.store32": _Row(STORE, 0, Op.MOV_STORE, 4),
    "i64.extend32_s": _Row(EXTEND, 1, Op.MOVSXD, 4),
    "i64.extend_i32_s": _Row(EXTEND, 1, Op.MOVSXD, 4),
    "i32.wrap_i64": _Row(EXTEND, 0, Op.MOV, 4),
    "f32.demote_f64": _Row(FLOAT_RESIZE, 0, Op.CVTSD2SS, 0),
    "f64.promote_f32": _Row(FLOAT_RESIZE, 1, Op.CVTSS2SD, 0),
    "i32.reinterpret_f32": _Row(REINTERPRET, 0, 0, 0),
    "i64.reinterpret_f64": _Row(REINTERPRET, 1, 0, 0),
    "f32.reinterpret_i32": _Row(TO_FLOAT, 0, 0, 1),
    "f64.reinterpret_i64": _Row(TO_FLOAT, 1, 0, 1),
}

_BY_OPCODE: Final = {BY_MNEMONIC[mnemonic].opcode: row for mnemonic, row in _ROWS.items()}
_NOTHING: Final = _Row(0, 0, 0, 0)

CLASS: Final = bytes(_BY_OPCODE.get(opcode, _NOTHING).emitter for opcode in range(256))
WIDE: Final = bytes(_BY_OPCODE.get(opcode, _NOTHING).wide for opcode in range(256))
ENCODING: Final[list[int]] = [_BY_OPCODE.get(opcode, _NOTHING).encoding for opcode in range(256)]
NUMBER: Final = bytes(_BY_OPCODE.get(opcode, _NOTHING).number for opcode in range(256))

SWAPPED: Final = bytes((0, 1, 7, 6, 4, 5, 3, 2, 8, 9, 10, 11, 15, 14, 13, 12))
"""The condition that holds of (b, a) when a condition holds of (a, b)."""
