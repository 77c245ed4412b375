"""Ten thousand traps of every kind in four threads, each with stores of its own, leave nothing behind that is wrong:
each is the trap that it must be, at its instruction, and what runs between them computes what it must on memory that
holds what it must (specification, section 4.2.2: a trap ends a computation, and changes no store).
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from wasmforge import Config, Engine, Func, FuncType, Instance, Memory, Module, Store, Trap, TrapCode, ValType

PLAIN = """(module
  (import "" "host" (func $host (param i32) (result i32)))
  (memory (export "memory") 1 1) (table $t 4 funcref) (elem (i32.const 1) $odd)
  (type $void (func)) (type $odd (func (param i32 i64)))
  (func $odd (type $odd))
  (func $unreachable (export "unreachable") unreachable)
  (func (export "tail") (return_call $unreachable))
  (func (export "tail_indirect") (param i32) (return_call_indirect (type $void) (local.get 0)))
  (func (export "tail_ref") (return_call_ref $void (ref.null $void)))
  (func (export "call_ref") (call_ref $void (ref.null $void)))
  (func (export "non_null") (drop (ref.as_non_null (ref.null func))))
  (func $load (export "load") (param i32) (result i32) (i32.load offset=4 (local.get 0)))
  (func (export "store") (param i32) (i64.store (local.get 0) (i64.const -1)))
  (func (export "speculated") (param i32 i32) (result i32) (local i32)
    (local.set 2 (i32.load (local.get 0)))
    (if (local.get 1) (then (local.set 1 (i32.add (local.get 1) (local.get 2))))) (local.get 1))
  (func (export "vector") (param i32) (result i32)
    (i32x4.extract_lane 3 (i32x4.add (v128.load (i32.const 0)) (v128.load (local.get 0)))))
  (func (export "vector_store") (param i32) (v128.store (local.get 0) (v128.const i64x2 -1 -1)))
  (func (export "widen") (param i32) (result i32) (i32x4.extract_lane 0 (v128.load16x4_s (local.get 0))))
  (func (export "atomic") (param i32) (result i32) (i32.atomic.rmw.add (local.get 0) (i32.const 1)))
  (func (export "exchange") (param i32) (result i64)
    (i64.atomic.rmw.cmpxchg (local.get 0) (i64.const 0) (i64.const 1)))
  (func (export "wait") (param i32) (result i32)
    (memory.atomic.wait32 (local.get 0) (i32.const 0) (i64.const 0)))
  (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "rem") (param i64 i64) (result i64) (i64.rem_u (local.get 0) (local.get 1)))
  (func (export "trunc") (param f64) (result i32) (i32.trunc_f64_s (local.get 0)))
  (func (export "indirect") (param i32) (call_indirect (type $void) (local.get 0)))
  (func (export "get") (param i32) (result funcref) (table.get (local.get 0)))
  (func (export "fill") (param i32) (table.fill (local.get 0) (ref.null func) (i32.const 2)))
  (func (export "copy") (param i32) (memory.copy (local.get 0) (i32.const 0) (i32.const 10)))
  (func $recurse (export "recurse") (param i32) (result i32)
    (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
  (func (export "nested") (param i32) (result i32) (i32.add (i32.const 1) (call $host (local.get 0))))
  (func (export "sum") (param i32) (result i32) (local i32)
    (loop (local.set 1 (i32.add (local.get 1) (i32.mul (local.get 0) (local.get 0))))
      (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1)))"""

ENDLESS = '(module (func (export "endless") (loop (br 0))) (func (export "one") (result i32) (i32.const 1)))'

BOUNDS = TrapCode.MEMORY_OUT_OF_BOUNDS
TABLE = TrapCode.TABLE_OUT_OF_BOUNDS
NULL = TrapCode.NULL_REFERENCE
KINDS: list[tuple[str, tuple[Any, ...], TrapCode]] = [
    ("unreachable", (), TrapCode.UNREACHABLE),
    ("tail", (), TrapCode.UNREACHABLE),
    ("tail_indirect", (0,), TrapCode.INDIRECT_CALL_TO_NULL),
    ("tail_indirect", (1,), TrapCode.BAD_SIGNATURE),
    ("tail_indirect", (9,), TABLE),
    ("tail_ref", (), NULL),
    ("call_ref", (), NULL),
    ("non_null", (), NULL),
    ("load", (65536 - 7,), BOUNDS),
    ("load", (-1,), BOUNDS),
    ("store", (65529,), BOUNDS),
    ("speculated", (65533, 0), BOUNDS),
    ("speculated", (65533, 1), BOUNDS),
    ("vector", (65521,), BOUNDS),
    ("vector_store", (65521,), BOUNDS),
    ("widen", (65529,), BOUNDS),
    ("atomic", (65536,), BOUNDS),
    ("atomic", (6,), TrapCode.HEAP_MISALIGNED),
    ("exchange", (65536,), BOUNDS),
    ("exchange", (12,), TrapCode.HEAP_MISALIGNED),
    ("wait", (0,), TrapCode.ATOMIC_WAIT_NON_SHARED_MEMORY),
    ("copy", (65530,), BOUNDS),
    ("div", (1, 0), TrapCode.INTEGER_DIVISION_BY_ZERO),
    ("div", (-(2**31), -1), TrapCode.INTEGER_OVERFLOW),
    ("rem", (1, 0), TrapCode.INTEGER_DIVISION_BY_ZERO),
    ("trunc", (float("nan"),), TrapCode.BAD_CONVERSION_TO_INTEGER),
    ("trunc", (3e9,), TrapCode.INTEGER_OVERFLOW),
    ("indirect", (0,), TrapCode.INDIRECT_CALL_TO_NULL),
    ("indirect", (1,), TrapCode.BAD_SIGNATURE),
    ("indirect", (4,), TABLE),
    ("get", (4,), TABLE),
    ("fill", (3,), TABLE),
    ("nested", (65533,), BOUNDS),
    ("recurse", (0,), TrapCode.STACK_OVERFLOW),
]
TRAPS = 10_000
THREADS = 4
CONTENTS = bytes(range(256)) * 256


class Storm:
    """One thread's stores: of an engine that counts nothing, of one that counts fuel, of one that has epochs."""

    def __init__(self, engines: dict[str, Engine], modules: dict[str, Module]) -> None:
        self.seen: Counter[tuple[str, TrapCode | None]] = Counter()
        self.offsets: dict[tuple[str, tuple[Any, ...]], list[int | None]] = {}
        self.store = Store(engines["plain"])
        signature = FuncType([ValType.i32()], [ValType.i32()])
        host = Func(self.store, signature, lambda x: self.exports["load"](self.store, x))
        self.exports: Any = Instance(self.store, modules["plain"], [host]).exports(self.store)
        self.memory: Memory = self.exports["memory"]
        self.memory.write(self.store, CONTENTS)
        self.counted = {name: Store(engines[name]) for name in ("fuel", "epochs")}
        self.counted["fuel"].set_fuel(1000)
        self.endless: dict[str, Any] = {}
        for name, store in self.counted.items():
            if name == "epochs":
                store.set_epoch_deadline(1 << 40)
            self.endless[name] = Instance(store, modules[name], []).exports(store)

    def expect(self, code: TrapCode, store: Store, function: Any, name: str, *arguments: Any) -> None:
        try:
            value = function(store, *arguments)
        except Trap as trap:
            assert trap.trap_code is code, (name, arguments, trap.trap_code)
            self.seen[name, trap.trap_code] += 1
            offsets = [frame.module_offset for frame in trap.frames[:2]]
            if code is not TrapCode.STACK_OVERFLOW:
                assert self.offsets.setdefault((name, arguments), offsets) == offsets, (name, arguments)
        else:
            raise AssertionError(f"{name}{arguments} returned {value}")

    def round(self) -> None:
        for name, arguments, code in KINDS:
            self.expect(code, self.store, self.exports[name], name, *arguments)
        fuel, epochs = self.counted["fuel"], self.counted["epochs"]
        fuel.set_fuel(100)
        self.expect(TrapCode.OUT_OF_FUEL, fuel, self.endless["fuel"]["endless"], "fuel")
        fuel.set_fuel(100)
        epochs.set_epoch_deadline(0)
        self.expect(TrapCode.INTERRUPT, epochs, self.endless["epochs"]["endless"], "epochs")
        epochs.set_epoch_deadline(1 << 40)
        for name, store in self.counted.items():
            assert self.endless[name]["one"](store) == 1
        assert self.exports["sum"](self.store, 100) == 338350
        assert self.memory.read(self.store) == CONTENTS


@pytest.mark.parametrize("strategy", ["llvm", "baseline", "auto"])
def test_ten_thousand_traps_in_four_threads(strategy: str) -> None:
    engines = {}
    for name in ("plain", "fuel", "epochs"):
        config = Config()
        config.strategy = strategy
        if strategy == "auto":
            config.tier_up_threshold = 50  # so that the traps begin in one tier and end in the other
        config.wasm_function_references = True
        config.consume_fuel = name == "fuel"
        config.epoch_interruption = name == "epochs"
        engines[name] = Engine(config)
    modules = {name: Module(engine, PLAIN if name == "plain" else ENDLESS) for name, engine in engines.items()}
    storms: list[Storm] = []
    failures: list[BaseException] = []
    rounds = TRAPS // (THREADS * (len(KINDS) + 2)) + 1

    def work() -> None:
        try:
            storm = Storm(engines, modules)
            storms.append(storm)
            for _ in range(rounds):
                storm.round()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(sum(storm.seen.values()) for storm in storms) >= TRAPS
    # Each trap at the same instruction in all threads.
    assert all(storm.offsets == storms[0].offsets for storm in storms)
