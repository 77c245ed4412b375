"""`LinearMemory`: a WebAssembly memory in a reservation of address space. Instances and the embedder create it;
compiled code reaches it through the vmctx's base and definition, the signal handler knows its reservation, Python sees
memoryviews.

The reservation of a 32-bit memory covers all that an index plus a static offset below the guard can reach, so compiled
code needs no bounds check; that of a 64-bit memory covers what it may grow to, with the guard behind (`memory_plan`
says what compiled code makes of it). The base never moves: growing makes more pages accessible, and views stay valid.
The reservation is unmapped, or given to another memory, when neither the memory nor any view of it is left, even if the
store is gone before.
"""

from __future__ import annotations

from mmap import MADV_DONTNEED

from wasmforge.compiler.environ import VMMemoryDefinition
from wasmforge.compiler.memory_plan import INDEX_SPACE
from wasmforge.runtime.libc import PROT_NONE, PROT_READ, PROT_WRITE, array_at, clear
from wasmforge.runtime.mapping import Recycled
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import Limits, MemoryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.limits import StoreLimits
    from wasmforge.runtime.vm.records import Arena, Buffer

__all__ = ["LinearMemory", "Reservation"]

_HOST_PAGE: Final = 4096
_ADDRESS_SPACE: Final = 1 << 47
"""Bytes that a process can address on x86-64."""
_MOST_KEPT: Final = 256 << 20
"""Accessible bytes of a memory whose reservation is used again: page tables stay, two thousandths of it."""
_CLEARED_IN_PLACE: Final = 64 << 10
"""Bytes that are cleared faster than they are given back and come again: 1.5 µs, against 0.8 and 2.5 a page."""
_LEAST_GROWTH: Final = 1 << 30
"""Bytes that a 64-bit memory shall be able to grow by even where address space is scarce."""


class LinearMemory:
    """A memory of a store.

    `base` is the address of byte 0, `definition` that of its VMMemoryDefinition, `store_id` the store it belongs to;
    `reservation` the range that the signal handler must know.
    """

    EXTERN_KIND: ClassVar = 2  # ExternKind.MEMORY
    ENGINE_WIDE: ClassVar = False
    """Whether it belongs to no store: stores see it through a `SharedMemoryView`."""
    __slots__ = (
        "__weakref__",
        "_definition",
        "_limit_pages",
        "_limits",
        "_store",
        "_view",
        "base",
        "declared_type",
        "definition",
        "page_size_log2",
        "pages",
        "reservation",
        "store_id",
    )

    def __init__(self, store: VMStore, memory_type: MemoryType) -> None:
        self.store_id = store.id
        self._store = store.weak
        self._create(store.arena, store.limits, store.engine.tunables, memory_type)

    def _create(self, arena: Arena, limits: StoreLimits, tunables: Tunables, memory_type: MemoryType) -> None:
        minimum, maximum = memory_type.limits.minimum, memory_type.limits.maximum
        self.page_size_log2 = memory_type.page_size_log2
        limits.check_memory(minimum, maximum, self.page_size_log2)
        accessible, self.reservation = _reserve(memory_type, tunables)
        self.base = self.reservation.address + self.reservation.before
        self.pages = 0
        self._limits = limits
        self.declared_type = memory_type
        """The type it was created with."""
        self._view: memoryview | None = None
        self.definition = arena.allocate(VMMemoryDefinition.SIZE)
        self._definition = arena.view(self.definition, VMMemoryDefinition.SIZE).cast("Q")
        most = accessible >> self.page_size_log2
        if not memory_type.is_64:
            most = min(most, 0xFFFF_FFFF)  # memory.size must be able to say it
        self._limit_pages = most if maximum is None else min(maximum, most)
        if not self._commit(minimum):
            raise WasmtimeError(f"no memory left for the {minimum} initial pages of a linear memory")

    def _commit(self, pages: int) -> bool:
        """Makes the first `pages` pages accessible and tells compiled code. False when the system refuses."""
        try:
            self.reservation.make_accessible(_host_pages(pages << self.page_size_log2))
        except OSError:
            return False
        # No call from here on: the handler of a signal (Ctrl-C), which may raise after any call, would leave compiled
        # code and this object with different lengths.
        self.pages = pages
        self._definition[0] = self.base
        self._definition[1] = pages << self.page_size_log2
        return True

    @property
    def store(self) -> VMStore:
        """The store. Raises WasmtimeError when it is gone; the memory itself can still be read and written then."""
        from wasmforge.runtime.store import require

        return require(self._store)

    @property
    def type(self) -> MemoryType:
        """The type with the current size as minimum, which is what an import is compared with."""
        t = self.declared_type
        return MemoryType(Limits(self.pages, t.limits.maximum), t.is_64, t.shared, t.page_size_log2)

    @property
    def page_size(self) -> int:
        """Bytes in a page."""
        return 1 << self.page_size_log2

    @property
    def byte_length(self) -> int:
        return self.pages << self.page_size_log2

    def grow(self, delta: int) -> int:
        """Grows by `delta` pages (unsigned). Returns the old size in pages, or -1, changing nothing, when the maximum,
        a limit of the store or the system does not allow it (specification, section 4.5.3.9)."""
        if delta < 0:
            raise ValueError("a memory cannot shrink")
        if not self._may_have(self.pages + delta):
            return -1
        if delta and self._limits.limiter is not None:
            maximum = self.declared_type.limits.maximum
            most = None if maximum is None else maximum << self.page_size_log2
            if not self._limits.limiter.memory_growing(
                self.byte_length, self.pages + delta << self.page_size_log2, most
            ) or not self._may_have(self.pages + delta):  # it may have grown the memory itself
                return -1
        old = self.pages
        return old if delta == 0 or self._commit(old + delta) else -1

    def _may_have(self, pages: int) -> bool:
        return pages <= self._limit_pages and self._limits.allows_memory(pages << self.page_size_log2)

    def view(self) -> memoryview:
        """All of the memory, writable, no copy. It keeps its length when the memory grows, and keeps the memory's
        pages alive; views that outlive the store are safe (tests/runtime/test_lifetime.py)."""
        if self._view is None:
            self._view = array_at(self.reservation.address, self.reservation.length, self.reservation)
        start = self.reservation.before
        return self._view[start : start + self.byte_length]

    def read(self, start: int, stop: int) -> bytes:
        """A copy of bytes `start` to `stop`. Raises IndexError outside the memory."""
        if not 0 <= start <= stop <= self.byte_length:
            raise IndexError(f"bytes {start} to {stop} lie outside the memory of {self.byte_length} bytes")
        return bytes(self.view()[start:stop])

    def write(self, data: Buffer, start: int) -> int:
        """Copies `data` to address `start`; returns its length. Raises IndexError outside the memory."""
        source = memoryview(data).cast("B")
        if not 0 <= start <= self.byte_length - len(source):
            raise IndexError(f"{len(source)} bytes at {start} do not fit into the memory of {self.byte_length} bytes")
        self.view()[start : start + len(source)] = source
        return len(source)


