"""What exists while WebAssembly runs: mapped code, the registries that find it by program counter, types made
canonical, and the stores with their instances, memories, tables, globals and functions. The compilers produce
images for it; the embedder's objects (`wasmforge.engine`, `store`, `module`, `instance`, ...) are thin handles over it.

The way through it, for the rooms above (everything else is internal)::

    engine = EngineState(tunables)                  # one an Engine; thread-safe
    module = CompiledModule.from_bytes(engine, image)  # or from_file(engine, path): maps, publishes, registers types
    module.info                                     # CompiledModuleInfo: types, imports, exports, names
    module.serialize()                              # bytes of the image
    store = VMStore(engine)                         # context record, wasm stack, registry
    instance = store.instantiate(module, imports)   # link checks, allocation, segments; raises LinkError or the trap
    instance.run_start()                            # the start function; does nothing when there is none
    f = instance.export("add")                      # VMFunction | LinearMemory | VMTable | VMGlobal
    add = f.make_callable("add")                    # built-in function object, about 60 ns a call
    add(1, 2)

Entities of a store (`extern_type(x)` gives the type of any; `x.store` its store):

`VMFunction`    `.store .type (FuncType) .address .name`; equal when it is the same function of the store.
                `.make_callable(name=None, *, release_gil=False, raw=False, doc=None)`, memoised.
                `.host_callable`: the Python callable of a host function, else None.
`LinearMemory`  `.type (MemoryType) .pages .byte_length .base .grow(pages) -> old pages, or -1 when refused`;
                `.view() -> memoryview`: writable, of the present length; valid after grow and after the store is gone;
                `.read(start, stop) -> bytes`, `.write(data, start) -> int`, bounds-checked.
`VMTable`       `.type (TableType) .size .get(i) .set(i, value) .fill(i, value, n) .grow(n, value) -> old size or -1`;
                out of bounds raises the trap.
`VMGlobal`      `.type (GlobalType) .get() .set(value)`: int (signed), float or reference; `.get_raw() .set_raw(bits)`.

The types of memories and tables have the present size as minimum. Made by the embedder:
`store.new_function(type, callable, name="...", caller=False)` (with `caller=True` the callable gets the VMInstance that
calls it, or None from the host, as first argument), `store.new_memory(type)`, `store.new_table(type, init)`,
`store.new_global(type, value)`. `store.limits` is a `StoreLimits`, `store.gc()` collects externrefs,
`store.embedder_data` is the embedder's own.

References. A funcref is a `VMFunction` here, None when null; an externref any Python object, None when null. So that
functions appear as the embedder's own class, set `store.wrap_function: Callable[[VMFunction], object]` and
`store.unwrap_function: Callable[[object], VMFunction | None]` (None: not a function) after creating the store; they
apply in calls, in tables and in globals.

Errors. `LinkError` (a WasmtimeError) carries the texts of the wasmtime package; `link.unknown_import(module, name)`
makes the linker's. Traps are made by `traps.make_trap(kind, backtrace)`: the room of the `Trap` class replaces it with
`traps.set_trap_class(load)`, where `load()` gives a class that takes the message; without that it is
`traps.RuntimeTrap`. `traps.backtrace_of(trap)` is its `Backtrace`, with the code as `kind`; its `frames` is a list of
`FrameInfo(func_index, func_name, module_name, module_offset, func_offset)`, innermost first, resolved when first
looked at; `str(backtrace)` is Wasmtime's text. An exception of a
host function passes unchanged and gets the wasm frames as a note (`__notes__`).

Lifetime. There is no `close`. Functions and instances keep their store alive; memories, tables and globals do not
(they stay readable without it, references excepted). Everything of a store lives as long as the store, and goes at once
with the last reference to it: so nothing that the store holds (`embedder_data`, `wrap_function`, host functions) should
refer to the store or to a VMFunction of it; if it does, the garbage collector has to find the cycle. `__del__` methods
in the same garbage as the store can still read its memory; entering it raises there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.runtime.compiled_module import CompiledModule, FrameInfo
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.link import LinkError, extern_type
    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.func import VMFunction
    from wasmforge.runtime.vm.globals import VMGlobal
    from wasmforge.runtime.vm.instance import VMInstance
    from wasmforge.runtime.vm.memory import LinearMemory
    from wasmforge.runtime.vm.table import VMTable

__all__ = [
    "CompiledModule",
    "EngineState",
    "FrameInfo",
    "LinearMemory",
    "LinkError",
    "VMFunction",
    "VMGlobal",
    "VMInstance",
    "VMStore",
    "VMTable",
    "extern_type",
]

_HOMES: dict[str, str] = {
    "CompiledModule": "compiled_module",
    "EngineState": "engine_state",
    "FrameInfo": "compiled_module",
    "LinearMemory": "vm.memory",
    "LinkError": "link",
    "VMFunction": "vm.func",
    "VMGlobal": "vm.globals",
    "VMInstance": "vm.instance",
    "VMStore": "store",
    "VMTable": "vm.table",
    "extern_type": "link",
}


def __getattr__(name: str) -> object:
    """Imports what is named (PEP 562): a process pays for the files that it needs, about 0.2 ms each."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value
