"""Emitters of calls: of functions of the module, imports, table elements, and the runtime's builtins; and of the
instructions that are calls of builtins with checks before.

The convention is that of `compiler.environ`. Before a call everything below the arguments moves to slots, except
locals, which are in callee-saved registers or in their homes.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.access import add_base, check_element
from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.context import (
    AREA,
    NARROW,
    Signature,
    load_of,
    overflow_offset,
    results_offset,
    store_of,
)
from wasmforge.compiler.baseline.control import skip_dead
from wasmforge.compiler.baseline.locals import leave, parallel_move
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, PRESERVED, R10, RAX, RBP, SCRATCH, VM, XMM0
from wasmforge.compiler.baseline.values import CONST, REG, SLOT
from wasmforge.compiler.environ import (
    BUILTIN_INDEX,
    BUILTINS,
    VMContextOffsets,
    VMDataSegment,
    VMFuncRef,
    VMFunctionImport,
    VMMemory,
    VMMemoryDefinition,
    VMTableDefinition,
)
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.types import FuncType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = [
    "call",
    "call_builtin",
    "call_indirect",
    "call_ref",
    "memory_grow",
    "prefixed",
    "return_call",
    "return_call_indirect",
    "return_call_ref",
]

_DIRECT: Final = 0
_IMPORT: Final = 1
_INDIRECT: Final = 2
_BUILTIN: Final = 3

_SIGNATURES: Final = [Signature(FuncType(b.params, () if b.result is None else (b.result,))) for b in BUILTINS]


def call(s: Body) -> None:
    x = s.unsigned()
    signature = s.context.signature(s.context.functions[x])
    if x < s.context.imported_functions:
        _emit(s, signature, _IMPORT, s.context.offsets.imported_function(x))
    else:
        _emit(s, signature, _DIRECT, x)


def return_call(s: Body) -> None:
    x = s.unsigned()
    signature = s.context.signature(s.context.functions[x])
    if x < s.context.imported_functions:
        _emit_tail_call(s, signature, _IMPORT, s.context.offsets.imported_function(x))
    else:
        _emit_tail_call(s, signature, _DIRECT, x)


def call_indirect(s: Body) -> None:
    signature = _table_function(s)
    _emit(s, signature, _INDIRECT, 0)


def return_call_indirect(s: Body) -> None:
    signature = _table_function(s)
    _emit_tail_call(s, signature, _INDIRECT, 0)


def call_ref(s: Body) -> None:
    signature = _referenced_function(s)
    _emit(s, signature, _INDIRECT, 0)


def return_call_ref(s: Body) -> None:
    signature = _referenced_function(s)
    _emit_tail_call(s, signature, _INDIRECT, 0)


def _pop_into_r10(s: Body) -> None:
    """Where no argument travels."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    if k != REG or v != R10:
        s.take(R10)
        s.load(R10, k, v, i)
        s.discard(k, v)


def _referenced_function(s: Body) -> Signature:
    """Leaves the function reference of a `call_ref` in r10, checked. Returns the signature."""
    type_index = s.unsigned()
    _pop_into_r10(s)
    s.rr(Op.TEST, 1, R10, R10)
    s.trap_if(Condition.EQUAL, TrapKind.NULL_REFERENCE)
    return s.context.signature(type_index)


def _table_function(s: Body) -> Signature:
    """Leaves the function reference of a `call_indirect` in r10, checked. Returns the signature."""
    type_index = s.unsigned()
    x = s.unsigned()
    _pop_into_r10(s)
    check_element(s, x, R10)
    s.rx(Op.MOV, 1, R10, SCRATCH, R10, 3, 0)
    s.rr(Op.TEST, 1, R10, R10)
    s.trap_if(Condition.EQUAL, TrapKind.INDIRECT_CALL_TO_NULL)
    s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.TYPE_IDS)
    s.rm(Op.MOV, 0, SCRATCH, SCRATCH, 4 * type_index)
    s.rm(Op.CMP, 0, SCRATCH, R10, VMFuncRef.TYPE_INDEX)
    s.trap_if(Condition.NOT_EQUAL, TrapKind.BAD_SIGNATURE)
    return s.context.signature(type_index)


def call_builtin(s: Body, name: str) -> None:
    """Calls a builtin with the topmost operands."""
    x = BUILTIN_INDEX[name]
    _emit(s, _SIGNATURES[x], _BUILTIN, 8 * x)


