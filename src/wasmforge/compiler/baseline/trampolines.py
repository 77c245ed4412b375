"""The two kinds of trampolines between the array call and the internal convention (`compiler.environ` has both).

`compile.compile_module` makes one of each a function type. They have frames, so that the walk of frame pointers passes
through them, and no rows in the tables.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Assembler, Op
from wasmforge.compiler.baseline.context import (
    AREA,
    NARROW,
    VECTOR,
    Signature,
    load_of,
    overflow_offset,
    results_offset,
    store_of,
)
from wasmforge.compiler.baseline.registers import ARGUMENTS, FLOAT_SCRATCH, R10, RBP, RBX, RSP, SCRATCH, VM, XMM0
from wasmforge.compiler.environ import VALRAW_SIZE, HostFuncContext, VMContextOffsets

__all__ = ["array_to_wasm", "wasm_to_array"]

_LEAVE_RET = b"\xc9\xc3"


def _load(a: Assembler, place: int, flags: int, base: int, offset: int) -> None:
    """Loads a value into its register. What an i32 has above its four bytes in a ValRaw is undefined."""
    if place >= XMM0:
        a.rm(load_of(flags), 0, place, base, offset)
    else:
        a.rm(Op.MOV, 0 if flags & NARROW else 1, place, base, offset)


def _store(a: Assembler, place: int, flags: int, base: int, offset: int) -> None:
    if place >= XMM0:
        a.rm(store_of(flags), 0, place, base, offset)
    else:
        a.rm(Op.MOV_STORE, 1, place, base, offset)


def _copy(a: Assembler, spare: int, flags: int, base: int, offset: int, target: int, to: int) -> None:
    """Copies a value between slots, by way of an integer register unless it is too wide for one."""
    if flags & VECTOR:
        spare = FLOAT_SCRATCH
    _load(a, spare, flags, base, offset)
    _store(a, spare, flags, target, to)


def array_to_wasm(signature: Signature) -> bytes:
    """By which the host calls wasm functions of a type: unpacks the slots, calls, packs the results.

    The System V arguments are callee's vmctx, caller's vmctx, values, count, and the function to call.
    """
    callee, caller, values, _, function, spare = ARGUMENTS
    a = Assembler()
    a.push_register(RBP)
    a.rr(Op.MOV, 1, RBP, RSP)
    a.push_register(VM)
    a.push_register(RBX)
    a.rr(Op.MOV, 1, VM, callee)
    a.rr(Op.MOV, 1, R10, caller)
    a.rr(Op.MOV, 1, RBX, values)
    a.rr(Op.MOV, 1, SCRATCH, function)
    if signature.uses_area:
        a.rm(Op.MOV, 1, spare, VM, VMContextOffsets.STORE_CONTEXT)
    for k, place in enumerate(signature.param_places):
        if place >= AREA:
            _copy(a, values, signature.params[k], RBX, VALRAW_SIZE * k, spare, overflow_offset(place))
    for k, place in enumerate(signature.param_places):
        if place < AREA:
            _load(a, place, signature.params[k], RBX, VALRAW_SIZE * k)
    a.rr(Op.GROUP5, 0, 2, SCRATCH)
    if signature.uses_area:
        a.rm(Op.MOV, 1, spare, VM, VMContextOffsets.STORE_CONTEXT)
    for k, place in enumerate(signature.result_places):
        if place >= AREA:
            _copy(a, SCRATCH, signature.results[k], spare, results_offset(place), RBX, VALRAW_SIZE * k)
        else:
            _store(a, place, signature.results[k], RBX, VALRAW_SIZE * k)
    a.rm(Op.MOV, 1, VM, RBP, -8)
    a.rm(Op.MOV, 1, RBX, RBP, -16)
    return a.out.getvalue() + _LEAVE_RET


def wasm_to_array(signature: Signature) -> bytes:
    """By which wasm calls host functions of a type: packs the slots, makes the array call, unpacks. The vmctx register
    holds the callee's HostFuncContext, r10 the caller's vmctx."""
    callee, caller, values, count, function, _ = ARGUMENTS
    slots = max(len(signature.params), len(signature.results))
    a = Assembler()
    a.push_register(RBP)
    a.rr(Op.MOV, 1, RBP, RSP)
    if slots:
        a.group1(5, 1, RSP, VALRAW_SIZE * slots)
    for k, place in enumerate(signature.param_places):
        if place < AREA:
            _store(a, place, signature.params[k], RSP, VALRAW_SIZE * k)
    if signature.uses_area:
        a.rm(Op.MOV, 1, SCRATCH, VM, HostFuncContext.STORE_CONTEXT)
    for k, place in enumerate(signature.param_places):
        if place >= AREA:
            _copy(a, callee, signature.params[k], SCRATCH, overflow_offset(place), RSP, VALRAW_SIZE * k)
    a.rr(Op.MOV, 1, callee, VM)
    a.rr(Op.MOV, 1, caller, R10)
    a.rr(Op.MOV, 1, values, RSP)
    a.immediate(count, slots)
    a.rr(Op.XOR, 0, function, function)
    a.rm(Op.GROUP5, 0, 2, VM, HostFuncContext.ARRAY_CALL)
    if signature.uses_area:
        a.rm(Op.MOV, 1, SCRATCH, VM, HostFuncContext.STORE_CONTEXT)
    for k, place in enumerate(signature.result_places):
        if place >= AREA:
            _copy(a, callee, signature.results[k], RSP, VALRAW_SIZE * k, SCRATCH, results_offset(place))
        else:
            _load(a, place, signature.results[k], RSP, VALRAW_SIZE * k)
    return a.out.getvalue() + _LEAVE_RET
