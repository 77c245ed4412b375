"""Emitters of blocks and branches: the control stack becomes LLVM blocks, what travels over a branch becomes phis, and
code that is never reached is passed over. `translate.py` joins `EMITTERS` with those of the other rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.compiler.llvm import uniform
from wasmforge.compiler.llvm.builder import IMMEDIATES, Frame
from wasmforge.compiler.llvm.context import IR_TYPES, alignment
from wasmforge.compiler.llvm.metering import Metering
from wasmforge.compiler.llvm.vector_loops import VectorLoops
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128, ValType

__all__ = ["EMITTERS", "ControlEmitters"]

BRANCH_VALUES_LIMIT: Final = 1_000_000
"""Threat: a br_table with 100,000 targets that each take 1,000 values would need 10**8 phi operands. No compiler
produces a thousandth of this limit."""

_BLOCK_TYPES: Final[dict[int, tuple[tuple[ValType, ...], tuple[ValType, ...]]]] = {
    0x40: ((), ()),
    **{int(t): ((), (t,)) for t in (I32, I64, F32, F64, V128, FUNCREF, EXTERNREF)},
}


class ControlEmitters(Metering, VectorLoops):
    def block_type(self) -> tuple[tuple[ValType, ...], tuple[ValType, ...]]:
        short = _BLOCK_TYPES.get(self.code[self.pc])
        if short is not None:
            self.pc += 1
            return short
        if self.code[self.pc] & 0xC0 == 0x40:  # a negative number: a reference type
            return (), (self.value_type(),)
        ft = self.context.types[self.signed()]
        return ft.params, ft.results

    def enter_block(self, _: int) -> None:
        params, results = self.block_type()
        frame = Frame(self.new_label(), params, results, len(self.stack) - len(params))
        self.remember(frame)
        self.frames.append(frame)

    def enter_loop(self, _: int) -> None:
        params, results = self.block_type()
        frame = Frame(self.new_label(), params, results, len(self.stack) - len(params), is_loop=True)
        values = self.pop_values(len(params))
        if not params:
            self.vector_loop()
        frame.edges.append((values, self.block))
        self.do(f"br label %{frame.label}")
        self.remember(frame)
        addresses = self.addresses
        self.begin_join(frame.label)
        self.recall(frame)
        self.addresses = addresses  # what was computed before the loop dominates all of it
        # The phis are written when the loop ends and all edges are known; their numbers are taken now.
        frame.phi_line = len(self.out)
        frame.phi_first = self.next
        self.out.append("")
        for k, t in enumerate(params):
            self.push(f"%{frame.phi_first + k}", t)
        self.next += len(params)
        self.frames.append(frame)
        if self.fuel or self.epochs:
            self.loop_head()

    def enter_if(self, _: int) -> None:
        params, results = self.block_type()
        condition = self.pop_condition()
        values = self.peek_values(len(params))
        frame = Frame(self.new_label(), params, results, len(self.stack) - len(params))
        frame.else_label = self.new_label()
        frame.else_values = list(values)
        self.remember(frame)
        then = self.new_label()
        self.do(f"br i1 {condition}, label %{then}, label %{frame.else_label}{self.inherited(condition)}")
        self.begin_block(then)
        self.frames.append(frame)

    def begin_else(self, frame: Frame) -> None:
        del self.stack[frame.height :]
        del self.types[frame.height :]
        self.begin_join(frame.else_label)
        frame.else_label = ""
        self.known_locals = dict(frame.known_locals)
        self.addresses = dict(frame.addresses)
        for value, t in zip(frame.else_values, frame.params, strict=True):
            self.push(value, t)

    def branch(self, depth: int) -> str:
        """Registers a branch from here and returns the label."""
        frame = self.frames[-1 - depth]
        count = len(frame.params if frame.is_loop else frame.results)
        self.branch_values += count
        if self.branch_values > BRANCH_VALUES_LIMIT:
            raise WasmtimeError(
                f"function {self.source.index} is too complex to compile: its branches carry more than "
                f"{BRANCH_VALUES_LIMIT} values"
            )
        frame.edges.append((list(self.peek_values(count)), self.block))
        return frame.label

    def fall_through(self, frame: Frame) -> None:
        """Leaves a block at its end, forwards."""
        frame.edges.append((self.pop_values(len(frame.results)), self.block))
        self.do(f"br label %{frame.label}")

    def else_(self, _: int) -> None:
        frame = self.frames[-1]
        self.fall_through(frame)
        self.begin_else(frame)

    def end(self, _: int) -> None:
        """The end of a block that is reached."""
        frame = self.frames[-1]
        if frame.else_label:  # an `if` without `else`: the parameters are the results
            self.fall_through(frame)
            self.begin_else(frame)
        if frame.is_loop:
            self.write_loop_phis(frame)
        elif frame.edges:
            self.fall_through(frame)
            self.join(frame)
        self.leave_frame()

    def end_unreachable(self) -> None:
        """The end of a block whose last instruction is not reached."""
        frame = self.frames[-1]
        if frame.else_label:
            self.begin_else(frame)
            self.skipped = -1
            self.end(0)
            return
        del self.stack[frame.height :]
        del self.types[frame.height :]
        if frame.is_loop:  # the end of a loop is only reached from inside, so what follows is not reached either
            self.write_loop_phis(frame)
        elif frame.edges:
            self.skipped = -1
            self.join(frame)
        self.leave_frame()

    def leave_frame(self) -> None:
        frame = self.frames.pop()
        if not self.frames and self.skipped < 0:
            self.return_values(frame.results)

    def phis(self, types: tuple[ValType, ...], edges: list[tuple[list[str], str]], first: int) -> str:
        lines = []
        for k, t in enumerate(types):
            incoming = ", ".join(f"[ {values[k]}, %{block} ]" for values, block in edges)
            lines.append(f"  %{first + k} = phi {IR_TYPES[t]} {incoming}")
        return "\n".join(lines)

    def write_loop_phis(self, frame: Frame) -> None:
        """Writes the phis of a loop's parameters. Its results simply stay on the stack: branches go to its start."""
        if frame.params:
            self.out[frame.phi_line] = self.phis(frame.params, frame.edges, frame.phi_first)

    def join(self, frame: Frame) -> None:
        """Starts the block behind a block, where its branches meet, with the results on the stack."""
        self.begin_join(frame.label)
        self.recall(frame)
        values = frame.edges[0][0]
        if frame.results and len(frame.edges) > 1:
            first = self.next
            self.next += len(frame.results)
            self.out.append(self.phis(frame.results, frame.edges, first))
            values = [f"%{first + k}" for k in range(len(frame.results))]
        for value, t in zip(values, frame.results, strict=True):
            self.push(value, t)

    def return_values(self, results: tuple[ValType, ...]) -> None:
        p = self.prototype(self.source.type)
        values = self.pop_values(len(results))
        if self.fuel:
            self.save_fuel()
        if p.area_results:
            self.needs_store_context = True
        for k, ir, offset in p.area_results:
            self.do(f"store {ir} {values[k]}, ptr {self.field('%sc', offset)}{alignment(ir)}")
        if not p.register_results:
            self.do(f"ret {uniform.RETURNS} poison" if self.uniform else "ret void")
            return
        if self.uniform:
            self.do(f"ret {uniform.RETURNS} {uniform.results(self, p, values)}")
            return
        k, _ = p.register_results[0]
        whole = values[k]
        if len(p.register_results) > 1:
            whole = "poison"
            for position, (k, ir) in enumerate(p.register_results):
                whole = self.emit(f"insertvalue {p.returns} {whole}, {ir} {values[k]}, {position}")
        self.do(f"ret {p.returns} {whole}")

    def unreachable(self, _: int) -> None:
        self.do(f"br label %{self.trap_site(TrapKind.UNREACHABLE)}")
        self.skipped = 0

    def br(self, _: int) -> None:
        self.do(f"br label %{self.branch(self.unsigned())}")
        self.skipped = 0

    def return_(self, _: int) -> None:
        self.do(f"br label %{self.branch(len(self.frames) - 1)}")
        self.skipped = 0

    def br_if(self, _: int) -> None:
        depth = self.unsigned()
        self.branch_on(self.pop_condition(), depth)

    def br_on_null(self, _: int) -> None:
        depth = self.unsigned()
        t = self.types[-1]
        value = self.pop()
        self.branch_on(self.is_null(value, t), depth)
        self.push(value, t)

    def br_on_non_null(self, _: int) -> None:
        depth = self.unsigned()
        t = self.types[-1]
        condition = self.emit(f"xor i1 {self.is_null(self.stack[-1], t)}, true")
        self.branch_on(condition, depth)
        self.pop()

    def branch_on(self, condition: str, depth: int) -> None:
        target = self.branch(depth)
        proceed = self.new_label()
        self.do(f"br i1 {condition}, label %{target}, label %{proceed}{self.inherited(condition)}")
        self.begin_block(proceed)

    def br_table(self, _: int) -> None:
        depths = [self.unsigned() for _ in range(self.unsigned() + 1)]
        index = self.pop()
        default = depths[-1]
        origin = self.block
        labels: dict[int, str] = {}
        hops: list[tuple[str, str]] = []
        for depth in depths:
            if depth in labels:
                continue
            frame = self.frames[-1 - depth]
            if not (frame.params if frame.is_loop else frame.results):
                labels[depth] = self.branch(depth)
                continue
            # Through a block of its own: a phi has an operand an edge, and all cases of a depth shall be one edge.
            labels[depth] = self.block = self.new_label()
            hops.append((self.block, self.branch(depth)))
        self.block = origin
        cases = "".join(
            f"\n    i32 {k}, label %{labels[depth]}" for k, depth in enumerate(depths[:-1]) if depth != default
        )
        self.do(f"switch i32 {index}, label %{labels[default]} [{cases} ]{self.inherited(index)}")
        for hop, target in hops:
            self.out.append(f"{hop}:\n  br label %{target}")
        self.skipped = 0

    # --- Unreachable code ---------------------------------------------------------------------------------------

    def skip(self, opcode: int) -> None:
        """Passes over an instruction that is not reached (validation has checked it)."""
        if Opcode.BLOCK <= opcode <= Opcode.IF:
            self.skipped += 1
        elif opcode == Opcode.END:
            if self.skipped == 0:
                self.end_unreachable()
            else:
                self.skipped -= 1
        elif opcode == Opcode.ELSE and self.skipped == 0:
            self.skipped = -1
            self.begin_else(self.frames[-1])
        for kind in IMMEDIATES[opcode]:
            self.skip_immediate(kind)


EMITTERS: Final[dict[int, Callable[[ControlEmitters, int], None]]] = {
    Opcode.UNREACHABLE: ControlEmitters.unreachable,
    Opcode.BLOCK: ControlEmitters.enter_block,
    Opcode.LOOP: ControlEmitters.enter_loop,
    Opcode.IF: ControlEmitters.enter_if,
    Opcode.ELSE: ControlEmitters.else_,
    Opcode.END: ControlEmitters.end,
    Opcode.BR: ControlEmitters.br,
    Opcode.BR_IF: ControlEmitters.br_if,
    Opcode.BR_ON_NULL: ControlEmitters.br_on_null,
    Opcode.BR_ON_NON_NULL: ControlEmitters.br_on_non_null,
    Opcode.BR_TABLE: ControlEmitters.br_table,
    Opcode.RETURN: ControlEmitters.return_,
}
