"""`Store`: what instances live in, with their functions, memories, tables and globals. A store belongs to one thread
at a time; everything in it is freed together. Every operation on something in a store takes the store first.
"""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.engine import Engine
from wasmforge.runtime import VMStore
from wasmforge.runtime.vm.traps import set_trap_class
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.vm.backtrace import Backtrace
    from wasmforge.wasi import WasiConfig

    class Storelike(Protocol):
        """A `Store`, or the `Caller` that a host function is given."""

        @property
        def _vm(self) -> VMStore | None: ...

        def _context(self) -> VMStore: ...


__all__ = ["Store"]


class StoreData:
    """What the embedder keeps with a store. It hangs on the `VMStore` and not on the `Store`, so that a host
    function that is given a `Caller` finds it, without a reference cycle between the two stores."""

    __slots__ = ("data", "engine", "linked_functions", "wasi")

    def __init__(self, engine: Engine, data: object) -> None:
        self.engine = engine
        self.data = data
        self.wasi: Any = None
        self.linked_functions: dict[object, int] = {}
        """Addresses of the host functions that linkers define for all stores, by their definition. (The functions
        themselves would refer back to the store.)"""


class Store(Managed):
    """A store.

    Parameters:
        engine: the engine whose modules it runs, a new one if None.
        data: anything; `data()` gives it back, also to host functions.
    """

    _vm: VMStore | None

    def __init__(self, engine: Engine | None = None, data: Any | None = None) -> None:
        if engine is None:
            engine = Engine()
        elif not isinstance(engine, Engine):
            raise TypeError("expected an Engine")
        engine._check_open()
        self.engine = engine
        vm = VMStore(engine._state)
        vm.embedder_data = StoreData(engine, data)
        _set_function_class(vm)
        self._vm = vm

    @classmethod
    def _wrap(cls, vm: VMStore) -> Store:
        """Another handle of a store that exists."""
        self = cls.__new__(cls)
        self._vm = vm
        self.engine = store_data(self).engine
        return self

    def _context(self) -> VMStore:
        if self._vm is None:
            raise ValueError("already closed")
        return self._vm

    def _release(self) -> None:
        self._vm = None

    def data(self) -> Any | None:
        """The object that the store was made with, or None."""
        return store_data(self).data

    def gc(self) -> None:
        """Drop the Python objects that only unreachable `externref`s of this store still hold."""
        self._context().gc()

    def set_wasi(self, wasi: WasiConfig) -> None:
        """Give the programs of this store their system interface.

        Parameters:
            wasi: arguments, environment, streams and directories. It is used up.

        Raises:
            TypeError: `wasi` is something else.
            WasmtimeError: what it names, a directory for instance, is not there.
        """
        from wasmforge.wasi import WasiConfig

        if not isinstance(wasi, WasiConfig):
            raise TypeError(f"expected a WasiConfig, got {type(wasi).__name__}")
        store_data(self).wasi = wasi._consume()


def _set_function_class(vm: VMStore) -> None:
    """Function references appear as `Func` to Python. Imported here since `func` needs this module."""
    from wasmforge.func import function_of, wrap_function

    vm.wrap_function, vm.unwrap_function = wrap_function, function_of


def _make_trap(message: str, kind: TrapKind | None, backtrace: Backtrace) -> BaseException:
    """How the runtime makes the first trap, which imports `trap`; the others are made there without a detour."""
    from wasmforge.trap import make_trap

    set_trap_class(make_trap)
    return make_trap(message, kind, backtrace)


set_trap_class(_make_trap)


def context(store: Storelike) -> VMStore:
    """The runtime's store behind the first argument of nearly every method.

    Raises TypeError when it is something else, ValueError when it is closed or its caller has returned.
    """
    try:
        method = store._context
    except AttributeError:
        raise TypeError(f"expected a Store, got {type(store).__name__}") from None
    return method()


def store_data(store: Storelike) -> StoreData:
    """What the embedder keeps with a store."""
    data = context(store).embedder_data
    assert isinstance(data, StoreData)
    return data


def check_store(store: Storelike, store_id: int) -> VMStore:
    """The runtime's store behind `store`, which must be the one that an object belongs to: one of another store may be
    in use by another thread at this moment. (The wasmtime package aborts the process here.)

    Raises TypeError and ValueError as `context`, WasmtimeError when it is another one.
    """
    try:
        vm = store._vm
    except AttributeError:
        raise TypeError(f"expected a Store, got {type(store).__name__}") from None
    if vm is None:
        return store._context()  # which says why
    if vm.id != store_id:
        raise WasmtimeError("object used with the wrong store")
    return vm
