"""Emitters of locals, constants, parametric instructions and the numeric instructions that need more than a row of
`rows.py`. `translate.py` joins `EMITTERS` with those of the other rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Final

from wasmforge.compiler.llvm.builder import FLOAT_NAMES, FunctionBuilder
from wasmforge.compiler.llvm.context import BOOL, IR_TYPES
from wasmforge.compiler.llvm.rows import SHIFTS, TRUNCATIONS
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_MNEMONIC, Opcode
from wasmforge.syntax.types import F32, F64, FUNCREF, I32, I64, V128

__all__ = ["EMITTERS", "NumericEmitters"]


class NumericEmitters(FunctionBuilder):
    # --- Locals ---------------------------------------------------------------------------------------------

    def initial(self, x: int) -> str:
        """What a local holds at entry: a parameter, or the default value of its type."""
        if x < len(self.source.type.params):
            return f"%p{x}"
        t = self.local_types[x]
        if t in FLOAT_NAMES:
            self.zero_floats.add(t)
            return f"%zero{IR_TYPES[t]}"
        if t == V128:
            return "zeroinitializer"
        return "null" if t == FUNCREF else "0"

    def local_get(self, _: int) -> None:
        x = self.unsigned()
        self.push(self.local_value(x), self.local_types[x])

    def local_set(self, _: int) -> None:
        x = self.unsigned()
        value = self.pop_opaque()
        self.assign_local(x, value)

    def local_tee(self, _: int) -> None:
        x = self.unsigned()
        value = self.peek_values(1)[0]
        self.assign_local(x, value)

    # --- Constants, parametric instructions ---------------------------------------------------------------------

    def i32_const(self, _: int) -> None:
        self.push(str(self.signed()), I32)

    def i64_const(self, _: int) -> None:
        self.push(str(self.signed()), I64)

    def f32_const(self, _: int) -> None:
        bits = int.from_bytes(self.code[self.pc : self.pc + 4], "little")
        self.pc += 4
        self.push(f"bitcast (i32 {bits} to float)", F32)

    def f64_const(self, _: int) -> None:
        bits = int.from_bytes(self.code[self.pc : self.pc + 8], "little")
        self.pc += 8
        self.push(f"bitcast (i64 {bits} to double)", F64)

    def drop(self, _: int) -> None:
        self.pop()

    def nop(self, _: int) -> None:
        pass

    def select(self, opcode: int) -> None:
        if opcode == Opcode.SELECT_TYPED:
            for _ in range(self.unsigned()):
                self.value_type()
        condition = self.pop_condition()
        second = self.pop_opaque()
        t = self.types[-1]
        first = self.pop_opaque()
        ir = IR_TYPES[t]
        # cmov takes a memory operand, so a select may fold the load of either side.
        text = f"select i1 {condition}, {ir} {first}, {ir} {second}"
        self.push(self.derive(text, condition, first, second), t)

    def eqz(self, opcode: int) -> None:
        t = self.types.pop()
        operand = self.stack.pop()
        text = f"xor i1 {operand}, true" if t == BOOL else f"icmp eq {IR_TYPES[t]} {operand}, 0"
        self.push_condition(self.derive(text, operand))

    # --- Wide arithmetic ----------------------------------------------------------------------------------------

    def pop_wide(self) -> str:
        """Pops an integer of 128 bits, the lower half below the upper one."""
        high = self.pop()
        low = self.emit(f"zext i64 {self.pop()} to i128")
        shifted = self.emit(f"shl i128 {self.emit(f'zext i64 {high} to i128')}, 64")
        return self.emit(f"or i128 {shifted}, {low}")

    def push_wide(self, value: str) -> None:
        self.push(self.emit(f"trunc i128 {value} to i64"), I64)
        self.push(self.emit(f"trunc i128 {self.emit(f'lshr i128 {value}, 64')} to i64"), I64)

    def add128(self, opcode: int) -> None:
        second = self.pop_wide()
        first = self.pop_wide()
        instruction = "add" if opcode == Opcode.I64_ADD128 else "sub"
        self.push_wide(self.emit(f"{instruction} i128 {first}, {second}"))

    def multiply_wide(self, opcode: int) -> None:
        extend = "sext" if opcode == Opcode.I64_MUL_WIDE_S else "zext"
        second = self.emit(f"{extend} i64 {self.pop()} to i128")
        first = self.emit(f"{extend} i64 {self.pop()} to i128")
        self.push_wide(self.emit(f"mul i128 {first}, {second}"))

    # --- Numeric instructions that need more than a row ----------------------------------------------------------

    def shift(self, opcode: int) -> None:
        second = self.pop()
        t = self.types[-1]
        first = self.pop()
        ir = IR_TYPES[t]
        instruction = SHIFTS[opcode]
        mask = 31 if t == I32 else 63
        if instruction.startswith("@"):  # the funnel shifts take the count modulo the width themselves
            text = f"call {ir} {instruction}{ir}({ir} {first}, {ir} {first}, {ir} {second})"
        else:
            if second[0] == "%":
                second = self.derive(f"and {ir} {second}, {mask}", second)
            else:
                second = str(int(second) & mask)
            text = f"{instruction} {ir} {first}, {second}"
        self.push(self.derive(text, first, second), t)

    def divide(self, opcode: int) -> None:
        second = self.pop()
        t = self.types[-1]
        first = self.pop()
        ir = IR_TYPES[t]
        instruction = _DIVISIONS[opcode]
        # LLVM's division is undefined for a zero divisor and where the quotient overflows (4.3.2, idiv_s). A
        # literal divisor needs no check for what it is not.
        literal = int(second) if second[0] != "%" else None
        if literal is None or literal == 0:
            self.trap_if(self.derive(f"icmp eq {ir} {second}, 0", second), TrapKind.INTEGER_DIVISION_BY_ZERO)
            if literal == 0:  # the block that follows is never reached; keep its IR defined
                second = "1"
        if literal is None or literal == -1:
            if instruction == "sdiv":
                minimum = -(1 << 31) if t == I32 else -(1 << 63)
                is_minimum = self.derive(f"icmp eq {ir} {first}, {minimum}", first)
                is_minus_one = self.derive(f"icmp eq {ir} {second}, -1", second)
                both = self.derive(f"and i1 {is_minimum}, {is_minus_one}", is_minimum, is_minus_one)
                self.trap_if(both, TrapKind.INTEGER_OVERFLOW)
            elif instruction == "srem":  # x rem -1 is 0 for every x, also where LLVM's is undefined
                is_minus_one = self.derive(f"icmp eq {ir} {second}, -1", second)
                second = self.derive(f"select i1 {is_minus_one}, {ir} 1, {ir} {second}", is_minus_one, second)
        self.push(self.derive(f"{instruction} {ir} {first}, {second}", first, second), t)

    def sign_extend(self, opcode: int) -> None:
        t, narrow = _SIGN_EXTENSIONS[opcode]
        operand = self.pop()
        ir = IR_TYPES[t]
        truncated = self.derive(f"trunc {ir} {operand} to {narrow}", operand)
        self.push(self.derive(f"sext {narrow} {truncated} to {ir}", truncated), t)

    def minimum_or_maximum(self, opcode: int) -> None:
        t, intrinsic = _MINIMA[opcode]
        second = self.pop_opaque()
        first = self.pop_opaque()
        ir = IR_TYPES[t]
        # `minimum(x, x)` folds to x, and the x86 sequence hands a NaN operand through as it is. Adding -0.0 changes
        # no number and quietens a signalling NaN.
        text = f"call {ir} @llvm.{intrinsic}.{FLOAT_NAMES[t]}({ir} {first}, {ir} {second})"
        raw = self.derive(text, first, second)
        zero = self.fence("-0.0", t)
        self.push(self.emit(f"fadd {ir} {raw}, {zero}"), t)

    def truncate(self, opcode: int) -> None:
        row = TRUNCATIONS[opcode]
        operand = self.pop_opaque()
        ir = IR_TYPES[row.operand]
        above = self.derive(f"fcmp ogt {ir} {operand}, {_hexadecimal(row.low)}", operand)
        below = self.derive(f"fcmp olt {ir} {operand}, {_hexadecimal(row.high)}", operand)
        legal = self.derive(f"and i1 {above}, {below}", above, below)
        proceed = self.new_label()
        illegal = self.new_label()
        self.do(f"br i1 {legal}, label %{proceed}, label %{illegal}{self.inherited(legal)}")
        self.begin_block(illegal)
        unordered = self.emit(f"fcmp uno {ir} {operand}, 0.0")
        not_a_number = self.trap_site(TrapKind.BAD_CONVERSION_TO_INTEGER)
        out_of_range = self.trap_site(TrapKind.INTEGER_OVERFLOW)
        self.do(f"br i1 {unordered}, label %{not_a_number}, label %{out_of_range}")
        self.begin_block(proceed)
        text = f"{row.instruction} {ir} {operand} to {IR_TYPES[row.result]}"
        self.push(self.derive(text, operand), row.result)


def _hexadecimal(value: float) -> str:
    """A double the way LLVM's text wants exact floats, whatever their type."""
    return f"0x{int.from_bytes(pack('<d', value), 'little'):016X}"


