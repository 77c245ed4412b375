"""Random modules that mix the features of WebAssembly 3.0 in one: vectors, tail calls, several memories and tables of
both widths, with pages of one byte, shared or not, atomic instructions, typed references in locals, tables, globals and
signatures, wide arithmetic, operators in constant expressions. Every other case is two modules, of which the second
imports functions, a memory and a table of the first, so that types are compared across modules.

With each case come binaries that engines may have to refuse: its modules for an engine with one proposal switched off,
and mutants of them. `python -m tests.differential mixed` compares.
"""

from __future__ import annotations

import ctypes
import math
import random
import re
import zlib
from typing import Any, Final, NamedTuple

from tests.fuzzing import mutate
from tests.generate import FUEL, NUMBERS, Body, ModuleMaker, arguments, bits
from tests.generate_memories import EDGE, MemoryBody, MemoryModuleMaker, Sizes, signed
from tests.generate_vectors import VectorBody, VectorModuleMaker
from wasmforge.binary import decode, encode
from wasmforge.binary.leb128 import encode_signed
from wasmforge.syntax.atomics import ATOMIC_INSTRUCTIONS, FENCE
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.features import ALL_FEATURES, Feature
from wasmforge.syntax.instructions import INSTRUCTIONS, opcode_bytes
from wasmforge.syntax.module import (
    DataSegment,
    ElementSegment,
    Export,
    Expression,
    Global,
    Import,
    Module,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import (
    CONCRETE,
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
    concrete_type,
    has_default,
    nullable,
    type_index,
    with_index,
)
from wasmforge.validation import validate

__all__ = ["Case", "MixedEngine", "MixedModuleMaker", "engine", "make_case"]

_OPCODES: Final = {row.mnemonic: row.opcode for row in INSTRUCTIONS}
_WIDE: Final = [row for row in INSTRUCTIONS if row.feature == Feature.WIDE_ARITHMETIC]
_ACCESSES: Final = [row for row in ATOMIC_INSTRUCTIONS if row[0] > FENCE]
_OTHERS: Final = [row for row in ATOMIC_INSTRUCTIONS if row[0] <= FENCE]
_KNOWN: Final = {I32: 3, I64: 1 << 33}
"""The values of the imported constants."""

SWITCHES: Final[dict[str, tuple[str, ...]]] = {
    "simd": ("simd", "relaxed_simd"),
    "relaxed_simd": ("relaxed_simd",),
    "tail_call": ("tail_call",),
    "multi_memory": ("multi_memory",),
    "memory64": ("memory64",),
    "threads": ("threads",),
    "function_references": ("function_references",),
    "wide_arithmetic": ("wide_arithmetic",),
    "custom_page_sizes": ("custom_page_sizes",),
}
"""What is switched off to refuse a proposal: itself and what needs it."""


class MixedBody(MemoryBody, VectorBody):
    """The body of one function."""

    made: MixedModuleMaker

    def __init__(self, made: MixedModuleMaker, index: int, ft: FuncType) -> None:
        super().__init__(made, index, ft)

    def statement(self, depth: int) -> bool:
        kind = self.r.random()
        if kind < 0.08:
            self.atomic()
        elif kind < 0.11:
            self.wide()
        elif kind < 0.14:
            self.global_reference()
        elif kind < 0.6:
            return Body.statement(self, depth)
        else:
            return super().statement(depth)
        self.budget -= 1
        return True

    def atomic(self) -> None:
        r = self.r
        number, mnemonic, params, results, size = r.choice(_ACCESSES if r.random() < 0.9 else _OTHERS)
        if number == FENCE:
            self.out += opcode_bytes(_OPCODES[mnemonic]) + b"\0"
            return
        x = r.randrange(len(self.made.memory_sizes))
        sizes = self.made.memory_sizes[x]
        if r.random() < EDGE:
            self.index_const(sizes.t, self.edge(sizes))
        else:
            self.value(sizes.t, 2)
            mask = (1 << max(sizes.minimum - 8, 1).bit_length() - 1) - 1
            self.op("i64.const" if sizes.t == I64 else "i32.const", encode_signed(mask & -size))
            self.op("i64.and" if sizes.t == I64 else "i32.and")
        for k, t in enumerate(params[1:]):
            if mnemonic.startswith("memory.atomic.wait"):
                # What waits must not wait for long: most memory is zero, and nobody notifies.
                self.index_const(t, r.choice((0, 0, 1, 1000) if k else (0, 0, 1)))
            else:
                self.value(t)
        offset = r.choice((0, 0, 0, 8, 16))
        if r.random() < EDGE / 2:
            offset = min(self.edge(sizes), (1 << 64) - 1 if sizes.t == I64 else (1 << 32) - 1)
        self.out += opcode_bytes(_OPCODES[mnemonic]) + bytes((0x40 | size.bit_length() - 1,))
        self.out += self.u(x) + self.u(offset)
        self.take(len(params))
        self.stack += results

    def wide(self) -> None:
        row = self.r.choice(_WIDE)
        assert row.params is not None and row.results is not None
        self.operands(row.params, 0)
        self.out += opcode_bytes(row.opcode)
        self.take(len(row.params))
        self.stack += row.results

    def global_reference(self) -> None:
        x, t = self.r.choice(self.made.reference_globals)
        if self.r.random() < 0.5:
            self.op("global.get", self.u(x))
            self.stack.append(t)
        else:
            self.value(t)
            self.op("global.set", self.u(x))
            self.take(1)

    def call(self) -> None:
        Body.call(self)

    def call_ref(self, mnemonic: str, ti: int) -> None:
        self.made.calls_references_last |= mnemonic == "return_call_ref"
        super().call_ref(mnemonic, ti)

    def call_indirect(self, mnemonic: str, ti: int) -> None:
        r = self.r
        for t in self.made.types[ti].params:
            self.value(t)
        tables = [x for x, t in enumerate(self.made.table_types) if t.element != EXTERNREF]
        # A table of another type than the call's is valid, and always traps.
        fitting = [x for x in tables if type_index(self.made.table_types[x].element) in (-1, ti)]
        x = r.choice(fitting if r.random() < 0.97 else tables)
        self.place(self.made.table_sizes[x])
        self.op(mnemonic, self.u(ti), self.u(x))
        self.stack.pop()


class MixedModuleMaker(MemoryModuleMaker, VectorModuleMaker):
    """A module of some functions, from a seed, which may import from another one's."""

    body: type[Body] = MixedBody
    plain_table = True
    calls_references_last = False
    """Whether it has a `return_call_ref`, which for Wasmtime belongs to the typed references, not to the tail calls."""

    def __init__(self, seed: int, functions: int = 3, library: MixedModuleMaker | None = None) -> None:
        super().__init__(seed, functions, references=True)
        r = self.r
        self.library = library
        own = range(1, len(self.types))
        self.function_imports: list[str] = []
        # A function of every type, so that there is a value of every type.
        self.functions = [0, *own, *(r.choice(own) for _ in range(functions))]
        self.memory_imports = [("host", f"m{x}") for x in range(self.imported)]
        self.table_imports: list[tuple[str, str]] = []
        if library is not None:
            self.link(library)
        self.count = len(self.functions)
        self.global_of = {t: len(_KNOWN) + k for k, t in enumerate(self.numbers)}
        self.fuel = len(_KNOWN) + len(self.numbers)
        for _ in range(r.randrange(3)):
            size = r.choice((4, 9))
            limits = Limits(size, size + r.choice((0, 3)))
            self.table_types.append(TableType(self.reference_type(), limits, r.random() < 0.5))
        self.reference_globals = [
            (self.fuel + 1 + k, t) for k, t in enumerate((FUNCREF, self.reference_type(), self.reference_type()))
        ]
        self.memory_sizes = [
            Sizes(t.minimum_bytes, (t.limits.maximum or 0) << t.page_size_log2, t.address_type)
            for t in self.memory_types
        ]
        self.table_sizes = [Sizes(t.limits.minimum, t.limits.maximum or 0, t.address_type) for t in self.table_types]
        elements = dict.fromkeys((FUNCREF, *(t.element for t in self.table_types)))
        self.segment_of = {t: k for k, t in enumerate(elements)}

    def link(self, library: MixedModuleMaker) -> None:
        """Takes over the types of a module and imports a function of each, and perhaps a memory and a table."""
        r = self.r
        shift = len(self.types) - 1
        self.types += [
            FuncType(tuple(shifted(t, shift) for t in ft.params), tuple(shifted(t, shift) for t in ft.results))
            for ft in library.types[1:]
        ]
        first = 1 + len(library.function_imports)
        imported = []
        for ti in range(1, len(library.types)):
            x = r.choice([x for x in range(first, library.count) if library.functions[x] == ti])
            self.function_imports.append(f"x{x}")
            imported.append(ti + shift)
        self.functions[1:1] = imported
        # Wasmtime 42 ends the process at a fault in a shared memory that two instances of a store have.
        if not library.memory_types[0].shared and r.random() < 0.6:
            self.memory_types.insert(0, library.memory_types[0])
            self.memory_imports.insert(0, ("library", "memory0"))
        if r.random() < 0.6:
            x = r.randrange(len(library.table_types))
            t = library.table_types[x]
            self.table_types.insert(0, TableType(shifted(t.element, shift), t.limits, t.is_64))
            self.table_imports.append(("library", f"table{x}"))

    def reference_type(self) -> ValType:
        r = self.r
        if r.random() < 0.15:
            return EXTERNREF
        return concrete_type(r.randrange(1, len(self.types)), r.random() < 0.6)

    def signature(self) -> FuncType:
        ft = super().signature()
        r = self.r
        if r.random() < 0.25 and len(self.types) > 1:
            ft = FuncType((*ft.params, r.choice((FUNCREF, self.reference_type()))), ft.results)
        if r.random() < 0.15 and len(self.types) > 1:
            ft = FuncType(ft.params, (*ft.results, r.choice((FUNCREF, self.reference_type()))))
        return ft

    def callable(self, x: int) -> bool:
        ft = self.types[self.functions[x]]
        return all(t in NUMBERS for t in ft.params + ft.results)

    def memory_type(self) -> MemoryType:
        t = super().memory_type()
        if self.r.random() < 0.25:
            t = MemoryType(t.limits, t.is_64, True, t.page_size_log2)
        return t

    def constant(self, t: ValType, value: int) -> Expression:
        """A constant expression, with operators or without."""
        r = self.r
        width = 64 if t == I64 else 32
        push, add, subtract = (0x42, 0x7C, 0x7D) if t == I64 else (0x41, 0x6A, 0x6B)
        kind = r.random()

        def const(number: int) -> bytes:
            return bytes((push,)) + encode_signed(signed(number, width))

        if kind < 0.4:
            code = const(value)
        elif kind < 0.7:
            part = r.getrandbits(width)
            code = const(value - part) + const(part) + bytes((add,))
        else:
            known = _KNOWN[t]
            code = b"\x23" + bytes((t == I64,)) + const(known - value) + bytes((subtract,))
        return Expression(code + b"\x0b")

    def reference(self, t: ValType) -> Expression:
        """A constant expression of a reference type."""
        r = self.r
        if t == EXTERNREF or (has_default(t) and nullable(t) and r.random() < 0.2):
            heap = encode_signed(type_index(t)) if t >= CONCRETE else bytes((t,))
            return Expression(b"\xd0" + heap + b"\x0b")
        same = [x for x, ti in enumerate(self.functions) if t == FUNCREF or ti == type_index(t)]
        return Expression(b"\xd2" + self.u(r.choice(same)) + b"\x0b")

    @staticmethod
    def u(value: int) -> bytes:
        from wasmforge.binary.leb128 import encode_unsigned

        return encode_unsigned(value)

    def elements(self) -> list[ElementSegment]:
        passive = [
            ElementSegment(SegmentMode.PASSIVE, t, 0, None, tuple(self.reference(t) for _ in range(6)), True)
            for t in self.segment_of
        ]
        everything = tuple(range(self.count))
        found = [*passive, ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, everything, False)]
        for x in range(len(self.table_imports), len(self.table_types)):
            t = self.table_types[x]
            items = tuple(self.reference(t.element) for _ in range(min(6, t.limits.minimum)))
            start = self.constant(t.address_type, 0)
            found.append(ElementSegment(SegmentMode.ACTIVE, t.element, x, start, items, True))
        return found

    def imports(self) -> list[Import]:
        return [
            Import("host", "f", ExternKind.FUNC, 0),
            *(
                Import("library", name, ExternKind.FUNC, self.functions[1 + k])
                for k, name in enumerate(self.function_imports)
            ),
            *(Import(*n, ExternKind.MEMORY, self.memory_types[x]) for x, n in enumerate(self.memory_imports)),
            *(Import(*n, ExternKind.TABLE, self.table_types[x]) for x, n in enumerate(self.table_imports)),
            *(Import("host", f"k{k}", ExternKind.GLOBAL, GlobalType(t, False)) for k, t in enumerate(_KNOWN)),
        ]

    def exports(self) -> list[Export]:
        return [
            *(Export(f"memory{x}", ExternKind.MEMORY, x) for x in range(len(self.memory_types))),
            *(Export(f"table{x}", ExternKind.TABLE, x) for x in range(len(self.table_types))),
            Export("fuel", ExternKind.GLOBAL, self.fuel),
            *(Export(f"g{k}", ExternKind.GLOBAL, self.global_of[t]) for k, t in enumerate(NUMBERS)),
            *(Export(f"x{x}", ExternKind.FUNC, x) for x in range(1, self.count)),
            *(Export(f"f{x}", ExternKind.FUNC, x) for x in range(1, self.count) if self.callable(x)),
        ]

    def make(self) -> bytes:
        first = 1 + len(self.function_imports)
        bodies = [self.body(self, x, self.types[self.functions[x]]).make() for x in range(first, self.count)]
        zero = {F32: b"\x43" + bytes(4), F64: b"\x44" + bytes(8), V128: b"\xfd\x0c" + bytes(range(16))}
        numbers = [
            Expression(zero[t] + b"\x0b") if t in zero else self.constant(t, self.r.getrandbits(16))
            for t in self.numbers
        ]
        own = self.table_types[len(self.table_imports) :]
        inits = [None if has_default(t.element) and self.r.random() < 0.6 else self.reference(t.element) for t in own]
        starts = [x for x in range(1, self.count) if self.types[self.functions[x]] == FuncType((), ())]
        data: list[DataSegment] = self.data()
        return encode(
            Module(
                types=self.types + self.block_types,
                imports=self.imports(),
                functions=self.functions[first:],
                tables=[Table(t, init) for t, init in zip(own, inits, strict=True)],
                memories=self.memory_types[len(self.memory_imports) :],
                globals=[
                    *(Global(GlobalType(t, True), n) for t, n in zip(self.numbers, numbers, strict=True)),
                    Global(GlobalType(I32, True), self.constant(I32, FUEL)),
                    *(Global(GlobalType(t, True), self.reference(t)) for _, t in self.reference_globals),
                ],
                exports=self.exports(),
                start=self.r.choice(starts) if starts else None,
                elements=self.elements(),
                data=data,
                data_count=len(data),
                code=bodies,
            )
        )


