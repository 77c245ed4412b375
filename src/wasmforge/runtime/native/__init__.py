"""The gates between CPython and machine code made from wasm: every native instruction here is emitted as LLVM IR or
assembly by this room, compiled once, kept as an image file and mapped. `runtime/vm` and the embedder's objects
consume it; the records that the gates read are laid out in `compiler/environ.py`.

Interface (`from wasmforge.runtime.native import gates, StackPool, Stack`)

    g = gates()                     the process's one Gates; loads or builds the image at its first call
    g.host_array_call : int         array_call of host functions (HostFuncContext.ARRAY_CALL, VMFuncRef.ARRAY_CALL)
    g.builtins        : int         address of the array for VMContextOffsets.BUILTINS
    g.make_callable(name, descriptor, keep_alive, doc=None) -> built-in function object; `descriptor` is the address of
                                    a CallDescriptor that `keep_alive` keeps alive; `f.__self__.owner is keep_alive`
    g.set_builtin(name, f)          f(vmctx: int, *args: int) -> int | None, args unsigned; may raise (also a Trap)
    g.register_code(start, end), g.unregister_code(start)          text of an image: program counters there are wasm
    g.register_memory(start, end, definition), g.unregister_memory(start)      whole reservation, guards included
    g.set_trap_class(cls, messages)  how traps are made: `gates.py`; until then the hook on_first_trap is called, which
                                    does it. `trap_record.decode` reads what a trap carries
    g.forget_faults()               whenever code goes
    g.hook_signals()                before a start function and for every callable; a few µs; main thread or not
    g.set_hooks(on_first_trap=, on_fault=, on_exception=, box_ref=, unbox_ref=)     each optional; kept until replaced
        on_first_trap()                                             calls set_trap_class
        on_fault(pc) -> int                                         the kind of trap; raises where nothing may fault
        on_exception(store_id, exception, pcs, omitted)             returns; the gate then raises `exception` again
        on_async_misuse(store_id, kind, object)                     raises; kind as in misuse.py
        box_ref(store_id, value_type, word) -> object               word is not 0 (null is None without the hook)
        unbox_ref(store_id, value_type, object) -> int              object is not None; a TypeError from it becomes
                                                                    "f() argument 1: expected funcref, got str"
    pcs: tuple of look-up addresses (return addresses already minus 1), innermost first, at most MAX_BACKTRACE of
    `trap_record.py`, through all activations of the store on this thread; `omitted` more were cut. Addresses in no
    registered function (trampolines) occur among them: skip what the look-up does not know.

    A store context must be zeroed, then WASM_SP = stack.high, WASM_STACK_LOW = stack.low, WASM_STACK_HIGH = stack.high,
    STORE = id. THREAD and HOST_STACK_LIMIT stay 0: the first entry sets them (a store that is active on another
    thread raises WasmtimeError there). HOST_SP != 0 means active: do not free the store then.
    StackPool().allocate(size) -> Stack(low, high); .release(stack). The guard lies below `low`.
"""

from __future__ import annotations

from wasmforge.runtime.native.gates import Gates, gates
from wasmforge.runtime.native.stacks import DEFAULT_STACK_SIZE, Stack, StackPool

__all__ = ["DEFAULT_STACK_SIZE", "Gates", "Stack", "StackPool", "gates"]
