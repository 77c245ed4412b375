"""`Arena`: the records of one store that machine code reads (store context, vmctx, definitions, VMFuncRefs,
descriptors), all made by `runtime.vm` from the layouts in `compiler/environ.py`.

A record never moves and is freed with the arena, never before: so an address in a record, a register or a frame of the
store stays valid for as long as anything of the store can run. Python reads and writes them through views of the
arena's own chunks, so that a wrong address raises instead of corrupting the process.
"""

from __future__ import annotations

from _struct import Struct

from wasmforge.runtime.libc import PROT_READ, PROT_WRITE, array_at
from wasmforge.runtime.mapping import Mmap, Recycled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Buffer = bytes | bytearray | memoryview

__all__ = ["Arena", "FUNC_REF", "U32", "U64"]

FIRST_CHUNK: Final = 64 << 10
"""The store context takes 36 KiB of it; only pages that are touched cost memory."""

FUNC_REF: Final = Struct("<QQQI4x")
"""A VMFuncRef: ARRAY_CALL, WASM_CALL, VMCTX, TYPE_INDEX."""

U32: Final = Struct("<I")
U64: Final = Struct("<Q")
_ALIGNMENT: Final = 16


class _FirstChunk(Recycled):
    """The mapping of an arena's first chunk, which is all that most stores need."""

    __slots__ = ("scratch",)
    PROTECTION = PROT_READ | PROT_WRITE

    def __init__(self) -> None:
        super().__init__(_FirstChunk, FIRST_CHUNK)
        self.scratch = 0, 0

    def _clean(self) -> bool:
        # Through the mapping itself: for a few hundred bytes memset by way of ctypes takes three times as long.
        start, end = self.scratch
        self.owner[:start] = bytes(start)
        self.owner[end : self.used] = bytes(self.used - end)
        self.used = 0
        return True


class _Chunk:
    """A mapping that records are cut from. `used` bytes are; views of them keep the mapping alive."""

    __slots__ = ("base", "bytes", "end", "first", "used")

    def __init__(self, size: int) -> None:
        mapping: Mmap
        self.first: _FirstChunk | None = None
        if size == FIRST_CHUNK:
            mapping = self.first = _FirstChunk()
        else:
            mapping = Mmap.zeroed(size)
        self.bytes = array_at(mapping.address, size, mapping)
        self.base = mapping.address
        self.end = self.base + size
        self.used = 0


class Arena:
    """Zeroed records at 16-byte aligned addresses. Not for several threads at once, like the store."""

    __slots__ = ("_chunks", "_last")

    def __init__(self) -> None:
        self._last = _Chunk(FIRST_CHUNK)
        self._chunks = [self._last]

    def allocate(self, size: int) -> int:
        """The address of `size` zero bytes. Raises WasmtimeError when the system has no memory left."""
        size = size + _ALIGNMENT - 1 & -_ALIGNMENT
        chunk = self._last
        address = chunk.base + chunk.used
        if address + size > chunk.end:
            chunk = _Chunk(max(size + 0xFFFF & -0x10000, FIRST_CHUNK << min(len(self._chunks), 6)))
            self._chunks.append(chunk)
            self._last = chunk
            address = chunk.base
        chunk.used += size
        if chunk.first is not None:
            chunk.first.used = chunk.used  # that has to be cleaned
        return address

    def is_scratch(self, start: int, end: int) -> None:
        """Says that nobody reads the bytes at these addresses, of the first record, without having written them: they
        need not be zeros when the mapping has its next user."""
        first = self._chunks[0].first
        if first is not None:
            first.scratch = start - first.address, end - first.address

    def allocate_bytes(self, data: bytes) -> int:
        """The address of a copy of `data`."""
        address = self.allocate(len(data))
        self.write(address, data)
        return address

    def _find(self, address: int, size: int) -> _Chunk:
        for chunk in self._chunks:
            if chunk.base <= address and address + size <= chunk.base + chunk.used:
                return chunk
        raise ValueError(f"no record of this store at {address:#x}")

    def view(self, address: int, size: int) -> memoryview:
        """The bytes of a record, writable; keeps the chunk alive."""
        chunk = self._last
        at = address - chunk.base
        if not 0 <= at <= chunk.used - size:
            chunk = self._find(address, size)
            at = address - chunk.base
        return chunk.bytes[at : at + size]

    def write(self, address: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self.view(address, len(view))[:] = view

    def read_u64(self, address: int) -> int:
        chunk = self._find(address, 8)
        value: int = U64.unpack_from(chunk.bytes, address - chunk.base)[0]
        return value

    def write_u64(self, address: int, value: int) -> None:
        chunk = self._find(address, 8)
        U64.pack_into(chunk.bytes, address - chunk.base, value)

    def read_u32(self, address: int) -> int:
        chunk = self._find(address, 4)
        value: int = U32.unpack_from(chunk.bytes, address - chunk.base)[0]
        return value