def shifted(t: ValType, shift: int) -> ValType:
    """A type of one module in another one, whose types are numbered differently but for the first."""
    return with_index(t, type_index(t) + shift) if type_index(t) > 0 else t


def has_bare_type_index(wasm: bytes) -> bool:
    """Whether the first thing wrong with a module is a type that is a bare type index. Wasmtime 42 takes it for a
    reference to that type; the specification has no such form (section 5.3.5)."""
    try:
        validate(decode(wasm), ALL_FEATURES)
    except WasmtimeError as error:
        return re.match("malformed (value|reference) type 0x[0-3]", str(error)) is not None
    return False


class Case(NamedTuple):
    """`modules` are instantiated one after the other; each of `doubtful` is a switched-off proposal, or "", and what an
    engine must accept or refuse without it."""

    modules: tuple[bytes, ...]
    doubtful: tuple[tuple[str, bytes], ...]
    functions: int


def make_case(seed: int) -> Case:
    r = random.Random(~seed)
    makers = [MixedModuleMaker(2 * seed)]
    modules = [makers[0].make()]
    if seed % 2:
        makers.append(MixedModuleMaker(2 * seed + 1, library=makers[0]))
        modules.append(makers[1].make())
    doubtful = []
    for maker, wasm in zip(makers, modules, strict=True):
        switched_off = r.choice(tuple(SWITCHES))
        if switched_off != "tail_call" or not maker.calls_references_last:
            doubtful.append((switched_off, wasm))
    mutants = [mutate(r.choice(modules), r) for _ in range(2)]
    doubtful += [("", mutant) for mutant in mutants if not has_bare_type_index(mutant)]
    functions = sum(maker.count - 1 - len(maker.function_imports) for maker in makers)
    return Case(tuple(modules), tuple(doubtful), functions)


