"""Vectors in the baseline compiler: the suite's scripts without AVX, the code that instructions become, and values of
16 bytes wherever values travel."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import wasmforge
from tests.compiler.baseline.compiling import compiler, disassemble, instructions
from tests.compiler.baseline.vector_modules import every_vector_instruction
from tests.wast.known_failures import known_failures
from tests.wast.suite import WHERE_TO_GET_IT, scripts, suite_folder
from wasmforge.binary import decode, encode
from wasmforge.compiler.target import host_level
from wasmforge.text import parse
from wasmforge.wast import Runner

ROOT = Path(__file__).parents[3]
FOLDER = suite_folder()
SCRIPTS = [n for n in scripts() if n.startswith("simd") and n not in known_failures()]
RELAXED = [n for n in scripts() if "relaxed" in n]
LEVELS = ("x86-64-v2", "x86-64-v3")


def code(text: str, level: str = "x86-64-v3") -> list[str]:
    """The instructions of the first function of a module, without prologue and epilogue."""
    made = compiler(decode(encode(parse(text))))
    made.context.has_avx = level == "x86-64-v3"
    lines = [line.partition(": ")[2] for line in instructions(made.compile_function(0).code)]
    lines = lines[lines.index("mov rbp, rsp") + 1 : -2]
    return [re.sub(r"\[rip.*?\]", "[rip]", line) for line in lines if not line.startswith("sub rsp")]


def function(params: str, results: str, body: str) -> str:
    return f"(module (memory 1) (func (param {params}) (result {results}) {body}))"


def baseline(**settings: object) -> wasmforge.Engine:
    config = wasmforge.Config()
    config.strategy = "baseline"
    config.cache = False
    for name, value in settings.items():
        setattr(config, name, value)
    return wasmforge.Engine(config)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compiles for a level of processors."""
    found: str = request.param
    if found > host_level():
        pytest.skip("this computer has no AVX2")
    monkeypatch.setattr("wasmforge.compiler.baseline.context.host_level", lambda: found)
    return found


