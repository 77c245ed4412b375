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
from wasmforge.compiler.llvm import uniform
from wasmforge.compiler.llvm.context import alignment
from wasmforge.compiler.llvm.prototype import Prototype
from wasmforge.compiler.llvm.references import ReferenceEmitters
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.types import FUNCREF, FuncType

__all__ = ["EMITTERS", "CallEmitters"]


class CallEmitters(ReferenceEmitters):
    def call(self, _: int) -> None:
        x = self.unsigned()
        ft = self.context.types[self.context.functions[x]]
        if x in self.context.tail_callers:
            self.emit_uniform_call(self.defined_function(x), ft)
        elif x >= self.context.imported_functions:
            self.emit_call(self.defined_function(x), "ptr swiftself %vm", ft)
        else:
            record = self.offsets.imported_function(x)
            function = self.load_field("ptr", "%vm", record + VMFunctionImport.WASM_CALL, constant=True)
            callee = self.load_field("ptr", "%vm", record + VMFunctionImport.VMCTX, constant=True)
            self.emit_call(function, self.foreign(callee), ft)

    def defined_function(self, x: int) -> str:
        """What to call for a function of the module: itself, or its slot's contents if other code may come there."""
        local = self.context.local
        return f"@f{x}" if local is None or x in local else self.emit(f"load ptr, ptr @s{x}")

    def foreign(self, callee: str) -> str:
        """The contexts that a call of what may be another instance's function passes.

        LLVM believes that the callee preserves r13, in which its vmctx travels; but a tail call may have put another
        vmctx there (rule 1). So what is passed is a copy that nothing else uses: LLVM cannot find it in r13 again.
        """
        return f"ptr swiftself {self.copied(callee)}, ptr nest %vm"

    def copied(self, value: str) -> str:
        """A copy of a pointer that LLVM knows nothing about."""
        return self.emit(f'call ptr asm sideeffect "", "=r,0"(ptr {value})')

    def call_indirect(self, _: int) -> None:
        self.call_reference(*self.table_function())

    def call_ref(self, _: int) -> None:
        self.call_reference(*self.referenced_function())

    def call_reference(self, type_index: int, reference: str, own: bool) -> None:
        function = self.load_field("ptr", reference, VMFuncRef.WASM_CALL)
        if own:
            contexts = "ptr swiftself %vm"  # as a direct call: our vmctx stays in its register
        else:
            contexts = self.foreign(self.load_field("ptr", reference, VMFuncRef.VMCTX))
        self.emit_call(function, contexts, self.context.types[type_index])

    def referenced_function(self) -> tuple[int, str, bool]:
        """As `table_function`, for `call_ref`."""
        type_index = self.unsigned()
        reference = self.pop()
        self.trap_if(self.is_null(reference, FUNCREF), TrapKind.NULL_REFERENCE)
        return type_index, reference, False

    def table_function(self) -> tuple[int, str, bool]:
        """What `call_indirect` calls: type index and function reference, checked, and whether it certainly is a
        function of this instance that makes no tail call."""
        type_index = self.unsigned()
        x = self.unsigned()
        fixed = self.context.fixed_tables.get(x)
        index = self.index(self.context.wide_tables[x])
        if fixed is None:
            address = self.element_address(self.table_definition(x), index)
        else:
            address = self.fixed_element_address(x, fixed.elements, index)
        reference = self.emit(f"load ptr, ptr {address}" + ("" if fixed is None else ", !invariant.load !0"))
        self.trap_if(self.emit(f"icmp eq ptr {reference}, null"), TrapKind.INDIRECT_CALL_TO_NULL)
        if fixed is None or fixed.signature != self.context.canonical[type_index]:
            ids = self.load_field("ptr", "%vm", VMContextOffsets.TYPE_IDS, constant=True)
            expected = self.load_field("i32", ids, 4 * type_index, constant=True)
            actual = self.load_field("i32", reference, VMFuncRef.TYPE_INDEX)
            self.trap_if(self.emit(f"icmp ne i32 {actual}, {expected}"), TrapKind.BAD_SIGNATURE)
        return type_index, reference, fixed is not None and fixed.own

    def pop_arguments(self, p: Prototype) -> list[str]:
        """Pops the arguments of a call and stores those that travel through the overflow area."""
        values = self.pop_values(len(p.params))
        if p.area_params or p.area_results:
            self.needs_store_context = True
        for k, ir, offset in p.area_params:
            self.do(f"store {ir} {values[k]}, ptr {self.field('%sc', offset)}{alignment(ir)}")
        return values

    def push_results(self, p: Prototype, ft: FuncType, registers: list[tuple[int, str]]) -> None:
        """Pushes the results of a call: those in registers, and those in the results area."""
        results = [""] * len(ft.results)
        for k, value in registers:
            results[k] = value
        for k, ir, offset in p.area_results:
            results[k] = self.emit(f"load {ir}, ptr {self.field('%sc', offset)}{alignment(ir)}")
        for value, t in zip(results, ft.results, strict=True):
            self.push(value, t)

    def emit_uniform_call(self, function: str, ft: FuncType) -> None:
        """Calls a function of this module that has tail calls, and may so return with another vmctx in r13."""
        p = self.prototype(ft)
        arguments = uniform.arguments(self, p, self.pop_arguments(p))
        contexts = f"ptr swiftself {self.copied('%vm')}, ptr nest poison"
        whole = self.emit(f"notail call swiftcc {uniform.RETURNS} {function}({contexts}, {arguments}) #2{self.here()}")
        self.push_results(p, ft, uniform.received(self, p, whole))

    def emit_call(self, function: str, context_arguments: str, ft: FuncType) -> None:
        p = self.prototype(ft)
        values = self.pop_arguments(p)
        arguments = context_arguments + "".join(f", {ir} {values[k]}" for k, ir in p.register_params)
        # `notail`: a tail call would drop this function's frame from backtraces, and turn recursion into a loop that
        # never exhausts the stack.
        call = f"notail call swiftcc {p.returns} {function}({arguments}) #2{self.here()}"
        registers: list[tuple[int, str]] = []
        if not p.register_results:
            self.do(call)
        elif len(p.register_results) == 1:
            registers.append((p.register_results[0][0], self.emit(call)))
        else:
            whole = self.emit(call)
            for position, (k, _) in enumerate(p.register_results):
                registers.append((k, self.emit(f"extractvalue {p.returns} {whole}, {position}")))
        self.push_results(p, ft, registers)

    # --- Tail calls -----------------------------------------------------------------------------------------

    def return_call(self, _: int) -> None:
        x = self.unsigned()
        ft = self.context.types[self.context.functions[x]]
        if x >= self.context.imported_functions:
            self.emit_tail_call(self.defined_function(x), "poison", ft)
        else:
            self.emit_tail_call("@" + uniform.TAIL_IMPORT, self.field("%vm", self.offsets.imported_function(x)), ft)

    def return_call_indirect(self, _: int) -> None:
        type_index, reference, _ = self.table_function()
        self.emit_tail_call("@" + uniform.TAIL_REFERENCE, reference, self.context.types[type_index])

    def return_call_ref(self, _: int) -> None:
        type_index, reference, _ = self.referenced_function()
        self.emit_tail_call("@" + uniform.TAIL_REFERENCE, reference, self.context.types[type_index])

    def emit_tail_call(self, function: str, nest: str, ft: FuncType) -> None:
        """Leaves this function for another one, which returns to our caller, through the results area too."""
        p = self.prototype(ft)
        arguments = uniform.arguments(self, p, self.pop_arguments(p))
        contexts = f"ptr swiftself %vm, ptr nest {nest}"
        call = f"musttail call swiftcc {uniform.RETURNS} {function}({contexts}, {arguments}) #2{self.here()}"
        self.do(f"ret {uniform.RETURNS} {self.emit(call)}")
        self.skipped = 0


EMITTERS: Final[dict[int, Callable[[CallEmitters, int], None]]] = {
    Opcode.CALL: CallEmitters.call,
    Opcode.CALL_INDIRECT: CallEmitters.call_indirect,
    Opcode.CALL_REF: CallEmitters.call_ref,
    Opcode.RETURN_CALL: CallEmitters.return_call,
    Opcode.RETURN_CALL_INDIRECT: CallEmitters.return_call_indirect,
    Opcode.RETURN_CALL_REF: CallEmitters.return_call_ref,
}
