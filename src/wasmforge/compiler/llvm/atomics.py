"""Emitters of atomic instructions (threads proposal). `translate.py` joins `EMITTERS` with those of the other rooms.

All are sequentially consistent. An access checks the alignment of its effective address before its bounds, and traps.
Volatile, like all accesses to guest memory: LLVM must neither drop nor merge what may trap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.llvm.context import IR_TYPES
from wasmforge.compiler.llvm.memories import MemoryEmitters
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.atomics import ATOMIC_INSTRUCTIONS, FENCE, operation_of
from wasmforge.syntax.types import I32

__all__ = ["EMITTERS", "AtomicEmitters"]

_ACCESSES: Final = {
    0xFE000 | number: operation_of(number) for number, _, _, _, size in ATOMIC_INSTRUCTIONS if number > FENCE
}
_WAITS: Final = {
    0xFE000: ("memory_atomic_notify", 0),
    0xFE001: ("memory_atomic_wait32", 32),
    0xFE002: ("memory_atomic_wait64", 64),
}
"""The builtin, and the bits of the expected value."""


class AtomicEmitters(MemoryEmitters):
    def atomic_access(self, opcode: int) -> None:
        operation, t, size = _ACCESSES[opcode]
        memory, offset = self.memory_argument()
        count = {"load": 0, "cmpxchg": 2}.get(operation, 1)
        bits = f"i{8 * size}"
        narrow = bits != IR_TYPES[t]
        operands = self.pop_values(count)
        if narrow:
            operands = [self.derive(f"trunc {IR_TYPES[t]} {o} to {bits}", o) for o in operands]
        index = self.pop()
        self.check_alignment(memory, index, offset, size)
        place = f"ptr {self.address(memory, index, offset, size)}"
        location = self.here(1 + TrapKind.MEMORY_OUT_OF_BOUNDS)
        if operation == "store":
            self.do(f"store atomic volatile {bits} {operands[0]}, {place} seq_cst, align {size}{location}")
            return
        if operation == "load":
            value = self.emit(f"load atomic volatile {bits}, {place} seq_cst, align {size}{location}")
        elif operation == "cmpxchg":
            expected, new = operands
            exchange = f"cmpxchg volatile {place}, {bits} {expected}, {bits} {new} seq_cst seq_cst, align {size}"
            pair = self.emit(exchange + location)
            value = self.emit(f"extractvalue {{ {bits}, i1 }} {pair}, 0")
        else:
            value = self.emit(
                f"atomicrmw volatile {operation} {place}, {bits} {operands[0]} seq_cst, align {size}{location}"
            )
        if narrow:
            value = self.emit(f"zext {bits} {value} to {IR_TYPES[t]}{location}")
        self.fresh[value] = self.position()
        self.push(value, t)

    def check_alignment(self, memory: int, index: str, offset: int, size: int) -> None:
        """Traps unless `index + offset` is a multiple of the access's size."""
        if size == 1:
            return
        mask = size - 1
        if index[0] != "%":
            if (int(index) + offset) & mask:
                self.trap_if("true", TrapKind.HEAP_MISALIGNED)
            return
        t = "i64" if self.context.memories[memory].is_64 else "i32"
        if offset & mask:
            index = self.derive(f"add {t} {index}, {offset & mask}", index)
        low = self.derive(f"and {t} {index}, {mask}", index)
        self.trap_if(self.derive(f"icmp ne {t} {low}, 0", low), TrapKind.HEAP_MISALIGNED)

    def fence_(self, _: int) -> None:
        self.pc += 1
        self.do("fence seq_cst")

    def wait(self, opcode: int) -> None:
        """notify and wait are builtins, which check alignment and bounds themselves."""
        name, bits = _WAITS[opcode]
        memory, offset = self.memory_argument()
        if bits:
            expected, timeout = self.pop_values(2)
            operands = f"i{bits} {expected}, i64 {timeout}"
        else:
            operands = f"i32 {self.pop()}"
        index = self.pop()
        address = index if self.context.memories[memory].is_64 else self.widen(index)
        # Offsets are unsigned, LLVM's literals of 64 bits are taken as their bits.
        value = self.builtin(name, f"i64 {address}, {operands}, i64 {offset}, i32 {memory}", "i64")
        self.push(self.emit(f"trunc i64 {value} to i32"), I32)


EMITTERS: Final[dict[int, Callable[[AtomicEmitters, int], None]]] = {
    **dict.fromkeys(_ACCESSES, AtomicEmitters.atomic_access),
    **dict.fromkeys(_WAITS, AtomicEmitters.wait),
    0xFE000 | FENCE: AtomicEmitters.fence_,
}
