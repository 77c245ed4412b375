"""The parser (specification, sections 6.4 to 6.6): every abbreviation, names, custom sections, and depth."""

# ruff: noqa: E501 (texts of modules)
from __future__ import annotations

import time
from typing import Any

import pytest

from tests.text.abbreviations import ABBREVIATIONS
from wasmforge.binary import decode, encode
from wasmforge.syntax.module import Module, NameSection, SegmentMode
from wasmforge.text import ParseError, UnsupportedSyntaxError, parse, wat2wasm


def without_names(text: str) -> bytes:
    module = parse(text)
    module.names = None
    return encode(module)


@pytest.mark.parametrize("name", ABBREVIATIONS)
def test_an_abbreviation_is_the_same_module_as_what_it_stands_for(name: str) -> None:
    short, long = ABBREVIATIONS[name]
    assert without_names(short) == without_names(long)


@pytest.mark.parametrize("name", ABBREVIATIONS)
@pytest.mark.parametrize("side", [0, 1])
def test_wasmtime_agrees(name: str, side: int) -> None:
    wasmtime = pytest.importorskip("wasmtime")
    text = ABBREVIATIONS[name][side]
    # An explicit `(table 0)` makes wasmtime choose the longer encoding of the same segment.
    assert encode(decode(bytes(wasmtime.wat2wasm(text)))) == bytes(wat2wasm(text))


def test_a_module_byte_by_byte() -> None:
    wat = """
    (module $m
      (func $add (export "add") (param $a i32) (param $b i32) (result i32)
        (i32.add (local.get $a) (local.get $b))))
    """
    assert bytes(wat2wasm(wat)).hex(" ") == (
        "00 61 73 6d 01 00 00 00 01 07 01 60 02 7f 7f 01 7f 03 02 01 00 07 07 01 03 61 64 64 00 00 "
        "0a 09 01 07 00 20 00 20 01 6a 0b "
        "00 1c 04 6e 61 6d 65 00 02 01 6d 01 06 01 00 03 61 64 64 02 09 01 00 02 00 01 61 01 01 62"
    )


@pytest.mark.parametrize("source", ["(module)", b"(module)", bytearray(b"(module)"), "", "(module $m)"])
def test_wat2wasm_takes_text_and_bytes(source: str | bytes | bytearray) -> None:
    out = wat2wasm(source)
    assert isinstance(out, bytearray)
    assert out.startswith(b"\0asm\1\0\0\0")


def test_wat2wasm_leaves_a_binary_alone() -> None:
    assert wat2wasm(b"\0asm\1\0\0\0") == b"\0asm\1\0\0\0"


@pytest.mark.parametrize("source", [None, 5, ["(module)"]])
def test_anything_else_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match="expected the text of a module as str or bytes, got"):
        wat2wasm(source)


def test_a_binary_in_strings() -> None:
    assert parse(r'(module $x binary "\00asm" "\01\00\00\00")') == Module()


def test_identifiers_become_names() -> None:
    module = parse("""(module $m (type $t (func)) (import "" "" (func $i)) (func $f (param i32) (param $x i32) (local i32) (local $y i32)
      (block $l (loop) (block $"k k"))) (table $T 0 funcref) (memory $M 0) (global $g i32 (i32.const 0)) (elem $e func) (data $d))""")
    assert module.names == NameSection(
        module="m",
        functions={0: "i", 1: "f"},
        locals={1: {1: "x", 3: "y"}},
        labels={1: {0: "l", 2: "k k"}},
        types={0: "t"},
        tables={0: "T"},
        memories={0: "M"},
        globals={0: "g"},
        elements={0: "e"},
        data={0: "d"},
    )


def test_annotations_give_names_that_identifiers_cannot() -> None:
    module = parse(
        '(module (@name "m m") (func $f (@name "same")) (func (@name "same") (param $x (@name "") i32) (local (@name "l") i64)'
        ' (block $b (@name "B"))) (global $g (@name "G") i32 (i32.const 0)) (type $t (@name "T") (func)))'
    )
    assert module.names is not None
    assert module.names.module == "m m"
    assert module.names.functions == {0: "same", 1: "same"}
    assert module.names.locals == {1: {0: "", 1: "l"}}
    assert module.names.labels == {1: {0: "B"}}
    assert module.names.globals == {0: "G"}
    assert module.names.types == {0: "T"}


def test_no_names_no_section() -> None:
    assert parse("(module (func (block)))").names is None


def test_custom_sections_stand_where_they_say() -> None:
    module = parse(
        '(@custom "z" "1") (@custom "a" (before first) "2") (@custom "b" (after func) "3" "4") (@custom "c" (before type))'
        ' (@custom "d" (after last)) (@custom "e" (before table)) (func $f)'
    )
    assert [(c.name, c.after) for c in module.custom] == [
        ("a", 0), ("c", 0), ("b", 3), ("e", 3), ("name", 11), ("z", 11), ("d", 11),
    ]  # fmt: skip
    assert module.custom[2].data == b"34"


