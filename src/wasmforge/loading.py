"""`load`, the short way: a module becomes an object whose exports are attributes.

    app = wasmforge.load("app.wasm", {"env": {"log": print}})
    app.add(1, 2)

Behind it are an `Engine`, a `Store`, a `Module` and an `Instance` like any other.
"""

from __future__ import annotations

from sys import modules

from wasmforge.engine import Engine, default_engine
from wasmforge.extern import entity_of, store_id_of
from wasmforge.func_ import Func, function_of, host_function
from wasmforge.globals_ import Global
from wasmforge.linker import Linker
from wasmforge.memory import Memory, array_interface, read, write
from wasmforge.module import Module
from wasmforge.runtime import LinearMemory, VMFunction, VMGlobal, VMTable
from wasmforge.runtime.link import unknown_import
from wasmforge.runtime.native.gates import CallTarget
from wasmforge.runtime.store import store_of_id
from wasmforge.store import Store
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.table import Table
from wasmforge.types import FuncType, GlobalType, MemoryType, TableType
from wasmforge.values import to_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from os import PathLike
    from typing import Any

    from wasmforge.config import Config
    from wasmforge.extern import Entity
    from wasmforge.runtime import VMInstance, VMStore
    from wasmforge.types import ExternType
    from wasmforge.wasi import WasiConfig

__all__ = ["LoadedGlobal", "LoadedMemory", "LoadedModule", "LoadedTable", "call_async", "load", "load_async"]

ELF_MAGIC = b"\x7fELF"
WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")


def load(
    source: str | bytes | bytearray | PathLike[str] | Module,
    imports: Mapping[str, Mapping[str, Any] | LoadedModule] | None = None,
    *,
    config: Config | None = None,
    engine: Engine | None = None,
    store: Store | None = None,
    wasi: WasiConfig | None = None,
) -> LoadedModule:
    """Compile and instantiate a module.

    Parameters:
        source: a path, the binary (bytes), the text (str starting with a parenthesis or comment), or a `Module`.
        imports: for each module name, the items by name: Python callables (typed by what the module imports, or by
            `wasmforge.func`), `Memory`, `Table`, `Global` and `Func` objects, exports of other loaded modules, numbers
            for immutable globals; or a loaded module instead of such a mapping.
        config, engine, store: settings, or where to put the instance; at most one of them. By default the
            instance gets the store of what it imports, else a new one in an engine that all loaded modules share.
        wasi: the system interface for programs that use WASI.

    Returns:
        An object with an attribute for each export: functions are built-in function objects, memories, tables
        and globals have short methods. `app["a name"]` reaches any name.

    Raises:
        WasmtimeError: the module is malformed or invalid, or an import is missing or does not fit.
        Trap: the start function trapped.
        OSError: the file cannot be read.
    """
    store, module, instance = _instantiate(source, imports, config, engine, store, wasi)
    instance.run_start()
    return LoadedModule(store, module, instance)


async def load_async(
    source: str | bytes | bytearray | PathLike[str] | Module,
    imports: Mapping[str, Mapping[str, Any] | LoadedModule] | None = None,
    *,
    config: Config | None = None,
    engine: Engine | None = None,
    store: Store | None = None,
    wasi: WasiConfig | None = None,
) -> LoadedModule:
    """Compile and instantiate a module whose imports may be coroutine functions (`async def`), in its start function
    too::

        app = await wasmforge.load_async("app.wasm", {"env": {"fetch": fetch}})
        print(await app.run(1))

    As `load`, but the functions of the object are coroutine functions. One call at a time can be in a store.
    """
    store, module, instance = _instantiate(source, imports, config, engine, store, wasi)
    await instance.run_start_async()
    return LoadedModule(store, module, instance, asynchronous=True)


def call_async(function: Callable[..., Any], *params: Any) -> Coroutine[Any, Any, Any]:
    """Call a function of a loaded module, or one that `Func.bind` gave, as a coroutine, in which asynchronous host
    functions can be awaited; see `Func.call_async`::

        await wasmforge.call_async(app.run, 1)

    Raises:
        TypeError: `function` is not a function of an instance.
    """
    target = getattr(function, "__self__", None)
    owner = getattr(target, "owner", None)
    if not isinstance(owner, VMFunction):
        raise TypeError(f"expected a function of a loaded module, got {type(function).__name__}")
    if isinstance(target, CallTarget):
        if target.async_call is None:
            target.async_call = owner.async_call()
        return target.async_call.call(*params)  # type: ignore[no-any-return]
    return owner.async_call().call(*params)


