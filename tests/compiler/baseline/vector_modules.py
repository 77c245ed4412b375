"""A module with a function for every vector instruction, in which registers are scarce: for tests of the baseline
compiler that look at code without running it."""

from __future__ import annotations

from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow
from wasmforge.syntax.types import V128, VALUE_TYPES

__all__ = ["every_vector_instruction"]

LOCALS = 14
"""More than can live in registers."""


def every_vector_instruction() -> str:
    rows = [row for row in INSTRUCTIONS if row.opcode >> 12 == 0xFD]
    assert len(rows) == 256
    functions = [_function(row, variant) for row in rows for variant in range(3)]
    return f"(module (memory 1) {' '.join(functions)})"


def _immediates(row: InstructionRow) -> str:
    if Immediate.V128_CONST in row.immediates:
        return " i32x4 1 2 3 4"
    if Immediate.LANES in row.immediates:
        return " 0 1 2 3 20 21 22 23 8 9 10 11 12 13 14 31"
    offset = " offset=40" if Immediate.MEMARG in row.immediates else ""
    return f"{offset} 1" if Immediate.LANE in row.immediates else offset


def _operand(t: int, k: int, variant: int) -> str:
    if t != V128:
        scalar = VALUE_TYPES[t]  # type: ignore[index]
        return f"({scalar}.const 3)" if variant == 1 else f"({scalar}.load (i32.const 8))"
    if variant == 0:  # results of instructions, in registers that the emitter owns
        return f"(i8x16.add (local.get {k}) (v128.load (i32.const {16 * k})))"
    # Locals in registers of their own, the one that is assigned among them; or constants, and locals in the frame.
    return f"(local.get {k})" if variant == 1 else ("(v128.const i32x4 1 0 16 0)" if k else f"(local.get {LOCALS - 1})")


def _function(row: InstructionRow, variant: int) -> str:
    """The instruction in a loop that uses all locals, with operands below it that want the local which it assigns."""
    assert row.params is not None and row.results is not None
    operands = " ".join(_operand(t, k, variant) for k, t in enumerate(row.params))
    instruction = f"({row.mnemonic}{_immediates(row)} {operands})"
    if row.results == (V128,):
        body = f"(local.get 0) (local.get 1) (local.set 0 {instruction}) (local.set 2 (v128.xor))"
    elif row.results:
        # Used twice, and with a condition's consumer behind it.
        body = f"(if (i32.eqz (i32.const 0)) (then (drop {instruction})))"
        if VALUE_TYPES[row.results[0]] == "i32":  # type: ignore[index]
            body += f"(br_if 0 {instruction})"
    else:
        body = instruction
    uses = " ".join(f"(local.set {k} (i16x8.sub (local.get {k}) (local.get {k})))" for k in range(LOCALS - 1, -1, -1))
    return f"(func (local {'v128 ' * LOCALS}) (loop {uses} {body} (br_if 0 (i32.const 0))) (drop (local.get 0)))"