def test_branch_hints_become_their_section() -> None:
    module = parse(
        '(func) (func (local i32 i64) (@metadata.code.branch_hint "\\01") (if (i32.const 1) (then'
        ' (br_if 0 (i32.const 0)) (@metadata.code.branch_hint "\\00") (br_if 0 (i32.const 1)))))'
    )
    (section,) = decode(encode(module)).custom
    assert (section.name, section.after) == ("metadata.code.branch_hint", 3)  # right before the code
    # One function, number 1, two hints. Offsets count from the locals, which take five bytes.
    assert section.data == bytes([1, 1, 2, 7, 1, 1, 15, 1, 0])
    code = module.code[1].code
    assert (code[7 - 5], code[15 - 5]) == (0x04, 0x0D)


def test_data_count_only_where_an_instruction_names_a_segment() -> None:
    assert parse('(data "x")').data_count is None
    assert parse('(data "x") (func (data.drop 0))').data_count == 1
    assert (
        parse('(memory 1) (data "x") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0)))').data_count == 1
    )


def test_modes_of_segments() -> None:
    module = parse(
        '(table 1 funcref) (memory 1) (func) (elem func 0) (elem declare func 0) (elem (i32.const 0) 0) (data "") (data (i32.const 0))'
    )
    assert [e.mode for e in module.elements] == [SegmentMode.PASSIVE, SegmentMode.DECLARATIVE, SegmentMode.ACTIVE]
    assert [d.mode for d in module.data] == [SegmentMode.PASSIVE, SegmentMode.ACTIVE]


DEEP = 100_000


@pytest.mark.parametrize(
    "body",
    [
        "(drop " + "(i32.eqz " * DEEP + "(i32.const 0)" + ")" * DEEP + ")",
        "(block " * DEEP + ")" * DEEP,
        "block " * DEEP + "end " * DEEP,
        "(block $l " * DEEP + "(br $l)" * 10 + ")" * DEEP,
        "block $l " * DEEP + "end $l " * DEEP,
        "(if (i32.const 0) (then " * DEEP + "))" * DEEP,
        "(if (i32.const 0) (then) (else " * DEEP + "))" * DEEP,
        "(if " * DEEP + "(i32.const 0)" + "(then (i32.const 0)))" * DEEP,
        "i32.const 0 if " * DEEP + "else end " * DEEP,
    ],
    ids=["operands", "folded blocks", "flat blocks", "labels", "flat labels", "then", "else", "conditions", "flat ifs"],
)
def test_nesting_is_bounded_by_memory_only(body: str) -> None:
    """Threat: a text nested deep enough to exhaust Python's stack."""
    module = parse(f"(func {body})")
    assert len(module.code[0].code) > DEEP


@pytest.mark.parametrize(
    "text", ["(" * DEEP, "(module " * DEEP, "(func " + "(block " * DEEP, "(func (" + "(" * DEEP, "(@a " + "(" * DEEP]
)
def test_unclosed_nesting_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("(func (param anyref))", "GC"),
        ("(type (struct))", "GC"),
        ("(type $t (array i8))", "GC"),
        ("(type (sub (func)))", "GC"),
        ("(func (struct.new 0))", "GC"),
        ("(func (ref.test (ref i31)))", "GC"),
        ("(func (br_on_cast 0 anyref i31ref))", "GC"),
        ("(tag)", "exception"),
        ('(import "" "" (tag))', "exception"),
        ('(export "" (tag 0))', "exception"),
        ("(func (throw 0))", "exception"),
        ("(func try_table end)", "exception"),
        ("(func try catch_all end)", "legacy"),
        ("(func (param exnref))", "exception"),
        ("(type (cont 0))", "stack-switching"),
        ("(func (suspend 0))", "stack-switching"),
        ("(component)", "component"),
    ],
)
def test_proposals_that_are_not_implemented_are_named(text: str, feature: str) -> None:
    with pytest.raises(UnsupportedSyntaxError) as caught:
        parse(text)
    assert feature in caught.value.feature
    assert "not supported yet" in str(caught.value)


def test_functions_that_share_a_huge_type_take_no_time() -> None:
    """Threat: a few characters a function, each of which would cost as much as the type has parameters."""
    n = 50_000
    start = time.process_time()
    module = parse(
        f"(type (func (param {'i32 ' * n})))" + "(func (type 0) (local $x i32) (local.set $x (i32.const 0)))" * n
    )
    assert len(module.code) == n
    assert module.code[-1].code == bytes.fromhex("41 00 21 d0 86 03 0b")
    assert time.process_time() - start < 30
