"""`LinearMemory`: a WebAssembly memory in a reservation of address space. Instances and the embedder create it;
compiled code reaches it through the vmctx's base and definition, the signal handler knows its reservation, Python sees
memoryviews.

The reservation covers all that a 32-bit index plus a static offset below the guard can reach, so compiled code needs no
bounds check, and the base never moves: growing makes more pages accessible, and views stay valid. The reservation
is unmapped when neither the memory nor any view of it is left, even if the store is gone before.
"""

from __future__ import annotations

from wasmforge.compiler.environ import VMMemoryDefinition
from wasmforge.runtime.libc import PROT_READ, PROT_WRITE, array_at
from wasmforge.runtime.mapping import Mmap
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import PAGE_SIZE, Limits, MemoryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.records import Buffer

__all__ = ["LinearMemory"]

MAX_PAGES: Final = 65536
_INDEX_SPACE: Final = 4 << 30


class LinearMemory:
    """A memory of a store.

    `base` is the address of byte 0, `definition` that of its VMMemoryDefinition, `store_id` the store it belongs to;
    `reservation` the range that the signal handler must know.
    """

    EXTERN_KIND: ClassVar = 2  # ExternKind.MEMORY
    __slots__ = (
        "__weakref__",
        "_definition",
        "_limit_pages",
        "_limits",
        "_maximum",
        "_minimum",
        "_store",
        "_view",
        "base",
        "definition",
        "pages",
        "reservation",
        "store_id",
    )

    def __init__(self, store: VMStore, memory_type: MemoryType) -> None:
        arena, tunables, limits = store.arena, store.engine.tunables, store.limits
        minimum, maximum = memory_type.limits.minimum, memory_type.limits.maximum
        limits.check_memory(minimum)
        before = tunables.memory_guard_size if tunables.guard_before_linear_memory else 0
        # Threat: compiled code omits checks because it trusts this size. Whatever the tunables say, with
        # signals-based traps the whole index space of 4 GiB is reserved.
        accessible = max(tunables.memory_reservation, minimum * PAGE_SIZE)
        if tunables.signals_based_traps or accessible > _INDEX_SPACE:
            accessible = _INDEX_SPACE
        self.reservation = Mmap.reserve(before + accessible + tunables.memory_guard_size)
        self.base = self.reservation.address + before
        self.store_id = store.id
        self._store = store.weak
        self.pages = 0
        self._limits = limits
        self._minimum = minimum
        self._maximum = maximum
        self._view: memoryview | None = None
        self.definition = arena.allocate(VMMemoryDefinition.SIZE)
        self._definition = arena.view(self.definition, VMMemoryDefinition.SIZE).cast("Q")
        if maximum is None or maximum > accessible // PAGE_SIZE:
            maximum = accessible // PAGE_SIZE
        self._limit_pages = maximum
        if not self._commit(minimum):
            raise WasmtimeError(f"no memory left for the {minimum} initial pages of a linear memory")

    def _commit(self, pages: int) -> bool:
        """Makes the first `pages` pages accessible and tells compiled code. False when the system refuses."""
        if pages > self.pages:
            start = self.base - self.reservation.address + self.pages * PAGE_SIZE
            try:
                self.reservation.protect(start, (pages - self.pages) * PAGE_SIZE, PROT_READ | PROT_WRITE)
            except OSError:
                return False
        # No call from here on: the handler of a signal (Ctrl-C), which may raise after any call, would leave compiled
        # code and this object with different lengths.
        self.pages = pages
        self._definition[0] = self.base
        self._definition[1] = pages * PAGE_SIZE
        return True

    @property
    def store(self) -> VMStore:
        """The store. Raises WasmtimeError when it is gone; the memory itself can still be read and written then."""
        from wasmforge.runtime.store import require

        return require(self._store)

    @property
    def type(self) -> MemoryType:
        """The type with the current size as minimum, which is what an import is compared with."""
        return MemoryType(Limits(self.pages, self._maximum))

    @property
    def declared_type(self) -> MemoryType:
        """The type it was created with."""
        return MemoryType(Limits(self._minimum, self._maximum))

    @property
    def byte_length(self) -> int:
        return self.pages * PAGE_SIZE

    def grow(self, delta: int) -> int:
        """Grows by `delta` pages (unsigned). Returns the old size in pages, or -1, changing nothing, when the maximum,
        a limit of the store or the system does not allow it (specification, section 4.5.3.9)."""
        old = self.pages
        if delta < 0:
            raise ValueError("a memory cannot shrink")
        new = old + delta
        if new > self._limit_pages or not self._limits.allows_memory(new):
            return -1
        return old if delta == 0 or self._commit(new) else -1

    def view(self) -> memoryview:
        """All of the memory, writable, no copy. It keeps its length when the memory grows, and keeps the memory's
        pages alive; views that outlive the store are safe (tests/runtime/test_lifetime.py)."""
        if self._view is None:
            self._view = array_at(self.reservation.address, self.reservation.length, self.reservation)
        start = self.base - self.reservation.address
        return self._view[start : start + self.pages * PAGE_SIZE]

    def read(self, start: int, stop: int) -> bytes:
        """A copy of bytes `start` to `stop`. Raises IndexError outside the memory."""
        if not 0 <= start <= stop <= self.pages * PAGE_SIZE:
            raise IndexError(f"bytes {start} to {stop} lie outside the memory of {self.pages * PAGE_SIZE} bytes")
        return bytes(self.view()[start:stop])

    def write(self, data: Buffer, start: int) -> int:
        """Copies `data` to address `start`; returns its length. Raises IndexError outside the memory."""
        source = memoryview(data).cast("B")
        if not 0 <= start <= self.pages * PAGE_SIZE - len(source):
            raise IndexError(
                f"{len(source)} bytes at {start} do not fit into the memory of {self.pages * PAGE_SIZE} bytes"
            )
        self.view()[start : start + len(source)] = source
        return len(source)
