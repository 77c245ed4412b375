"""Text from a module, for a terminal, a profile or a page: what shows functions' names there uses it."""

from __future__ import annotations

__all__ = ["printable", "shortened"]


def printable(text: str) -> str:
    """Threat: a name that moves the cursor, holds a line of its own, reverses the direction of writing, or cannot be
    encoded. What is not printable becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def shortened(name: str, length: int = 200) -> str:
    """A printable name of at most `length` characters. Threat: one that fills the screen."""
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"
