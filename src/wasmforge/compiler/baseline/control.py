"""Emitters of control instructions: blocks, branches, jump tables, the ends of everything.

At a label every operand below its values sits in its slot or is a constant, so that all paths to it agree without
looking at each other. A block that nobody branches out of has no label, and its values stay where they are.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import FUNCTION, IF, LOOP, Body, Label
from wasmforge.compiler.baseline.context import AREA, FLOAT, NARROW, VECTOR, results_offset, store_of
from wasmforge.compiler.baseline.counters import count_loop
from wasmforge.compiler.baseline.integer import test_zero
from wasmforge.compiler.baseline.locals import epilogue, skip_immediates, skip_value_type
from wasmforge.compiler.baseline.metering import loop_head, save_fuel
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, NONE, RAX, RBP, SCRATCH, VM, XMM0
from wasmforge.compiler.baseline.values import FLAGS, REG, SLOT
from wasmforge.compiler.environ import VMContextOffsets
from wasmforge.compiler.trap import TrapKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = [
    "branch",
    "branch_if",
    "branch_on_non_null",
    "branch_on_null",
    "branch_table",
    "else_",
    "end",
    "enter",
    "return_",
    "skip_dead",
    "unreachable",
]

_EMPTY: Final = 0x40
_ONE_RESULT: Final = {
    0x7F: bytes((NARROW,)),
    0x7E: b"\0",
    0x7D: bytes((FLOAT | NARROW,)),
    0x7C: bytes((FLOAT,)),
    0x7B: bytes((FLOAT | VECTOR,)),
}
_REFERENCES: Final = {0x70: b"\0", 0x6F: bytes((NARROW,))}
_SHORT: Final[dict[int, bytes]] = {_EMPTY: b"", **_ONE_RESULT, **_REFERENCES}

_COMPARED: Final = 3
"""Branch tables with up to this many entries become comparisons."""


def enter(s: Body, op: i64) -> None:
    """block, loop, if."""
    params = b""
    results: bytes
    short = _SHORT.get(s.code[s.pc])
    if short is not None:
        s.pc += 1
        results = short
    elif s.code[s.pc] == 0x63 or s.code[s.pc] == 0x64:
        # A reference: a handle if it is external, else the address of a function reference.
        results = bytes((NARROW,)) if s.code[s.pc + 1] == 0x6F else b"\0"
        skip_value_type(s)
    else:
        signature = s.context.signature(s.signed())
        params = signature.params
        results = signature.results
    condition: i64 = NONE
    if op == IF:
        condition = pop_condition(s)
    s.flush()
    if params:
        s.spill_top(len(params))
    if op == LOOP:
        s.forget_all()
        s.bound = len(s.out)
    label = Label(op, len(s.out), s.depth - len(params), params, results)
    s.labels.append(label)
    if op == LOOP and s.frame.metered:
        loop_head(s)
    if op == LOOP:
        count_loop(s)
    if op == IF:
        label.else_at = s.jump_if(condition ^ 1)


def pop_condition(s: Body) -> i64:
    """Pops a condition into the flags and returns its code."""
    d = s.depth - 1
    if s.kinds[d] == FLAGS:
        condition: i64 = s.values[d]
        s.drop()
        return condition
    test_zero(s, 0)
    return Condition.NOT_EQUAL


# --- Values at labels --------------------------------------------------------------------------------------------


def _pass_values(s: Body, label: Label) -> None:
    """Copies the topmost operands to where the label wants them, leaving the flags and everything that lives on alone.
    Only for labels whose values are one in a register, or whose slots are where the operands are already."""
    types = label.arity()
    n: i64 = len(types)
    if n == 0:
        return
    if not label.in_register:
        s.spill_top(n)
        return
    r: i64 = XMM0 if types[0] & FLOAT else RAX
    d = s.depth - 1
    k: i64 = s.kinds[d]
    v: i64 = s.values[d]
    if k == REG and v == r:
        return
    s.take(r)
    k = s.kinds[d]
    v = s.values[d]
    s.load(r, k, v, d)
    s.discard(k, v)
    s.replace_top(r)


def _is_simple(s: Body, label: Label) -> bool:
    """Whether `_pass_values` will do."""
    n: i64 = len(label.arity())
    return n == 0 or label.in_register or s.depth - n == label.height


def _move_slots(s: Body, label: Label) -> None:
    """Moves the topmost operands, which are in their slots, down to those of the label. What was there is lost."""
    types = label.arity()
    n: i64 = len(types)
    origin = s.depth - n
    to = label.height
    s.check_size()
    k: i64 = 0
    while k < n:
        s.rm(s.load_op if types[k] & FLOAT else Op.MOVSD, 0, FLOAT_SCRATCH, RBP, s.slot(origin + k))
        s.store_slot(FLOAT_SCRATCH, s.slot(to + k))
        k += 1


def _jump_to(s: Body, label: Label, condition: i64) -> None:
    """Jumps to a label, conditionally unless the condition is negative."""
    if label.kind == LOOP:
        s.jump_back(condition, label.position)
    elif condition < 0:
        label.fixups.append(s.jump())
    else:
        label.fixups.append(s.jump_if(condition))


def _leave(s: Body, label: Label) -> None:
    """An unconditional branch."""
    if _is_simple(s, label):
        _pass_values(s, label)
    else:
        s.spill_top(len(label.arity()))
        _move_slots(s, label)
    _jump_to(s, label, NONE)


# --- Branches ----------------------------------------------------------------------------------------------------


def branch(s: Body) -> None:
    _leave(s, s.labels[-1 - s.unsigned()])
    skip_dead(s)


def return_(s: Body) -> None:
    _leave(s, s.labels[0])
    skip_dead(s)


def unreachable(s: Body) -> None:
    s.trap_here(TrapKind.UNREACHABLE)
    skip_dead(s)


def branch_if(s: Body) -> None:
    label = s.labels[-1 - s.unsigned()]
    _branch_on(s, label, pop_condition(s))


def _branch_on(s: Body, label: Label, condition: i64) -> None:
    if _is_simple(s, label):
        _pass_values(s, label)
        _jump_to(s, label, condition)
        return
    # The slots of the label may be in use on the path that goes on: write them on the other one only.
    s.spill_top(len(label.arity()))
    proceed = s.jump_if(condition ^ 1)
    _move_slots(s, label)
    _jump_to(s, label, NONE)
    s.patch(proceed)


def branch_on_null(s: Body) -> None:
    """br_on_null: the reference goes on when it is not null."""
    label = s.labels[-1 - s.unsigned()]
    r = s.pop_owned(False)
    if label.in_register and r == RAX:
        # Where the value of the label is to be.
        r = s.alloc()
        s.move(r, RAX)
        s.release(RAX)
    if _is_simple(s, label):
        _pass_values(s, label)
        s.rr(Op.TEST, 1, r, r)
        _jump_to(s, label, Condition.EQUAL)
    else:
        s.spill_top(len(label.arity()))
        s.rr(Op.TEST, 1, r, r)
        proceed = s.jump_if(Condition.NOT_EQUAL)
        _move_slots(s, label)
        _jump_to(s, label, NONE)
        s.patch(proceed)
    s.push(REG, r)


def branch_on_non_null(s: Body) -> None:
    """br_on_non_null: the reference is the last of the label's values, and gone on the other path."""
    label = s.labels[-1 - s.unsigned()]
    r = s.pop_owned(False)
    s.rr(Op.TEST, 1, r, r)
    s.push(REG, r)
    _branch_on(s, label, Condition.NOT_EQUAL)
    s.drop()
    s.discard(s.kinds[s.depth], s.values[s.depth])


