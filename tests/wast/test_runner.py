"""The runner tells right from wrong. Each script here says something false, and must fail; the wasmtime package and
this one must agree on a script that says something of everything."""

# ruff: noqa: E501 (texts of scripts)
from __future__ import annotations

from typing import Any

import pytest

from wasmforge.wast import FileResult, run_script

TOUR = r"""
(module $M
  (import "spectest" "print_i32_f32" (func $print (param i32 f32)))
  (import "spectest" "global_i32" (global $g i32))
  (import "spectest" "table" (table 10 20 funcref))
  (import "spectest" "memory" (memory 1 2))
  (func (export "print") (call $print (i32.const 1) (f32.const 2)))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "two") (result i64 f64) (i64.const -1) (f64.const 0.5))
  (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "nan") (result f32) (f32.div (f32.const 0) (f32.const 0)))
  (func (export "id") (param externref) (result externref) (local.get 0))
  (func $loop (export "loop") (call $loop))
  (func (export "ref") (result funcref) (ref.func $loop))
  (func (export "null") (result funcref) (ref.null func))
  (global (export "g") i32 (global.get $g))
  (global (export "f") f64 (f64.const -0.25)))
(invoke "print")
(assert_return (invoke "print"))
(assert_return (invoke $M "add" (i32.const 1) (i32.const -2)) (i32.const 0xffffffff))
(assert_return (invoke "two") (i64.const -1) (f64.const 0.5))
(assert_return (invoke "nan") (f32.const nan:canonical))
(assert_return (invoke "nan") (f32.const nan:arithmetic))
(assert_return (invoke "add" (i32.const 1) (i32.const 1)) (either (i32.const 3) (i32.const 2)))
(assert_return (invoke "id" (ref.extern 5)) (ref.extern 5))
(assert_return (invoke "id" (ref.extern 5)) (ref.extern))
(assert_return (invoke "id" (ref.null extern)) (ref.null extern))
(assert_return (invoke "ref") (ref.func))
(assert_return (invoke "null") (ref.null func))
(assert_return (get "g") (i32.const 666))
(assert_return (get $M "f") (f64.const -0.25))
(assert_trap (invoke "div" (i32.const 1) (i32.const 0)) "integer divide by zero")
(assert_exhaustion (invoke "loop") "call stack exhausted")
(register "other")
(module (import "other" "add" (func (param i32 i32) (result i32))))
(module definition $D (global (export "x") (mut i32) (i32.const 7)))
(module instance $I1 $D)
(module instance $I2 $D)
(assert_return (get $I2 "x") (i32.const 7))
(assert_trap (module (func $f unreachable) (start $f)) "unreachable")
(assert_malformed (module quote "(func (foo))") "unknown operator")
(assert_malformed (module binary "") "unexpected end")
(assert_malformed (module binary "asm\00\01\00\00\00") "magic header not detected")
(assert_invalid (module (func (result i32))) "type mismatch")
(assert_unlinkable (module (import "other" "none" (func))) "unknown import")
(assert_unlinkable (module (import "other" "add" (func))) "incompatible import type")
"""


def test_a_tour_of_all_commands() -> None:
    result = run_script(TOUR, "tour.wast")
    assert result.ok, result.failures
    assert result.passed == TOUR.count("\n(")
    assert str(result).startswith(f"tour.wast: {result.passed} passed in ")


def test_the_wasmtime_package_passes_the_tour() -> None:
    wasmtime = pytest.importorskip("wasmtime")
    result = run_script(TOUR, "tour.wast", wasmtime)
    assert result.ok, result.failures


MODULE = r"""(module
  (func (export "one") (result i32) (i32.const 1))
  (func (export "pair") (result i32 i32) (i32.const 1) (i32.const 2))
  (func (export "f32") (result f32) (f32.const 1))
  (func (export "snan") (result f32) (f32.const nan:0x1))
  (func (export "payload") (result f64) (f64.const nan:0x8000000000001))
  (func (export "zero") (result f64) (f64.const -0))
  (func (export "null") (result externref) (ref.null extern))
  (func (export "id") (param externref) (result externref) (local.get 0))
  (func (export "trap") unreachable))
"""

