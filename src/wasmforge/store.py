"""`Store`: what instances live in, with their functions, memories, tables and globals. A store belongs to one thread
at a time; everything in it is freed together. Every operation on something in a store takes the store first.
"""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.engine import Engine
from wasmforge.runtime import VMStore
from wasmforge.runtime.vm.traps import set_trap_class
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from wasmforge.runtime.vm.func import VMFunction
    from wasmforge.runtime.vm.limits import ResourceLimiter
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

    # Of the class, since most stores have no guest of WASI.
    _wasi: Any = None
    wasi_changed: Callable[[], None] | None = None  # makes compiled stubs forget the context before
    wasi_locator: Any = None
    turns: Any = None  # those of a program with threads (`wasi/turns.py`)

    def __init__(self, engine: Engine, data: object) -> None:
        self.engine = engine
        self.data = data
        self.linked_functions: dict[object, int] = {}
        """Addresses of the host functions that linkers define for all stores, by their definition. (The functions
        themselves would refer back to the store.)"""

    @property
    def wasi(self) -> Any:
        """The `WasiContext`, or None."""
        return self._wasi

    @wasi.setter
    def wasi(self, context: Any) -> None:
        if self.wasi_changed is not None:
            self.wasi_changed()
        if self.turns is not None and context is not None:
            from wasmforge.wasi.turns import share

            share(context)
        self._wasi = context


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
            raise WrongTypeError("expected an Engine")
        engine._check_open()
        self.engine = engine
        vm = VMStore(engine._state)
        vm.embedder_data = StoreData(engine, data)
        vm.wrap_function, vm.unwrap_function = _function_hooks or _find_function_hooks()
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

    def set_fuel(self, fuel: int) -> None:
        """Set how much fuel the store has. A new store has none, so that its guests trap at once.

        Parameters:
            fuel: the amount, below 2**64; an instruction costs about 1 (`Config.consume_fuel`).

        Raises:
            WasmtimeError: the engine's `Config.consume_fuel` is off.
        """
        self._context().budget.fuel = _unsigned(fuel, "fuel")

    def get_fuel(self) -> int:
        """How much fuel is left.

        Raises:
            WasmtimeError: the engine's `Config.consume_fuel` is off.
        """
        return self._context().budget.fuel

    def set_epoch_deadline(self, ticks_after_current: int) -> None:
        """Set the deadline of the store's guests: the engine's epoch of now plus a number of epochs. A new store's
        deadline has passed already. What happens then is a trap, unless `epoch_deadline_callback` says otherwise.

        Parameters:
            ticks_after_current: how often `Engine.increment_epoch` may be called before.
        """
        self._context().budget.set_deadline(_unsigned(ticks_after_current, "ticks_after_current"))

    def epoch_deadline_trap(self) -> None:
        """Let guests trap at their deadline, which is the default."""
        budget = self._context().budget
        budget.on_epoch, budget.epoch_yields = None, False

    def epoch_deadline_callback(self, callback: Callable[[], int | None]) -> None:
        """Let `callback` decide at the deadline (Wasmtime's `Store::epoch_deadline_callback`).

        Parameters:
            callback: called without arguments on the guest's thread. It returns for how many epochs the guest may go
                on, or None to let it trap; what it raises comes out of the call that entered WebAssembly. It should
                not refer to the store, which would keep it alive until the garbage collector finds the cycle.
        """
        if not callable(callback):
            raise TypeError(f"expected a callable, got {type(callback).__name__}")

        def on_epoch() -> int | None:
            ticks = callback()
            return None if ticks is None else _unsigned(ticks, "what the epoch callback returns")

        budget = self._context().budget
        budget.on_epoch, budget.epoch_yields = on_epoch, False

    def epoch_deadline_async_yield_and_update(self, delta: int) -> None:
        """Let guests in asynchronous calls (`Func.call_async`) give way to the event loop at their deadline, and go on
        with one `delta` epochs later. Synchronous calls, which cannot give way, just go on.

        Parameters:
            delta: the epochs until the next time.
        """
        ticks = _unsigned(delta, "delta")
        budget = self._context().budget
        budget.on_epoch, budget.epoch_yields = (lambda: ticks), True

    def fuel_async_yield_interval(self, interval: int | None) -> None:
        """Let guests in asynchronous calls (`Func.call_async`) give way to the event loop whenever they have burnt so
        much fuel. Synchronous calls, which cannot give way, just go on.

        Parameters:
            interval: units of fuel, at least 1; None for never.

        Raises:
            WasmtimeError: the engine's `Config.consume_fuel` is off.
            ValueError: the interval is 0.
        """
        if interval is not None and _unsigned(interval, "interval") == 0:
            raise ValueError("fuel_async_yield_interval must not be 0")
        self._context().budget.fuel_interval = interval

    def set_limits(
        self,
        memory_size: int = -1,
        table_elements: int = -1,
        instances: int = -1,
        tables: int = -1,
        memories: int = -1,
    ) -> None:
        """Limit what the store's guests may take. A negative number is no limit. What goes beyond when it is created
        is an error; memories and tables that want to grow beyond do not, which their code sees as -1.

        Parameters:
            memory_size: bytes of each memory.
            table_elements: elements of each table.
            instances, tables, memories: how many of them the store may have.
        """
        limits = self._context().limits
        limits.memory_size = _limit(memory_size, "memory_size")
        limits.table_elements = _limit(table_elements, "table_elements")
        limits.instances = _limit(instances, "instances")
        limits.tables = _limit(tables, "tables")
        limits.memories = _limit(memories, "memories")

    def set_limiter(self, limiter: ResourceLimiter | None) -> None:
        """Let an object decide what memories and tables of this store may take (Wasmtime's `ResourceLimiter`),
        where their types and the numbers of `set_limits` allow it.

        Parameters:
            limiter: has two methods, each of which returns whether it may be. `memory_growing(current, desired,
                maximum)` is asked, in bytes, before a memory is created (`current` is 0) and before it grows;
                `table_growing(current, desired, maximum)`, in elements, the same of tables; `maximum` is that of the
                type, or None. False makes instantiation raise, and `memory.grow` and `table.grow` return -1 to the
                guest. What they raise comes out of the call that entered WebAssembly. Shared memories are not its
                business. It should not refer to the store, which would keep it alive until the garbage collector finds
                the cycle. None takes the limiter away.

        Raises:
            TypeError: a method is missing.
        """
        if limiter is not None:
            for name in ("memory_growing", "table_growing"):
                if not callable(getattr(limiter, name, None)):
                    raise TypeError(f"a limiter needs a method {name}, which {type(limiter).__name__} has not")
        self._context().limits.limiter = limiter

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

    def __repr__(self) -> str:
        if self._vm is None:
            return "<Store closed>"
        data = store_data(self).data
        return f"<Store {self._vm.id}{'' if data is None else f' with {type(data).__name__} data'}>"


