"""`Mmap`, the owner of a piece of address space (Wasmtime's `Mmap` and `MmapVec`): code images, reservations of linear
memories, the records of a store. Made by code_memory, vm/memory, vm/records and vm/table; unmapped with the last
reference.

Threat: use after free by way of the garbage collector. A cycle of garbage runs every `__del__` in it first, in any
order, and a user's `__del__` may still call into a store of that cycle or read a view of its memory. So memory must not
be unmapped by a `__del__` of ours. It is owned by an `mmap.mmap` object, which has no finaliser the collector could run
early: it unmaps in its deallocation, when nothing refers to it any more. Things that a `__del__` does have to undo
(entries in the handler's tables, stacks back to their pool) go through `lifetime`. tests/runtime/test_lifetime.py
attacks this.
"""

from __future__ import annotations

import gc
import mmap

from wasmforge.runtime.libc import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    address_of,
    map_fixed,
    protect,
)
from wasmforge.syntax.errors import WasmtimeError

__all__ = ["Mmap"]


class Mmap:
    """A mapping and its address. Whoever uses the address keeps this object or `owner` alive."""

    __slots__ = ("address", "length", "owner")

    def __init__(self, owner: mmap.mmap, length: int) -> None:
        self.owner = owner
        self.address = address_of(owner)
        self.length = length

    @classmethod
    def reserve(cls, length: int) -> Mmap:
        """Address space without memory behind it: any access faults. Raises WasmtimeError when there is no room."""
        return cls._anonymous(length, PROT_NONE)

    @classmethod
    def zeroed(cls, length: int) -> Mmap:
        """Readable and writable zeros; memory is taken page by page at the first touch."""
        return cls._anonymous(length, PROT_READ | PROT_WRITE)

    @classmethod
    def _anonymous(cls, length: int, protection: int) -> Mmap:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        try:
            return cls(mmap.mmap(-1, length, flags=flags, prot=protection), length)
        except OSError:
            # Stores in cycles with their host functions wait for the collector, which counts objects, not gigabytes.
            gc.collect()
        try:
            return cls(mmap.mmap(-1, length, flags=flags, prot=protection), length)
        except OSError as error:
            raise WasmtimeError(
                f"no room for {length:#x} bytes of address space: {error.strerror}. Drop stores that are not "
                "needed, or lower Config.memory_reservation"
            ) from error

    @classmethod
    def of_file(cls, fd: int, length: int) -> Mmap:
        """A private, read-only mapping of the first `length` bytes of a file. Raises OSError."""
        # Over a reservation, because `mmap.mmap` would keep a copy of the descriptor for each mapped module.
        mapping = cls.reserve(length)
        map_fixed(mapping.address, length, PROT_READ, fd, 0)
        return mapping

    @property
    def end(self) -> int:
        return self.address + self.length

    def protect(self, start: int, length: int, protection: int) -> None:
        """Changes the protection of `length` bytes at offset `start`, both whole pages."""
        # Protecting pages of somebody else's mapping would be a hole anywhere: keep every change inside our own.
        if not 0 <= start <= start + length <= self.length:
            raise ValueError("the range lies outside the mapping")
        protect(self.address + start, length, protection)
