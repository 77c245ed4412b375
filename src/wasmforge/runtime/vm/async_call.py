"""`AsyncCall`: what awaits between the parts of an asynchronous call of one function. `VMFunction.async_call` makes it,
the embedder's objects hand out its coroutines; the parts themselves are machine code (`native/async_calls.py`).
"""

from __future__ import annotations

from _weakref import ref
from sys import modules

from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL
from wasmforge.runtime.native.misuse import BUSY, IN_NESTED_CALL, IN_SYNCHRONOUS_CALL, NO_ROOM
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import NON_NULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from wasmforge.runtime.native import Gates
    from wasmforge.runtime.vm.func import VMFunction

__all__ = ["AsyncCall", "YieldToLoop", "explain_misuse"]


class AsyncCall:
    """A function as something to await. `owner` is the function, which it keeps alive, and so the store."""

    __slots__ = ("__weakref__", "_checked", "_gates", "_resume", "_start", "_throw", "owner")

    def __init__(self, function: VMFunction, name: str, release_gil: bool) -> None:
        store = function.store
        flags = CALL_FLAG_RELEASE_GIL if release_gil else 0
        self.owner = function
        self._gates = store.engine.gates
        self._start, self._resume, self._throw = self._gates.make_async_callables(
            name, store.call_descriptor(function, name, flags), store.context.address, function
        )
        # Those that take not every reference: the gates know only `funcref` and `externref`.
        self._checked = [(k, t) for k, t in enumerate(function.type.params) if t >= NON_NULL]

    async def call(self, *args: object) -> Any:
        """Calls the function; returns and raises what a synchronous call does.

        While it waits for what a host function returned, other coroutines run. What is thrown into it there, such as a
        cancellation, is what the host function raises, so that the frames of wasm are gone when it comes out.
        """
        _hook_signals(self._gates)
        for k, t in self._checked:
            if k < len(args):  # the gate says what is missing
                self.owner.store.check_reference(t, args[k])
        me = object()
        try:
            out = self._start(me, *args)
            while type(out) is not tuple:
                try:
                    value = await out
                except BaseException as error:
                    # Also GeneratorExit, when the coroutine is closed or collected: wasm unwinds as after any
                    # exception.
                    out = self._throw(error)
                else:
                    out = self._resume(value)
            return out[0]
        except BaseException as error:
            # A KeyboardInterrupt may come at any call above, also when wasm has just been suspended.
            if self.owner.store.context.suspended_owner() == id(me):
                self._throw(error)
            raise


class YieldToLoop:
    """An awaitable that lets the other coroutines of the event loop run once. `then` is called when it goes on."""

    __slots__ = ("_then",)

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self._then = then

    def __await__(self) -> Generator[None, None, None]:
        yield
        if self._then is not None:
            self._then()


_hooked_loop: ref[Any] | None = None


def _hook_signals(gates: Gates) -> None:
    """Puts our signal handlers in front again, once an event loop: `asyncio.run` installs a handler of its own for
    SIGINT, which alone could not interrupt a loop in wasm."""
    global _hooked_loop
    events = modules.get("asyncio.events")
    if events is None:
        return  # another kind of event loop
    loop = events._get_running_loop()
    if _hooked_loop is None or _hooked_loop() is not loop:
        gates.hook_signals()
        try:
            _hooked_loop = None if loop is None else ref(loop)
        except TypeError:  # an event loop of another make, without weak references
            _hooked_loop = None


def explain_misuse(store_id: int, kind: int, awaitable: Any) -> None:
    """Called by the gates when a call cannot be suspended or started. Raises WasmtimeError."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()  # a coroutine that nobody will await, which would warn of it
    if kind == IN_SYNCHRONOUS_CALL:
        raise WasmtimeError(
            "an asynchronous host function was called from a synchronous call, which cannot wait for it: "
            "use `await func.call_async(store, ...)`, `wasmforge.call_async` or `load_async`"
        )
    if kind == IN_NESTED_CALL:
        raise WasmtimeError(
            "an asynchronous host function was called from a synchronous call that a host function of the same store "
            "made; only the outermost call can wait: make that host function `async def` as well, or call into "
            "another store with `call_async`"
        )
    if kind == BUSY:
        raise WasmtimeError(
            "the store is in use: one asynchronous call into a store can run at a time, and none from a host function "
            "that it called; use a store for each call"
        )
    if kind == NO_ROOM:
        raise WasmtimeError("the wasm stack is too small for the parameters and results of this asynchronous call")
    raise WasmtimeError("the call is not suspended: it has ended already")
