"""The builder of one function: the state of a translation and what every emitter needs of it. The emitters of
`numeric`, `memories`, `references`, `calls` and `control` extend it, `translate.py` drives it.
"""

from __future__ import annotations

from typing import Final

from wasmforge.compiler.environ import (
    BUILTIN_INDEX,
    VMContextOffsets,
)
from wasmforge.compiler.llvm.context import BOOL, IR_TYPES, ModuleContext
from wasmforge.compiler.llvm.prototype import Prototype
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_OPCODE, Immediate, Opcode
from wasmforge.syntax.types import F32, F64, FUNCREF, I32, I64, FuncType, ValType, representation

__all__ = ["FLOAT_NAMES", "IMMEDIATES", "PREFIXES", "Frame", "FunctionBuilder", "FunctionSource"]

REMEMBERED: Final = 64
"""So many locals and addresses are remembered across blocks: enough for what is hot, and little to copy for each of
100,000 nested blocks."""

SHORT_BLOCK: Final = 500
"""Lines of IR in a block when blocks are kept short."""

FLOAT_NAMES: Final = {F32: "f32", F64: "f64"}
PREFIXES: Final = frozenset({0xFC, 0xFD, 0xFE})
_REFERENCE_PREFIXES: Final = (0x63, 0x64)
"""What reference types begin with that are not one byte: `ref null` and `ref`."""

_CONDITION_CONSUMERS: Final = frozenset({Opcode.BR_IF, Opcode.IF, Opcode.SELECT, Opcode.SELECT_TYPED, 0x45})

IMMEDIATES: Final = {opcode: row.immediates for opcode, row in BY_OPCODE.items()}


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


class Frame:
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


