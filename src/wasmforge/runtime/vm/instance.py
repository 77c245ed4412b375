"""Instances: allocating a vmctx by `environ.VMContextOffsets`, filling it, and applying the segments (specification,
section 4.5.4). `VMStore.instantiate` calls it; compiled code runs on the vmctx; the builtins in `libcalls` find the
record by its address.
"""

from __future__ import annotations

from _struct import Struct, pack

from wasmforge.compiler.environ import VMContextOffsets, VMFuncRef
from wasmforge.runtime.vm.func import read_func_ref
from wasmforge.runtime.vm.traps import memory_out_of_bounds
from wasmforge.syntax.externs import SegmentMode
from wasmforge.syntax.types import EXTERNREF, ExternKind, representation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

    from wasmforge.compiler.info import DataInfo, ElementInfo
    from wasmforge.runtime.code import ModuleWithCode
    from wasmforge.runtime.compiled_module import CompiledModule
    from wasmforge.runtime.link import Extern
    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.func import VMFunction
    from wasmforge.runtime.vm.globals import VMGlobal
    from wasmforge.runtime.vm.memory import LinearMemory
    from wasmforge.runtime.vm.table import VMTable

__all__ = ["NO_WORDS", "InstanceRecord", "VMInstance", "instantiate"]

_FUNCTION_IMPORT: Final = Struct("<QQQ")
NO_WORDS: Final = memoryview(b"").cast("Q")


class InstanceRecord:
    """What a store keeps of an instance until it goes. It does not refer to its store.

    `functions` are the addresses of the VMFuncRefs of imported functions; `segments` the words of the element
    segments, empty once dropped.
    """

    __slots__ = ("functions", "globals", "memories", "module", "segments", "store_id", "tables", "vmctx")

    def __init__(self, store_id: int, module: CompiledModule, vmctx: int) -> None:
        self.store_id = store_id
        self.module = module
        self.vmctx = vmctx
        self.functions: list[int] = []
        self.memories: list[LinearMemory] = []
        self.tables: list[VMTable] = []
        self.globals: list[VMGlobal] = []
        self.segments: list[memoryview] = []

    def func_ref(self, index: int) -> int:
        """The address of the VMFuncRef of an escaping function of the index space, as compiled code computes it."""
        return self.vmctx + self.module.offsets.func_ref(self.module.func_ref_position(index))

    def add_externref_segments(self, live: set[int]) -> int:
        """Adds the handles in element segments to `live`, for the sweep of the externref table; returns their
        number."""
        looked_at = 0
        for segment, words in zip(self.module.info.elements, self.segments, strict=False):
            if representation(segment.type) == EXTERNREF:
                live.update(words)
                looked_at += len(words)
        return looked_at


class VMInstance:
    """An instance as the rooms above see it. It keeps its store alive; instances are equal when they are the same
    one."""

    __slots__ = ("__weakref__", "_record", "store")

    def __init__(self, store: VMStore, record: InstanceRecord) -> None:
        self.store = store
        self._record = record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VMInstance) and other._record is self._record

    def __hash__(self) -> int:
        return hash(self._record.vmctx)

    @property
    def module(self) -> CompiledModule:
        return self._record.module

    @property
    def vmctx(self) -> int:
        """The address of the vmctx."""
        return self._record.vmctx

    def export_names(self) -> list[str]:
        """The names of the exports, in the order of the module."""
        return [e.name for e in self._record.module.info.exports]

    def export(self, name: str) -> Extern:
        """The entity exported under a name. Raises KeyError if there is none."""
        kind, index = self._record.module.exports()[name]
        return self.entity(kind, index, name)

    def exports(self) -> Iterator[tuple[str, Extern]]:
        """Names and entities of all exports, in the order of the module."""
        for e in self._record.module.info.exports:
            yield e.name, self.entity(e.kind, e.index, e.name)

    def entity(self, kind: int, index: int, name: str | None = None) -> Extern:
        """An entity of an index space; of functions those that escape."""
        record = self._record
        if kind == ExternKind.FUNC:
            return self.function(index, name)
        if kind == ExternKind.MEMORY:
            return record.memories[index]
        return record.tables[index] if kind == ExternKind.TABLE else record.globals[index]

    def function(self, index: int, name: str | None = None) -> VMFunction:
        """A function of the index space that escapes. An imported one is the entity that was given as import."""
        record = self._record
        imported = record.module.num_imported_functions
        address = record.functions[index] if index < imported else record.func_ref(index)
        return self.store.function_at(address, name or record.module.func_name(index) or f"function {index}")

    @property
    def start(self) -> VMFunction | None:
        """The start function, None if the module has none."""
        index = self._record.module.info.start
        return None if index is None else self.function(index)

    def run_start(self) -> None:
        """Calls the start function, if there is one. Raises what it raises."""
        if self._record.module.info.start is None:
            return
        start = self.start
        assert start is not None
        host = self.store.host_functions.get(start.address)
        if host is not None and host.entry is not None:
            # An imported host function that asks who calls: this instance does (specification, section 4.5.4).
            host.entry(self.vmctx)
        else:
            start.make_callable()()

    async def run_start_async(self) -> None:
        """The same as an asynchronous call, in which host functions may wait."""
        start = self.start
        if start is not None:
            await start.async_call().call()