FALSE = {
    "another number": ('(assert_return (invoke "one") (i32.const 2))', "result 0 is 0x1"),
    "too few results": ('(assert_return (invoke "pair") (i32.const 1))', "2 results where 1 are expected"),
    "too many results": ('(assert_return (invoke "one") (i32.const 1) (i32.const 1))', "1 results where 2 are expected"),
    "no result": ('(assert_return (invoke "one"))', "1 results where 0 are expected"),
    "the second result": ('(assert_return (invoke "pair") (i32.const 1) (i32.const 3))', "result 1 is 0x2"),
    "the sign of zero": ('(assert_return (invoke "zero") (f64.const 0))', "result 0 is"),
    "a number is no NaN": ('(assert_return (invoke "f32") (f32.const nan:arithmetic))', "result 0 is"),
    "a signalling NaN is not arithmetic": ('(assert_return (invoke "snan") (f32.const nan:arithmetic))', "result 0 is 0x7f800001"),
    "a payload is not canonical": ('(assert_return (invoke "payload") (f64.const nan:canonical))', "result 0 is"),
    "another payload": ('(assert_return (invoke "payload") (f64.const nan:0x8000000000002))', "result 0 is"),
    "null is not a reference": ('(assert_return (invoke "null") (ref.extern))', "result 0 is None"),
    "another reference": ('(assert_return (invoke "id" (ref.extern 1)) (ref.extern 2))', "result 0 is 0x1"),
    "a reference is not null": ('(assert_return (invoke "id" (ref.extern 1)) (ref.null extern))', "result 0 is 0x1"),
    "neither": ('(assert_return (invoke "one") (either (i32.const 2) (i32.const 3)))', "result 0 is 0x1"),
    "a trap is no return": ('(assert_return (invoke "trap"))', "unreachable"),
    "an action that traps": ('(invoke "trap")', "unreachable"),
    "a return is no trap": ('(assert_trap (invoke "one") "unreachable")', "no trap where"),
    "another trap": ('(assert_trap (invoke "trap") "integer overflow")', "'integer overflow' is expected"),
    "a trap is no exhaustion": ('(assert_exhaustion (invoke "trap") "call stack exhausted")', "is expected"),
    "no such export": ('(assert_return (invoke "none"))', "none"),
    "no such export traps not": ('(assert_trap (invoke "none") "unreachable")', "none"),
    "no such instance": ('(assert_return (invoke $N "one") (i32.const 1))', "unknown instance $N"),
    "no such module": ("(module instance $I $N)", "unknown module $N"),
    "valid is not malformed": ('(assert_malformed (module quote "(func)") "unknown operator")', "the module is not malformed"),
    "valid is not invalid": ('(assert_invalid (module (func)) "type mismatch")', "the module is not invalid"),
    "linkable": ('(assert_unlinkable (module (func)) "unknown import")', "the module is not unlinkable"),
    "invalid is not malformed": ('(assert_malformed (module quote "(func (result i32))") "type mismatch")', "malformed is expected"),
    "malformed is not invalid": ('(assert_invalid (module (func (foo))) "unknown operator")', "invalid is expected"),
    "invalid is not unlinkable": ('(assert_unlinkable (module (func (result i32))) "type mismatch")', "unlinkable is expected"),
    "another reason to be malformed": ('(assert_malformed (module quote "(foo)") "unclosed string")', "'unclosed string' is expected"),
    "another reason to be invalid": ('(assert_invalid (module (func (result i32))) "unknown local")', "'unknown local' is expected"),
    "a malformed module": ("(module (foo))", "unknown operator foo"),
    "an invalid module": ("(module (func (result i32)))", "type mismatch"),
    "an unlinkable module": ('(module (import "a" "b" (func)))', "unknown import"),
    "a bad command": ("(assert_something)", "unknown command"),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE)
def test_what_is_false_fails(name: str) -> None:
    command, reason = FALSE[name]
    result = run_script(MODULE + command, "false.wast")
    (failure,) = result.failures
    assert reason in failure.reason
    assert failure.line == MODULE.count("\n") + 1
    assert failure.feature is None
    assert result.passed == 1


def test_what_depends_on_a_module_that_waits_for_a_proposal_waits_too() -> None:
    result = run_script(
        '(module $M (type (struct)) (func (export "f")))\n(assert_return (invoke "f"))\n(register "M" $M)',
        "v.wast",
    )
    assert [f.line for f in result.failures] == [1, 2, 3]
    assert result.features == ["garbage-collected types (GC)"]
    assert "waits for garbage-collected types (GC)" in str(result)


def test_commands_of_proposals_wait_for_them() -> None:
    result = run_script(
        """(module (func (export "f")))
        (thread $T (invoke "f"))
        (wait $T)
        (assert_exception (invoke "f"))
        (assert_suspension (invoke "f") "x")""",
        "proposals.wast",
    )
    assert [f.feature for f in result.failures] == [
        "atomic instructions (threads)",
        "atomic instructions (threads)",
        "exception-handling instructions",
        "stack-switching instructions",
    ]


def test_an_unsupported_module_is_neither_malformed_nor_invalid() -> None:
    result = run_script('(assert_invalid (module (func (local anyref) (local.get 1))) "unknown local")', "v.wast")
    assert [f.feature for f in result.failures] == ["garbage-collected types (GC)"]


def test_what_cannot_be_split_into_commands_is_one_failure() -> None:
    result = run_script("(module)\n(module", "cut.wast")
    assert result.passed == 1
    assert [f.line for f in result.failures] == [2]


def test_it_can_stop_early() -> None:
    result = run_script("(foo)\n" * 10, "f.wast", stop_at=3)
    assert len(result.failures) == 3


def test_a_broken_implementation_is_a_failure_and_no_exception() -> None:
    class Broken:
        class WasmtimeError(Exception): ...

        class Trap(Exception): ...

        @staticmethod
        def Engine() -> Any:  # noqa: N802
            return object()

        @staticmethod
        def Store(engine: Any) -> Any:  # noqa: N802
            raise ZeroDivisionError("no store today")

    result = run_script("(module)", "f.wast", Broken)
    assert isinstance(result, FileResult)
    assert "no store today" in result.failures[0].reason
