"""Code of both compilers in one store: calls in both directions, with all kinds of values, and traps whose backtraces
go through frames of both."""

from __future__ import annotations

import pytest

import wasmforge

TYPES = ["i32", "i64", "f32", "f64"]
MANY = [TYPES[k % 4] for k in range(40)]


def image(strategy: str, text: str) -> bytes:
    config = wasmforge.Config()
    config.strategy = strategy
    config.cache = False
    return bytes(wasmforge.Module(wasmforge.Engine(config), text).serialize())


def shuffle(name: str, callee: str) -> str:
    """A function that passes forty parameters on in reverse order of pairs, and returns the results as they come."""
    params = " ".join(MANY)
    order = [k + 4 if k + 4 < 40 else k + 4 - 40 for k in range(40)]
    arguments = " ".join(f"(local.get {k})" for k in order)
    return f'(func (export "{name}") (param {params}) (result {params}) {arguments} call {callee})'


def rotate(name: str) -> str:
    params = " ".join(MANY)
    return f"""(func $rotate (export "{name}") (param {params}) (result {params})
        {" ".join(f"(local.get {(k + 8) % 40})" for k in range(40))})"""


INNER = f"""(module
  (memory (export "memory") 1)
  (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  {rotate("rotate")})"""
OUTER = f"""(module
  (type $load (func (param i32) (result i32)))
  (import "inner" "load" (func $load (type $load)))
  (import "inner" "divide" (func $divide (param i32 i32) (result i32)))
  (import "inner" "rotate" (func $rotate (param {" ".join(MANY)}) (result {" ".join(MANY)})))
  (table (export "table") 1 funcref)
  (elem (i32.const 0) $load)
  (func $middle (param i32) (result i32) (i32.add (call $load (local.get 0)) (i32.const 1)))
  (func (export "load") (param i32) (result i32) (i32.mul (call $middle (local.get 0)) (i32.const 2)))
  (func (export "indirect") (param i32) (result i32)
    (i32.add (call_indirect (type $load) (local.get 0) (i32.const 0)) (i32.const 1)))
  (func (export "divide") (param i32 i32) (result i32)
    (i32.sub (call $divide (local.get 0) (local.get 1)) (i32.const 1)))
  {shuffle("shuffle", "$rotate")})"""


@pytest.fixture(params=[("baseline", "llvm"), ("llvm", "baseline"), ("baseline", "baseline")], ids="-".join)
def exports(request: pytest.FixtureRequest) -> tuple[wasmforge.Store, dict[str, wasmforge.Func]]:
    inner, outer = request.param
    engine = wasmforge.Engine()
    store = wasmforge.Store(engine)
    linker = wasmforge.Linker(engine)
    linker.define_instance(
        store, "inner", linker.instantiate(store, wasmforge.Module.deserialize(engine, image(inner, INNER)))
    )
    made = linker.instantiate(store, wasmforge.Module.deserialize(engine, image(outer, OUTER))).exports(store)
    return store, {name: made[name] for name in ("load", "indirect", "divide", "shuffle")}


def test_values(exports: tuple[wasmforge.Store, dict[str, wasmforge.Func]]) -> None:
    """Forty parameters and forty results, most of them through the areas of the store context (rules 3 and 4)."""
    store, functions = exports
    arguments = [float(k) if t[0] == "f" else -k for k, t in enumerate(MANY)]
    moved = [arguments[(k + 4) % 40] for k in range(40)]
    assert functions["shuffle"](store, *arguments) == [moved[(k + 8) % 40] for k in range(40)]
    assert functions["load"](store, 8) == 2
    assert functions["indirect"](store, 8) == 1
    assert functions["divide"](store, -9, 2) == -5


@pytest.mark.parametrize(
    ("name", "arguments", "message", "frames"),
    [
        ("load", (65536,), "out of bounds memory access", 3),
        ("indirect", (-1,), "out of bounds memory access", 2),
        ("divide", (1, 0), "integer divide by zero", 2),
        ("divide", (-(2**31), -1), "integer overflow", 2),
    ],
)
def test_backtraces(
    exports: tuple[wasmforge.Store, dict[str, wasmforge.Func]],
    name: str,
    arguments: tuple[int, ...],
    message: str,
    frames: int,
) -> None:
    store, functions = exports
    with pytest.raises(wasmforge.Trap, match=message) as caught:
        functions[name](store, *arguments)
    found = caught.value.frames
    assert len(found) == frames
    assert [f.module_offset > 0 for f in found] == [True] * frames
    # The innermost frame is at the instruction itself, the others are at calls: all have offsets in their functions.
    assert all(0 < f.func_offset < 60 for f in found)
    assert functions["load"](store, 0) == 2
