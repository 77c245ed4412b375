"""Emitters of direct and indirect calls: the caller's side of the calling convention (`compiler/environ.py`).
`translate.py` joins `EMITTERS` with those of the other rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.environ import (
    VMContextOffsets,
    VMFuncRef,
    VMFunctionImport,
)
from wasmforge.compiler.llvm.context import alignment
from wasmforge.compiler.llvm.references import ReferenceEmitters
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.types import FuncType

__all__ = ["EMITTERS", "CallEmitters"]


class CallEmitters(ReferenceEmitters):
    def call(self, _: int) -> None:
        x = self.unsigned()
        ft = self.context.types[self.context.functions[x]]
        if x >= self.context.imported_functions:
            self.emit_call(f"@f{x}", "ptr swiftself %vm", ft)
            return
        record = self.offsets.imported_function(x)
        function = self.load_field("ptr", "%vm", record + VMFunctionImport.WASM_CALL, constant=True)
        callee = self.load_field("ptr", "%vm", record + VMFunctionImport.VMCTX, constant=True)
        self.emit_call(function, f"ptr swiftself {callee}, ptr nest %vm", ft)

    def call_indirect(self, _: int) -> None:
        type_index = self.unsigned()
        x = self.unsigned()
        address = self.element_address(self.table_definition(x), self.index(self.context.wide_tables[x]))
        reference = self.emit(f"load ptr, ptr {address}")
        self.trap_if(self.emit(f"icmp eq ptr {reference}, null"), TrapKind.INDIRECT_CALL_TO_NULL)
        ids = self.load_field("ptr", "%vm", VMContextOffsets.TYPE_IDS, constant=True)
        expected = self.load_field("i32", ids, 4 * type_index, constant=True)
        actual = self.load_field("i32", reference, VMFuncRef.TYPE_INDEX)
        self.trap_if(self.emit(f"icmp ne i32 {actual}, {expected}"), TrapKind.BAD_SIGNATURE)
        function = self.load_field("ptr", reference, VMFuncRef.WASM_CALL)
        callee = self.load_field("ptr", reference, VMFuncRef.VMCTX)
        self.emit_call(function, f"ptr swiftself {callee}, ptr nest %vm", self.context.types[type_index])

    def emit_call(self, function: str, context_arguments: str, ft: FuncType) -> None:
        p = self.prototype(ft)
        values = self.pop_values(len(ft.params))
        if p.area_params or p.area_results:
            self.needs_store_context = True
        for k, ir, offset in p.area_params:
            self.do(f"store {ir} {values[k]}, ptr {self.field('%sc', offset)}{alignment(ir)}")
        arguments = context_arguments + "".join(f", {ir} {values[k]}" for k, ir in p.register_params)
        # `notail`: a tail call would drop this function's frame from backtraces, and turn recursion into a loop that
        # never exhausts the stack.
        call = f"notail call swiftcc {p.returns} {function}({arguments}) #2{self.here()}"
        results = [""] * len(ft.results)
        if not p.register_results:
            self.do(call)
        elif len(p.register_results) == 1:
            results[p.register_results[0][0]] = self.emit(call)
        else:
            whole = self.emit(call)
            for position, (k, _) in enumerate(p.register_results):
                results[k] = self.emit(f"extractvalue {p.returns} {whole}, {position}")
        for k, ir, offset in p.area_results:
            results[k] = self.emit(f"load {ir}, ptr {self.field('%sc', offset)}{alignment(ir)}")
        for value, t in zip(results, ft.results, strict=True):
            self.push(value, t)


EMITTERS: Final[dict[int, Callable[[CallEmitters, int], None]]] = {
    Opcode.CALL: CallEmitters.call,
    Opcode.CALL_INDIRECT: CallEmitters.call_indirect,
}
