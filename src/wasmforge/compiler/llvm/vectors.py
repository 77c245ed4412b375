"""Emitters of the vector instructions. `translate.py` joins `EMITTERS` with those of the other rooms; what an ordinary
instruction becomes stands in `vector_rows`.

A v128 travels as `<2 x i64>`, on the operand stack, in locals, phis and calls. A result of another type is cast to that
at once, and the value before the cast is remembered, so that the next instruction of the same shape takes it as it is
and LLVM sees no cast at all. Floats are opaque to LLVM (see `translate`): what was not computed as floats of some shape
goes through a fence before it counts as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.llvm.context import VECTOR
from wasmforge.compiler.llvm.memories import MemoryEmitters
from wasmforge.compiler.llvm.vector_rows import FENCES, rows
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_MNEMONIC, BY_OPCODE, Immediate, Opcode
from wasmforge.syntax.types import F32, F64, I32, I64, V128, ValType

__all__ = ["EMITTERS", "VectorEmitters"]

_SCALARS: Final[dict[str, ValType]] = {"i32": I32, "i64": I64, "float": F32, "double": F64}


class VectorEmitters(MemoryEmitters):
    # --- Operands ---------------------------------------------------------------------------------------------

    def pop_as(self, ir: str) -> str:
        """Pops a value as one of LLVM's types: of a scalar its own, of a vector any."""
        if ir in _SCALARS:
            return self.pop_opaque()
        return self.shaped(self.pop(), ir)

    def shaped(self, value: str, ir: str) -> str:
        """A v128 as a vector of a type."""
        if ir == VECTOR:
            return value
        key = (value, ir)
        found = self.casts.get(key)
        if found is not None:
            return found
        origin = self.origins.get(value)
        if origin is not None and origin[1] == ir:
            return origin[0]
        found = self.derive(f"bitcast {VECTOR} {value} to {ir}", value)
        fence = FENCES.get(ir)
        # What was just loaded, or came as a parameter, is unknown as it is, and may be folded into what consumes it.
        if fence is not None and value not in self.loaded and value[:2] != "%p" and not self.is_float(origin):
            found = self.emit(fence.format(found))
        self.casts[key] = found
        return found

    def is_float(self, origin: tuple[str, str] | None) -> bool:
        """Whether a value was computed as floats, of any shape, and so is opaque already."""
        return origin is not None and origin[1] in FENCES

    def keep_whole(self, count: int) -> None:
        """Keeps LLVM from folding a load of 16 bytes into an instruction that reads 8 of them, as it does for volatile
        loads too: what lies in the upper half must trap (section 4.6.8). A fence costs no instruction."""
        for k in range(len(self.stack) - count, len(self.stack)):
            value = self.stack[k]
            if value in self.fresh:
                value = self.derive(f"bitcast {VECTOR} {value} to <2 x double>", value)
                value = self.emit(FENCES["<2 x double>"].format(value))
                self.stack[k] = self.emit(f"bitcast <2 x double> {value} to {VECTOR}")

    def push_vector(self, value: str, ir: str) -> None:
        if ir != VECTOR:
            cast = self.derive(f"bitcast {ir} {value} to {VECTOR}", value)
            self.origins[cast] = (value, ir)
            value = cast
        self.push(value, V128)

    # --- Instructions -----------------------------------------------------------------------------------------

    def row(self, opcode: int) -> None:
        operands, result, lines, uses = rows(self.context.tunables.relaxed_simd_deterministic)[opcode]
        lane = 0
        if opcode in _WITH_LANE:
            lane = self.code[self.pc]
            self.pc += 1
        if opcode in _OF_LOW_HALVES:
            self.keep_whole(len(operands))
        values = [self.pop_as(ir) for ir in reversed(operands)]
        values.reverse()
        for line, used in zip(lines, uses, strict=True):
            # A line that folds a load must have that load's position, not another operand's.
            values.append(self.derive(line.format(*values, lane=lane), *[values[k] for k in used]))
        value = values[-1]
        if result == "i1":
            self.push_condition(value)
        elif result in _SCALARS:
            self.push(value, _SCALARS[result])
        else:
            self.push_vector(value, result)

    def literal(self, _: int) -> None:
        low, high = (int.from_bytes(self.code[self.pc + k : self.pc + k + 8], "little") for k in (0, 8))
        self.pc += 16
        self.push(f"<i64 {low}, i64 {high}>", V128)

    def shuffle(self, _: int) -> None:
        lanes = self.code[self.pc : self.pc + 16]
        self.pc += 16
        second = self.pop_as(_BYTES)
        first = self.pop_as(_BYTES)
        indices = ", ".join(f"i32 {lane}" for lane in lanes)
        text = f"shufflevector {_BYTES} {first}, {_BYTES} {second}, <16 x i32> <{indices}>"
        self.push_vector(self.derive(text, first, second), _BYTES)

    # --- Memory -----------------------------------------------------------------------------------------------

    def load_from(self, ir: str, size: int, memory: int, offset: int) -> str:
        """A load at the address on the stack."""
        address = self.address(memory, self.pop(), offset, size)
        location = self.here(1 + TrapKind.MEMORY_OUT_OF_BOUNDS)
        value = self.emit(f"load volatile {ir}, ptr {address}, align 1{location}")
        self.fresh[value] = self.position()
        return value

    def load_vector(self, opcode: int) -> None:
        memory, offset = self.memory_argument()
        value = self.load_from(VECTOR, 16, memory, offset)
        self.loaded.add(value)
        self.push(value, V128)

    def load_extended(self, opcode: int) -> None:
        half, extension, ir = _EXTENDING[opcode]
        memory, offset = self.memory_argument()
        # As one number: LLVM might load a vector of a type that no register has in pieces.
        value = self.load_from("i64", 8, memory, offset)
        value = self.derive(f"bitcast i64 {value} to {half}", value)
        self.push_vector(self.derive(f"{extension} {half} {value} to {ir}", value), ir)

    def load_splat(self, opcode: int) -> None:
        lanes, lane, ir = _LANES[BY_OPCODE[opcode].access]
        memory, offset = self.memory_argument()
        value = self.load_from(lane, BY_OPCODE[opcode].access, memory, offset)
        value = self.derive(f"insertelement {ir} poison, {lane} {value}, i64 0", value)
        value = self.derive(f"shufflevector {ir} {value}, {ir} poison, <{lanes} x i32> zeroinitializer", value)
        self.push_vector(value, ir)
        self.loaded.add(self.stack[-1])

    def load_zero(self, opcode: int) -> None:
        _, lane, ir = _LANES[BY_OPCODE[opcode].access]
        memory, offset = self.memory_argument()
        value = self.load_from(lane, BY_OPCODE[opcode].access, memory, offset)
        self.push_vector(self.derive(f"insertelement {ir} zeroinitializer, {lane} {value}, i64 0", value), ir)

    def load_lane(self, opcode: int) -> None:
        _, lane, ir = _LANES[BY_OPCODE[opcode].access]
        memory, offset = self.memory_argument()
        index = self.code[self.pc]
        self.pc += 1
        vector = self.pop_as(ir)
        value = self.load_from(lane, BY_OPCODE[opcode].access, memory, offset)
        self.push_vector(self.derive(f"insertelement {ir} {vector}, {lane} {value}, i64 {index}", vector, value), ir)

    def store_at(self, ir: str, value: str, size: int, memory: int, offset: int) -> None:
        address = self.address(memory, self.pop(), offset, size)
        location = self.here(1 + TrapKind.MEMORY_OUT_OF_BOUNDS)
        self.do(f"store volatile {ir} {value}, ptr {address}, align 1{location}")

    def store_vector(self, _: int) -> None:
        memory, offset = self.memory_argument()
        self.store_at(VECTOR, self.pop(), 16, memory, offset)

    def store_lane(self, opcode: int) -> None:
        _, lane, ir = _LANES[BY_OPCODE[opcode].access]
        memory, offset = self.memory_argument()
        index = self.code[self.pc]
        self.pc += 1
        vector = self.pop_as(ir)
        value = self.derive(f"extractelement {ir} {vector}, i64 {index}", vector)
        self.store_at(lane, value, BY_OPCODE[opcode].access, memory, offset)


