"""Tail calls (specification, section 4.4.10, `return_call`): constant stack space within a module, across instances,
between the compilers and into host functions; what the caller of a function that leaves by one finds afterwards; and
backtraces, from which such functions are gone."""

from __future__ import annotations

from typing import Any

import pytest

import wasmforge

STRATEGIES = [("baseline", "baseline"), ("baseline", "llvm"), ("llvm", "baseline"), ("llvm", "llvm"), ("lazy", "llvm")]
TYPES = ["i32", "i64", "f32", "f64"]
MANY = [TYPES[k % 4] for k in range(24)]
HOPS = 300_000
"""Frames of any size for so many calls do not fit into 512 KiB."""


def config(strategy: str) -> wasmforge.Config:
    made = wasmforge.Config()
    made.strategy = strategy
    made.cache = False
    made.wasm_function_references = True
    return made


def load(engine: wasmforge.Engine, strategy: str, text: str) -> wasmforge.Module:
    """A module compiled with a strategy; `lazy` means each function at its first call."""
    if strategy == "lazy":
        return wasmforge.Module(engine, text)
    image = wasmforge.Module(wasmforge.Engine(config(strategy)), text).serialize()
    return wasmforge.Module.deserialize(engine, image)


PING = f"""(module
  (type $hop (func (param i64) (result i64)))
  (type $many (func (param i64 {" ".join(MANY)}) (result {" ".join(MANY)})))
  (import "env" "table" (table 4 funcref))
  (import "env" "host" (func $host (param i64) (result i64)))
  (global $own (mut i64) (i64.const 11))
  (memory 1)
  (data (i32.const 8) "\\2a")
  (func $ping (export "ping") (type $hop)
    (if (i64.eqz (local.get 0)) (then (return (i64.const -1))))
    (return_call_indirect (type $hop) (i64.sub (local.get 0) (i64.const 1)) (i32.const 1)))
  (func $to_host (export "to_host") (type $hop) (return_call $host (local.get 0)))
  (func $many_ping (export "many_ping") (type $many)
    (if (i64.eqz (local.get 0)) (then (return {" ".join(f"(local.get {k + 1})" for k in range(24))})))
    (return_call_indirect (type $many) (i64.sub (local.get 0) (i64.const 1))
      {" ".join(f"(local.get {(k + 4) % 24 + 1})" for k in range(24))}
      (i32.const 3)))
  ;; Whoever calls a function that ends in another instance goes on in its own.
  (func (export "direct") (param i64) (result i64)
    (i64.add (call $ping (local.get 0)) (i64.mul (global.get $own) (i64.load8_u (i32.const 8)))))
  (func (export "indirect") (param i64) (result i64)
    (i64.add
      (i64.add (call_indirect (type $hop) (local.get 0) (i32.const 1))
               (call_indirect (type $hop) (local.get 0) (i32.const 1)))
      (i64.mul (global.get $own) (i64.load8_u (i32.const 8)))))
  (func (export "by_reference") (param i64) (result i64)
    (i64.add (call_ref $hop (local.get 0) (ref.func $ping)) (global.get $own)))
  (func (export "through_the_host") (param i64) (result i64)
    (i64.add (call $to_host (local.get 0)) (global.get $own)))
  (func (export "many") (param i64 {" ".join(MANY)}) (result {" ".join(MANY)})
    {" ".join(f"(local.get {k})" for k in range(25))} (call $many_ping)
    (global.set $own (i64.add (global.get $own) (i64.const 1))))
  (func (export "own") (result i64) (global.get $own))
  (elem (table 0) (i32.const 0) func $ping)
  (elem (table 0) (i32.const 2) func $many_ping))"""
