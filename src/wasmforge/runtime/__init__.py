"""What exists while WebAssembly runs: mapped code, the registries that find it by program counter, types made
canonical, and the stores with their instances, memories, tables, globals and functions. The compilers produce
images for it; the embedder's objects (`wasmforge.engine`, `store`, `module`, `instance`, ...) are thin handles over it.

The way through it, for the rooms above (everything else is internal)::

    engine = EngineState(tunables)                       # one an Engine; thread-safe
    module = CompiledModule.from_bytes(engine, image)    # or from_file(engine, path): maps, publishes, registers types
    module.info                                          # CompiledModuleInfo: types, imports, exports, names
    module.serialize()                                   # bytes of the image
    store = VMStore(engine)                              # context record, wasm stack, registry; freed with the last reference
    instance = store.instantiate(module, imports)        # link checks, allocation, segments; raises LinkError or Trap
    instance.run_start()                                 # the start function; does nothing when there is none
    f = instance.export("add")                           # VMFunction | LinearMemory | VMTable | VMGlobal (same object each time)
    add = f.make_callable("add")                         # built-in function object, about 60 ns a call
    add(1, 2)

Entities of a store. Each keeps its store alive, and everything of a store lives as long as the store:

`VMFunction`      `.store .type (FuncType) .address (of the VMFuncRef; the same function has the same address)`
                  `.make_callable(name, *, release_gil=False, raw=False)`, memoised;
                  `.host_callable` the Python callable of a host function, else None; `.name` for messages.
`LinearMemory`    `.type (MemoryType) .pages .byte_length .base .grow(pages) -> int (old pages, -1 when refused)`
                  `.view() -> memoryview` writable, of the current length; stays valid after grow and after the store is gone
                  `.read(start, stop) -> bytes`, `.write(data, start) -> int` bounds-checked.
`VMTable`         `.type (TableType, current minimum) .size .get(i) .set(i, value) .grow(n, value) -> int (or -1)`
                  `.fill(i, value, n)`; values as in "References"; out of bounds raises the trap of table C20.
`VMGlobal`        `.type (GlobalType) .get() .set(value)`: int (signed), float or a reference; `.get_raw() .set_raw(bits)`
Creation          `store.new_function(type, callable, name="...", caller=False)`: `caller=True` passes the VMInstance that calls
                  (None from the host) as first argument; `store.new_memory(MemoryType)`, `store.new_table(TableType, init)`,
                  `store.new_global(GlobalType, value)`, `store.function_at(address)`: the VMFunction of a VMFuncRef address.
`extern_type(x)`  the FuncType / MemoryType / TableType / GlobalType of an entity, for messages and reflection.

References. A funcref is a `VMFunction` here, None when null; an externref any Python object, None when null. So that
functions appear as the embedder's own class, set `store.wrap_function: Callable[[VMFunction], object]` and
`store.unwrap_function: Callable[[object], VMFunction | None]` (None: not a function) after creating the store; they apply
in calls, in `VMTable.get/set` and in `VMGlobal.get/set`.

Errors. `LinkError` (a WasmtimeError) carries the texts of the wasmtime package; `link.unknown_import(module, name)`
makes the linker's. Traps are made by `traps.make_trap(kind, backtrace)`: the room of the `Trap` class replaces it with
`traps.set_trap_class(cls)`, where `cls(message: str, kind: TrapKind | None, backtrace: Backtrace)`; without that it is
`traps.RuntimeTrap`. `Backtrace.frames` is a list of `FrameInfo(func_index, func_name, module_name, module_offset,
func_offset)`, innermost first, resolved when first looked at; `str(backtrace)` is Wasmtime's text. An exception of a host
function passes unchanged and gets the wasm frames as a note (`__notes__`).

Lifetime. No `close`: dropping the last reference to a store and to whatever belongs to it frees it. `__del__` methods
that run in the same garbage collection as the store can still read its memory, and entering it raises.
"""

from __future__ import annotations
