"""Fuel and epochs in the baseline compiler: what is emitted before instructions, at entry and at the heads of loops
when the tunables ask for it (`compiler/metering.py` has the rules).

A function keeps its count of fuel in a slot of its frame. What happens when fuel or time is over stands behind the body
and calls a builtin, which keeps the integer registers, and traps or lets the guest go on.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, NONE, RBP, RDI, SCRATCH, VM, XMM0
from wasmforge.compiler.baseline.values import FLAGS
from wasmforge.compiler.environ import BUILTIN_INDEX, StoreContext, VMContextOffsets
from wasmforge.compiler.metering import CALLS, ENTRY_COST, FREE, JOINS, LEAVES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["after_call", "before", "begin", "emit_checks", "loop_head", "save_fuel"]

_COSTS: Final = 1
_JOINS: Final = 2
_LEAVES: Final = 4

_RULES: Final = bytes(
    (0 if opcode in FREE else _COSTS) | (_JOINS if opcode in JOINS else 0) | (_LEAVES if opcode in LEAVES else 0)
    for opcode in range(256)
)
IS_CALL: Final = bytes(opcode in CALLS for opcode in range(256))

_FUEL: Final = 0
_EPOCH: Final = 1


def begin(s: Body) -> None:
    """At entry, behind the prologue. Copies of parameters in registers do not survive the checks."""
    frame = s.frame
    if frame.fuel_at:
        _load_fuel(s)
        s.fuel = ENTRY_COST
    s.forget_all()
    loop_head(s)


def loop_head(s: Body) -> None:
    """Checks where everything is in slots and homes: at entry and at the head of a loop."""
    frame = s.frame
    if frame.fuel_at:
        if s.fuel:
            _add_fuel(s)
        else:
            s.group1_memory(7, 1, RBP, frame.fuel_at, 0)
        _check(s, _FUEL, Condition.NO_SIGN)
    if s.context.tunables.epoch_interruption:
        s.group1_memory(7, 0, VM, VMContextOffsets.DEADLINE_PASSED, 0)
        _check(s, _EPOCH, Condition.NOT_EQUAL)


def before(s: Body, op: i64) -> None:
    """Accounts for an instruction that is about to be compiled."""
    rules: i64 = _RULES[op]
    if rules & _COSTS:
        s.fuel += 1
    if rules & _JOINS:
        if s.fuel:
            _add_fuel(s)
        if rules & _LEAVES:
            save_fuel(s)


def after_call(s: Body) -> None:
    """The callee has changed the store's count. Results in registers stay where they are."""
    _load_fuel(s)


def save_fuel(s: Body) -> None:
    """Gives the count back to the store."""
    s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
    s.rm(Op.MOVSD, 0, FLOAT_SCRATCH, RBP, s.frame.fuel_at)
    s.rm(Op.MOVSD_STORE, 0, FLOAT_SCRATCH, SCRATCH, StoreContext.FUEL_CONSUMED)


def _load_fuel(s: Body) -> None:
    s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
    s.rm(Op.MOVSD, 0, FLOAT_SCRATCH, SCRATCH, StoreContext.FUEL_CONSUMED)
    s.store_slot(FLOAT_SCRATCH, s.frame.fuel_at)


def _add_fuel(s: Body) -> None:
    """Adds the costs so far to the count, and keeps a condition that waits in the flags."""
    at: i64 = s.frame.fuel_at
    if s.depth and s.kinds[s.depth - 1] == FLAGS:
        s.rm(Op.MOV, 1, SCRATCH, RBP, at)
        s.rm(Op.LEA, 1, SCRATCH, SCRATCH, s.fuel)
        s.rm(Op.MOV_STORE, 1, SCRATCH, RBP, at)
    else:
        s.group1_memory(0, 1, RBP, at, s.fuel)
    s.fuel = 0


def _check(s: Body, what: i64, condition: i64) -> None:
    s.check_places.append(s.jump_if(condition))
    s.check_resumes.append(len(s.out))
    s.check_kinds.append(what)
    s.check_starts.append(s.start)
    s.bound = len(s.out)


def emit_checks(s: Body) -> None:
    """What the checks lead to, behind the body."""
    frame = s.frame
    n: i64 = 0
    while n < len(s.check_places):
        s.start = s.check_starts[n]
        s.patch(s.check_places[n])
        for x in frame.volatile:
            if s.pins[x] >= XMM0:
                s.store_slot(s.pins[x], s.homes[x])
        fuel = s.check_kinds[n] == _FUEL
        if fuel:
            save_fuel(s)
        s.mark(0)
        s.rr(Op.MOV, 1, RDI, VM)
        s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.BUILTINS)
        s.rm(Op.GROUP5, 0, 2, SCRATCH, 8 * BUILTIN_INDEX["out_of_fuel" if fuel else "new_epoch"])
        if fuel:
            _load_fuel(s)
        for x in frame.volatile:
            if s.pins[x] >= XMM0:
                s.load_slot(s.pins[x], s.homes[x])
        s.jump_back(NONE, s.check_resumes[n])
        n += 1
