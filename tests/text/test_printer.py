"""The printer (specification, chapter 6): what it prints, and that the parser reads the same module again."""

# ruff: noqa: E501, ISC004 (texts of modules)
from __future__ import annotations

import pytest

from tests.building import rich_module
from tests.text.abbreviations import ABBREVIATIONS
from wasmforge.binary import decode, encode, encode_instruction
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow, Opcode
from wasmforge.syntax.module import FunctionBody, Module
from wasmforge.syntax.types import EXTERNREF, I32, FuncType
from wasmforge.text import parse, print_module


def again(text: str) -> None:
    binary = encode(parse(text))
    printed = print_module(decode(binary))
    assert encode(parse(printed)) == binary, printed


def test_the_look_of_it() -> None:
    text = print_module(
        parse("""
        (module $m
          (import "env" "log" (func $log (param i32)))
          (memory (export "memory") 1 2)
          (global $g (mut f32) (f32.const 0.1))
          (func $f (export "f") (param $x i32) (param i64 i64) (result i32) (local $y i32) (local f64)
            (block $out (result i32)
              (loop $again
                (br_if $again (i32.eqz (local.tee $y (i32.load offset=8 align=1 (local.get $x)))))
                (br_table $again $out 2 (i32.const 7) (local.get $y)))
              (f32.const nan:0x200000) drop unreachable))
          (data (i32.const 16) "a\\"\\\\\\00ä"))
        """)
    )
    assert (
        text
        == """\
(module $m
  (type (;0;) (func (param i32)))
  (type (;1;) (func (param i32 i64 i64) (result i32)))
  (import "env" "log" (func $log (;0;) (type 0)))
  (memory (;0;) 1 2)
  (global $g (;0;) (mut f32) f32.const 0.1)
  (export "memory" (memory 0))
  (export "f" (func $f))
  (func $f (;1;) (type 1) (param $x i32) (param i64 i64) (result i32)
    (local $y i32) (local f64)
    block $out (result i32)
      loop $again
        local.get $x
        i32.load offset=8 align=1
        local.tee $y
        i32.eqz
        br_if $again
        i32.const 7
        local.get $y
        br_table $again $out 2
      end
      f32.const nan:0x200000
      drop
      unreachable
    end
  )
  (data (;0;) (offset i32.const 16) "a\\22\\5c\\00\\c3\\a4")
)
"""
    )


@pytest.mark.parametrize("name", ABBREVIATIONS)
def test_there_and_back(name: str) -> None:
    again(ABBREVIATIONS[name][0])


@pytest.mark.parametrize(
    "row",
    [r for r in INSTRUCTIONS if r.opcode not in (Opcode.BLOCK, Opcode.LOOP, Opcode.IF, Opcode.ELSE, Opcode.END)],
    ids=lambda r: f"{r.mnemonic}-{r.opcode:x}",
)
def test_every_instruction_is_printed_and_read_with_its_immediates(row: InstructionRow) -> None:
    """Every index is different from the others and from 0, so that none can be lost or change places."""
    immediates = _DIFFERENT.get(row.immediates) or tuple(_VALUES[kind] for kind in row.immediates)
    code = encode_instruction(row, immediates) + b"\x0b"
    module = Module(types=[FuncType((), ())], functions=[0], code=[FunctionBody((), code)], data_count=None)
    assert parse(print_module(module)).code[0].code == code


_VALUES = {
    **dict.fromkeys(Immediate, 3),
    Immediate.LABEL_TABLE: (3, 1, 2),
    Immediate.MEMARG: (0, 5, 7),
    Immediate.I32_CONST: -(2**31),
    Immediate.I64_CONST: -(2**63),
    Immediate.F32_CONST: 0xFF800001,
    Immediate.F64_CONST: 0x7FF4000000000000,
    Immediate.REF_TYPE: EXTERNREF,
    Immediate.SELECT_TYPES: (I32, EXTERNREF),
    Immediate.LANES: bytes(range(20, 4, -1)),
    Immediate.ORDERING: 0,
    Immediate.V128_CONST: 0x7FC00000_80000001_00000002_FFFFFFFF,
}
_DIFFERENT = {
    (Immediate.TYPE, Immediate.TABLE): (0, 4),
    (Immediate.ELEM, Immediate.TABLE): (3, 4),
    (Immediate.DATA, Immediate.MEMORY): (3, 4),
    (Immediate.TABLE, Immediate.TABLE): (3, 4),
    (Immediate.MEMORY, Immediate.MEMORY): (3, 4),
}


