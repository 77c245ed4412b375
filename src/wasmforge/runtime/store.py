"""`VMStore`: all that belongs to one store and lives exactly as long. The embedder's `Store` holds one; functions and
instances keep it alive, memories, tables and globals do not need it.

Ownership goes one way: the store owns records that do not refer back to it (or only weakly), handles refer to the
store. So dropping the last handle frees everything at once, without waiting for the garbage collector; only a host
function that refers to its own store makes a cycle, which the collector finds.
"""

from __future__ import annotations

from _weakref import ref
from itertools import count

from wasmforge.runtime.lifetime import died, undo_after
from wasmforge.runtime.module_registry import ModuleRegistry
from wasmforge.runtime.type_registry import TypeCollection
from wasmforge.runtime.vm.func import VMFunction, VMHostFunction, make_descriptor
from wasmforge.runtime.vm.instance import InstanceRecord, VMInstance, instantiate
from wasmforge.runtime.vm.limits import StoreLimits
from wasmforge.runtime.vm.records import Arena
from wasmforge.runtime.vm.store_context import StoreContext
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import EXTERNREF, FUNCREF, NON_NULL, representation, type_index, value_type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from wasmforge.runtime.compiled_module import CompiledModule
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.link import Extern
    from wasmforge.runtime.mapping import Mmap
    from wasmforge.runtime.vm.budget import Budget
    from wasmforge.runtime.vm.externref import ExternRefTable
    from wasmforge.runtime.vm.globals import VMGlobal
    from wasmforge.runtime.vm.memory import LinearMemory
    from wasmforge.runtime.vm.shared_memory import SharedLinearMemory, SharedMemoryView
    from wasmforge.runtime.vm.table import VMTable
    from wasmforge.syntax.types import FuncType, GlobalType, MemoryType, TableType, ValType

__all__ = ["VMStore", "require", "store_of_id"]

_ids: Final = count(1)
_stores: Final[dict[int, ref[VMStore]]] = {}
_instances: Final[dict[int, InstanceRecord]] = {}
"""By vmctx address, for routines that compiled code calls. A record does not refer to its store."""


_linear_memory: type[LinearMemory] | None = None


def _import_memory() -> type[LinearMemory]:
    """The class of memories. Imported once, since an import takes 0.4 µs of the 20 of a new instance, and only for
    modules that have one."""
    global _linear_memory
    from wasmforge.runtime.vm.memory import LinearMemory

    _linear_memory = LinearMemory
    return LinearMemory


def require(weak: ref[VMStore]) -> VMStore:
    """The store of a weak reference. Raises WasmtimeError when it is gone."""
    store = weak()
    if store is None:
        raise WasmtimeError("the store is gone; keep it, a function or an instance of it while its references are used")
    return store


def store_of_id(store_id: int) -> VMStore:
    """The store of the id in a StoreContext. Raises WasmtimeError when it is being destroyed."""
    weak = _stores.get(store_id)
    if weak is None:
        raise WasmtimeError("the store is being destroyed")
    return require(weak)


def instance_of(vmctx: int) -> InstanceRecord:
    """The instance whose vmctx is at an address. Raises WasmtimeError when its store is being destroyed."""
    record = _instances.get(vmctx)
    if record is None:
        raise WasmtimeError("the store is being destroyed")
    return record


class _Belongings:
    """What a store has outside of itself. It does not refer to the store; `runtime.lifetime` releases it."""

    __slots__ = ("_arena", "_context", "_gates", "_id", "_instances", "_pool", "reservations")

    def __init__(self, store: VMStore) -> None:
        self._id = store.id
        self._context = store.context
        self._arena = store.arena  # where the definitions lie that the handler's table names
        self._gates = store.engine.gates
        self._pool = store.engine.stacks
        self._instances = store.instances
        self.reservations: list[Mmap] = []

    def release(self) -> None:
        """Can be called again when it failed half-way. The memories themselves are freed with their last reference."""
        self._context.close()
        _stores.pop(self._id, None)
        for vmctx in self._instances:
            _instances.pop(vmctx, None)
        while self.reservations:
            # Both steps or a second try of both: the range must be unregistered before the mapping can go.
            try:  # noqa: SIM105  # contextlib costs a cold start 0.5 ms
                self._gates.unregister_memory(self.reservations[-1].address)
            except WasmtimeError:
                pass  # done by the first try
            self.reservations.pop()
        self._context.release_stack(self._pool)


