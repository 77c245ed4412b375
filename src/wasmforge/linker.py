"""`Linker`: definitions by name, from which modules get their imports."""

from __future__ import annotations

from sys import modules

from wasmforge._managed import Managed
from wasmforge.engine import Engine
from wasmforge.extern import entity_of, store_id_of, wrap_extern
from wasmforge.func_ import Func, host_function
from wasmforge.instance import Instance
from wasmforge.module import Module, export_type
from wasmforge.runtime import VMFunction
from wasmforge.runtime.link import unknown_import
from wasmforge.store import check_store, context, store_data
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.syntax.types import ExternKind
from wasmforge.types import FuncType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wasmforge.extern import Entity, Extern
    from wasmforge.func_ import Caller
    from wasmforge.host_function import HostFunction
    from wasmforge.runtime import CompiledModule, VMInstance
    from wasmforge.store import Storelike
    from wasmforge.wasi.threads import WasiThreads

__all__ = ["Linker"]

# What a command may export besides functions: toolchains export these from every program, and nobody imports
# them from a command (Wasmtime's `Linker::module`).
_COMMAND_EXPORTS = {
    "memory": ExternKind.MEMORY,
    "table": ExternKind.TABLE,
    "__indirect_function_table": ExternKind.TABLE,
    "__data_end": ExternKind.GLOBAL,
    "__heap_base": ExternKind.GLOBAL,
    "__dso_handle": ExternKind.GLOBAL,
    "__rtti_base": ExternKind.GLOBAL,
}


class _HostFunction:
    """A function that is defined for every store; each store makes its own `VMFunction` of it, once."""

    __slots__ = ("access_caller", "callable", "type")

    def __init__(self, ty: FuncType, func: Callable[..., Any], access_caller: bool) -> None:
        self.type = ty
        self.callable = func
        self.access_caller = access_caller

    def in_store(self, store: Storelike) -> VMFunction:
        vm = context(store)
        functions = store_data(store).linked_functions
        address = functions.get(self)
        if address is not None:
            return vm.function_at(address)
        function = host_function(vm, self.type, self.callable, self.access_caller)
        functions[self] = function.address
        return function


