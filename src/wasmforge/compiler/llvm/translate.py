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
from struct import pack
from typing import Final

from wasmforge.compiler.environ import (
    BUILTIN_INDEX,
    VMContextOffsets,
    VMDataSegment,
    VMFuncRef,
    VMFunctionImport,
    VMMemory,
    VMMemoryDefinition,
    VMTableDefinition,
)
from wasmforge.compiler.llvm.context import BOOL, IR_TYPES, ModuleContext
from wasmforge.compiler.llvm.prototype import Prototype
from wasmforge.compiler.llvm.rows import LOADS, SIMPLE, STORES, TRUNCATIONS
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.instructions import BY_MNEMONIC, BY_OPCODE, Immediate, Opcode
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, FuncType, ValType

__all__ = ["FunctionSource", "translate"]

BRANCH_VALUES_LIMIT: Final = 1_000_000
"""Threat: a br_table with 100,000 targets that each take 1,000 values would need 10**8 phi operands. No compiler
produces a thousandth of this limit."""

REMEMBERED: Final = 64
"""So many locals and addresses are remembered across blocks: enough for what is hot, and little to copy for each of
100,000 nested blocks."""

SHORT_BLOCK: Final = 500
"""Lines of IR in a block when blocks are kept short."""

_OFFSET_LIMIT: Final = 1 << 32
_FLOAT_NAMES: Final = {F32: "f32", F64: "f64"}
_PREFIX: Final = 0xFC
_BLOCK_TYPES: Final[dict[int, tuple[tuple[ValType, ...], tuple[ValType, ...]]]] = {
    0x40: ((), ()),
    **{int(t): ((), (t,)) for t in (I32, I64, F32, F64, FUNCREF, EXTERNREF)},
}
_CONDITION_CONSUMERS: Final = frozenset({Opcode.BR_IF, Opcode.IF, Opcode.SELECT, Opcode.SELECT_TYPED, 0x45})


class FunctionSource:
    """What is translated: index in the function space, type, run-length encoded locals, encoded body and the body's
    position in the binary."""

    __slots__ = ("code", "index", "locals", "offset", "type")

    def __init__(
        self, index: int, ft: FuncType, local_types: tuple[tuple[int, int], ...], code: bytes, offset: int
    ) -> None:
        self.index = index
        self.type = ft
        self.locals = local_types
        self.code = code
        self.offset = offset


class _Frame:
    """An entry of the control stack. `edges` are the branches to its label, as (values, LLVM block they leave).

    `known_locals` and `addresses` are the translator's from when the block was entered, SSA values that dominate the
    block and what follows it. `modified` are the locals that the block assigns to, or None if they are many.
    """

    __slots__ = (
        "addresses",
        "edges",
        "else_label",
        "else_values",
        "height",
        "is_loop",
        "known_locals",
        "label",
        "modified",
        "params",
        "phi_first",
        "phi_line",
        "results",
    )

    def __init__(
        self,
        label: str,
        params: tuple[ValType, ...],
        results: tuple[ValType, ...],
        height: int,
        is_loop: bool = False,
    ) -> None:
        self.label = label
        self.params = params
        self.results = results
        self.height = height
        self.is_loop = is_loop
        self.edges: list[tuple[list[str], str]] = []
        self.else_label = ""
        self.else_values: list[str] = []
        self.phi_line = 0  # of a loop: where in the output its phis belong
        self.phi_first = 0  # and the number of the first of them
        self.known_locals: dict[int, str] = {}
        self.addresses: dict[tuple[int, str], str] = {}
        self.modified: frozenset[int] | None = None


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


