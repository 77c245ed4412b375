"""Indirect calls through tables that never change (`compiler/llvm/fixed_tables.py`): which tables those are, and that
every check that is left out could not have failed (specification, section 4.4.10, call_indirect)."""

from __future__ import annotations

import pytest

from wasmforge import (
    Config,
    Engine,
    Func,
    FuncType,
    Instance,
    Limits,
    Module,
    Store,
    Table,
    TableType,
    Trap,
    TrapCode,
    ValType,
)
from wasmforge.compiler.link import canonical_types
from wasmforge.compiler.llvm.fixed_tables import FixedTable, fixed_tables
from wasmforge.text import parse
from wasmforge.validation import validate

TYPES = """
(type $i (func (result i32))) (type $same (func (result i32))) (type $l (func (result i64)))
(import "" "host" (func $host (type $i)))
(func $one (type $i) (i32.const 1)) (func $two (type $same) (i32.const 2)) (func $long (type $l) (i64.const 3))
"""


def facts(text: str) -> dict[int, FixedTable]:
    module = parse(f"(module {TYPES} {text})")
    found = validate(module)
    return fixed_tables(module, found.changed_tables, found.tail_callers, canonical_types(module.types))


def test_what_is_known_of_a_table() -> None:
    assert facts("(table 5 funcref) (elem (i32.const 1) $one $two)") == {0: FixedTable(5, True, 0)}
    assert facts("(table 5 funcref) (elem (i32.const 1) $one) (elem (i32.const 2) $long)") == {
        0: FixedTable(5, True, -1)
    }
    assert facts("(table 5 funcref) (elem (i32.const 1) $one $host)") == {0: FixedTable(5, False, 0)}
    assert facts("(table 5 funcref) (elem (i32.const 1) funcref (ref.func $one))") == {0: FixedTable(5, False, -1)}
    assert facts("(table 0 10 funcref) (table 3 funcref) (elem (table 1) (i32.const 0) func $two)") == {
        0: FixedTable(0, True, -1),
        1: FixedTable(3, True, 0),
    }


@pytest.mark.parametrize(
    "text",
    [
        '(table (export "t") 5 funcref)',
        '(import "" "t" (table 5 funcref))',
        "(table 5 externref)",
        "(table 5 funcref) (func (table.set (i32.const 0) (ref.null func)))",
        "(table 5 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))",
        "(table 5 funcref) (func (table.fill (i32.const 0) (ref.null func) (i32.const 1)))",
        "(table 5 funcref) (elem $e func $one) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1)))",
        "(table 5 funcref) (func (table.copy (i32.const 0) (i32.const 0) (i32.const 1)))",
    ],
)
def test_tables_that_may_change(text: str) -> None:
    if text.startswith("(import"):
        module = parse(f"(module {text})")
        found = validate(module)
        assert fixed_tables(module, found.changed_tables, found.tail_callers, canonical_types(module.types)) == {}
    else:
        assert facts(text) == {}


def test_the_source_of_a_copy_stays_fixed() -> None:
    text = "(table 5 funcref) (table 5 funcref) (func (table.copy 0 1 (i32.const 0) (i32.const 0) (i32.const 1)))"
    assert set(facts(text)) == {1}


def test_a_function_with_a_tail_call_may_leave_with_another_vmctx() -> None:
    text = "(table 2 funcref) (elem (i32.const 0) $t) (func $t (type $i) (return_call $host))"
    assert facts(text) == {0: FixedTable(2, False, 0)}


CALLS = f"""(module {TYPES}
  (table 5 funcref) (elem (i32.const 1) $one $two {{more}})
  (func (export "i") (param i32) (result i32) (call_indirect (type $i) (local.get 0)))
  (func (export "same") (param i32) (result i32) (call_indirect (type $same) (local.get 0)))
  (func (export "l") (param i32) (result i64) (call_indirect (type $l) (local.get 0))))"""


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
@pytest.mark.parametrize("more", ["", "$long", "$host", "$host $long"])
def test_calls_and_traps(more: str, strategy: str) -> None:
    config = Config()
    config.strategy = strategy
    store = Store(Engine(config))
    seen: list[int] = []
    host = Func(store, FuncType([], [ValType.i32()]), lambda: seen.append(1) or 7)
    exports = Instance(store, Module(store.engine, CALLS.format(more=more)), [host]).exports(store)
    slots: list[str | None] = [None, "i", "i", *({"$long": "l", "$host": "i"}[m] for m in more.split())]
    values = [None, 1, 2, *({"$long": 3, "$host": 7}[m] for m in more.split())]
    for name, kind in (("i", "i"), ("same", "i"), ("l", "l")):
        for index in (0, 1, 2, 3, 4, 5, 6, -1, 2**31 - 1):
            expected = slots[index] if 0 <= index < len(slots) else None
            if expected == kind:
                assert exports[name](store, index) == values[index]
                continue
            with pytest.raises(Trap) as caught:
                exports[name](store, index)
            outside = not 0 <= index < 5
            assert caught.value.trap_code == (
                TrapCode.TABLE_OUT_OF_BOUNDS
                if outside
                else TrapCode.INDIRECT_CALL_TO_NULL
                if expected is None
                else TrapCode.BAD_SIGNATURE
            )
    assert len(seen) == 2 * more.count("$host")


def test_a_module_that_did_not_instantiate_finds_less_in_its_table() -> None:
    """An earlier segment has put a function into somebody else's table, the one of its own table never came."""
    store = Store()
    theirs = Table(store, TableType(ValType.funcref(), Limits(2, None)), None)
    text = """(module (type $i (func (result i32))) (import "" "t" (table $theirs 2 funcref))
      (func $one (type $i) (i32.const 1)) (table $own 2 funcref)
      (func $through (type $i) (call_indirect $own (type $i) (i32.const 0)))
      (elem (table $theirs) (i32.const 0) func $through) (elem (table $own) (i32.const 9) func $one))"""
    with pytest.raises(Trap):
        Instance(store, Module(store.engine, text), [theirs])
    with pytest.raises(Trap) as caught:
        theirs.get(store, 0)(store)
    assert caught.value.trap_code == TrapCode.INDIRECT_CALL_TO_NULL
