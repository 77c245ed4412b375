"""Locals: a scan that weighs their uses, the choice of those that live in registers, and the frame around the body.

`function` calls `begin` before it compiles a body and `prologue` after it, when it is known what the frame needs; the
epilogue is part of the body.

Frame, downwards from rbp: saved registers, homes of locals, slots of the operand stack.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.context import (
    AREA,
    FLOAT,
    NARROW,
    VECTOR,
    Context,
    Signature,
    load_of,
    overflow_offset,
)
from wasmforge.compiler.baseline.registers import (
    BASE,
    FLOAT_PINS,
    FLOAT_POOL,
    FLOAT_SCRATCH,
    LEAF_BASE,
    LEAF_PINS,
    NONE,
    PINS,
    POOL,
    RBP,
    RCX,
    RDX,
    RSP,
    SCRATCH,
    VECTOR_PINS,
    VM,
    VOLATILE,
    VOLATILE_PINS,
    XMM0,
)
from wasmforge.compiler.baseline.values import State
from wasmforge.compiler.environ import STACK_PROBE_SIZE, VMContextOffsets, VMMemory
from wasmforge.syntax.atomics import FENCE
from wasmforge.syntax.instructions import BY_OPCODE, Immediate, Opcode
from wasmforge.syntax.types import F32, F64, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["Frame", "begin", "epilogue", "leave", "prologue", "reset", "skip_immediates", "skip_value_type"]

# What follows an opcode, for walks that only pass over it.
_ONE: Final = 1
_TWO: Final = 2
_MEMARG: Final = 3
_BLOCK: Final = 4
_LABELS: Final = 5
_FOUR_BYTES: Final = 6
_EIGHT_BYTES: Final = 7
_TYPES: Final = 8
_PREFIX: Final = 9
_END: Final = 10
_CALL: Final = 11
_CALL_INDIRECT: Final = 12
_GROW: Final = 13
_VECTOR: Final = 14
_MEMARG_LANE: Final = 15
_SIXTEEN_BYTES: Final = 16
_CALL_REF: Final = 17
_TAIL_CALL: Final = 18
_TAIL_CALL_INDIRECT: Final = 19
_ATOMIC: Final = 20


def _shape(opcode: int) -> int:
    named = {
        0xFC: _PREFIX,
        0xFD: _VECTOR,
        0xFE: _ATOMIC,
        Opcode.END: _END,
        Opcode.CALL: _CALL,
        Opcode.CALL_INDIRECT: _CALL_INDIRECT,
        Opcode.MEMORY_GROW: _GROW,
        Opcode.CALL_REF: _CALL_REF,
        Opcode.RETURN_CALL: _TAIL_CALL,
        Opcode.RETURN_CALL_REF: _TAIL_CALL,
        Opcode.RETURN_CALL_INDIRECT: _TAIL_CALL_INDIRECT,
    }
    if opcode in named:
        return named[opcode]
    row = BY_OPCODE.get(opcode)
    if row is None or not row.immediates:
        return 0
    special = {
        Immediate.MEMARG: _MEMARG,
        Immediate.BLOCK_TYPE: _BLOCK,
        Immediate.LABEL_TABLE: _LABELS,
        Immediate.F32_CONST: _FOUR_BYTES,
        Immediate.F64_CONST: _EIGHT_BYTES,
        Immediate.SELECT_TYPES: _TYPES,
    }
    return special.get(row.immediates[0], len(row.immediates))


SHAPE: Final = bytes(_shape(opcode) for opcode in range(256))

_PREFIXED_IMMEDIATES: Final = bytes(
    len(BY_OPCODE[0xFC000 | n].immediates) if 0xFC000 | n in BY_OPCODE else 0 for n in range(32)
)
_VECTOR_SHAPES: Final = {
    (): 0,
    (Immediate.LANE,): _ONE,
    (Immediate.MEMARG,): _MEMARG,
    (Immediate.MEMARG, Immediate.LANE): _MEMARG_LANE,
    (Immediate.LANES,): _SIXTEEN_BYTES,
    (Immediate.V128_CONST,): _SIXTEEN_BYTES,
}
VECTOR_SHAPE: Final = bytes(
    _VECTOR_SHAPES[BY_OPCODE[0xFD000 | n].immediates] if 0xFD000 | n in BY_OPCODE else 0 for n in range(0x114)
)
_MEMORY_INIT: Final = Opcode.MEMORY_INIT & 0xFF  # those before it are saturating conversions
_DATA_DROP: Final = Opcode.DATA_DROP & 0xFF
_MEMORY_FILL: Final = Opcode.MEMORY_FILL & 0xFF

_FENCE: Final = FENCE

_GLOBAL_GET: Final = 0x23
_CALL_FUNCTION: Final = 0x10
_CALL_TABLE: Final = 0x11
_CALL_REFERENCE: Final = 0x14
_V128_BLOCK: Final = V128 - 0x80

_LOOP_WEIGHT: Final = 8
_HEAVIEST: Final = 4096
_WORTH_SAVING: Final = 3
"""Uses from which on a local pays for saving and restoring the register that it gets."""


def skip_immediates(s: State, op: i64) -> None:
    """Passes over the immediates of an opcode whose byte has been read."""
    code = s.code
    shape: i64 = SHAPE[op]
    n: i64
    if shape == 0 or shape == _END:
        return
    if shape == _VECTOR:
        shape = VECTOR_SHAPE[s.unsigned()]
        if shape == 0:
            return
        if shape == _SIXTEEN_BYTES:
            s.pc += 16
            return
    if shape == _ATOMIC:
        shape = _ONE if s.unsigned() == _FENCE else _MEMARG
    if shape == _MEMARG:
        n = 3 if code[s.pc] & 0x40 else 2
    elif shape == _MEMARG_LANE:
        n = 4 if code[s.pc] & 0x40 else 3
    elif shape == _LABELS:
        n = s.unsigned() + 1
    elif shape == _FOUR_BYTES:
        s.pc += 4
        return
    elif shape == _EIGHT_BYTES:
        s.pc += 8
        return
    elif shape == _TYPES:
        n = s.unsigned()
        while n > 0:
            skip_value_type(s)
            n -= 1
        return
    elif shape == _BLOCK:
        skip_value_type(s)
        return
    elif shape == _PREFIX:
        n = _PREFIXED_IMMEDIATES[s.unsigned()]
    elif shape in (_TWO, _CALL_INDIRECT, _TAIL_CALL_INDIRECT):
        n = 2
    else:
        n = 1
    pc = s.pc
    while n > 0:
        while code[pc] >= 0x80:
            pc += 1
        pc += 1
        n -= 1
    s.pc = pc


def skip_value_type(s: State) -> None:
    """Passes over a value type, or a block type: one number, behind a prefix in reference types that are no byte."""
    code = s.code
    pc = s.pc
    if code[pc] == 0x63 or code[pc] == 0x64:
        pc += 1
    while code[pc] >= 0x80:
        pc += 1
    s.pc = pc + 1


class Frame:
    """What is special about the function being compiled."""

    def __init__(self, context: Context, signature: Signature) -> None:
        self.context = context
        self.signature = signature
        self.touched: list[int] = []
        """The locals that the body names, in order of appearance."""
        self.calls = False
        self.call_weight: i64 = 0
        """Calls, weighed like uses of locals."""
        self.volatile: list[int] = []
        """Pinned locals that are saved around calls."""
        self.foreign_calls = False
        """Whether there are calls after which the vmctx register is another one: of imports, through references, and of
        functions that make tail calls."""
        self.vectors = False
        """Whether there may be values of 16 bytes."""
        self.memory_weights: list[int] = [0] * len(context.memory_wide)
        """Accesses to each memory, weighed like uses of locals."""
        tunables = context.tunables
        self.metered = tunables.consume_fuel or tunables.epoch_interruption
        self.fuel_at: i64 = 0
        """Displacement of the count of fuel, 0 without (`metering`)."""
        self.loop_weight: i64 = 0
        """Of the innermost loop; 0 without loops."""
        self.count_register: i64 = NONE
        """Holds the iterations left until the counter is told, if it has got a register (`counters`)."""
        self.saved: list[int] = []
        self.moves_to: list[int] = []
        self.moves_from: list[int] = []

    def heaviest_memory(self) -> i64:
        """The memory whose base deserves a register, or `NONE`."""
        best: i64 = NONE
        heaviest: i64 = 0
        for x, weight in enumerate(self.memory_weights):
            if weight > heaviest:
                heaviest = weight
                best = x
        return best


def begin(s: State, frame: Frame, runs: tuple[tuple[int, int], ...]) -> None:
    """Scans the body and decides where each local lives. Leaves `s` as it is behind the prologue."""
    _scan(s, frame)
    _classify(s, frame, runs)
    if frame.context.vectors_pass and not frame.vectors:
        _find_vectors(s, frame)
    s.stride = 16 if frame.vectors else 8
    s.load_op = Op.MOVUPS if frame.vectors else Op.MOVSD
    s.store_op = Op.MOVUPS_STORE if frame.vectors else Op.MOVSD_STORE
    if frame.metered:
        frame.calls = True  # of the builtins behind the checks
    leaf = not frame.calls
    s.base = NONE
    s.pool = POOL | FLOAT_POOL
    s.base_memory = frame.heaviest_memory()
    if s.base_memory >= 0:
        s.base = LEAF_BASE if leaf else BASE
        if leaf:
            one: i64 = 1
            s.pool &= ~(one << LEAF_BASE)
        else:
            frame.saved.append(BASE)
    if frame.foreign_calls:
        # First, so that its place is fixed: calls load the own vmctx back from there.
        frame.saved.insert(0, VM)
    if leaf:
        _pin(s, frame, LEAF_PINS, False)
    else:
        _pin(s, frame, PINS, False)
        _pin(s, frame, VOLATILE_PINS, False)
    _pin(s, frame, VECTOR_PINS if frame.vectors else FLOAT_PINS, True)
    _place(s, frame)
    s.free = s.pool
    s.cached = 0
    s.evicted = 0
    _remember_params(s, frame)


def _scan(s: State, frame: Frame) -> None:
    """Weighs the uses of locals by eight for every loop around them, and finds out what the function does."""
    code = s.code
    end: i64 = len(code)
    pc: i64 = 0
    op: i64
    x: i64
    shape: i64
    weight: i64 = 1
    outer: list[int] = []
    weights = s.weights
    size: i64 = len(weights)
    touched = frame.touched
    imported: i64 = frame.context.imported_functions
    tail_callers = frame.context.tail_callers
    while pc < end:
        op = code[pc]
        pc += 1
        if 0x20 <= op <= 0x22:
            x = code[pc]
            pc += 1
            if x >= 0x80:
                s.pc = pc - 1
                x = s.unsigned()
                pc = s.pc
            if x >= size:
                more = x + 64 - size
                weights.extend([0] * more)
                s.pins.extend([NONE] * more)
                s.homes.extend([0] * more)
                s.floats.extend([False] * more)
                s.copies.extend([NONE] * more)
                size = len(weights)
            if weights[x] == 0:
                touched.append(x)
            weights[x] += weight
            continue
        shape = SHAPE[op]
        if shape == 0:
            continue
        if shape == _END:
            if outer:
                weight = outer.pop()
        elif shape == _ONE:
            while code[pc] >= 0x80:
                pc += 1
            pc += 1
        elif shape == _MEMARG:
            s.pc = pc
            frame.memory_weights[_accessed_memory(s)] += weight
            s.pc = pc
            skip_immediates(s, op)
            pc = s.pc
        elif shape == _BLOCK:
            outer.append(weight)
            if op == 0x03:
                if weight < _HEAVIEST:
                    weight *= _LOOP_WEIGHT
                if weight > frame.loop_weight:
                    frame.loop_weight = weight
            s.pc = pc
            skip_value_type(s)
            pc = s.pc
        else:
            s.pc = pc
            if shape == _CALL:
                frame.calls = True
                frame.call_weight += weight
                x = s.unsigned()
                if x < imported or (tail_callers and x in tail_callers):
                    frame.foreign_calls = True
            else:
                if shape in (_CALL_INDIRECT, _CALL_REF):
                    frame.calls = True
                    frame.call_weight += weight
                    frame.foreign_calls = True
                elif shape == _VECTOR:
                    frame.vectors = True
                    shape = VECTOR_SHAPE[s.unsigned()]
                    if shape in (_MEMARG, _MEMARG_LANE):
                        frame.memory_weights[_accessed_memory(s)] += weight
                    s.pc = pc
                elif shape == _ATOMIC:
                    x = s.unsigned()
                    if x < _FENCE:  # notify and wait
                        frame.calls = True
                        frame.call_weight += weight
                    elif x > _FENCE:
                        frame.memory_weights[_accessed_memory(s)] += weight
                    s.pc = pc
                elif shape == _GROW:
                    frame.calls = True
                    frame.call_weight += weight
                elif shape >= _TAIL_CALL:
                    frame.calls = True
                elif shape == _PREFIX and code[pc] >= _MEMORY_INIT:
                    frame.calls = True
                    frame.call_weight += weight
                    if code[pc] <= _MEMORY_FILL and code[pc] != _DATA_DROP:
                        frame.memory_weights[_bulk_memory(code, pc)] += weight
                skip_immediates(s, op)
            pc = s.pc
    s.pc = 0


def _find_vectors(s: State, frame: Frame) -> None:
    """Looks for vectors that come from elsewhere: from a global, a call, or into a block."""
    code = s.code
    context = frame.context
    end: i64 = len(code)
    while s.pc < end and not frame.vectors:
        op: i64 = code[s.pc]
        s.pc += 1
        at = s.pc
        if op == _GLOBAL_GET:
            frame.vectors = context.globals[s.unsigned()] == V128
        elif op == _CALL_FUNCTION:
            frame.vectors = V128 in context.types[context.functions[s.unsigned()]].results
        elif op in (_CALL_TABLE, _CALL_REFERENCE):
            frame.vectors = V128 in context.types[s.unsigned()].results
        elif 0x02 <= op <= 0x04:
            block = s.signed()
            frame.vectors = block == _V128_BLOCK if block < 0 else V128 in context.types[block].results
        s.pc = at
        skip_immediates(s, op)
    s.pc = 0


def _accessed_memory(s: State) -> i64:
    """The memory that a memarg names; the caller puts `s.pc` where it wants it."""
    if not s.code[s.pc] & 0x40:
        return 0
    s.unsigned()
    return s.unsigned()


def _bulk_memory(code: bytes, pc: i64) -> i64:
    """The memory that memory.init, memory.copy or memory.fill writes; `pc` is behind the prefix. An encoding longer
    than needed counts for memory 0, which only costs speed."""
    x: i64 = code[pc + 2] if code[pc] == _MEMORY_INIT else code[pc + 1]
    return x if x < 0x80 and code[pc + 1] < 0x80 else 0


def _classify(s: State, frame: Frame, runs: tuple[tuple[int, int], ...]) -> None:
    """Finds the class of each local in use: parameters by position, the others by bisection in the runs (threat: a few
    bytes declare 50,000 locals, in each of a million functions)."""
    params = frame.signature.params
    count: i64 = len(params)
    ends: list[int] = []
    types: list[int] = []
    total: i64 = count
    for n, t in runs:
        total += n
        ends.append(total)
        types.append(t)
    for x in frame.touched:
        if x < count:
            s.floats[x] = params[x] & FLOAT != 0
            if params[x] & VECTOR:
                frame.vectors = True
            continue
        low: i64 = 0
        high: i64 = len(ends)
        while low < high:
            middle: i64 = (low + high) >> 1
            if ends[middle] <= x:
                low = middle + 1
            else:
                high = middle
        t = types[low]
        s.floats[x] = t in (F32, F64, V128)
        if t == V128:
            frame.vectors = True


def _pin(s: State, frame: Frame, registers: bytes, is_float: bool) -> None:
    """Gives registers to the heaviest locals of a class, for which they pay."""
    one: i64 = 1
    for r in registers:
        if r == s.base:
            continue
        volatile = VOLATILE >> r & 1
        if volatile and not s.pool >> r & 1:
            continue
        best: i64 = NONE
        heaviest: i64 = _WORTH_SAVING - 1
        if volatile:
            heaviest = _WORTH_SAVING * frame.call_weight
        for x in frame.touched:
            if s.weights[x] > heaviest and s.pins[x] < 0 and s.floats[x] == is_float:
                best = x
                heaviest = s.weights[x]
        if frame.loop_weight > heaviest and frame.context.counters and _pin_count(s, frame, r):
            continue
        if best < 0:
            if volatile:
                return
            continue
        if not volatile:
            s.pins[best] = r
            frame.saved.append(r)
            continue
        if not frame.calls:
            r = _arrival(s, frame, best, r)
        s.pins[best] = r
        s.pool &= ~(one << r)
        if frame.calls:
            frame.volatile.append(best)


def _pin_count(s: State, frame: Frame, r: i64) -> bool:
    """Gives a register to the count of iterations, which is used once in each; not one that calls destroy."""
    if frame.count_register >= 0 or r >= XMM0 or (frame.calls and VOLATILE >> r & 1):
        return False
    frame.count_register = r
    if VOLATILE >> r & 1:
        one: i64 = 1
        s.pool &= ~(one << r)
    else:
        frame.saved.append(r)
    return True


def _arrival(s: State, frame: Frame, x: i64, r: i64) -> i64:
    """The register in which local `x` arrives, if it is a parameter and can stay there, else `r`. Divisions, shifts and
    results take rdx, rcx and xmm0 for themselves."""
    places = frame.signature.param_places
    if x < len(places):
        place: i64 = places[x]
        if place < AREA and place not in (RDX, RCX, XMM0) and s.pool >> place & 1:
            return place
    return r


def _place(s: State, frame: Frame) -> None:
    """Assigns homes to the locals that are not pinned: parameters first, the zeroed ones together behind them; then to
    those that are saved around calls."""
    stride = s.stride
    at: i64 = -8 * len(frame.saved)
    at = (at & -stride) - stride
    count: i64 = len(frame.signature.params)
    for x in frame.touched:
        if x < count and s.pins[x] < 0:
            s.homes[x] = at
            at -= stride
    for x in frame.touched:
        if x >= count and s.pins[x] < 0:
            s.homes[x] = at
            at -= stride
    for x in frame.volatile:
        s.homes[x] = at
        at -= stride
    if frame.context.tunables.consume_fuel:
        frame.fuel_at = at
        at -= stride
    s.slots_at = at


def _remember_params(s: State, frame: Frame) -> None:
    """Parameters with a home are still in their registers at the start of the body."""
    places = frame.signature.param_places
    for x in frame.touched:
        if x < len(places) and places[x] < AREA and s.pins[x] < 0:
            s.remember(x, places[x])


def reset(s: State, frame: Frame) -> None:
    """Clears what `begin` has set, in time proportional to the locals in use."""
    for x in frame.touched:
        s.weights[x] = 0
        s.pins[x] = NONE
        s.copies[x] = NONE


def epilogue(s: State, frame: Frame) -> None:
    """Restores the saved registers and returns. No guest memory is accessed from here on (rule 7)."""
    leave(s, frame)
    s.byte(0xC3)


def leave(s: State, frame: Frame) -> None:
    """Restores the saved registers, rsp and rbp."""
    at: i64 = -8
    for r in frame.saved:
        if r != VM:  # whoever changes it puts it back at once
            s.rm(Op.MOV, 1, r, RBP, at)
        at -= 8
    s.byte(0xC9)  # leave


def prologue(s: State, frame: Frame) -> None:
    """Emits the prologue into `s.out`, which the caller has exchanged for a new one."""
    out = s.out
    s.push_register(RBP)
    s.rr(Op.MOV, 1, RBP, RSP)
    for r in frame.saved:
        s.push_register(r)
    saved: i64 = 8 * len(frame.saved)
    size: i64 = s.stride * (s.deepest - 1) - s.slots_at
    size = ((size + 15) & ~15) - saved
    _extend_stack(s, size)
    if s.base >= 0:
        s.rm(Op.MOV, 1, s.base, VM, frame.context.offsets.memory(s.base_memory) + VMMemory.BASE)
    _receive_params(s, frame)
    _zero_locals(s, frame)
    assert out is s.out


def _extend_stack(s: State, size: i64) -> None:
    """Lowers rsp by `size`. A large frame touches each step, so that it cannot jump over the guard (rule 7)."""
    if size > STACK_PROBE_SIZE:
        steps: i64 = size // STACK_PROBE_SIZE
        s.immediate(SCRATCH, steps)
        again: i64 = len(s.out)
        s.group1(5, 1, RSP, STACK_PROBE_SIZE)
        s.rm(Op.TEST, 1, RSP, RSP, 0)
        s.group1(5, 0, SCRATCH, 1)
        s.jump_back(Condition.NOT_EQUAL, again)
        size -= steps * STACK_PROBE_SIZE
    if size:
        s.group1(5, 1, RSP, size)


def _receive_params(s: State, frame: Frame) -> None:
    """Moves the parameters in use to their locals. Integers of 32 bits are extended on the way (rule 2)."""
    signature = frame.signature
    count: i64 = len(signature.params)
    area = False
    x: i64
    for x in frame.touched:
        if x >= count:
            continue
        place: i64 = signature.param_places[x]
        if place >= AREA:
            area = True
            continue
        flags: i64 = signature.params[x]
        pin: i64 = s.pins[x]
        if flags == NARROW:
            s.rr(Op.MOV, 0, place, place)
        if pin < 0:
            s.store_slot(place, s.homes[x])
        else:
            frame.moves_to.append(pin)
            frame.moves_from.append(place)
    parallel_move(s, frame.moves_to, frame.moves_from)
    if not area:
        return
    s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
    for x in frame.touched:
        if x < count and signature.param_places[x] >= AREA:
            offset = overflow_offset(signature.param_places[x])
            flags = signature.params[x]
            pin = s.pins[x]
            if 0 <= pin < XMM0:
                s.rm(Op.MOV, 0 if flags & NARROW else 1, pin, SCRATCH, offset)
                continue
            to: i64 = pin if pin >= 0 else FLOAT_SCRATCH
            s.rm(load_of(flags), 0, to, SCRATCH, offset)
            if pin < 0:
                s.store_slot(to, s.homes[x])


def _zero_locals(s: State, frame: Frame) -> None:
    """Gives declared locals their default value (specification, section 4.4.10)."""
    count: i64 = len(frame.signature.params)
    lowest: i64 = 0
    zeroed: i64 = 0
    for x in frame.touched:
        if x < count:
            continue
        pin: i64 = s.pins[x]
        if pin >= XMM0:
            s.rr(Op.XORPS, 0, pin, pin)
        elif pin >= 0:
            s.rr(Op.XOR, 0, pin, pin)
        else:
            lowest = s.homes[x]  # homes of declared locals are assigned downwards, without gaps
            zeroed += 1
    if zeroed == 0:
        return
    if zeroed == 1 and s.stride == 8:
        s.rm(Op.MOV_IMMEDIATE, 1, 0, RBP, lowest)
        s.dword(0)
        return
    s.rr(Op.XORPS, 0, FLOAT_SCRATCH, FLOAT_SCRATCH)
    remaining = zeroed * s.stride
    while remaining >= 16:
        s.rm(Op.MOVUPS_STORE, 0, FLOAT_SCRATCH, RBP, lowest)
        lowest += 16
        remaining -= 16
    if remaining:
        s.store_slot(FLOAT_SCRATCH, lowest)


def parallel_move(s: State, to: list[int], origin: list[int]) -> None:
    """Moves registers as if at once, by way of the scratch registers where they form circles. Empties the lists."""
    n: i64 = len(to)
    i: i64
    j: i64
    while n > 0:
        progress = False
        i = 0
        while i < n:
            target: i64 = to[i]
            j = 0
            while j < n and (j == i or origin[j] != target):
                j += 1
            if j == n:
                s.move(target, origin[i])
                n -= 1
                to[i] = to[n]
                origin[i] = origin[n]
                progress = True
            else:
                i += 1
        if not progress:
            blocked: i64 = origin[0]
            scratch: i64 = FLOAT_SCRATCH if blocked >= XMM0 else SCRATCH
            s.move(scratch, blocked)
            # Whoever else wants this value must not: destinations differ, and a source may serve several.
            i = 0
            while i < n:
                if origin[i] == blocked:
                    origin[i] = scratch
                i += 1
    to.clear()
    origin.clear()
