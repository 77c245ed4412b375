"""Vectors in the LLVM tier: every access traps exactly, floats are opaque, and the code is what the rows promise."""

from __future__ import annotations

import functools
import struct

import pytest

from wasmforge import Config, Engine, Func, Instance, Module, Store, Trap, WasmtimeError
from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow
from wasmforge.syntax.types import V128, VALUE_TYPES

PAGE = 65536
VECTORS = [row for row in INSTRUCTIONS if row.opcode >> 12 == 0xFD]
COMPUTING = [row for row in VECTORS if not row.access and row.params and V128 in row.params]
ACCESSES = [row for row in VECTORS if row.access]


@functools.cache
def engine(deterministic: bool = False) -> Engine:
    config = Config()
    config.wasm_relaxed_simd_deterministic = deterministic
    return Engine(config)


def instance(text: str, deterministic: bool = False) -> tuple[Store, dict[str, Func]]:
    store = Store(engine(deterministic))
    made = Instance(store, Module(store.engine, text), [])
    return store, {name: item for name, item in made.exports(store).items() if isinstance(item, Func)}


def immediates(row: InstructionRow) -> str:
    if Immediate.LANES in row.immediates:
        return " 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23"
    return " 0" if Immediate.LANE in row.immediates else ""


def test_no_load_of_sixteen_bytes_becomes_a_smaller_one() -> None:
    """x86 can fold a load into the instruction that consumes it, and some of these read eight bytes or fewer
    (pmovsxbw, cvtdq2pd, cvtps2pd, movddup). A load that reaches out of the memory traps all the same (4.6.8)."""
    functions = []
    uses = {
        f"{s}.extract_lane 0": t for s, t in (("i32x4", "i32"), ("i64x2", "i64"), ("f32x4", "f32"), ("f64x2", "f64"))
    }
    uses[""] = "v128"
    for row in COMPUTING:
        assert row.params is not None and row.results is not None
        for which in [k for k, t in enumerate(row.params) if t == V128]:
            operands = " ".join(
                ("(v128.load (local.get 0))" if k == which else "(v128.load (i32.const 0))")
                if t == V128
                else f"({VALUE_TYPES[t]}.const 1)"
                for k, t in enumerate(row.params)
            )
            expression = f"({row.mnemonic}{immediates(row)} {operands})"
            for use, result in uses.items():
                if row.results[0] != V128 and use:
                    continue
                shown = VALUE_TYPES[row.results[0]] if not use else result
                body = f"({use} {expression})" if use else expression
                name = f"{row.mnemonic} {which} {use}"
                functions.append(f'(func (export "{name}") (param i32) (result {shown}) {body})')
    store, exports = instance(f"(module (memory 1 1) {' '.join(functions)})")
    assert len(exports) > 600
    silent = []
    for name, function in exports.items():
        function(store, PAGE - 16)
        for address in (PAGE - 15, PAGE - 12, PAGE - 8, PAGE - 4, PAGE - 1):
            try:
                function(store, address)
                silent.append((name, PAGE - address))
            except Trap:
                pass
    assert "".join(sorted({name + "\n" for name, _ in silent})) == ""


def lanes(fmt: str, *values: float) -> bytes:
    return struct.pack("<" + fmt, *values)


