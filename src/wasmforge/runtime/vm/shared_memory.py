"""`SharedLinearMemory`: a memory that several stores, and so several threads, use at once (threads proposal), and
`SharedMemoryView`, what one store sees of it. The embedder's `SharedMemory` and the instantiation of modules that
define one create it; the builtins of `memory.atomic.wait` and `notify` park threads here.

It belongs to an engine and lives as long as anybody refers to it. The record that compiled code reads the length from
is its own, one for all stores: growth makes pages accessible first and writes the length then, which on x86-64 other
processors see in this order.
"""

from __future__ import annotations

import _thread
import sys
from collections import deque

from wasmforge.runtime.lifetime import died, undo_after
from wasmforge.runtime.vm.limits import StoreLimits
from wasmforge.runtime.vm.memory import LinearMemory
from wasmforge.runtime.vm.records import Arena
from wasmforge.runtime.vm.traps import memory_out_of_bounds, trap
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Final

    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.mapping import Mmap
    from wasmforge.runtime.store import VMStore
    from wasmforge.syntax.types import MemoryType

__all__ = ["NOTIFIED", "NOT_EQUAL", "TIMED_OUT", "SharedLinearMemory", "SharedMemoryView", "check_atomic_address"]

NOTIFIED: Final = 0
NOT_EQUAL: Final = 1
TIMED_OUT: Final = 2
"""Results of a wait (threads proposal)."""

_LONGEST_WAIT: Final = 100_000_000.0
"""Seconds: three years; `acquire` does not take much more."""


def check_atomic_address(address: int, size: int, length: int) -> None:
    """Traps unless `size` bytes from `address` on are aligned and inside of a memory, in this order."""
    if address % size:
        from wasmforge.compiler.trap import TrapKind

        raise trap(TrapKind.HEAP_MISALIGNED)
    if address + size > length:
        raise memory_out_of_bounds()


class _Range:
    """The entry of a memory's reservation in the handler's table. It does not refer to the memory, but to all that the
    entry has the address of."""

    __slots__ = ("_arena", "_gates", "_reservation")

    def __init__(self, engine: EngineState, reservation: Mmap, arena: Arena) -> None:
        self._gates = engine.gates
        self._reservation = reservation
        self._arena = arena

    def release(self) -> None:
        try:  # noqa: SIM105  # contextlib costs a cold start 0.5 ms
            self._gates.unregister_memory(self._reservation.address)
        except WasmtimeError:
            pass  # done by a first try that was interrupted


