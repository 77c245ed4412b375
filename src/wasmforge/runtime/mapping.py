"""`Mmap`, the owner of a piece of address space (Wasmtime's `Mmap` and `MmapVec`): code images, reservations of linear
memories, the records of a store. Made by code_memory, vm/memory, vm/records and vm/table; unmapped with the last
reference, or, for what every store needs, given to the next store (`Recycled`).

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
from sys import getrefcount

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
from wasmforge.runtime.lifetime import collecting
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

__all__ = ["Mmap", "Recycled", "unmap_recycled"]

KEPT: Final = 16
"""Mappings of a kind that wait for their next user."""


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
            unmap_recycled()
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


_free: Final[dict[object, list[tuple[mmap.mmap, int, int]]]] = {}
"""What waits for its next user, by kind: the owner, its address, and how much of it is in use."""


class Recycled(Mmap):
    """A mapping that goes to the next one of its kind instead of back to the system: mapping and unmapping 4 GiB takes
    9 µs here, and the first touch of each page 2.5.

    Deriving classes say what is of one kind, how much is in use (`used`), and how that becomes as new.

    Threat: two stores in the same memory, or a store that reads what another one has left. So a mapping is given on
    only when this object, which everything that uses the address keeps alive, has lost its last reference, nobody has
    taken a view of `owner` itself, and no collection is at work, whose garbage may still be used by finalisers; and
    only once it is clean. tests/runtime/test_recycling.py attacks this.
    """

    __slots__ = ("kind", "used")
    PROTECTION: ClassVar[int]

    def __init__(self, kind: object, length: int) -> None:
        self.kind = kind
        free = _free.get(kind)
        if free:
            try:
                self.owner, self.address, self.used = free.pop()
            except IndexError:
                pass  # another thread was faster
            else:
                self.length = length
                return
        self.used = 0
        new = Mmap._anonymous(length, self.PROTECTION)
        self.owner, self.address, self.length = new.owner, new.address, length

    def __del__(
        self, collecting: Callable[[], bool] = collecting, references: Callable[[object], int] = getrefcount
    ) -> None:
        # The defaults are there because module variables may be gone when the interpreter ends.
        owner: mmap.mmap | None = getattr(self, "owner", None)
        if owner is None or collecting() or references(owner) != 3:  # None: there was no room for it
            return
        free = _free.setdefault(self.kind, [])
        if len(free) < KEPT and self._clean():
            free.append((owner, self.address, self.used))

    def _clean(self) -> bool:
        """Makes the mapping as new, all zeros, and `used` what is in use from the start of the next life. False if it
        is to be unmapped."""
        raise NotImplementedError


def unmap_recycled() -> None:
    """Gives everything back to the system that waits for its next user."""
    for free in list(_free.values()):
        free.clear()
