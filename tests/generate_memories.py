"""Random modules for comparing engines and compilers, as `tests.generate`, with up to four memories and three tables a
module: 32 and 64 bits wide, with pages of one byte or 64 KiB, own and imported, and accesses at all edges: indices near
the size and near 2**32 and 2**64, offsets up to 2**64 - 1, ranges that wrap.

`python -m tests.differential memories` compares; engines as there, and `llvm-explicit`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tests.generate import LOADS, NUMBERS, STORES, Body, Engine, ModuleMaker, bits
from wasmforge.binary import encode
from wasmforge.binary.leb128 import encode_signed
from wasmforge.syntax.instructions import opcode_bytes
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
    EXTERNREF,
    FUNCREF,
    I32,
    I64,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
)

EDGE: Final = 0.06
"""How many accesses are at an edge; most of those trap, which ends the call."""


def signed(value: int, bits: int) -> int:
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


class Sizes(NamedTuple):
    """Bytes of a memory or elements of a table, at first and at most, and the type of its indices."""

    minimum: int
    maximum: int
    t: ValType


class MemoryBody(Body):
    """The body of one function."""

    made: MemoryModuleMaker

    def __init__(self, made: MemoryModuleMaker, index: int, ft: FuncType) -> None:
        super().__init__(made, index, ft)
        # The memories of the accesses being made: between its address and its immediates, an access may have another
        # one among its operands.
        self.targets: list[int] = []

    def index_const(self, t: ValType, value: int) -> None:
        width = 64 if t == I64 else 32
        self.op("i64.const" if t == I64 else "i32.const", encode_signed(signed(value, width)))
        self.stack.append(t)

    def edge(self, sizes: Sizes) -> int:
        """A number at an edge of the index space of a memory or table."""
        r = self.r
        near = r.choice((sizes.minimum, sizes.minimum, sizes.maximum, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 0))
        return max(near + r.choice((-16, -9, -8, -7, -4, -3, -2, -1, 0, 1, 2, 8)), 0)

    def place(self, sizes: Sizes) -> None:
        """Pushes an index, mostly one that exists."""
        r = self.r
        kind = r.random()
        if kind < EDGE:
            self.index_const(sizes.t, self.edge(sizes))
        elif kind < EDGE + 0.02:
            self.value(sizes.t, 2)
        elif kind < 0.3:
            self.index_const(sizes.t, r.randrange(max(sizes.minimum - 8, 1)))
        else:
            self.value(sizes.t, 2)
            mask = (1 << max(sizes.minimum - 8, 1).bit_length() - 1) - 1
            n = "i64" if sizes.t == I64 else "i32"
            self.op(f"{n}.const", encode_signed(mask))
            self.op(f"{n}.and")

    def address(self) -> None:
        target = self.r.randrange(len(self.made.memory_sizes))
        self.place(self.made.memory_sizes[target])
        self.targets.append(target)

    def memarg(self) -> bytes:
        target = self.targets.pop()
        sizes = self.made.memory_sizes[target]
        offset = self.r.choice((0, 0, 0, 1, 4, 7))
        if self.r.random() < EDGE / 2:
            offset = self.edge(sizes)
            if self.r.random() < 0.2:
                offset = self.r.choice((1 << 25, (1 << 25) - 4, 1 << 26, (1 << 60) - 1, 1 << 60, (1 << 62) + 5))
            offset = min(offset, (1 << 64) - 1 if sizes.t == I64 else (1 << 32) - 1)
        if target == 0 and self.r.random() < 0.9:
            return b"\0" + self.u(offset)
        return b"\x40" + self.u(target) + self.u(offset)

    def count(self, sizes: Sizes, t: ValType, most: int) -> None:
        """Pushes the length of a range."""
        r = self.r
        self.index_const(t, self.edge(sizes) if r.random() < EDGE / 2 else r.randrange(most))

    def bulk(self) -> None:
        r = self.r
        if r.random() < 0.5:
            self.memory_operation(r.randrange(6))
        elif r.random() < 0.9:
            self.table_operation(r.randrange(8))
        elif r.random() < 0.1:
            self.op("elem.drop", b"\1")

    def memory_operation(self, kind: int) -> None:
        r = self.r
        x = r.randrange(len(self.made.memory_sizes))
        y = r.randrange(len(self.made.memory_sizes))
        to, origin = self.made.memory_sizes[x], self.made.memory_sizes[y]
        if kind == 0:
            self.place(to)
            self.place(origin)
            narrow = I64 if to.t == I64 and origin.t == I64 else I32
            self.count(to, narrow, 9 if r.random() < 0.7 else 300)
            self.op("memory.copy", self.u(x), self.u(y))
            self.take(3)
        elif kind == 1:
            self.place(to)
            self.value(I32)
            self.count(to, to.t, 9 if r.random() < 0.7 else 300)
            self.op("memory.fill", self.u(x))
            self.take(3)
        elif kind == 2:
            self.place(to)
            self.index_const(I32, r.choice((0, 1, 50, 97, 100)))
            self.index_const(I32, r.choice((0, 1, 2, 3, 3, 50, 101) if r.random() < 0.2 else (0, 1, 3)))
            self.op("memory.init", b"\0", self.u(x))
            self.take(3)
        elif kind == 3:
            if r.random() < 0.05:
                self.op("data.drop", b"\0")
        elif kind == 4:
            self.op("memory.size", self.u(x))
            self.stack.append(to.t)
        else:
            page = self.made.memory_types[x].page_size_log2
            self.index_const(to.t, r.choice((0, 1, 1, 2, -1, 1 << 31, 1 << 48, 7 if page == 0 else 1)))
            self.op("memory.grow", self.u(x))

    def table_operation(self, kind: int) -> None:
        r = self.r
        x = r.randrange(len(self.made.table_sizes))
        element = self.made.table_types[x].element
        y = r.choice([y for y, t in enumerate(self.made.table_types) if t.element == element])
        to, origin = self.made.table_sizes[x], self.made.table_sizes[y]
        if kind == 0:
            self.place(to)
            self.place(origin)
            self.count(to, I64 if to.t == I64 and origin.t == I64 else I32, 4)
            self.op("table.copy", self.u(x), self.u(y))
            self.take(3)
        elif kind == 1:
            self.place(to)
            self.value(element)
            self.count(to, to.t, 4)
            self.op("table.fill", self.u(x))
            self.take(3)
        elif kind == 2:
            self.place(to)
            self.index_const(I32, r.choice((0, 1, 4, 6)))
            self.index_const(I32, r.choice((0, 1, 2, 2, 7)))
            self.op("table.init", self.u(self.made.segment_of[element]), self.u(x))
            self.take(3)
        elif kind == 3:
            self.op("table.size", self.u(x))
            self.stack.append(to.t)
        elif kind == 4:
            self.value(element)
            self.index_const(to.t, r.choice((0, 1, 1, -1, 1 << 31, 1 << 40)))
            self.op("table.grow", self.u(x))
            self.take(2)
            self.stack.append(to.t)
        elif kind == 5:
            self.place(to)
            self.op("table.get", self.u(x))
            self.stack[-1] = element
        elif kind == 6:
            self.place(to)
            self.value(element)
            self.op("table.set", self.u(x))
            self.take(2)
        else:
            self.value(r.choice((FUNCREF, EXTERNREF)))
            self.op("ref.is_null")
            self.stack[-1] = I32

    def statement(self, depth: int) -> bool:
        """More memory than anything else."""
        r = self.r
        kind = r.random()
        if kind < 0.15:
            row = r.choice(LOADS)
            assert row.results is not None
            self.address()
            self.take(1)
            self.out += opcode_bytes(row.opcode) + self.memarg()
            if all(t in NUMBERS for t in row.results) and "v128" not in row.mnemonic and "x" not in row.mnemonic:
                self.stack += row.results
            else:
                self.op("drop")
            return True
        if kind < 0.25:
            row = r.choice([s for s in STORES if "v128" not in s.mnemonic])
            assert row.params is not None
            self.address()
            self.value(row.params[1])
            if row.params[1] not in (I32, I64):
                self.canonical(row.params[1])
            self.out += opcode_bytes(row.opcode) + self.memarg()
            self.take(2)
            return True
        if kind < 0.35:
            self.bulk()
            return True
        return super().statement(depth)

    def call(self) -> None:
        if self.r.random() < 0.3:
            return self.call_through_table()
        made = self.made
        x = self.r.randrange(made.count)
        ft = made.types[made.functions[x]]
        for t in ft.params:
            self.value(t)
        self.op("call", self.u(x))
        self.take(len(ft.params))
        self.stack += ft.results
        return None

    def call_through_table(self) -> None:
        r = self.r
        made = self.made
        x = r.randrange(len(made.table_sizes))
        ti = r.randrange(len(made.types))
        ft = made.types[ti]
        for t in ft.params:
            self.value(t)
        self.place(made.table_sizes[x])
        self.op("call_indirect", self.u(ti), self.u(x))
        self.take(len(ft.params) + 1)
        self.stack += ft.results


class MemoryModuleMaker(ModuleMaker):
    """A module of some functions, from a seed."""

    plain_table = False
    segment_of: dict[ValType, int]
    """The passive element segments by type."""

    body: type[Body] = MemoryBody

    def __init__(self, seed: int, functions: int = 8, references: bool = False) -> None:
        super().__init__(seed, functions, references)
        r = self.r
        self.segment_of = {FUNCREF: 1}
        self.imported = r.choice((0, 0, 1, 2))
        self.memory_types = [self.memory_type() for _ in range(r.choice((1, 2, 2, 3, 4)) + self.imported)]
        self.table_types = [
            TableType(FUNCREF, Limits(size, size + r.choice((0, 2, 5))), r.random() < 0.5)
            for size in (10, r.choice((8, 12)), 9)[: r.choice((1, 2, 3))]
        ]
        self.memory_sizes = [
            Sizes(t.minimum_bytes, (t.limits.maximum or 0) << t.page_size_log2, t.address_type)
            for t in self.memory_types
        ]
        self.table_sizes = [Sizes(t.limits.minimum, t.limits.maximum or 0, t.address_type) for t in self.table_types]

    def memory_type(self) -> MemoryType:
        r = self.r
        if r.random() < 0.3:
            size = r.choice((0, 1, 9, 100, 4095, 4096, 4097, 65536, 70000))
            return MemoryType(Limits(size, size + r.choice((0, 1, 9, 5000))), r.random() < 0.5, False, 0)
        pages = r.choice((0, 1, 1, 1, 2))
        return MemoryType(Limits(pages, pages + r.choice((0, 1, 2))), r.random() < 0.5)

    def constant(self, t: ValType, value: int) -> Expression:
        return Expression((b"\x42" if t == I64 else b"\x41") + encode_signed(value) + b"\x0b")

    def data(self) -> list[DataSegment]:
        r = self.r
        found = [DataSegment(SegmentMode.PASSIVE, 0, None, bytes(range(100)))]
        for _ in range(r.randrange(4)):
            x = r.randrange(len(self.memory_types))
            sizes = self.memory_sizes[x]
            contents = bytes(r.randrange(1, 256) for _ in range(r.choice((0, 1, 5, 40))))
            contents = contents[: sizes.minimum]
            room = sizes.minimum - len(contents)
            offset = r.randrange(room + 1)
            if r.random() < 0.02:
                offset = r.choice((sizes.minimum, room + 1, -1, (1 << 31) - 1))
            found.append(DataSegment(SegmentMode.ACTIVE, x, self.constant(sizes.t, offset), contents))
        return found

    def make(self) -> bytes:
        r = self.r
        zero = {t: Expression(code + b"\x0b") for t, code in zip(NUMBERS, ZEROS, strict=True)}
        bodies = [self.body(self, x, self.types[self.functions[x]]).make() for x in range(1, self.count)]
        items = tuple(r.randrange(self.count) for _ in range(6))
        memories = range(len(self.memory_types))
        module = Module(
            types=self.types + self.block_types,
            imports=[
                Import("host", "f", ExternKind.FUNC, 0),
                *(Import("host", f"m{x}", ExternKind.MEMORY, self.memory_types[x]) for x in range(self.imported)),
            ],
            functions=self.functions[1:],
            tables=[Table(t) for t in self.table_types],
            memories=self.memory_types[self.imported :],
            globals=[Global(GlobalType(t, True), zero[t]) for t in (*NUMBERS, I32)],
            exports=[
                *(Export(f"memory{x}", ExternKind.MEMORY, x) for x in memories),
                Export("fuel", ExternKind.GLOBAL, self.fuel),
                *(Export(f"g{k}", ExternKind.GLOBAL, k) for k in range(len(NUMBERS))),
                *(Export(f"f{x}", ExternKind.FUNC, x) for x in range(1, self.count)),
            ],
            elements=[
                ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, self.constant(self.table_sizes[0].t, 0), items, False),
                ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, items, False),
                ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, tuple(range(self.count)), False),
            ],
            data=self.data(),
            code=bodies,
        )
        module.data_count = len(module.data)
        return encode(module)


ZEROS: Final = (b"\x41\x00", b"\x42\x00", b"\x43" + bytes(4), b"\x44" + bytes(8))


class MemoryEngine(Engine):
    """Runs such modules: imports whatever memories they want, compares all memories afterwards."""

    def run(self, wasm: bytes, seed: int, calls: int) -> list[Any]:
        import random

        from tests.generate import FUEL, arguments

        api = self.api
        store = api.Store(self.engine)
        module = api.Module(self.engine, wasm)
        imports = [self.host(store) if isinstance(i.type, api.FuncType) else api.Memory(store, i.type)
                   for i in module.imports]  # fmt: skip
        try:
            instance = api.Instance(store, module, imports)
        except (api.Trap, api.WasmtimeError) as error:
            return [("no instance", error.trap_code.name if isinstance(error, api.Trap) else "error")]
        exports = instance.exports(store)
        r = random.Random(seed)
        outcomes: list[Any] = []
        for export in module.exports:
            if not isinstance(export.type, api.FuncType):
                continue
            types = [str(t) for t in export.type.params]
            for _ in range(calls):
                exports["fuel"].set_value(store, api.Val.i32(FUEL))
                try:
                    outcome = bits(exports[export.name](store, *arguments(r, types)))
                except api.Trap as trap:
                    outcome = trap.trap_code.name if trap.trap_code is not None else str(trap)
                outcomes.append((export.name, outcome))
        outcomes.extend((f"global {k}", bits(exports[f"g{k}"].value(store))) for k in range(len(NUMBERS)))
        for export in module.exports:
            if export.name.startswith("memory"):
                memory = exports[export.name]
                contents = memory.read(store, 0, memory.data_len(store))
                outcomes.append((export.name, memory.size(store), hash(bytes(contents))))
        return outcomes

    def host(self, store: Any) -> Any:
        api = self.api
        v = api.ValType

        def mix(a: int, b: int, c: float, d: float) -> list[Any]:
            mixed = (a * 31 + b) & 0xFFFF_FFFF
            return [mixed, float(mixed & 0xFF) + (1.0 if c < d else 0.0)]

        return api.Func(store, api.FuncType([v.i32(), v.i64(), v.f32(), v.f64()], [v.i64(), v.f64()]), mix)


def engines(*names: str) -> dict[str, Engine]:
    """Engines by name: `baseline`, `llvm`, `explicit` and `llvm-explicit` (without guard pages), or `wasmtime`."""
    found: dict[str, Engine] = {}
    for name in names:
        if name == "wasmtime":
            import wasmtime
            from wasmtime import _bindings

            found[name] = engine = MemoryEngine(wasmtime)
            config = wasmtime.Config()
            # The C interface has this knob, the package's Config does not.
            _bindings.wasmtime_config_wasm_custom_page_sizes_set(config.ptr(), True)
            engine.engine = wasmtime.Engine(config)
        else:
            import wasmforge

            strategy = "baseline" if name == "explicit" else name.partition("-")[0]
            found[name] = MemoryEngine(
                wasmforge,
                strategy=strategy,
                signals_based_traps="explicit" not in name,
                wasm_custom_page_sizes=True,
                cache=False,
            )
    return found
