"""`Func`, a function of a store: exported by an instance, or made of a Python callable; and `Caller`, through which a
host function reaches the instance that called it.

A call goes through the built-in function object that the runtime makes of a function (about 60 ns). `Func` keeps it,
checks what the wasmtime package checks, and adds what that costs in Python; `bind` hands out the object itself.
"""

from __future__ import annotations

from sys import modules

from wasmforge.runtime import VMFunction, VMInstance, VMStore
from wasmforge.runtime.store import require
from wasmforge.store import Store, check_store, context
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.syntax.types import is_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from wasmforge.runtime.vm.async_call import AsyncCall
    from wasmforge.store import Storelike
    from wasmforge.types import FuncType

__all__ = ["ArgumentCountError", "Caller", "Func", "function_of", "host_function", "wrap_function"]


class ArgumentCountError(WasmtimeError, TypeError):
    """A call with too few or too many arguments: a WasmtimeError in the wasmtime package, a TypeError in Python."""


class Func:
    """A function.

    Parameters:
        store: where it lives. What `func` and its results refer to lives as long as the store.
        ty: its type.
        func: the Python callable behind it. It gets ints, floats, `Func`s (funcref) and objects (externref), and
            returns None, one value, or a sequence of them. An exception passes through WebAssembly to the call that
            entered it. A coroutine function (`async def`), or one that returns another awaitable of these, can be
            called within `call_async` only, which waits for it.
        access_caller: pass a `Caller` as first argument.

    Raises:
        TypeError: an argument has the wrong type.
    """

    __slots__ = ("__weakref__", "_async_call", "_call", "_function", "_vm")

    def __init__(self, store: Storelike, ty: FuncType, func: Callable[..., Any], access_caller: bool = False) -> None:
        from wasmforge.types import FuncType  # `types` and `values` are not needed for calling what instances export

        if not isinstance(store, (Store, Caller)):
            raise WrongTypeError("expected a Store")
        if not isinstance(ty, FuncType):
            raise TypeError("expected a FuncType")
        self._set(host_function(context(store), ty, func, access_caller))

    def _set(self, function: VMFunction) -> None:
        self._function = function
        self._vm = function.store
        self._call: Callable[..., Any] | None = None  # made at the first call: most exports are never called
        self._async_call: AsyncCall | None = None

    @classmethod
    def _wrap(cls, function: VMFunction) -> Func:
        self = cls.__new__(cls)
        self._set(function)
        return self

    def type(self, store: Storelike) -> FuncType:
        """The type of the function."""
        from wasmforge.types import FuncType, _owner_in

        check_store(store, self._vm.id)
        ty = self._function.type
        return FuncType._wrap(ty, _owner_in(self._vm, ty))

    def __call__(self, store: Storelike, *params: Any) -> Any:
        """Call the function.

        Parameters:
            store: the store that the function lives in.
            params: a value, or a `Val`, a parameter. i32 and i64 take signed or unsigned ints in range, f32 and
                f64 floats or ints, funcref a `Func` or None, externref any object.

        Returns:
            None without results, the result if there is one, else a list. Integers come back signed.

        Raises:
            Trap: execution trapped.
            ArgumentCountError: too few or too many parameters.
            TypeError, OverflowError: a parameter has the wrong type or is out of range; the message says which.
            Exception: whatever a host function raised.
        """
        try:
            vm = store._vm
        except AttributeError:
            raise WrongTypeError(f"expected a Store as first argument, got {type(store).__name__}") from None
        if vm is not self._vm:
            check_store(store, self._vm.id)
        call = self._call
        if call is None:
            call = self._call = self._make_call()
        try:
            return call(*params)
        except TypeError:
            # With the right number of parameters it may come from anywhere; with a wrong one nothing has run.
            self._check_count(len(params))
            raise

    def _make_call(self) -> Callable[..., Any]:
        call = self._function.make_callable(self._function.name or "func")
        if not any(map(is_reference, self._function.type.params)):
            return call  # a `Val` of a number converts itself

        from wasmforge.values import plain_reference

        def call_with_references(*params: Any) -> Any:
            return call(*map(plain_reference, params))

        return call_with_references

    def call(self, store: Storelike, *params: Any, timeout: float | None = None) -> Any:
        """Call the function, for no longer than `timeout` seconds.

        Parameters:
            store, params: as in calling the object itself, which this is without a timeout.
            timeout: seconds by the monotonic clock after which WebAssembly is stopped, wherever it is. A host function
                is not: it goes on, and the time is up when it returns.

        Raises:
            CallTimeout: the time was up. What the guest did until then stays done.
            Exception: what calling the object raises.
        """
        if timeout is None:
            return self(store, *params)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, got {type(timeout).__name__}")
        from wasmforge.runtime.deadline import Deadline
        from wasmforge.timeouts import CallTimeout

        name = self._function.name or "func"
        with Deadline(
            check_store(store, self._vm.id),
            timeout,
            lambda: CallTimeout(f"`{name}` was stopped: it ran for longer than {timeout:g} seconds"),
        ):
            return self(store, *params)

    def call_async(self, store: Storelike, *params: Any) -> Coroutine[Any, Any, Any]:
        """Call the function as a coroutine, in which asynchronous host functions can be awaited::

            result = await func.call_async(store, 1, 2)

        While such a host function waits, other coroutines run, and its store waits: one asynchronous call at a time
        can be in a store. WebAssembly itself computes without a break unless its store yields
        (`Store.epoch_deadline_async_yield_and_update`, `Store.fuel_async_yield_interval`).

        A cancellation (also by `asyncio.timeout`) is raised in the host function that waits and passes through
        WebAssembly like any exception, so nothing is left of the call.

        Parameters, results and exceptions as in a call; also:

        Raises:
            WasmtimeError: another call is under way in the store.
        """
        check_store(store, self._vm.id)
        self._check_count(len(params))
        call = self._async_call
        if call is None:
            call = self._async_call = self._function.async_call()
        if any(map(is_reference, self._function.type.params)):
            from wasmforge.values import plain_reference

            return call.call(*map(plain_reference, params))
        return call.call(*params)

    def bind_async(
        self, store: Storelike, *, release_gil: bool | None = None
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The function as a coroutine function, which takes the parameters alone; see `call_async` and `bind`."""
        check_store(store, self._vm.id)
        return self._function.async_call(release_gil=release_gil).call

    def _check_count(self, given: int) -> None:
        expected = len(self._function.type.params)
        if given != expected:
            few_or_many = "few" if given < expected else "many"
            raise ArgumentCountError(
                f"too {few_or_many} parameters provided: given {given}, expected {expected}"
            ) from None

    def bind(self, store: Storelike, *, release_gil: bool | None = None) -> Callable[..., Any]:
        """The function as a built-in function object, which takes the parameters alone: the fastest way to call.

        Parameters:
            store: the store that the function lives in; the object keeps it alive.
            release_gil: let other Python threads run during each call (about 30 ns more). None, the default, does where
                the store has a shared memory.
        """
        check_store(store, self._vm.id)
        return self._function.make_callable(self._function.name or "func", release_gil=release_gil)

    def call_raw(self, store: Storelike, values: Sequence[int]) -> list[int]:
        """Call with bit patterns: each parameter and result is the unsigned integer whose bits are the value's, so that
        NaNs keep their payloads.

        Raises:
            OverflowError: a pattern has more bits than its type.
        """
        check_store(store, self._vm.id)
        self._check_count(len(values))
        results = self._function.make_callable(self._function.name or "func", raw=True)(*values)
        if results is None:
            return []
        return results if isinstance(results, list) else [results]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Func) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        name = f" {self._function.name}" if self._function.name else ""
        return f"<Func{name}: {self._function.type}>"


def wrap_function(function: VMFunction) -> Func:
    """How the runtime's functions appear to Python code."""
    return Func._wrap(function)


def function_of(value: object) -> VMFunction | None:
    """The runtime's function behind a `Func`, a `Val` of one, or a function object that `bind` made; None if it is
    none of these. Whether it belongs to the right store is for the runtime to check."""
    if isinstance(value, Func):
        return value._function
    from wasmforge.values import plain_reference

    value = plain_reference(value)
    if isinstance(value, Func):
        return value._function
    owner = getattr(getattr(value, "__self__", None), "owner", None)
    return owner if isinstance(owner, VMFunction) else None


def host_function(vm: VMStore, ty: FuncType, func: Callable[..., Any], access_caller: bool) -> VMFunction:
    """A new function of a store that calls Python."""
    if not callable(func):
        raise TypeError(f"expected a callable, got {type(func).__name__}")
    typed = modules.get("wasmforge.host_function")  # not loaded by a program that has none
    if typed is not None and isinstance(func, typed.HostFunction):
        func = func.function  # which may be a coroutine function
    name = getattr(func, "__name__", None) or type(func).__name__
    if ty._owner is not None:
        from wasmforge.types import _check_engine

        _check_engine(vm, ty._owner)
    awaited = is_coroutine_function(func)
    if any(map(is_reference, ty._type.results)):
        func = _with_plain_results(func, awaited)
    if not access_caller:
        return vm.new_function(ty._type, func, name=name, awaited=awaited)
    # The store keeps the callable alive: a strong reference back would be a cycle that only the collector can free.
    weak = vm.weak

    def call_with_caller(instance: VMInstance | None, *params: Any) -> Any:
        caller = Caller(require(weak), instance)
        try:
            return func(caller, *params)
        finally:
            caller._invalidate()

    async def call_later_with_caller(instance: VMInstance | None, *params: Any) -> Any:
        caller = Caller(require(weak), instance)
        try:
            return await func(caller, *params)
        finally:
            caller._invalidate()

    call = call_later_with_caller if awaited else call_with_caller
    return vm.new_function(ty._type, call, name=name, caller=True, awaited=awaited)


def is_coroutine_function(func: Any) -> bool:
    """Whether calling it gives a coroutine: `inspect.iscoroutinefunction`, and callable objects, without an import that
    takes longer than most of ours."""
    seen = 0
    while seen < 100:  # partial objects nest, and may be made to refer to themselves
        seen += 1
        if getattr(func, "_is_coroutine_mark", None) is not None:  # inspect.markcoroutinefunction
            return True
        wrapped = getattr(func, "__func__", None)  # of a method
        if wrapped is None and type(func).__name__ == "partial":
            wrapped = getattr(func, "func", None)
        code = getattr(func, "__code__", None)
        if wrapped is None and code is None and not isinstance(func, type):
            wrapped = getattr(type(func), "__call__", None)  # noqa: B004
            if wrapped is None or getattr(wrapped, "__code__", None) is None:
                return False
        if wrapped is None:
            return bool(getattr(code, "co_flags", 0) & _CO_COROUTINE)
        func = wrapped
    return False


_CO_COROUTINE = 0x80


def _with_plain_results(func: Callable[..., Any], awaited: bool) -> Callable[..., Any]:
    """`func` with references taken out of `Val`s. (Numbers need no such help: a `Val` converts to them itself.)"""

    from wasmforge.values import plain_reference

    def plain(results: Any) -> Any:
        if isinstance(results, (list, tuple)):
            return [plain_reference(result) for result in results]
        return plain_reference(results)

    async def call_later(*params: Any) -> Any:
        return plain(await func(*params))

    def call(*params: Any) -> Any:
        return plain(func(*params))

    return call_later if awaited else call


class Caller:
    """The instance that called a host function, while the call lasts. It stands for the store wherever one is expected;
    afterwards using it raises ValueError. Made by the runtime for functions with `access_caller=True`."""

    __slots__ = ("__weakref__", "_instance", "_vm")

    def __init__(self, vm: VMStore, instance: VMInstance | None) -> None:
        self._vm: VMStore | None = vm
        self._instance = instance

    def _context(self) -> VMStore:
        if self._vm is None:
            raise ValueError("caller is no longer valid")
        return self._vm

    def _invalidate(self) -> None:
        self._vm = None
        self._instance = None

    def __getitem__(self, name: str) -> Any:
        """The export `name` of the calling instance. Raises KeyError when there is none, or no instance called."""
        extern = self.get(name)
        if extern is None:
            raise KeyError(f"failed to find export {name}")
        return extern

    def get(self, name: str) -> Any:
        """The export `name` of the calling instance; None when there is none, when the host called, or when the call
        is over."""
        if not isinstance(name, str):
            raise TypeError(f"expected the name of an export as str, got {type(name).__name__}")
        if self._instance is None:
            return None
        from wasmforge.extern import wrap_extern

        try:
            return wrap_extern(self._instance.export(name))
        except KeyError:
            return None

    def __repr__(self) -> str:
        if self._vm is None:
            return "<Caller: the call is over>"
        return "<Caller: the host>" if self._instance is None else "<Caller>"
