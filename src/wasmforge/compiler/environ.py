"""The contract between compilers and runtime: the internal calling convention, the layouts of the records that
machine code reads, the builtins that it calls, and the tunables that an image is compiled for.

Compilers emit code from these offsets, the gates in `runtime/native` are emitted from them, and `runtime/vm`
fills the records. Neither compilers nor runtime import each other; both import this file. Sizes and offsets
are bytes. `docs/architecture.md` shows the records as a picture.

The internal calling convention (fuzzed in tests/compiler; measured in docs/rationale.md)
----------------------------------------------------------------------------------------
1.  LLVM's `swiftcc`, vmctx as `swiftself` in r13, which the callee preserves unless it ends in a tail call: so callers
    of imports, of function references and of functions with tail calls put their own back. No stack arguments, ever.
2.  Integer-class arguments (i32, i64, references) in rdi, rsi, rdx, rcx, r8, r9; f32, f64 and v128 in xmm0-7; the
    classes are counted separately. Upper bits are undefined: zero-extend an i32 before addressing.
3.  Parameters beyond those go to the overflow area of the store context, 16 bytes a parameter, indexed by the
    parameter's position among the overflowing ones. The caller writes just before the call, the callee reads
    before its first call.
4.  Results in order: integer class rax, rdx, rcx; f32, f64, v128 xmm0, xmm1; the rest in the results area of the
    store context, the same way; the caller reads before its next call.
5.  Callee-saved: rbx, rbp, r12-r15. r11 is prologue scratch. r10 (LLVM's `nest`) is the caller's vmctx on calls of
    imports and function references, undefined elsewhere.
6.  rsp is 0 mod 16 at the call, the direction flag clear. The red zone may be used by leaf functions.
7.  The first instructions of a function are `push rbp; mov rbp, rsp`; no guest memory is accessed after `pop rbp`. A
    frame larger than `STACK_PROBE_SIZE` touches every probe. So a walk of the rbp chain from any instruction that can
    trap, or from any return address, ends at the entry gate.
8.  Ordinary calls are never tail calls (`notail`). Tail calls restore what rule 5 and rbp say and jump, with arguments
    and r10 as in a call. In LLVM a function with tail calls is defined with the prototype of `llvm/uniform.py`, which
    names every register.

Array call: the uniform convention between host and wasm, the System V C convention:
    void array_call(ptr callee_vmctx, ptr caller_vmctx, ptr values, i64 count, ptr wasm_call)
`values` points to `count` = max(parameters, results) ValRaw slots of 16 bytes, parameters on entry, results on return.
`wasm_call` is the function to call for array-to-wasm trampolines (one a signature serves all functions of that
signature; Wasmtime emits one a function) and unused by host functions. It does not return when the callee traps.
"""

from __future__ import annotations

from wasmforge.syntax.features import DEFAULT_FEATURES
from wasmforge.syntax.record import record
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128, ExternKind, FuncType, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.syntax.module import Module

__all__ = [
    "BUILTINS",
    "BUILTIN_INDEX",
    "Builtin",
    "CallDescriptor",
    "HostFuncContext",
    "Location",
    "StoreContext",
    "Tunables",
    "VMContextOffsets",
    "VMFuncRef",
    "VMFunctionImport",
    "VMMemory",
    "VMMemoryDefinition",
    "VMDataSegment",
    "VMTableDefinition",
    "WasiCell",
    "WasiGuest",
    "assign_params",
    "assign_results",
    "VALRAW_SIZE",
]

# --- Registers and locations ---------------------------------------------------------------------------------

INTEGER_ARGUMENTS: Final = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
VECTOR_ARGUMENTS: Final = ("xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7")
INTEGER_RESULTS: Final = ("rax", "rdx", "rcx")
VECTOR_RESULTS: Final = ("xmm0", "xmm1")

INTEGER_CLASS: Final = frozenset({I32, I64, FUNCREF, EXTERNREF})
VECTOR_CLASS: Final = frozenset({F32, F64, V128})

VALRAW_SIZE: Final = 16
"""A slot of an array call, of the overflow area and of the results area; wide enough for a v128."""

CODE_ALIGNMENT: Final = 64
"""Of code with constants: the widest that a constant asks for."""

STACK_PROBE_SIZE: Final = 32768
"""Frames above this touch each step, so that no frame jumps over the guard."""

