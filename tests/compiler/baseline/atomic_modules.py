"""A module with functions for every atomic instruction: for tests of the baseline compiler that look at code without
running it."""

from __future__ import annotations

from wasmforge.syntax.instructions import INSTRUCTIONS, InstructionRow
from wasmforge.syntax.types import VALUE_TYPES, ValType

__all__ = ["every_atomic_instruction"]


def every_atomic_instruction(address: str = "") -> str:
    """`address` is "i64 " for a memory with 64-bit addresses."""
    rows = [row for row in INSTRUCTIONS if row.opcode >> 12 == 0xFE]
    assert len(rows) == 67
    functions = [_function(row, address, constant) for row in rows for constant in (False, True)]
    return f"(module (memory {address}1 4 shared) {' '.join(functions)})"


def _operand(t: ValType, k: int, address: str, constant: bool) -> str:
    name = address.strip() or "i32" if k == 0 else VALUE_TYPES[t]
    if constant:
        return f"({name}.const {8 * k + 16})"
    return f"(local.get {k if name == 'i32' else k + 3})"


def _function(row: InstructionRow, address: str, constant: bool) -> str:
    locals_ = "(param i32 i32 i32 i64 i64 i64)"
    if row.mnemonic == "atomic.fence":
        return f"(func {locals_} atomic.fence)"
    assert row.params is not None and row.results is not None
    operands = " ".join(_operand(t, k, address, constant) for k, t in enumerate(row.params))
    instruction = f"({row.mnemonic} offset=32 {operands})"
    if not row.results:
        return f"(func {locals_} {instruction})"
    result = VALUE_TYPES[row.results[0]]
    wanted = 0 if result == "i32" else 3
    return (
        f"(func {locals_} (result {result}) (local.set {wanted} {instruction}) (drop {instruction}) "
        f"({result}.add (local.get {wanted}) {instruction}))"
    )
