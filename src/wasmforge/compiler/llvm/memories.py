"""Emitters of loads, stores and the bulk instructions of memories, with their bounds checks. `translate.py` joins
`EMITTERS` with those of the other rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.environ import (
    VMDataSegment,
    VMMemoryDefinition,
)
from wasmforge.compiler.llvm.builder import FunctionBuilder
from wasmforge.compiler.llvm.context import IR_TYPES
from wasmforge.compiler.llvm.rows import LOADS, STORES
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.types import I32

__all__ = ["EMITTERS", "MemoryEmitters"]


class MemoryEmitters(FunctionBuilder):
    def address(self, memory: int, index: str, offset: int, size: int) -> str:
        """The host address of an access, checked unless the guard region does it.

        With guard pages, index + offset + size reaches at most 4 GiB + guard behind the base, all of which is
        reserved: an offset within the guard needs no check. The runtime keeps the other half of this bargain
        (`runtime/vm/memory.py` reserves `memory_reservation` + `memory_guard_size` bytes).
        """
        self.memories_used.add(memory)
        if not self.guarded or offset + size > self.guard:
            length = self.load_field("i64", f"%d{memory}", VMMemoryDefinition.CURRENT_LENGTH)
            wide = self.widen(index)
            last = self.derive(f"add i64 {wide}, {offset + size}", wide)
            self.trap_if(self.derive(f"icmp ugt i64 {last}, {length}", last), TrapKind.MEMORY_OUT_OF_BOUNDS)
        if index[0] != "%":
            return self.field(f"%m{memory}", (int(index) & 0xFFFF_FFFF) + offset)
        key = (memory, index)
        base = self.addresses.get(key)
        if base is None:
            wide = self.widen(index)
            base = self.derive(f"getelementptr i8, ptr %m{memory}, i64 {wide}", wide)
            self.addresses[key] = base
        return self.field(base, offset) if offset else base

    def load(self, opcode: int) -> None:
        t, memory_type, extension, size = LOADS[opcode]
        memory, offset = self.memory_argument()
        address = self.address(memory, self.pop(), offset, size)
        location = self.here(1 + TrapKind.MEMORY_OUT_OF_BOUNDS)
        value = self.emit(f"load volatile {memory_type}, ptr {address}, align 1{location}")
        if extension:
            value = self.emit(f"{extension} {memory_type} {value} to {IR_TYPES[t]}{location}")
        self.fresh[value] = self.position()
        self.push(value, t)

    def store(self, opcode: int) -> None:
        t, memory_type, extension, size = STORES[opcode]
        memory, offset = self.memory_argument()
        value = self.pop()
        address = self.address(memory, self.pop(), offset, size)
        location = self.here(1 + TrapKind.MEMORY_OUT_OF_BOUNDS)
        if extension:
            value = self.derive(f"trunc {IR_TYPES[t]} {value} to {memory_type}", value)
        self.do(f"store volatile {memory_type} {value}, ptr {address}, align 1{location}")

    def memory_length(self, memory: int) -> str:
        self.memories_used.add(memory)
        return self.load_field("i64", f"%d{memory}", VMMemoryDefinition.CURRENT_LENGTH)

    def memory_size(self, _: int) -> None:
        length = self.memory_length(self.unsigned())
        pages = self.emit(f"lshr i64 {length}, 16")
        self.push(self.emit(f"trunc i64 {pages} to i32"), I32)

    def memory_grow(self, _: int) -> None:
        memory = self.unsigned()
        delta = self.widen(self.pop())
        result = self.builtin("memory_grow", f"i64 {delta}, i32 {memory}", "i64")
        self.push(self.emit(f"trunc i64 {result} to i32"), I32)

    def memory_copy(self, _: int) -> None:
        target_memory = self.unsigned()
        source_memory = self.unsigned()
        count, source, target = (self.widen(self.pop()) for _ in range(3))
        self.check_range(source, count, self.memory_length(source_memory), TrapKind.MEMORY_OUT_OF_BOUNDS)
        self.check_range(target, count, self.memory_length(target_memory), TrapKind.MEMORY_OUT_OF_BOUNDS)
        to = self.emit(f"getelementptr i8, ptr %m{target_memory}, i64 {target}")
        origin = self.emit(f"getelementptr i8, ptr %m{source_memory}, i64 {source}")
        self.builtin("memory_move", f"ptr {to}, ptr {origin}, i64 {count}")

    def memory_fill(self, _: int) -> None:
        memory = self.unsigned()
        count = self.widen(self.pop())
        byte = self.pop()
        target = self.widen(self.pop())
        self.check_range(target, count, self.memory_length(memory), TrapKind.MEMORY_OUT_OF_BOUNDS)
        to = self.emit(f"getelementptr i8, ptr %m{memory}, i64 {target}")
        self.builtin("memory_set", f"ptr {to}, i32 {byte}, i64 {count}")

    def memory_init(self, _: int) -> None:
        segment = self.offsets.data_segment(self.unsigned())
        memory = self.unsigned()
        count, source, target = (self.widen(self.pop()) for _ in range(3))
        length = self.widen(self.load_field("i32", "%vm", segment + VMDataSegment.LENGTH))
        self.check_range(source, count, length, TrapKind.MEMORY_OUT_OF_BOUNDS)
        self.check_range(target, count, self.memory_length(memory), TrapKind.MEMORY_OUT_OF_BOUNDS)
        data = self.load_field("ptr", "%vm", segment + VMDataSegment.BASE)
        to = self.emit(f"getelementptr i8, ptr %m{memory}, i64 {target}")
        origin = self.emit(f"getelementptr i8, ptr {data}, i64 {source}")
        self.builtin("memory_move", f"ptr {to}, ptr {origin}, i64 {count}")

    def data_drop(self, _: int) -> None:
        segment = self.offsets.data_segment(self.unsigned())
        address = self.field("%vm", segment + VMDataSegment.LENGTH)
        self.do(f"store volatile i64 0, ptr {address}")


EMITTERS: Final[dict[int, Callable[[MemoryEmitters, int], None]]] = {
    Opcode.MEMORY_SIZE: MemoryEmitters.memory_size,
    Opcode.MEMORY_GROW: MemoryEmitters.memory_grow,
    Opcode.MEMORY_INIT: MemoryEmitters.memory_init,
    Opcode.DATA_DROP: MemoryEmitters.data_drop,
    Opcode.MEMORY_COPY: MemoryEmitters.memory_copy,
    Opcode.MEMORY_FILL: MemoryEmitters.memory_fill,
    **dict.fromkeys(LOADS, MemoryEmitters.load),
    **dict.fromkeys(STORES, MemoryEmitters.store),
}
