"""The `StoreContext` of a store: its record and its wasm stack. Compiled code and the gates read it through every
vmctx; `runtime.store` creates and closes it.
"""

from __future__ import annotations

import _thread

from wasmforge.compiler.environ import ASYNC_NONE, ASYNC_SUSPENDED
from wasmforge.compiler.environ import StoreContext as Layout
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.runtime.native import Stack, StackPool
    from wasmforge.runtime.vm.records import Arena

__all__ = ["StoreContext"]

_THREAD_MASK: Final = (1 << 48) - 1
"""Above stands the generation that tells threads apart which got the same address (native/threads.py)."""


class StoreContext:
    """Address and stack of a store's context. The record lives in the store's arena; the stack is borrowed from a pool
    that hands it to another store after `release_stack`."""

    __slots__ = ("_arena", "_stack", "address")

    def __init__(self, arena: Arena, pool: StackPool, stack_size: int, store_id: int) -> None:
        self._arena = arena
        stack = pool.allocate(stack_size)
        self._stack: Stack | None = stack
        self.address = arena.allocate(Layout.SIZE)
        arena.write_u64(self.address + Layout.WASM_SP, stack.high)
        arena.write_u64(self.address + Layout.WASM_STACK_LOW, stack.low)
        arena.write_u64(self.address + Layout.WASM_STACK_HIGH, stack.high)
        arena.write_u64(self.address + Layout.STORE, store_id)

    def is_active(self) -> bool:
        """Whether wasm of this store is on a thread's stack at the moment (perhaps having called the host)."""
        return self._arena.read_u64(self.address + Layout.HOST_SP) != 0

    def can_suspend(self) -> bool:
        """Whether the host code that asks was called by wasm of an asynchronous call, which may wait for something."""
        host_sp = self._arena.read_u64(self.address + Layout.HOST_SP)
        return host_sp > 1 and host_sp == self._arena.read_u64(self.address + Layout.ASYNC_SP)

    def suspended_owner(self) -> int:
        """The id of who has started the call that is suspended, 0 if none is."""
        if self._arena.read_u64(self.address + Layout.ASYNC_STATE) != ASYNC_SUSPENDED:
            return 0
        return self._arena.read_u64(self.address + Layout.ASYNC_OWNER)

    def check_thread(self) -> None:
        """Raises WasmtimeError when wasm of the store is active on another thread than the calling one.

        Threat: with the GIL released, wasm reads the bounds and the base of a table while another thread moves it.
        Entering wasm makes the same check in the gate.
        """
        if self._arena.read_u64(self.address + Layout.ASYNC_STATE) != ASYNC_NONE:
            return  # a call is suspended: no wasm runs, and none will before the caller has come to an end
        owner = self._arena.read_u64(self.address + Layout.THREAD) & _THREAD_MASK
        if self.is_active() and owner != _thread.get_ident():
            raise WasmtimeError(
                "the store is in use: a call into it is running on another thread; use one store a thread, or a lock"
            )

    def close(self) -> None:
        """Makes every later entry raise.

        Threat: a finaliser of the garbage that the store belongs to calls an export after our own finaliser gave the
        stack back. An entry compares THREAD first and, finding a store that another thread holds (HOST_SP is not 0),
        raises; no thread has the number 0. A suspended call can no longer be resumed.
        """
        self._arena.write_u64(self.address + Layout.ASYNC_STATE, ASYNC_NONE)
        self._arena.write_u64(self.address + Layout.THREAD, 0)
        self._arena.write_u64(self.address + Layout.HOST_SP, 1)
        self._arena.write_u64(self.address + Layout.STORE, 0)

    def release_stack(self, pool: StackPool) -> None:
        """Gives the stack back, on which nothing runs and, after `close`, nothing will."""
        stack, self._stack = self._stack, None
        if stack is not None:
            pool.release(stack)