def _emit(s: Body, signature: Signature, kind: i64, target: i64) -> None:
    n: i64 = len(signature.params)
    s.count_bulk(n)
    s.check_size()
    height = s.depth - n
    i = s.floor
    while i < height:
        if s.kinds[i] == REG:
            s.spill(i)
        i += 1
    for x in s.frame.volatile:
        s.store_slot(s.pins[x], s.homes[x])
    if n:
        _arguments(s, signature, height)
    s.forget_all()
    s.cut(height)
    s.free = s.pool
    s.mark(0)
    if kind == _DIRECT:
        if s.context.slots:
            s.byte(0xFF)
            s.byte(0x15)
        else:
            s.byte(0xE8)
        _target(s, target)
        if s.context.tail_callers and target in s.context.tail_callers:
            # A tail call of the callee may have left the vmctx of another instance there.
            s.rm(Op.MOV, 1, VM, RBP, -8)
    elif kind == _BUILTIN:
        s.rm(Op.MOV, 1, RAX, VM, VMContextOffsets.BUILTINS)
        s.rm(Op.GROUP5, 0, 2, RAX, target)
    else:
        # The callee runs with its own vmctx, so we put ours back.
        _foreign(s, kind, target)
        s.rr(Op.MOV, 1, VM, SCRATCH)
        s.rr(Op.GROUP5, 0, 2, RAX)
        s.rm(Op.MOV, 1, VM, RBP, -8)
    for x in s.frame.volatile:
        s.load_slot(s.pins[x], s.homes[x])
    if len(signature.results):
        _results(s, signature)


def _target(s: Body, function: i64) -> None:
    """The displacement of a call or jump to a function of the module, to be resolved later."""
    s.call_places.append(len(s.out))
    s.call_targets.append(function)
    s.dword(0)


def _foreign(s: Body, kind: i64, target: i64) -> None:
    """For a call of what may be in another instance: its code to rax, its vmctx to the scratch register, ours to
    r10."""
    if kind == _IMPORT:
        s.rm(Op.MOV, 1, RAX, VM, target + VMFunctionImport.WASM_CALL)
        s.rm(Op.MOV, 1, SCRATCH, VM, target + VMFunctionImport.VMCTX)
    else:
        s.rm(Op.MOV, 1, RAX, R10, VMFuncRef.WASM_CALL)
        s.rm(Op.MOV, 1, SCRATCH, R10, VMFuncRef.VMCTX)
    s.rr(Op.MOV, 1, R10, VM)


def _emit_tail_call(s: Body, signature: Signature, kind: i64, target: i64) -> None:
    """Leaves the function for another one: what its caller gave it to preserve is back in its place, and the return
    address on top of the stack, when that one begins. There are no arguments on the stack, ever."""
    n: i64 = len(signature.params)
    s.count_bulk(n)
    s.check_size()
    height = s.depth - n
    if n:
        _arguments(s, signature, height)
    s.forget_all()
    s.cut(height)
    s.free = s.pool
    if kind != _DIRECT:
        _foreign(s, kind, target)
    leave(s, s.frame)
    if kind == _DIRECT:
        if s.context.slots:
            s.byte(0xFF)
            s.byte(0x25)
        else:
            s.byte(0xE9)
        _target(s, target)
    else:
        s.rr(Op.MOV, 1, VM, SCRATCH)
        s.rr(Op.GROUP5, 0, 4, RAX)
    skip_dead(s)


def _arguments(s: Body, signature: Signature, height: i64) -> None:
    """Moves the topmost operands to where the callee expects them. Those in registers move at once, the others are
    loaded when these are out of the way."""
    places = signature.param_places
    n: i64 = len(places)
    to = s.frame.moves_to
    origin = s.frame.moves_from
    area = False
    late = False
    k: i64
    v: i64
    i: i64 = 0
    while i < n:
        if places[i] >= AREA:
            area = True
        i += 1
    if area:
        s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
    i = 0
    while i < n:
        k = s.kinds[height + i]
        v = s.values[height + i]
        place: i64 = places[i]
        if place >= AREA:
            _store_argument(s, k, v, height + i, overflow_offset(place), store_of(signature.params[i]))
        else:
            r = s.where(k, v)
            if r >= 0 and not PRESERVED >> r & 1:
                to.append(place)
                origin.append(r)
                s.kinds[height + i] = REG
            else:
                late = True
        i += 1
    if to:
        parallel_move(s, to, origin)
    if late:
        i = 0
        while i < n:
            k = s.kinds[height + i]
            if k != REG and places[i] < AREA:
                s.load(places[i], k, s.values[height + i], height + i)
            i += 1


