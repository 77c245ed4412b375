"""What a malformed text makes the parser say, and where: reasons in the words of the specification's test suite."""

# ruff: noqa: E501 (texts of modules)
from __future__ import annotations

import pytest

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.text import ParseError, parse


def caught(text: str | bytes) -> ParseError:
    with pytest.raises(ParseError) as info:
        parse(text, "f.wat")
    return info.value


def test_the_message_shows_the_place() -> None:
    error = caught("(module\n  (func (foo)))")
    assert isinstance(error, WasmtimeError)
    assert str(error) == (
        "unknown operator foo: expected an instruction\n --> f.wat:2:10\n  |\n2 |   (func (foo)))\n  |          ^"
    )


def test_the_margin_grows_with_the_line_number() -> None:
    assert str(caught("\n" * 99 + "foo")).splitlines()[1:] == ["   --> f.wat:100:1", "    |", "100 | foo", "    | ^"]


def test_tabs_and_controls_do_not_move_the_caret() -> None:
    lines = str(caught("\t(; \x1b ;)\t(func\tfoo)")).splitlines()
    assert lines[3].index("foo") == lines[4].index("^")
    assert "\x1b" not in str(caught("(; \x1b ;) foo"))


def test_a_long_line_is_shown_in_part() -> None:
    """Generated text may be megabytes on a line."""
    error = caught("(module " + "(func)" * 100_000 + "(foo)" + "(func)" * 100_000)
    assert error.column == 8 + 600_000 + 2
    lines = str(error).splitlines()
    assert len(str(error)) < 600
    assert lines[3].index("foo") == lines[4].index("^")


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        # Tokens that no version of the format knows, and tokens in the wrong place.
        ("(func (i32.const0))", "unknown operator i32.const0", 1, 8),
        ("(func br 0drop)", "unknown operator 0drop", 1, 10),
        ("(foo)", "unknown operator foo", 1, 2),
        ("(func i32.const)", "unexpected token", 1, 16),
        ("(func (i32.const 1.5))", "unexpected token 1.5", 1, 18),
        ("(func (i32.const nan:arithmetic))", "unexpected token", 1, 18),
        ("(func (i32.const $x))", "unexpected token", 1, 18),
        ("(func (drop) local)", "unexpected token local", 1, 14),
        ("(func", "unexpected token", 1, 1),
        ("(func))", "unexpected token", 1, 7),
        ("(module (func)) (func)", "unexpected token", 1, 17),
        ("(module) x", "unknown operator", 1, 10),
        ("module", "unexpected token", 1, 1),
        ('(export "a" (local 0))', "unexpected token", 1, 14),
        ("(func (param i32) (type 0))", "unexpected token", 1, 20),
        ("(func (result i32) (param i32))", "unexpected token", 1, 21),
        ("(func (local i32) (param i32))", "unexpected token", 1, 20),
        ("(func (nop) (local i32))", "unexpected token", 1, 14),
        ("(func (block (param $x i32)))", "unexpected token", 1, 21),
        ("(func (result $x i32))", "unexpected token", 1, 15),
        ("(func (param $x i32 i32))", "unexpected token", 1, 21),
        ("(func (then))", "unexpected token then", 1, 8),
        ("(func (if (i32.const 0)))", "unexpected token", 1, 24),
        ("(func (if (i32.const 0) (else)))", "unexpected token else", 1, 26),
        ("(func (if (i32.const 0) (then) (then)))", "unexpected token", 1, 32),
        ("(func (if (i32.const 0) (then) nop))", "unexpected token", 1, 32),
        ("(func (if nop (then)))", "unexpected token", 1, 11),
        ("(func (i32.add nop))", "unexpected token", 1, 16),
        ("(func (block else))", "unexpected token", 1, 14),
        ("(func else)", "unexpected token", 1, 7),
        ("(func end)", "unexpected token", 1, 7),
        ("(func (end))", "unexpected token", 1, 8),
        ("(func block)", "unexpected token", 1, 12),
        ("(func block (end))", "unexpected token", 1, 14),
        ("(func i32.const 0 if else else end)", "unexpected token", 1, 27),
        ("(func (block end))", "unexpected token", 1, 14),
        ("(global i32)", None, 0, 0),
        ("(table 1 funcref (elem))", "unexpected token", 1, 19),
        ("(memory 1 2 3)", "unexpected token 3", 1, 13),
        ("(elem (i32.const 0) 0 funcref)", "unexpected token", 1, 23),
        ("(elem (i32.const 0) (ref.func 0))", "unexpected token", 1, 21),
        ("(data (i32.const 0) 1)", "unexpected token", 1, 21),
        ("(data (offset nop) (offset nop))", "unexpected token", 1, 20),
        ("(import 1 2 (func))", "unexpected token", 1, 9),
        ("(func (export 1))", "unexpected token", 1, 15),
        ('(import "" "" (foo))', "unknown operator foo", 1, 16),
        ('(import "" "" (start))', "unexpected token start", 1, 16),
        ("(elem (table 0))", "unexpected token", 1, 16),
        ("(data (memory 0))", "unexpected token", 1, 17),
        ("(memory)", "unexpected token", 1, 8),
        ('(module binary "") (func)', "unexpected token", 1, 20),
        ("(func i32.const", "unexpected token", 1, 1),
        ("(func (i32.const", "unexpected token", 1, 1),
        # Numbers.
        ("(func (i32.const 4294967296))", "constant out of range", 1, 18),
        ("(func (i32.const -2147483649))", "constant out of range", 1, 18),
        ("(func (i64.const 0x1_0000_0000_0000_0000))", "constant out of range", 1, 18),
        ("(func (f32.const 1e39))", "constant out of range", 1, 18),
        ("(func (f64.const nan:0x0))", "constant out of range", 1, 18),
        ("(func (br 4294967296))", "constant out of range", 1, 11),
        ("(memory 18446744073709551616)", "i64 constant out of range", 1, 9),
        ("(func (drop (i32.load align=3 (i32.const 0))))", "alignment must be a power of two", 1, 23),
        ("(func (drop (i32.load align=0 (i32.const 0))))", "alignment must be a power of two", 1, 23),
        ("(func (drop (i32.load offset=18446744073709551616)))", "constant out of range", 1, 23),
        ("(func (drop (i32.load align=-1)))", "unknown operator", 1, 23),
        ("(func (drop (i32.load offset= 1)))", "unknown operator", 1, 23),
        ("(func (drop (i32.load align=4 offset=4)))", "unexpected token", 1, 31),
        # Identifiers.
        ("(func (call $f))", "unknown function $f", 1, 13),
        ("(func (local.get $x))", "unknown local $x", 1, 18),
        ("(func (br $l))", "unknown label $l", 1, 11),
        ("(func (block $l) (br $l))", "unknown label $l", 1, 22),
        ("(func (type $t))", "unknown type $t", 1, 13),
        ("(func (global.get $g))", "unknown global $g", 1, 19),
        ("(func (table.get $t))", "unknown table $t", 1, 18),
        ("(func (memory.size $m))", "unknown memory $m", 1, 20),
        ("(func (elem.drop $e))", "unknown elem segment $e", 1, 18),
        ("(func (data.drop $d))", "unknown data segment $d", 1, 18),
        ("(func $f) (func $f)", "duplicate func $f", 1, 17),
        ('(func $f) (func $"f")', "duplicate func $f", 1, 17),
        ('(import "" "" (func $f)) (func $f)', "duplicate func $f", 1, 32),
        ("(table $t 0 funcref) (table $t 0 funcref)", "duplicate table $t", 1, 29),
        ("(memory $m 0) (memory $m 0)", "duplicate memory $m", 1, 23),
        ("(global $g i32 (i32.const 0)) (global $g i32 (i32.const 0))", "duplicate global $g", 1, 39),
        ("(type $t (func)) (type $t (func))", "duplicate type $t", 1, 24),
        ("(elem $e func) (elem $e func)", "duplicate elem segment $e", 1, 22),
        ("(func (param $x i32) (local $x i32))", "duplicate local $x", 1, 29),
        ("(func (local $x i32) (local $x i32))", "duplicate local $x", 1, 29),
        ("(func block $a end $b)", "mismatching label $b", 1, 20),
        ("(func block end $b)", "mismatching label $b", 1, 17),
        ("(func i32.const 0 if $a else $b end)", "mismatching label $b", 1, 30),
        # Types.
        ("(type (func)) (func (type 0) (param i32))", "inline function type", 1, 21),
        ("(type (func (param i32))) (func (block (type 0) (result i32)))", "inline function type", 1, 40),
        ("(func (type 9) (param i32))", "unknown type 9", 1, 13),
        # Order.
        ('(func) (import "" "" (func))', "import after function", 1, 0),
        ('(table 0 funcref) (import "" "" (func))', "import after table", 1, 0),
        ('(memory 0) (func (import "" ""))', "import after memory", 1, 0),
        ('(global i32 (i32.const 0)) (import "" "" (func))', "import after global", 1, 0),
        ("(func) (start 0) (start 0)", "multiple start sections", 1, 19),
        # Strings.
        ('(import "\\ff" "" (func))', "malformed UTF-8 encoding", 1, 9),
        ('(data "\\q")', "malformed string escape", 1, 7),
        # Annotations.
        ("(@custom)", "@custom annotation: missing section name", 1, 9),
        ('(@custom "\\df")', "@custom annotation: malformed UTF-8 encoding", 1, 10),
        ('(@custom "a" here)', "@custom annotation: unexpected token", 1, 14),
        ('(@custom "a" (after))', "@custom annotation: malformed section kind", 1, 20),
        ('(@custom "a" (by type))', "@custom annotation: malformed placement", 1, 15),
        ('(func (@custom "a"))', "misplaced @custom annotation", 1, 7),
        ('(module (@name "a") (@name "b"))', "@name annotation: multiple module", 1, 21),
        ('(module (func) (@name "a"))', "misplaced @name annotation", 1, 16),
        ('(@metadata.code.branch_hint "\\00") (func)', "@metadata.code.branch_hint annotation: not in a function", 1, 1),
        ('(func (@metadata.code.branch_hint "\\00") nop)', "@metadata.code.branch_hint annotation: invalid target", 1, 7),
        ('(func (@metadata.code.branch_hint "\\00") (@metadata.code.branch_hint "\\00") if end)', "@metadata.code.branch_hint annotation: duplicate annotation", 1, 42),
        ('(func (@metadata.code.branch_hint "\\00"))', "@metadata.code.branch_hint annotation: invalid target", 1, 7),
        ('(func (@metadata.code.branch_hint "\\02") if end)', "@metadata.code.branch_hint annotation: the hint", 1, 35),
    ],
)  # fmt: skip
def test_reasons_and_places(text: str, reason: str | None, line: int, column: int) -> None:
    if reason is None:
        parse(text, "f.wat")  # an empty expression is for the validator
        return
    error = caught(text)
    assert error.reason.startswith(reason)
    assert error.line == line
    assert error.column == (column or error.column)
