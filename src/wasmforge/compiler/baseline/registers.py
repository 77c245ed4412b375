"""The machine's registers as the baseline compiler numbers them, and who uses which.

Integer registers are 0 to 15 as in encodings, vector registers 16 to 31, so that one number names an operand and one
mask holds a set of them. Everything in this room reads these.
"""

from __future__ import annotations

from wasmforge.compiler.environ import INTEGER_ARGUMENTS, INTEGER_RESULTS, VECTOR_ARGUMENTS, VECTOR_RESULTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = [
    "ARGUMENTS",
    "BASE",
    "FIRST",
    "FLOAT_ARGUMENTS",
    "FLOAT_PINS",
    "FLOAT_MASK",
    "FLOAT_POOL",
    "FLOAT_RESULTS",
    "FLOAT_SCRATCH",
    "INTEGER_MASK",
    "LEAF_BASE",
    "LEAF_PINS",
    "NAMES",
    "NONE",
    "PINS",
    "POOL",
    "PRESERVED",
    "R10",
    "RAX",
    "RBP",
    "RBX",
    "RCX",
    "RDI",
    "RDX",
    "RESULTS",
    "RSI",
    "RSP",
    "SCRATCH",
    "VOLATILE",
    "VOLATILE_PINS",
    "VECTOR_PINS",
    "VM",
    "XMM0",
]

NAMES: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{k}" for k in range(8, 16)),
    *(f"xmm{k}" for k in range(16)),
)

NONE: Final = -1
RAX: Final = 0
RCX: Final = 1
RDX: Final = 2
RBX: Final = 3
RSP: Final = 4
RBP: Final = 5
RSI: Final = 6
RDI: Final = 7
R8: Final = 8
R9: Final = 9
R10: Final = 10
R11: Final = 11
R12: Final = 12
R14: Final = 14
R15: Final = 15
XMM0: Final = 16

VM: Final = 13
"""The vmctx (rule 1 of the convention)."""

SCRATCH: Final = R11
FLOAT_SCRATCH: Final = XMM0 + 15
"""Never allocated: any emitter may overwrite them between two instructions of its own."""

BASE: Final = R14
"""Base of memory 0 in functions that call others: the callee preserves it."""

LEAF_BASE: Final = R10
"""The same in functions that call nothing, which need not save it."""

PINS: Final = bytes((RBX, R12, R15, R14))
"""Homes of the locals used most, callee-saved. The last one is there only without a memory base."""

LEAF_PINS: Final = bytes((R8, R9, RBX, R12, R15, R14))
"""The same in functions that call nothing; those that need no saving come first."""

VOLATILE_PINS: Final = bytes((R8, R9))
FLOAT_PINS: Final = bytes((*range(XMM0 + 8, XMM0 + 15), XMM0 + 7, XMM0 + 6))
"""Homes of locals in registers that a call destroys: for locals that are used so much more often than the function
calls that saving them around calls pays."""

VECTOR_PINS: Final = bytes((*FLOAT_PINS, XMM0 + 5))
"""The same in functions with vectors, whose instructions need fewer registers for what is between them. Five must be
left: that many the emitter of i32x4.relaxed_dot_i8x16_i7x16_add_s holds at once."""

ARGUMENTS: Final = bytes(NAMES.index(name) for name in INTEGER_ARGUMENTS)
FLOAT_ARGUMENTS: Final = bytes(NAMES.index(name) for name in VECTOR_ARGUMENTS)
RESULTS: Final = bytes(NAMES.index(name) for name in INTEGER_RESULTS)
FLOAT_RESULTS: Final = bytes(NAMES.index(name) for name in VECTOR_RESULTS)


def _mask(registers: bytes) -> int:
    return sum(1 << r for r in registers)


_PREFERENCE: Final = bytes((RSI, RDI, R8, R9, R10, RAX, RDX, RCX))
"""rax, rcx and rdx come last, since divisions, shifts and results want them."""

POOL: Final = _mask(_PREFERENCE)
FLOAT_POOL: Final = _mask(bytes(range(XMM0, XMM0 + 15)))

VOLATILE: Final = _mask(VOLATILE_PINS) | _mask(VECTOR_PINS)
"""Among registers of pinned locals those that a call destroys."""

PRESERVED: Final = _mask(bytes((RBX, R12, R14, R15)))
"""Registers that a call leaves alone (rule 5), and no argument travels in."""

INTEGER_MASK: Final = 0xFFFF
FLOAT_MASK: Final = 0xFFFF0000

FIRST: Final = bytes(
    next((r for r in _PREFERENCE if members >> r & 1), 255) for members in range(1 << max(_PREFERENCE) + 1)
)
"""For every set of integer pool registers the one to allocate."""
