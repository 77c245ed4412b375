"""The atomic instructions of the instruction table as data: number behind the prefix 0xFE, mnemonic, signature, bytes
(threads proposal). `instructions` makes its rows from `ATOMIC_INSTRUCTIONS`; the compilers ask `operation_of` what
each does.
"""

from __future__ import annotations

from wasmforge.syntax.types import I32, I64, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["ATOMIC_INSTRUCTIONS", "FENCE", "OPERATIONS", "operation_of"]

FENCE: Final = 0x03
_FIRST_ACCESS: Final = 0x10

OPERATIONS: Final = ("load", "store", "add", "sub", "and", "or", "xor", "xchg", "cmpxchg")
"""What accesses do, in the order of their numbers; each has the seven `_WIDTHS`."""

_WIDTHS: Final = ((I32, 4), (I64, 8), (I32, 1), (I32, 2), (I64, 1), (I64, 2), (I64, 4))
_NAMES: Final = {I32: "i32", I64: "i64"}

if TYPE_CHECKING:
    _Instruction = tuple[int, str, tuple[ValType, ...], tuple[ValType, ...], int]


def _access(number: int) -> _Instruction:
    operation = OPERATIONS[(number - _FIRST_ACCESS) // len(_WIDTHS)]
    t, size = _WIDTHS[(number - _FIRST_ACCESS) % len(_WIDTHS)]
    bits = "" if size == (4 if t == I32 else 8) else str(8 * size)
    operands = {"load": (), "cmpxchg": (t, t)}.get(operation, (t,))
    if operation in ("load", "store"):
        name = f"{_NAMES[t]}.atomic.{operation}{bits}{'_u' if bits and operation == 'load' else ''}"
    else:
        name = f"{_NAMES[t]}.atomic.rmw{bits}.{operation}{'_u' if bits else ''}"
    return number, name, (I32, *operands), () if operation == "store" else (t,), size


def operation_of(number: int) -> tuple[str, ValType, int]:
    """What an access does: its operation, the type of its operands, and the bytes that it touches."""
    t, size = _WIDTHS[(number - _FIRST_ACCESS) % len(_WIDTHS)]
    return OPERATIONS[(number - _FIRST_ACCESS) // len(_WIDTHS)], t, size


ATOMIC_INSTRUCTIONS: Final[tuple[_Instruction, ...]] = (
    (0x00, "memory.atomic.notify", (I32, I32), (I32,), 4),
    (0x01, "memory.atomic.wait32", (I32, I32, I64), (I32,), 4),
    (0x02, "memory.atomic.wait64", (I32, I64, I64), (I32,), 8),
    (FENCE, "atomic.fence", (), (), 0),
    *(_access(number) for number in range(_FIRST_ACCESS, _FIRST_ACCESS + len(OPERATIONS) * len(_WIDTHS))),
)
"""Number, mnemonic, parameters (an address first), results, and the bytes of the access, which must be aligned."""
