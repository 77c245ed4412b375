"""Explicit closing, shared by the embedder's objects that own something (the class of that name in the wasmtime
package). An object may be closed early, by `close()` or a `with` block; using it afterwards is a ValueError.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = ["Managed"]


class Managed:
    """Base of objects that can be closed before the garbage collector finds them."""

    _closed = False

    def close(self) -> None:
        """Release what this object holds. Closing twice does nothing; using a closed object raises ValueError."""
        if not self._closed:
            self._closed = True
            self._release()

    def _release(self) -> None:
        """Let go of what is owned; called once."""

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("already closed")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
