"""Bounds-checked access to the linear memory of the calling module. The host functions of this room see guest
memory through nothing else; `preview1.py` makes one of these for each instance that calls.

Threat: every pointer and length comes from the guest. Python's own indexing would accept a negative offset, and
slicing clamps silently, so each access is compared with the current length here, on values that the caller
has already reduced to unsigned numbers. A pointer that is out of bounds or misaligned is no errno: the call traps, as
the witx document says and Wasmtime does.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.abi import IOVEC, U32, U64
from wasmforge.wasi.errno import ILSEQ, INVAL, NAMETOOLONG, WasiError

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from typing import Final

__all__ = ["GuestMemory", "GuestPointerError", "MAX_IOVECS", "MAX_PATH_LENGTH", "MAX_TRANSFER"]

MAX_IOVECS: Final = 1024
"""Buffers of one read or write that are looked at (Linux's IOV_MAX). A longer list gives a short count, which POSIX
allows, so that a guest cannot make the host build millions of objects in one call."""

MAX_TRANSFER: Final = 0x7FFF_F000
"""Bytes of one read or write (Linux's MAX_RW_COUNT), the rest is a short count too. Iovecs may overlap: without this,
their sum could exceed the 32 bits of the result."""

MAX_PATH_LENGTH: Final = 4095
"""Bytes of a path (Linux's PATH_MAX without the NUL); longer ones are refused before they are copied."""


class GuestPointerError(WasmtimeError):
    """The guest passed a pointer outside its memory, or a misaligned one."""


class GuestMemory:
    """The memory of one instance. `view` covers exactly its current length; whoever owns it replaces it after growth.

    All offsets and lengths are unsigned, in bytes.
    """

    __slots__ = ("length", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.length = len(view)

    def check(self, pointer: int, length: int, alignment: int = 1) -> None:
        """Raises `GuestPointerError` unless `length` bytes at `pointer` lie in the memory."""
        if pointer & (alignment - 1):
            raise GuestPointerError(f"Pointer not aligned to {alignment}: Region {{ start: {pointer}, len: {length} }}")
        if pointer + length > self.length:
            raise GuestPointerError(f"Pointer out of bounds: Region {{ start: {pointer}, len: {length} }}")

    def slice(self, pointer: int, length: int) -> memoryview:
        """A writable view of guest memory, without copying. It is valid during the host call only."""
        end = pointer + length
        if end > self.length:
            self.check(pointer, length)
        return self.view[pointer:end]

    def read(self, pointer: int, length: int) -> bytes:
        return bytes(self.slice(pointer, length))

    def write(self, pointer: int, data: bytes) -> None:
        self.slice(pointer, len(data))[:] = data

    def write_u32(self, pointer: int, value: int) -> None:
        if pointer & 3 or pointer + 4 > self.length:
            self.check(pointer, 4, 4)
        U32.pack_into(self.view, pointer, value)

    def write_u64(self, pointer: int, value: int) -> None:
        if pointer & 7 or pointer + 8 > self.length:
            self.check(pointer, 8, 8)
        U64.pack_into(self.view, pointer, value)

    def write_record(self, pointer: int, data: bytes, alignment: int) -> None:
        """Stores a packed record."""
        self.check(pointer, len(data), alignment)
        self.view[pointer : pointer + len(data)] = data

    def buffers(self, pointer: int, count: int) -> list[memoryview]:
        """The buffers that `count` iovecs at `pointer` describe, each checked; at most `MAX_IOVECS` of them, and with
        at most `MAX_TRANSFER` bytes unless there is only one."""
        length = self.length
        view = self.view
        if count == 1 and not pointer & 3 and pointer + 8 <= length:  # what nearly every call looks like
            start, size = IOVEC.unpack_from(view, pointer)
            if start + size <= length:
                return [view[start : start + size]]
        self.check(pointer, 8 * count, 4)
        buffers = []
        left = MAX_TRANSFER
        for start, size in IOVEC.iter_unpack(view[pointer : pointer + 8 * min(count, MAX_IOVECS)]):
            self.check(start, size)
            size = min(size, left)
            left -= size
            buffers.append(view[start : start + size])
        return buffers

    def path(self, pointer: int, length: int) -> bytes:
        """A path as bytes: valid UTF-8 without NUL.

        Raises:
            WasiError: ILSEQ for what is not UTF-8; INVAL for a NUL, since the host would see only what is before it;
                NAMETOOLONG.
        """
        if length > MAX_PATH_LENGTH:
            self.check(pointer, length)
            raise WasiError(NAMETOOLONG)
        path = bytes(self.slice(pointer, length))
        try:
            path.decode()
        except UnicodeDecodeError:
            raise WasiError(ILSEQ) from None
        if b"\0" in path:
            raise WasiError(INVAL)
        return path
