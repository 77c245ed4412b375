"""A stand-in for the compiler and the runtime: hand-written LLVM IR that obeys the calling convention of
`compiler/environ.py`, and the records that it and the gates read. Used by the tests of the gates only.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from wasmforge.compiler.environ import (
    BUILTIN_INDEX,
    HOST_MAGIC,
    STACK_GUARD_SIZE,
    VALRAW_SIZE,
    VMCONTEXT_MAGIC,
    CallDescriptor,
    HostFuncContext,
    StoreContext,
    VMContextOffsets,
    VMFunctionImport,
    VMMemory,
    assign_params,
    assign_results,
)
from wasmforge.compiler.trap import TrapKind
from wasmforge.runtime.native import StackPool, gates
from wasmforge.runtime.native.image import GatesImage
from wasmforge.runtime.native.trap_record import decode
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, FuncType, ValType

LLVM = {I32: "i32", I64: "i64", F32: "float", F64: "double", FUNCREF: "ptr", EXTERNREF: "i32"}
ATTRIBUTES = (
    '"frame-pointer"="all" "disable-tail-calls"="true" "probe-stack"="inline-asm" "stack-probe-size"="32768" '
    "noinline nounwind"
)


def attributes(signature: FuncType) -> str:
    """ATTRIBUTES; a thousand parameters take LLVM a second each, so such functions are not optimised."""
    return ATTRIBUTES + " optnone" if len(signature.params) > 100 else ATTRIBUTES


libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

pool = StackPool()


def map_memory(size: int, protection: int = 3) -> int:
    address = libc.mmap(None, size, protection, 0x2 | 0x20 | 0x4000, -1, 0)
    assert address not in (None, 2**64 - 1), ctypes.get_errno()
    return int(address)


def mangle(ft: FuncType) -> str:
    return "".join(f"{t:02x}" for t in ft.params) + "_" + "".join(f"{t:02x}" for t in ft.results)


def result_type(ft: FuncType) -> str:
    """The LLVM return type: the results that travel in registers."""
    kept = [LLVM[t] for t, at in zip(ft.results, assign_results(ft), strict=True) if at.kind != "area"]
    if not kept:
        return "void"
    return kept[0] if len(kept) == 1 else "{" + ", ".join(kept) + "}"


def _gep(out: list[str], base: str, offset: int) -> str:
    name = f"%g{len(out)}"
    out.append(f"  {name} = getelementptr i8, ptr {base}, i64 {offset}")
    return name


def array_to_wasm(ft: FuncType) -> str:
    """The trampoline from the array call to the internal convention."""
    out = [
        f"define dso_local void @a2w_{mangle(ft)}(ptr %callee, ptr %caller, ptr %values, i64 %n, ptr %target)",
        f"    {attributes(ft)} {{",
    ]
    context_at = _gep(out, "%callee", VMContextOffsets.STORE_CONTEXT)
    out.append(f"  %context = load ptr, ptr {context_at}")
    arguments = ["ptr swiftself %callee"]
    for i, (t, at) in enumerate(zip(ft.params, assign_params(ft), strict=True)):
        slot = _gep(out, "%values", i * VALRAW_SIZE)
        out.append(f"  %p{i} = load {LLVM[t]}, ptr {slot}")
        if at.kind == "area":
            area = _gep(out, "%context", StoreContext.OVERFLOW_AREA + at.index * VALRAW_SIZE)
            out.append(f"  store {LLVM[t]} %p{i}, ptr {area}")
        else:
            arguments.append(f"{LLVM[t]} %p{i}")
    rt = result_type(ft)
    call = f"call swiftcc {rt} %target({', '.join(arguments)})"
    out.append(f"  {call}" if rt == "void" else f"  %r = {call}")
    in_registers = sum(at.kind != "area" for at in assign_results(ft))
    k = 0
    for i, (t, at) in enumerate(zip(ft.results, assign_results(ft), strict=True)):
        slot = _gep(out, "%values", i * VALRAW_SIZE)
        if at.kind == "area":
            area = _gep(out, "%context", StoreContext.RESULTS_AREA + at.index * VALRAW_SIZE)
            out.append(f"  %r{i} = load {LLVM[t]}, ptr {area}")
        elif in_registers == 1:
            out.append(f"  %r{i} = freeze {LLVM[t]} %r")
        else:
            out.append(f"  %r{i} = extractvalue {rt} %r, {k}")
            k += 1
        out.append(f"  store {LLVM[t]} %r{i}, ptr {slot}")
    return "\n".join([*out, "  ret void", "}\n"])


def wasm_to_array(ft: FuncType) -> str:
    """The trampoline from the internal convention to a host function's array call."""
    parameters = ["ptr swiftself %callee", "ptr nest %caller"]
    body: list[str] = []
    n = max(len(ft.params), len(ft.results), 1)
    body.append(f"  %values = alloca [{n * VALRAW_SIZE} x i8], align 16")
    context_at = _gep(body, "%callee", HostFuncContext.STORE_CONTEXT)
    body.append(f"  %context = load ptr, ptr {context_at}")
    for i, (t, at) in enumerate(zip(ft.params, assign_params(ft), strict=True)):
        if at.kind == "area":
            area = _gep(body, "%context", StoreContext.OVERFLOW_AREA + at.index * VALRAW_SIZE)
            body.append(f"  %p{i} = load {LLVM[t]}, ptr {area}")
        else:
            parameters.append(f"{LLVM[t]} %p{i}")
        slot = _gep(body, "%values", i * VALRAW_SIZE)
        body.append(f"  store {LLVM[t]} %p{i}, ptr {slot}")
    target_at = _gep(body, "%callee", HostFuncContext.ARRAY_CALL)
    body.append(f"  %target = load ptr, ptr {target_at}")
    body.append(f"  call void %target(ptr %callee, ptr %caller, ptr %values, i64 {n}, ptr null)")
    rt = result_type(ft)
    value = "poison"
    in_registers = sum(at.kind != "area" for at in assign_results(ft))
    k = 0
    for i, (t, at) in enumerate(zip(ft.results, assign_results(ft), strict=True)):
        slot = _gep(body, "%values", i * VALRAW_SIZE)
        body.append(f"  %r{i} = load {LLVM[t]}, ptr {slot}")
        if at.kind == "area":
            area = _gep(body, "%context", StoreContext.RESULTS_AREA + at.index * VALRAW_SIZE)
            body.append(f"  store {LLVM[t]} %r{i}, ptr {area}")
        elif in_registers == 1:
            value = f"%r{i}"
        else:
            body.append(f"  %s{i} = insertvalue {rt} {value}, {LLVM[t]} %r{i}, {k}")
            value = f"%s{i}"
            k += 1
    body.append("  ret void" if rt == "void" else f"  ret {rt} {value}")
    head = f"define dso_local swiftcc {rt} @w2a_{mangle(ft)}({', '.join(parameters)}) {attributes(ft)} {{"
    return "\n".join([head, *body, "}\n"])


