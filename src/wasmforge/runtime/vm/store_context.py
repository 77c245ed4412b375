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

# Indices of the words that are used here.
_WASM_SP: Final = Layout.WASM_SP // 8
_WASM_STACK_LOW: Final = Layout.WASM_STACK_LOW // 8
_WASM_STACK_HIGH: Final = Layout.WASM_STACK_HIGH // 8
_HOST_SP: Final = Layout.HOST_SP // 8
_THREAD: Final = Layout.THREAD // 8
_STORE: Final = Layout.STORE // 8
_ASYNC_SP: Final = Layout.ASYNC_SP // 8
_ASYNC_STATE: Final = Layout.ASYNC_STATE // 8
_ASYNC_OWNER: Final = Layout.ASYNC_OWNER // 8
_OWNER: Final = Layout.OWNER // 8

_THREAD_MASK: Final = (1 << 48) - 1
"""Above stands the generation that tells threads apart which got the same address (native/threads.py)."""


class StoreContext:
    """Address and stack of a store's context. The record lives in the store's arena; the stack is borrowed from a pool
    that hands it to another store after `release_stack`.

    `owner` is what traps of the store keep for their frames. The record has a plain pointer to it, until `close`: this
    object, which nobody drops before, holds the reference.
    """

    __slots__ = ("_owner", "_stack", "_words", "address")

    def __init__(self, arena: Arena, pool: StackPool, stack_size: int, store_id: int, owner: object) -> None:
        stack = pool.allocate(stack_size)
        self._stack: Stack | None = stack
        self.address = arena.allocate(Layout.SIZE)
        arena.is_scratch(self.address + Layout.FIELDS_END, self.address + Layout.SIZE)
        words = self._words = arena.view(self.address, Layout.SIZE).cast("Q")
        words[_WASM_SP] = words[_WASM_STACK_HIGH] = stack.high
        words[_WASM_STACK_LOW] = stack.low
        words[_STORE] = store_id
        self._owner = owner
        words[_OWNER] = id(owner)

    def is_active(self) -> bool:
        """Whether wasm of this store is on a thread's stack at the moment (perhaps having called the host)."""
        return bool(self._words[_HOST_SP])

    def can_suspend(self) -> bool:
        """Whether the host code that asks was called by wasm of an asynchronous call, which may wait for something."""
        host_sp: int = self._words[_HOST_SP]
        return host_sp > 1 and host_sp == self._words[_ASYNC_SP]

    def suspended_owner(self) -> int:
        """The id of who has started the call that is suspended, 0 if none is."""
        owner: int = self._words[_ASYNC_OWNER]
        return owner if self._words[_ASYNC_STATE] == ASYNC_SUSPENDED else 0

    def check_thread(self) -> None:
        """Raises WasmtimeError when wasm of the store is active on another thread than the calling one.

        Threat: with the GIL released, wasm reads the bounds and the base of a table while another thread moves it.
        Entering wasm makes the same check in the gate.
        """
        words = self._words
        if not words[_HOST_SP] or words[_ASYNC_STATE] != ASYNC_NONE:
            return  # no wasm runs; where a call is suspended none will before the caller has come to an end
        if words[_THREAD] & _THREAD_MASK != _thread.get_ident():
            raise WasmtimeError(
                "the store is in use: a call into it is running on another thread; use one store a thread, or a lock"
            )

    def close(self) -> None:
        """Makes every later entry raise.

        Threat: a finaliser of the garbage that the store belongs to calls an export after our own finaliser gave the
        stack back. An entry compares THREAD first and, finding a store that another thread holds (HOST_SP is not 0),
        raises; no thread has the number 0. A suspended call can no longer be resumed.
        """
        words = self._words
        words[_ASYNC_STATE] = ASYNC_NONE
        words[_THREAD] = 0
        words[_HOST_SP] = 1
        words[_STORE] = 0
        words[_OWNER] = 0

    def release_stack(self, pool: StackPool) -> None:
        """Gives the stack back, on which nothing runs and, after `close`, nothing will."""
        stack, self._stack = self._stack, None
        if stack is not None:
            pool.release(stack)