class _Translator:
    def __init__(
        self,
        source: FunctionSource,
        context: ModuleContext,
        scope: int,
        prototypes: dict[FuncType, Prototype],
        short_blocks: bool,
    ) -> None:
        self.source = source
        self.context = context
        self.block_limit = SHORT_BLOCK if short_blocks else 1 << 62
        self.block_start = 0  # length of the output when the current block began
        self.offsets = context.offsets
        self.scope = scope
        self.prototypes = prototypes
        self.code = source.code
        self.pc = 0
        self.start = 0  # of the current instruction
        self.out: list[str] = []
        self.cold: list[tuple[str, int, int]] = []  # label, trap kind, position
        self.stack: list[str] = []
        self.types: list[ValType] = []
        self.frames: list[_Frame] = []
        self.next = 0  # number of the next LLVM value
        self.labels = 0
        self.block = "b0"
        self.skipped = -1  # nesting depth inside unreachable code, -1 in reachable code
        self.modified: dict[int, frozenset[int] | None] = {}
        self.local_types: list[ValType] = list(source.type.params)
        for count, t in source.locals:
            self.local_types.extend([ValType(t)] * count)
        self.known_locals: dict[int, str] = {}
        self.allocas: set[int] = set()
        self.addresses: dict[tuple[int, str], str] = {}  # (memory, index operand) to base + index
        self.fresh: dict[str, int] = {}  # values that x86 may still fold from a load, with its position
        self.memories_used: set[int] = set()
        self.needs_store_context = False
        self.zero_floats: set[ValType] = set()
        self.branch_values = 0
        tunables = context.tunables
        self.guarded = tunables.signals_based_traps and tunables.memory_reservation >= _OFFSET_LIMIT
        self.guard = tunables.memory_guard_size

    # --- The whole function ---------------------------------------------------------------------------------

    def run(self) -> str:
        ft = self.source.type
        for k in range(len(ft.params)):
            self.known_locals[k] = f"%p{k}"
        self.modified = self.find_modified_locals()
        whole = _Frame("return", (), ft.results, 0)
        whole.modified = None
        self.frames.append(whole)
        self.walk()
        prototype = self.prototype(ft)
        self.emit_traps()
        params = "".join(f", {t} %p{k}" for k, t in prototype.register_params)
        header = f"define hidden swiftcc {prototype.returns} @f{self.source.index}(ptr swiftself %vm{params}) #0"
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
        while self.pc < end:
            self.start = self.pc
            opcode = code[self.pc]
            self.pc += 1
            if opcode == _PREFIX:
                opcode = opcode << 12 | self.unsigned()
            if self.skipped >= 0:
                self.skip(opcode)
                continue
            if len(out) - self.block_start > self.block_limit:
                label = self.new_label()
                self.do(f"br label %{label}")
                self.begin_block(label)
            row = simple.get(opcode)
            if row is None:
                emitters[opcode](self, opcode)
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
        if prototype.area_params or self.needs_store_context:
            lines.append(f"  %sca = getelementptr i8, ptr %vm, i64 {VMContextOffsets.STORE_CONTEXT}")
            lines.append("  %sc = load ptr, ptr %sca, !invariant.load !0")
        for k, t, offset in prototype.area_params:
            lines.append(f"  %pa{k} = getelementptr i8, ptr %sc, i64 {offset}")
            lines.append(f"  %p{k} = load {t}, ptr %pa{k}")
        for x in sorted(self.memories_used):
            for name, field in (("m", VMMemory.BASE), ("d", VMMemory.DEFINITION)):
                lines.append(f"  %{name}a{x} = getelementptr i8, ptr %vm, i64 {offsets.memory(x) + field}")
                lines.append(f"  %{name}{x} = load ptr, ptr %{name}a{x}, !invariant.load !0")
        stores = []
        for x in sorted(self.allocas):
            ir = IR_TYPES[self.local_types[x]]
            lines.append(f"  %l{x} = alloca {ir}")
            stores.append(f"  store {ir} {self.initial(x)}, ptr %l{x}")
        for zero in sorted(self.zero_floats):
            ir = IR_TYPES[zero]
            lines.append(f"  %zero{ir} = call {ir} @llvm.arithmetic.fence.{_FLOAT_NAMES[zero]}({ir} 0.0)")
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

    # --- Small helpers --------------------------------------------------------------------------------------

    def prototype(self, ft: FuncType) -> Prototype:
        found = self.prototypes.get(ft)
        if found is None:
            found = self.prototypes[ft] = Prototype(ft)
        return found

    def unsigned(self) -> int:
        code = self.code
        pc = self.pc
        value = code[pc]
        pc += 1
        if value >= 0x80:
            value &= 0x7F
            shift = 7
            while True:
                byte = code[pc]
                pc += 1
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
        self.pc = pc
        return value

    def signed(self) -> int:
        code = self.code
        pc = self.pc
        value = 0
        shift = 0
        while True:
            byte = code[pc]
            pc += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        self.pc = pc
        return value - (1 << shift) if byte & 0x40 else value

    def location(self, position: int, column: int = 0) -> str:
        return f", !dbg !DILocation(line: {position}, column: {column}, scope: !{self.scope})"

    def folded(self, position: int) -> str:
        """The location of something that x86 may merge with the load at `position` (as a line) and that faults then."""
        return self.location(position, 1 + TrapKind.MEMORY_OUT_OF_BOUNDS)

    def here(self, column: int = 0) -> str:
        return self.location(self.position(), column)

    def position(self) -> int:
        """The line number of the current instruction: one more than its position in the binary, as DWARF's line 0
        means "none"."""
        return self.source.offset + self.start + 1

    def emit(self, text: str) -> str:
        """Appends `%n = text` and returns `%n`."""
        value = f"%{self.next}"
        self.next += 1
        self.out.append(f"  {value} = {text}")
        return value

    def inherited(self, operand: str) -> str:
        """The location for a branch on `operand`: the comparison may fold a load, and take the branch's location."""
        position = self.fresh.get(operand, 0)
        return self.folded(position) if position else ""

    def derive(self, text: str, *operands: str) -> str:
        """As `emit`, for a pure operation on `operands`, which inherits the location of the freshest of them."""
        position = max([self.fresh.get(operand, 0) for operand in operands])
        if not position:
            return self.emit(text)
        value = self.emit(text + self.folded(position))
        self.fresh[value] = position
        return value

    def do(self, text: str) -> None:
        self.out.append("  " + text)

    def push(self, value: str, t: ValType) -> None:
        self.stack.append(value)
        self.types.append(t)

    def pop(self) -> str:
        self.types.pop()
        return self.stack.pop()

    def fence(self, operand: str, t: ValType) -> str:
        """Makes a float unknown to LLVM (see the module's docstring)."""
        ir = IR_TYPES[t]
        return self.emit(f"call {ir} @llvm.arithmetic.fence.{_FLOAT_NAMES[t]}({ir} {operand})")

    def pop_opaque(self) -> str:
        """Pops an operand that leaves for a local, a phi, a call: never a float literal, which LLVM would see there."""
        operand = self.stack.pop()
        t = self.types.pop()
        return self.fence(operand, t) if operand[0] == "b" else operand

    def pop_values(self, count: int) -> list[str]:
        """The topmost `count` operands, in order, none of them a float literal."""
        values = [self.pop_opaque() for _ in range(count)]
        values.reverse()
        return values

    def peek_values(self, count: int) -> list[str]:
        """As `pop_values`, but leaves them on the stack."""
        base = len(self.stack) - count
        for k in range(base, len(self.stack)):
            if self.stack[k][0] == "b":
                self.stack[k] = self.fence(self.stack[k], self.types[k])
        return self.stack[base:]

    def push_condition(self, value: str) -> None:
        """Pushes an i1 as it is when the next instruction consumes a condition, else as an i32."""
        # A validated body ends in `end`, so there always is a next instruction.
        if self.code[self.pc] in _CONDITION_CONSUMERS:
            self.push(value, BOOL)
            return
        self.push(self.derive(f"zext i1 {value} to i32", value), I32)

    def pop_condition(self) -> str:
        t = self.types.pop()
        value = self.stack.pop()
        if t == BOOL:
            return value
        return self.derive(f"icmp ne i32 {value}, 0", value)

    def new_label(self) -> str:
        self.labels += 1
        return f"b{self.labels}"

    def begin_block(self, label: str) -> None:
        """Starts a block that only the code before it leads to."""
        self.out.append(f"{label}:")
        self.block = label
        self.block_start = len(self.out)

    def begin_join(self, label: str) -> None:
        """Starts a block that others lead to as well; the caller says what of the remembered still holds there."""
        self.begin_block(label)
        self.fresh.clear()

    def find_modified_locals(self) -> dict[int, frozenset[int] | None]:
        """For every block, by the position of its opcode, the locals that are assigned to inside; None when they are
        more than `REMEMBERED`, which bounds the work for any nesting."""
        found: dict[int, frozenset[int] | None] = {}
        open_blocks: list[tuple[int, set[int] | None]] = [(-1, set())]
        end = len(self.code)
        while self.pc < end:
            start = self.pc
            opcode = self.code[start]
            self.pc += 1
            if opcode == _PREFIX:
                opcode = opcode << 12 | self.unsigned()
            elif opcode == Opcode.LOCAL_SET or opcode == Opcode.LOCAL_TEE:
                x = self.unsigned()
                inside = open_blocks[-1][1]
                if inside is not None:
                    inside.add(x)
                continue
            elif Opcode.BLOCK <= opcode <= Opcode.IF:
                open_blocks.append((start, set()))
            elif opcode == Opcode.END:
                position, inside = open_blocks.pop()
                if inside is not None and len(inside) > REMEMBERED:
                    inside = None
                found[position] = None if inside is None else frozenset(inside)
                if open_blocks:
                    position, outer = open_blocks[-1]
                    if inside is None or outer is None:
                        open_blocks[-1] = (position, None)
                    else:
                        outer |= inside
            for kind in _IMMEDIATES[opcode]:
                self.skip_immediate(kind)
        self.pc = 0
        return found

    def remember(self, frame: _Frame) -> None:
        """Notes in a new frame what is known where its block begins."""
        if len(self.known_locals) <= REMEMBERED:
            frame.known_locals = dict(self.known_locals)
        if len(self.addresses) <= REMEMBERED:
            frame.addresses = dict(self.addresses)
        frame.modified = self.modified[self.start]

    def recall(self, frame: _Frame) -> None:
        """At a place that only the frame's block leads to: what was known at its beginning and was not assigned to."""
        self.addresses = dict(frame.addresses)
        self.known_locals = {}
        if frame.modified is not None:
            self.known_locals = {x: v for x, v in frame.known_locals.items() if x not in frame.modified}

    def trap_site(self, kind: TrapKind) -> str:
        """The label of a block, written at the end of the function, that traps at the current position."""
        label = f"t{len(self.cold)}"
        self.cold.append((label, int(kind), self.position()))
        return label

    def trap_if(self, condition: str, kind: TrapKind) -> None:
        trap = self.trap_site(kind)
        proceed = self.new_label()
        self.do(f"br i1 {condition}, label %{trap}, label %{proceed}{self.inherited(condition)}")
        self.begin_block(proceed)

    def field(self, base: str, offset: int) -> str:
        return self.emit(f"getelementptr i8, ptr {base}, i64 {offset}")

    def load_field(self, t: str, base: str, offset: int, constant: bool = False) -> str:
        """Loads from a record of the runtime; `constant` if the field never changes while the function runs."""
        address = self.field(base, offset)
        return self.emit(f"load {t}, ptr {address}" + (", !invariant.load !0" if constant else ""))

    def widen(self, operand: str) -> str:
        """An i32 operand as an unsigned i64."""
        if operand[0] != "%":
            return str(int(operand) & 0xFFFF_FFFF)
        return self.derive(f"zext i32 {operand} to i64", operand)

    # --- Locals ---------------------------------------------------------------------------------------------

    def initial(self, x: int) -> str:
        """What a local holds at entry: a parameter, or the default value of its type."""
        if x < len(self.source.type.params):
            return f"%p{x}"
        t = self.local_types[x]
        if t in _FLOAT_NAMES:
            self.zero_floats.add(t)
            return f"%zero{IR_TYPES[t]}"
        return "null" if t == FUNCREF else "0"

    def local_get(self, _: int) -> None:
        x = self.unsigned()
        t = self.local_types[x]
        value = self.known_locals.get(x)
        if value is None:
            self.allocas.add(x)
            value = self.emit(f"load {IR_TYPES[t]}, ptr %l{x}")
            self.known_locals[x] = value
        self.push(value, t)

    def local_set(self, _: int) -> None:
        x = self.unsigned()
        value = self.pop_opaque()
        self.assign_local(x, value)

    def local_tee(self, _: int) -> None:
        x = self.unsigned()
        value = self.peek_values(1)[0]
        self.assign_local(x, value)

    def assign_local(self, x: int, value: str) -> None:
        t = self.local_types[x]
        self.allocas.add(x)
        self.known_locals[x] = value
        self.do(f"store {IR_TYPES[t]} {value}, ptr %l{x}")

    # --- Constants, parametric instructions -----------------------------------------------------------------

    def i32_const(self, _: int) -> None:
        self.push(str(self.signed()), I32)

    def i64_const(self, _: int) -> None:
        self.push(str(self.signed()), I64)

    def f32_const(self, _: int) -> None:
        bits = int.from_bytes(self.code[self.pc : self.pc + 4], "little")
        self.pc += 4
        self.push(f"bitcast (i32 {bits} to float)", F32)

    def f64_const(self, _: int) -> None:
        bits = int.from_bytes(self.code[self.pc : self.pc + 8], "little")
        self.pc += 8
        self.push(f"bitcast (i64 {bits} to double)", F64)

    def drop(self, _: int) -> None:
        self.pop()

    def nop(self, _: int) -> None:
        pass

    def select(self, opcode: int) -> None:
        if opcode == Opcode.SELECT_TYPED:
            for _ in range(self.unsigned()):
                self.pc += 1
        condition = self.pop_condition()
        second = self.pop_opaque()
        t = self.types[-1]
        first = self.pop_opaque()
        ir = IR_TYPES[t]
        # cmov takes a memory operand, so a select may fold the load of either side.
        text = f"select i1 {condition}, {ir} {first}, {ir} {second}"
        self.push(self.derive(text, condition, first, second), t)

    def eqz(self, opcode: int) -> None:
        t = self.types.pop()
        operand = self.stack.pop()
        text = f"xor i1 {operand}, true" if t == BOOL else f"icmp eq {IR_TYPES[t]} {operand}, 0"
        self.push_condition(self.derive(text, operand))

    # --- Numeric instructions that need more than a row ------------------------------------------------------

    def shift(self, opcode: int) -> None:
        second = self.pop()
        t = self.types[-1]
        first = self.pop()
        ir = IR_TYPES[t]
        instruction = _SHIFTS[opcode]
        mask = 31 if t == I32 else 63
        if instruction.startswith("@"):  # the funnel shifts take the count modulo the width themselves
            text = f"call {ir} {instruction}{ir}({ir} {first}, {ir} {first}, {ir} {second})"
        else:
            if second[0] == "%":
                second = self.derive(f"and {ir} {second}, {mask}", second)
            else:
                second = str(int(second) & mask)
            text = f"{instruction} {ir} {first}, {second}"
        self.push(self.derive(text, first, second), t)

    def divide(self, opcode: int) -> None:
        second = self.pop()
        t = self.types[-1]
        first = self.pop()
        ir = IR_TYPES[t]
        instruction = _DIVISIONS[opcode]
        # LLVM's division is undefined for a zero divisor and where the quotient overflows (4.3.2, idiv_s). A
        # literal divisor needs no check for what it is not.
        literal = int(second) if second[0] != "%" else None
        if literal is None or literal == 0:
            self.trap_if(self.derive(f"icmp eq {ir} {second}, 0", second), TrapKind.INTEGER_DIVISION_BY_ZERO)
            if literal == 0:  # the block that follows is never reached; keep its IR defined
                second = "1"
        if literal is None or literal == -1:
            if instruction == "sdiv":
                minimum = -(1 << 31) if t == I32 else -(1 << 63)
                is_minimum = self.derive(f"icmp eq {ir} {first}, {minimum}", first)
                is_minus_one = self.derive(f"icmp eq {ir} {second}, -1", second)
                both = self.derive(f"and i1 {is_minimum}, {is_minus_one}", is_minimum, is_minus_one)
                self.trap_if(both, TrapKind.INTEGER_OVERFLOW)
            elif instruction == "srem":  # x rem -1 is 0 for every x, also where LLVM's is undefined
                is_minus_one = self.derive(f"icmp eq {ir} {second}, -1", second)
                second = self.derive(f"select i1 {is_minus_one}, {ir} 1, {ir} {second}", is_minus_one, second)
        self.push(self.derive(f"{instruction} {ir} {first}, {second}", first, second), t)

    def sign_extend(self, opcode: int) -> None:
        t, narrow = _SIGN_EXTENSIONS[opcode]
        operand = self.pop()
        ir = IR_TYPES[t]
        truncated = self.derive(f"trunc {ir} {operand} to {narrow}", operand)
        self.push(self.derive(f"sext {narrow} {truncated} to {ir}", truncated), t)

    def minimum_or_maximum(self, opcode: int) -> None:
        t, intrinsic = _MINIMA[opcode]
        second = self.pop_opaque()
        first = self.pop_opaque()
        ir = IR_TYPES[t]
        # `minimum(x, x)` folds to x, and the x86 sequence hands a NaN operand through as it is. Adding -0.0 changes
        # no number and quietens a signalling NaN.
        text = f"call {ir} @llvm.{intrinsic}.{_FLOAT_NAMES[t]}({ir} {first}, {ir} {second})"
        raw = self.derive(text, first, second)
        zero = self.fence("-0.0", t)
        self.push(self.emit(f"fadd {ir} {raw}, {zero}"), t)

    def truncate(self, opcode: int) -> None:
        row = TRUNCATIONS[opcode]
        operand = self.pop_opaque()
        ir = IR_TYPES[row.operand]
        above = self.derive(f"fcmp ogt {ir} {operand}, {_hexadecimal(row.low)}", operand)
        below = self.derive(f"fcmp olt {ir} {operand}, {_hexadecimal(row.high)}", operand)
        legal = self.derive(f"and i1 {above}, {below}", above, below)
        proceed = self.new_label()
        illegal = self.new_label()
        self.do(f"br i1 {legal}, label %{proceed}, label %{illegal}{self.inherited(legal)}")
        self.begin_block(illegal)
        unordered = self.emit(f"fcmp uno {ir} {operand}, 0.0")
        not_a_number = self.trap_site(TrapKind.BAD_CONVERSION_TO_INTEGER)
        out_of_range = self.trap_site(TrapKind.INTEGER_OVERFLOW)
        self.do(f"br i1 {unordered}, label %{not_a_number}, label %{out_of_range}")
        self.begin_block(proceed)
        text = f"{row.instruction} {ir} {operand} to {IR_TYPES[row.result]}"
        self.push(self.derive(text, operand), row.result)

    # --- Memory ---------------------------------------------------------------------------------------------

    def memory_argument(self) -> tuple[int, int]:
        """Memory index and offset of a load or store."""
        alignment = self.unsigned()
        memory = self.unsigned() if alignment & 0x40 else 0
        return memory, self.unsigned()

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

    def check_range(self, start: str, count: str, length: str, kind: TrapKind) -> None:
        """Traps unless `start + count <= length`; both are widened i32s, so the sum cannot wrap."""
        end = self.derive(f"add i64 {start}, {count}", start, count)
        self.trap_if(self.derive(f"icmp ugt i64 {end}, {length}", end), kind)

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

    # --- Globals and references -----------------------------------------------------------------------------

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
        self.push(self.emit(f"load {ir}, ptr {address}"), t)

    def global_set(self, _: int) -> None:
        address, ir, _t = self.global_cell()
        # Volatile: a trap between two assignments must find the first one done.
        self.do(f"store volatile {ir} {self.pop()}, ptr {address}")

    def ref_null(self, _: int) -> None:
        t = ValType(self.code[self.pc])
        self.pc += 1
        self.push("null" if t == FUNCREF else "0", t)

    def ref_is_null(self, _: int) -> None:
        t = self.types[-1]
        null = "null" if t == FUNCREF else "0"
        self.push_condition(self.emit(f"icmp eq {IR_TYPES[t]} {self.pop()}, {null}"))

    def ref_func(self, _: int) -> None:
        x = self.unsigned()
        self.push(self.field("%vm", self.offsets.func_ref(self.context.func_refs[x])), FUNCREF)

    # --- Tables ---------------------------------------------------------------------------------------------

    def table_definition(self, x: int) -> str:
        return self.load_field("ptr", "%vm", self.offsets.table(x), constant=True)

    def element_address(self, definition: str, index: str) -> str:
        """The address of a table element, after the bounds check."""
        wide = self.widen(index)
        length = self.load_field("i64", definition, VMTableDefinition.CURRENT_ELEMENTS)
        self.trap_if(self.derive(f"icmp uge i64 {wide}, {length}", wide), TrapKind.TABLE_OUT_OF_BOUNDS)
        base = self.load_field("ptr", definition, VMTableDefinition.BASE)
        scaled = self.emit(f"shl i64 {wide}, 3")
        return self.emit(f"getelementptr i8, ptr {base}, i64 {scaled}")

    def table_get(self, _: int) -> None:
        x = self.unsigned()
        t = ValType(self.context.tables[x])
        address = self.element_address(self.table_definition(x), self.pop())
        self.push(self.emit(f"load {IR_TYPES[t]}, ptr {address}"), t)

    def table_set(self, _: int) -> None:
        x = self.unsigned()
        t = ValType(self.context.tables[x])
        value = self.pop()
        address = self.element_address(self.table_definition(x), self.pop())
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
        definition = self.table_definition(self.unsigned())
        length = self.load_field("i64", definition, VMTableDefinition.CURRENT_ELEMENTS)
        self.push(self.emit(f"trunc i64 {length} to i32"), I32)

    def table_grow(self, _: int) -> None:
        x = self.unsigned()
        delta = self.widen(self.pop())
        word = self.element_word(self.pop(), x)
        result = self.builtin("table_grow", f"i32 {x}, i64 {delta}, i64 {word}", "i64")
        self.push(self.emit(f"trunc i64 {result} to i32"), I32)

    def table_fill(self, _: int) -> None:
        x = self.unsigned()
        count = self.widen(self.pop())
        word = self.element_word(self.pop(), x)
        start = self.widen(self.pop())
        self.builtin("table_fill", f"i32 {x}, i64 {start}, i64 {word}, i64 {count}")

    def table_copy(self, _: int) -> None:
        target_table = self.table_definition(self.unsigned())
        source_table = self.table_definition(self.unsigned())
        count, source, target = (self.widen(self.pop()) for _ in range(3))
        ends = []
        for definition, start in ((source_table, source), (target_table, target)):
            length = self.load_field("i64", definition, VMTableDefinition.CURRENT_ELEMENTS)
            self.check_range(start, count, length, TrapKind.TABLE_OUT_OF_BOUNDS)
        for definition, start in ((target_table, target), (source_table, source)):
            base = self.load_field("ptr", definition, VMTableDefinition.BASE)
            ends.append(self.emit(f"getelementptr i64, ptr {base}, i64 {start}"))
        size = self.emit(f"shl i64 {count}, 3")
        self.builtin("memory_move", f"ptr {ends[0]}, ptr {ends[1]}, i64 {size}")

    def table_init(self, _: int) -> None:
        segment = self.unsigned()
        x = self.unsigned()
        count, source, target = (self.widen(self.pop()) for _ in range(3))
        self.builtin("table_init", f"i32 {x}, i32 {segment}, i64 {target}, i64 {source}, i64 {count}")

    def elem_drop(self, _: int) -> None:
        self.builtin("elem_drop", f"i32 {self.unsigned()}")

    # --- Calls ----------------------------------------------------------------------------------------------

    def builtin(self, name: str, arguments: str, result: str = "void") -> str:
        builtins = self.load_field("ptr", "%vm", VMContextOffsets.BUILTINS, constant=True)
        function = self.load_field("ptr", builtins, 8 * BUILTIN_INDEX[name], constant=True)
        call = f"notail call swiftcc {result} {function}(ptr swiftself %vm, {arguments}) #2{self.here()}"
        if result == "void":
            self.do(call)
            return ""
        return self.emit(call)

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
        definition = self.table_definition(self.unsigned())
        address = self.element_address(definition, self.pop())
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
            self.do(f"store {ir} {values[k]}, ptr {self.field('%sc', offset)}")
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
            results[k] = self.emit(f"load {ir}, ptr {self.field('%sc', offset)}")
        for value, t in zip(results, ft.results, strict=True):
            self.push(value, t)

    # --- Control --------------------------------------------------------------------------------------------

    def block_type(self) -> tuple[tuple[ValType, ...], tuple[ValType, ...]]:
        short = _BLOCK_TYPES.get(self.code[self.pc])
        if short is not None:
            self.pc += 1
            return short
        ft = self.context.types[self.signed()]
        return ft.params, ft.results

    def enter_block(self, _: int) -> None:
        params, results = self.block_type()
        frame = _Frame(self.new_label(), params, results, len(self.stack) - len(params))
        self.remember(frame)
        self.frames.append(frame)

    def enter_loop(self, _: int) -> None:
        params, results = self.block_type()
        frame = _Frame(self.new_label(), params, results, len(self.stack) - len(params), is_loop=True)
        values = self.pop_values(len(params))
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

    def enter_if(self, _: int) -> None:
        params, results = self.block_type()
        condition = self.pop_condition()
        values = self.peek_values(len(params))
        frame = _Frame(self.new_label(), params, results, len(self.stack) - len(params))
        frame.else_label = self.new_label()
        frame.else_values = list(values)
        self.remember(frame)
        then = self.new_label()
        self.do(f"br i1 {condition}, label %{then}, label %{frame.else_label}{self.inherited(condition)}")
        self.begin_block(then)
        self.frames.append(frame)

    def begin_else(self, frame: _Frame) -> None:
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

    def fall_through(self, frame: _Frame) -> None:
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

    def write_loop_phis(self, frame: _Frame) -> None:
        """Writes the phis of a loop's parameters. Its results simply stay on the stack: branches go to its start."""
        if frame.params:
            self.out[frame.phi_line] = self.phis(frame.params, frame.edges, frame.phi_first)

    def join(self, frame: _Frame) -> None:
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
        if p.area_results:
            self.needs_store_context = True
        for k, ir, offset in p.area_results:
            self.do(f"store {ir} {values[k]}, ptr {self.field('%sc', offset)}")
        if not p.register_results:
            self.do("ret void")
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
        condition = self.pop_condition()
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

    # --- Unreachable code -----------------------------------------------------------------------------------

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
        for kind in _IMMEDIATES[opcode]:
            self.skip_immediate(kind)

    def skip_immediate(self, kind: Immediate) -> None:
        if kind == Immediate.F32_CONST:
            self.pc += 4
        elif kind == Immediate.F64_CONST:
            self.pc += 8
        elif kind == Immediate.MEMARG:
            self.memory_argument()
        elif kind == Immediate.LABEL_TABLE:
            for _ in range(self.unsigned() + 1):
                self.unsigned()
        elif kind == Immediate.SELECT_TYPES:
            self.pc += self.unsigned()
        else:  # one LEB128 number, whatever its sign; a type is one too
            self.unsigned()