PONG = f"""(module
  (type $hop (func (param i64) (result i64)))
  (type $many (func (param i64 {" ".join(MANY)}) (result {" ".join(MANY)})))
  (import "ping" "ping" (func $ping (type $hop)))
  (import "env" "table" (table 4 funcref))
  (import "ping" "many_ping" (func $many_ping (type $many)))
  (global $own (mut i64) (i64.const 5000))
  (func $pong (export "pong") (type $hop)
    (if (i64.eqz (local.get 0)) (then (return (i64.const -2))))
    (return_call $ping (i64.sub (local.get 0) (i64.const 1))))
  (func $many_pong (type $many)
    (if (i64.eqz (local.get 0)) (then (return {" ".join(f"(local.get {k + 1})" for k in range(24))})))
    (return_call $many_ping (i64.sub (local.get 0) (i64.const 1))
      {" ".join(f"(local.get {(k + 4) % 24 + 1})" for k in range(24))}))
  (elem (table 0) (i32.const 1) func $pong)
  (elem (table 0) (i32.const 3) func $many_pong))"""


class Pair:
    """Two instances that call each other by tail calls."""

    def __init__(self, first: str, second: str) -> None:
        engine = wasmforge.Engine(config("baseline" if "lazy" in (first, second) else "llvm"))
        self.store = wasmforge.Store(engine)
        self.calls: list[Any] = []
        i64 = wasmforge.ValType.i64()
        ft = wasmforge.FuncType([i64], [i64])
        limits = wasmforge.Limits(4, None)
        table = wasmforge.Table(self.store, wasmforge.TableType(wasmforge.ValType.funcref(), limits), None)
        linker = wasmforge.Linker(engine)
        linker.define(self.store, "env", "table", table)
        linker.define(self.store, "env", "host", wasmforge.Func(self.store, ft, self.host, access_caller=True))
        self.ping = linker.instantiate(self.store, load(engine, first, PING))
        linker.define_instance(self.store, "ping", self.ping)
        self.pong = linker.instantiate(self.store, load(engine, second, PONG))

    def host(self, caller: wasmforge.Caller, value: int) -> int:
        own = caller["own"]
        assert isinstance(own, wasmforge.Func)
        self.calls.append((value, own(caller)))
        return value * 2

    def call(self, name: str, *arguments: Any) -> Any:
        function = self.ping.exports(self.store)[name]
        assert isinstance(function, wasmforge.Func)
        return function(self.store, *arguments)


@pytest.fixture(params=STRATEGIES, ids="-".join)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(*request.param)


def test_hops_between_instances_take_no_stack(pair: Pair) -> None:
    assert pair.call("ping", HOPS) == -1
    assert pair.call("ping", HOPS + 1) == -2


def test_the_caller_goes_on_in_its_own_instance(pair: Pair) -> None:
    """Rule 1 of the convention: what was called may have ended in another instance, with that one's vmctx in r13."""
    for hops in (0, 1, 2, 7):
        last = -1 if hops % 2 == 0 else -2
        assert pair.call("direct", hops) == last + 11 * 42
        # The other instance is entered first here, and the same function twice.
        assert pair.call("indirect", hops) == 2 * (-3 - last) + 11 * 42
        assert pair.call("by_reference", hops) == last + 11


def test_more_arguments_and_results_than_registers(pair: Pair) -> None:
    """They travel through the areas of the store context, in another order at each hop, and to the first caller."""
    values = [float(k) if t[0] == "f" else -k for k, t in enumerate(MANY)]

    for hops in (0, 1, 2, 5):
        # Each hop moves them by four places, where values of the same types are.
        assert pair.call("many", hops, *values) == [values[(k + 4 * hops) % 24] for k in range(24)]
    assert pair.call("own") > 11


def test_into_the_host(pair: Pair) -> None:
    """A host function sees the instance that left by the tail call as its caller."""
    assert pair.call("to_host", 4) == 8
    assert pair.call("through_the_host", 5) == 21
    assert pair.calls == [(4, 11), (5, 11)]


