"""What instructions cost in fuel, and before which of them the cost so far must be accounted for. Both compilers read
these tables, so that a program runs out of fuel at the same instruction in both, and in Wasmtime.

Fuel counts upwards from minus what is left; from 0 on there is none (`environ.StoreContext.FUEL_CONSUMED`). A function
keeps its count to itself: it loads it at entry and after calls, adds up costs at compile time while control goes
straight on, and looks at it at entry and at the head of each loop. So the count of the store is exact whenever
somebody else can read it, except after a trap, which loses what the function did since its last call.
"""

from __future__ import annotations

from wasmforge.syntax.instructions import Opcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CALLS", "ENTRY_COST", "FREE", "JOINS", "LEAVES"]

ENTRY_COST: Final = 1
"""Even a function without instructions costs something."""

FREE: Final = frozenset(
    {
        Opcode.UNREACHABLE,
        Opcode.NOP,
        Opcode.BLOCK,
        Opcode.LOOP,
        Opcode.ELSE,
        Opcode.END,
        Opcode.RETURN,
        Opcode.DROP,
    }
)
"""Everything else costs 1."""

CALLS: Final = frozenset({Opcode.CALL, Opcode.CALL_INDIRECT, Opcode.CALL_REF})
"""After these the store's count is loaded again: the callee has changed it."""

LEAVES: Final = CALLS | {
    Opcode.UNREACHABLE,
    Opcode.RETURN,
    Opcode.RETURN_CALL,
    Opcode.RETURN_CALL_INDIRECT,
    Opcode.RETURN_CALL_REF,
}
"""Before these the count goes back to the store."""

JOINS: Final = LEAVES | {
    Opcode.LOOP,
    Opcode.IF,
    Opcode.ELSE,
    Opcode.END,
    Opcode.BR,
    Opcode.BR_IF,
    Opcode.BR_TABLE,
    Opcode.BR_ON_NULL,
    Opcode.BR_ON_NON_NULL,
}
"""Before these the costs so far are added to the count: control may go elsewhere or arrive from elsewhere."""
