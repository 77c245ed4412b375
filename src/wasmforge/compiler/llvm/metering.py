"""Fuel and epochs in the optimising compiler: what is emitted before instructions, at entry and at the heads of loops
when the tunables ask for it (`compiler/metering.py` has the rules).

The count of fuel is an alloca, so a register where there is one; the deadline is a word of the vmctx that the runtime
sets when it has passed, so one comparison and no register. What happens then stands out of line and calls a builtin,
which traps or lets the guest go on. That call keeps the integer registers: as an ordinary one it made LLVM keep the
values of an interpreter loop in memory (2.8 times the run time).
"""

from __future__ import annotations

from wasmforge.compiler.environ import BUILTIN_INDEX, StoreContext, VMContextOffsets
from wasmforge.compiler.llvm.builder import FunctionBuilder
from wasmforge.compiler.metering import CALLS, ENTRY_COST, FREE, JOINS, LEAVES

__all__ = ["Metering"]


class Metering(FunctionBuilder):
    """`fuel` and `epochs` say what is metered. The entry block defines `%fuel`, `%fuel_at` and `%deadline_passed`."""

    def metering_entry(self) -> list[str]:
        """Lines of the entry block, which has `%sc`."""
        lines = []
        if self.fuel:
            lines.append("  %fuel = alloca i64")
            lines.append(f"  %fuel_at = getelementptr i8, ptr %sc, i64 {StoreContext.FUEL_CONSUMED}")
        if self.epochs:
            lines.append(f"  %deadline_passed = getelementptr i8, ptr %vm, i64 {VMContextOffsets.DEADLINE_PASSED}")
        return lines

    def begin_metering(self) -> None:
        """At the start of the body."""
        if self.fuel:
            self.needs_store_context = True
            self.load_fuel()
            self.fuel_pending = ENTRY_COST
        self.loop_head()

    def loop_head(self) -> None:
        """The checks at entry and at the head of a loop."""
        if self.fuel:
            self.add_fuel()
            count = self.emit("load i64, ptr %fuel")
            label, proceed = self.check(self.emit(f"icmp sge i64 {count}, 0"))
            self.late.append(
                f"{label}:\n"
                f"  %{label}v = load i64, ptr %fuel\n"
                f"  store i64 %{label}v, ptr %fuel_at\n"
                f"{self.late_call(label, 'out_of_fuel')}\n"
                f"  %{label}w = load i64, ptr %fuel_at\n"
                f"  store i64 %{label}w, ptr %fuel\n"
                f"  br label %{proceed}"
            )
        if self.epochs:
            # Volatile: another thread sets it, and a loop must look at it each time.
            passed = self.emit("load volatile i32, ptr %deadline_passed")
            label, proceed = self.check(self.emit(f"icmp ne i32 {passed}, 0"))
            self.late.append(f"{label}:\n{self.late_call(label, 'new_epoch')}\n  br label %{proceed}")

    def check(self, condition: str) -> tuple[str, str]:
        """Leaves for a block out of line when the condition holds. Returns its label, and where it comes back to."""
        label = f"late{len(self.late)}"
        proceed = self.new_label()
        self.do(f"br i1 {condition}, label %{label}, label %{proceed}, !prof !6")
        self.begin_block(proceed)
        return label, proceed

    def late_call(self, label: str, name: str) -> str:
        """A call of a builtin in a block out of line, where values have names: their numbers would be out of order."""
        return (
            f"  %{label}a = getelementptr i8, ptr %vm, i64 {VMContextOffsets.BUILTINS}\n"
            f"  %{label}b = load ptr, ptr %{label}a, !invariant.load !0\n"
            f"  %{label}c = getelementptr i8, ptr %{label}b, i64 {8 * BUILTIN_INDEX[name]}\n"
            f"  %{label}d = load ptr, ptr %{label}c, !invariant.load !0\n"
            f"  notail call preserve_mostcc void %{label}d(ptr %vm) #2{self.here()}"
        )

    def before_instruction(self, opcode: int) -> None:
        """Accounts for an instruction that is about to be translated."""
        if opcode not in FREE:
            self.fuel_pending += 1
        if opcode in JOINS:
            self.add_fuel()
            if opcode in LEAVES:
                self.save_fuel()

    def after_instruction(self, opcode: int) -> None:
        """After a call: the callee has changed the store's count."""
        if opcode in CALLS:
            self.load_fuel()

    def add_fuel(self) -> None:
        """Adds the costs so far to the count."""
        if self.fuel_pending:
            count = self.emit("load i64, ptr %fuel")
            self.do(f"store i64 {self.emit(f'add i64 {count}, {self.fuel_pending}')}, ptr %fuel")
            self.fuel_pending = 0

    def load_fuel(self) -> None:
        self.do(f"store i64 {self.emit('load i64, ptr %fuel_at')}, ptr %fuel")

    def save_fuel(self) -> None:
        """Gives the count back to the store."""
        self.do(f"store i64 {self.emit('load i64, ptr %fuel')}, ptr %fuel_at")
