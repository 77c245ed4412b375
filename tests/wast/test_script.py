"""The parser of scripts: every command, values and patterns, and recovery from what it does not understand."""

# ruff: noqa: E501 (texts of scripts)
from __future__ import annotations

import pytest

from wasmforge.text import ParseError
from wasmforge.wast.script import (
    Action,
    AssertBadModule,
    AssertReturn,
    AssertTrap,
    BadCommand,
    Command,
    DefineModule,
    Do,
    Either,
    InstantiateModule,
    ModuleForm,
    NanPattern,
    Register,
    Thread,
    Value,
    Wait,
    commands,
)

EMPTY = b"\0asm\1\0\0\0"


def one(text: str) -> Command:
    (command,) = commands(text)
    return command


def test_modules_in_text_binary_and_quotes() -> None:
    script = list(
        commands(r"""
        (module)
        (module $M (func))
        (module binary "\00asm" "\01\00\00\00")
        (module $B binary "\00asm\01\00\00\00")
        (module quote "(func" ") (memory 1)")
        (module definition $D (func))
        (module definition binary "\00asm\01\00\00\00")
        """)
    )
    assert all(isinstance(c, DefineModule) for c in script)
    modules = [c for c in script if isinstance(c, DefineModule)]
    assert [m.module.identifier for m in modules] == ["", "$M", "", "$B", "", "$D", ""]
    assert [m.module.form for m in modules] == ["text", "text", "binary", "binary", "quote", "text", "binary"]
    assert [m.instantiate for m in modules] == [True] * 5 + [False] * 2
    assert [m.line for m in modules] == list(range(2, 9))
    assert [m.module.encoded() == EMPTY for m in modules] == [True, False, True, True, False, False, True]
    assert all(m.module.encoded().startswith(EMPTY) for m in modules)


def test_a_script_may_be_the_fields_of_one_module() -> None:
    command = one('(func (export "f")) (memory 1)')
    assert isinstance(command, DefineModule)
    assert b"f" in command.module.encoded()


def test_lines_of_a_quoted_text_do_not_run_together() -> None:
    command = one('(module quote "(func $a" "nop)")')
    assert isinstance(command, DefineModule)
    command.module.encoded()


def test_a_malformed_quote_is_an_error_with_its_own_place() -> None:
    command = one('\n\n(assert_malformed (module quote "(func)" "(foo)") "unknown operator")')
    assert isinstance(command, AssertBadModule)
    assert (command.line, command.kind, command.text) == (3, "malformed", "unknown operator")
    with pytest.raises(ParseError, match="unknown operator foo") as caught:
        command.module.encoded()
    assert (caught.value.line, caught.value.column) == (2, 2)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("(module instance $I $M)", InstantiateModule(1, "$I", "$M")),
        ("(module instance)", InstantiateModule(1, "", "")),
        ('(register "m")', Register(1, "m", "")),
        ('(register "m" $M)', Register(1, "m", "$M")),
        ('(invoke "f")', Do(1, Action("", "f", ()))),
        ('(invoke $M "f" (i32.const -1))', Do(1, Action("$M", "f", (Value("i32", 0xFFFFFFFF),)))),
        ('(get "g")', Do(1, Action("", "g", None))),
        ('(assert_return (invoke "f"))', AssertReturn(1, Action("", "f", ()), ())),
        ('(assert_return (get $M "g") (i64.const -2))', AssertReturn(1, Action("$M", "g", None), (Value("i64", 2**64 - 2),))),
        ('(assert_trap (invoke "f") "t")', AssertTrap(1, "trap", Action("", "f", ()), "t")),
        ('(assert_exhaustion (invoke "f") "t")', AssertTrap(1, "exhaustion", Action("", "f", ()), "t")),
        ('(assert_exception (invoke "f"))', AssertTrap(1, "exception", Action("", "f", ()), "")),
        ('(assert_suspension (invoke "f") "t")', AssertTrap(1, "suspension", Action("", "f", ()), "t")),
        ("(thread $T (shared (module $M)) (invoke))", Thread(1, "$T")),
        ("(wait $T)", Wait(1, "$T")),
    ],
)  # fmt: skip
def test_commands(text: str, command: Command) -> None:
    assert one(text) == command


