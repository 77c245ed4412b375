"""Trap codes and their texts (Wasmtime's `Trap`, table C20 of the reference). Compiled code passes a code to
the `trap` builtin or, for memory faults, the trap table maps the faulting instruction to one; the embedder's
`Trap` exception shows the text.
"""

from __future__ import annotations

from wasmforge.syntax.record import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["TRAP_KINDS", "TRAP_MESSAGES", "TrapKind"]


class TrapKind(IntEnum):
    """Why execution stopped. The numbers are Wasmtime's."""

    STACK_OVERFLOW = 0
    MEMORY_OUT_OF_BOUNDS = 1
    HEAP_MISALIGNED = 2
    TABLE_OUT_OF_BOUNDS = 3
    INDIRECT_CALL_TO_NULL = 4
    BAD_SIGNATURE = 5
    INTEGER_OVERFLOW = 6
    INTEGER_DIVISION_BY_ZERO = 7
    BAD_CONVERSION_TO_INTEGER = 8
    UNREACHABLE = 9
    INTERRUPT = 10
    OUT_OF_FUEL = 11
    ATOMIC_WAIT_NON_SHARED_MEMORY = 12
    NULL_REFERENCE = 13
    ARRAY_OUT_OF_BOUNDS = 14
    ALLOCATION_TOO_LARGE = 15
    CAST_FAILURE = 16


TRAP_KINDS: Final = tuple(TrapKind)
"""By number: the numbers have no gaps."""

TRAP_MESSAGES: Final[dict[TrapKind, str]] = {
    TrapKind.STACK_OVERFLOW: "wasm trap: call stack exhausted",
    TrapKind.MEMORY_OUT_OF_BOUNDS: "wasm trap: out of bounds memory access",
    TrapKind.HEAP_MISALIGNED: "wasm trap: unaligned atomic",
    TrapKind.TABLE_OUT_OF_BOUNDS: "wasm trap: undefined element: out of bounds table access",
    TrapKind.INDIRECT_CALL_TO_NULL: "wasm trap: uninitialized element",
    TrapKind.BAD_SIGNATURE: "wasm trap: indirect call type mismatch",
    TrapKind.INTEGER_OVERFLOW: "wasm trap: integer overflow",
    TrapKind.INTEGER_DIVISION_BY_ZERO: "wasm trap: integer divide by zero",
    TrapKind.BAD_CONVERSION_TO_INTEGER: "wasm trap: invalid conversion to integer",
    TrapKind.UNREACHABLE: "wasm trap: wasm `unreachable` instruction executed",
    TrapKind.INTERRUPT: "wasm trap: interrupt",
    TrapKind.OUT_OF_FUEL: "wasm trap: all fuel consumed by WebAssembly",
    TrapKind.ATOMIC_WAIT_NON_SHARED_MEMORY: "wasm trap: atomic wait on non-shared memory",
    TrapKind.NULL_REFERENCE: "wasm trap: null reference",
    TrapKind.ARRAY_OUT_OF_BOUNDS: "wasm trap: out of bounds array access",
    TrapKind.ALLOCATION_TOO_LARGE: "wasm trap: allocation size too large",
    TrapKind.CAST_FAILURE: "wasm trap: cast failure",
}