class MixedEngine:
    """An implementation of the embedder's API, with a strategy."""

    def __init__(self, api: Any, **settings: Any) -> None:
        self.api = api
        self.settings = settings
        self.engine = self.without(())
        self.strict = {name: self.without(off) for name, off in SWITCHES.items()}
        self.strict[""] = self.engine

    def without(self, off: tuple[str, ...]) -> Any:
        """An engine that allows everything but some proposals."""
        config = self.api.Config()
        for name in sorted({*SWITCHES, "shared_memory", "relaxed_simd_deterministic", "gc", "exceptions"}):
            self.switch(config, name, name not in ("gc", "exceptions", *off))
        for name, value in self.settings.items():
            setattr(config, name, value)
        return self.api.Engine(config)

    def switch(self, config: Any, name: str, on: bool) -> None:
        attribute = name if name == "shared_memory" else f"wasm_{name}"
        if hasattr(self.api.Config, attribute):
            setattr(config, attribute, on)
        elif hasattr(self.api, "_bindings"):  # the package has the C function only
            getattr(self.api._bindings, f"wasmtime_config_{attribute}_set")(config.ptr(), on)
        else:
            assert not on  # a proposal that this project does not have

    def run(self, case: Case, seed: int, calls: int) -> list[Any]:
        """What the modules' functions do with some arguments, and what they leave behind."""
        outcomes: list[Any] = [self.accepts(*doubt) for doubt in case.doubtful]
        api = self.api
        store = api.Store(self.engine)
        modules = [api.Module(self.engine, wasm) for wasm in case.modules]
        instances: dict[str, Any] = {}
        for name, module in zip(("library", "program"), modules, strict=False):
            try:
                instance = api.Instance(store, module, [self.imported(store, instances, i) for i in module.imports])
            except api.WasmtimeError as error:
                return [*outcomes, (name, "no instance", self.reason(error))]
            except api.Trap as trap:
                return [*outcomes, (name, "no instance", self.reason(trap))]
            instances[name] = instance.exports(store)
        r = random.Random(seed)
        for name, module in zip(instances, modules, strict=True):
            for export in module.exports:
                if export.name[0] == "f" and isinstance(export.type, api.FuncType):
                    outcomes += self.calls(store, instances, name, export, r, calls)
            outcomes += self.left(store, instances[name], module)
        return outcomes

    def accepts(self, switched_off: str, wasm: bytes) -> tuple[str, str, bool]:
        try:
            self.api.Module.validate(self.strict[switched_off], wasm)
        except self.api.WasmtimeError:
            return ("accepts", switched_off, False)
        return ("accepts", switched_off, True)

    @staticmethod
    def reason(error: Exception) -> str:
        _, found, reason = str(error).rpartition("wasm trap: ")
        return reason.strip() if found else "error"

    def calls(self, store: Any, instances: Any, name: str, export: Any, r: random.Random, calls: int) -> list[Any]:
        outcomes = []
        types = [str(t) for t in export.type.params]
        for _ in range(calls):
            for exports in instances.values():
                exports["fuel"].set_value(store, self.api.Val.i32(FUEL))
            try:
                outcome = bits(instances[name][export.name](store, *arguments(r, types)))
            except self.api.Trap as trap:
                outcome = self.reason(trap)
            outcomes.append((name, export.name, outcome))
        return outcomes

    def left(self, store: Any, exports: Any, module: Any) -> list[Any]:
        outcomes: list[Any] = [(f"g{k}", bits(exports[f"g{k}"].value(store))) for k in range(len(NUMBERS))]
        for export in module.exports:
            if export.name.startswith("memory"):
                outcomes.append((export.name, *self.contents(store, exports[export.name])))
            elif export.name.startswith("table"):
                outcomes.append((export.name, exports[export.name].size(store)))
        return outcomes

    def contents(self, store: Any, memory: Any) -> tuple[int, int]:
        if isinstance(memory, self.api.SharedMemory):
            address, size = ctypes.cast(memory.data_ptr(), ctypes.c_void_p).value or 0, memory.data_len()
            return size, zlib.crc32(ctypes.string_at(address, size) if size else b"")
        contents = memory.read(store, 0, memory.data_len(store))
        return len(contents), zlib.crc32(contents)

    def imported(self, store: Any, instances: Any, i: Any) -> Any:
        """What is imported under a name."""
        api = self.api
        if i.module == "library":
            return instances["library"][i.name]
        if i.name[0] == "m":
            return api.SharedMemory(self.engine, i.type) if i.type.is_shared else api.Memory(store, i.type)
        if i.name[0] == "k":
            make = api.Val.i64 if i.name == "k1" else api.Val.i32
            return api.Global(store, i.type, make(_KNOWN[I64 if i.name == "k1" else I32]))
        return api.Func(store, i.type, host)


def host(a: int, b: int, c: float, d: float) -> list[Any]:
    mixed = (a * 31 + b) & 0xFFFF_FFFF
    return [mixed, 0.5 if math.isnan(c) or math.isnan(d) else float(mixed & 0xFF) + (1.0 if c < d else 0.0)]


def engine(name: str) -> MixedEngine:
    """An engine by name: `baseline`, `llvm`, `explicit` (baseline without guard pages) or `wasmtime`."""
    if name == "wasmtime":
        import wasmtime
        from wasmtime import _ffi

        def as_extern(memory: Any) -> Any:
            """What the package's own method should do, which takes a pointer too many."""
            union = _ffi.wasmtime_extern_union(sharedmemory=memory.ptr())
            return _ffi.wasmtime_extern_t(_ffi.WASMTIME_EXTERN_SHAREDMEMORY, union)

        wasmtime.SharedMemory._as_extern = as_extern  # type: ignore[assignment,method-assign]
        return MixedEngine(wasmtime)
    import wasmforge

    explicit = name == "explicit"
    strategy = "baseline" if explicit else name
    return MixedEngine(wasmforge, strategy=strategy, signals_based_traps=not explicit, cache=False)


assert issubclass(MixedModuleMaker, ModuleMaker)
