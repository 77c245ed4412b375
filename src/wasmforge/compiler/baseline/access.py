"""Emitters that reach beyond the frame: loads and stores, memory.size, globals, table elements.

An address is base + index + offset in one machine operand; what is compared with the memory's length before, and when
nothing has to be, is written in `compiler/memory_plan.py`. (THREAT: an access that neither faults nor traps would read
or write the process's memory. The runtime keeps the other half of the bargain, `runtime/vm/memory.py`.)
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import NONE, SCRATCH, VM
from wasmforge.compiler.baseline.rows import ALU, CLASS, ENCODING, FLOAT_LOAD, FLOAT_STORE, NUMBER, WIDE
from wasmforge.compiler.baseline.values import CONST, REG
from wasmforge.compiler.environ import VMMemory, VMMemoryDefinition, VMTableDefinition
from wasmforge.compiler.memory_plan import UNREACHABLE_SIZE
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_OPCODE
from wasmforge.syntax.types import EXTERNREF, F32, F64, I32, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = [
    "add_base",
    "check_element",
    "emit_access",
    "emit_operand",
    "folded_offset",
    "global_get",
    "global_set",
    "load",
    "memory_size",
    "ref_func",
    "store",
    "table_get",
    "table_set",
    "table_size",
    "take_address",
    "whole_offset",
]

_SIZE: Final = bytes(BY_OPCODE[opcode].access if opcode in BY_OPCODE else 0 for opcode in range(256))
_MAY_FAULT: Final = 1 + TrapKind.MEMORY_OUT_OF_BOUNDS
_I64_LOAD: Final = 0x29
_UNREACHABLE: Final = 0x1000000000000000
assert _UNREACHABLE == UNREACHABLE_SIZE


def whole_offset(s: Body) -> i64:
    """Reads a memarg: the memory goes to `s.memory`, the offset is returned."""
    s.memory = 0
    if s.code[s.pc] & 0x40:
        s.unsigned()
        s.memory = s.unsigned()
    else:
        s.pc += 1
    return s.unsigned()


def folded_offset(s: Body) -> i64:
    """Reads a memarg; the offset is cut where every access traps anyway. Its low bits stay, since an atomic access that
    is not aligned has a trap of its own."""
    offset = whole_offset(s)
    # From 2**63 on, the number is negative where this is compiled.
    if offset < 0 or offset > _UNREACHABLE:
        return _UNREACHABLE | (offset & 7)
    return offset


def take_address(s: Body, offset: i64, size: i64) -> None:
    """Pops an index into memory `s.memory` and checks the access by the memory's plan (`compiler/memory_plan.py`).
    Leaves in `s.found` the base, the index to release (or `NONE`), and the displacement."""
    a = s.found
    memory = s.memory
    d = s.depth - 1
    end = offset + size
    if s.kinds[d] == CONST:
        known: i64 = s.values[d]
        s.drop()
        a.index = NONE
        guarded = not s.context.memory_wide[memory] and end <= s.context.memory_guard[memory]
        if known < 0 or known > _UNREACHABLE:
            known = _UNREACHABLE  # a 64-bit address beyond every memory
        if not guarded and end + known > s.context.memory_minimum[memory]:
            _check_constant(s, memory, end + known)
        offset += known
        if offset > _UNREACHABLE:
            offset = 0  # the check has trapped
    else:
        r = s.pop_read(False)
        a.index = r
        if end > s.context.memory_guard[memory]:
            _check(s, memory, r, end)
        elif s.context.memory_wide[memory]:
            s.rm(Op.MOV, 1, SCRATCH, VM, s.context.offsets.memory(memory) + VMMemory.DEFINITION)
            s.rm(Op.CMP, 1, r, SCRATCH, VMMemoryDefinition.CURRENT_LENGTH)
            s.trap_if(Condition.ABOVE_EQUAL, TrapKind.MEMORY_OUT_OF_BOUNDS)
    in_register = memory == s.base_memory
    a.base = s.base if in_register else SCRATCH
    a.displacement = offset
    if offset > 0x7FFFFFFF:
        s.immediate(SCRATCH, offset)
        add_base(s, memory, SCRATCH)
        a.base = SCRATCH
        a.displacement = 0
    elif not in_register:
        s.rm(Op.MOV, 1, SCRATCH, VM, s.context.offsets.memory(memory) + VMMemory.BASE)


def add_base(s: Body, memory: i64, r: i64) -> None:
    """Turns the index in a register into a host address."""
    if memory == s.base_memory:
        s.rr(Op.ADD, 1, r, s.base)
    else:
        s.rm(Op.ADD, 1, r, VM, s.context.offsets.memory(memory) + VMMemory.BASE)


def _check_constant(s: Body, memory: i64, end: i64) -> None:
    """Traps unless the memory has `end` bytes."""
    if end > _UNREACHABLE:
        s.trap_always(TrapKind.MEMORY_OUT_OF_BOUNDS)
        return
    s.rm(Op.MOV, 1, SCRATCH, VM, s.context.offsets.memory(memory) + VMMemory.DEFINITION)
    if end <= 0x7FFFFFFF:
        s.group1_memory(7, 1, SCRATCH, VMMemoryDefinition.CURRENT_LENGTH, end)
        s.trap_if(Condition.BELOW, TrapKind.MEMORY_OUT_OF_BOUNDS)
        return
    r = s.alloc()
    s.immediate(r, end)
    s.rm(Op.CMP, 1, r, SCRATCH, VMMemoryDefinition.CURRENT_LENGTH)
    s.release(r)
    s.trap_if(Condition.ABOVE, TrapKind.MEMORY_OUT_OF_BOUNDS)


def _check(s: Body, memory: i64, r: i64, end: i64) -> None:
    """Traps unless `r + end` is within the length of the memory."""
    if end > _UNREACHABLE:
        s.trap_always(TrapKind.MEMORY_OUT_OF_BOUNDS)
        return
    definition: i64 = s.context.offsets.memory(memory) + VMMemory.DEFINITION
    if end <= s.context.memory_minimum[memory] and end <= 0x7FFFFFFF:
        # The length is at least `end`: the difference cannot wrap.
        s.rm(Op.MOV, 1, SCRATCH, VM, definition)
        s.rm(Op.MOV, 1, SCRATCH, SCRATCH, VMMemoryDefinition.CURRENT_LENGTH)
        s.group1(5, 1, SCRATCH, end)
        s.rr(Op.CMP, 1, SCRATCH, r)
        s.trap_if(Condition.BELOW, TrapKind.MEMORY_OUT_OF_BOUNDS)
        return
    length = s.alloc()
    s.rm(Op.MOV, 1, length, VM, definition)
    s.immediate(SCRATCH, end)
    s.rr(Op.ADD, 1, SCRATCH, r)
    if s.context.memory_wide[memory]:
        s.trap_if(Condition.BELOW, TrapKind.MEMORY_OUT_OF_BOUNDS)  # the carry: the sum has wrapped
    s.rm(Op.CMP, 1, SCRATCH, length, VMMemoryDefinition.CURRENT_LENGTH)
    s.release(length)
    s.trap_if(Condition.ABOVE, TrapKind.MEMORY_OUT_OF_BOUNDS)


def emit_access(s: Body, op: i64, wide: i64, reg: i64) -> None:
    """The instruction itself, at the address found."""
    a = s.found
    s.mark(_MAY_FAULT)
    if a.index >= 0:
        s.rx(op, wide, reg, a.base, a.index, 0, a.displacement)
    else:
        s.rm(op, wide, reg, a.base, a.displacement)


def load(s: Body, op: i64) -> None:
    offset = folded_offset(s)
    take_address(s, offset, _SIZE[op])
    index = s.found.index
    if CLASS[op] == FLOAT_LOAD:
        hint = s.hint(True)
        r = hint if hint >= 0 else s.alloc_float()
        emit_access(s, ENCODING[op], 0, r)
        s.mark(0)
        if index >= 0:
            s.release(index)
        s.finish(r, hint)
        return
    if op <= _I64_LOAD and s.depth > s.floor:
        # An arithmetic instruction whose first operand is in a register takes the second from memory.
        following: i64 = s.code[s.pc]
        d = s.depth - 1
        if CLASS[following] == ALU and WIDE[following] == WIDE[op] and s.kinds[d] == REG:
            emit_access(s, ENCODING[following], WIDE[op], s.values[d])
            s.mark(0)
            if index >= 0:
                s.release(index)
            s.pc += 1
            s.fuel += 1
            return
    hint = s.hint(False)
    if index >= 0:
        s.release(index)
    r = hint if hint >= 0 else s.alloc()
    emit_access(s, ENCODING[op], WIDE[op], r)
    s.mark(0)
    s.finish(r, hint)


def store(s: Body, op: i64) -> None:
    offset = folded_offset(s)
    size: i64 = NUMBER[op]
    d = s.depth - 1
    v: i64 = s.values[d]
    is_float = CLASS[op] == FLOAT_STORE
    r: i64 = NONE
    if s.kinds[d] == CONST and (size < 8 or -0x80000000 <= v < 0x80000000):
        s.drop()
    else:
        if s.kinds[d] == CONST:
            is_float = False
        r = s.pop_read(is_float)
    take_address(s, offset, size)
    encoding: i64
    wide: i64 = 1 if size == 8 else 0
    if r >= 0:
        encoding = ENCODING[op] if is_float or CLASS[op] != FLOAT_STORE else Op.MOV_STORE
        if is_float:
            wide = 0
        if size == 2:
            s.mark(_MAY_FAULT)
            s.byte(0x66)
            emit_operand(s, encoding, 0, r)
        else:
            emit_access(s, encoding, wide, r)
        s.release(r)
    else:
        s.mark(_MAY_FAULT)
        if size == 2:
            s.byte(0x66)
        emit_operand(s, Op.MOV_IMMEDIATE8 if size == 1 else Op.MOV_IMMEDIATE, wide, 0)
        s.byte(v & 0xFF)
        if size >= 2:
            s.byte(v >> 8 & 0xFF)
        if size >= 4:
            s.byte(v >> 16 & 0xFF)
            s.byte(v >> 24 & 0xFF)
    s.mark(0)
    if s.found.index >= 0:
        s.release(s.found.index)


def emit_operand(s: Body, op: i64, wide: i64, reg: i64) -> None:
    """As `emit_access`, after a prefix that was marked already."""
    a = s.found
    if a.index >= 0:
        s.rx(op, wide, reg, a.base, a.index, 0, a.displacement)
    else:
        s.rm(op, wide, reg, a.base, a.displacement)


def memory_size(s: Body) -> None:
    memory = s.unsigned()
    r = s.alloc()
    s.rm(Op.MOV, 1, r, VM, s.context.offsets.memory(memory) + VMMemory.DEFINITION)
    s.rm(Op.MOV, 1, r, r, VMMemoryDefinition.CURRENT_LENGTH)
    page_size_log2 = s.context.memory_page_size_log2[memory]
    if page_size_log2:
        s.rr(Op.SHIFT_IMMEDIATE, 1, 5, r)
        s.byte(page_size_log2)
    s.push(REG, r)


# --- Globals -----------------------------------------------------------------------------------------------------


_GLOBAL_LOAD: Final[dict[int, int]] = {F32: Op.MOVSS, F64: Op.MOVSD, V128: Op.MOVUPS}
_GLOBAL_STORE: Final[dict[int, int]] = {F32: Op.MOVSS_STORE, F64: Op.MOVSD_STORE, V128: Op.MOVUPS_STORE}


def _global_cell(s: Body, x: i64) -> None:
    """Leaves the cell of a global in `s.found`."""
    a = s.found
    context = s.context
    a.index = NONE
    if x < context.imported_globals:
        s.rm(Op.MOV, 1, SCRATCH, VM, context.offsets.imported_global(x))
        a.base = SCRATCH
        a.displacement = 0
    else:
        a.base = VM
        a.displacement = context.offsets.defined_global(x - context.imported_globals)


def global_get(s: Body) -> None:
    x = s.unsigned()
    t = s.context.globals[x]
    is_float = t in (F32, F64, V128)
    hint = s.hint(is_float)
    r = hint if hint >= 0 else s.alloc_class(is_float)
    _global_cell(s, x)
    if is_float:
        s.rm(_GLOBAL_LOAD[t], 0, r, s.found.base, s.found.displacement)
    else:
        s.rm(Op.MOV, 0 if t in (I32, EXTERNREF) else 1, r, s.found.base, s.found.displacement)
    s.finish(r, hint)


def global_set(s: Body) -> None:
    x = s.unsigned()
    t = s.context.globals[x]
    is_float = t in (F32, F64, V128)
    r = s.pop_read(is_float)
    _global_cell(s, x)
    if is_float:
        s.rm(_GLOBAL_STORE[t], 0, r, s.found.base, s.found.displacement)
    else:
        s.rm(Op.MOV_STORE, 0 if t in (I32, EXTERNREF) else 1, r, s.found.base, s.found.displacement)
    s.release(r)


# --- Tables and references -----------------------------------------------------------------------------------------


def ref_func(s: Body) -> None:
    x = s.unsigned()
    r = s.alloc()
    s.rm(Op.LEA, 1, r, VM, s.context.offsets.func_ref(s.context.func_refs[x]))
    s.push(REG, r)


def as_non_null(s: Body) -> None:
    r = s.pop_owned(False)
    s.rr(Op.TEST, 1, r, r)
    s.trap_if(Condition.EQUAL, TrapKind.NULL_REFERENCE)
    s.push(REG, r)


def check_element(s: Body, x: i64, index: i64) -> None:
    """Checks an index of a table and leaves the base of its elements in the scratch register."""
    s.rm(Op.MOV, 1, SCRATCH, VM, s.context.offsets.table(x))
    s.rm(Op.CMP, 1, index, SCRATCH, VMTableDefinition.CURRENT_ELEMENTS)
    s.trap_if(Condition.ABOVE_EQUAL, TrapKind.TABLE_OUT_OF_BOUNDS)
    s.rm(Op.MOV, 1, SCRATCH, SCRATCH, VMTableDefinition.BASE)


def table_get(s: Body) -> None:
    x = s.unsigned()
    index = s.pop_read(False)
    check_element(s, x, index)
    s.release(index)
    r = s.alloc()
    s.rx(Op.MOV, 1, r, SCRATCH, index, 3, 0)
    s.push(REG, r)


def table_set(s: Body) -> None:
    x = s.unsigned()
    r = s.pop_read(False)
    index = s.pop_read(False)
    check_element(s, x, index)
    s.rx(Op.MOV_STORE, 1, r, SCRATCH, index, 3, 0)
    s.release(r)
    s.release(index)


def table_size(s: Body) -> None:
    x = s.unsigned()
    r = s.alloc()
    s.rm(Op.MOV, 1, r, VM, s.context.offsets.table(x))
    s.rm(Op.MOV, 1, r, r, VMTableDefinition.CURRENT_ELEMENTS)
    s.push(REG, r)