def test_a_module_with_everything() -> None:
    module = rich_module()
    module.data_count = None  # the text has one only where an instruction needs it
    binary = encode(module)
    assert encode(parse(print_module(decode(binary)))) == binary


@pytest.mark.parametrize(
    "text",
    [
        '(func $f) (func (@name "f")) (func (@name "")) (func (call $f) (call 1) (call 2))',
        '(func $"a b" (call $"a b")) (func $"\\u{202e}" (call $"\\u{202e}")) (func $"\\"\\\\" (call 2))',
        '(module (@name ""))',
        '(module $"m m")',
        '(func (param (@name "x") i32) (param $y (@name "x") i32) (local (@name "") i32) (local.get 1) drop)',
        "(func block $l block $l br 1 br $l end end)",
        "func $f".join(["(", ' (block (@name "") (br 0)))']),
        "(func block $l block $k block $l br $l br $k br 2 br 3 end end end)",
        '(@custom "a" (before first) "x") (@custom "b" (after type) "y") (@custom "c" "z") (func $f)',
        '(@custom "name2" (after data) "") (@custom "z") (func $f)',
        '(@custom "z" "no names here")',
        '(import "\\u{202e}" "\\"" (func)) (export "\\t\\n\\u{0}é" (func 0))',
        '(func (@metadata.code.branch_hint "\\01") (if (i32.const 1) (then)))',
        "(table 1 externref) (elem (i32.const 0) externref (ref.null extern))",
        "(table 1 funcref) (table 1 funcref) (elem (table 1) (i32.const 0) func) (elem (table 1) (i32.const 0) funcref)",
        "(elem declare funcref (ref.null func)) (elem funcref) (elem declare func)",
        "(table 0 funcref) (table $t 0 funcref) (elem $e func) (func (table.init 1 $e) (table.copy 0 1) (table.get $t)"
        " (table.fill 1) (table.size) (call_indirect 1 (param i32)) unreachable)",
        "(memory 1) (memory 1) (func (i32.load 1 offset=4) (memory.copy 0 1) (memory.size 1) (memory.fill $m)) (memory $m 1)",
        "(func select (result) select (result i32 i64) select)",
        "(func i32.const 0 if else end i32.const 0 if (result i32) i32.const 1 else i32.const 2 end drop)",
        "(global i32 (i32.add (i32.const 1) (i32.const 2))) (data (offset i32.const 1 i32.const 2 i32.sub))",
        "(func (drop (f32.const -nan:0x1)) (drop (f64.const 0x1.921fb54442d18p1)) (drop (f32.const 1e-45)) (drop (f64.const -0)))",
        '(module (data "' + "".join(f"\\{b:02x}" for b in range(256)) + '"))',
    ],
)
def test_awkward_modules_there_and_back(text: str) -> None:
    again(text)


def test_depth_does_not_square() -> None:
    """Threat: indentation as deep as the nesting makes the square of the module's size."""
    n = 50_000
    text = print_module(parse("(func " + "block " * n + "end " * n + ")"))
    assert len(text) < n * 200


def test_a_declaration_of_billions_of_locals_is_refused() -> None:
    """Threat: five bytes declare four billion locals, which a module that was not validated may do."""
    body = FunctionBody(((2**32 - 1, I32),), b"\x0b")
    with pytest.raises(WasmtimeError, match="too many parameters and locals"):
        print_module(Module(types=[FuncType((), ())], functions=[0], code=[body]))


def test_functions_that_share_a_huge_type_are_refused() -> None:
    """Threat: four bytes a function, each of which would print a million parameters."""
    body = FunctionBody((), b"\x0b")
    module = Module(types=[FuncType((I32,) * 1_000_000, ())], functions=[0] * 1000, code=[body] * 1000)
    with pytest.raises(WasmtimeError, match="too many parameters and locals"):
        print_module(module)


def test_constant_expressions_with_blocks_which_are_invalid_can_be_printed() -> None:
    module = parse("(global i32 block (result i32) i32.const 1 if nop else nop end i32.const 2 end)")
    assert encode(parse(print_module(decode(encode(module))))) == encode(module)
