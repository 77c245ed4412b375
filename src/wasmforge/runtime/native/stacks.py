"""The stacks that wasm runs on: mappings with an inaccessible guard below, pooled because mapping one costs about as
much as a hundred calls. The runtime takes one for each store and returns it when the store goes.
"""

from __future__ import annotations

from wasmforge.compiler.environ import STACK_GUARD_SIZE
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["DEFAULT_STACK_SIZE", "Stack", "StackPool"]

DEFAULT_STACK_SIZE: Final = 512 * 1024
"""Bytes; Wasmtime's `max_wasm_stack`."""

MINIMUM_STACK_SIZE: Final = 16 * 1024

_PAGE: Final = 4096
_KEPT_RESIDENT: Final = 64 * 1024  # top of a pooled stack that keeps its pages: nearly every run touches it

CLEANED_EVERY: Final = 16
"""Releases between two that give the pages below back: asking the system takes as long as two calls of a function."""

_PROT_NONE: Final = 0
_PROT_READ_WRITE: Final = 3
_MAP_FLAGS: Final = 0x2 | 0x20 | 0x4000  # private, anonymous, no reserve of swap
_MADV_DONTNEED: Final = 4


@record(frozen=True, slots=True)
class Stack:
    """Usable addresses are [low, high); STACK_GUARD_SIZE bytes below `low` are inaccessible. Both are page aligned."""

    low: int
    high: int

    @property
    def size(self) -> int:
        """Usable bytes."""
        return self.high - self.low


class StackPool:
    """Stacks that are free, by size. Thread-safe, without a lock: only single operations on lists are shared.

    `keep`: how many free stacks of a size are kept mapped. 64 of the default size reserve 36 MiB of address space; all
    but 4 MiB of their memory goes back to the system after at most CLEANED_EVERY uses.
    """

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._free: dict[int, list[Stack]] = {}
        self._releases = 0
        libc = ctypes.CDLL(None, use_errno=True)
        self._mmap = libc.mmap
        self._mmap.restype = ctypes.c_void_p
        self._mmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        )
        self._mprotect = libc.mprotect
        self._mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._munmap = libc.munmap
        self._munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._madvise = libc.madvise
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def allocate(self, size: int = DEFAULT_STACK_SIZE) -> Stack:
        """A stack of at least `size` bytes (rounded up to pages, at least 16 KiB).

        Raises WasmtimeError when the system gives no memory.
        """
        size = max(size, MINIMUM_STACK_SIZE)
        size = (size + _PAGE - 1) & ~(_PAGE - 1)
        free = self._free.get(size)
        if free:
            try:
                return free.pop()
            except IndexError:
                pass  # another thread was faster
        base = self._mmap(None, STACK_GUARD_SIZE + size, _PROT_NONE, _MAP_FLAGS, -1, 0)
        if base is None or base == 2**64 - 1:
            raise WasmtimeError(f"cannot reserve a wasm stack of {size} bytes: error {ctypes.get_errno()}")
        low = base + STACK_GUARD_SIZE
        if self._mprotect(low, size, _PROT_READ_WRITE) != 0:
            error = ctypes.get_errno()
            self._munmap(base, STACK_GUARD_SIZE + size)
            raise WasmtimeError(f"cannot commit a wasm stack of {size} bytes: error {error}")
        return Stack(low, low + size)

    def release(self, stack: Stack) -> None:
        """Takes back a stack on which nothing runs any more."""
        size = stack.high - stack.low
        free = self._free.get(size)
        if free is None:
            free = self._free.setdefault(size, [])
        if len(free) >= self._keep:
            self._munmap(stack.low - STACK_GUARD_SIZE, STACK_GUARD_SIZE + size)
            return
        free.append(stack)
        self._releases += 1
        if not self._releases % CLEANED_EVERY:
            self._give_deep_pages_back(free)

    def _give_deep_pages_back(self, free: list[Stack]) -> None:
        # Threat: a stack that another thread takes while its pages go. What is popped here is nobody else's.
        stacks: list[Stack] = []
        try:
            while True:
                stack = free.pop()
                stacks.append(stack)
                if stack.size > _KEPT_RESIDENT:
                    self._madvise(stack.low, stack.size - _KEPT_RESIDENT, _MADV_DONTNEED)
        except IndexError:
            free.extend(reversed(stacks))

    def close(self) -> None:
        """Unmaps all free stacks."""
        while self._free:
            size, stacks = self._free.popitem()
            for stack in stacks:
                self._munmap(stack.low - STACK_GUARD_SIZE, STACK_GUARD_SIZE + size)
