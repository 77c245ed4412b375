"""Typed function references at the embedder's surface: types, checks of values on the way in and out, linking by
subtyping, and what is refused when the proposal is off (it is by default, as in Wasmtime 42)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wasmforge import (
    Config,
    Engine,
    Func,
    FuncType,
    Global,
    GlobalType,
    Instance,
    Limits,
    Linker,
    Module,
    Store,
    Table,
    TableType,
    Trap,
    ValType,
    WasmtimeError,
)


@pytest.fixture(params=["baseline", "llvm"])
def engine(request: pytest.FixtureRequest) -> Engine:
    config = Config()
    config.strategy = request.param
    config.wasm_function_references = True
    return Engine(config)


APPLY = """(module
  (type $unary (func (param i32) (result i32)))
  (func $double (export "double") (type $unary) (i32.mul (local.get 0) (i32.const 2)))
  (func (export "other") (result i32) (i32.const 1))
  (func (export "apply") (param (ref $unary) i32) (result i32) (call_ref $unary (local.get 1) (local.get 0)))
  (func (export "maybe") (param (ref null $unary) i32) (result i32) (call_ref $unary (local.get 1) (local.get 0)))
  (func (export "any") (param (ref func) (ref extern)) (result i32) (i32.const 7))
  (func (export "get") (result (ref $unary)) (ref.func $double))
  (table (export "table") 2 (ref null $unary))
  (table (export "full") 2 (ref $unary) (ref.func $double))
  (global (export "global") (mut (ref $unary)) (ref.func $double)))"""


@pytest.fixture
def exports(engine: Engine) -> tuple[Store, Any]:
    store = Store(engine)
    return store, Instance(store, Module(engine, APPLY), []).exports(store)


def test_calls_check_references(exports: tuple[Store, Any]) -> None:
    """None for what cannot be null, and a function of another type, are errors before anything runs."""
    store, e = exports
    assert e["apply"](store, e["double"], 21) == 42
    assert e["maybe"](store, e["double"], 4) == 8
    with pytest.raises(TypeError, match="has no null reference"):
        e["apply"](store, None, 1)
    for name in ("apply", "maybe"):
        with pytest.raises(TypeError, match="expected a reference to a function of type"):
            e[name](store, e["other"], 1)
        with pytest.raises(TypeError):
            e[name](store, "a string", 1)
    with pytest.raises(Trap, match="null reference"):
        e["maybe"](store, None, 1)
    assert e["any"](store, e["other"], object()) == 7
    with pytest.raises(TypeError):
        e["any"](store, None, object())
    with pytest.raises(TypeError):
        e["any"](store, e["other"], None)
    with pytest.raises(TypeError):
        e["apply"](store, e["double"])
    assert e["get"](store)(store, 5) == 10
    bound = e["apply"].bind(store)
    assert bound(e["double"], 3) == 6
    with pytest.raises(TypeError):
        bound(None, 3)


def test_a_function_of_another_store_is_refused(engine: Engine, exports: tuple[Store, Any]) -> None:
    store, e = exports
    other = Store(engine)
    foreign = Instance(other, Module(engine, APPLY), []).exports(other)["double"]
    with pytest.raises(WasmtimeError):
        e["apply"](store, foreign, 1)


def test_tables_and_globals_check_references(exports: tuple[Store, Any]) -> None:
    store, e = exports
    table, full, variable = e["table"], e["full"], e["global"]
    assert table.get(store, 0) == None  # noqa: E711  # a null `Val`
    table.set(store, 0, e["double"])
    assert table.get(store, 0)(store, 2) == 4
    for bad in (e["other"], 1):
        with pytest.raises(TypeError):
            table.set(store, 1, bad)
        with pytest.raises(TypeError):
            variable.set_value(store, bad)
    assert full.get(store, 1)(store, 2) == 4
    for action in (lambda: full.set(store, 0, None), lambda: full.grow(store, 1, None)):
        with pytest.raises(TypeError, match="has no null reference"):
            action()
    with pytest.raises(TypeError):
        variable.set_value(store, None)
    assert variable.value(store)(store, 3) == 6


def test_types_of_references(engine: Engine, exports: tuple[Store, Any]) -> None:
    store, e = exports
    module = Module(engine, APPLY)
    types = {x.name: x.type for x in module.exports}
    apply = e["apply"].type(store)
    assert apply == types["apply"]
    reference = apply.params[0]
    assert isinstance(reference, ValType)
    assert reference != ValType.funcref()
    assert str(types["any"].params[0]) == "(ref func)"
    assert str(types["any"].params[1]) == "(ref extern)"
    assert e["table"].type(store).element != reference
    assert e["full"].type(store).element == reference
    assert e["global"].type(store).content == reference
    # A type outlives what it came from, and can be used to make things.
    del module, types
    made = Func(store, FuncType([reference, ValType.i32()], [reference]), lambda f, x: f)
    assert made(store, e["double"], 1)(store, 4) == 8
    with pytest.raises(TypeError):
        made(store, None, 1)
    assert Global(store, GlobalType(reference, False), e["double"]).value(store)(store, 1) == 2
    assert Table(store, TableType(reference, Limits(1, None)), e["double"]).get(store, 0)(store, 1) == 2
    for bad in (None, e["other"]):
        with pytest.raises(TypeError):
            Table(store, TableType(reference, Limits(1, None)), bad)
        with pytest.raises(TypeError):
            Global(store, GlobalType(reference, False), bad)


def test_types_of_another_engine_are_refused(exports: tuple[Store, Any]) -> None:
    store, e = exports
    config = Config()
    config.wasm_function_references = True
    engine = Engine(config)
    other = Store(engine)
    ft = e["apply"].type(store)
    with pytest.raises(WasmtimeError, match="another engine"):
        Func(other, ft, lambda f, x: 1)
    theirs = Instance(other, Module(engine, APPLY), []).exports(other)["apply"]
    assert isinstance(theirs, Func)
    assert theirs.type(other) != ft


HOST = """(module
  (type $f (func (result i32)))
  (import "" "make" (func $make (param i32) (result (ref $f))))
  (func $seven (export "seven") (type $f) (i32.const 7))
  (func (export "run") (param i32) (result i32) (call_ref $f (call $make (local.get 0)))))"""


def test_results_of_host_functions_are_checked(engine: Engine) -> None:
    """Threat: a null reference, or one of another type, where compiled code calls without looking."""
    store = Store(engine)
    module = Module(engine, HOST)
    given: list[Any] = [None]
    ft = module.imports[0].type
    assert isinstance(ft, FuncType)
    make = Func(store, ft, lambda _: given[0])
    exports = Instance(store, module, [make]).exports(store)
    run, seven = exports["run"], exports["seven"]
    assert isinstance(run, Func)
    given[0] = seven
    assert run(store, 1) == 7
    for bad in (None, run, 5):
        given[0] = bad
        with pytest.raises(TypeError):
            run(store, 1)


def test_linking_by_subtyping(engine: Engine) -> None:
    """An immutable global may be of a subtype, a mutable one and a table may not (section 3.3.13); types are compared
    by what they are, wherever they stand in their modules."""
    linker = Linker(engine)
    store = Store(engine)
    source = Module(
        engine,
        """(module (type (func)) (type $t (func (param i32)))
             (func $f (export "f") (type $t))
             (global (export "g") (ref $t) (ref.func $f))
             (global (export "m") (mut (ref $t)) (ref.func $f))
             (table (export "t") 1 (ref null $t)))""",
    )
    linker.define_instance(store, "a", linker.instantiate(store, source))

    def link(item: str) -> Callable[[], object]:
        text = f'(module (type $mine (func (param i32))) (type $other (func)) (import "a" {item}))'
        return lambda: linker.instantiate(store, Module(engine, text))

    for good in (
        '"f" (func (type $mine))',
        '"g" (global (ref $mine))',
        '"g" (global (ref null $mine))',
        '"g" (global funcref)',
        '"g" (global (ref func))',
        '"m" (global (mut (ref $mine)))',
        '"t" (table 1 (ref null $mine))',
    ):
        link(good)()
    for bad in (
        '"f" (func (type $other))',
        '"g" (global (ref $other))',
        '"g" (global externref)',
        '"m" (global (mut funcref))',
        '"m" (global (mut (ref null $mine)))',
        '"t" (table 1 funcref)',
        '"t" (table 1 (ref null $other))',
    ):
        with pytest.raises(WasmtimeError, match="incompatible import type"):
            link(bad)()


@pytest.mark.parametrize(
    ("knob", "text"),
    [
        ("wasm_function_references", "(module (func (param (ref func))))"),
        ("wasm_function_references", "(module (type $t (func)) (func (local (ref null $t))))"),
        ("wasm_function_references", "(module (func (drop (ref.as_non_null (ref.null func)))))"),
        ("wasm_function_references", "(module (table 1 funcref (ref.null func)))"),
        ("wasm_function_references", "(module (rec (type (func)) (type (func))))"),
        ("wasm_tail_call", "(module (func (return_call 0)))"),
        ("wasm_wide_arithmetic", "(module (func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 2))))"),
        ("wasm_extended_const", "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))"),
    ],
)
def test_what_is_switched_off_is_refused(knob: str, text: str) -> None:
    config = Config()
    setattr(config, knob, False)
    with pytest.raises(WasmtimeError, match=f"are switched off: set Config.{knob} = True to allow them"):
        Module(Engine(config), text)


def test_images_remember_their_features() -> None:
    """An image made with a proposal is refused by an engine without it."""
    config = Config()
    config.wasm_function_references = True
    image = Module(Engine(config), "(module)").serialize()
    with pytest.raises(WasmtimeError, match="wasm_function_references = True, but this engine has False"):
        Module.deserialize(Engine(), image)


def test_images_keep_typed_references(engine: Engine) -> None:
    """Recursive types, tables with initial values and typed globals survive `serialize`."""
    text = """(module
      (rec (type $a (func (param (ref null $b)) (result i32))) (type $b (func (param (ref null $a)) (result i32))))
      (func $f (export "f") (type $a) (i32.const 3))
      (table (export "t") 3 (ref $a) (ref.func $f))
      (func (export "run") (result i32) (call_ref $a (ref.null $b) (table.get 0 (i32.const 2)))))"""
    module = Module.deserialize(engine, Module(engine, text).serialize())
    store = Store(engine)
    run = Instance(store, module, []).exports(store)["run"]
    assert isinstance(run, Func)
    assert run(store) == 3