def _hexadecimal(value: float) -> str:
    """A double the way LLVM's text wants exact floats, whatever their type."""
    return f"0x{int.from_bytes(pack('<d', value), 'little'):016X}"


_IMMEDIATES: Final = {opcode: row.immediates for opcode, row in BY_OPCODE.items()}

_SHIFTS: Final = {
    BY_MNEMONIC[f"{n}.{mnemonic}"].opcode: instruction
    for n in ("i32", "i64")
    for mnemonic, instruction in (
        ("shl", "shl"),
        ("shr_s", "ashr"),
        ("shr_u", "lshr"),
        ("rotl", "@llvm.fshl."),
        ("rotr", "@llvm.fshr."),
    )
}

_DIVISIONS: Final = {
    BY_MNEMONIC[f"{n}.{mnemonic}"].opcode: instruction
    for n in ("i32", "i64")
    for mnemonic, instruction in (("div_s", "sdiv"), ("div_u", "udiv"), ("rem_s", "srem"), ("rem_u", "urem"))
}

_SIGN_EXTENSIONS: Final = {
    BY_MNEMONIC["i32.extend8_s"].opcode: (I32, "i8"),
    BY_MNEMONIC["i32.extend16_s"].opcode: (I32, "i16"),
    BY_MNEMONIC["i64.extend8_s"].opcode: (I64, "i8"),
    BY_MNEMONIC["i64.extend16_s"].opcode: (I64, "i16"),
    BY_MNEMONIC["i64.extend32_s"].opcode: (I64, "i32"),
}