def _store_argument(s: Body, k: i64, v: i64, i: i64, offset: i64, op: i64) -> None:
    """Stores an operand to the overflow area, whose owner is in the scratch register. `op` is for vector registers."""
    r = s.where(k, v)
    if r < 0:
        s.load(FLOAT_SCRATCH, k, v, i)
        r = FLOAT_SCRATCH
    if r >= XMM0:
        s.rm(op, 0, r, SCRATCH, offset)
    else:
        s.rm(Op.MOV_STORE, 1, r, SCRATCH, offset)


def _results(s: Body, signature: Signature) -> None:
    """Pushes the results, integers of 32 bits zero-extended. Those in the area go to their slots now."""
    places = signature.result_places
    n: i64 = len(places)
    s.count_bulk(n)
    k: i64 = 0
    area = False
    while k < n:
        place: i64 = places[k]
        if place >= AREA:
            if not area:
                s.rm(Op.MOV, 1, SCRATCH, VM, VMContextOffsets.STORE_CONTEXT)
                area = True
            s.rm(load_of(signature.results[k]), 0, FLOAT_SCRATCH, SCRATCH, results_offset(place))
            s.store_slot(FLOAT_SCRATCH, s.slot(s.depth))
            s.push(SLOT, 0)
        else:
            if signature.results[k] == NARROW:
                s.rr(Op.MOV, 0, place, place)
            s.lock(place)
            s.push(REG, place)
        k += 1


# --- Instructions that are calls of builtins -------------------------------------------------------------------------


def memory_grow(s: Body) -> None:
    memory = s.unsigned()
    s.push(CONST, memory)
    call_builtin(s, "memory_grow")
    if not s.context.memory_wide[memory]:
        _narrow_result(s)


def _narrow_result(s: Body) -> None:
    """The builtin's result is an i64 of which the instruction wants the lower half: -1 for failure."""
    r = s.pop_owned(False)
    s.rr(Op.MOV, 0, r, r)
    s.push(REG, r)


def prefixed(s: Body, number: i64) -> None:
    """Bulk memory and table instructions: opcode FC, then a number."""
    if number == 8:
        _memory_init(s)
    elif number == 9:
        x = s.unsigned()
        s.rm(Op.MOV_IMMEDIATE, 1, 0, VM, s.context.offsets.data_segment(x) + VMDataSegment.LENGTH)
        s.dword(0)
    elif number == 10:
        _memory_copy(s)
    elif number == 11:
        _memory_fill(s)
    elif number == 12:
        _table_init(s)
    elif number == 13:
        s.push(CONST, s.unsigned())
        call_builtin(s, "elem_drop")
    elif number == 14:
        _table_copy(s)
    elif number == 15:
        _table_grow(s)
    else:
        _table_fill(s)


def _end(s: Body, start: i64, count: i64, wide: bool, kind: i64) -> None:
    """Leaves `start + count` in the scratch register. Zero-extended i32s cannot wrap; i64s trap when they do."""
    if wide:
        s.rr(Op.MOV, 1, SCRATCH, start)
        s.rr(Op.ADD, 1, SCRATCH, count)
        s.trap_if(Condition.BELOW, kind)
    else:
        s.rx(Op.LEA, 1, SCRATCH, start, count, 0, 0)


def _memory_length(s: Body, memory: i64, start: i64, count: i64) -> None:
    """Traps unless `count` bytes from `start` on are within a memory."""
    length = s.alloc()
    s.rm(Op.MOV, 1, length, VM, s.context.offsets.memory(memory) + VMMemory.DEFINITION)
    _end(s, start, count, s.context.memory_wide[memory], TrapKind.MEMORY_OUT_OF_BOUNDS)
    s.rm(Op.CMP, 1, SCRATCH, length, VMMemoryDefinition.CURRENT_LENGTH)
    s.release(length)
    s.trap_if(Condition.ABOVE, TrapKind.MEMORY_OUT_OF_BOUNDS)