# --- The suite ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(FOLDER is None, reason=WHERE_TO_GET_IT)
@pytest.mark.parametrize(
    ("name", "deterministic"), [*((n, False) for n in SCRIPTS), *((n, d) for n in RELAXED for d in (False, True))]
)
def test_scripts_without_avx(name: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_suite` runs them for this computer's level."""
    assert FOLDER is not None
    monkeypatch.setattr("wasmforge.compiler.baseline.context.host_level", lambda: "x86-64-v2")
    config = wasmforge.Config()
    config.strategy = "baseline"
    config.cache = False
    config.wasm_relaxed_simd_deterministic = deterministic
    result = Runner(config=config).run((FOLDER / name).read_bytes(), name)
    assert result.ok, "\n".join(f"line {f.line}: {f.reason}" for f in result.failures[:20])


# --- Code -----------------------------------------------------------------------------------------------------------


def test_avx_needs_no_copies() -> None:
    """An operand that is used again stays where it is; without AVX a copy is overwritten."""
    body = "(local.set 0 (v128.load (i32.const 0))) (i32x4.add (i32x4.sub (local.get 0) (local.get 1)) (local.get 0))"
    text = function("v128 v128", "v128", f"(loop {body} (drop) (br_if 0 (i32.const 0))) (local.get 0)")
    assert [line for line in code(text) if "sub" in line or "add" in line] == [
        "vpsubd xmm0, xmm8, xmm1",
        "vpaddd xmm0, xmm0, xmm8",
    ]
    at_least = code(text, "x86-64-v2")
    at = at_least.index("psubd xmm0, xmm1")
    assert at_least[at - 1 : at + 2] == ["movaps xmm0, xmm8", "psubd xmm0, xmm1", "paddd xmm0, xmm8"]


def test_results_go_where_the_next_instruction_assigns_them() -> None:
    body = "(loop (local.set 0 (i16x8.mul (local.get 0) (local.get 1))) (br_if 0 (i32.const 0))) (local.get 0)"
    found = code(function("v128 v128", "v128", body))
    assert [line for line in found if "mul" in line] == ["vpmullw xmm8, xmm8, xmm1"]


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        ("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", []),
        ("16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31", []),
        ("4 5 6 7 0 1 2 3 12 13 14 15 8 9 10 11", ["vpshufd"]),
        ("3 2 1 0 7 6 5 4 11 10 9 8 15 14 13 12", ["vpshufb"]),
        ("16 16 16 16 17 17 17 17 18 18 18 18 19 19 19 19", ["vpshufb"]),
        ("0 16 1 17 2 18 3 19 4 20 5 21 6 22 7 23", ["vpunpcklbw"]),
        ("24 25 8 9 26 27 10 11 28 29 12 13 30 31 14 15", ["vpunpckhwd"]),
        ("0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23", ["vpunpckldq"]),
        ("8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31", ["vpunpckhqdq"]),
        ("5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", ["vpalignr"]),
        ("29 30 31 0 1 2 3 4 5 6 7 8 9 10 11 12", ["vpalignr"]),
        ("0 1 18 19 4 5 22 23 8 9 26 27 28 29 14 15", ["vpblendw"]),
        ("4 5 6 7 0 1 2 3 20 21 22 23 28 29 30 31", ["vshufps"]),
        ("16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 0", ["vpshufb", "vpshufb", "vpor"]),
    ],
)
def test_shuffles_are_the_instruction_that_does_it(lanes: str, expected: list[str]) -> None:
    body = f"(i8x16.shuffle {lanes} (v128.load (i32.const 0)) (v128.load (i32.const 16)))"
    found = [line.split()[0] for line in code(function("", "v128", body))]
    moves = ("vmovups", "movaps", "mov", "movups")
    assert [m for m in found if m not in moves] == expected


def test_constants_are_folded() -> None:
    """A splat of a constant is a constant; one of zeros or ones needs no memory, others are operands in memory."""
    assert code(function("", "v128", "(i32x4.splat (i32.const 0))")) == ["xorps xmm0, xmm0"]
    assert code(function("", "v128", "(i64x2.splat (i64.const -1))")) == ["pcmpeqd xmm0, xmm0"]
    assert code(function("", "f32", "(f32x4.extract_lane 2 (f32x4.splat (f32.const 0)))")) == ["xorps xmm0, xmm0"]
    body = "(i8x16.add (v128.load (i32.const 0)) (i8x16.splat (i32.const 5)))"
    assert code(function("", "v128", body))[-1] == "vpaddb xmm0, xmm0, xmmword ptr [rip]"


def test_the_constant_behind_an_immediate() -> None:
    """The distance of an operand in memory counts from the end of the instruction, its immediate included."""
    body = "(f32x4.lt (v128.load (i32.const 0)) (v128.const f32x4 1 2 3 4))"
    made = compiler(decode(encode(parse(function("", "v128", body)))))
    made.context.has_avx = True
    machine = made.compile_function(0).code
    at = machine.index(bytes.fromhex("c205"))  # the opcode of cmpps, and rip as base
    distance = int.from_bytes(machine[at + 2 : at + 6], "little", signed=True)
    target = at + 7 + distance
    assert target % 16 == 0
    assert machine[target : target + 16] == bytes.fromhex("0000803f000000400000404000008040")


def test_lane_0_of_floats_is_free() -> None:
    body = (
        "(f64.add (f64x2.extract_lane 0 (v128.load (i32.const 0))) (f64x2.extract_lane 0 (v128.load (i32.const 16))))"
    )
    assert code(function("", "f64", body))[-2:] == ["vmovups xmm1, xmmword ptr [r10 + 0x10]", "addsd xmm0, xmm1"]


def test_conditions_stay_in_the_flags() -> None:
    body = "(if (result i32) (v128.any_true (v128.load (i32.const 0))) (then (i32.const 1)) (else (i32.const 2)))"
    found = [line.split()[0] for line in code(function("", "i32", body))]
    at = found.index("vptest")
    assert found[at + 1] == "je"


def test_the_table_is_made_for_the_first_function_with_vectors() -> None:
    """Modules without vectors do not pay for it at their start."""
    program = f"""
import sys
from tests.compiler.baseline.compiling import functions
def loaded():
    return any("baseline.vector_" in name for name in sys.modules)
functions("(module (func (result i32) (i32.const 1)))")
print(loaded())
functions({function("", "v128", "(v128.const i64x2 0 0)")!r})
print(loaded())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["False", "True"]


def test_functions_without_vectors_keep_their_frames() -> None:
    """Also in a module that has vectors elsewhere: a call or a global that gives none does not count."""
    body = """(func (param i32 i64) (result i64) (local f64)
      (call $k) (drop (global.get $h)) (block (result i64) (i64.add (local.get 1) (i64.extend_i32_u (local.get 0)))))
      (func $k) (global $h i32 (i32.const 0))"""
    with_vectors = "(global v128 (v128.const i64x2 1 2)) (func (result v128) unreachable)"
    assert code(f"(module {body} {with_vectors})") == code(f"(module {body})")


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("avx", [False, True])
def test_registers_suffice(avx: bool, deterministic: bool) -> None:
    """Every instruction where registers are scarce."""
    module = decode(encode(parse(every_vector_instruction())))
    made = compiler(module, relaxed_simd_deterministic=deterministic)
    made.context.has_avx = avx
    for index in range(len(module.code)):
        machine = made.compile_function(index).code
        assert any(" ret" in line for line in disassemble(machine))


@pytest.mark.parametrize(
    "source", ["(call $g)", "(call_indirect (type $t) (i32.const 0))", "(call_ref $t (ref.func $g))", "(global.get $v)"]
)
def test_vectors_without_vector_instructions(source: str) -> None:
    """What comes from elsewhere takes 16 bytes too: below a call it moves to its slot, whole."""
    text = f"""(module (type $t (func (result v128))) (table funcref (elem $g)) (global $v v128 (v128.const i64x2 1 2))
      (func {source} (call $k) drop) (func $g (type $t) unreachable) (func $k))"""
    assert any(re.fullmatch(r"movups xmmword ptr \[rbp - 0x[0-9a-f]+0\], xmm0", line) for line in code(text))


# --- Values ---------------------------------------------------------------------------------------------------------

TRAVELS = """(module
  (type $many (func (param v128 f32 v128 v128 f64 v128 v128 v128 v128 v128 i32 v128)
    (result v128 v128 v128 i32 v128)))
  (global $g (mut v128) (v128.const i32x4 1 2 3 4))
  (table funcref (elem $many $pick))
  (func $many (type $many)
    (local.get 0) (local.get 9) (i32x4.add (local.get 11) (local.get 8)) (local.get 10) (local.get 7))
  (func $pick (param i32 v128 v128) (result v128) (select (local.get 1) (local.get 2) (local.get 0)))
  (func (export "calls") (param v128 v128) (result v128 v128 v128 i32 v128)
    (call_indirect (type $many)
      (local.get 0) (f32.const 1) (local.get 1) (local.get 1) (f64.const 2) (local.get 1) (local.get 1)
      (local.get 1) (v128.const i32x4 7 7 7 7) (i32x4.splat (i32.const 9)) (i32.const 42) (local.get 0)
      (i32.const 0)))
  (func (export "globals") (param v128) (result v128) (local v128)
    (local.set 1 (global.get $g)) (global.set $g (local.get 0)) (local.get 1))
  (func (export "default") (result v128) (local i32 v128 f32 v128) (local.get 1) (local.get 3) i64x2.add)
  (func (export "table") (param i32 v128) (result v128)
    (block $a (result v128)
      (i32x4.neg
        (block $b (result v128)
          (i32x4.add (i32x4.splat (i32.const 100))
            (block $c (result v128) (local.get 1) (local.get 0) (br_table $c $b $a)))))))
  (func (export "deep") (param v128 i32) (result v128)
    (local.get 0) (i32x4.splat (local.get 1)) (i32x4.splat (i32.const 3))
    (block (result v128 v128)
      (local.get 0) (v128.const i64x2 5 5) (local.get 1) (br_if 0) (i64x2.add (v128.const i64x2 1 1)))
    (i64x2.add) (i64x2.add) (i64x2.add) (i64x2.add))
  (func (export "choose") (param i32) (result v128)
    (block (result v128 v128) (v128.const i32x4 1 1 1 1) (v128.const i32x4 2 2 2 2) (br 0))
    (local.get 0) (select))
  (func (export "through") (param v128) (result v128) (local v128 v128)
    (local.set 1 (local.get 0))
    (loop $l
      (local.set 2 (i8x16.add (local.get 2) (call $pick (i32.const 1) (local.get 1) (local.get 0))))
      (br_if $l (i32.eqz (v128.any_true (local.get 2)))))
    (local.get 2)))"""


def lanes(*numbers: int) -> bytes:
    return b"".join((n % (1 << 32)).to_bytes(4, "little") for n in numbers)


def test_vectors_travel(level: str) -> None:
    """As arguments and results in registers and in areas, in globals, tables of branches, slots, and selects."""
    engine = baseline()
    store = wasmforge.Store(engine)
    instance = wasmforge.Instance(store, wasmforge.Module(engine, TRAVELS), [])
    f = dict(instance.exports(store).items())
    a, b = lanes(1, 2, 3, 4), lanes(50, 60, 70, -1)
    assert f["calls"](store, a, b) == [a, lanes(9, 9, 9, 9), lanes(8, 9, 10, 11), 42, b]
    assert f["globals"](store, b) == a
    assert f["globals"](store, a) == b
    assert f["default"](store) == bytes(16)
    assert [f["table"](store, k, a) for k in (0, 1, 2)] == [lanes(-101, -102, -103, -104), lanes(-1, -2, -3, -4), a]
    one = lanes(1, 0, 0, 0)
    assert f["deep"](store, one, 1) == _sum(one, 1, False)
    assert f["deep"](store, one, 0) == _sum(one, 0, True)
    assert [f["choose"](store, k) for k in (0, 1)] == [lanes(2, 2, 2, 2), lanes(1, 1, 1, 1)]
    assert f["through"](store, b) == b


def _sum(first: bytes, splat: int, more: bool) -> bytes:
    """What `deep` adds up, in 64-bit lanes."""
    terms = [first, lanes(*[splat] * 4), lanes(3, 3, 3, 3), first, lanes(5, 0, 5, 0)]
    if more:
        terms.append(lanes(1, 0, 1, 0))
    halves = [sum(int.from_bytes(t[k : k + 8], "little") for t in terms) % (1 << 64) for k in (0, 8)]
    return b"".join(h.to_bytes(8, "little") for h in halves)


@pytest.mark.parametrize("pages", [True, False])
def test_accesses_trap_exactly(level: str, pages: bool) -> None:
    """Every load and store of vectors at the last place that is in bounds, and one byte behind."""
    sizes = {
        "v128.load": 16,
        "v128.store": 16,
        "v128.load32_zero": 4,
        "v128.load64_zero": 8,
        **{f"v128.load{shape}_{sign}": 8 for shape in ("8x8", "16x4", "32x2") for sign in "su"},
        **{f"v128.load{8 * n}_{what}": n for n in (1, 2, 4, 8) for what in ("splat", "lane")},
        **{f"v128.store{8 * size}_lane": size for size in (1, 2, 4, 8)},
    }
    functions = []
    for name in sizes:
        lane = " 0" if "lane" in name else ""
        operand = " (local.get 1)" if "lane" in name or "store" in name else ""
        access = f"({name} offset=3{lane} (local.get 0){operand})"
        body = access if "store" in name else f"(drop {access})"
        functions.append(f'(func (export "{name}") (param i32 v128) {body})')
    engine = baseline(signals_based_traps=pages)
    store = wasmforge.Store(engine)
    module = wasmforge.Module(engine, f"(module (memory 1) {' '.join(functions)})")
    exports = wasmforge.Instance(store, module, []).exports(store)
    for name, size in sizes.items():
        exports[name](store, 65536 - size - 3, bytes(16))
        for beyond in (65536 - size - 2, 65536, 0xFFFFFFFF):
            with pytest.raises(wasmforge.Trap, match="out of bounds memory access"):
                exports[name](store, beyond, bytes(16))