def vector(bits: int, size: int) -> bytes:
    return bits.to_bytes(size, "little") * (16 // size)


QUIET = {"f32x4": (0x7FA00001, 0x7FC00000, 4), "f64x2": (0x7FF4000000000001, 0x7FF8000000000000, 8)}
"""A signalling NaN, the bits that quiet ones have, and bytes of a lane."""


@pytest.mark.parametrize("shape", ["f32x4", "f64x2"])
@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_identities_of_arithmetic_quieten_signalling_nans(shape: str, strategy: str) -> None:
    """x * 1, x - 0, x / 1, x + -0, -0 - x and their like give a quiet NaN for a signalling one (section 4.3.3), also
    where a compiler sees the constants: as literals, splats, shuffles, zero locals, converted integers, and lanes that
    the loads of one lane fill with zeros."""
    signalling, quiet, size = QUIET[shape]
    constant = {"f32x4": "f32x4 {0} {0} {0} {0}", "f64x2": "f64x2 {0} {0}"}[shape]
    scalar = shape[:3]
    ones = [f"(v128.const {constant.format(1)})", f"({shape}.splat ({scalar}.const 1))"]
    ones.append(
        "(f32x4.convert_i32x4_s (v128.const i32x4 1 1 1 1))"
        if shape == "f32x4"
        else "(f64x2.convert_low_i32x4_u (i32x4.splat (i32.const 1)))"
    )
    ones.append(
        f"(i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (v128.const {constant.format(1)}) "
        f"(v128.const {constant.format(1)}))"
    )
    zeros = [f"(v128.const {constant.format(0)})", "(local.get $zero)", "(v128.xor (local.get 0) (local.get 0))"]
    expressions = [f"({shape}.mul (local.get 0) {one})" for one in ones]
    expressions += [f"({shape}.div (local.get 0) {one})" for one in ones]
    expressions += [f"({shape}.sub (local.get 0) {zero})" for zero in zeros]
    expressions += [f"({shape}.add ({shape}.neg {zero}) (local.get 0))" for zero in zeros]
    expressions += [f"({shape}.{m} (local.get 0) (local.get 0))" for m in ("min", "max")]
    expressions += [f"({shape}.min (local.get 0) (v128.const {constant.format('inf')}))"]
    expressions += [f"({shape}.{m} (local.get 0))" for m in ("ceil", "floor", "trunc", "nearest", "sqrt")]
    functions = "".join(
        f'(func (export "f{k}") (param v128) (result v128) (local $zero v128) {e})' for k, e in enumerate(expressions)
    )
    config = Config()
    config.strategy = strategy
    store = Store(Engine(config))
    made = Instance(store, Module(store.engine, f"(module {functions})"), [])
    for k, expression in enumerate(expressions):
        function = made.exports(store)[f"f{k}"]
        assert isinstance(function, Func)
        result = int.from_bytes(function(store, vector(signalling, size))[:size], "little")
        # Which quiet NaN it is, is left open.
        assert result & quiet == quiet, expression


def test_what_is_narrowed_and_widened_again_quietens() -> None:
    """f32x4.demote of f64x2.promote is no identity: promotion quietens (section 4.3.3)."""
    store, exports = instance(
        """(module (func (export "f") (param v128) (result v128)
             (f32x4.demote_f64x2_zero (f64x2.promote_low_f32x4 (local.get 0)))))"""
    )
    assert exports["f"](store, vector(0x7FA00001, 4)) == lanes("4I", 0x7FE00001, 0x7FE00001, 0, 0)


RELAXED_EDGES = [
    ("i8x16.relaxed_swizzle", [bytes(range(100, 116)), bytes([15, 16, 17, 31, 32, 64, 127, 128, 129, 255, *range(6)])]),
    ("i32x4.relaxed_trunc_f32x4_s", [lanes("4f", float("nan"), 3e9, -3e9, -1.5)]),
    ("i32x4.relaxed_trunc_f32x4_u", [lanes("4f", float("nan"), 5e9, -5.0, 3e9)]),
    ("i32x4.relaxed_trunc_f64x2_s_zero", [lanes("2d", float("nan"), 3e9)]),
    ("i32x4.relaxed_trunc_f64x2_u_zero", [lanes("2d", -5.0, 5e9)]),
    ("f64x2.relaxed_madd", [lanes("2d", 1 + 2**-30, 2.0), lanes("2d", 1 + 2**-30, 3.0), lanes("2d", -1.0, 1.0)]),
    ("f64x2.relaxed_nmadd", [lanes("2d", 1 + 2**-30, 2.0), lanes("2d", 1 + 2**-30, 3.0), lanes("2d", 1.0, 1.0)]),
    ("i8x16.relaxed_laneselect", [bytes(16), bytes([255] * 16), bytes(range(112, 144, 2))]),
    ("i16x8.relaxed_laneselect", [bytes(16), bytes([255] * 16), bytes(range(112, 144, 2))]),
    ("i32x4.relaxed_laneselect", [bytes(16), bytes([255] * 16), bytes(range(112, 144, 2))]),
    ("i64x2.relaxed_laneselect", [bytes(16), bytes([255] * 16), bytes(range(112, 144, 2))]),
    ("f64x2.relaxed_min", [lanes("2d", 0.0, -0.0), lanes("2d", -0.0, 0.0)]),
    ("f64x2.relaxed_max", [lanes("2d", 0.0, -0.0), lanes("2d", -0.0, 0.0)]),
    ("i16x8.relaxed_q15mulr_s", [vector(0x8000, 2), vector(0x8000, 2)]),
    ("i16x8.relaxed_dot_i8x16_i7x16_s", [vector(0x80, 1), bytes([127, 127, 128, 128] * 4)]),
    ("i32x4.relaxed_dot_i8x16_i7x16_add_s", [vector(0x80, 1), bytes([127, 127, 128, 128] * 4), vector(5, 4)]),
]
DETERMINISTIC = [
    bytes([115, 0, 0, 0, 0, 0, 0, 0, 0, 0, *range(100, 106)]),
    lanes("4i", 0, 2**31 - 1, -(2**31), -1),
    lanes("4I", 0, 2**32 - 1, 0, 3_000_000_000),
    lanes("4i", 0, 2**31 - 1, 0, 0),
    lanes("4I", 0, 2**32 - 1, 0, 0),
    lanes("2d", 2**-29, 7.0),
    lanes("2d", -(2**-29), -5.0),
    *[bytes(b ^ 255 for b in range(112, 144, 2))] * 4,
    lanes("2d", -0.0, -0.0),
    lanes("2d", 0.0, 0.0),
    vector(0x7FFF, 2),
    lanes("8h", *[-2 * 128 * 127, 2**15 - 1] * 4),
    lanes("4i", *[-2 * 128 * 127 + 2**15 - 1 + 5] * 4),
]


def relaxed(strategy: str, deterministic: bool) -> list[bytes]:
    config = Config()
    config.strategy = strategy
    config.wasm_relaxed_simd_deterministic = deterministic
    store = Store(Engine(config))
    functions = []
    for name, operands in RELAXED_EDGES:
        gets = " ".join(f"(local.get {k})" for k in range(len(operands)))
        functions.append(f'(func (export "{name}") (param{" v128" * len(operands)}) (result v128) ({name} {gets}))')
    exports = Instance(store, Module(store.engine, f"(module {' '.join(functions)})"), []).exports(store)
    results = []
    for name, operands in RELAXED_EDGES:
        function = exports[name]
        assert isinstance(function, Func)
        results.append(function(store, *operands))
    return results


def test_both_compilers_make_the_same_choices() -> None:
    """A parameter of section 4.3.6 is fixed while a program runs, and a program may be compiled by both."""
    assert relaxed("llvm", False) == relaxed("baseline", False)


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_the_deterministic_profile(strategy: str) -> None:
    """Section 4.3.6 with every parameter 0: the strict instructions' results, and multiply-add with two roundings."""
    for (name, _), got, expected in zip(RELAXED_EDGES, relaxed(strategy, True), DETERMINISTIC, strict=True):
        assert got == expected, name


USES = [
    "(func (local v128))",
    "(func (param v128))",
    "(type (func (result v128)))",
    "(func block (result v128) unreachable end drop)",
    "(func (drop (i8x16.splat (i32.const 0))))",
    "(func (drop (select (result v128) (unreachable) (unreachable) (i32.const 0))))",
    "(global v128 (v128.const i32x4 0 0 0 0))",
    '(import "a" "b" (global v128))',
    "(func (unreachable) (v128.store))(memory 1)",
]


@pytest.mark.parametrize("use", USES)
def test_switched_off(use: str) -> None:
    """The error names the proposal and its setting."""
    config = Config()
    config.wasm_simd = False
    config.wasm_relaxed_simd = False
    with pytest.raises(WasmtimeError, match=r"vector instructions \(SIMD\) are switched off: .*wasm_simd = True"):
        Module(Engine(config), f"(module {use})")


def test_relaxed_switched_off() -> None:
    config = Config()
    config.wasm_relaxed_simd = False
    made = Engine(config)
    Module(
        made,
        "(module (func (result v128) (i8x16.swizzle (local.get 0) (local.get 0))) (func (param v128)))".replace(
            "(func (result v128)", "(func (param v128) (result v128)"
        ),
    )
    with pytest.raises(WasmtimeError, match=r"relaxed SIMD.* switched off: .*wasm_relaxed_simd = True"):
        Module(made, "(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))")


def test_relaxed_vectors_need_vectors() -> None:
    config = Config()
    config.wasm_simd = False
    with pytest.raises(WasmtimeError, match="cannot disable the simd proposal but enable the relaxed simd proposal"):
        Engine(config)


def test_an_image_for_a_richer_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 code must not run where there is none: it would end the process with SIGILL."""
    from wasmforge.compiler import target

    if target.host_level() == "x86-64-v2":
        pytest.skip("this processor is the poorest that there is")
    image = Module(engine(), "(module (func (result v128) (v128.const i64x2 1 2)))").serialize()
    monkeypatch.setattr(target, "_level", "x86-64-v2")
    with pytest.raises(WasmtimeError, match="needs a processor of level x86-64-v3, this one is x86-64-v2"):
        Module.deserialize(engine(), image)


INSTRUCTIONS_OF = {
    "i8x16.swizzle": ["vpaddusb", "vpshufb"],
    "i8x16.relaxed_swizzle": ["vpshufb"],
    "i8x16.narrow_i16x8_s": ["vpacksswb"],
    "i16x8.narrow_i32x4_u": ["vpackusdw"],
    "i8x16.bitmask": ["vpmovmskb"],
    "i32x4.bitmask": ["vmovmskps"],
    "i8x16.avgr_u": ["vpavgb"],
    "i16x8.extadd_pairwise_i8x16_u": ["vpmaddubsw"],
    "i32x4.dot_i16x8_s": ["vpmaddwd"],
    "i16x8.q15mulr_sat_s": ["vpmulhrsw", "vpcmpeqw", "vpxor"],
    "i16x8.extend_low_i8x16_s": ["vpmovsxbw"],
    "i64x2.extmul_low_i32x4_u": ["vpmovzxdq", "vpmovzxdq", "vpmuludq"],
    "f32x4.pmin": ["vminps"],
    "f64x2.pmax": ["vmaxpd"],
    "f32x4.nearest": ["vroundps"],
    "f32x4.relaxed_madd": ["vfmadd213ps"],
    "i8x16.relaxed_laneselect": ["vpblendvb"],
    "v128.bitselect": ["vandps", "vandnps", "vorps"],
    "f32x4.demote_f64x2_zero": ["vcvtpd2ps"],
    "f32x4.min": ["vminps", "vminps", "vorps", "vcmpunordps", "vaddps", "vblendvps"],
}
"""What LLVM makes of the rows where there is AVX2, from operands in registers."""


def test_the_machine_instructions() -> None:
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    from tests.compiler.machine import Machine
    from wasmforge.compiler import target

    if target.host_level() == "x86-64-v2":
        pytest.skip("this processor has no AVX2")
    rows = {row.mnemonic: row for row in COMPUTING}
    functions = []
    for name in INSTRUCTIONS_OF:
        params = rows[name].params
        results = rows[name].results
        assert params is not None and results is not None
        gets = " ".join(f"(local.get {k})" for k in range(len(params)))
        types = " ".join(VALUE_TYPES[t] for t in params)
        functions.append(f"(func (param {types}) (result {VALUE_TYPES[results[0]]}) ({name} {gets}))")
    machine = Machine(f"(module {' '.join(functions)})")
    text = bytes(machine.image.section(".text"))
    frame = {"push", "mov", "pop", "ret"}
    for k, (name, expected) in enumerate(INSTRUCTIONS_OF.items()):
        start, length = machine.info.function_range(k)
        code = Cs(CS_ARCH_X86, CS_MODE_64).disasm(text[start : start + length], 0)
        assert [i.mnemonic for i in code if i.mnemonic not in frame] == expected, name


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_a_trap_has_the_position_of_its_load(strategy: str) -> None:
    """Also where the load became part of the instruction that consumes it."""
    from wasmforge.binary import decode, encode, instructions
    from wasmforge.text import parse

    functions, names = [], []
    for row in COMPUTING:
        assert row.params is not None and row.results is not None
        if row.params.count(V128) < 2:
            continue
        addresses = iter(range(3))
        operands = " ".join(
            f"(v128.load (local.get {next(addresses)}))" if t == V128 else f"({VALUE_TYPES[t]}.const 1)"
            for t in row.params
        )
        names.append(row.mnemonic)
        functions.append(
            f'(func (export "{row.mnemonic}") (param i32 i32 i32) (result {VALUE_TYPES[row.results[0]]}) '
            f"({row.mnemonic}{immediates(row)} {operands}))"
        )
    wasm = encode(parse(f"(module (memory 1 1) {' '.join(functions)})"))
    module = decode(wasm)
    config = Config()
    config.strategy = strategy
    store = Store(Engine(config))
    exports = Instance(store, Module(store.engine, wasm), []).exports(store)
    for name, body in zip(names, module.code, strict=True):
        loads = [i.offset for i in instructions(body.code, body.offset) if i.row.mnemonic == "v128.load"]
        function = exports[name]
        assert isinstance(function, Func)
        for k, offset in enumerate(loads):
            with pytest.raises(Trap) as caught:
                function(store, *(PAGE - 8 if x == k else 0 for x in range(3)))
            assert caught.value.frames[0].module_offset == offset, (name, k)
