"""Why an asynchronous call was refused: the kinds that the gates (`async_calls.py`) tell the hook on_async_misuse,
which `runtime/vm/async_call.py` turns into exceptions. Apart, since a running process needs no source of the gates."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["BUSY", "IN_NESTED_CALL", "IN_SYNCHRONOUS_CALL", "NOT_SUSPENDED", "NO_ROOM"]

IN_SYNCHRONOUS_CALL: Final = 0
IN_NESTED_CALL: Final = 1
BUSY: Final = 2
NOT_SUSPENDED: Final = 3
NO_ROOM: Final = 4