def call_import(
    ft: FuncType, index: int, name: str, arguments: list[str], prefix: str, offsets: VMContextOffsets
) -> str:
    """A call of imported function `index` from a function whose vmctx is %vm."""
    base = offsets.imported_function(index)
    out = []
    p = f"%{prefix}"
    out.append(f"  {p}.wa = getelementptr i8, ptr %vm, i64 {base + VMFunctionImport.WASM_CALL}")
    out.append(f"  {p}.w = load ptr, ptr {p}.wa")
    out.append(f"  {p}.ca = getelementptr i8, ptr %vm, i64 {base + VMFunctionImport.VMCTX}")
    out.append(f"  {p}.c = load ptr, ptr {p}.ca")
    typed = [f"{LLVM[t]} {a}" for t, a in zip(ft.params, arguments, strict=True)]
    call = f"notail call swiftcc {result_type(ft)} {p}.w({', '.join([f'ptr swiftself {p}.c', 'ptr nest %vm', *typed])})"
    out.append(f"  {name} = {call}" if name else f"  {call}")
    return "\n".join(out) + "\n"


def call_builtin(builtin: str, result: str, arguments: str, prefix: str) -> str:
    p = f"%{prefix}"
    call = f"notail call swiftcc {'i64' if result else 'void'} {p}.f(ptr swiftself %vm, {arguments})"
    return builtin_pointer(builtin, prefix) + (f"  {result} = {call}\n" if result else f"  {call}\n")


def builtin_pointer(builtin: str, prefix: str) -> str:
    """%prefix.f = the address of a builtin."""
    p = f"%{prefix}"
    return (
        f"  {p}.ta = getelementptr i8, ptr %vm, i64 {VMContextOffsets.BUILTINS}\n"
        f"  {p}.t = load ptr, ptr {p}.ta\n"
        f"  {p}.fa = getelementptr i8, ptr {p}.t, i64 {8 * BUILTIN_INDEX[builtin]}\n"
        f"  {p}.f = load ptr, ptr {p}.fa\n"
    )