def instantiate(store: VMStore, module: CompiledModule, imports: Sequence[Extern]) -> VMInstance:
    """See `VMStore.instantiate`."""
    # Threat: a sequence that gives other entities when it is read again, after the check.
    imports = tuple(imports)
    if store.engine.shared_memory:
        imports = tuple(_in_store(store, entity) for entity in imports)
    if imports or module.info.imports:
        from wasmforge.runtime.link import check_imports

        check_imports(store, module, imports)
    info = module.info
    if info.start is not None:
        store.engine.gates.hook_signals()  # otherwise nothing runs before somebody makes a callable, which does it too
    store.limits.check_counts(
        len(store.instances) + 1, len(store.memories) + len(info.memories), len(store.tables) + len(info.tables)
    )
    code = store.registry.register_module(module)
    store.patch_host_functions()
    record = InstanceRecord(store.id, module, store.arena.allocate(module.offsets.size))
    entity: Any
    for entity in imports:
        kind = entity.EXTERN_KIND
        if kind == ExternKind.FUNC:
            record.functions.append(entity.address)
        elif kind == ExternKind.MEMORY:
            record.memories.append(entity)
        elif kind == ExternKind.TABLE:
            record.tables.append(entity)
        else:
            record.globals.append(entity)
    # From here on other instances may come to hold addresses of this one, so it stays even if what follows fails.
    store.add_instance(record)
    for memory_type in info.memories:
        record.memories.append(store.new_memory(memory_type))
    for table_type in info.tables:
        record.tables.append(store.instance_table(_closed(module, table_type)))
    _fill_vmctx(store, code, record)
    if store.engine.tunables.epoch_interruption:
        store.budget.update()
    if info.globals:
        _initialize_globals(store, record)
    for x, init in info.table_inits.items():
        table = record.tables[module.num_imported_tables + x]
        table.fill_raw(0, _evaluate(record, init), table.size)
    if info.elements:
        _evaluate_segments(record)
        _initialize_tables(record)
    if info.data or module.memory_images is not None:
        _initialize_memories(record)
    return VMInstance(store, record)


def _closed(module: CompiledModule, t: Any) -> Any:
    """The type of a table or global with the type indices of the engine."""
    return module.engine_code.signatures().close_extern(t)


def _in_store(store: VMStore, entity: Any) -> Extern:
    """An import as the store sees it: shared memories belong to none."""
    if entity.EXTERN_KIND == ExternKind.MEMORY and entity.ENGINE_WIDE:
        return store.add_shared_memory(entity)
    found: Extern = entity
    return found