class VMStore:
    """A store. Use it, and everything of it, from one thread at a time.

    `limits` may be set before instantiating. `wrap_function` and `unwrap_function` turn functions into the embedder's
    objects and back wherever a funcref crosses.
    """

    __slots__ = (
        "__weakref__",
        "_belongings",
        "_budget",
        "_c_strings",
        "_descriptors",
        "_externrefs",
        "_functions",
        "_kept",
        "_key",
        "_types",
        "_unpatched",
        "arena",
        "context",
        "embedder_data",
        "engine",
        "globals",
        "host_functions",
        "id",
        "instances",
        "limits",
        "memories",
        "registry",
        "shares_memory",
        "tables",
        "unwrap_function",
        "weak",
        "wrap_function",
    )

    def __init__(self, engine: EngineState) -> None:
        self._key: int | None = None
        self.engine = engine
        self.id = next(_ids)
        self.weak: ref[VMStore] = ref(self)
        self.arena = Arena()
        self.registry = ModuleRegistry(engine.tunables)
        self.limits = StoreLimits()
        self.embedder_data: object = None  # must not refer to the store, nor to functions of it
        self.wrap_function: Callable[[VMFunction], object] | None = None
        self.unwrap_function: Callable[[object], VMFunction | None] | None = None
        self.instances: dict[int, InstanceRecord] = {}
        self.memories: list[LinearMemory] = []
        self.shares_memory = False  # with other threads, which calls should let run meanwhile
        self.tables: list[VMTable] = []
        self.globals: list[VMGlobal] = []  # those that hold externrefs: roots
        self.host_functions: dict[int, VMHostFunction] = {}
        self._functions: dict[int, ref[VMFunction]] = {}
        self._descriptors: dict[tuple[int, str, int], int] = {}
        self._c_strings: dict[str, int] = {}
        self._kept: list[object] = []
        self._types: dict[FuncType, TypeCollection] = {}
        self._unpatched: dict[int, list[int]] = {}
        self.context = StoreContext(self.arena, engine.stacks, engine.max_wasm_stack, self.id, self.registry)
        self._externrefs: ExternRefTable | None = None
        self._budget: Budget | None = None
        _stores[self.id] = self.weak
        self._belongings = _Belongings(self)
        self._key = undo_after(self, self._belongings.release)

    def __del__(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            died(key)

    @property
    def budget(self) -> Budget:
        """How long the guests of this store may run."""
        if self._budget is None:
            from wasmforge.runtime.vm.budget import Budget

            self._budget = Budget(self.engine, self.arena, self.context.address, self.instances)
        return self._budget

    # --- Creation -----------------------------------------------------------------------------------------------

    def instantiate(self, module: CompiledModule, imports: Sequence[Extern]) -> VMInstance:
        """Checks the imports, allocates and initialises an instance; does not run the start function.

        `imports` are entities of this store in the order of the module's imports. Raises LinkError if they do not fit,
        WasmtimeError when a limit or the system's memory is reached, the trap if an active segment lies outside its
        table or memory (what was written before stays written, as the specification says).
        """
        if self._key is None:
            raise WasmtimeError("the store is being destroyed")
        if module.engine is not self.engine:
            raise WasmtimeError("cross-`Engine` instantiation is not currently supported")
        self.context.check_thread()
        return instantiate(self, module, imports)

    def new_memory(self, memory_type: MemoryType) -> LinearMemory:
        """A memory; of a shared type one that other stores can be given. Raises WasmtimeError when there is no room for
        it."""
        if memory_type.shared:
            from wasmforge.runtime.vm.shared_memory import SharedLinearMemory

            return self.add_shared_memory(SharedLinearMemory(self.engine, memory_type))
        memory = (_linear_memory or _import_memory())(self, memory_type)
        reservation = memory.reservation
        # In this order: what a Ctrl-C in between leaves behind is released with the store. A range that stayed
        # registered would refuse the next memory that gets its address.
        self._belongings.reservations.append(reservation)
        self.engine.gates.register_memory(reservation.address, reservation.end, memory.definition)
        self.memories.append(memory)
        return memory

    def add_shared_memory(self, shared: SharedLinearMemory) -> SharedMemoryView:
        """A shared memory as this store sees it, always the same. Raises WasmtimeError beyond the store's limits, or if
        it belongs to another engine."""
        from wasmforge.runtime.vm.shared_memory import SharedMemoryView

        if shared.engine is not self.engine:
            raise WasmtimeError("cross-`Engine` use of a shared memory is not supported")
        for memory in self.memories:
            if isinstance(memory, SharedMemoryView) and memory.shared is shared:
                return memory
        view = SharedMemoryView(self, shared)
        self.memories.append(view)
        self.shares_memory = True
        return view

    def new_table(self, table_type: TableType, init: object = None) -> VMTable:
        """A table whose elements are all `init`. Raises WasmtimeError beyond the limits, TypeError for a wrong
        value."""
        return self.instance_table(table_type, self.unbox(table_type.element, init))

    def instance_table(self, table_type: TableType, word: int = 0) -> VMTable:
        """A table whose elements are all a reference's word, whatever its type has to say about null. Raises
        WasmtimeError beyond the limits."""
        from wasmforge.runtime.vm.table import VMTable

        table = VMTable(self, table_type)
        if word:
            table.fill_raw(0, word, table.size)
        self.tables.append(table)
        return table

    def new_global(self, global_type: GlobalType, value: object) -> VMGlobal:
        """Raises TypeError or OverflowError for a value that does not fit."""
        from wasmforge.runtime.vm.globals import VMGlobal

        new = VMGlobal(self, global_type, self.arena.allocate(16))
        new.initialize(value)
        self.add_global(new)
        return new

    def add_global(self, new: VMGlobal) -> None:
        """Remembers a global that may hold an externref."""
        if representation(new.type.content) == EXTERNREF:
            self.globals.append(new)

    def new_function(
        self,
        function_type: FuncType,
        callable_: Callable[..., Any],
        *,
        name: str = "host function",
        caller: bool = False,
        caller_vmctx: bool = False,
        native: tuple[int, int] | None = None,
        awaited: bool = False,
    ) -> VMFunction:
        """A host function. `callable_` takes the parameters and returns the result, or a list or tuple of several.

        With `caller` it gets the VMInstance that calls, or None when the host does, as first argument; with
        `caller_vmctx` the address of that instance's vmctx, or 0, for functions that are called too often to make an
        object of it (`instance_of` gives the record). `native` is the address of a stub of the gates that is tried
        before, and of its data. With `awaited` the callable returns an awaitable of the results, which only
        asynchronous calls can use. The store keeps the function for ever, since tables may hold it.
        """
        types = self._types.get(function_type)
        if types is None:
            types = self._types[function_type] = TypeCollection(self.engine.types, (function_type,), closed=True)
        index = types.shared_type(0)
        entry: Callable[..., Any] = callable_
        if caller:

            def entry(vmctx: int, *args: object) -> object:
                if not vmctx:
                    return callable_(None, *args)
                record = instance_of(vmctx)
                return callable_(VMInstance(store_of_id(record.store_id), record), *args)

        if any(t >= NON_NULL for t in function_type.results):
            entry = self._with_checked_results(entry, function_type.results, awaited)
        wants_caller = caller or caller_vmctx
        host = VMHostFunction(
            self, function_type, index, callable_, entry, name, caller=wants_caller, native=native, awaited=awaited
        )
        self.host_functions[host.func_ref] = host
        if not self._wasm_call(host.func_ref):
            self._unpatched.setdefault(index, []).append(host.func_ref)
        return self._remember(VMFunction(self, host.func_ref, function_type, name))

    def _with_checked_results(
        self, entry: Callable[..., Any], types: tuple[ValType, ...], awaited: bool
    ) -> Callable[..., Any]:
        """A host function whose results are not any reference: the gates know only `funcref` and `externref`."""
        weak = self.weak

        def check(results: Any) -> Any:
            values = (results,) if len(types) == 1 and not isinstance(results, (list, tuple)) else results
            if isinstance(values, (list, tuple)):  # else the gate says what is wrong
                for t, value in zip(types, values, strict=False):
                    if t >= NON_NULL:
                        require(weak).check_reference(t, value)
            return results

        async def checked_later(*args: object) -> object:
            return check(await entry(*args))

        def checked(*args: object) -> object:
            return check(entry(*args))

        return checked_later if awaited else checked

    # --- Functions ----------------------------------------------------------------------------------------------

    def function_at(self, address: int, name: str | None = None) -> VMFunction:
        """The function whose VMFuncRef is at an address of this store. Raises ValueError for any other address."""
        weak = self._functions.get(address)
        function = None if weak is None else weak()
        if function is None:
            host = self.host_functions.get(address)
            function_type = self.engine.types.lookup(self.arena.read_u32(address + 24)) if host is None else host.type
            function = self._remember(VMFunction(self, address, function_type, name or "function"))
        return function

    def _remember(self, function: VMFunction) -> VMFunction:
        self._functions[function.address] = ref(function)
        return function

    def call_descriptor(self, function: VMFunction, name: str, flags: int) -> int:
        """The address of the CallDescriptor of a function under a name. Memoised, since a record is never freed."""
        key = (function.address, name, flags)
        address = self._descriptors.get(key)
        if address is None:
            address = self._descriptors[key] = make_descriptor(self, function, name, flags)
        return address

    def c_string(self, text: str) -> int:
        """The address of a string in UTF-8 with a closing 0; cut at an inner 0, which C would not see past anyway."""
        address = self._c_strings.get(text)
        if address is None:
            encoded = text.encode("utf-8", "replace").split(b"\0")[0] + b"\0"
            address = self._c_strings[text] = self.arena.allocate_bytes(encoded)
        return address

    def keep_alive(self, value: object) -> None:
        """Keeps an object for as long as the store."""
        self._kept.append(value)

    def _wasm_call(self, func_ref: int) -> int:
        return self.arena.read_u64(func_ref + 8)

    def patch_host_functions(self) -> None:
        """Gives host functions the trampoline for their signature once a registered module has one.

        A null WASM_CALL is never called: a module that can call a signature has its trampoline, and is registered
        before any of its code runs.
        """
        for index in list(self._unpatched):
            trampoline = self.registry.wasm_to_array_trampoline(index)
            if trampoline is not None:
                for func_ref in self._unpatched.pop(index):
                    self.arena.write_u64(func_ref + 8, trampoline)

    def add_instance(self, record: InstanceRecord) -> None:
        """Keeps an instance for as long as the store: tables of others may hold its functions, even if it failed."""
        self.instances[record.vmctx] = record
        _instances[record.vmctx] = record

    # --- References ---------------------------------------------------------------------------------------------

    @property
    def externrefs(self) -> ExternRefTable:
        """The handles of the Python objects that wasm refers to."""
        if self._externrefs is None:
            from wasmforge.runtime.vm.externref import ExternRefTable

            weak = self.weak
            self._externrefs = ExternRefTable(
                lambda: require(weak)._externref_roots(), lambda: require(weak).context.is_active()
            )
        return self._externrefs

    def box(self, value_type: int, word: int) -> object:
        """The Python object of a reference in a table, a global or a slot."""
        if not word:
            return None
        if representation(value_type) == FUNCREF:
            function = self.function_at(word)
            return function if self.wrap_function is None else self.wrap_function(function)
        return self.externrefs.value(word & 0xFFFFFFFF)

    def unbox(self, value_type: int, value: object) -> int:
        """The word of a reference. Raises TypeError if the value is not of the type, WasmtimeError if it is of another
        store."""
        if value is None:
            if value_type & NON_NULL:
                raise TypeError(f"expected {value_type_name(value_type)}, got None: the type has no null reference")
            return 0
        represented = representation(value_type)
        if represented == EXTERNREF:
            return self.externrefs.handle(value)
        if represented != FUNCREF:
            raise TypeError(f"{value_type_name(value_type)} is not a reference type")
        function = value if isinstance(value, VMFunction) else None
        if function is None and self.unwrap_function is not None:
            function = self.unwrap_function(value)
        if function is None:
            raise TypeError(f"expected funcref, got {type(value).__name__}")
        # Threat: the address of a VMFuncRef of another store dangles as soon as that store is gone.
        if function.store is not self:
            raise WasmtimeError("argument type mismatch\n\nCaused by:\n    value used with wrong store\n")
        index = type_index(value_type)
        if index >= 0 and function.type_index() != index:
            wanted = self.engine.types.lookup(index)
            raise TypeError(f"expected a reference to a function of type {wanted}, got one of type {function.type}")
        return function.address

    def check_reference(self, value_type: int, value: object) -> None:
        """Raises what `unbox` would for a value that is not of a reference type."""
        if representation(value_type) != EXTERNREF or value is None:
            self.unbox(value_type, value)

    def gc(self) -> None:
        """Drops the objects of externrefs that nothing in the store can reach. Does nothing while its wasm is
        active."""
        if not self.context.is_active():
            self.externrefs.sweep()

    def _externref_roots(self) -> tuple[set[int], int]:
        live = {cell.get_raw() for cell in self.globals}
        looked_at = len(self.globals)
        for table in self.tables:
            if representation(table.element) == EXTERNREF:
                live.update(table.raw_words())
                looked_at += table.size
        for record in self.instances.values():
            looked_at += record.add_externref_segments(live)
        return live, looked_at
