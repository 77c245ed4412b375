"""Every machine instruction that can trap maps to exactly the WebAssembly instruction that it came from, and lies
inside a full frame (rule 7 of the internal calling convention), checked by disassembling.

The generated functions give each load and store an offset of its own: it is the displacement in the machine
instruction, whatever LLVM folds, moves or merges, and so tells which instruction it really is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import capstone
import pytest

from wasmforge.binary import decode, encode, instructions
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import ADDRESS_MAP_SECTION, INFO_SECTION, TEXT_SECTION, TRAP_SECTION, Image
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.compiler.llvm import compile as compile_rooms
from wasmforge.compiler.llvm import compile_module
from wasmforge.compiler.tables import address_map, trap_table
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.features import DEFAULT_FEATURES
from wasmforge.syntax.module import Module
from wasmforge.text import parse
from wasmforge.validation import validate

FIRST_OFFSET = 0x10_0000
STEP = 0x8000  # further apart than any constant address, which LLVM adds to the offset

LOADS = ("i32.load", "i32.load8_s", "i32.load8_u", "i32.load16_s", "i32.load16_u")
WIDE_LOADS = ("i64.load", "i64.load8_u", "i64.load32_s", "i64.load32_u")
STORES = ("i32.store", "i32.store8", "i32.store16")
BINARY = ("add", "sub", "mul", "and", "or", "xor", "shl", "shr_u", "rotl", "eq", "lt_s", "ge_u")
FLOAT_BINARY = ("add", "sub", "mul", "div", "min", "copysign")


class Generator:
    """Random function bodies that use loaded values in every way that tempts x86 to fold the load."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.accesses = 0

    def offset(self) -> str:
        self.accesses += 1
        return f"offset={FIRST_OFFSET + STEP * self.accesses:#x}"

    def i32(self, depth: int) -> str:
        r = self.rng
        choice = r.randrange(12) if depth else r.randrange(3)
        if choice == 0:
            return f"(i32.const {r.choice((0, 1, 4, 32, 255, 65535, -1))})"
        if choice in (1, 2):
            return f"(local.get {r.randrange(4)})"
        if choice in (3, 4, 5, 6):
            return f"({r.choice(LOADS)} {self.offset()} {self.i32(depth - 1)})"
        if choice in (7, 8):
            return f"(i32.{r.choice(BINARY)} {self.i32(depth - 1)} {self.i32(depth - 1)})"
        if choice == 9:
            return f"(select {self.i32(depth - 1)} {self.i32(depth - 1)} {self.i32(depth - 1)})"
        if choice == 10:
            return f"(i32.wrap_i64 (i64.{r.choice(BINARY[:9])} {self.i64(depth - 1)} {self.i64(depth - 1)}))"
        return f"({r.choice(('i32.eqz', 'i32.clz', 'i32.popcnt', 'i32.extend8_s'))} {self.i32(depth - 1)})"

    def i64(self, depth: int) -> str:
        r = self.rng
        if depth and r.random() < 0.7:
            return f"({r.choice(WIDE_LOADS)} {self.offset()} {self.i32(depth - 1)})"
        return f"({r.choice(('i64.extend_i32_s', 'i64.extend_i32_u'))} {self.i32(depth)})"

    def f64(self, depth: int) -> str:
        r = self.rng
        choice = r.randrange(4) if depth else 0
        if choice == 0:
            return f"(f64.load {self.offset()} (local.get {r.randrange(4)}))"
        if choice == 1:
            return f"(f64.{r.choice(FLOAT_BINARY)} {self.f64(depth - 1)} {self.f64(depth - 1)})"
        if choice == 2:
            return f"(f64.promote_f32 (f32.load {self.offset()} {self.i32(depth - 1)}))"
        return f"(f64.convert_i32_s {self.i32(depth - 1)})"

    def statement(self, depth: int) -> str:
        r = self.rng
        choice = r.randrange(9) if depth else r.randrange(4)
        if choice in (0, 1):
            return f"(local.set {r.randrange(4)} {self.i32(3)})"
        if choice == 2:
            return f"({r.choice(STORES)} {self.offset()} {self.i32(2)} {self.i32(3)})"
        if choice == 3:
            return f"(f64.store {self.offset()} {self.i32(1)} {self.f64(2)})"
        if choice == 4:  # read, modify, write
            address = f"(local.get {r.randrange(4)})"
            value = f"(i32.load {self.offset()} {address})"
            return f"(i32.store {self.offset()} {address} (i32.{r.choice(BINARY)} {value} {self.i32(1)}))"
        if choice in (5, 6):
            then, otherwise = self.block(depth - 1), self.block(depth - 1)
            return f"(if {self.i32(2)} (then {then}) (else {otherwise}))"
        if choice == 7:
            return f"(block (loop {self.block(depth - 1)} (br_if 1 {self.i32(2)}) (br_if 0 {self.i32(2)})))"
        return f"(drop (i32.div_s {self.i32(2)} {self.i32(2)}))"

    def block(self, depth: int) -> str:
        return " ".join(self.statement(depth) for _ in range(self.rng.randrange(1, 5)))

    def module(self, functions: int) -> str:
        lines = ["(module (memory 1)"]
        signature = "(param i32 i32 i32 i32) (result i32)"
        lines += [f'(func (export "f{k}") {signature} {self.block(3)} {self.i32(3)})' for k in range(functions)]
        return "\n".join(lines) + ")"


