"""Emitters that reach beyond the frame: loads and stores, memory.size, globals, table elements.

An address is base + index + offset in one machine operand. The reservation behind the base is as large as the index
space plus the guard, so that an offset within the guard needs no check; without guard pages, or with a larger offset,
the end of the access is compared with the memory's length first. (THREAT: an access that neither faults nor traps would
read or write the process's memory. The runtime keeps the other half of the bargain, `runtime/vm/memory.py`.)
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import NONE, SCRATCH, VM
from wasmforge.compiler.baseline.rows import ALU, CLASS, ENCODING, FLOAT_LOAD, FLOAT_STORE, NUMBER, WIDE
from wasmforge.compiler.baseline.values import CONST, REG
from wasmforge.compiler.environ import VMMemory, VMMemoryDefinition, VMTableDefinition
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_OPCODE
from wasmforge.syntax.types import EXTERNREF, F32, F64, I32, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = [
    "global_get",
    "global_set",
    "load",
    "memory_size",
    "ref_func",
    "store",
    "table_get",
    "table_set",
    "table_size",
]

_SIZE: Final = bytes(BY_OPCODE[opcode].access if opcode in BY_OPCODE else 0 for opcode in range(256))
_MAY_FAULT: Final = 1 + TrapKind.MEMORY_OUT_OF_BOUNDS
_I64_LOAD: Final = 0x29


def _offset(s: Body) -> i64:
    """Reads a memarg. Validation allows one memory."""
    if s.code[s.pc] & 0x40:
        s.unsigned()
        s.unsigned()
    else:
        s.pc += 1
    return s.unsigned()


def _address(s: Body, offset: i64, size: i64) -> None:
    """Pops an index and checks it. Leaves in `s.found` the base, the index to release (or `NONE`), and the
    displacement."""
    a = s.found
    a.base = s.base
    d = s.depth - 1
    constant = s.kinds[d] == CONST
    checked = not s.context.guarded or offset + size > s.context.guard
    if constant and not checked:
        offset += s.values[d]
        s.drop()
        a.index = NONE
        if offset <= 0x7FFFFFFF:
            a.displacement = offset
            return
        s.immediate(SCRATCH, offset)
        s.rr(Op.ADD, 1, SCRATCH, s.base)
        a.base = SCRATCH
        a.displacement = 0
        return
    r = s.pop_read(False)
    if checked:
        _check(s, r, offset + size)
    a.index = r
    a.displacement = offset
    if offset > 0x7FFFFFFF:
        s.immediate(SCRATCH, offset)
        s.rr(Op.ADD, 1, SCRATCH, s.base)
        a.base = SCRATCH
        a.displacement = 0


def _check(s: Body, r: i64, size: i64) -> None:
    """Traps unless `r + size` is within the length of memory 0."""
    length = s.alloc()
    s.rm(Op.MOV, 1, length, VM, s.context.offsets.memory(0) + VMMemory.DEFINITION)
    s.immediate(SCRATCH, size)
    s.rr(Op.ADD, 1, SCRATCH, r)
    s.rm(Op.CMP, 1, SCRATCH, length, VMMemoryDefinition.CURRENT_LENGTH)
    s.release(length)
    s.trap_if(Condition.ABOVE, TrapKind.MEMORY_OUT_OF_BOUNDS)


def _access(s: Body, op: i64, wide: i64, reg: i64) -> None:
    """The instruction itself, at the address found."""
    a = s.found
    s.mark(_MAY_FAULT)
    if a.index >= 0:
        s.rx(op, wide, reg, a.base, a.index, 0, a.displacement)
    else:
        s.rm(op, wide, reg, a.base, a.displacement)


def load(s: Body, op: i64) -> None:
    offset = _offset(s)
    _address(s, offset, _SIZE[op])
    index = s.found.index
    if CLASS[op] == FLOAT_LOAD:
        hint = s.hint(True)
        r = hint if hint >= 0 else s.alloc_float()
        _access(s, ENCODING[op], 0, r)
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
            _access(s, ENCODING[following], WIDE[op], s.values[d])
            s.mark(0)
            if index >= 0:
                s.release(index)
            s.pc += 1
            return
    hint = s.hint(False)
    if index >= 0:
        s.release(index)
    r = hint if hint >= 0 else s.alloc()
    _access(s, ENCODING[op], WIDE[op], r)
    s.mark(0)
    s.finish(r, hint)


def store(s: Body, op: i64) -> None:
    offset = _offset(s)
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
    _address(s, offset, size)
    encoding: i64
    wide: i64 = 1 if size == 8 else 0
    if r >= 0:
        encoding = ENCODING[op] if is_float or CLASS[op] != FLOAT_STORE else Op.MOV_STORE
        if is_float:
            wide = 0
        if size == 2:
            s.mark(_MAY_FAULT)
            s.byte(0x66)
            _operand(s, encoding, 0, r)
        else:
            _access(s, encoding, wide, r)
        s.release(r)
    else:
        s.mark(_MAY_FAULT)
        if size == 2:
            s.byte(0x66)
        _operand(s, Op.MOV_IMMEDIATE8 if size == 1 else Op.MOV_IMMEDIATE, wide, 0)
        s.byte(v & 0xFF)
        if size >= 2:
            s.byte(v >> 8 & 0xFF)
        if size >= 4:
            s.byte(v >> 16 & 0xFF)
            s.byte(v >> 24 & 0xFF)
    s.mark(0)
    if s.found.index >= 0:
        s.release(s.found.index)


def _operand(s: Body, op: i64, wide: i64, reg: i64) -> None:
    """As `_access`, after a prefix that was marked already."""
    a = s.found
    if a.index >= 0:
        s.rx(op, wide, reg, a.base, a.index, 0, a.displacement)
    else:
        s.rm(op, wide, reg, a.base, a.displacement)


def memory_size(s: Body) -> None:
    s.unsigned()
    r = s.alloc()
    s.rm(Op.MOV, 1, r, VM, s.context.offsets.memory(0) + VMMemory.DEFINITION)
    s.rm(Op.MOV, 1, r, r, VMMemoryDefinition.CURRENT_LENGTH)
    s.rr(Op.SHIFT_IMMEDIATE, 1, 5, r)
    s.byte(16)
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
