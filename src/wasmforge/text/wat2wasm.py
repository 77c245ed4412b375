"""`wat2wasm`, the function of the wasmtime package: text to bytes. The public package re-exports it, and `Module` uses
it for what is given to it as text.
"""

from __future__ import annotations

from typing import Final

from wasmforge.binary import encode
from wasmforge.text.parser import parse

__all__ = ["wat2wasm"]

_BINARY_MAGIC: Final = b"\0asm"


def wat2wasm(wat: str | bytes | bytearray) -> bytearray:
    """Translates a module from the text format to the binary format.

    Parameters:
        wat: the text, bytes in UTF-8. Bytes that are a binary already come back unchanged.

    Raises:
        ParseError: it is not a module; the message says at which line and column, and shows the line.
        TypeError: it is neither str nor bytes.
    """
    if isinstance(wat, (bytes, bytearray)) and wat[:4] == _BINARY_MAGIC:
        return bytearray(wat)
    return bytearray(encode(parse(wat)))