def memory_pointer(name: str, index: str) -> str:
    """%name = base of memory 0 + zext(index)."""
    offset = VMContextOffsets(1, 0, 0, 0, 0, 0, 0).memory(0) + VMMemory.BASE
    return (
        f"  {name}.ba = getelementptr i8, ptr %vm, i64 {offset}\n"
        f"  {name}.b = load ptr, ptr {name}.ba\n"
        f"  {name}.z = zext i32 {index} to i64\n"
        f"  {name} = getelementptr i8, ptr {name}.b, i64 {name}.z\n"
    )


_llvm_ready = False


def compile_ir(ir: str, opt: int = 1) -> bytes:
    global _llvm_ready
    import llvmlite.binding as llvm

    if not _llvm_ready:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()
        llvm.set_option("", "-enable-shrink-wrap=false")
        _llvm_ready = True
    machine = llvm.Target.from_default_triple().create_target_machine(opt=opt, reloc="pic", codemodel="small")
    module = llvm.parse_assembly(ir)
    module.verify()
    return bytes(machine.emit_object(module))


class Code:
    """Mapped and registered machine code."""

    def __init__(self, image: GatesImage) -> None:
        assert not image.imports, image.imports
        self.start = map_memory(len(image.text))
        self.size = len(image.text)
        ctypes.memmove(self.start, image.text, len(image.text))
        libc.mprotect(self.start, len(image.text), 5)
        self.symbols = {k: self.start + v for k, v in image.symbols.items()}
        gates().register_code(self.start, self.start + self.size)

    def __getitem__(self, name: str) -> int:
        return self.symbols[name]

    def name(self, pc: int) -> str | None:
        """The function that `pc` lies in, or None."""
        if not self.start <= pc < self.start + self.size:
            return None
        below = [(a, n) for n, a in self.symbols.items() if a <= pc and not n.startswith((".", "text_"))]
        return max(below)[1]


class Trap(Exception):
    """What the gates make; the properties read the trap record."""

    _wasmforge_backtrace: tuple[object, bytes]
    owner = property(lambda self: self._wasmforge_backtrace[0])
    facts = property(lambda self: decode(self._wasmforge_backtrace[1]))
    store = property(lambda self: self.facts.store_id)
    kind = property(lambda self: self.facts.kind)
    address = property(lambda self: self.facts.address)
    pcs = property(lambda self: self.facts.pcs)
    omitted = property(lambda self: self.facts.omitted)


def set_hooks(**others: Any) -> None:
    """The hooks of a test: traps are instances of `Trap`, every instruction may fault, and exceptions are noted."""
    g = gates()
    g.set_trap_class(Trap, [kind.name for kind in TrapKind])
    g.forget_faults()
    g.set_hooks(on_fault=lambda pc: TrapKind.MEMORY_OUT_OF_BOUNDS, on_exception=note_exception, **others)


exceptions_seen: list[tuple[int, BaseException, tuple[int, ...], int]] = []


def note_exception(store: int, exception: BaseException, pcs: tuple[int, ...], omitted: int) -> None:
    exceptions_seen[:] = [(store, exception, pcs, omitted)]


RESERVATION = 4 << 30
GUARD = 32 << 20