TRAPS = """(module
  (table 3 funcref)
  (elem (i32.const 0) $divide $other)
  (type $binary (func (param i32 i32) (result i32)))
  (func $divide (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
  (func $other)
  (func $leave (param i32 i32) (result i32) (return_call $divide (local.get 0) (local.get 1)))
  (func (export "divide") (param i32 i32) (result i32)
    (i32.add (call $leave (local.get 0) (local.get 1)) (i32.const 1)))
  (func (export "argument") (param i32 i32) (result i32)
    (return_call $divide (i32.div_u (local.get 0) (local.get 1)) (i32.const 1)))
  (func (export "indirect") (param i32 i32) (result i32)
    (return_call_indirect (type $binary) (local.get 0) (i32.const 1) (local.get 1))))"""


@pytest.mark.parametrize("strategy", ["baseline", "llvm"])
class TestTraps:
    @pytest.fixture
    def exports(self, strategy: str) -> tuple[wasmforge.Store, Any]:
        engine = wasmforge.Engine(config(strategy))
        store = wasmforge.Store(engine)
        return store, wasmforge.Instance(store, wasmforge.Module(engine, TRAPS), []).exports(store)

    def frames(self, exports: tuple[wasmforge.Store, Any], name: str, *arguments: int) -> tuple[str, list[str | None]]:
        store, functions = exports
        with pytest.raises(wasmforge.Trap) as caught:
            functions[name](store, *arguments)
        return str(caught.value), [f.func_name or str(f.func_index) for f in caught.value.frames]

    def test_the_frame_that_left_is_gone(self, exports: tuple[wasmforge.Store, Any]) -> None:
        message, names = self.frames(exports, "divide", 1, 0)
        assert "integer divide by zero" in message
        assert names == ["divide", "3"]

    def test_a_trap_while_arguments_are_computed(self, exports: tuple[wasmforge.Store, Any]) -> None:
        """The function has not left yet."""
        _, names = self.frames(exports, "argument", 1, 0)
        assert names == ["4"]

    @pytest.mark.parametrize(
        ("index", "reason"),
        [(1, "indirect call type mismatch"), (2, "uninitialized element"), (3, "out of bounds table access")],
    )
    def test_checks_of_indirect_tail_calls(self, exports: tuple[wasmforge.Store, Any], index: int, reason: str) -> None:
        message, names = self.frames(exports, "indirect", 1, index)
        assert reason in message
        assert names == ["5"]


@pytest.mark.parametrize("strategy", ["baseline", "llvm"])
def test_recursion_without_end_still_exhausts_the_stack(strategy: str) -> None:
    """Only what is written as a tail call is one."""
    engine = wasmforge.Engine(config(strategy))
    store = wasmforge.Store(engine)
    text = '(module (func $f (export "f") (param i32) (result i32) (call $f (local.get 0))))'
    function = wasmforge.Instance(store, wasmforge.Module(engine, text), []).exports(store)["f"]
    assert isinstance(function, wasmforge.Func)
    with pytest.raises(wasmforge.Trap, match="call stack exhausted"):
        function(store, 1)


@pytest.mark.parametrize("strategy", ["baseline", "llvm"])
def test_large_frames_leave_too(strategy: str) -> None:
    """A frame beyond the probe size, left two hundred thousand times."""
    count = 9000
    uses = " ".join(f"(local.set {k} (i64.add (local.get {k}) (local.get 0)))" for k in range(1, count, 50))
    engine = wasmforge.Engine(config(strategy))
    store = wasmforge.Store(engine)
    text = f"""(module (func $f (export "f") (param i64) (result i64) (local {"i64 " * count}) {uses}
        (if (i64.eqz (local.get 0)) (then (return (local.get 1))))
        (return_call $f (i64.sub (local.get 0) (i64.const 1)))))"""
    function = wasmforge.Instance(store, wasmforge.Module(engine, text), []).exports(store)["f"]
    assert isinstance(function, wasmforge.Func)
    assert function(store, 20_000) == 0
