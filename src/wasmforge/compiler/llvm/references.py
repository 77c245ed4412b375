"""Emitters of globals, references and tables. `translate.py` joins `EMITTERS` with those of the other rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.environ import (
    VMTableDefinition,
)
from wasmforge.compiler.llvm.builder import FunctionBuilder
from wasmforge.compiler.llvm.context import IR_TYPES, alignment
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.types import EXTERNREF, FUNCREF, ValType

__all__ = ["EMITTERS", "ReferenceEmitters"]


class ReferenceEmitters(FunctionBuilder):
    # --- Globals and references ---------------------------------------------------------------------------------

    def global_cell(self) -> tuple[str, str, ValType]:
        """Address of a global's cell, its type in LLVM and its value type."""
        x = self.unsigned()
        imported = self.context.imported_globals
        t = ValType(self.context.globals[x])
        if x < imported:
            address = self.load_field("ptr", "%vm", self.offsets.imported_global(x), constant=True)
        else:
            address = self.field("%vm", self.offsets.defined_global(x - imported))
        return address, IR_TYPES[t], t

    def global_get(self, _: int) -> None:
        address, ir, t = self.global_cell()
        self.push(self.emit(f"load {ir}, ptr {address}{alignment(ir)}"), t)

    def global_set(self, _: int) -> None:
        address, ir, _t = self.global_cell()
        # Volatile: a trap between two assignments must find the first one done.
        self.do(f"store volatile {ir} {self.pop()}, ptr {address}{alignment(ir)}")

    def ref_null(self, _: int) -> None:
        t = self.heap_type()
        self.push("null" if t == FUNCREF else "0", t)

    def ref_is_null(self, _: int) -> None:
        t = self.types[-1]
        self.push_condition(self.is_null(self.pop(), t))

    def ref_as_non_null(self, _: int) -> None:
        self.trap_if(self.is_null(self.stack[-1], self.types[-1]), TrapKind.NULL_REFERENCE)

    def ref_func(self, _: int) -> None:
        x = self.unsigned()
        self.push(self.field("%vm", self.offsets.func_ref(self.context.func_refs[x])), FUNCREF)

    # --- Tables -------------------------------------------------------------------------------------------------

    def table_definition(self, x: int) -> str:
        return self.load_field("ptr", "%vm", self.offsets.table(x), constant=True)

    def element_address(self, definition: str, wide: str) -> str:
        """The address of a table element, after the bounds check. `wide` is its index as an i64."""
        length = self.load_field("i64", definition, VMTableDefinition.CURRENT_ELEMENTS)
        self.trap_if(self.derive(f"icmp uge i64 {wide}, {length}", wide), TrapKind.TABLE_OUT_OF_BOUNDS)
        base = self.load_field("ptr", definition, VMTableDefinition.BASE)
        scaled = self.emit(f"shl i64 {wide}, 3")
        return self.emit(f"getelementptr i8, ptr {base}, i64 {scaled}")

    def fixed_element_address(self, x: int, elements: int, wide: str) -> str:
        """The same for a table that never changes (`fixed_tables.py`)."""
        self.trap_if(self.derive(f"icmp uge i64 {wide}, {elements}", wide), TrapKind.TABLE_OUT_OF_BOUNDS)
        base = self.load_field("ptr", self.table_definition(x), VMTableDefinition.BASE, constant=True)
        scaled = self.emit(f"shl i64 {wide}, 3")
        return self.emit(f"getelementptr i8, ptr {base}, i64 {scaled}")

    def table_get(self, _: int) -> None:
        x = self.unsigned()
        t = ValType(self.context.tables[x])
        address = self.element_address(self.table_definition(x), self.index(self.context.wide_tables[x]))
        self.push(self.emit(f"load {IR_TYPES[t]}, ptr {address}"), t)

    def table_set(self, _: int) -> None:
        x = self.unsigned()
        t = ValType(self.context.tables[x])
        value = self.pop()
        address = self.element_address(self.table_definition(x), self.index(self.context.wide_tables[x]))
        if t == EXTERNREF:
            self.do(f"store volatile i64 {self.widen(value)}, ptr {address}")
        else:
            self.do(f"store volatile ptr {value}, ptr {address}")

    def element_word(self, value: str, x: int) -> str:
        """A reference as the i64 that table builtins take."""
        if self.context.tables[x] == EXTERNREF:
            return self.widen(value)
        return self.emit(f"ptrtoint ptr {value} to i64")

    def table_size(self, _: int) -> None:
        x = self.unsigned()
        length = self.load_field("i64", self.table_definition(x), VMTableDefinition.CURRENT_ELEMENTS)
        self.push_index(length, self.context.wide_tables[x])

    def table_grow(self, _: int) -> None:
        x = self.unsigned()
        wide = self.context.wide_tables[x]
        delta = self.index(wide)
        word = self.element_word(self.pop(), x)
        self.push_index(self.builtin("table_grow", f"i32 {x}, i64 {delta}, i64 {word}", "i64"), wide)

    def table_fill(self, _: int) -> None:
        x = self.unsigned()
        wide = self.context.wide_tables[x]
        count = self.index(wide)
        word = self.element_word(self.pop(), x)
        start = self.index(wide)
        self.builtin("table_fill", f"i32 {x}, i64 {start}, i64 {word}, i64 {count}")

    def table_copy(self, _: int) -> None:
        x = self.unsigned()
        y = self.unsigned()
        to_wide, from_wide = self.context.wide_tables[x], self.context.wide_tables[y]
        target_table, source_table = self.table_definition(x), self.table_definition(y)
        count = self.index(to_wide and from_wide)
        source = self.index(from_wide)
        target = self.index(to_wide)
        ends = []
        for definition, start, wide in ((source_table, source, from_wide), (target_table, target, to_wide)):
            length = self.load_field("i64", definition, VMTableDefinition.CURRENT_ELEMENTS)
            self.check_range(start, count, length, TrapKind.TABLE_OUT_OF_BOUNDS, wide)
        for definition, start in ((target_table, target), (source_table, source)):
            base = self.load_field("ptr", definition, VMTableDefinition.BASE)
            ends.append(self.emit(f"getelementptr i64, ptr {base}, i64 {start}"))
        size = self.emit(f"shl i64 {count}, 3")
        self.builtin("memory_move", f"ptr {ends[0]}, ptr {ends[1]}, i64 {size}")

    def table_init(self, _: int) -> None:
        segment = self.unsigned()
        x = self.unsigned()
        count = self.index(False)
        source = self.index(False)
        target = self.index(self.context.wide_tables[x])
        self.builtin("table_init", f"i32 {x}, i32 {segment}, i64 {target}, i64 {source}, i64 {count}")

    def elem_drop(self, _: int) -> None:
        self.builtin("elem_drop", f"i32 {self.unsigned()}")


EMITTERS: Final[dict[int, Callable[[ReferenceEmitters, int], None]]] = {
    Opcode.GLOBAL_GET: ReferenceEmitters.global_get,
    Opcode.GLOBAL_SET: ReferenceEmitters.global_set,
    Opcode.TABLE_GET: ReferenceEmitters.table_get,
    Opcode.TABLE_SET: ReferenceEmitters.table_set,
    Opcode.REF_NULL: ReferenceEmitters.ref_null,
    Opcode.REF_IS_NULL: ReferenceEmitters.ref_is_null,
    Opcode.REF_FUNC: ReferenceEmitters.ref_func,
    Opcode.REF_AS_NON_NULL: ReferenceEmitters.ref_as_non_null,
    Opcode.TABLE_INIT: ReferenceEmitters.table_init,
    Opcode.ELEM_DROP: ReferenceEmitters.elem_drop,
    Opcode.TABLE_COPY: ReferenceEmitters.table_copy,
    Opcode.TABLE_GROW: ReferenceEmitters.table_grow,
    Opcode.TABLE_SIZE: ReferenceEmitters.table_size,
    Opcode.TABLE_FILL: ReferenceEmitters.table_fill,
}