_BYTES: Final = "<16 x i8>"

_LANES: Final = {
    1: (16, "i8", "<16 x i8>"),
    2: (8, "i16", "<8 x i16>"),
    4: (4, "i32", "<4 x i32>"),
    8: (2, "i64", "<2 x i64>"),
}
"""By size: lanes, the type of one, and of the vector."""

_EXTENDING: Final = {
    BY_MNEMONIC[f"v128.load{bits}x{lanes}_{sign}"].opcode: (
        f"<{lanes} x i{bits}>",
        "sext" if sign == "s" else "zext",
        f"<{lanes} x i{2 * bits}>",
    )
    for bits, lanes in ((8, 8), (16, 4), (32, 2))
    for sign in "su"
}

_WITH_LANE: Final = frozenset(opcode for opcode, row in BY_OPCODE.items() if row.immediates == (Immediate.LANE,))

_OF_LOW_HALVES: Final = frozenset(
    row.opcode for row in BY_MNEMONIC.values() if row.opcode >> 12 == 0xFD and "_low_" in row.mnemonic
)
"""Instructions that read the low halves of their operands only."""

_Emitter = Callable[[VectorEmitters, int], None]

EMITTERS: Final[dict[int, _Emitter]] = {
    **dict.fromkeys(rows(False), VectorEmitters.row),
    Opcode.V128_CONST: VectorEmitters.literal,
    Opcode.I8X16_SHUFFLE: VectorEmitters.shuffle,
    BY_MNEMONIC["v128.load"].opcode: VectorEmitters.load_vector,
    BY_MNEMONIC["v128.store"].opcode: VectorEmitters.store_vector,
    **dict.fromkeys(_EXTENDING, VectorEmitters.load_extended),
    **{BY_MNEMONIC[f"v128.load{n}_splat"].opcode: VectorEmitters.load_splat for n in (8, 16, 32, 64)},
    **{BY_MNEMONIC[f"v128.load{n}_zero"].opcode: VectorEmitters.load_zero for n in (32, 64)},
    **{BY_MNEMONIC[f"v128.load{n}_lane"].opcode: VectorEmitters.load_lane for n in (8, 16, 32, 64)},
    **{BY_MNEMONIC[f"v128.store{n}_lane"].opcode: VectorEmitters.store_lane for n in (8, 16, 32, 64)},
}
