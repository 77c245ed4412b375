"""A function body being compiled: operands and registers (`values.State`), the blocks around the current instruction,
trap sites, calls to resolve, and jump tables. Every emitter of this room takes a `Body`; `function` makes and empties
it.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.buffer import Buffer
from wasmforge.compiler.baseline.context import Context, Signature
from wasmforge.compiler.baseline.locals import Frame
from wasmforge.compiler.baseline.registers import NONE, RAX, RDI, VM
from wasmforge.compiler.baseline.values import State
from wasmforge.compiler.environ import BUILTIN_INDEX, VMContextOffsets
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import FuncType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from mypy_extensions import i64

__all__ = ["BLOCK", "FUNCTION", "IF", "LOOP", "NOT_A_NUMBER", "Body", "Label"]

FUNCTION: Final = 0
BLOCK: Final = 2
LOOP: Final = 3
IF: Final = 4

NOT_A_NUMBER: Final = 0x100
"""Kind of a trap site that first tells NaN (BAD_CONVERSION_TO_INTEGER) from numbers (INTEGER_OVERFLOW); the
vector register to look at is added to it."""

CODE_LIMIT: Final = 128 << 20
"""Bytes of machine code of a function: a body of the largest size that is no attack takes a quarter of it."""


class Label:
    """An open block.

    A branch to it passes its values in rax or xmm0 when it is one and `in_register`, else in slots from `height` on.
    `fixups` are the places of jumps to its end, or `-1 - k` for entry `k` of the jump tables.
    """

    def __init__(self, kind: i64, position: i64, height: i64, params: bytes, results: bytes) -> None:
        self.kind: i64 = kind
        self.position: i64 = position
        self.height: i64 = height
        self.params = params
        self.results = results
        self.fixups: list[int] = []
        self.else_at: i64 = NONE
        self.in_register = len(results) == 1 and len(params) == 0 and kind != LOOP

    def arity(self) -> bytes:
        """The types that a branch carries."""
        return self.params if self.kind == LOOP else self.results


class Body(State):
    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.frame = Frame(context, Signature(FuncType((), ())))
        self.labels: list[Label] = []
        self.dead = False
        self.vector_instruction: Callable[[Body], None] | None = None
        """`vector_rows.instruction`, from the first function with vectors on."""
        # Trap sites: the place of the jump to each, its kind, the position of its instruction.
        self.trap_places: list[int] = []
        self.trap_kinds: list[int] = []
        self.trap_starts: list[int] = []
        # Checks of fuel and epochs: the place of the jump, where it comes back to, what is checked, the instruction.
        self.check_places: list[int] = []
        self.check_resumes: list[int] = []
        self.check_kinds: list[int] = []
        self.check_starts: list[int] = []
        # Calls of functions of the module: place of the displacement, function index.
        self.call_places: list[int] = []
        self.call_targets: list[int] = []
        # Counts: the place of the jump of each, the position of its instruction, the register counted in or `NONE`.
        self.count_places: list[int] = []
        self.count_starts: list[int] = []
        self.count_registers: list[int] = []
        # Jump tables: place of the displacement of each and its first entry; entries are positions in the code.
        self.table_places: list[int] = []
        self.table_starts: list[int] = []
        self.table_entries: list[int] = []

    def begin(self, index: int, code: bytes, frame: Frame) -> None:
        """Empties everything for the next function."""
        self.index = index
        self.code = code
        self.frame = frame
        self.out = Buffer()
        self.constants = {}
        self.vector_constants = {}
        self.literals = []
        self.bound = -1
        self.tested_at = -1
        self.pc = 0
        self.start = 0
        self.depth = 0
        self.floor = 0
        self.deepest = 0
        self.bulk = 0
        self.fuel = 0
        self.rows = []
        self.labels = []
        self.dead = False
        self.trap_places = []
        self.trap_kinds = []
        self.trap_starts = []
        self.check_places = []
        self.check_resumes = []
        self.check_kinds = []
        self.check_starts = []
        self.call_places = []
        self.call_targets = []
        self.count_places = []
        self.count_starts = []
        self.count_registers = []
        self.table_places = []
        self.table_starts = []
        self.table_entries = []

    # --- Traps ----------------------------------------------------------------------------------------------

    def trap_if(self, condition: i64, kind: i64) -> None:
        """Traps at the current instruction if the condition holds, out of line."""
        self.trap_places.append(self.jump_if(condition))
        self.trap_kinds.append(kind)
        self.trap_starts.append(self.start)

    def trap_always(self, kind: i64) -> None:
        """Traps at the current instruction. What is emitted behind is never reached."""
        self.trap_places.append(self.jump())
        self.trap_kinds.append(kind)
        self.trap_starts.append(self.start)

    def trap_here(self, kind: i64) -> None:
        """Traps. Each site has a call of its own, whose return address tells its position."""
        self.mark(0)
        self.immediate(RDI, kind)
        self.rm(Op.MOV, 1, RAX, VM, VMContextOffsets.BUILTINS)
        self.rm(Op.GROUP5, 0, 2, RAX, 8 * BUILTIN_INDEX["trap"])

    def emit_traps(self) -> None:
        """The trap sites, behind the body."""
        n: i64 = 0
        while n < len(self.trap_places):
            self.start = self.trap_starts[n]
            kind: i64 = self.trap_kinds[n]
            self.patch(self.trap_places[n])
            if kind >= NOT_A_NUMBER:
                x = kind - NOT_A_NUMBER
                self.rr(Op.UCOMISD, 0, x, x)
                self.trap_if(Condition.PARITY, TrapKind.BAD_CONVERSION_TO_INTEGER)
                kind = TrapKind.INTEGER_OVERFLOW
            self.trap_here(kind)
            n += 1

    # --- The end --------------------------------------------------------------------------------------------

    def check_size(self) -> None:
        if len(self.out) > CODE_LIMIT:
            raise WasmtimeError(
                f"function {self.index} is too large to compile: more than {CODE_LIMIT} bytes of machine code"
            )

    def assemble(self, prologue: Buffer) -> bytes:
        """The whole function: prologue, body, constants, jump tables."""
        shift: i64 = len(prologue)
        out = prologue
        out.write(self.out.getvalue())
        self.out = out
        self.align()
        for literal, displacements in self.vector_constants.items():
            n: i64 = 0
            while n < len(displacements):
                self.patch_to(displacements[n] + shift, len(out) - displacements[n + 1])
                n += 2
            out.write(literal)
        for constant, places in self.constants.items():
            for place in places:
                self.patch_to(place + shift, len(out))
            self.qword(constant)
        k: i64 = 0
        while k < len(self.table_places):
            start: i64 = self.table_starts[k]
            end: i64 = len(self.table_entries)
            if k + 1 < len(self.table_starts):
                end = self.table_starts[k + 1]
            at: i64 = len(out)
            self.patch_to(self.table_places[k] + shift, at)
            while start < end:
                self.dword(self.table_entries[start] + shift - at)
                start += 1
            k += 1
        return out.getvalue()

    def align(self) -> None:
        if self.vector_constants:
            while len(self.out) & 15:
                self.out.append(0xCC)
        if self.constants or self.table_places:
            while len(self.out) & 7:
                self.out.append(0xCC)