@pytest.fixture(params=["speed", "hot"])
def pipeline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both pipelines: ahead of time, and for hot functions."""
    cut = compile_rooms._chunks

    def chunks(*arguments: object) -> list[compile_rooms.Chunk]:
        return [chunk._replace(pipeline=request.param) for chunk in cut(*arguments)]  # type: ignore[arg-type]

    monkeypatch.setattr(compile_rooms, "_chunks", chunks)


class Disassembly:
    """A compiled module, function by function."""

    def __init__(self, module: Module, tunables: Tunables | None = None, features: int = DEFAULT_FEATURES) -> None:
        image = Image(compile_module(module, validate(module, features), tunables or Tunables(), workers=1))
        self.info = CompiledModuleInfo.decode(image.section(INFO_SECTION))
        self.text = bytes(image.section(TEXT_SECTION))
        self.address_map = image.section(ADDRESS_MAP_SECTION)
        self.traps = image.section(TRAP_SECTION)
        self.disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.disassembler.detail = True

    def function(self, defined: int) -> list[capstone.CsInsn]:
        start, length = self.info.function_range(defined)
        return list(self.disassembler.disasm(self.text[start : start + length], start))

    def position(self, text_offset: int) -> int | None:
        return address_map.lookup(self.address_map, text_offset)


def with_positions(source: str) -> Module:
    """A module as it comes from a binary, so that bodies have offsets."""
    return decode(encode(parse(source)))


def accesses(code: list[capstone.CsInsn]) -> Iterator[tuple[capstone.CsInsn, int]]:
    """Instructions that touch memory, with the displacement of their operand."""
    for instruction in code:
        if instruction.mnemonic.startswith(("nop", "lea")):
            continue
        for operand in instruction.operands:
            if operand.type == capstone.x86.X86_OP_MEM:
                yield instruction, operand.mem.disp


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("seed", range(6))
def test_every_access_maps_to_its_instruction(seed: int) -> None:
    """Of the random accesses here, LLVM gives about one in two hundred the location of another load in the same
    expression, where it merges the widening of one with a use of both; none may lose its trap code, and none may be
    further off than that."""
    generator = Generator(seed)
    module = with_positions(generator.module(12))
    compiled = Disassembly(module)
    seen: set[int] = set()
    inexact = []
    for k, body in enumerate(module.code):
        expected = {}
        access_positions = set()
        for i in instructions(body.code, body.offset):
            if i.row.access:
                expected[i.immediates[0][2]] = (i.offset, i.row.mnemonic)
                access_positions.add(i.offset)
        for machine, displacement in accesses(compiled.function(k)):
            if displacement not in expected:
                continue
            seen.add(displacement)
            position, mnemonic = expected[displacement]
            what = f"{machine.mnemonic} {machine.op_str} in function {k} is {mnemonic}"
            assert trap_table.lookup(compiled.traps, machine.address) == TrapKind.MEMORY_OUT_OF_BOUNDS, what
            found = compiled.position(machine.address)
            assert found is not None and found in access_positions and abs(found - position) < 64, what
            if found != position:
                inexact.append(what)
    assert len(seen) > 0.5 * generator.accesses  # constant addresses hide the offset, dead code has none
    assert len(inexact) < 0.03 * len(seen), inexact


@pytest.mark.usefixtures("pipeline")
def test_frames_are_full_in_both_pipelines() -> None:
    module = with_positions(Generator(98).module(20))
    compiled = Disassembly(module)
    for k in range(len(module.code)):
        frames_are_full(compiled.function(k))


def frames_are_full(code: list[capstone.CsInsn]) -> None:
    assert [(i.mnemonic, i.op_str) for i in code[:2]] == [("push", "rbp"), ("mov", "rbp, rsp")]
    up = False
    for k, instruction in enumerate(code):
        if (instruction.mnemonic, instruction.op_str) == ("mov", "rbp, rsp"):
            up = True
        elif (instruction.mnemonic, instruction.op_str) == ("pop", "rbp"):
            up = False
        elif k and code[k - 1].mnemonic in ("ret", "jmp", "ud2"):
            up = True  # a block that is reached by a jump: all of them lie between prologue and epilogue
        touches = any(
            o.type == capstone.x86.X86_OP_MEM and o.mem.base not in (capstone.x86.X86_REG_RSP, capstone.x86.X86_REG_RIP)
            for o in instruction.operands
        )
        if (touches and not instruction.mnemonic.startswith(("nop", "lea"))) or instruction.mnemonic == "call":
            assert up, f"{instruction.mnemonic} {instruction.op_str} at {instruction.address:#x} outside of the frame"


@pytest.mark.parametrize("optimization", ["speed", "none"])
def test_accesses_and_calls_lie_inside_a_full_frame(optimization: str) -> None:
    module = with_positions(Generator(99).module(20))
    compiled = Disassembly(module, Tunables(optimization=optimization))
    for k in range(len(module.code)):
        frames_are_full(compiled.function(k))


CALLS = """(module
  (import "" "f" (func $imported (param i32) (result i32)))
  (type $t (func (param i32) (result i32)))
  (memory 1) (table 4 funcref) (elem declare func $own)
  (func $own (param i32) (result i32) local.get 0)
  (func (export "calls") (param i32 i64 f32 i32 i32 i32)  (result i32)
    (local.set 3 (call $own (local.get 0)))
    (local.set 3 (i32.add (local.get 3) (call $own (local.get 3))))
    (local.set 3 (i32.add (local.get 3) (call $imported (local.get 3))))
    (local.set 3 (i32.add (local.get 3) (call_indirect (type $t) (local.get 0) (i32.const 2))))
    (if (local.get 0) (then (drop (call $own (i32.const 1)))) (else (drop (call $own (i32.const 1)))))
    (drop (memory.grow (local.get 0)))
    (memory.copy (local.get 0) (local.get 0) (local.get 0))
    (memory.fill (local.get 0) (local.get 0) (local.get 0))
    (drop (table.grow (ref.null func) (local.get 0)))
    (table.set (local.get 0) (ref.func $own))
    (drop (i32.div_s (local.get 0) (local.get 3)))
    (drop (i32.div_s (local.get 3) (local.get 0)))
    (drop (i64.rem_u (local.get 1) (local.get 1)))
    (drop (i32.trunc_f32_s (local.get 2)))
    (if (local.get 4) (then unreachable))
    (if (local.get 5) (then unreachable))
    (local.get 3)))"""


@pytest.mark.usefixtures("pipeline")
def test_every_call_and_trap_maps_to_its_instruction() -> None:
    module = with_positions(CALLS)
    compiled = Disassembly(module)
    body = module.code[1]
    by_position = {i.offset: i.row.mnemonic for i in instructions(body.code, body.offset)}
    found = [
        compiled.position(i.address + i.size - 1)
        for i in compiled.function(1)
        if i.mnemonic == "call"
    ]  # fmt: skip
    assert None not in found
    names = sorted(by_position[p] for p in found if p is not None)
    expected = {
        "call": 5,
        "call_indirect": 4,  # bounds, null, signature, the call
        "memory.grow": 1,
        "memory.copy": 3,  # two ranges, the copy
        "memory.fill": 2,
        "table.grow": 1,
        "table.set": 1,
        "i32.div_s": 4,  # zero, overflow
        "i64.rem_u": 1,
        "i32.trunc_f32_s": 2,  # not a number, out of range
        "unreachable": 2,
    }
    assert names == sorted(name for name, count in expected.items() for _ in range(count))


@pytest.mark.parametrize(
    "body",
    [
        "(select (i64.load offset=0x100000 (local.get 0)) (i64.const 0) (i32.lt_u (local.get 1) (i32.const 111)))",
        "(select (i64.load offset=0x100000 (local.get 0)) (local.get 2) (i32.lt_u (local.get 1) (i32.const 111)))",
        "(select (local.get 2) (i64.load offset=0x100000 (local.get 0)) (local.get 1))",
    ],
)
def test_a_load_that_select_does_not_choose_still_happens(body: str) -> None:
    """Section 4.4.3, select: both operands are evaluated, so both may trap. LLVM's conversion of conditional moves to
    branches takes loads along, even volatile ones, unless it is told not to."""
    module = with_positions(f'(module (memory 1) (func (export "f") (param i32 i32 i64) (result i64) {body}))')
    code = Disassembly(module).function(0)
    load = next(i.address for i, displacement in accesses(code) if displacement == FIRST_OFFSET)
    assert not [i for i in code if i.mnemonic.startswith("j") and i.address < load]


def test_functions_do_not_reach_into_each_other() -> None:
    """Past the end of a function, and in trampolines, there is no instruction to report."""
    compiled = Disassembly(with_positions(CALLS))
    start, length = compiled.info.function_range(1)
    assert compiled.position(start) == compiled.info.function_offset(1) or compiled.position(start) is not None
    assert compiled.position(start - 1) is None or compiled.info.function_at(start - 1) == 0
    for trampolines in (compiled.info.array_to_wasm, compiled.info.wasm_to_array):
        for start, length in trampolines.values():
            for offset in range(start, start + length):
                assert compiled.position(offset) is None
                assert trap_table.lookup(compiled.traps, offset) is None