STACK_GUARD_SIZE: Final = 65536
"""Inaccessible bytes below each wasm stack: at least twice the probe size."""


@record(frozen=True, slots=True)
class Location:
    """Where a parameter or result travels: `index` into the register tuple of its class, or into the area."""

    kind: str  # "integer", "vector" or "area"
    index: int


def _assign(types: tuple[ValType, ...], integers: int, vectors: int) -> list[Location]:
    locations = []
    used_integers = used_vectors = used_area = 0
    for t in types:
        if t in INTEGER_CLASS and used_integers < integers:
            locations.append(Location("integer", used_integers))
            used_integers += 1
        elif t in VECTOR_CLASS and used_vectors < vectors:
            locations.append(Location("vector", used_vectors))
            used_vectors += 1
        else:
            locations.append(Location("area", used_area))
            used_area += 1
    return locations


def assign_params(ft: FuncType) -> list[Location]:
    """Where each parameter travels (rules 2 and 3)."""
    return _assign(ft.params, len(INTEGER_ARGUMENTS), len(VECTOR_ARGUMENTS))


def assign_results(ft: FuncType) -> list[Location]:
    """Where each result travels (rule 4)."""
    return _assign(ft.results, len(INTEGER_RESULTS), len(VECTOR_RESULTS))


# --- Records ---------------------------------------------------------------------------------------------------

VMCONTEXT_MAGIC: Final = int.from_bytes(b"core", "little")
HOST_MAGIC: Final = int.from_bytes(b"host", "little")


class VMMemory:
    """An entry of the vmctx's memory array: the base, which never moves (a 32-bit memory reserves its whole index
    space, a 64-bit one all that it may grow to), and the definition, which holds the current length and is shared by
    all importers."""

    BASE: Final = 0
    DEFINITION: Final = 8
    SIZE: Final = 16


class VMMemoryDefinition:
    BASE: Final = 0
    CURRENT_LENGTH: Final = 8  # bytes
    SIZE: Final = 16


class VMTableDefinition:
    """Elements are 8 bytes: the address of a VMFuncRef, or an externref handle zero-extended. 0 is null."""

    BASE: Final = 0  # may change when the table grows
    CURRENT_ELEMENTS: Final = 8
    SIZE: Final = 16
    ELEMENT_SIZE: Final = 8


class VMFuncRef:
    """A function value. `WASM_CALL` of a host function is null until a module with its signature, and so with a
    wasm-to-array trampoline for it, is registered in the store; no code can call it before."""

    ARRAY_CALL: Final = 0
    WASM_CALL: Final = 8
    VMCTX: Final = 16
    TYPE_INDEX: Final = 24  # u32, the engine-wide VMSharedTypeIndex
    SIZE: Final = 32


class VMFunctionImport:
    WASM_CALL: Final = 0
    ARRAY_CALL: Final = 8
    VMCTX: Final = 16
    SIZE: Final = 24


class VMDataSegment:
    """A passive data segment, or a dropped one (length 0). Active segments count as dropped after instantiation."""

    BASE: Final = 0
    LENGTH: Final = 8
    SIZE: Final = 16


class HostFuncContext:
    """What `vmctx` points to for a host function (Wasmtime's VMArrayCallHostFuncContext)."""

    NATIVE: Final = -16  # only of functions whose ARRAY_CALL is a stub of native/wasi_calls.py: address of a WasiCell
    MAGIC: Final = 0  # u32
    FLAGS: Final = 4  # u32, HOST_FLAG_*
    STORE_CONTEXT: Final = 8
    ARRAY_CALL: Final = 16
    CALLABLE: Final = 24  # PyObject *, kept alive by the store
    PARAM_COUNT: Final = 32  # u32
    RESULT_COUNT: Final = 36  # u32; with HOST_RESULTS_AWAITED when the callable returns an awaitable of the results
    NAME: Final = 40  # const char *, UTF-8, for error messages; may be null
    TYPES: Final = 48  # one byte a parameter, then one a result: ValType


class WasiCell:
    """One a store: whose memory and whose WASI state the stubs use. CALLER is 0 when they shall ask Python."""

    CALLER: Final = 0  # vmctx of the instance that the other two are for
    MEMORY: Final = 8  # address of the VMMemoryDefinition of its exported memory
    GUEST: Final = 16  # address of a WasiGuest, 0 when the store has another one than the stubs know
    SIZE: Final = 32


