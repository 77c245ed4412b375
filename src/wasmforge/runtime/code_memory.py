"""`CodeMemory`: a compiled image in memory, published as executable (tables A2-01 to A2-03, A3-01). Module loading maps
one an artifact; `EngineCode` and `StoreCode` own it; backtraces, memory images and `serialize` read its sections.

Threat: memory that is writable and executable turns any stray write into code. Here pages go from writable to
read-only, and only then the text from read-only to executable; edits of a private copy go the same way back.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISREG

from wasmforge.compiler.image import TRAP_SECTION, Image
from wasmforge.runtime.libc import PAGE, PROT_EXEC, PROT_READ, PROT_WRITE
from wasmforge.runtime.mapping import Mmap
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, Self

    from wasmforge.compiler.trap import TrapKind

    class Code(Protocol):
        """Machine code of an artifact in memory, whichever way it gets there: a `CodeMemory`, complete from the
        start, or a `lazy_code.LazyCode`, which grows."""

        @property
        def text_address(self) -> int: ...
        @property
        def text_length(self) -> int: ...
        def text(self) -> memoryview: ...
        def image(self) -> memoryview: ...
        def section(self, name: str) -> memoryview: ...
        def section_offset(self, name: str) -> int: ...
        def file_source(self) -> FileSource | None: ...
        def trap_at(self, text_offset: int) -> TrapKind | None: ...
        def deep_clone(self) -> CodeMemory: ...


__all__ = ["CodeMemory", "CustomCodeMemory", "FileSource"]


class CustomCodeMemory:
    """How an embedder makes memory executable where mprotect alone will not do (Wasmtime's trait of this name).

    Derive from it and give it to the engine.
    """

    def required_alignment(self) -> int:
        """Bytes to which the ranges of the other two methods are aligned; the page size at most."""
        raise NotImplementedError

    def publish_executable(self, address: int, length: int) -> None:
        """Makes `length` bytes at `address`, read-only until now, executable and not writable. Raises OSError."""
        raise NotImplementedError

    def unpublish_executable(self, address: int, length: int) -> None:
        """Makes them readable and writable and not executable. Raises OSError."""
        raise NotImplementedError


class FileSource:
    """An open file that memory images are mapped from (A3-06)."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = -1

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a regular file. Raises OSError, WasmtimeError for what is no file."""
        # Threat: opening a pipe or a device that somebody put there would wait for ever; O_NONBLOCK does not wait.
        source = cls.adopt(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        if not S_ISREG(os.fstat(source.fd).st_mode):
            raise WasmtimeError(f"{os.fspath(path)!s} is not a regular file")
        return source

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Takes over a file descriptor; it is closed with the object."""
        source = cls()
        source.fd = fd
        return source

    @classmethod
    def of_bytes(cls, *parts: bytes | bytearray | memoryview) -> Self:
        """A file in memory with these contents. Raises WasmtimeError when the system has no room or no descriptor."""
        try:
            source = cls.adopt(os.memfd_create("wasmforge-memory-image", os.MFD_CLOEXEC))
        except OSError as error:
            raise WasmtimeError(f"no file for the initial contents of memories: {error.strerror}") from error
        source.append(*parts)
        return source

    def append(self, *parts: bytes | bytearray | memoryview) -> None:
        """Writes to a file of `of_bytes`, behind what there is. Raises WasmtimeError when the system has no room."""
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            raise WasmtimeError(f"no room for the initial contents of memories: {error.strerror}") from error

    def __del__(self) -> None:
        # -1 first: after a finaliser a resurrected owner must fail, not map whatever file gets the number next.
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class CodeMemory:
    """One image: where its sections are and whether its text can run.

    Create it with `from_bytes` or `from_file`, then `publish`. `text_address` and `text_length` are those of
    section .text; the executable pages also hold the constants behind it.
    """

    __slots__ = (
        "__weakref__",
        "_custom",
        "_image",
        "_mapping",
        "_published",
        "_source",
        "text_address",
        "text_length",
    )

    def __init__(
        self, mapping: Mmap, source: FileSource | None, custom: CustomCodeMemory | None, undamaged: bool = False
    ) -> None:
        self._mapping = mapping
        self._source = source
        self._custom = custom
        self._published = False
        self._image = Image(memoryview(mapping.owner).toreadonly(), undamaged=undamaged)
        self.text_address = mapping.address + self._image.text_offset
        self.text_length = self._image.text_size
        if custom is not None and PAGE % custom.required_alignment():
            raise WasmtimeError(
                f"CustomCodeMemory.required_alignment() must divide the page size {PAGE}, "
                f"got {custom.required_alignment()}"
            )

    @classmethod
    def from_bytes(cls, image: bytes | bytearray | memoryview, custom: CustomCodeMemory | None = None) -> Self:
        """Copies an image into anonymous memory. Raises WasmtimeError if it is damaged or not an image."""
        size = memoryview(image).nbytes
        if not size:
            raise WasmtimeError("not a compiled module: no bytes")
        mapping = Mmap.zeroed(size)
        mapping.owner[:] = image
        mapping.protect(0, size, PROT_READ)
        return cls(mapping, None, custom)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], custom: CustomCodeMemory | None = None) -> Self:
        """Maps an image from its file. Raises OSError, or WasmtimeError if it is damaged or not an image.

        As in Wasmtime, the file must not be changed while it is mapped; the cache only ever replaces files whole.
        """
        source = FileSource.open(path)
        size = os.fstat(source.fd).st_size
        if not size:
            raise WasmtimeError(f"not a compiled module: {os.fspath(path)} is empty")
        return cls.from_source(source, size, custom)

    @classmethod
    def from_source(
        cls, source: FileSource, length: int, custom: CustomCodeMemory | None = None, *, undamaged: bool = False
    ) -> Self:
        """Maps the first `length` bytes, not 0, of an open file; `undamaged` says that its checksum is known to be
        right. Raises as `from_file`."""
        return cls(Mmap.of_file(source.fd, length), source, custom, undamaged)

    @property
    def published(self) -> bool:
        return self._published

    def publish(self) -> None:
        """Makes the image read-only and then its text executable. Raises WasmtimeError when the system forbids it."""
        if self._published:
            raise ValueError("already published")
        image = self._image
        self._mapping.protect(0, self._mapping.length, PROT_READ)
        try:
            if image.code_size == 0:
                pass
            elif self._custom is not None:
                self._custom.publish_executable(self.text_address, image.code_size)
            else:
                self._mapping.protect(image.text_offset, image.code_size, PROT_READ | PROT_EXEC)
        except OSError as error:
            if error.errno == errno.EACCES and self._source is not None:
                self._copy_from_file()
                self.publish()
                return
            raise WasmtimeError(
                f"the system does not let this process make memory executable: {error.strerror}"
            ) from error
        self._published = True

    def _copy_from_file(self) -> None:
        """A file system mounted noexec refuses to map code; its bytes are as good in anonymous memory."""
        copy = type(self).from_bytes(self._image.data, self._custom)
        self._mapping, self._image, self._source = copy._mapping, copy._image, None
        self.text_address = copy.text_address

    def unpublish(self) -> None:
        """Makes a private copy writable and not executable, so that a debugger can patch it.

        No frame of the store may be running in it meanwhile; the caller publishes again before wasm continues.
        """
        if not self._published:
            raise ValueError("not published")
        if self._source is not None:
            raise ValueError("code mapped from a file cannot be edited; use a deep_clone of it")
        image = self._image
        if image.code_size:
            if self._custom is not None:
                self._custom.unpublish_executable(self.text_address, image.code_size)
            else:
                self._mapping.protect(image.text_offset, image.code_size, PROT_READ | PROT_WRITE)
        self._published = False

    def deep_clone(self) -> CodeMemory:
        """A private copy, not published, of the whole image."""
        return CodeMemory.from_bytes(self._image.data, self._custom)

    def elf(self) -> Image:
        """The image as a reader of its sections."""
        return self._image

    def image(self) -> memoryview:
        """The bytes of the whole image."""
        return self._image.data

    def section(self, name: str) -> memoryview:
        """The bytes of a section, read-only; empty if the image has none of that name."""
        return self._image.section(name) if self._image.has_section(name) else memoryview(b"")

    def text(self) -> memoryview:
        return self._image.data[self._image.text_offset : self._image.text_offset + self.text_length]

    def text_mut(self) -> memoryview:
        """The text for patching. Raises ValueError while it is published: published text is not writable."""
        if self._published:
            raise ValueError("published code cannot be edited; unpublish it first")
        start = self._image.text_offset
        return memoryview(self._mapping.owner)[start : start + self.text_length]

    def trap_at(self, text_offset: int) -> TrapKind | None:
        """What a fault of the instruction at an offset into the text means; None where none can happen."""
        from wasmforge.compiler.tables import trap_table

        data = self.section(TRAP_SECTION)
        return trap_table.lookup(data, text_offset) if data else None

    # The two methods of Wasmtime's trait ModuleMemoryImageSource are `section` and this.
    def file_source(self) -> FileSource | None:
        """The file that the image is mapped from, None for an image from bytes."""
        return self._source

    def section_offset(self, name: str) -> int:
        """The offset of a section in the file."""
        return self._image.section_range(name)[0]