def _fill_vmctx(store: VMStore, code: ModuleWithCode, record: InstanceRecord) -> None:
    """Everything but the values of globals."""
    module = record.module
    offsets = module.offsets
    out = store.arena.view(record.vmctx, offsets.size)
    out[:] = module.vmctx_template(code)
    words = out.cast("Q")
    words[VMContextOffsets.STORE_CONTEXT // 8] = store.context.address
    at = offsets.memory(0) // 8
    for memory in record.memories:
        words[at] = memory.base
        words[at + 1] = memory.definition
        at += 2
    for x, table in enumerate(record.tables):
        words[offsets.table(x) // 8] = table.definition
    count = len(module.info.func_refs)
    if count:
        # The vmctx is the third word of each VMFuncRef.
        start = offsets.func_refs // 8 + VMFuncRef.VMCTX // 8
        if count == 1:
            words[start] = record.vmctx
        else:
            vmctxs = memoryview(record.vmctx.to_bytes(8, "little") * count).cast("Q")
            words[start : start + 4 * count : 4] = vmctxs
    if module.info.imports:
        _fill_imports(store, out, record)


def _fill_imports(store: VMStore, out: memoryview, record: InstanceRecord) -> None:
    module = record.module
    offsets = module.offsets
    for x, address in enumerate(record.functions):
        array_call, wasm_call, vmctx, _ = read_func_ref(store, address)
        _FUNCTION_IMPORT.pack_into(out, offsets.imported_function(x), wasm_call, array_call, vmctx)
        if module.escapes(x):
            at = offsets.func_ref(module.func_ref_position(x))
            out[at : at + VMFuncRef.SIZE] = store.arena.view(address, VMFuncRef.SIZE)
    for x in range(module.num_imported_globals):
        at = offsets.imported_global(x)
        out[at : at + 8] = record.globals[x].address.to_bytes(8, "little")


def _initialize_globals(store: VMStore, record: InstanceRecord) -> None:
    from wasmforge.runtime.vm.globals import VMGlobal

    offsets = record.module.offsets
    for x, (global_type, init) in enumerate(record.module.info.globals):
        cell = VMGlobal(store, _closed(record.module, global_type), record.vmctx + offsets.defined_global(x))
        # Later initial values may refer to earlier globals, never to themselves (section 3.4.10).
        cell.set_raw(_evaluate(record, init))
        record.globals.append(cell)
        store.add_global(cell)


def _evaluate(record: InstanceRecord, code: bytes) -> int:
    from wasmforge.runtime.vm.const_expr import evaluate

    return evaluate(code, lambda x: record.globals[x].get_raw(), record.func_ref)


def _evaluate_segments(record: InstanceRecord) -> None:
    """The words of every element segment, before any is applied."""
    for segment in record.module.info.elements:
        record.segments.append(_segment_words(record, segment))


def _segment_words(record: InstanceRecord, segment: ElementInfo) -> memoryview:
    if segment.mode is SegmentMode.DECLARATIVE:
        return NO_WORDS
    if segment.uses_expressions:
        words = [_evaluate(record, item) for item in segment.items]  # type: ignore[arg-type]
    else:
        start = record.vmctx + record.module.offsets.func_refs
        positions = record.module.func_ref_positions()
        words = [start + VMFuncRef.SIZE * positions[x] for x in segment.items]  # type: ignore[index]
    return memoryview(pack(f"<{len(words)}Q", *words)).cast("Q")


def _initialize_tables(record: InstanceRecord) -> None:
    for x, segment in enumerate(record.module.info.elements):
        if segment.table_offset is not None:
            words = record.segments[x]
            record.segments[x] = NO_WORDS  # an active segment is dropped once applied, and when it traps
            offset = _evaluate(record, segment.table_offset)
            record.tables[segment.table].init_raw(offset, words, 0, len(words))


def _initialize_memories(record: InstanceRecord) -> None:
    module = record.module
    if module.memory_images is not None:
        for x in range(module.num_imported_memories, len(record.memories)):
            if x in module.memory_images:
                module.memory_images.initialize(x, record.memories[x])
    data = module.engine_code.wasm_data()
    for segment in module.info.data.values():
        if segment.memory_offset is not None:
            _apply_data(record, segment, data)


def _apply_data(record: InstanceRecord, segment: DataInfo, data: memoryview) -> None:
    assert segment.memory_offset is not None
    memory = record.memories[segment.memory]
    offset = _evaluate(record, segment.memory_offset)
    if offset + segment.length > memory.byte_length:
        raise memory_out_of_bounds()
    memory.write(data[segment.start : segment.start + segment.length], offset)