class WasiGuest:
    """What the stubs may do for one guest without Python (filled by wasi/native.py)."""

    CLOCKS: Final = 0  # not 0: both clocks are the host's, the monotonic one counted from
    MONOTONIC_START: Final = 8  # nanoseconds
    RANDOM: Final = 16  # not 0: random bytes are the host's
    TABLE: Final = 32  # one u64 a descriptor: READ and so on, and the host's descriptor in the upper half
    DESCRIPTORS: Final = 256  # higher numbers ask Python
    SIZE: Final = TABLE + 8 * DESCRIPTORS
    READ: Final = 1
    WRITE: Final = 2
    SEEK: Final = 4
    NULL: Final = 8  # there is no host's descriptor: reads are at their end, writes vanish
    MAX_IOVECS: Final = 16


HOST_RESULTS_AWAITED: Final = 1 << 31

HOST_FLAG_CALLER: Final = 1
"""The callable takes the address of the caller's vmctx (an int, 0 when the host itself calls) as first argument."""


class StoreContext:
    """One a store; the only record that changes while wasm runs, besides memories, tables and globals."""

    WASM_SP: Final = 0  # where the next entry puts its first frame
    HOST_SP: Final = 8  # where a host call continues; 0 while no wasm is active in this store
    LAST_EXIT_FP: Final = 16  # rbp of the innermost gate through which wasm left to the host, 0 if none
    THREAD: Final = 24  # thread pointer (fs:0) of the thread that the limit belongs to
    HOST_STACK_LIMIT: Final = 32  # entering wasm with rsp below this raises RecursionError
    THREAD_STATE: Final = 40  # PyThreadState * while the GIL is released, else 0
    WASM_STACK_LOW: Final = 48  # lowest usable address; the guard is the STACK_GUARD_SIZE bytes below
    WASM_STACK_HIGH: Final = 56
    STORE: Final = 64  # id of the store, an integer that the hooks in Python resolve
    FUEL_CONSUMED: Final = 72
    STOP: Final = 80  # u32, not 0: the hook on_stop shall run before wasm goes on (runtime/deadline.py)
    KEPT: Final = 88  # 16 bytes, in use for a moment on the way into a builtin that keeps registers
    # Asynchronous calls (native/async_calls.py): at most one a store, outermost on its wasm stack.
    ASYNC_SP: Final = 104  # HOST_SP of that activation while it runs, else 0
    ASYNC_STATE: Final = 112  # ASYNC_*
    ASYNC_DESCRIPTOR: Final = 120  # its CallDescriptor
    ASYNC_VALUES: Final = 128  # its arguments and results, at the top of the wasm stack
    ASYNC_TOP: Final = 136  # WASM_SP before and after it
    SUSPENDED_AWAITABLE: Final = 144  # PyObject *, on its way to whoever awaits it, else 0
    SUSPENDED_HOST: Final = 152  # HostFuncContext of the host call that is suspended, 0: a builtin
    SUSPENDED_VALUES: Final = 160  # where the results of that host call go
    SUSPENDED_THREAD: Final = 168  # THREAD, which is 0 meanwhile
    SUSPENDED_BOTTOM: Final = 176  # address of the word in the oldest frame that names the entry frame
    SUSPENDED_REGISTERS: Final = 184  # rbx, r12-r15 of wasm
    SUSPENDED_FRAME: Final = 224  # the GateFrame, from its lowest word
    ASYNC_OWNER: Final = 320  # a number that whoever started the call gave, to tell it from others
    OWNER: Final = 328  # PyObject *, what a trap of this store keeps for its frames, or 0
    FIELDS_END: Final = 336
    OVERFLOW_AREA: Final = 4096
    RESULTS_AREA: Final = 4096 + 1008 * VALRAW_SIZE
    SIZE: Final = 36864  # 1,000 parameters and 1,000 results are the validator's limits


ASYNC_NONE: Final = 0
ASYNC_SUSPENDED: Final = 1  # the call waits; HOST_SP is 1 and THREAD 0, so that nobody enters
ASYNC_RESUMING: Final = 2  # the same, and somebody is about to resume it


