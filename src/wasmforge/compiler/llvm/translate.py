"""The translator: one validated function body to the text of one LLVM function.

The worker calls `translate` for every function of a chunk. The body is walked once; the operand stack holds LLVM
operands, block results are phis, locals are allocas that SROA turns into registers, with the value of a local
remembered inside a straight line of blocks so that most reads need no instruction at all.

Three rules make LLVM keep to the specification:

- Floats. LLVM folds `x * 1.0`, `x - 0.0`, `-0.0 - x`, `fptrunc (fpext x)` and others to something that does not
  quieten a signalling NaN (specification, section 4.3.3, NaN propagation). All of these need a float that LLVM
  knows: so no float constant is ever visible to arithmetic. Literals, zero-initialised locals and integers turned
  into floats go through `llvm.arithmetic.fence`, which costs no machine instruction.
- Traps. Guest memory accesses and global stores are volatile: LLVM must not drop, merge or move them across each
  other or a trap. Ordinary traps call the `trap` builtin from a block of their own, so that each return address
  names one instruction.
- Positions. Loads, stores, calls and traps carry a debug location: line = position in the module's binary plus one,
  column = 1 + TrapKind if the instruction itself may trap. x86 folds a load into the instruction that consumes it,
  which then faults in its stead: whatever consumes a value fresh from memory in the same straight line inherits
  the load's location.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.environ import (
    VMContextOffsets,
    VMMemory,
)
from wasmforge.compiler.llvm import atomics, calls, control, memories, numeric, references, uniform, vectors
from wasmforge.compiler.llvm.atomics import AtomicEmitters
from wasmforge.compiler.llvm.builder import FLOAT_NAMES, PREFIXES, Frame, FunctionSource
from wasmforge.compiler.llvm.calls import CallEmitters
from wasmforge.compiler.llvm.context import BOOL, IR_TYPES, ModuleContext, alignment
from wasmforge.compiler.llvm.control import ControlEmitters
from wasmforge.compiler.llvm.numeric import NumericEmitters
from wasmforge.compiler.llvm.prototype import Prototype
from wasmforge.compiler.llvm.rows import SIMPLE
from wasmforge.compiler.llvm.vectors import VectorEmitters
from wasmforge.syntax.types import F32, F64, FuncType

__all__ = ["FunctionSource", "translate"]


def translate(
    source: FunctionSource,
    context: ModuleContext,
    scope: int,
    prototypes: dict[FuncType, Prototype],
    short_blocks: bool = False,
) -> str:
    """The text of `define ... @f<index>`. `scope` is the number of the function's DISubprogram metadata node;
    `prototypes` is a cache that the caller keeps for the module; `short_blocks` cuts straight-line code into blocks of
    a few hundred instructions.

    Raises `WasmtimeError` for a body that would blow up on the way to machine code.
    """
    return _Translator(source, context, scope, prototypes, short_blocks).run()


class _Translator(NumericEmitters, VectorEmitters, AtomicEmitters, CallEmitters, ControlEmitters):
    def run(self) -> str:
        ft = self.source.type
        for k in range(len(ft.params)):
            self.known_locals[k] = f"%p{k}"
        self.modified = self.find_modified_locals()
        whole = Frame("return", (), ft.results, 0)
        whole.modified = None
        self.frames.append(whole)
        metered = self.fuel or self.epochs
        if metered:
            self.begin_metering()
        self.walk()
        prototype = self.prototype(ft)
        self.emit_traps()
        self.out += self.late
        if self.uniform:
            returns, params = uniform.RETURNS, uniform.PARAMETERS
        else:
            returns = prototype.returns
            params = "ptr swiftself %vm" + "".join(f", {t} %p{k}" for k, t in prototype.register_params)
        header = f"define hidden swiftcc {returns} @f{self.source.index}({params}) #0"
        lines = [f"{header} !dbg !{self.scope} {{", "entry:"]
        self.emit_entry(lines, prototype)
        return "\n".join(lines) + "\n" + "\n".join(self.out) + "\n}\n"

    def walk(self) -> None:
        code = self.code
        end = len(code)
        out = self.out
        stack = self.stack
        types = self.types
        simple = SIMPLE
        emitters = _EMITTERS
        fresh = self.fresh
        fuel = self.fuel
        while self.pc < end:
            self.start = self.pc
            opcode = code[self.pc]
            self.pc += 1
            if opcode in PREFIXES:
                opcode = opcode << 12 | self.unsigned()
            if self.skipped >= 0:
                self.skip(opcode)
                continue
            if len(out) - self.block_start > self.block_limit:
                label = self.new_label()
                self.do(f"br label %{label}")
                self.begin_block(label)
            if fuel:
                self.before_instruction(opcode)
            row = simple.get(opcode)
            if row is None:
                emitters[opcode](self, opcode)
                if fuel:
                    self.after_instruction(opcode)
                continue
            operand = stack.pop()
            kind = types.pop()
            if kind >= F64 and kind <= F32 and operand[0] == "b":
                operand = self.fence(operand, kind)
            position = fresh.get(operand, 0)
            template, operands, result, opaque = row
            if operands == 1:
                text = template % operand
            else:
                first = stack.pop()
                types.pop()
                if kind >= F64 and kind <= F32 and first[0] == "b":
                    first = self.fence(first, kind)
                position = max(position, fresh.get(first, 0))
                text = template % (first, operand)
            value = f"%{self.next}"
            self.next += 1
            if position:
                out.append(f"  {value} = {text}{self.folded(position)}")
                fresh[value] = position
            else:
                out.append(f"  {value} = {text}")
            if opaque:
                value = self.fence(value, result)
            elif result == BOOL:
                self.push_condition(value)
                continue
            stack.append(value)
            types.append(result)

    def emit_entry(self, lines: list[str], prototype: Prototype) -> None:
        """The entry block, written last, when it is known what the body uses."""
        offsets = self.offsets
        if self.uniform:
            lines += uniform.parameters(prototype)
        if prototype.area_params or self.needs_store_context:
            lines.append(f"  %sca = getelementptr i8, ptr %vm, i64 {VMContextOffsets.STORE_CONTEXT}")
            lines.append("  %sc = load ptr, ptr %sca, !invariant.load !0")
        lines += self.metering_entry()
        for k, t, offset in prototype.area_params:
            lines.append(f"  %pa{k} = getelementptr i8, ptr %sc, i64 {offset}")
            lines.append(f"  %p{k} = load {t}, ptr %pa{k}{alignment(t)}")
        # With a location, so that one that LLVM drops between here and the first access shows (`worker._table_rows`).
        start = self.location(self.source.offset + 1)
        for x in sorted(self.memories_used):
            for name, field in (("m", VMMemory.BASE), ("d", VMMemory.DEFINITION)):
                lines.append(f"  %{name}a{x} = getelementptr i8, ptr %vm, i64 {offsets.memory(x) + field}")
                lines.append(f"  %{name}{x} = load ptr, ptr %{name}a{x}, !invariant.load !0{start}")
        stores = []
        for x in sorted(self.allocas):
            ir = IR_TYPES[self.local_types[x]]
            lines.append(f"  %l{x} = alloca {ir}")
            stores.append(f"  store {ir} {self.initial(x)}, ptr %l{x}")
        for zero in sorted(self.zero_floats):
            ir = IR_TYPES[zero]
            lines.append(f"  %zero{ir} = call {ir} @llvm.arithmetic.fence.{FLOAT_NAMES[zero]}({ir} 0.0)")
        lines += stores
        lines.append("  br label %b0\nb0:")

    def emit_traps(self) -> None:
        """The trap sites, out of line. `nomerge`: each keeps its own return address, which is its position."""
        for label, kind, position in self.cold:
            n = self.next
            self.next += 3
            self.out.append(
                f"{label}:\n"
                f"  %{n} = getelementptr i8, ptr %vm, i64 {VMContextOffsets.BUILTINS}\n"
                f"  %{n + 1} = load ptr, ptr %{n}, !invariant.load !0\n"
                f"  %{n + 2} = load ptr, ptr %{n + 1}, !invariant.load !0\n"
                f"  call swiftcc void %{n + 2}(ptr swiftself %vm, i32 {kind}) #1{self.location(position, 1 + kind)}\n"
                f"  unreachable"
            )


_EMITTERS: Final[dict[int, Callable[[_Translator, int], None]]] = {
    **numeric.EMITTERS,
    **memories.EMITTERS,
    **atomics.EMITTERS,
    **vectors.EMITTERS,
    **references.EMITTERS,
    **calls.EMITTERS,
    **control.EMITTERS,
}