@pytest.mark.parametrize("kind", ["malformed", "invalid", "unlinkable", "malformed_custom", "invalid_custom"])
def test_assertions_about_modules(kind: str) -> None:
    command = one(f'(assert_{kind} (module (func)) "why")')
    assert isinstance(command, AssertBadModule)
    assert (command.kind, command.text, command.module.form) == (kind, "why", "text")


def test_a_module_may_trap() -> None:
    command = one('(assert_trap (module (func $f unreachable) (start $f)) "unreachable")')
    assert isinstance(command, AssertTrap)
    assert isinstance(command.subject, ModuleForm)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("(i32.const 0xffffffff)", Value("i32", 0xFFFFFFFF)),
        ("(f32.const -0x1p-1)", Value("f32", 0xBF000000)),
        ("(f64.const nan:0x4)", Value("f64", 0x7FF0000000000004)),
        ("(f32.const nan:canonical)", NanPattern("f32", "canonical")),
        ("(f64.const nan:arithmetic)", NanPattern("f64", "arithmetic")),
        ("(ref.null)", Value("ref.null")),
        ("(ref.null func)", Value("ref.null")),
        ("(ref.null any)", Value("ref.null")),
        ("(ref.func)", Value("ref.func")),
        ("(ref.extern)", Value("ref.extern")),
        ("(ref.extern 7)", Value("ref.extern", 7)),
        ("(ref.host 7)", Value("ref.host", 7)),
        ("(ref.struct)", Value("ref.struct")),
        ("(either (i32.const 1) (f32.const nan:canonical))", Either((Value("i32", 1), NanPattern("f32", "canonical")))),
    ],
)
def test_patterns(text: str, pattern: object) -> None:
    command = one(f'(assert_return (invoke "f") {text})')
    assert isinstance(command, AssertReturn)
    assert command.expected == (pattern,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(assert_nothing)", "unknown command assert_nothing"),
        ('(invoke "f" (f32.const nan:canonical))', "an argument must be a value"),
        ('(assert_return (invoke "f") (i32.const 4294967296))', "constant out of range"),
        ('(assert_return (invoke "f") (v128.const i32x4 0 0 0))', "wrong number of lane literals"),
        ('(assert_return (invoke "f") (v128.const i32x4 0 0 0 nan:canonical))', "unexpected token"),
        ('(assert_return (invoke "f") (nop))', "unexpected token"),
        ('(assert_return (invoke "f") (ref.null $t))', "unexpected token"),
        ('(assert_return (invoke "f") (i32.const x))', "unknown operator"),
        ('(assert_return (invoke "f") (f32.const x))', "unknown operator"),
        ('(assert_return (invoke "f") (f32.const 1e40))', "constant out of range"),
        ('(module instance "x")', "unexpected token"),
        ('(assert_invalid (module) "a" "b")', "unexpected token"),
        ("(register)", "unexpected token"),
    ],
)
def test_a_bad_command_does_not_stop_the_script(text: str, reason: str) -> None:
    bad, good = commands(f'{text}\n(register "next")')
    assert isinstance(bad, BadCommand)
    assert bad.error.reason.startswith(reason)
    assert good == Register(2, "next", "")


def test_nesting_does_not_exhaust_the_stack() -> None:
    """Threat: a script nested deep enough to exhaust Python's stack."""
    n = 100_000
    command = one('(assert_return (invoke "f") ' + "(either " * n + ")" * (n + 1))
    assert isinstance(command, BadCommand)
    assert command.error.reason.startswith("unknown operator either")


def test_a_module_is_not_looked_at_before_it_is_asked_for() -> None:
    first, second = commands('(module (func (no such thing))) (register "m")')
    assert isinstance(first, DefineModule)
    assert isinstance(second, Register)
    with pytest.raises(ParseError, match="unknown operator no"):
        first.module.encoded()


@pytest.mark.parametrize("text", ["(module", '(module) foo (register "m")', '(register "m', "(module))"])
def test_what_is_no_sequence_of_expressions_ends_the_script(text: str) -> None:
    with pytest.raises(ParseError):
        list(commands(text))