def _unsigned(value: object, name: str) -> int:
    """An unsigned 64-bit number of the embedder."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not 0 <= value < 1 << 64:
        raise OverflowError(f"{name} must be at least 0 and below 2**64, got {value}")
    return value


def _limit(value: object, name: str) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    return None if value < 0 else value


_function_hooks: tuple[Callable[[VMFunction], object], Callable[[object], VMFunction | None]] | None = None


def _find_function_hooks() -> tuple[Callable[[VMFunction], object], Callable[[object], VMFunction | None]]:
    """How function references appear as `Func` to Python. Imported here since `func` needs this module."""
    global _function_hooks
    from wasmforge.func_ import function_of, wrap_function

    _function_hooks = wrap_function, function_of
    return _function_hooks


def _trap_class() -> type[BaseException]:
    """What the runtime asks for when the first trap happens, since only programs that trap need `trap`."""
    from wasmforge.trap import Trap

    return Trap


set_trap_class(_trap_class)


def context(store: Storelike) -> VMStore:
    """The runtime's store behind the first argument of nearly every method.

    Raises TypeError when it is something else, ValueError when it is closed or its caller has returned.
    """
    try:
        method = store._context
    except AttributeError:
        raise WrongTypeError(f"expected a Store, got {type(store).__name__}") from None
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
        raise WrongTypeError(f"expected a Store, got {type(store).__name__}") from None
    if vm is None:
        return store._context()  # which says why
    if vm.id != store_id:
        raise WasmtimeError("object used with the wrong store")
    return vm