class Store:
    """A store with one module: a memory of one page and `imports` imported functions."""

    def __init__(self, code: Code, imports: int = 4, stack_size: int = 512 * 1024, identity: int = 1) -> None:
        self.code = code
        self.stack = pool.allocate(stack_size)
        self.context = map_memory(StoreContext.SIZE)
        words = self.words = (ctypes.c_uint64 * 16).from_address(self.context)
        words[StoreContext.WASM_SP // 8] = self.stack.high
        words[StoreContext.WASM_STACK_LOW // 8] = self.stack.low
        words[StoreContext.WASM_STACK_HIGH // 8] = self.stack.high
        words[StoreContext.STORE // 8] = identity
        self.offsets = VMContextOffsets(1, 0, imports, 0, 0, 0, 0)
        self.vmctx_data = ctypes.create_string_buffer(self.offsets.size + 16)
        self.vmctx = (ctypes.addressof(self.vmctx_data) + 15) & ~15
        self.reservation = map_memory(RESERVATION + GUARD, 0)
        libc.mprotect(self.reservation, 65536, 3)
        gates().register_memory(self.reservation, self.reservation + RESERVATION + GUARD)
        self._put(self.vmctx + VMContextOffsets.MAGIC, VMCONTEXT_MAGIC)
        self._put(self.vmctx + VMContextOffsets.STORE_CONTEXT, self.context)
        self._put(self.vmctx + VMContextOffsets.BUILTINS, gates().builtins)
        self._put(self.vmctx + self.offsets.memory(0) + VMMemory.BASE, self.reservation)
        self.keep: list[object] = []

    @staticmethod
    def _put(address: int, value: int) -> None:
        ctypes.c_uint64.from_address(address).value = value

    def close(self) -> None:
        assert self.words[StoreContext.HOST_SP // 8] == 0
        gates().unregister_memory(self.reservation)
        libc.munmap(self.reservation, RESERVATION + GUARD)
        libc.munmap(self.context, StoreContext.SIZE)
        pool.release(self.stack)

    def idle(self) -> bool:
        """Whether the context is as it was before the first call."""
        return (
            self.words[StoreContext.WASM_SP // 8] == self.stack.high
            and self.words[StoreContext.HOST_SP // 8] == 0
            and self.words[StoreContext.LAST_EXIT_FP // 8] == 0
            and self.words[StoreContext.THREAD_STATE // 8] == 0
        )

    def _descriptor(self, array: int, wasm: int, vmctx: int, name: str, ft: FuncType, flags: int) -> int:
        name_data = ctypes.create_string_buffer(name.encode())
        data = struct.pack(
            "<QQQQIIIIQ",
            array,
            wasm,
            vmctx,
            self.context,
            len(ft.params),
            len(ft.results),
            flags,
            max(len(ft.params), len(ft.results)),
            ctypes.addressof(name_data),
        )
        assert len(data) == CallDescriptor.TYPES
        buffer = ctypes.create_string_buffer(data + bytes((*ft.params, *ft.results)))
        self.keep += [name_data, buffer]
        return ctypes.addressof(buffer)

    def function(self, name: str, ft: FuncType, flags: int = 0) -> Callable[..., Any]:
        """The Python callable of a wasm function."""
        array = self.code["a2w_" + mangle(ft)]
        return gates().make_callable(name, self._descriptor(array, self.code[name], self.vmctx, name, ft, flags), self)

    def async_function(self, name: str, ft: FuncType, flags: int = 0) -> tuple[Callable[..., Any], ...]:
        """Start, resume and throw of a wasm function."""
        array = self.code["a2w_" + mangle(ft)]
        descriptor = self._descriptor(array, self.code[name], self.vmctx, name, ft, flags)
        start, resume, throw = gates().make_async_callables(name, descriptor, self.context, self)
        return partial(start, self), resume, throw

    def async_idle(self) -> bool:
        """`idle`, and no call is suspended."""
        words = (ctypes.c_uint64 * (StoreContext.SUSPENDED_AWAITABLE // 8 + 1)).from_address(self.context)
        fields = (StoreContext.ASYNC_SP, StoreContext.ASYNC_STATE, StoreContext.SUSPENDED_AWAITABLE)
        return self.idle() and not any(words[field // 8] for field in fields)

    def host_context(self, function: object, ft: FuncType, flags: int = 0, name: str = "host") -> int:
        name_data = ctypes.create_string_buffer(name.encode())
        data = struct.pack(
            "<IIQQQIIQ",
            HOST_MAGIC,
            flags,
            self.context,
            gates().host_array_call,
            id(function),
            len(ft.params),
            len(ft.results),
            ctypes.addressof(name_data),
        )
        assert len(data) == HostFuncContext.TYPES
        buffer = ctypes.create_string_buffer(data + bytes((*ft.params, *ft.results)))
        self.keep += [name_data, buffer, function]
        return ctypes.addressof(buffer)

    def set_import(self, index: int, function: object, ft: FuncType, flags: int = 0, name: str = "host") -> None:
        host = self.host_context(function, ft, flags, name)
        base = self.vmctx + self.offsets.imported_function(index)
        self._put(base + VMFunctionImport.WASM_CALL, self.code["w2a_" + mangle(ft)])
        self._put(base + VMFunctionImport.ARRAY_CALL, gates().host_array_call)
        self._put(base + VMFunctionImport.VMCTX, host)

    def host_function(self, function: object, ft: FuncType, flags: int = 0) -> Callable[..., Any]:
        """A host function called from Python: entry gate straight to host gate."""
        host = self.host_context(function, ft)
        return gates().make_callable(
            "host", self._descriptor(gates().host_array_call, 0, host, "host", ft, flags), self
        )


def ft(params: str, results: str = "") -> FuncType:
    """ft("i i", "I"): i, I, f, F, r (funcref), x (externref)."""
    letters: dict[str, ValType] = {"i": I32, "I": I64, "f": F32, "F": F64, "r": FUNCREF, "x": EXTERNREF}
    return FuncType(
        tuple(letters[c] for c in params.replace(" ", "")), tuple(letters[c] for c in results.replace(" ", ""))
    )


GUARD_SIZE = STACK_GUARD_SIZE
