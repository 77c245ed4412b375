"""What the machine code notes of an activation that ended: the unwinder (`frames.py`) fills a record on the thread's
stack, and a trap carries its bytes until somebody asks for more than the class of the exception (`decode`). So most
traps, which are caught and thrown away, cost no object a frame.
"""

from __future__ import annotations

from _struct import Struct

from wasmforge.syntax.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["MAX_BACKTRACE", "TrapFacts", "TrapRecord", "decode"]

MAX_BACKTRACE: Final = 64
"""Program counters that a backtrace keeps; Wasmtime's `wasm_backtrace_max_frames` is 20 by default."""


class TrapRecord:
    """Where the unwinder leaves what the entry's caller needs to raise; one an activation."""

    KIND: Final = 0
    ADDRESS: Final = 8  # that the instruction could not access, 0 for a trap that is a call
    STORED: Final = 16  # program counters in PCS
    TOTAL: Final = 24  # program counters seen
    SLOT: Final = 32  # of ADDRESS in the table of memories
    BASE: Final = 40  # of the memory that was missed, 0 if none was
    LENGTH: Final = 48  # of that memory, in bytes, when the trap was raised
    STORE: Final = 56
    PCS: Final = 64
    SIZE: Final = 64 + 8 * MAX_BACKTRACE


_HEAD: Final = Struct(f"<{TrapRecord.PCS // 8}Q")


@record(frozen=True, slots=True)
class TrapFacts:
    """A decoded record. `memory` is the base and the length of the memory that was missed; `omitted` counts the outer
    frames that found no room."""

    kind: int
    address: int
    memory: tuple[int, int] | None
    store_id: int
    pcs: tuple[int, ...]
    omitted: int


def decode(data: bytes) -> TrapFacts:
    """The facts in the bytes of a record, from its beginning to its last program counter."""
    kind, address, stored, total, _slot, base, length, store_id = _HEAD.unpack_from(data)
    pcs = Struct(f"<{stored}Q").unpack_from(data, _HEAD.size)
    return TrapFacts(kind, address, (base, length) if base else None, store_id, pcs, total - stored)