def branch_table(s: Body) -> None:
    depths: list[int] = []
    n = s.unsigned()
    k: i64 = 0
    while k <= n:
        depths.append(s.unsigned())
        k += 1
    r = s.pop_owned(False)
    # Values are passed once for all labels of a kind; labels that want them in other slots get a block of their own.
    hops = False
    for depth in depths:
        label = s.labels[-1 - depth]
        if not _is_simple(s, label):
            hops = True
    default = s.labels[-1 - depths[n]]
    arity: i64 = len(default.arity())
    if hops or arity:
        r = _pass_to_all(s, depths, r)
    if n <= _COMPARED and not hops:
        k = 0
        while k < n:
            s.group1(7, 0, r, k)
            _jump_to(s, s.labels[-1 - depths[k]], Condition.EQUAL)
            k += 1
        _jump_to(s, default, NONE)
    else:
        _jump_table(s, depths, r, hops)
    s.release(r)
    skip_dead(s)


def _pass_to_all(s: Body, depths: list[int], r: i64) -> i64:
    """Puts the operands that a table carries where all its labels find them: in slots, if any label wants slots, and in
    the result register, if any wants that. Returns the register of the index, which may have moved."""
    types = s.labels[-1 - depths[-1]].arity()
    in_register = False
    in_slots = False
    for depth in depths:
        if s.labels[-1 - depth].in_register:
            in_register = True
        else:
            in_slots = True
    # Keep the index out of the way, on the stack.
    if in_slots:
        s.spill_top(len(types))
    if in_register:
        target: i64 = XMM0 if types[0] & FLOAT else RAX
        d = s.depth - 1
        if s.kinds[d] == REG and s.values[d] == target:
            return r
        if r == target:
            r = s.alloc()
            s.move(r, target)
        else:
            s.take(target)
        s.load(target, s.kinds[d], s.values[d], d)
        if in_slots:
            s.release(target)
        else:
            s.discard(s.kinds[d], s.values[d])
            s.replace_top(target)
    return r


