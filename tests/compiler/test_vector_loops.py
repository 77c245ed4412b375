"""Loops over streams, which the optimising compiler does for many elements at once: which loops are such, and that they
leave what they leave without it, in memory, in locals, at a trap. The baseline compiler, which knows nothing of it,
says what is right."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.compiler.test_golden_ir import translated
from tests.tiers import eager_config, promote
from wasmforge import Config, Engine, Instance, Module, Store, Trap
from wasmforge.compiler.llvm.streams import StreamLoop, find_stream_loop, signed
from wasmforge.syntax.types import F64, I32, ValType
from wasmforge.text import parse

PAGE = 65536


def stream_loop(body: str) -> StreamLoop | None:
    """What is found in a loop that has `body`, in a function with the parameters $a, $b, $n, $i, $f and $t."""
    module = parse(
        f"(module (memory 1) (memory $m2 1) (func (param $a i32) (param $b i32) (param $n i32) (param $i i32) "
        f"(param $f f64) (param $t f64) (loop {body})))"
    )
    types: list[ValType] = [I32, I32, I32, I32, F64, F64]
    return find_stream_loop(module.code[0].code, 2, types)


STEP_A = "(local.set $a (i32.add (local.get $a) (i32.const 8)))"
STEP_B = "(local.set $b (i32.add (local.get $b) (i32.const 8)))"
COUNT = "(br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))"
COPY = f"(f64.store (local.get $a) (f64.load (local.get $b))) {STEP_A} {STEP_B}"


STEP_BOTH = f"{STEP_A} {STEP_B}"
A, B, INDEX = "(local.get $a)", "(local.get $b)", "(local.get $i)"
B_8 = f"(i32.add {B} (i32.const 8))"
UNROLLED = f"""(f64.store {A} (f64.add (f64.load {A}) (f64.load {B})))
  (f64.store offset=8 {A} (f64.add (f64.load offset=8 {A}) (f64.load {B_8}))) {STEP_BOTH} {STEP_BOTH} {COUNT}"""
BYTES = f"""(i32.store8 (i32.add {A} {INDEX}) (i32.load8_u (i32.add {B} {INDEX})))
  (br_if 0 (i32.lt_u (local.tee $i (i32.add {INDEX} (i32.const 1))) (local.get $n)))"""
ARRAYS = f"""(i32.store offset=1024 (i32.shl {INDEX} (i32.const 2))
    (i32.load offset=8192 (i32.shl {INDEX} (i32.const 2))))
  (local.set $i (i32.add {INDEX} (i32.const 1))) (br_if 0 (i32.ne {INDEX} (local.get $n)))"""
TWO_STORES = f"""(f64.store {A} (local.tee $t (f64.mul (local.get $f) (f64.load {B}))))
  (f64.store offset=4096 {A} (local.get $t)) {STEP_BOTH} {COUNT}"""
SAME_ELEMENT = f"(f64.store {A} (f64.mul (f64.load {B}) (f64.load {INDEX}))) {STEP_BOTH} {COUNT}"
FILL = f"(f32.store {A} (f32.const 1)) (local.set $a (i32.add {A} (i32.const 4))) {COUNT}"


@pytest.mark.parametrize(
    ("body", "unrolled", "lanes"),
    [
        (f"{COPY} {COUNT}", 1, 4),
        (FILL, 1, 8),
        (UNROLLED, 2, 4),
        (BYTES, 1, 8),
        (ARRAYS, 1, 8),
        (SAME_ELEMENT, 1, 4),
    ],
    ids=["copy", "fill", "unrolled", "bytes", "arrays", "an element again and again"],
)
def test_loops_over_streams_are_found(body: str, unrolled: int, lanes: int) -> None:
    found = stream_loop(body)
    assert found is not None
    assert (found.unrolled, found.lanes) == (unrolled, lanes)


@pytest.mark.parametrize(
    "body",
    [
        f"(local.set $f (f64.add (local.get $f) (f64.load (local.get $a)))) {STEP_A} {COUNT}",
        f"(f64.store (local.get $a) (local.get $t)) (local.set $t (f64.load (local.get $b))) {STEP_A} {STEP_B} {COUNT}",
        f"(drop (f64.load (local.get $b))) (f64.store (local.get $a) (local.get $f)) {STEP_A} {STEP_B} {COUNT}",
        f"(f64.store offset=8 (local.get $a) (f64.load (local.get $a))) {STEP_A} {COUNT}",
        f"(f64.store {A} (local.get $f)) (f64.store {B} (f64.load {A})) {STEP_BOTH} {COUNT}",
        TWO_STORES,
        f"(f64.store (local.get $a) (f64.load $m2 (local.get $b))) {STEP_A} {STEP_B} {COUNT}",
        f"(f64.store (local.get $a) (f64.load (local.get $b))) {STEP_A} {STEP_A} {STEP_B} {COUNT}",
        f"(f64.store (local.get $a) (f64.load (i32.load (local.get $b)))) {STEP_A} {STEP_B} {COUNT}",
        f"{COPY} (br_if 0 (i32.load (local.get $b)))",
        f"{COPY} (br_if 0 (i32.eq (local.get $a) (local.get $n)))",
        f"{COPY} (br_if 0 (i32.gt_u (local.get $a) (local.get $n)))",
        f"{COPY} (br_if 0 (local.get $n))",
        f"{COPY} (br_if 1 (local.get $n)) {COUNT}",
        f"{COPY} (call 0 {A} {A} {A} {A} (local.get $f) (local.get $f)) {COUNT}",
        f"(if (local.get $i) (then (f64.store (local.get $a) (local.get $f)))) {STEP_A} {COUNT}",
        f"(i32.store (local.get $a) (local.get $a)) (local.set $a (i32.add (local.get $a) (i32.const 4))) {COUNT}",
    ],
    ids=[
        "a sum",
        "a value of the iteration before",
        "a load for nothing",
        "the next element",
        "what was stored is loaded",
        "two streams of a base",
        "two memories",
        "every second element",
        "an address from memory",
        "an exit by what was loaded",
        "an exit by equality",
        "an exit that comes by wrapping",
        "an exit that never comes",
        "two exits",
        "a call",
        "a condition",
        "the index is stored",
    ],
)
def test_other_loops_are_not_touched(body: str) -> None:
    assert stream_loop(body) is None


def test_bodies_that_double_their_values_take_no_time() -> None:
    doubled = "(local.set $t (f64.add (local.get $t) (local.get $t)))" * 90
    body = f"(local.set $t (f64.load (local.get $b))) {doubled} (f64.store (local.get $a) (local.get $t))"
    found = stream_loop(f"{body} {STEP_A} {STEP_B} {COUNT}")
    assert found is not None and len(found.nodes) < 110
    locals_ = "(param $a i32) (param $b i32) (param $n i32) (local $t f64)"
    run_in_both(f'(func (export "f") {locals_} (loop {body} {STEP_BOTH} {COUNT}))', [(0, 1024, 50)])


def test_vectors_stand_in_front_of_the_loop() -> None:
    text = translated(f"(func (param $a i32) (param $b i32) (param $n i32) (loop {COPY} {COUNT}))")
    assert "load <4 x double>" in text and "store <4 x double>" in text and "store volatile double" in text


# --- The same results -------------------------------------------------------------------------------------------


def engine(strategy: str, consume_fuel: bool = False) -> Engine:
    config = Config()
    config.strategy = strategy
    config.consume_fuel = consume_fuel
    config.cranelift_debug_verifier = True
    config.cache = False
    return Engine(config)


Call = tuple[str, tuple[Any, ...]]


def outcomes(strategy: str, text: str, calls: list[Call], contents: bytes) -> list[tuple[str, int, bytes]]:
    """What each call of an export returns or traps with, where it traps, and what it leaves in memory, which holds
    `contents` before."""
    store = Store(engine(strategy))
    memory = f'(memory (export "memory") {len(contents) // PAGE})'
    exports: Any = Instance(store, Module(store.engine, f"(module {memory} {text})"), []).exports(store)
    found = []
    for name, arguments in calls:
        exports["memory"].write(store, contents, 0)
        position = 0
        try:
            said = repr(exports[name](store, *arguments))
        except Trap as trap:
            said = f"{trap.trap_code} in {trap.frames[0].func_index}"
            position = trap.frames[0].module_offset
        found.append((said, position, bytes(exports["memory"].read(store, 0, len(contents)))))
    return found


def run_in_both(text: str, calls: list[tuple[Any, ...]], pages: int = 1) -> list[str]:
    """Compares calls of the export "f"."""
    contents = random.Random(1).randbytes(pages * PAGE)
    named = [("f", arguments) for arguments in calls]
    baseline, optimised = (outcomes(strategy, text, named, contents) for strategy in ("baseline", "llvm"))
    for arguments, a, b in zip(calls, baseline, optimised, strict=True):
        assert a[:2] == b[:2], arguments
        assert a[2] == b[2], (arguments, [k for k in range(len(a[2])) if a[2][k] != b[2][k]][:10])
    return [said for said, _, _ in baseline]


AXPY = f"""(func (export "f") (param $a i32) (param $b i32) (param $n i32) (result i32 i32 i32) (loop
  (i64.store (local.get $a) (i64.add (i64.load (local.get $a)) (i64.load (local.get $b)))) {STEP_A} {STEP_B} {COUNT})
  (local.get $a) (local.get $b) (local.get $n))"""


def test_attack_streams_at_the_edges_of_memory_and_of_the_index_space() -> None:
    """Threat: vectors that write or read beyond the end of the memory, or that are written before a trap, or behind the
    place where the loop would have trapped."""
    edges = [
        0,
        8,
        PAGE - 8 * 40,
        PAGE - 8 * 40 + 1,
        PAGE - 8 * 40 - 1,
        PAGE - 1,
        PAGE,
        -8,
        -8 * 39,
        -8 * 40,
        -(1 << 31),
    ]
    counts = [1, 8, 9, 10, 12, 13, 39, 40, 41, 0, -1, 1 << 29, 1 << 31]
    found = run_in_both(AXPY, [(a, b, n) for a in edges for b in (0, *edges[2:5], -8 * 40) for n in counts])
    assert sum("MEMORY" in said for said in found) > 100 and sum("MEMORY" not in said for said in found) > 100


def test_streams_that_overlap() -> None:
    calls = [(1024, 1024 + distance, n) for distance in range(-80, 81, 4) for n in (9, 30)]
    run_in_both(AXPY, [*calls, *[(b, a, n) for a, b, n in calls]])


def test_offsets_reach_beyond_the_index_space() -> None:
    """The sum of index and offset does not wrap, though the index does."""
    for offset in (8, PAGE - 400, (1 << 32) - 256, (1 << 32) - 1):
        text = AXPY.replace("i64.load (local.get $b)", f"i64.load offset={offset} (local.get $b)")
        run_in_both(
            text, [(0, b, n) for b in (0, 8, -8, -64, -256, signed(512 - offset)) for n in (5, 20, 33)], pages=2
        )


def test_fuel_is_counted_as_without_vectors() -> None:
    """What is left, and at which iteration there is none left."""
    wat = f'(module (memory (export "memory") 1) {AXPY})'
    cost = 20  # of an iteration
    contents = random.Random(1).randbytes(PAGE)
    seen = []
    for strategy in ("baseline", "llvm"):
        store = Store(engine(strategy, consume_fuel=True))
        exports: Any = Instance(store, Module(store.engine, wat), []).exports(store)
        found = []
        for fuel in (*range(30 * cost - 40, 30 * cost + 40), 1, 20 * cost, 28 * cost, 1 << 40):
            exports["memory"].write(store, contents, 0)
            store.set_fuel(fuel)
            try:
                said = repr(exports["f"](store, 0, 1024, 30))
            except Trap as trap:
                said = str(trap.trap_code)
            found.append((fuel, said, store.get_fuel(), bytes(exports["memory"].read(store, 0, PAGE))))
        seen.append(found)
    for a, b in zip(*seen, strict=True):
        assert a == b, (a[:3], b[:3])
    assert len({said for _, said, _, _ in seen[0]}) == 2
    assert seen[0][-1][2] == (1 << 40) - 30 * cost - 4


def test_hot_functions_get_vectors_too() -> None:
    """The pipeline for functions that are known to be hot, while the program runs."""
    config = eager_config()
    config.cranelift_debug_verifier = True
    store = Store(Engine(config))
    module = Module(store.engine, f'(module (memory (export "memory") 1) {AXPY})')
    exports: Any = Instance(store, module, []).exports(store)
    promote(module)
    contents = struct.pack("<200q", *range(200))
    exports["memory"].write(store, contents, 0)
    assert exports["f"](store, 0, 800, 51) == [408, 1208, 0]
    sums = [k + 100 + k for k in range(51)]
    assert list(struct.unpack("<51q", exports["memory"].read(store, 0, 408))) == sums


EXITS: dict[str, tuple[str, Callable[[int], tuple[int, int]]]] = {
    "ne": ("(i32.ne (local.get $i) (local.get $n))", lambda n: (0, n)),
    "lt_u": ("(i32.lt_u (local.get $i) (local.get $n))", lambda n: (0, n)),
    "lt_s": ("(i32.lt_s (local.get $i) (local.get $n))", lambda n: (-5, n - 5)),
    "le_u": ("(i32.le_u (local.get $i) (local.get $n))", lambda n: (7, n + 7)),
    "le_s": ("(i32.le_s (local.get $i) (local.get $n))", lambda n: (-n, -1)),
    "gt_u": ("(i32.gt_u (local.get $n) (local.get $i))", lambda n: (1, n)),
    "ge_s": ("(i32.ge_s (local.get $n) (local.get $i))", lambda n: (-3, n)),
}


@pytest.mark.parametrize("step", [1, 2, 3, -1, -4])
@pytest.mark.parametrize("name", EXITS)
def test_exits(name: str, step: int) -> None:
    """Also those that come when the counter has wrapped, or when memory ends."""
    condition, bounds = EXITS[name]
    if step < 0 and name[0] == "l":
        condition = condition.replace("lt", "gt").replace("le_", "ge_", 1)
    text = f"""(func (export "f") (param $a i32) (param $i i32) (param $n i32) (result i32 i32) (loop
      (i32.store16 (local.get $a) (i32.const -2)) (local.set $a (i32.add (local.get $a) (i32.const 2)))
      (local.set $i (i32.add (local.get $i) (i32.const {step}))) (br_if 0 {condition}))
      (local.get $a) (local.get $i))"""
    calls = []
    for n in (0, 1, 2, 17, 18, 19, 24, 40, 100):
        i, bound = bounds(n)
        calls += [(64, i, bound), (64, bound, i), (64, -i, -bound)]
    most, least = (1 << 31) - 1, -(1 << 31)
    calls += [
        (64, i, n) for i in (most - 40, least + 40, -40, 40) for n in (most, least, -1, 0, most - 3, least + 3, -3)
    ]
    run_in_both(text, calls)


# --- Loops by chance --------------------------------------------------------------------------------------------

LOADS = {
    "i32": [("i32.load", 4), ("i32.load8_u", 1), ("i32.load8_s", 1), ("i32.load16_u", 2), ("i32.load16_s", 2)],
    "i64": [("i64.load", 8), ("i64.load8_s", 1), ("i64.load16_u", 2), ("i64.load32_s", 4), ("i64.load32_u", 4)],
    "f32": [("f32.load", 4)],
    "f64": [("f64.load", 8)],
}
STORES = {
    "i32": [("i32.store", 4), ("i32.store8", 1), ("i32.store16", 2)],
    "i64": [("i64.store", 8), ("i64.store8", 1), ("i64.store16", 2), ("i64.store32", 4)],
    "f32": [("f32.store", 4)],
    "f64": [("f64.store", 8)],
}
INTEGER = ("add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u")
FLOAT = ("add", "sub", "mul", "div")


class Generator:
    """Makes loops that are over streams more often than not."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def function(self, number: int) -> str:
        rng = self.rng
        self.t = rng.choice(["i32", "i64", "f32", "f64"])
        self.unrolled = rng.choice([1, 1, 2, 4, 8])
        self.steps = {}
        store, size = rng.choice(STORES[self.t])
        expression = self.expression(rng.randrange(4))
        lines = [f"({store} {self.place('$p0', size, lane)} {expression(lane)})" for lane in range(self.unrolled)]
        if rng.random() < 0.2:
            self.steps["$p3"] = size * self.unrolled
            lines += [f"({store} {self.place('$p3', size, lane)} {expression(lane)})" for lane in range(self.unrolled)]
        if rng.random() < 0.2:
            rng.shuffle(lines)
        step = rng.choice([1, 1, 2, -1, 4])
        lines += [
            f"(local.set {p} (i32.add (local.get {p}) (i32.const {s if rng.random() < 0.97 else s + 1})))"
            for p, s in self.steps.items()
        ]
        lines.append(f"(local.set $i (i32.add (local.get $i) (i32.const {step})))")
        ordered = rng.choice(["lt_u", "lt_s", "le_u"] if step > 0 else ["gt_s", "ge_s", "gt_u"])
        lines.append(f"(br_if 0 (i32.{rng.choice(['ne', ordered])} (local.get $i) (local.get $n)))")
        self.last_step = step
        parameters = "".join(f"(param {p} i32)" for p in ("$p0", "$p1", "$p2", "$p3", "$i", "$n"))
        return (
            f'(func (export "f{number}") {parameters} (param $x {self.t}) (result i32 i32 i32 i32 i32) '
            f"(loop {' '.join(lines)}) {' '.join(f'(local.get {p})' for p in ('$p0', '$p1', '$p2', '$p3', '$i'))})"
        )

    def place(self, pointer: str, size: int, lane: int) -> str:
        """The offset and the address of an element, in one of the forms that compilers give it."""
        self.steps.setdefault(pointer, size * self.unrolled)
        distance = size * lane
        if self.rng.random() < 0.05:
            distance += self.rng.choice([-size, size, 1])
        split = self.rng.choice([0, distance, distance + 8, -8])
        offset = distance - split
        if offset < 0:
            split, offset = distance, 0
        address = f"(local.get {pointer})"
        if split:
            address = f"(i32.add {address} (i32.const {split}))"
        return f"offset={offset} {address}"

    def expression(self, depth: int) -> Callable[[int], str]:
        """What makes the text of the value of an element."""
        rng = self.rng
        t = self.t
        if depth == 0 or rng.random() < 0.2:
            kind = rng.randrange(6)
            if kind == 0:
                constant = rng.choice(["1", "-7", "100000"] if t[0] == "i" else ["1.5", "-0", "nan:0x200001", "inf"])
                return lambda lane: f"({t}.const {constant})"
            if kind == 1:
                return lambda lane: "(local.get $x)"
            load, size = rng.choice(LOADS[t])
            pointer = rng.choice(["$p0", "$p1", "$p2"])
            if pointer in self.steps and self.steps[pointer] != size * self.unrolled:
                pointer = "$n"  # a place that stays where it is
                return lambda lane: f"({load} (local.get $n))"
            return lambda lane: f"({load} {self.place(pointer, size, lane)})"
        first, second = self.expression(depth - 1), self.expression(depth - 1)
        operator = rng.choice(INTEGER if t[0] == "i" else FLOAT)
        return lambda lane: f"({t}.{operator} {first(lane)} {second(lane)})"

    def arguments(self) -> tuple[Any, ...]:
        rng = self.rng
        count = rng.choice([1, 3, 8, 9, 15, 16, 17, 31, 33, 64, rng.randrange(100)])
        near = rng.choice([1000, PAGE - rng.randrange(600), -rng.randrange(300)])
        pointers = [rng.choice([near + rng.randrange(-64, 64), rng.randrange(PAGE), 8 * k * 600]) for k in range(4)]
        if rng.random() < 0.5:
            pointers = [8 * k * 500 + rng.randrange(100) for k in range(4)]
        end = rng.choice([0, 40, -3, 2000, (1 << 31) - 1, -(1 << 31)])
        i = end - count * self.last_step + rng.choice([0, 0, 0, 1])
        x: Any = {"i32": -3, "i64": 1 << 40, "f32": 0.75, "f64": -1e300}[self.t]
        return (*pointers, signed(i), signed(end), x)


