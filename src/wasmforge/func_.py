"""`Func`, a function of a store: exported by an instance, or made of a Python callable; and `Caller`, through which a
host function reaches the instance that called it.

A call goes through the built-in function object that the runtime makes of a function (about 60 ns). `Func` keeps it,
checks what the wasmtime package checks, and adds what that costs in Python; `bind` hands out the object itself.
"""

from __future__ import annotations

from wasmforge.runtime import VMFunction, VMInstance, VMStore
from wasmforge.runtime.store import require
from wasmforge.store import Store, check_store, context
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.syntax.types import is_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wasmforge.extern import Extern
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
            entered it.
        access_caller: pass a `Caller` as first argument.

    Raises:
        TypeError: an argument has the wrong type.
    """

    __slots__ = ("__weakref__", "_call", "_function", "_vm")

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
            Whatever a host function raised.
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
    name = getattr(func, "__name__", None) or type(func).__name__
    if ty._owner is not None:
        from wasmforge.types import _check_engine

        _check_engine(vm, ty._owner)
    if any(map(is_reference, ty._type.results)):
        func = _with_plain_results(func)
    if not access_caller:
        return vm.new_function(ty._type, func, name=name)
    # The store keeps the callable alive: a strong reference back would be a cycle that only the collector can free.
    weak = vm.weak

    def call_with_caller(instance: VMInstance | None, *params: Any) -> Any:
        caller = Caller(require(weak), instance)
        try:
            return func(caller, *params)
        finally:
            caller._invalidate()

    return vm.new_function(ty._type, call_with_caller, name=name, caller=True)


def _with_plain_results(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func` with references taken out of `Val`s. (Numbers need no such help: a `Val` converts to them itself.)"""

    from wasmforge.values import plain_reference

    def call(*params: Any) -> Any:
        results = func(*params)
        if isinstance(results, (list, tuple)):
            return [plain_reference(result) for result in results]
        return plain_reference(results)

    return call


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

    def __getitem__(self, name: str) -> Extern:
        """The export `name` of the calling instance. Raises KeyError when there is none, or no instance called."""
        extern = self.get(name)
        if extern is None:
            raise KeyError(f"failed to find export {name}")
        return extern

    def get(self, name: str) -> Extern | None:
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