class CallDescriptor:
    """What the universal call wrapper reads: one a callable export."""

    ARRAY_CALL: Final = 0
    WASM_CALL: Final = 8
    VMCTX: Final = 16
    STORE_CONTEXT: Final = 24
    PARAM_COUNT: Final = 32  # u32
    RESULT_COUNT: Final = 36  # u32
    FLAGS: Final = 40  # u32, CALL_FLAG_*
    SLOTS: Final = 44  # u32, max(parameters, results)
    NAME: Final = 48  # const char *, UTF-8, for error messages
    TYPES: Final = 56  # one byte a parameter, then one a result: ValType


CALL_FLAG_RELEASE_GIL: Final = 1
CALL_FLAG_RAW: Final = 2
"""Arguments and results are unsigned bit patterns (Python ints), for exact floats in tests."""


class VMContextOffsets:
    """The layout of one module's vmctx: a fixed header, then arrays whose lengths the module decides.

    Memories come first so that `[r13 + 64]`, the base of memory 0, has a one-byte displacement.
    """

    MAGIC: Final = 0
    STORE_CONTEXT: Final = 8
    BUILTINS: Final = 16
    TYPE_IDS: Final = 24  # u32 array: module type index to VMSharedTypeIndex
    DEADLINE_PASSED: Final = 32  # u32, not 0 once the epoch deadline of the store has passed
    GC_HEAP: Final = 40
    HEADER_SIZE: Final = 64

    def __init__(
        self,
        memories: int,
        tables: int,
        imported_functions: int,
        imported_globals: int,
        defined_globals: int,
        data_segments: int,
        func_refs: int,
    ) -> None:
        self.num_imported_functions = imported_functions
        self.num_imported_globals = imported_globals
        self.memories = self.HEADER_SIZE
        self.tables = self.memories + memories * VMMemory.SIZE
        self.imported_functions = self.tables + tables * 8
        self.imported_globals = self.imported_functions + imported_functions * VMFunctionImport.SIZE
        unaligned = self.imported_globals + imported_globals * 8
        self.defined_globals = (unaligned + 15) & ~15
        self.data_segments = self.defined_globals + defined_globals * VALRAW_SIZE
        self.func_refs = self.data_segments + data_segments * VMDataSegment.SIZE
        self.size = self.func_refs + func_refs * VMFuncRef.SIZE

    @classmethod
    def of(cls, module: Module, func_refs: int) -> VMContextOffsets:
        """The layout for a module of which `func_refs` functions escape."""
        return cls(
            memories=module.num_imported(ExternKind.MEMORY) + len(module.memories),
            tables=module.num_imported(ExternKind.TABLE) + len(module.tables),
            imported_functions=module.num_imported(ExternKind.FUNC),
            imported_globals=module.num_imported(ExternKind.GLOBAL),
            defined_globals=len(module.globals),
            data_segments=len(module.data),
            func_refs=func_refs,
        )

    def memory(self, x: int) -> int:
        """Offset of the VMMemory of memory `x` of the index space."""
        return self.memories + x * VMMemory.SIZE

    def table(self, x: int) -> int:
        """Offset of the pointer to the VMTableDefinition of table `x` of the index space."""
        return self.tables + x * 8

    def imported_function(self, x: int) -> int:
        """Offset of the VMFunctionImport of imported function `x`."""
        return self.imported_functions + x * VMFunctionImport.SIZE

    def imported_global(self, x: int) -> int:
        """Offset of the pointer to the 16-byte cell of imported global `x`."""
        return self.imported_globals + x * 8

    def defined_global(self, x: int) -> int:
        """Offset of the 16-byte cell of defined global `x` (counted without imports)."""
        return self.defined_globals + x * VALRAW_SIZE

    def data_segment(self, x: int) -> int:
        return self.data_segments + x * VMDataSegment.SIZE

    def func_ref(self, x: int) -> int:
        """Offset of the `x`-th escaping function's VMFuncRef."""
        return self.func_refs + x * VMFuncRef.SIZE


# --- Builtins --------------------------------------------------------------------------------------------------