def _instantiate(
    source: str | bytes | bytearray | PathLike[str] | Module,
    imports: Mapping[str, Mapping[str, Any] | LoadedModule] | None,
    config: Config | None,
    engine: Engine | None,
    store: Store | None,
    wasi: WasiConfig | None,
) -> tuple[Store, Module, VMInstance]:
    """What `load` does before the start function runs."""
    if sum(x is not None for x in (config, engine, store)) > 1:
        raise TypeError("give at most one of config, engine and store")
    imports = {} if imports is None else imports
    store = store or _store_of_imports(imports)
    if store is None:
        if isinstance(source, Module) and engine is None and config is None:
            engine = source._engine
        store = Store(engine if engine is not None else Engine(config) if config is not None else default_engine())
        # Nobody else sees this store's functions: they can appear as what the exports are, built-in function objects.
        store._context().wrap_function = _bound
    vm = store._context()
    module = source if isinstance(source, Module) else _compile(store.engine, source)
    if wasi is not None:
        store.set_wasi(wasi)
    return store, module, vm.instantiate(module._open(), _resolve(store, module, imports, wasi is not None))


def _compile(engine: Engine, source: str | bytes | bytearray | PathLike[str]) -> Module:
    if isinstance(source, str) and source.lstrip().startswith(("(", ";;")):
        return Module(engine, source)
    if not isinstance(source, (bytes, bytearray)):
        return Module._from_path(engine, source, check=_refuse_image)
    contents = bytes(source)
    _refuse_image(contents)
    return Module(engine, contents)


def _refuse_image(contents: bytes) -> None:
    # Threat: an image is machine code and runs unchecked. A program that loads what others send as "wasm" must not
    # map it because of its first bytes; whoever means to has to say so with Module.deserialize.
    if contents.startswith(ELF_MAGIC):
        raise WasmtimeError(
            "this is a compiled image, which is only loaded when asked for: "
            "use wasmforge.load(wasmforge.Module.deserialize_file(engine, path))"
        )


# --- Imports -------------------------------------------------------------------------------------------------------

_MISSING = object()


def _store_of_imports(imports: Mapping[str, Mapping[str, Any] | LoadedModule]) -> Store | None:
    """The store of the first import that lives in one."""
    for items in imports.values():
        if isinstance(items, LoadedModule):
            return items._store
        for item in items.values():
            entity = _entity(item)
            # A function object of another store can also be called as a Python function, so it does not decide.
            if entity is not None and (isinstance(item, Func) or not isinstance(entity, VMFunction)):
                store_id = store_id_of(entity)
                if store_id:  # a shared memory lives in none
                    return Store._wrap(store_of_id(store_id))
    return None


def _entity(item: object) -> Entity | None:
    """The runtime's object behind an import, or None."""
    if isinstance(item, (LoadedMemory, LoadedTable, LoadedGlobal)):
        return item._entity
    if isinstance(item, (Memory, Table, Global)):
        return entity_of(item)
    shared = modules.get("wasmforge.sharedmemory")  # not loaded by a program that has none
    if shared is not None and isinstance(item, shared.SharedMemory):
        return entity_of(item)
    return function_of(item)


def _resolve(
    store: Store, module: Module, imports: Mapping[str, Mapping[str, Any] | LoadedModule], wasi: bool
) -> list[Entity]:
    """What the module imports, in order."""
    entities: list[Entity] = []
    vm = store._context()
    system: Linker | None = None
    for wanted in module.imports:
        assert wanted.name is not None
        items = imports.get(wanted.module, {})
        source = items._exports if isinstance(items, LoadedModule) else items
        item = source.get(wanted.name, _MISSING)
        if item is not _MISSING:
            entities.append(_import(vm, f"{wanted.module}::{wanted.name}", wanted.type, item))
            continue
        if wanted.module not in WASI_MODULES:
            raise unknown_import(wanted.module, wanted.name)
        if not wasi:
            raise WasmtimeError("the module uses WASI: give load() a system interface, wasi=wasmforge.WasiConfig()")
        if system is None:
            system = Linker(store.engine)
            system.define_wasi()
        entities.append(entity_of(system.get(store, wanted.module, wanted.name)))
    return entities