def _host_pages(size: int) -> int:
    """Bytes, rounded up to whole pages of the host."""
    return size + _HOST_PAGE - 1 & -_HOST_PAGE


class Reservation(Recycled):
    """The address space of a memory: `before` bytes of guard, then the memory and what it may grow to, of which the
    first `used` bytes are accessible, then the other guard.

    With `contents_mapped` pages of a file lie over it.
    """

    __slots__ = ("before", "contents_mapped")
    PROTECTION = PROT_NONE

    def __init__(self, before: int, length: int) -> None:
        self.before = before
        self.contents_mapped = False
        super().__init__((before, length), length)

    def make_accessible(self, size: int) -> None:
        """Makes the first `size` bytes, whole pages, accessible and no others. Raises OSError."""
        if size > self.used:
            self.protect(self.before + self.used, size - self.used, PROT_READ | PROT_WRITE)
        elif size < self.used:
            # Only of a recycled one, of a longer memory: beyond the end compiled code must find the guard.
            self.protect(self.before + size, self.used - size, PROT_NONE)
        self.used = size

    def _clean(self) -> bool:
        if self.contents_mapped or self.used > _MOST_KEPT:
            return False
        if self.used <= _CLEARED_IN_PLACE:
            clear(self.address + self.before, self.used)
            return True
        try:
            self.owner.madvise(MADV_DONTNEED, self.before, self.used)
        except OSError:
            return False  # pages that the embedder has locked (mlockall) stay as they are
        return True


def _reserve(memory_type: MemoryType, tunables: Tunables) -> tuple[int, Reservation]:
    """The bytes that a memory may grow to, and its reservation. Raises WasmtimeError when there is no room for it."""
    before = tunables.memory_guard_size if tunables.guard_before_linear_memory else 0
    around = before + tunables.memory_guard_size
    if tunables.signals_based_traps and not memory_type.is_64:
        # Threat: compiled code omits checks because it trusts this size. So whatever the tunables say, the whole index
        # space is reserved.
        return INDEX_SPACE, Reservation(before, around + INDEX_SPACE)
    minimum = memory_type.minimum_bytes
    accessible = max(tunables.memory_reservation, minimum)
    if not memory_type.is_64:
        accessible = _host_pages(min(accessible, INDEX_SPACE))
        return accessible, Reservation(before, around + accessible)
    if minimum > _ADDRESS_SPACE:
        raise WasmtimeError(f"memory minimum size of {minimum} bytes exceeds the address space of the process")
    growth = tunables.memory_reservation_for_growth
    while True:
        size = accessible + growth
        maximum = memory_type.limits.maximum
        if maximum is not None:
            size = min(size, maximum << memory_type.page_size_log2)
        size = _host_pages(size)
        try:
            return size, Reservation(before, around + size)
        except WasmtimeError:
            # Less room to grow is better than no memory; memory.grow then fails earlier.
            if size <= minimum + _LEAST_GROWTH:
                raise
        growth //= 4
        accessible = max(minimum, min(accessible, minimum + growth))