@record(frozen=True, slots=True)
class Builtin:
    """A routine that compiled code calls through the vmctx's builtin array, by the internal convention.

    `native` ones are part of the gates; the others are Python functions reached through a stub
    that switches to the thread's stack, called with the vmctx address and the arguments as unsigned ints.

    `keeps_overflow`: it is called between a caller that has written the overflow area and the callee that reads it, so
    the stub saves the area; Python may run finalisers that enter wasm of the same store.

    `keeps_registers`: compiled code calls it where it hardly ever goes, and must not pay for it elsewhere. It has no
    parameters and no result, takes the vmctx in rdi, and keeps all integer registers but r11, as LLVM's
    `preserve_mostcc` says.
    """

    name: str
    params: tuple[ValType, ...]
    result: ValType | None
    native: bool
    keeps_overflow: bool = False
    keeps_registers: bool = False


BUILTINS: Final[tuple[Builtin, ...]] = (
    Builtin("trap", (I32,), None, native=True),  # TrapKind; does not return
    Builtin("memory_move", (I64, I64, I64), None, native=True),  # host addresses: target, source; bytes
    Builtin("memory_set", (I64, I32, I64), None, native=True),  # host address, byte, bytes
    Builtin("memory_grow", (I64, I32), I64, native=False),  # pages, memory; old pages or -1
    Builtin("table_grow", (I32, I64, I64), I64, native=False),  # table, elements, initial word; old size or -1
    Builtin("table_fill", (I32, I64, I64, I64), None, native=False),  # table, start, word, elements; traps
    Builtin("table_init", (I32, I32, I64, I64, I64), None, native=False),  # table, segment, target, source, n; traps
    Builtin("elem_drop", (I32,), None, native=False),  # segment
    # Function, counted without imports; the address of its code. Only called by `baseline.first_call`'s stub.
    Builtin("compile_function", (I32,), I64, native=False, keeps_overflow=True),
    Builtin("out_of_fuel", (), None, native=False, keeps_registers=True),  # refills the store's count, or traps
    Builtin("new_epoch", (), None, native=False, keeps_registers=True),  # sets another deadline, or traps
    # Function, counted without imports: its counter is below zero. Only called by `baseline.counters`' stub.
    Builtin("tier_up", (I32,), None, native=False),
    # Of the next three: address, value or count, timeout in nanoseconds, offset, memory. The second traps
    # when the memory is not shared.
    Builtin("memory_atomic_notify", (I64, I32, I64, I32), I64, native=False),
    Builtin("memory_atomic_wait32", (I64, I32, I64, I64, I32), I64, native=False),
    Builtin("memory_atomic_wait64", (I64, I64, I64, I64, I32), I64, native=False),
)
"""Bounds of memory.copy, memory.fill, memory.init and table.copy are checked in line, since they are hot or
simple; `table_fill` and `table_init` check for themselves and raise the trap."""

BUILTIN_INDEX: Final[dict[str, int]] = {b.name: i for i, b in enumerate(BUILTINS)}


# --- Tunables --------------------------------------------------------------------------------------------------

DEFAULT_TIER_UP_THRESHOLD: Final = 30_000
"""Calls and loop iterations until a small function is hot."""

OPTIMIZATION_LEVELS: Final = ("none", "speed", "speed_and_size")


@record(frozen=True, slots=True)
class Tunables:
    """Settings that change what is compiled. They are recorded in each image; loading one made with others is an
    error (Wasmtime's `Tunables`, table C4 of the reference)."""

    memory_reservation: int = 4 << 30  # bytes of address space of a memory
    memory_reservation_for_growth: int = 64 << 30  # bytes of address space more for a 64-bit memory
    memory_guard_size: int = 32 << 20  # bytes behind it; an offset below this needs no check
    guard_before_linear_memory: bool = True
    signals_based_traps: bool = True  # false: every access is compared with the current length
    memory_init_cow: bool = True
    generate_address_map: bool = True
    parse_wasm_debuginfo: bool = False  # keep the guest's DWARF in the image
    verify_ir: bool = False  # run LLVM's verifier on what is handed to it; the code is the same
    optimization: str = "speed"
    debug_guest: bool = False
    consume_fuel: bool = False
    epoch_interruption: bool = False
    relaxed_simd_deterministic: bool = False  # relaxed vector instructions give the same results everywhere
    features: int = DEFAULT_FEATURES  # bits of `syntax.features.Feature`: what validation allows

    def as_dict(self) -> dict[str, int | bool | str]:
        return {name: getattr(self, name) for name in type(self).__annotations__}