_MINIMA: Final = {
    BY_MNEMONIC["f32.min"].opcode: (F32, "minimum"),
    BY_MNEMONIC["f32.max"].opcode: (F32, "maximum"),
    BY_MNEMONIC["f64.min"].opcode: (F64, "minimum"),
    BY_MNEMONIC["f64.max"].opcode: (F64, "maximum"),
}

_Emitter = Callable[[_Translator, int], None]

_EMITTERS: Final[dict[int, _Emitter]] = {
    Opcode.UNREACHABLE: _Translator.unreachable,
    Opcode.NOP: _Translator.nop,
    Opcode.BLOCK: _Translator.enter_block,
    Opcode.LOOP: _Translator.enter_loop,
    Opcode.IF: _Translator.enter_if,
    Opcode.ELSE: _Translator.else_,
    Opcode.END: _Translator.end,
    Opcode.BR: _Translator.br,
    Opcode.BR_IF: _Translator.br_if,
    Opcode.BR_TABLE: _Translator.br_table,
    Opcode.RETURN: _Translator.return_,
    Opcode.CALL: _Translator.call,
    Opcode.CALL_INDIRECT: _Translator.call_indirect,
    Opcode.DROP: _Translator.drop,
    Opcode.SELECT: _Translator.select,
    Opcode.SELECT_TYPED: _Translator.select,
    Opcode.LOCAL_GET: _Translator.local_get,
    Opcode.LOCAL_SET: _Translator.local_set,
    Opcode.LOCAL_TEE: _Translator.local_tee,
    Opcode.GLOBAL_GET: _Translator.global_get,
    Opcode.GLOBAL_SET: _Translator.global_set,
    Opcode.TABLE_GET: _Translator.table_get,
    Opcode.TABLE_SET: _Translator.table_set,
    Opcode.MEMORY_SIZE: _Translator.memory_size,
    Opcode.MEMORY_GROW: _Translator.memory_grow,
    Opcode.I32_CONST: _Translator.i32_const,
    Opcode.I64_CONST: _Translator.i64_const,
    Opcode.F32_CONST: _Translator.f32_const,
    Opcode.F64_CONST: _Translator.f64_const,
    Opcode.REF_NULL: _Translator.ref_null,
    Opcode.REF_IS_NULL: _Translator.ref_is_null,
    Opcode.REF_FUNC: _Translator.ref_func,
    Opcode.MEMORY_INIT: _Translator.memory_init,
    Opcode.DATA_DROP: _Translator.data_drop,
    Opcode.MEMORY_COPY: _Translator.memory_copy,
    Opcode.MEMORY_FILL: _Translator.memory_fill,
    Opcode.TABLE_INIT: _Translator.table_init,
    Opcode.ELEM_DROP: _Translator.elem_drop,
    Opcode.TABLE_COPY: _Translator.table_copy,
    Opcode.TABLE_GROW: _Translator.table_grow,
    Opcode.TABLE_SIZE: _Translator.table_size,
    Opcode.TABLE_FILL: _Translator.table_fill,
    BY_MNEMONIC["i32.eqz"].opcode: _Translator.eqz,
    BY_MNEMONIC["i64.eqz"].opcode: _Translator.eqz,
    **dict.fromkeys(_SHIFTS, _Translator.shift),
    **dict.fromkeys(_DIVISIONS, _Translator.divide),
    **dict.fromkeys(_SIGN_EXTENSIONS, _Translator.sign_extend),
    **dict.fromkeys(_MINIMA, _Translator.minimum_or_maximum),
    **dict.fromkeys(TRUNCATIONS, _Translator.truncate),
    **dict.fromkeys(LOADS, _Translator.load),
    **dict.fromkeys(STORES, _Translator.store),
}
