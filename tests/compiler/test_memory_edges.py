"""Accesses at the edges of memories and tables trap exactly when a byte or an element does not exist (specification,
sections 4.4.7 and 4.4.8): both compilers, with guard pages and with explicit checks, addresses of 32 and 64 bits, pages
of one byte and of 64 KiB. What is expected comes from the sum of index, offset and size in Python's integers.

Threat: an access that is not checked, or checked with a sum that wraps, reads or writes memory of the process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import wasmforge
from wasmforge import Config, Engine, Instance, Module, Store, Trap

CONFIGURATIONS = [
    (strategy, signals) for strategy in ("baseline", "llvm") for signals in (True, False)
]  # each engine is made once: LLVM takes a second for a module
M32, M64 = 1 << 32, 1 << 64


class Shape(NamedTuple):
    """A kind of memory: how it is declared, the type of its addresses, its bytes."""

    text: str
    t: str
    size: int

    @property
    def space(self) -> int:
        return M64 if self.t == "i64" else M32


SHAPES = [
    Shape("(memory 1 2)", "i32", 65536),
    Shape("(memory i64 1 2)", "i64", 65536),
    Shape("(memory 0 2)", "i32", 0),
    Shape("(memory i64 0 2)", "i64", 0),
    Shape("(memory 4097 5000 (pagesize 1))", "i32", 4097),
    Shape("(memory i64 4097 5000 (pagesize 1))", "i64", 4097),
    Shape("(memory i64 5 (pagesize 1))", "i64", 5),
]
LOADS = {"i32.load8_u": 1, "i32.load16_u": 2, "i32.load": 4, "i64.load": 8, "f64.load": 8, "v128.load": 16}

_engines: dict[tuple[str, bool], Engine] = {}


@pytest.fixture(params=CONFIGURATIONS, ids=lambda c: f"{c[0]}-{'guard' if c[1] else 'explicit'}")
def engine(request: pytest.FixtureRequest) -> Engine:
    key: tuple[str, bool] = request.param
    if key not in _engines:
        config = Config()
        config.strategy, config.signals_based_traps = key
        config.wasm_custom_page_sizes = True
        _engines[key] = Engine(config)
    return _engines[key]


def thinned(engine: Engine, cases: list[Any]) -> list[Any]:
    """A third of the cases for LLVM, which takes seconds for what the baseline compiler does in milliseconds."""
    llvm = engine in (_engines.get(("llvm", True)), _engines.get(("llvm", False)))
    return cases[::3] if llvm else cases


def near(*places: int) -> list[int]:
    found = {place + delta for place in places for delta in (-17, -16, -9, -8, -7, -4, -3, -2, -1, 0, 1, 2, 3)}
    return sorted(x for x in found if x >= 0)


def signed(value: int, t: str) -> int:
    half = M64 // 2 if t == "i64" else M32 // 2
    return value - 2 * half if value >= half else value


def outcome(function: Any, store: Store, *arguments: int) -> object:
    """What a call gives: the result, or the number of the trap."""
    try:
        return function(store, *arguments)
    except Trap as trap:
        assert trap.trap_code is not None
        return trap.trap_code.name


def drop(load: str, address: str, x: int, offset: int) -> str:
    return f"(drop ({load} {x} offset={offset} {address}))"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.text)
def test_loads_and_stores_at_every_edge(engine: Engine, shape: Shape) -> None:
    """Index and offset near the size of the memory and near 2**31, 2**32, 2**63 and 2**64, both variable and constant.
    The memory is the second of its module, with a first one around that would swallow what goes wrong."""
    offsets = [k for k in (*near(0, shape.size), 1 << 25, (1 << 25) - 4, 1 << 31, M32 - 1) if k < M32]
    if shape.t == "i64":
        offsets += [M32, M32 + 8, 1 << 60, (1 << 60) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, M64 - 8, M64 - 1]
    offsets = thinned(engine, sorted(set(offsets)))
    functions = []
    for n, offset in enumerate(offsets):
        for load, size in LOADS.items():
            functions.append((f"l{n}_{size}_{load}", load, offset, size))
    texts = [
        f'(func (export "{name}") (param {shape.t}) {drop(load, "(local.get 0)", 1, offset)})'
        for name, load, offset, _ in functions
    ]
    texts += [
        f'(func (export "s{n}") (param {shape.t}) (i64.store 1 offset={offset} (local.get 0) (i64.const -1)))'
        for n, offset in enumerate(offsets)
    ]
    store = Store(engine)
    module = Module(engine, f'(module (memory 8 8) {shape.text} (export "m" (memory 1)) {" ".join(texts)})')
    x = Instance(store, module, []).exports(store)
    indices = [k for k in near(0, shape.size, 1 << 31, M32, shape.space // 2, shape.space) if k < shape.space]
    for name, _, offset, size in functions:
        function = x[name]
        for index in indices:
            fits = index + offset + size <= shape.size
            found = outcome(function, store, signed(index, shape.t))
            assert found == (None if fits else "MEMORY_OUT_OF_BOUNDS"), (name, hex(index), hex(offset), size)
    memory = x["m"]
    for n, offset in enumerate(offsets):
        for index in indices:
            fits = index + offset + 8 <= shape.size
            found = outcome(x[f"s{n}"], store, signed(index, shape.t))
            assert found == (None if fits else "MEMORY_OUT_OF_BOUNDS"), (hex(index), hex(offset))
            if fits:
                assert memory.read(store, index + offset, index + offset + 8) == b"\xff" * 8
                memory.write(store, bytes(8), index + offset)
    assert not any(memory.read(store, 0, None)), "an access that traps writes nothing"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.text)
def test_constant_indices(engine: Engine, shape: Shape) -> None:
    """Constant addresses within the least size of a memory need no check; all others have one."""
    indices = [k for k in near(0, shape.size, shape.space // 2, shape.space) if k < shape.space]
    cases = [
        (index, offset, size)
        for index in indices
        for offset in (0, 1, shape.size, M32 - 1 if shape.t == "i32" else M64 - 1)
        for size in (1, 8)
    ]
    cases = thinned(engine, cases)
    bodies = [
        f'(func (export "f{n}") '
        + drop("i32.load8_u" if size == 1 else "i64.load", f"({shape.t}.const {signed(index, shape.t)})", 0, offset)
        + ")"
        for n, (index, offset, size) in enumerate(cases)
    ]
    store = Store(engine)
    x = Instance(store, Module(engine, f"(module {shape.text} {' '.join(bodies)})"), []).exports(store)
    for n, (index, offset, size) in enumerate(cases):
        expected = None if index + offset + size <= shape.size else "MEMORY_OUT_OF_BOUNDS"
        assert outcome(x[f"f{n}"], store) == expected, (hex(index), hex(offset), size)


@pytest.mark.parametrize("strict", ["i32", "i64"])
def test_memory_that_grew(engine: Engine, strict: str) -> None:
    """The length is that of now, also in the function that grows the memory, and in an importing instance."""
    text = f"""(module (memory (export "m") {strict} 0 100 (pagesize 1))
      (func (export "grow") (param {strict}) (result {strict} i32)
        (memory.grow (local.get 0))
        (i32.load8_u (local.get 0)))
      (func (export "size") (result {strict}) memory.size))"""
    store = Store(engine)
    x = Instance(store, Module(engine, text), []).exports(store)
    importing = f"""(module (memory (import "a" "m") {strict} 0 100 (pagesize 1))
      (func (export "load") (param {strict}) (result i32) (i32.load8_u (local.get 0))))"""
    y = Instance(store, Module(engine, importing), [x["m"]]).exports(store)
    assert outcome(x["grow"], store, 0) == "MEMORY_OUT_OF_BOUNDS"
    for size in (1, 2, 3, 99):
        delta = size - x["size"](store)
        before = x["size"](store)
        trap = outcome(x["grow"], store, delta) == "MEMORY_OUT_OF_BOUNDS"
        assert trap == (delta >= size)
        assert x["size"](store) == size == before + delta
        assert outcome(y["load"], store, size - 1) == 0
        assert outcome(y["load"], store, size) == "MEMORY_OUT_OF_BOUNDS"
    assert x["grow"](store, 2) == [-1, 0], "the maximum is 100"


def test_bulk_ranges_wrap_nowhere(engine: Engine) -> None:
    """memory.copy, memory.fill and memory.init between memories of all kinds, ranges that end at, behind and far behind
    the size, and whose sums wrap at 2**64. A range that is too long traps before a byte is written."""
    shapes = [SHAPES[0], SHAPES[1], SHAPES[4], SHAPES[5]]
    parts = [shape.text for shape in shapes]
    for i, to in enumerate(shapes):
        parts.append(
            f'(func (export "fill{i}") (param {to.t} {to.t}) '
            f"(memory.fill {i} (local.get 0) (i32.const 7) (local.get 1)))"
            f'(func (export "init{i}") (param {to.t} i32 i32) '
            f"(memory.init {i} $d (local.get 0) (local.get 1) (local.get 2)))"
            f'(export "m{i}" (memory {i}))'
        )
        for k, origin in enumerate(shapes):
            n = "i64" if to.t == origin.t == "i64" else "i32"
            parts.append(
                f'(func (export "copy{i}{k}") (param {to.t} {origin.t} {n}) '
                f"(memory.copy {i} {k} (local.get 0) (local.get 1) (local.get 2)))"
            )
    store = Store(engine)
    x = Instance(store, Module(engine, f'(module {" ".join(parts)} (data $d "0123456789"))'), []).exports(store)

    def check(name: str, fits: bool, *arguments: tuple[int, str]) -> None:
        found = outcome(x[name], store, *(signed(value, t) for value, t in arguments))
        assert found == (None if fits else "MEMORY_OUT_OF_BOUNDS"), (name, arguments)

    def edges(shape: Shape) -> list[int]:
        places = (0, 1, shape.size - 3, shape.size, shape.size + 1, shape.space - 3, shape.space - 1)
        return [*places, shape.space // 2]

    for i, to in enumerate(shapes):
        for start in edges(to):
            for count in (0, 1, 3, 4, to.size, to.space - start if start else 0, to.space - 1):
                check(f"fill{i}", start + count <= to.size, (start, to.t), (count, to.t))
            for source, count in ((0, 0), (10, 0), (11, 0), (0, 3), (7, 3), (8, 3), (M32 - 1, 1), (1, M32 - 1)):
                fits = source + count <= 10 and start + count <= to.size
                check(f"init{i}", fits, (start, to.t), (source, "i32"), (count, "i32"))
            for k, origin in enumerate(shapes):
                n = "i64" if to.t == origin.t == "i64" else "i32"
                space = M64 if n == "i64" else M32
                for source in edges(origin):
                    for count in (0, 3, space - 1, (space - start) % space, (space - source) % space):
                        fits = start + count <= to.size and source + count <= origin.size
                        check(f"copy{i}{k}", fits, (start, to.t), (source, origin.t), (count, n))


def test_tables_of_64_bits(engine: Engine) -> None:
    """Every table instruction and call_indirect with indices of 64 bits, at the edges and between widths."""
    text = """(module (type $t (func (result i32)))
      (table $a i64 3 5 funcref) (table $b 3 5 funcref)
      (func $f (type $t) (i32.const 42)) (elem $e func $f $f)
      (func (export "get") (param i64) (drop (table.get $a (local.get 0))))
      (func (export "set") (param i64) (table.set $a (local.get 0) (ref.func $f)))
      (func (export "call") (param i64) (result i32) (call_indirect $a (type $t) (local.get 0)))
      (func (export "size") (result i64) (table.size $a))
      (func (export "grow") (param i64) (result i64) (table.grow $a (ref.null func) (local.get 0)))
      (func (export "fill") (param i64 i64) (table.fill $a (local.get 0) (ref.null func) (local.get 1)))
      (func (export "init") (param i64 i32 i32) (table.init $a $e (local.get 0) (local.get 1) (local.get 2)))
      (func (export "aa") (param i64 i64 i64) (table.copy $a $a (local.get 0) (local.get 1) (local.get 2)))
      (func (export "ab") (param i64 i32 i32) (table.copy $a $b (local.get 0) (local.get 1) (local.get 2)))
      (func (export "ba") (param i32 i64 i32) (table.copy $b $a (local.get 0) (local.get 1) (local.get 2))))"""
    store = Store(engine)
    x = Instance(store, Module(engine, text), []).exports(store)
    out = "TABLE_OUT_OF_BOUNDS"
    for index in (0, 2, 3, 4, M32, M32 + 1, 1 << 61, 1 << 63, M64 - 1):
        exists = index < 3
        assert outcome(x["get"], store, signed(index, "i64")) == (None if exists else out)
        assert outcome(x["call"], store, signed(index, "i64")) == ("INDIRECT_CALL_TO_NULL" if exists else out)
        assert outcome(x["set"], store, signed(index, "i64")) == (None if exists else out)
        if exists:
            assert x["call"](store, index) == 42
            x["fill"](store, index, 1)
        for count in (0, 1, 3, M64 - index if index else 0, M64 - 1):
            fits = index + count <= 3
            arguments = (signed(index, "i64"), signed(count, "i64"))
            assert outcome(x["fill"], store, *arguments) == (None if fits else out), arguments
            assert outcome(x["aa"], store, *arguments[::-1], 0) == (None if count <= 3 and index <= 3 else out)
            assert outcome(x["aa"], store, arguments[0], 0, arguments[1]) == (None if fits else out), arguments
            assert outcome(x["aa"], store, 0, *arguments) == (None if fits else out), arguments
        for count in (0, 1, 2, M32 - 1):
            fits = index + count <= 3
            arguments = (signed(index, "i64"), signed(count, "i32"))
            assert outcome(x["ab"], store, arguments[0], 0, arguments[1]) == (None if fits else out)
            assert outcome(x["ba"], store, 0, *arguments) == (None if fits else out)
            fits = fits and count <= 2
            assert outcome(x["init"], store, arguments[0], 0, arguments[1]) == (None if fits else out)
            x["fill"](store, 0, 3)
    for delta, expected in ((M64 - 1, -1), (1 << 63, -1), (M32, -1), (3, -1), (2, 3), (0, 5), (1, -1)):
        assert x["grow"](store, signed(delta, "i64")) == expected
    assert x["size"](store) == 5


def test_a_memory_beyond_four_gigabytes(engine: Engine) -> None:
    """A 64-bit memory grows past the index space of 32 bits in place; only pages that are touched cost anything."""
    text = """(module (memory (export "m") i64 1 0x20000)
      (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0)))
      (func (export "store") (param i64 i32) (i32.store8 offset=0x1_0000_0000 (local.get 0) (local.get 1)))
      (func (export "load") (param i64) (result i32) (i32.load8_u (local.get 0))))"""
    store = Store(engine)
    x = Instance(store, Module(engine, text), []).exports(store)
    view = x["m"].view(store)
    assert x["grow"](store, 0x10001) == 1
    assert x["m"].data_len(store) == 0x10002 << 16
    x["store"](store, 0x1FFFF, 9)
    assert x["load"](store, 0x1_0001_FFFF) == 9
    assert outcome(x["load"], store, 0x1_0002_0000) == "MEMORY_OUT_OF_BOUNDS"
    assert outcome(x["store"], store, 0x20000, 1) == "MEMORY_OUT_OF_BOUNDS"
    assert outcome(x["store"], store, -1, 1) == "MEMORY_OUT_OF_BOUNDS", "the sum would wrap to an address that exists"
    assert x["grow"](store, 0x10000) == -1, "the maximum"
    view[0] = 5
    assert x["load"](store, 0) == 5, "the base does not move"
    assert wasmforge.MemoryType(wasmforge.Limits(1, 0x20000), is_64=True) == x["m"].type(store)


@pytest.mark.parametrize("t", ["i32", "i64"])
def test_atomic_accesses_at_every_edge(engine: Engine, t: str) -> None:
    """What is not aligned traps as that, wherever it lies; `index + offset` is not cut short. For notify and
    wait alone, a sum beyond the index space comes before."""
    offsets = [0, 1, 4, 65528, 65533, M32 - 1, M32 - 8]
    if t == "i64":
        offsets += [(1 << 60) + 1, (1 << 60) + 8, (1 << 62) + 4, (1 << 63) + 2, 1 << 63, M64 - 8, M64 - 1]
    accesses = {"i32.atomic.load16_u": 2, "i64.atomic.load32_u": 4, "i64.atomic.load": 8, "memory.atomic.notify": 4}
    functions = []
    texts = []
    for n, offset in enumerate(offsets):
        for access, size in accesses.items():
            name = f"f{n}_{access.rpartition('.')[2]}"
            functions.append((name, offset, size))
            count = "(i32.const 0)" if "notify" in access else ""
            access = f"{access} offset={offset} (local.get 0) {count}"
            texts.append(f'(func (export "{name}") (param {t}) (drop ({access})))')
    store = Store(engine)
    module = Module(engine, f"(module (memory {t} 1 2) {' '.join(texts)})")
    x = Instance(store, module, []).exports(store)
    space = M64 if t == "i64" else M32
    for name, offset, size in functions:
        for index in (0, 1, 4, 8, 65528, 65535, 65536, space - 8, space - 1):
            fits = "MEMORY_OUT_OF_BOUNDS" if index + offset + size > 65536 else None
            expected = "HEAP_MISALIGNED" if (index + offset) % size else fits
            if name.endswith("_notify") and index + offset >= space:
                expected = "MEMORY_OUT_OF_BOUNDS"
            assert outcome(x[name], store, signed(index, t)) == expected, (name, hex(index), hex(offset), size)
