"""The file of the gates: written and read by `encode` and `decode`. Made by `link.py` and `build.py`, mapped by
`loader.py`.

The image is text with its constants, page aligned and read-only, then one writable part: a slot for each imported
symbol, which the loader fills, then the gates' variables. All references inside are relative to the program counter, so
nothing else is relocated.
"""

from __future__ import annotations

import _struct as struct
import marshal

from wasmforge.compiler.image import checksum
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["PAGE", "GatesImage", "decode", "encode"]

PAGE: Final = 4096
MAGIC: Final = b"WFGATES\2"

_HEADER: Final = struct.Struct("<8sII32sIIII")  # magic, checksum, total size, key, text, text size, writable, names


@record(frozen=True, slots=True)
class GatesImage:
    """The linked gates: `text` (padded to pages), the size of the writable part, where each import's slot lies and each
    symbol, as offsets from the start of the text."""

    key: bytes
    text: bytes
    writable_size: int
    imports: dict[str, int]
    symbols: dict[str, int]


def encode(image: GatesImage) -> bytes:
    """The file: a header page (or more) with the names, then the text, page aligned so that it can be mapped."""
    names = marshal.dumps((image.imports, image.symbols), 2)
    head_size = -(-(_HEADER.size + len(names)) // PAGE) * PAGE
    total = head_size + len(image.text)

    def header(check: int) -> bytes:
        return _HEADER.pack(MAGIC, check, total, image.key, head_size, len(image.text), image.writable_size, len(names))

    body = names.ljust(head_size - _HEADER.size, b"\0") + image.text
    return header(checksum(header(0), body)) + body


def decode(data: bytes) -> tuple[GatesImage, int]:
    """The image in a file's bytes and the file offset of its text. Raises WasmtimeError when the file is damaged."""
    if len(data) < _HEADER.size:
        raise WasmtimeError("the gates' image is too short")
    magic, check, total, key, head_size, text_size, writable_size, names_size = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise WasmtimeError("not an image of gates, or of another format version")
    if total != len(data) or head_size + text_size != total or head_size % PAGE or text_size % PAGE:
        raise WasmtimeError("the gates' image is cut or its sizes disagree")
    blank = _HEADER.pack(magic, 0, total, key, head_size, text_size, writable_size, names_size)
    if checksum(blank, memoryview(data)[_HEADER.size :]) != check:
        raise WasmtimeError("the gates' image is damaged: wrong checksum")
    imports, symbols = marshal.loads(data[_HEADER.size : _HEADER.size + names_size])
    return GatesImage(key, data[head_size:], writable_size, imports, symbols), head_size
