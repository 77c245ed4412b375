"""How calls reach functions that are not compiled yet: the entries of a module's procedure linkage, one a defined
function, and the stub behind all of them that has a function compiled at its first call.

The embedder's layer makes both when it loads a module lazily and the runtime writes them to the beginning of the
module's code region. An entry is the permanent address of its function: it jumps through the function's code pointer
slot, which at first leads back into the entry, and from there to the stub.
"""

from __future__ import annotations

from array import array

from wasmforge.compiler.baseline.asm import Assembler, Op
from wasmforge.compiler.baseline.registers import (
    ARGUMENTS,
    FLOAT_ARGUMENTS,
    R10,
    RAX,
    RBP,
    RDI,
    RSP,
    SCRATCH,
    VM,
)
from wasmforge.compiler.environ import BUILTIN_INDEX, VMContextOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["ENTRY_SIZE", "FIRST_CALL", "first_call_stub", "linkage"]

ENTRY_SIZE: Final = 16
FIRST_CALL: Final = 6
"""Offset into an entry of what runs at the first call: the initial value of the slot."""

_ENTRY: Final = b"\xff\x25\0\0\0\0\x68\0\0\0\0\xe9\0\0\0\0"
"""jmp [rip + slot]; push index; jmp stub."""

_VECTOR_SIZE: Final = 16


def first_call_stub() -> bytes:
    """What runs with a function's index pushed below the return address: keeps everything that an argument may travel
    in, has the function compiled by the builtin `compile_function`, and jumps to its code.

    Nothing is touched before the frame is complete: a fault of the first store is a stack overflow like that of any
    prologue, and walks of the rbp chain pass through. Vector registers are kept whole, for v128.
    """
    kept = (*ARGUMENTS, R10)
    vectors_at = 8 * (len(kept) + 1)
    a = Assembler()
    a.byte(0x41)
    a.byte(0x5B)  # pop r11, the index: the stack is as the caller of the function left it
    a.push_register(RBP)
    a.rr(Op.MOV, 1, RBP, RSP)
    a.group1(5, 1, RSP, vectors_at + _VECTOR_SIZE * len(FLOAT_ARGUMENTS))
    for k, r in enumerate(kept):
        a.rm(Op.MOV_STORE, 1, r, RSP, 8 * k)
    for k, r in enumerate(FLOAT_ARGUMENTS):
        a.rm(Op.MOVUPS_STORE, 0, r, RSP, vectors_at + _VECTOR_SIZE * k)
    a.rr(Op.MOV, 0, RDI, SCRATCH)
    a.rm(Op.MOV, 1, RAX, VM, VMContextOffsets.BUILTINS)
    a.rm(Op.GROUP5, 0, 2, RAX, 8 * BUILTIN_INDEX["compile_function"])
    a.rr(Op.MOV, 1, SCRATCH, RAX)
    for k, r in enumerate(kept):
        a.rm(Op.MOV, 1, r, RSP, 8 * k)
    for k, r in enumerate(FLOAT_ARGUMENTS):
        a.rm(Op.MOVAPS, 0, r, RSP, vectors_at + _VECTOR_SIZE * k)
    a.byte(0xC9)  # leave
    a.rr(Op.GROUP5, 0, 4, SCRATCH)
    return a.out.getvalue()


def linkage(count: int, start: int, slots: int, stub: int) -> bytes:
    """The entries of `count` functions, to be placed at address `start`. `slots` is the address of the first slot, 8
    bytes a function, `stub` that of the stub; all within 2 GiB."""
    out = bytearray(_ENTRY * count)
    _fill(out, 2, slots - (start + 6), 8 - ENTRY_SIZE, count)
    _fill(out, 7, 0, 1, count)
    _fill(out, 12, stub - (start + ENTRY_SIZE), -ENTRY_SIZE, count)
    return bytes(out)


def _fill(out: bytearray, place: int, first: int, step: int, count: int) -> None:
    """Writes `first`, `first + step`, ... as 32-bit fields at `place` of each entry: by columns of bytes, because a
    module of 10,000 functions would take 10 ms entry by entry."""
    column = array("i", range(first, first + step * count, step)).tobytes() if count else b""
    for k in range(4):
        out[place + k :: ENTRY_SIZE] = column[k::4]
