"""Images of modules that are compiled while they run: what both tiers have made so far, with everything that the next
process needs to go on without decoding or validating the binary. `cache.growth` writes them, `cache.find` reads them.

Such an image is an ELF image as any other (`compiler.image`) whose text is the text of the code region, to the byte:
the region's words lie at the same distance from it in every process, and nothing in it knows an address. Its section
`.wasmforge.growth` has what changes as the module grows, `.wasmforge.rows` what addresses mean. Behind the ELF file, at
a page, come the parts that never change, which are copied from image to image inside the kernel: the binary up to the
end of its code section, from which bodies are read when functions are called first, and the memory images.
"""

from __future__ import annotations

import marshal
import os

from wasmforge.compiler.image import PAGE, checksum_of
from wasmforge.runtime.code_memory import FileSource
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

__all__ = ["GROWTH_SECTION", "ROWS_SECTION", "FileRange", "Growth", "Originals", "decode_growth"]

GROWTH_SECTION: Final = ".wasmforge.growth"
ROWS_SECTION: Final = ".wasmforge.rows"

IN_MEMORY_BELOW: Final = 64 << 10
"""Bytes. What is smaller is not kept in a file, of which a program with thousands of small modules would have as many
open."""

_CHUNK: Final = 1 << 20


class FileRange:
    """`length` bytes at `offset` of an open file, as a part of another file that is about to be written."""

    __slots__ = ("length", "offset", "source")

    def __init__(self, source: FileSource, offset: int, length: int) -> None:
        self.source = source
        self.offset = offset
        self.length = length

    def __len__(self) -> int:
        return self.length

    def copy_to(self, fd: int) -> None:
        """Appends the bytes to a file, at its position. Raises OSError."""
        at, end = self.offset, self.offset + self.length
        while at < end:
            try:
                done = os.copy_file_range(self.source.fd, fd, end - at, at)
            except OSError:  # between file systems, on older kernels
                done = os.write(fd, os.pread(self.source.fd, min(_CHUNK, end - at), at))
            if not done:
                raise OSError("the file ends early")
            at += done


class Originals:
    """What stays of a module as it was: `source` bytes of its binary, its start, and, from the next page on, `pages`
    bytes of memory images, whole pages. Both in `data`, or at `offset` of `file`."""

    __slots__ = ("data", "file", "offset", "pages", "source")

    def __init__(self, source: int, pages: int, data: bytes, file: FileSource | None, offset: int) -> None:
        self.source = source
        self.pages = pages
        self.data = data
        self.file = file
        self.offset = offset

    @classmethod
    def of(cls, source: bytes | memoryview) -> Originals:
        """Of a new module, without its memory images yet. Raises WasmtimeError when the system has no room."""
        if len(source) < IN_MEMORY_BELOW:
            return cls(len(source), 0, bytes(source), None, 0)
        return cls(len(source), 0, b"", FileSource.of_bytes(source), 0)

    def add_pages(self, pages: bytes | bytearray) -> None:
        """The memory images, once. Raises WasmtimeError when the system has no room."""
        gap = padding(self.source)
        if self.file is not None:
            self.file.append(gap, pages)
        elif self.source + len(gap) + len(pages) < IN_MEMORY_BELOW:
            self.data += gap + pages
        else:
            self.file = FileSource.of_bytes(self.data, gap, pages)
            self.data = b""
        self.pages = len(pages)

    @property
    def pages_at(self) -> int:
        """Where the memory images begin, in bytes from where the binary does."""
        return self.source + PAGE - 1 & -PAGE

    @property
    def size(self) -> int:
        return self.pages_at + self.pages

    def read(self, at: int, length: int) -> bytes:
        """Bytes of the binary, or behind it. Raises WasmtimeError when there are not so many."""
        if self.file is None:
            found = self.data[at : at + length]
        else:
            found = os.pread(self.file.fd, length, self.offset + at)
        if len(found) != length:
            raise WasmtimeError("damaged compiled module: the binary that it was made of is cut off")
        return found

    def parts(self) -> tuple[bytes | FileRange, ...]:
        if self.file is None:
            return (self.data,)
        return (FileRange(self.file, self.offset, self.size),)

    def checksum(self) -> int:
        """Of all bytes. Raises OSError."""
        return checksum_of(self._chunks())

    def _chunks(self) -> Iterator[bytes | memoryview]:
        """All bytes in pieces, each of which is valid until the next."""
        if self.file is None:
            yield self.data
            return
        # One buffer for all: each page of a new one would be a fault, which takes longer than reading the page.
        buffer = memoryview(bytearray(min(_CHUNK, self.size)))
        at, end = self.offset, self.offset + self.size
        while at < end:
            done = os.preadv(self.file.fd, [buffer[: end - at]], at)
            if not done:
                return
            yield buffer[:done]
            at += done


class Growth:
    """The section `.wasmforge.growth`, field by field.

    - `capacity`: bytes of address space for text.
    - `entry_size`, `first_call`: of the linkage, see `LazyModule`.
    - `packed_slots`: by defined function, u64, what its slot leads to, as an offset into the text.
    - `packed_cells`: the cells of counters as they are at first, see `tier_up`; empty for code without.
    - `tier_up_stub`: its offset, -1 for none.
    - `packed_pieces`: six u32 a piece of code: start, length, function (2**32-1 for none), tier, where its rows begin
      and how many numbers they are; ascending by start.
    - `array_to_wasm`, `wasm_to_array`: (type index, start, length) of trampolines.
    - `facts`: for the compilers, see `wasmforge._saved`; nothing of it is looked at here.
    - `pages`, `source`: bytes of the parts behind the ELF file; `originals_checksum` is over both.
    - `baseline`, `optimised`: how many functions run in which tier.
    """

    __slots__ = (
        "array_to_wasm",
        "baseline",
        "capacity",
        "entry_size",
        "facts",
        "first_call",
        "optimised",
        "originals_checksum",
        "packed_cells",
        "packed_pieces",
        "packed_slots",
        "pages",
        "source",
        "tier_up_stub",
        "wasm_to_array",
    )

    if TYPE_CHECKING:
        capacity: int
        entry_size: int
        first_call: int
        packed_slots: bytes
        packed_cells: bytes
        tier_up_stub: int
        packed_pieces: bytes
        array_to_wasm: tuple[tuple[int, int, int], ...]
        wasm_to_array: tuple[tuple[int, int, int], ...]
        facts: bytes
        pages: int
        source: int
        originals_checksum: int
        baseline: int
        optimised: int

    def encode(self) -> bytes:
        return marshal.dumps(tuple(getattr(self, name) for name in self.__slots__), 2)


def decode_growth(data: memoryview) -> Growth:
    """Raises WasmtimeError for what `Growth.encode` did not write."""
    found = Growth()
    try:
        fields: Any = marshal.loads(data)
        if len(fields) != len(Growth.__slots__):
            raise ValueError("another number of fields")
        for name, value in zip(Growth.__slots__, fields, strict=True):
            setattr(found, name, value)
    except (EOFError, TypeError, ValueError) as error:
        raise WasmtimeError(f"damaged compiled module: its growth record cannot be read ({error})") from error
    return found


def padding(length: int) -> bytes:
    """What follows an ELF file of so many bytes up to the next page."""
    return bytes(-length % PAGE)