def _import(vm: VMStore, name: str, ty: ExternType, item: object) -> Entity:
    """The import `name` of type `ty`, made of what the program gave for it. Whether the types agree is checked by the
    runtime, which has the texts for it."""
    typed = modules.get("wasmforge.host_function")  # not loaded by a program that has none
    if typed is not None and isinstance(item, typed.HostFunction):
        return host_function(vm, item.type, item.function, item.access_caller)
    entity = _entity(item)
    if entity is not None and (
        store_id_of(entity) == vm.id or not isinstance(entity, VMFunction) or not callable(item)
    ):
        return entity
    if isinstance(ty, FuncType) and callable(item) and not isinstance(item, Func):
        return host_function(vm, ty, item, access_caller=False)
    if entity is not None:
        return entity
    if isinstance(ty, GlobalType):
        return vm.new_global(ty._type, to_python(vm, ty._type.content, item))
    what = {FuncType: "a callable", MemoryType: "a Memory", TableType: "a Table"}[type(ty)]
    raise TypeError(f"import `{name}`: expected {what}, got {type(item).__name__}")


# --- The loaded module ---------------------------------------------------------------------------------------------


def _bound(function: VMFunction) -> Callable[..., Any]:
    """A function as exports of loaded modules are: a built-in function object, always the same one."""
    return function.make_callable(function.name or "func", doc=_documentation(function))


# Threat: a small module can export a function of a thousand parameters a hundred thousand times.
_DOCUMENTED = 16
_SHAPES = 1000

_shapes: dict[object, tuple[str, str]] = {}
"""What is put behind a function's name for `inspect` and for `help`, by its type. Making it took 2 to 5 of the 17
microseconds that an export takes."""


def _documentation(function: VMFunction) -> str | None:
    """What `help` and `inspect.signature` show, in the form in which CPython keeps both; None for a function of so many
    values that nobody would read it."""
    ty = function.type
    shape = _shapes.get(ty)
    if shape is None:
        if len(ty.params) > _DOCUMENTED or len(ty.results) > _DOCUMENTED:
            return None
        names = [f"p{k}, " for k in range(len(ty.params))]
        shape = (f"($self, {''.join(names)}/)\n--\n\n", _describe("", FuncType._wrap(ty)))
        if len(_shapes) >= _SHAPES:
            _shapes.clear()
        _shapes[ty] = shape
    name = function.name or "func"
    # CPython looks for the name before the parenthesis, and `inspect` parses what stands there as a definition.
    head = name + shape[0] if name.isidentifier() else ""
    return f"{head}WebAssembly function {name}{shape[1]}"


def _loaded(vm: VMStore, entity: Entity, asynchronous: bool) -> Any:
    if isinstance(entity, VMFunction):
        return entity.async_call().call if asynchronous else _bound(entity)
    if isinstance(entity, LinearMemory):
        return LoadedMemory(vm, entity)
    if isinstance(entity, VMTable):
        return LoadedTable(vm, entity)
    return LoadedGlobal(vm, entity)


class LoadedModule:
    """An instance whose exports are attributes, and items for names that are not identifiers. Iterating gives the
    names."""

    # Slots are found before the instance's dictionary: an export of one of these names is reached as an item.
    __slots__ = ("__dict__", "__weakref__", "_exports", "_instance", "_module", "_store")

    def __init__(self, store: Store, module: Module, instance: VMInstance, asynchronous: bool = False) -> None:
        self._store = store
        self._module = module
        self._instance = instance
        self._exports = {name: _loaded(instance.store, entity, asynchronous) for name, entity in instance.exports()}
        self.__dict__.update(self._exports)

    def __getitem__(self, name: str) -> Any:
        return self._exports[name]

    if TYPE_CHECKING:
        # For type checkers only: a class with `__getattr__` makes every attribute look-up 40 ns slower, as much as
        # the call of a function. Python's own AttributeError suggests the export that was meant.
        def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: object) -> None:
        if name not in LoadedModule.__slots__:
            hint = f": use app.{name}.value = ..." if isinstance(self._exports.get(name), LoadedGlobal) else ""
            raise AttributeError(f"the exports of a module cannot be replaced{hint}")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._exports)

    def __len__(self) -> int:
        return len(self._exports)

    def __contains__(self, name: object) -> bool:
        return name in self._exports

    def __dir__(self) -> list[str]:
        own = (name for name in object.__dir__(self) if name not in self._exports)
        return [*(name for name in self._exports if name.isidentifier()), *own]

    def __repr__(self) -> str:
        info = self._module._open().info
        name = f" {info.name!r}" if info.name else ""
        exports = [_describe(e.name, e.type) for e in self._module.exports]
        if len(exports) > 12:
            exports[12:] = [f"and {len(exports) - 12} more"]
        return f"<LoadedModule{name}: {'; '.join(exports) or 'no exports'}>"


