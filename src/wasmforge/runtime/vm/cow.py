"""Initial contents of memories, mapped copy-on-write (tables A2-09, A3-06): a module's static data stand as whole pages
in its image; an instance maps them over the first pages of its memory, and pays only for the pages that it touches.
"""

from __future__ import annotations

from wasmforge.compiler.image import MEMORY_SECTION, PAGE
from wasmforge.runtime.code_memory import FileSource
from wasmforge.runtime.libc import PROT_READ, PROT_WRITE, address_of, copy, map_fixed
from wasmforge.runtime.lock import LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from wasmforge.compiler.info import MemoryImage as ImageRange
    from wasmforge.runtime.code_memory import Code
    from wasmforge.runtime.vm.memory import LinearMemory

__all__ = ["MemoryImage", "ModuleMemoryImages"]

COPY_BELOW: Final = 32 << 10
"""An image up to this size that is not in a file is copied: about the time of the mapping with its page faults, and it
saves a file descriptor a module."""


class MemoryImage:
    """Pages of a file: `length` bytes at `offset` of `source` belong at address `memory_offset` of a memory. All are
    whole host pages, checked by whoever made it."""

    __slots__ = ("length", "memory_offset", "offset", "source")

    def __init__(self, source: FileSource, offset: int, memory_offset: int, length: int) -> None:
        self.source = source
        self.offset = offset
        self.memory_offset = memory_offset
        self.length = length

    def map_into(self, memory: LinearMemory) -> None:
        """Replaces the memory's pages by private copies of the image, made by the system at the first write."""
        memory.reservation.contents_mapped = True
        map_fixed(memory.base + self.memory_offset, self.length, PROT_READ | PROT_WRITE, self.source.fd, self.offset)


class ModuleMemoryImages:
    """The memory images of a module. Made on first use: from the mapped image's own file, or, for an image from bytes,
    from a memfd that all instances of the module share."""

    __slots__ = ("_code", "_copied", "_lock", "_memfd", "_ranges")

    def __init__(self, code: Code, ranges: Mapping[int, ImageRange]) -> None:
        self._code = code
        self._ranges = ranges
        self._copied: dict[int, tuple[bytes, int]] = {}  # by memory: the contents and their address
        self._memfd: FileSource | None = None
        self._lock = LOCK

    def __contains__(self, memory: int) -> bool:
        return memory in self._ranges

    def initialize(self, index: int, memory: LinearMemory) -> None:
        """Gives a fresh memory its initial contents."""
        image = self._ranges[index]
        # Threat: MAP_FIXED replaces whatever is there, and the range comes from a file. It must lie in the pages
        # that this memory has committed.
        committed = memory.byte_length + PAGE - 1 & -PAGE
        if not 0 <= image.memory_offset <= image.memory_offset + image.length <= committed:
            raise ValueError("the memory image lies outside the memory")
        if not image.length:
            return
        source = self._code.file_source()
        if source is not None:
            offset = self._code.section_offset(MEMORY_SECTION) + image.image_offset
            MemoryImage(source, offset, image.memory_offset, image.length).map_into(memory)
        elif image.length <= COPY_BELOW:
            found = self._copied.get(index)
            if found is None:
                data = self._code.section(MEMORY_SECTION)[image.image_offset : image.image_offset + image.length]
                # Without the zeros at the end, which the memory has anyway. It may even end before them, where pages
                # have one byte.
                contents = bytes(data).rstrip(b"\0")
                found = self._copied[index] = contents, address_of(contents)
            contents, source_address = found
            # Threat: a copy beyond the memory. The image ends in a committed page (above), the contents in the memory.
            if image.memory_offset + len(contents) > memory.byte_length:
                raise ValueError("the memory image lies outside the memory")
            copy(memory.base + image.memory_offset, source_address, len(contents))
        else:
            MemoryImage(self._shared_memfd(), image.image_offset, image.memory_offset, image.length).map_into(memory)

    def _shared_memfd(self) -> FileSource:
        with self._lock:
            if self._memfd is None:
                self._memfd = FileSource.of_bytes(self._code.section(MEMORY_SECTION))
            return self._memfd