class Linker(Managed):
    """Definitions for the modules of an engine.

    Parameters:
        engine: the engine.
    """

    def __init__(self, engine: Engine) -> None:
        if not isinstance(engine, Engine):
            raise WrongTypeError(f"expected an Engine, got {type(engine).__name__}")
        self.engine = engine
        self._allow_shadowing = False
        self._definitions: dict[tuple[str, str], Entity | _HostFunction] = {}

    def _release(self) -> None:
        self._definitions.clear()

    def _set_allow_shadowing(self, allow: bool) -> None:
        """Whether a name may be defined again, which replaces the definition. Off at first. Can be set, not read."""
        self._allow_shadowing = bool(allow)

    allow_shadowing: Any = property(None, _set_allow_shadowing, None, _set_allow_shadowing.__doc__)

    def _insert(self, module: str, name: str, definition: Entity | _HostFunction) -> None:
        self._check_open()
        if not isinstance(module, str) or not isinstance(name, str):
            raise WrongTypeError(f"expected two names as str, got {type(module).__name__} and {type(name).__name__}")
        key = (module, name)
        if not self._allow_shadowing and key in self._definitions:
            raise WasmtimeError(f"import of `{module}::{name}` defined twice")
        self._definitions[key] = definition

    def define(self, store: Storelike, module: str, name: str, item: Extern | HostFunction[..., Any]) -> None:
        """Define `item`, which lives in `store`, under two names. A `HostFunction` lives in none: it is defined as by
        `define_func`.

        Raises:
            WasmtimeError: the names are defined already, or `item` belongs to another store.
        """
        typed = modules.get("wasmforge.host_function")  # not loaded by a program that has none
        if typed is not None and isinstance(item, typed.HostFunction):
            context(store)
            self.define_func(module, name, item.type, item.function, item.access_caller)
            return
        entity = entity_of(item)
        store_id = store_id_of(entity)
        if store_id:
            check_store(store, store_id)
        self._insert(module, name, entity)

    def define_func(
        self, module: str, name: str, ty: FuncType, func: Callable[..., Any], access_caller: bool = False
    ) -> None:
        """Define a Python function for modules in any store. `ty`, `func` and `access_caller` are those of `Func`.

        Raises:
            WasmtimeError: the names are defined already.
        """
        if not isinstance(ty, FuncType):
            raise TypeError("expected a FuncType")
        if not callable(func):
            raise TypeError(f"expected a callable, got {type(func).__name__}")
        self._insert(module, name, _HostFunction(ty, func, bool(access_caller)))

    def define_instance(self, store: Storelike, name: str, instance: Instance) -> None:
        """Define all exports of an instance, with `name` as the first name.

        Raises:
            WasmtimeError: a name is defined already, or the instance belongs to another store.
        """
        if not isinstance(instance, Instance):
            raise WrongTypeError("expected an `Instance`")
        check_store(store, instance._instance.store.id)
        for field, entity in instance._instance.exports():
            self._insert(name, field, entity)

    def define_wasi(self) -> None:
        """Define the functions of WASI preview 1. Stores whose modules use them need `Store.set_wasi`.

        Raises:
            WasmtimeError: a name is defined already.
        """
        from wasmforge._start import import_together

        import_together("wasi")
        from wasmforge.wasi.preview1 import add_to_linker

        add_to_linker(self)

    def define_wasi_threads(self, store: Storelike, module: Module, max_threads: int | None = None) -> WasiThreads:
        """Define `"wasi" "thread-spawn"` (wasi-threads) for one program, whose main thread is to run in `store`; also
        the shared memories that `module` imports and nobody has defined.

        Call it before anything is instantiated in the store, and the program within the result, which is a context
        manager: leaving it ends the program's threads, wherever they are. When a thread exits or traps, the call that
        the main thread is in raises its `ExitTrap` or `Trap`.

            with linker.define_wasi_threads(store, module):
                linker.instantiate(store, module).exports(store)["_start"](store)

        Each thread has a store and an instance of its own, with the definitions of this linker, which must not belong
        to a store; they share the memory and the WASI context. Host functions are called on all of them.

        Parameters:
            max_threads: how many may live at a time besides the main one; beyond it `thread-spawn` fails. 128 if None.

        Raises:
            WasmtimeError: the module imports no shared memory, the setting `Config.shared_memory` is off, or
                `Config.consume_fuel` on, or the store has run something with WASI already; or it limits memory, and the
                module defines memories, which each thread would have.
        """
        self._check_open()
        if not isinstance(module, Module):
            raise WrongTypeError(f"expected a Module, got {type(module).__name__}")
        from wasmforge.wasi.threads import DEFAULT_MAX_THREADS, WasiThreads

        return WasiThreads(self, store, module, DEFAULT_MAX_THREADS if max_threads is None else max_threads)

    def define_module(self, store: Storelike, name: str, module: Module) -> None:
        """Define the exports of a module, with `name` as the first name, and instances made as needed.

        A command (a module that exports `_start`) gets a new instance for every call of one of its functions. Any
        other module is instantiated now, and its export `_initialize` called.

        Raises:
            WasmtimeError: an import of the module is not defined, or a name is defined already.
        """
        if not isinstance(module, Module):
            raise WrongTypeError("expected a `Module`")
        compiled = module._open()
        if any(e.name == "_start" and e.kind == ExternKind.FUNC for e in compiled.info.exports):
            self._define_command(store, name, module)
            return
        instance = self.instantiate(store, module)
        initialize = instance._instance.export("_initialize") if "_initialize" in compiled.exports() else None
        if isinstance(initialize, VMFunction):
            if initialize.type.params or initialize.type.results:
                raise WasmtimeError("calling the Reactor initialization function: `_initialize` has the wrong type")
            initialize.make_callable("_initialize")()
        self.define_instance(store, name, instance)

    def _define_command(self, store: Storelike, name: str, module: Module) -> None:
        vm = context(store)
        compiled = module._open()
        imports = self._imports(store, module)
        for k, export in enumerate(compiled.info.exports):
            ty = export_type(compiled, k)
            if isinstance(ty, FuncType):
                command = _command(compiled, imports, export.name)
                self._insert(name, export.name, host_function(vm, ty, command, access_caller=True))
            elif _COMMAND_EXPORTS.get(export.name) != export.kind:
                raise WasmtimeError(f"command export '{export.name}' is not a function")

    def _imports(self, store: Storelike, module: Module) -> list[Entity]:
        entities: list[Entity] = []
        for i in module._open().info.imports:
            definition = self._definitions.get((i.module, i.name))
            if definition is None:
                raise unknown_import(i.module, i.name)
            entities.append(definition.in_store(store) if isinstance(definition, _HostFunction) else definition)
        return entities

    def instantiate(self, store: Storelike, module: Module) -> Instance:
        """Make an instance with imports from this linker.

        Raises:
            WasmtimeError: an import is not defined, or what is defined does not fit.
            Trap: as `Instance`.
        """
        instance = self._allocate(store, module)
        instance.run_start()
        return Instance._wrap(instance)

    async def instantiate_async(self, store: Storelike, module: Module) -> Instance:
        """Make an instance with imports from this linker, whose start function may call asynchronous host functions.
        Raises what `instantiate` raises."""
        instance = self._allocate(store, module)
        await instance.run_start_async()
        return Instance._wrap(instance)

    def _allocate(self, store: Storelike, module: Module) -> VMInstance:
        """An instance whose start function has not run."""
        self._check_open()
        vm = context(store)
        if not isinstance(module, Module):
            raise WrongTypeError(f"expected a Module, got {type(module).__name__}")
        return vm.instantiate(module._open(), self._imports(store, module))

    def get_default(self, store: Storelike, name: str) -> Func:
        """The default function of the module `name`: its export with the empty name, else `_start`, else a function
        that does nothing.

        Raises:
            WasmtimeError: the export is not a function.
        """
        self._check_open()
        context(store)
        for field in ("", "_start"):
            definition = self._definitions.get((name, field))
            if definition is not None:
                entity = definition.in_store(store) if isinstance(definition, _HostFunction) else definition
                if isinstance(entity, VMFunction):
                    return Func._wrap(entity)
                what = f"`{field}` export" if field else "default export"
                raise WasmtimeError(f"{what} in '{name}' is not a function")
        return Func(store, FuncType([], []), _nothing)

    def get(self, store: Storelike, module: str, name: str) -> Extern:
        """What is defined under two names.

        Raises:
            WasmtimeError: nothing is.
        """
        self._check_open()
        context(store)
        definition = self._definitions.get((module, name))
        if definition is None:
            raise WasmtimeError("item not defined in linker")
        return wrap_extern(definition.in_store(store) if isinstance(definition, _HostFunction) else definition)

    def __repr__(self) -> str:
        return f"<Linker with {len(self._definitions)} definitions>"


def _command(compiled: CompiledModule, imports: list[Entity], name: str) -> Callable[..., Any]:
    """A host function that calls the export `name` of a new instance."""

    def run(caller: Caller, *params: Any) -> Any:
        instance = caller._context().instantiate(compiled, imports)
        instance.run_start()
        function = instance.export(name)
        assert isinstance(function, VMFunction)
        return function.make_callable(name)(*params)

    return run


def _nothing() -> None:
    pass