class FunctionBuilder:
    """The output, the operand stack, the control stack and what is remembered; no instruction."""

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
        self.short_blocks = short_blocks
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
        self.frames: list[Frame] = []
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
        # Of vectors (see `vectors.py`): what was computed with another type than the value that represents it, that
        # value cast to other types in this straight line, and what came from memory.
        self.origins: dict[str, tuple[str, str]] = {}
        self.casts: dict[tuple[str, str], str] = {}
        self.loaded: set[str] = set()
        self.memories_used: set[int] = set()
        self.needs_store_context = False
        self.uniform = source.index in context.tail_callers
        self.zero_floats: set[ValType] = set()
        self.branch_values = 0
        self.fuel = context.tunables.consume_fuel
        self.epochs = context.tunables.epoch_interruption
        self.fuel_pending = 0  # what the instructions since the last addition to the count of fuel cost
        self.late: list[str] = []  # blocks out of line, as text

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
        return self.emit(f"call {ir} @llvm.arithmetic.fence.{FLOAT_NAMES[t]}({ir} {operand})")

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

    def local_value(self, x: int) -> str:
        """What a local holds."""
        value = self.known_locals.get(x)
        if value is None:
            self.allocas.add(x)
            value = self.known_locals[x] = self.emit(f"load {IR_TYPES[self.local_types[x]]}, ptr %l{x}")
        return value

    def assign_local(self, x: int, value: str) -> None:
        self.allocas.add(x)
        self.known_locals[x] = value
        self.do(f"store {IR_TYPES[self.local_types[x]]} {value}, ptr %l{x}")

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
        self.casts.clear()

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
            if opcode in PREFIXES:
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
            for kind in IMMEDIATES[opcode]:
                self.skip_immediate(kind)
        self.pc = 0
        return found

    def remember(self, frame: Frame) -> None:
        """Notes in a new frame what is known where its block begins."""
        if len(self.known_locals) <= REMEMBERED:
            frame.known_locals = dict(self.known_locals)
        if len(self.addresses) <= REMEMBERED:
            frame.addresses = dict(self.addresses)
        frame.modified = self.modified[self.start]

    def recall(self, frame: Frame) -> None:
        """At a place that only the frame's block leads to: what was known at its beginning and was not assigned to."""
        self.addresses = dict(frame.addresses)
        self.known_locals = {}
        if frame.modified is not None:
            self.known_locals = {x: v for x, v in frame.known_locals.items() if x not in frame.modified}

    def is_null(self, value: str, t: ValType) -> str:
        """Whether a reference is null, as an i1."""
        null = "null" if t == FUNCREF else "0"
        return self.derive(f"icmp eq {IR_TYPES[t]} {value}, {null}", value)

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

    def check_range(self, start: str, count: str, length: str, kind: TrapKind, wide: bool = False) -> None:
        """Traps unless `start + count <= length`. Without `wide` both are widened i32s, so that the sum cannot wrap."""
        end = self.derive(f"add i64 {start}, {count}", start, count)
        beyond = self.derive(f"icmp ugt i64 {end}, {length}", end)
        if wide:
            wrapped = self.derive(f"icmp ult i64 {end}, {start}", end, start)
            beyond = self.derive(f"or i1 {wrapped}, {beyond}", wrapped, beyond)
        self.trap_if(beyond, kind)

    def field(self, base: str, offset: int) -> str:
        return self.emit(f"getelementptr i8, ptr {base}, i64 {offset}")

    def load_field(self, t: str, base: str, offset: int, constant: bool = False) -> str:
        """Loads from a record of the runtime; `constant` if the field never changes while the function runs."""
        address = self.field(base, offset)
        return self.emit(f"load {t}, ptr {address}" + (", !invariant.load !0" if constant else ""))

    def index(self, wide: bool) -> str:
        """Pops an index or a length as an i64: one of i64 as it is if `wide`, else one of i32 zero-extended."""
        operand = self.pop()
        return operand if wide else self.widen(operand)

    def push_index(self, value: str, wide: bool) -> None:
        """Pushes an i64 as the type of an index: truncated unless `wide`."""
        if wide:
            self.push(value, I64)
        else:
            self.push(self.emit(f"trunc i64 {value} to i32"), I32)

    def widen(self, operand: str) -> str:
        """An i32 operand as an unsigned i64."""
        if operand[0] != "%":
            return str(int(operand) & 0xFFFF_FFFF)
        return self.derive(f"zext i32 {operand} to i64", operand)

    def builtin(self, name: str, arguments: str, result: str = "void") -> str:
        builtins = self.load_field("ptr", "%vm", VMContextOffsets.BUILTINS, constant=True)
        function = self.load_field("ptr", builtins, 8 * BUILTIN_INDEX[name], constant=True)
        call = f"notail call swiftcc {result} {function}(ptr swiftself %vm, {arguments}) #2{self.here()}"
        if result == "void":
            self.do(call)
            return ""
        return self.emit(call)

    # --- Types ---------------------------------------------------------------------------------------------

    def value_type(self) -> ValType:
        """Reads a value type, as machine code knows it."""
        first = self.code[self.pc]
        self.pc += 1
        return self.heap_type() if first in _REFERENCE_PREFIXES else ValType(first)

    def heap_type(self) -> ValType:
        """Reads a heap type, as machine code knows references to it."""
        first = self.code[self.pc]
        # A type index is a non-negative number, and every type that has one is a function type.
        return FUNCREF if self.signed() >= 0 else representation(first)

    # --- Immediates ---------------------------------------------------------------------------------------------

    def memory_argument(self) -> tuple[int, int]:
        """Memory index and offset of a load or store."""
        alignment = self.unsigned()
        memory = self.unsigned() if alignment & 0x40 else 0
        return memory, self.unsigned()

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
            for _ in range(self.unsigned()):
                self.value_type()
        elif kind == Immediate.BLOCK_TYPE and self.code[self.pc] in _REFERENCE_PREFIXES:
            self.value_type()
        elif kind == Immediate.LANE or kind == Immediate.ORDERING:
            self.pc += 1
        elif kind == Immediate.LANES or kind == Immediate.V128_CONST:
            self.pc += 16
        else:  # one LEB128 number, whatever its sign; a type is one too
            self.unsigned()
