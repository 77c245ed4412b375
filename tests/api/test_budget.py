"""Fuel, epoch deadlines and limits of a store: what a guest may take, and what happens beyond."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from wasmforge import Config, Engine, Func, FuncType, Instance, Module, Store, Trap, TrapCode, ValType, WasmtimeError

STRATEGIES = ("llvm", "baseline")

TEXT = """(module
  (import "" "h" (func $h (param i32) (result i32)))
  (memory (export "memory") 1) (table (export "table") 1 funcref)
  (func (export "sum") (param i32) (result i32) (local i32)
    (loop $again
      (local.set 1 (i32.add (local.get 1) (i32.const 3)))
      (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1))
  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add
        (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
  (func (export "empty"))
  (func (export "host") (param i32) (result i32) (i32.add (call $h (local.get 0)) (call $h (i32.const 2))))
  (func (export "floats") (param f64 i32) (result f64) (local f64)
    (loop $again
      (local.set 2 (f64.add (local.get 2) (f64.mul (local.get 0) (f64.const 0.5))))
      (br_if $again (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
    (local.get 2))
  (func (export "many") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 f32) (result i64)
    (i64.add (i64.extend_i32_s (i32.sub (local.get 7) (local.get 0)))
      (i64.add (local.get 8) (i64.trunc_f32_s (local.get 9)))))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_table") (param i32) (result i32) (table.grow (ref.null func) (local.get 0)))
  (func (export "forever") (loop $again (br $again))))"""  # fmt: skip

CALLS = (("sum", 5), ("sum", 300), ("fib", 7), ("fib", 15), ("empty",), ("host", 5), ("floats", 3.0, 9),
         ("many", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5))  # fmt: skip


def engine(strategy: str, **settings: bool) -> Engine:
    config = Config()
    config.strategy = strategy
    for name, value in settings.items():
        setattr(config, name, value)
    return Engine(config)


def instantiate(store: Store) -> Any:
    host = Func(store, FuncType([ValType.i32()], [ValType.i32()]), lambda x: x * 2)
    return Instance(store, Module(store.engine, TEXT), [host]).exports(store)


# --- Fuel -----------------------------------------------------------------------------------------------------------


def consumption(api: Any, strategy: str | None, given: int) -> list[object]:
    """What each call gives and leaves."""
    config = api.Config()
    config.consume_fuel = True
    if strategy:
        config.strategy = strategy
    store = api.Store(api.Engine(config))
    seen: list[int] = []

    def host(x: int) -> int:
        seen.append(store.get_fuel())
        return x * 2

    ft = api.FuncType([api.ValType.i32()], [api.ValType.i32()])
    module = api.Module(store.engine, TEXT)
    store.set_fuel(100)
    exports = api.Instance(store, module, [api.Func(store, ft, host)]).exports(store)
    found: list[object] = []
    for name, *arguments in CALLS:
        store.set_fuel(given)
        try:
            outcome = exports[name](store, *arguments)
        except api.Trap as trap:
            outcome = str(trap).rpartition("wasm trap: ")[2].strip()
        found.append((name, outcome, store.get_fuel()))
    return [*found, seen]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("given", [0, 1, 30, 700, 100_000, 2**64 - 1])
def test_fuel_is_counted_as_wasmtime_counts_it(strategy: str, given: int) -> None:
    import wasmforge

    wasmtime = pytest.importorskip("wasmtime", reason="needs the wasmtime package (the extra `bench`)")
    assert consumption(wasmforge, strategy, given) == consumption(wasmtime, None, given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loop_without_end_runs_out_of_fuel(strategy: str) -> None:
    store = Store(engine(strategy, consume_fuel=True))
    store.set_fuel(10)
    exports = instantiate(store)
    store.set_fuel(100_000)
    with pytest.raises(Trap, match="all fuel consumed by WebAssembly") as caught:
        exports["forever"](store)
    assert caught.value.trap_code is TrapCode.OUT_OF_FUEL
    assert store.get_fuel() == 0
    store.set_fuel(1000)
    assert exports["sum"](store, 3) == 9
    assert 900 < store.get_fuel() < 1000


def test_fuel_needs_its_setting() -> None:
    store = Store()
    for use in (lambda: store.set_fuel(1), store.get_fuel):
        with pytest.raises(WasmtimeError, match="fuel is not configured in this store"):
            use()


@pytest.mark.parametrize("wrong", [-1, 1 << 64])
def test_fuel_is_an_unsigned_number(wrong: int) -> None:
    store = Store(engine("baseline", consume_fuel=True))
    with pytest.raises(OverflowError, match="fuel must be at least 0 and below 2"):
        store.set_fuel(wrong)
    with pytest.raises(TypeError, match="fuel must be an int, got str"):
        store.set_fuel("1")  # type: ignore[arg-type]


# --- Epochs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_passed_deadline_traps(strategy: str) -> None:
    store = Store(engine(strategy, epoch_interruption=True))
    exports = instantiate(store)
    with pytest.raises(Trap, match="wasm trap: interrupt") as caught:
        exports["empty"](store)
    assert caught.value.trap_code is TrapCode.INTERRUPT
    store.set_epoch_deadline(2)
    for arguments in (("sum", 100), ("floats", 2.0, 5), ("many", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5)):
        name, *values = arguments
        exports[name](store, *values)
    store.engine.increment_epoch()
    assert exports["fib"](store, 10) == 55
    store.engine.increment_epoch()
    with pytest.raises(Trap, match="wasm trap: interrupt"):
        exports["fib"](store, 10)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_thread_stops_a_loop_without_end(strategy: str) -> None:
    store = Store(engine(strategy, epoch_interruption=True))
    exports = instantiate(store)
    forever = exports["forever"].bind(store, release_gil=True)
    store.set_epoch_deadline(1)
    timer = threading.Timer(0.05, store.engine.increment_epoch)
    timer.start()
    with pytest.raises(Trap, match="wasm trap: interrupt"):
        forever()
    timer.join()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_callback_extends_the_deadline_or_raises(strategy: str) -> None:
    store = Store(engine(strategy, epoch_interruption=True))
    exports = instantiate(store)
    asked: list[int] = []
    tick = store.engine.increment_epoch

    def decide() -> int | None:
        asked.append(len(asked))
        if len(asked) == 3:
            raise TimeoutError("enough")
        tick()
        return 1

    store.epoch_deadline_callback(decide)
    with pytest.raises(TimeoutError, match="enough"):
        for _ in range(10):
            tick()
            assert exports["floats"](store, 2.0, 40) == 40.0
            assert exports["many"](store, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5) == 26
    assert asked == [0, 1, 2]
    store.epoch_deadline_trap()
    with pytest.raises(Trap, match="wasm trap: interrupt"):
        exports["empty"](store)


def test_the_callback_must_return_a_number() -> None:
    store = Store(engine("baseline", epoch_interruption=True))
    exports = instantiate(store)
    store.epoch_deadline_callback(lambda: "soon")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="what the epoch callback returns must be an int, got str"):
        exports["empty"](store)
    with pytest.raises(TypeError, match="expected a callable, got int"):
        store.epoch_deadline_callback(1)  # type: ignore[arg-type]


def test_epochs_without_their_setting_stop_nothing() -> None:
    store = Store(engine("baseline"))
    exports = instantiate(store)
    store.engine.increment_epoch()
    assert exports["sum"](store, 3) == 9


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_both_at_once(strategy: str) -> None:
    store = Store(engine(strategy, epoch_interruption=True, consume_fuel=True))
    store.set_fuel(10**9)
    store.set_epoch_deadline(10**6)
    exports = instantiate(store)
    start = time.monotonic()
    assert exports["fib"](store, 15) == 610
    store.set_fuel(50)
    with pytest.raises(Trap, match="all fuel consumed"):
        exports["forever"](store)
    store.set_fuel(10**9)
    store.set_epoch_deadline(0)
    with pytest.raises(Trap, match="wasm trap: interrupt"):
        exports["forever"](store)
    assert time.monotonic() - start < 60


# --- Limits ---------------------------------------------------------------------------------------------------------


def test_memories_and_tables_grow_up_to_the_limits() -> None:
    store = Store(engine("baseline"))
    store.set_limits(memory_size=3 * 65536, table_elements=10)
    exports = instantiate(store)
    assert exports["grow"](store, 2) == 1
    assert exports["grow"](store, 1) == -1
    assert exports["grow_table"](store, 9) == 1
    assert exports["grow_table"](store, 1) == -1
    store.set_limits()
    assert exports["grow"](store, 1) == 3


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory_size": 100}, "memory minimum size of 1 pages exceeds memory limits"),
        ({"table_elements": 0}, "table minimum size of 1 elements exceeds table limits"),
        ({"instances": 0}, "resource limit exceeded: instance count too high at 1"),
        ({"memories": 0}, "resource limit exceeded: memory count too high at 1"),
        ({"tables": 0}, "resource limit exceeded: table count too high at 1"),
    ],
)
def test_what_exceeds_a_limit_is_not_created(limits: dict[str, int], message: str) -> None:
    store = Store(engine("baseline"))
    store.set_limits(**limits)
    with pytest.raises(WasmtimeError, match=message):
        instantiate(store)


def test_limits_are_numbers() -> None:
    with pytest.raises(TypeError, match="memories must be an int, got None"):
        Store().set_limits(memories=None)  # type: ignore[arg-type]
