"""How baseline code tells that it is hot: each function has a counter that its entry and its loops count down, and when
it is below zero they call the builtin `tier_up` through one stub a module.

`function` and `control` place the counts, if the context asks for them; `runtime.tier_up` gives the counters their
values, and answers. A counter is a 32-bit number in a cell of 8 bytes. The cells follow the code pointer slots of a
module's defined functions in the same order, and behind them is a cell with the address of the stub: so code reaches
all of them as it reaches slots.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Assembler, Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import NONE, R10, RAX, RBP, RCX, RDI, RDX, RSI, RSP, SCRATCH, VM, XMM0
from wasmforge.compiler.environ import BUILTIN_INDEX, VMContextOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["count_entry", "count_loop", "emit_calls", "tier_up_stub"]

ITERATIONS: Final = 64
"""So many iterations of loops are told to the counter at once. Those of an activation that are left are forgotten; its
call counts."""

_SMALL: Final = 40
"""Bytes of a body."""

_VECTOR_SIZE: Final = 16
_VECTORS: Final = 16


def count_entry(s: Body) -> None:
    """Counts a call of the function, at the start of its body. Small functions that only compute do not count: those
    that call them do, and take them along."""
    context = s.context
    frame = s.frame
    if not context.counters:
        return
    if frame.count_register >= 0:
        s.immediate(frame.count_register, ITERATIONS)
    if frame.calls or frame.loop_weight or len(s.code) > _SMALL:
        _count(s)


def count_loop(s: Body) -> None:
    """Counts an iteration, at the head of a loop: in a register if there is one to spare, which costs a tenth of what
    memory does."""
    if not s.context.counters:
        return
    r = s.frame.count_register
    if r < 0:
        _count(s)
        return
    s.rr(Op.GROUP5, 0, 1, r)  # dec
    _jump_out(s, r)


def _count(s: Body) -> None:
    s.byte(0xFF)  # dec dword [rip + counter]
    s.byte(0x0D)
    _cell(s, len(s.context.functions) + s.index - s.context.imported_functions)
    _jump_out(s, NONE)


def _jump_out(s: Body, register: i64) -> None:
    """Jumps out of line when what was counted down is negative. All registers stay as they are, the flags do not."""
    s.count_places.append(s.jump_if(Condition.SIGN))
    s.count_starts.append(s.start)
    s.count_registers.append(register)
    s.bound = len(s.out)  # where the code out of line comes back to


def emit_calls(s: Body) -> None:
    """The code out of line, behind the body. Each count has a call of its own, whose return address tells its position
    to backtraces: Python code may run there that raises KeyboardInterrupt."""
    context = s.context
    defined = s.index - context.imported_functions
    n: i64 = 0
    while n < len(s.count_places):
        place: i64 = s.count_places[n]
        r: i64 = s.count_registers[n]
        s.start = s.count_starts[n]
        s.patch(place)
        if r >= 0:
            s.immediate(r, ITERATIONS)
            s.head(Op.SUB_STORE, 0x40 | (r & 8) >> 1)  # sub [rip + counter], r
            s.byte(5 | (r & 7) << 3)
            _cell(s, len(context.functions) + defined)
            s.jump_back(Condition.NO_SIGN, place + 4)
        s.mark(0)
        s.immediate(SCRATCH, defined)
        s.byte(0xFF)  # call [rip + cell]
        s.byte(0x15)
        _cell(s, 2 * len(context.functions) - context.imported_functions)
        s.jump_back(NONE, place + 4)
        n += 1


def _cell(s: Body, number: i64) -> None:
    """A displacement to a cell, in the numbers that `CompiledFunction.call_targets` has for slots."""
    s.call_places.append(len(s.out))
    s.call_targets.append(number)
    s.dword(0)


def tier_up_stub() -> bytes:
    """What counts call with the number of the function, counted without imports, in the scratch register: keeps every
    register that the builtin does not, since a loop may hold values in any of them.

    It has a frame of its own, so that the walk of frame pointers passes through, and no row in the tables.
    """
    kept = (RAX, RCX, RDX, RSI, RDI, R10 - 2, R10 - 1, R10)
    vectors_at = 8 * len(kept)
    a = Assembler()
    a.push_register(RBP)
    a.rr(Op.MOV, 1, RBP, RSP)
    a.group1(5, 1, RSP, vectors_at + _VECTOR_SIZE * _VECTORS)
    for k, r in enumerate(kept):
        a.rm(Op.MOV_STORE, 1, r, RSP, 8 * k)
    for k in range(_VECTORS):
        a.rm(Op.MOVUPS_STORE, 0, XMM0 + k, RSP, vectors_at + _VECTOR_SIZE * k)
    a.rr(Op.MOV, 0, RDI, SCRATCH)
    a.rm(Op.MOV, 1, RAX, VM, VMContextOffsets.BUILTINS)
    a.rm(Op.GROUP5, 0, 2, RAX, 8 * BUILTIN_INDEX["tier_up"])
    for k, r in enumerate(kept):
        a.rm(Op.MOV, 1, r, RSP, 8 * k)
    for k in range(_VECTORS):
        a.rm(Op.MOVAPS, 0, XMM0 + k, RSP, vectors_at + _VECTOR_SIZE * k)
    a.byte(0xC9)  # leave
    a.byte(0xC3)
    return a.out.getvalue()