def _describe(name: str, ty: ExternType) -> str:
    if isinstance(ty, FuncType):
        results = f" -> {', '.join(map(str, ty.results))}" if ty.results else ""
        return f"{name}({', '.join(map(str, ty.params))}){results}"
    if isinstance(ty, GlobalType):
        return f"{name}: {'mut ' if ty.mutable else ''}{ty.content}"
    return f"{name}: {'memory' if isinstance(ty, MemoryType) else f'table of {ty.element}'}"


class LoadedMemory:
    """A memory of a loaded module. Indices and slices work as on a bytearray, but a slice cannot change its length."""

    __slots__ = ("__weakref__", "_entity", "_vm")

    def __init__(self, vm: VMStore, memory: LinearMemory) -> None:
        self._vm = vm  # which the entity itself does not keep alive
        self._entity = memory

    @property
    def type(self) -> MemoryType:
        """The type that it was made with."""
        return MemoryType._wrap(self._entity.declared_type)

    @property
    def size(self) -> int:
        """The size in pages of 64 KiB; `len(memory)` is the size in bytes."""
        return self._entity.pages

    def grow(self, delta: int) -> int:
        """Add pages of zeros. Returns the size before; raises WasmtimeError when it is not possible."""
        if delta < 0:
            raise WasmtimeError("cannot grow by negative amount")
        pages = self._entity.grow(delta)
        if pages < 0:
            raise WasmtimeError(f"failed to grow memory by `{delta}`")
        return pages

    def read(self, start: int | None = 0, stop: int | None = None) -> bytearray:
        """A copy of the bytes from `start` up to `stop`, as `Memory.read`."""
        return read(self._entity, start, stop)

    def write(self, value: Any, start: int | None = None) -> int:
        """Copy `value` to `start`, as `Memory.write`: IndexError when it does not fit."""
        return write(self._entity, value, start)

    def view(self) -> memoryview:
        """The bytes as a writable memoryview, without a copy. It keeps its length when the memory grows."""
        return self._entity.view()

    def __len__(self) -> int:
        return self._entity.byte_length

    def __getitem__(self, key: int | slice) -> int | bytes:
        item = self._entity.view()[key]
        return bytes(item) if isinstance(item, memoryview) else item

    def __setitem__(self, key: int | slice, value: Any) -> None:
        self._entity.view()[key] = value

    def __buffer__(self, flags: int) -> memoryview:
        return self._entity.view()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return array_interface(self._entity)

    def __repr__(self) -> str:
        return f"<LoadedMemory of {self._entity.pages} pages>"


class LoadedTable:
    """A table of a loaded module: a sequence whose null references are None."""

    __slots__ = ("__weakref__", "_entity", "_vm")

    def __init__(self, vm: VMStore, table: VMTable) -> None:
        self._vm = vm  # which the entity itself does not keep alive
        self._entity = table

    @property
    def type(self) -> TableType:
        """The type that it was made with."""
        return TableType._wrap(self._entity.declared_type)

    def grow(self, amount: int, init: Any = None) -> int:
        """Add elements. Returns the size before; raises WasmtimeError when it is not possible."""
        value = to_python(self._vm, self._entity.element, init)
        size = -1 if amount < 0 else self._entity.grow(amount, value)
        if size < 0:
            raise WasmtimeError(f"failed to grow table by `{amount}`")
        return size

    def _index(self, i: int) -> int:
        size = self._entity.size
        if not -size <= i < size:
            raise IndexError(f"index {i} is out of range for a table of {size} elements")
        return i % size

    def __len__(self) -> int:
        return self._entity.size

    def __getitem__(self, i: int) -> Any:
        return self._entity.get(self._index(i))

    def __setitem__(self, i: int, value: Any) -> None:
        self._entity.set(self._index(i), to_python(self._vm, self._entity.element, value))

    def __repr__(self) -> str:
        return f"<LoadedTable of {self._entity.size} {self.type.element}>"


class LoadedGlobal:
    """A global variable of a loaded module."""

    __slots__ = ("__weakref__", "_entity", "_vm")

    def __init__(self, vm: VMStore, global_: VMGlobal) -> None:
        self._vm = vm  # which the entity itself does not keep alive
        self._entity = global_

    @property
    def type(self) -> GlobalType:
        """The type."""
        return GlobalType._wrap(self._entity.type)

    @property
    def value(self) -> Any:
        """The present value. Setting it raises WasmtimeError when the variable is immutable."""
        return self._entity.get()

    @value.setter
    def value(self, value: Any) -> None:
        converted = to_python(self._vm, self._entity.type.content, value)
        if not self._entity.type.mutable:
            raise WasmtimeError("immutable global cannot be set")
        self._entity.set(converted)

    def __repr__(self) -> str:
        return f"<LoadedGlobal {self._entity.get()!r}>"