class SharedLinearMemory(LinearMemory):
    """A shared memory. `LinearMemory` without a store: no limits but its type's, and safe for several threads."""

    ENGINE_WIDE: ClassVar = True
    __slots__ = ("_growing", "_key", "_own_arena", "_parked", "_parking", "engine")

    def __init__(self, engine: EngineState, memory_type: MemoryType) -> None:
        self._key: int | None = None
        if not engine.shared_memory:
            raise WasmtimeError(
                "shared memory support is disabled for this engine: set Config.shared_memory before making it"
            )
        if not memory_type.shared or memory_type.limits.maximum is None:
            raise WasmtimeError("shared memory must have the `shared` flag enabled on its memory type")
        self.engine = engine
        self.store_id = 0  # no store has this number
        self._own_arena = Arena()
        self._growing = _thread.RLock()
        self._parking = _thread.allocate_lock()
        self._parked: dict[int, deque[Any]] = {}
        self._create(self._own_arena, StoreLimits(), engine.tunables, memory_type)
        entry = _Range(engine, self.reservation, self._own_arena)
        self._key = undo_after(self, entry.release)
        engine.gates.register_memory(self.reservation.address, self.reservation.end, self.definition)

    def __del__(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            died(key)

    def grow(self, delta: int) -> int:
        with self._growing:
            return super().grow(delta)

    # --- Parking --------------------------------------------------------------------------------------------

    def notify(self, address: int, count: int) -> int:
        """Wakes up to `count` threads that wait at `address`, the longest waiting first. Returns how many."""
        check_atomic_address(address, 4, self.byte_length)
        woken = 0
        with self._parking:
            queue = self._parked.get(address)
            while queue and woken < count:
                queue.popleft().release()
                woken += 1
            if queue is not None and not queue:
                del self._parked[address]
        return woken

    def wait(self, address: int, expected: bytes, timeout: int | None) -> int:
        """Parks the calling thread until another one notifies `address`.

        Returns at once with `NOT_EQUAL` when the bytes there are not `expected`, and with `TIMED_OUT` after `timeout`
        nanoseconds (None: never). Other Python threads run meanwhile. Raises what the handler of a signal raises, and
        the exception of the thread's deadline when that comes first.
        """
        size = len(expected)
        check_atomic_address(address, size, self.byte_length)
        # The comparison and the enqueueing are one step for everybody who notifies.
        with self._parking:
            if bytes(self.view()[address : address + size]) != expected:
                return NOT_EQUAL
            parked = _thread.allocate_lock()
            parked.acquire()
            self._parked.setdefault(address, deque()).append(parked)
        try:
            if self._acquire_in_group(address, parked, timeout):
                return NOTIFIED
        except BaseException:
            self._leave(address, parked)
            raise
        return TIMED_OUT if self._leave(address, parked) else NOTIFIED

    def _acquire_in_group(self, address: int, parked: Any, timeout: int | None) -> bool:
        """`_acquire`; a thread of a guest is woken when its program ends, and raises what ends it."""
        groups = sys.modules.get("wasmforge.runtime.thread_group")  # not imported: then no guest has threads
        group = None if groups is None else groups.current()
        if group is None:
            return _acquire(parked, timeout)
        group.park(parked, self, address)
        try:
            return _acquire(parked, timeout)
        finally:
            group.unpark(parked)

    def wake(self, address: int, parked: Any) -> None:
        """Wakes one thread, unless it was notified or left by itself."""
        if self._leave(address, parked):
            parked.release()

    def _leave(self, address: int, parked: Any) -> bool:
        """Takes a thread off its queue. False when it was notified meanwhile."""
        with self._parking:
            queue = self._parked.get(address)
            if queue is None or parked not in queue:
                return False
            queue.remove(parked)
            if not queue:
                del self._parked[address]
            return True


def _acquire(parked: Any, timeout: int | None) -> bool:
    """Waits for a lock for `timeout` nanoseconds, and no longer than the deadline of the calling thread allows."""
    from wasmforge.runtime.deadline import check, remaining

    seconds = _LONGEST_WAIT if timeout is None else min(timeout / 1e9, _LONGEST_WAIT)
    left = remaining()
    if left is None or left > seconds:
        return bool(parked.acquire(timeout=seconds))
    woken = bool(parked.acquire(timeout=left))
    if not woken:
        check()
    return woken


class SharedMemoryView(LinearMemory):
    """A shared memory in a store: what instances import and define, with the limits of the store."""

    __slots__ = ("shared",)

    def __init__(self, store: VMStore, shared: SharedLinearMemory) -> None:
        limits = store.limits
        limits.check_shared_memory(shared.pages, shared.page_size_log2)
        self.shared = shared
        self.base = shared.base
        self.reservation = shared.reservation
        self.page_size_log2 = shared.page_size_log2
        self.definition = shared.definition
        self.declared_type = shared.declared_type
        self.store_id = store.id
        self._store = store.weak
        self._limits = limits
        self._view = None

    @property
    def pages(self) -> int:  # type: ignore[override]
        return self.shared.pages

    def grow(self, delta: int) -> int:
        if delta < 0:
            raise ValueError("a memory cannot shrink")
        if not self._limits.allows_memory(self.shared.pages + delta << self.page_size_log2):
            return -1
        return self.shared.grow(delta)
