"""Emitters of atomic instructions (threads proposal). All are sequentially consistent: on x86-64 that is a plain load,
and a locked instruction for everything that writes.

An access checks the alignment of its effective address before its bounds, and traps; what is aligned is atomic on
x86-64 whatever page or cache line it lies in.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.access import emit_operand, folded_offset, take_address, whole_offset
from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.calls import call_builtin
from wasmforge.compiler.baseline.registers import RAX, SCRATCH
from wasmforge.compiler.baseline.values import CONST, REG
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.atomics import FENCE, OPERATIONS, operation_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["atomic"]

_FIRST: Final = 0x10
_LAST: Final = 0x4E
_KIND: Final = bytes(OPERATIONS.index(operation_of(n)[0]) if n >= _FIRST else 0 for n in range(_LAST + 1))
_SIZE: Final = bytes(operation_of(n)[2] if n >= _FIRST else 0 for n in range(_LAST + 1))
_LOAD: Final = OPERATIONS.index("load")
_STORE: Final = OPERATIONS.index("store")
_ADD: Final = OPERATIONS.index("add")
_SUB: Final = OPERATIONS.index("sub")
_XCHG: Final = OPERATIONS.index("xchg")
_CMPXCHG: Final = OPERATIONS.index("cmpxchg")
_LOGIC: Final[dict[int, int]] = {
    OPERATIONS.index("and"): Op.AND,
    OPERATIONS.index("or"): Op.OR,
    OPERATIONS.index("xor"): Op.XOR,
}
_WAITS: Final = ("memory_atomic_notify", "memory_atomic_wait32", "memory_atomic_wait64")
_LOADS: Final[dict[int, int]] = {1: Op.MOVZX8, 2: Op.MOVZX16, 4: Op.MOV, 8: Op.MOV}

_LOCK: Final = 0xF0
_OPERAND_SIZE: Final = 0x66
_MAY_FAULT: Final = 1 + TrapKind.MEMORY_OUT_OF_BOUNDS


def atomic(s: Body, number: i64) -> None:
    """The instruction with this number behind the prefix 0xFE."""
    if number == FENCE:
        s.pc += 1
        s.byte(0x0F)  # mfence
        s.byte(0xAE)
        s.byte(0xF0)
    elif number < FENCE:
        _wait(s, number)
    else:
        size: i64 = _SIZE[number]
        kind: i64 = _KIND[number]
        if kind == _LOAD:
            _load(s, size)
        elif kind == _CMPXCHG:
            _compare_exchange(s, size)
        elif kind in _LOGIC:
            _logic(s, _LOGIC[kind], size)
        else:
            _exchange(s, kind, size)


def _find(s: Body, size: i64) -> None:
    """Pops the address and leaves the place in `s.found`, after the checks."""
    offset = folded_offset(s)
    d = s.depth - 1
    if size > 1:
        s.load(SCRATCH, s.kinds[d], s.values[d], d)
        low = offset & (size - 1)
        if low:
            s.group1(0, 0, SCRATCH, low)
        s.rr(Op.GROUP3, 0, 0, SCRATCH)
        s.dword(size - 1)
        s.trap_if(Condition.NOT_EQUAL, TrapKind.HEAP_MISALIGNED)
    take_address(s, offset, size)


def _release(s: Body) -> None:
    s.mark(0)
    if s.found.index >= 0:
        s.release(s.found.index)


def _emit(s: Body, op: i64, size: i64, r: i64, lock: bool) -> None:
    """An instruction at the place found; `op` is the form for words, that for bytes is one less. The base is one of
    r10 to r14, so that there is a REX prefix and every register has a byte."""
    s.mark(_MAY_FAULT)
    if lock:
        s.byte(_LOCK)
    if size == 2:
        s.byte(_OPERAND_SIZE)
    emit_operand(s, op - 1 if size == 1 else op, 1 if size == 8 else 0, r)


def _extend(s: Body, size: i64, r: i64) -> None:
    """Clears what a narrow instruction has left above its result."""
    if size == 1:
        s.rr8(Op.MOVZX8, 0, r, r)
    elif size == 2:
        s.rr(Op.MOVZX16, 0, r, r)
    elif size == 4:
        s.rr(Op.MOV, 0, r, r)


def _load(s: Body, size: i64) -> None:
    _find(s, size)
    r = s.alloc()
    s.mark(_MAY_FAULT)
    emit_operand(s, _LOADS[size], 1 if size == 8 else 0, r)
    _release(s)
    s.push(REG, r)


def _exchange(s: Body, kind: i64, size: i64) -> None:
    """store, add, sub and xchg: one instruction, which gives the old value back."""
    r = s.pop_owned(False)
    _find(s, size)
    if kind == _SUB:
        s.rr(Op.GROUP3, 1 if size == 8 else 0, 3, r)
    if kind in (_ADD, _SUB):
        _emit(s, Op.XADD, size, r, True)
    else:
        _emit(s, Op.XCHG, size, r, False)
    _release(s)
    if kind == _STORE:
        s.release(r)
        return
    _extend(s, size, r)
    s.push(REG, r)


def _logic(s: Body, op: i64, size: i64) -> None:
    """and, or and xor: again until nobody else was faster."""
    s.take(RAX)
    r = s.pop_owned(False)
    _find(s, size)
    new = s.alloc()
    s.mark(_MAY_FAULT)
    emit_operand(s, _LOADS[size], 1 if size == 8 else 0, RAX)
    again: i64 = len(s.out)
    s.mark(0)
    s.rr(Op.MOV, 1, new, RAX)
    s.rr(op, 1, new, r)
    _emit(s, Op.CMPXCHG, size, new, True)
    s.mark(0)
    s.jump_back(Condition.NOT_EQUAL, again)
    _release(s)
    s.release(new)
    s.release(r)
    _extend(s, size, RAX)
    s.push(REG, RAX)


def _compare_exchange(s: Body, size: i64) -> None:
    s.take(RAX)
    new = s.pop_owned(False)
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.load(RAX, k, v, i)
    s.discard(k, v)
    _find(s, size)
    _emit(s, Op.CMPXCHG, size, new, True)
    _release(s)
    s.release(new)
    _extend(s, size, RAX)
    s.push(REG, RAX)


def _wait(s: Body, number: i64) -> None:
    """notify and wait are builtins, which check alignment and bounds themselves."""
    offset = whole_offset(s)
    # A constant is a signed number. Where this is compiled, the offset is one already.
    half: i64 = (offset >> 63 & 1) << 62
    s.push(CONST, (offset & 0x7FFFFFFFFFFFFFFF) - half - half)
    s.push(CONST, s.memory)
    call_builtin(s, _WAITS[number])