_DIVISIONS: Final = {
    BY_MNEMONIC[f"{n}.{mnemonic}"].opcode: instruction
    for n in ("i32", "i64")
    for mnemonic, instruction in (("div_s", "sdiv"), ("div_u", "udiv"), ("rem_s", "srem"), ("rem_u", "urem"))
}

_SIGN_EXTENSIONS: Final = {
    BY_MNEMONIC["i32.extend8_s"].opcode: (I32, "i8"),
    BY_MNEMONIC["i32.extend16_s"].opcode: (I32, "i16"),
    BY_MNEMONIC["i64.extend8_s"].opcode: (I64, "i8"),
    BY_MNEMONIC["i64.extend16_s"].opcode: (I64, "i16"),
    BY_MNEMONIC["i64.extend32_s"].opcode: (I64, "i32"),
}

_MINIMA: Final = {
    BY_MNEMONIC["f32.min"].opcode: (F32, "minimum"),
    BY_MNEMONIC["f32.max"].opcode: (F32, "maximum"),
    BY_MNEMONIC["f64.min"].opcode: (F64, "minimum"),
    BY_MNEMONIC["f64.max"].opcode: (F64, "maximum"),
}

EMITTERS: Final[dict[int, Callable[[NumericEmitters, int], None]]] = {
    Opcode.NOP: NumericEmitters.nop,
    Opcode.I64_ADD128: NumericEmitters.add128,
    Opcode.I64_SUB128: NumericEmitters.add128,
    Opcode.I64_MUL_WIDE_S: NumericEmitters.multiply_wide,
    Opcode.I64_MUL_WIDE_U: NumericEmitters.multiply_wide,
    Opcode.DROP: NumericEmitters.drop,
    Opcode.SELECT: NumericEmitters.select,
    Opcode.SELECT_TYPED: NumericEmitters.select,
    Opcode.LOCAL_GET: NumericEmitters.local_get,
    Opcode.LOCAL_SET: NumericEmitters.local_set,
    Opcode.LOCAL_TEE: NumericEmitters.local_tee,
    Opcode.I32_CONST: NumericEmitters.i32_const,
    Opcode.I64_CONST: NumericEmitters.i64_const,
    Opcode.F32_CONST: NumericEmitters.f32_const,
    Opcode.F64_CONST: NumericEmitters.f64_const,
    BY_MNEMONIC["i32.eqz"].opcode: NumericEmitters.eqz,
    BY_MNEMONIC["i64.eqz"].opcode: NumericEmitters.eqz,
    **dict.fromkeys(SHIFTS, NumericEmitters.shift),
    **dict.fromkeys(_DIVISIONS, NumericEmitters.divide),
    **dict.fromkeys(_SIGN_EXTENSIONS, NumericEmitters.sign_extend),
    **dict.fromkeys(_MINIMA, NumericEmitters.minimum_or_maximum),
    **dict.fromkeys(TRUNCATIONS, NumericEmitters.truncate),
}