def _jump_table(s: Body, depths: list[int], r: i64, hops: bool) -> None:
    """`br_table` by an indirect jump. Entries beyond the table take the last one (specification, section 4.4.8)."""
    n: i64 = len(depths) - 1
    s.immediate(SCRATCH, n)
    s.rr(Op.CMP, 0, r, SCRATCH)
    s.rr(Op.CMOVCC | Condition.ABOVE_EQUAL, 0, r, SCRATCH)
    # lea scratch, [rip + table]
    s.head(Op.LEA, 0x4C)
    s.byte(0x05 | (SCRATCH & 7) << 3)
    s.table_places.append(len(s.out))
    s.dword(0)
    s.rx(Op.MOVSXD, 1, r, SCRATCH, r, 2, 0)
    s.rr(Op.ADD, 1, SCRATCH, r)
    s.rr(Op.GROUP5, 0, 4, SCRATCH)
    first: i64 = len(s.table_entries)
    s.table_starts.append(first)
    s.table_entries.extend([0] * len(depths))
    made: dict[int, int] = {}
    k: i64 = 0
    while k <= n:
        depth = depths[k]
        label = s.labels[-1 - depth]
        if hops and not _is_simple(s, label):
            hop = made.get(depth)
            if hop is None:
                hop = len(s.out)
                made[depth] = hop
                s.count_bulk(len(label.arity()))
                _move_slots(s, label)
                _jump_to(s, label, NONE)
            s.table_entries[first + k] = hop
        elif label.kind == LOOP:
            s.table_entries[first + k] = label.position
        else:
            label.fixups.append(-1 - (first + k))
        k += 1


# --- Ends --------------------------------------------------------------------------------------------------------


def skip_dead(s: Body) -> None:
    """Passes over code that is not reached, up to the `else` or `end` of the current block."""
    code = s.code
    nested: i64 = 0
    while True:
        op: i64 = code[s.pc]
        if op == 0x0B or op == 0x05:
            if nested == 0:
                break
            if op == 0x0B:
                nested -= 1
        elif 0x02 <= op <= 0x04:
            nested += 1
        s.pc += 1
        skip_immediates(s, op)
    s.dead = True


def _bind(s: Body, fixups: list[int]) -> None:
    """Lets all jumps of a label arrive here."""
    out = s.out
    # A jump to what follows it does nothing, unless something else arrives between.
    if fixups and fixups[-1] == len(out) - 4 and out[len(out) - 5] == 0xE9 and s.bound != len(out):
        fixups.pop()
        out.truncate(len(out) - 5)
    here: i64 = len(out)
    for place in fixups:
        if place >= 0:
            s.patch_to(place, here)
        else:
            s.table_entries[-1 - place] = here
    if fixups:
        s.bound = here


def _restart(s: Body, height: i64) -> None:
    """The state at a label: nothing in registers."""
    s.forget_all()
    s.cut(height)
    s.floor = height
    s.free = s.pool


def else_(s: Body) -> None:
    label = s.labels[-1]
    if not s.dead:
        _leave(s, label)
    s.dead = False
    s.patch(label.else_at)
    label.else_at = NONE
    _restart(s, label.height)
    n: i64 = len(label.params)
    s.count_bulk(n)
    while n > 0:
        s.push(SLOT, 0)
        n -= 1
    s.floor = s.depth


def end(s: Body) -> None:
    label = s.labels[-1]
    if label.kind == FUNCTION:
        _end_function(s, label)
        return
    if not label.fixups and label.else_at < 0:
        # Nobody branches here: operands and copies of locals stay where they are.
        s.labels.pop()
        if s.dead:
            s.cut(label.height)
            skip_dead(s)
        return
    if not s.dead:
        if _is_simple(s, label):
            _pass_values(s, label)
        else:
            s.spill_top(len(label.results))
            _move_slots(s, label)
    _bind(s, label.fixups)
    if label.else_at >= 0:
        # Without an else, the parameters are the results, and are in their slots.
        s.patch(label.else_at)
    s.labels.pop()
    s.dead = False
    _restart(s, label.height)
    _push_results(s, label)


def _push_results(s: Body, label: Label) -> None:
    if label.in_register:
        r: i64 = XMM0 if label.results[0] & FLOAT else RAX
        s.lock(r)
        s.push(REG, r)
        return
    n: i64 = len(label.results)
    s.count_bulk(n)
    while n > 0:
        s.push(SLOT, 0)
        n -= 1
    s.floor = s.depth


def _end_function(s: Body, label: Label) -> None:
    """The end of the body: results to where the caller expects them (rule 4)."""
    if not s.dead:
        if _is_simple(s, label):
            _pass_values(s, label)
        else:
            s.spill_top(len(label.results))
            _move_slots(s, label)
    reached = not s.dead or len(label.fixups) > 0
    _bind(s, label.fixups)
    s.labels.pop()
    if not reached:
        return
    if not label.in_register and len(label.results):
        _return_from_slots(s, label)
    if s.frame.fuel_at:
        save_fuel(s)
    epilogue(s, s.frame)


def _return_from_slots(s: Body, label: Label) -> None:
    places = s.frame.signature.result_places
    if s.frame.signature.uses_area:
        s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
    k: i64 = 0
    while k < len(places):
        place: i64 = places[k]
        at = s.slot(k)
        if place >= AREA:
            s.rm(s.load_op, 0, FLOAT_SCRATCH, RBP, at)
            s.rm(store_of(label.results[k]), 0, FLOAT_SCRATCH, SCRATCH, results_offset(place))
        else:
            s.load_slot(place, at)
        k += 1