def _move(s: Body, target: i64, source: i64, count: i64) -> None:
    """Calls memory_move with three owned registers."""
    s.push(REG, target)
    s.push(REG, source)
    s.push(REG, count)
    call_builtin(s, "memory_move")


def _memory_copy(s: Body) -> None:
    to = s.unsigned()
    origin = s.unsigned()
    count = s.pop_owned(False)
    source = s.pop_owned(False)
    target = s.pop_owned(False)
    _memory_length(s, origin, source, count)
    _memory_length(s, to, target, count)
    add_base(s, origin, source)
    add_base(s, to, target)
    _move(s, target, source, count)


def _memory_fill(s: Body) -> None:
    memory = s.unsigned()
    count = s.pop_owned(False)
    byte = s.pop_owned(False)
    target = s.pop_owned(False)
    _memory_length(s, memory, target, count)
    add_base(s, memory, target)
    s.push(REG, target)
    s.push(REG, byte)
    s.push(REG, count)
    call_builtin(s, "memory_set")


def _memory_init(s: Body) -> None:
    segment: i64 = s.context.offsets.data_segment(s.unsigned())
    memory = s.unsigned()
    count = s.pop_owned(False)
    source = s.pop_owned(False)
    target = s.pop_owned(False)
    length = s.alloc()
    s.rm(Op.MOV, 0, length, VM, segment + VMDataSegment.LENGTH)
    s.rx(Op.LEA, 1, SCRATCH, source, count, 0, 0)
    s.rr(Op.CMP, 1, SCRATCH, length)
    s.release(length)
    s.trap_if(Condition.ABOVE, TrapKind.MEMORY_OUT_OF_BOUNDS)
    _memory_length(s, memory, target, count)
    s.rm(Op.ADD, 1, source, VM, segment + VMDataSegment.BASE)
    add_base(s, memory, target)
    _move(s, target, source, count)


def _table_length(s: Body, table: i64, start: i64, count: i64) -> None:
    """Traps unless `count` elements from `start` on are within a table."""
    length = s.alloc()
    s.rm(Op.MOV, 1, length, VM, s.context.offsets.table(table))
    _end(s, start, count, s.context.table_wide[table], TrapKind.TABLE_OUT_OF_BOUNDS)
    s.rm(Op.CMP, 1, SCRATCH, length, VMTableDefinition.CURRENT_ELEMENTS)
    s.release(length)
    s.trap_if(Condition.ABOVE, TrapKind.TABLE_OUT_OF_BOUNDS)


def _element(s: Body, table: i64, index: i64) -> None:
    """Turns an index into the address of a table element."""
    s.rm(Op.MOV, 1, SCRATCH, VM, s.context.offsets.table(table))
    s.rm(Op.MOV, 1, SCRATCH, SCRATCH, VMTableDefinition.BASE)
    s.rx(Op.LEA, 1, index, SCRATCH, index, 3, 0)


def _table_copy(s: Body) -> None:
    to = s.unsigned()
    origin = s.unsigned()
    count = s.pop_owned(False)
    source = s.pop_owned(False)
    target = s.pop_owned(False)
    _table_length(s, origin, source, count)
    _table_length(s, to, target, count)
    _element(s, origin, source)
    _element(s, to, target)
    s.rr(Op.SHIFT_IMMEDIATE, 1, 4, count)
    s.byte(3)
    _move(s, target, source, count)


def _table_init(s: Body) -> None:
    segment = s.unsigned()
    table = s.unsigned()
    count = s.pop_owned(False)
    source = s.pop_owned(False)
    target = s.pop_owned(False)
    s.push(CONST, table)
    s.push(CONST, segment)
    s.push(REG, target)
    s.push(REG, source)
    s.push(REG, count)
    call_builtin(s, "table_init")


def _table_grow(s: Body) -> None:
    table = s.unsigned()
    delta = s.pop_owned(False)
    word = s.pop_owned(False)
    s.push(CONST, table)
    s.push(REG, delta)
    s.push(REG, word)
    call_builtin(s, "table_grow")
    if not s.context.table_wide[table]:
        _narrow_result(s)


def _table_fill(s: Body) -> None:
    table = s.unsigned()
    count = s.pop_owned(False)
    word = s.pop_owned(False)
    start = s.pop_owned(False)
    s.push(CONST, table)
    s.push(REG, start)
    s.push(REG, word)
    s.push(REG, count)
    call_builtin(s, "table_fill")