def compare(seed: int, functions: int) -> int:
    """Compares that many generated loops; returns how many are over streams."""
    generator = Generator(seed)
    texts = []
    calls: list[Call] = []
    for k in range(functions):
        texts.append(generator.function(k))
        calls += [(f"f{k}", generator.arguments()) for _ in range(8)]
    text = " ".join(texts)
    contents = struct.pack("<8192d", *[random.Random(k).uniform(-100, 100) for k in range(8192)])
    baseline, optimised = (outcomes(strategy, text, calls, contents) for strategy in ("baseline", "llvm"))
    for (name, arguments), a, b in zip(calls, baseline, optimised, strict=True):
        function = texts[int(name[1:])]
        assert a[0] == b[0], (seed, arguments, function)
        # Not where: LLVM may make one instruction of two accesses whose addresses were computed apart and are the same.
        same = a[2] == b[2] or canonical(a[2], function) == canonical(b[2], function)
        assert same, (seed, arguments, function)
    module = parse(f"(module (memory 1) {text})")
    loops = 0
    for k, code in enumerate(module.code):
        function_type = module.types[module.functions[k]]
        loops += find_stream_loop(code.code, code.code.index(b"\x03\x40") + 2, list(function_type.params)) is not None
    return loops


def canonical(contents: bytes, text: str) -> bytes:
    """Memory in which every NaN of the function's type is the same: which one an operation returns is open."""
    for name, size, exponent in (("f32", 4, 0x7F80_0000), ("f64", 8, 0x7FF0_0000_0000_0000)):
        if f"{name}.store" in text:
            # Elements may lie at any address: what looks like a NaN there is made one, in both.
            out = bytearray(contents)
            for at in range(len(out) - size + 1):
                bits = int.from_bytes(contents[at : at + size], "little")
                if bits & exponent == exponent and bits & ((exponent & -exponent) - 1):
                    out[at : at + size] = bytes(size)
            return bytes(out)
    return contents


@pytest.mark.parametrize("seed", range(12))
def test_generated_loops(seed: int) -> None:
    assert compare(seed, 40) > 5
