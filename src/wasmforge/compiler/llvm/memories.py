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
from wasmforge.compiler.memory_plan import UNREACHABLE_SIZE
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import Opcode

__all__ = ["EMITTERS", "MemoryEmitters"]


class MemoryEmitters(FunctionBuilder):
    def address(self, memory: int, index: str, offset: int, size: int) -> str:
        """The host address of the `size` bytes at `index + offset`, after the checks that `memory_plan` explains.

        `index` is an operand of the type of the memory's addresses, popped by the caller.
        """
        self.memories_used.add(memory)
        plan = self.context.memories[memory]
        end = offset + size
        if index[0] != "%":
            # Constants are signed; the address is what their bits say.
            known = int(index) & (0xFFFF_FFFF_FFFF_FFFF if plan.is_64 else 0xFFFF_FFFF)
            if plan.is_64 or end > plan.guard:
                self.check_constant(memory, known + end)
            # An address beyond every memory is never computed: the check before has trapped.
            return self.field(f"%m{memory}", (known + offset) % UNREACHABLE_SIZE)
        if end > plan.guard:
            self.check_end(memory, index, end)
        elif plan.is_64:
            length = self.memory_length(memory)
            self.trap_if(self.derive(f"icmp uge i64 {index}, {length}", index), TrapKind.MEMORY_OUT_OF_BOUNDS)
        key = (memory, index)
        base = self.addresses.get(key)
        if base is None:
            wide = index if plan.is_64 else self.widen(index)
            base = self.derive(f"getelementptr i8, ptr %m{memory}, i64 {wide}", wide)
            self.addresses[key] = base
        return self.field(base, offset % UNREACHABLE_SIZE) if offset else base

    def check_constant(self, memory: int, end: int) -> None:
        """Traps unless byte `end - 1` exists."""
        if end <= self.context.memories[memory].minimum:
            return
        condition = "true"
        if end <= UNREACHABLE_SIZE:
            condition = self.emit(f"icmp ult i64 {self.memory_length(memory)}, {end}")
        self.trap_if(condition, TrapKind.MEMORY_OUT_OF_BOUNDS)

    def check_end(self, memory: int, index: str, end: int) -> None:
        """Traps unless `index + end`, of which nothing is known, is within the length."""
        plan = self.context.memories[memory]
        if end > UNREACHABLE_SIZE:
            self.trap_if("true", TrapKind.MEMORY_OUT_OF_BOUNDS)
            return
        length = self.memory_length(memory)
        wide = index if plan.is_64 else self.widen(index)
        if end <= plan.minimum:
            # The length is at least `end`: the difference cannot wrap.
            last = self.emit(f"sub i64 {length}, {end}")
            condition = self.derive(f"icmp ugt i64 {wide}, {last}", wide)
        else:
            reached = self.derive(f"add i64 {wide}, {end}", wide)
            condition = self.derive(f"icmp ugt i64 {reached}, {length}", reached)
            if plan.is_64:
                wrapped = self.derive(f"icmp ult i64 {reached}, {end}", reached)
                condition = self.derive(f"or i1 {wrapped}, {condition}", wrapped, condition)
        self.trap_if(condition, TrapKind.MEMORY_OUT_OF_BOUNDS)

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
        if self.context.memories[memory].shared:
            # Another thread may have grown it: a loop that waits for that must look each time.
            address = self.field(f"%d{memory}", VMMemoryDefinition.CURRENT_LENGTH)
            return self.emit(f"load volatile i64, ptr {address}")
        return self.load_field("i64", f"%d{memory}", VMMemoryDefinition.CURRENT_LENGTH)

    def memory_size(self, _: int) -> None:
        memory = self.unsigned()
        plan = self.context.memories[memory]
        length = self.memory_length(memory)
        if plan.page_size_log2:
            length = self.emit(f"lshr i64 {length}, {plan.page_size_log2}")
        self.push_index(length, plan.is_64)

    def memory_grow(self, _: int) -> None:
        memory = self.unsigned()
        wide = self.context.memories[memory].is_64
        delta = self.index(wide)
        self.push_index(self.builtin("memory_grow", f"i64 {delta}, i32 {memory}", "i64"), wide)

    def check_bytes(self, memory: int, start: str, count: str) -> None:
        """Traps unless `count` bytes from `start` on, both i64, are in the memory."""
        length = self.memory_length(memory)
        wide = self.context.memories[memory].is_64
        self.check_range(start, count, length, TrapKind.MEMORY_OUT_OF_BOUNDS, wide)

    def memory_copy(self, _: int) -> None:
        target_memory = self.unsigned()
        source_memory = self.unsigned()
        to_wide = self.context.memories[target_memory].is_64
        from_wide = self.context.memories[source_memory].is_64
        count = self.index(to_wide and from_wide)
        source = self.index(from_wide)
        target = self.index(to_wide)
        self.check_bytes(source_memory, source, count)
        self.check_bytes(target_memory, target, count)
        to = self.emit(f"getelementptr i8, ptr %m{target_memory}, i64 {target}")
        origin = self.emit(f"getelementptr i8, ptr %m{source_memory}, i64 {source}")
        self.builtin("memory_move", f"ptr {to}, ptr {origin}, i64 {count}")

    def memory_fill(self, _: int) -> None:
        memory = self.unsigned()
        wide = self.context.memories[memory].is_64
        count = self.index(wide)
        byte = self.pop()
        target = self.index(wide)
        self.check_bytes(memory, target, count)
        to = self.emit(f"getelementptr i8, ptr %m{memory}, i64 {target}")
        self.builtin("memory_set", f"ptr {to}, i32 {byte}, i64 {count}")

    def memory_init(self, _: int) -> None:
        segment = self.offsets.data_segment(self.unsigned())
        memory = self.unsigned()
        count = self.index(False)
        source = self.index(False)
        target = self.index(self.context.memories[memory].is_64)
        length = self.widen(self.load_field("i32", "%vm", segment + VMDataSegment.LENGTH))
        self.check_range(source, count, length, TrapKind.MEMORY_OUT_OF_BOUNDS)
        self.check_bytes(memory, target, count)
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
