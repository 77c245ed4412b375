"""Asynchronous calls: host functions that are awaited, what else may run meanwhile, and what is left of calls that end
in any other way. (Nothing of it is in the core specification: a host function is any function, section 4.5.5.)"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import wasmforge
from wasmforge import (
    Caller,
    CallTimeout,
    Config,
    Engine,
    Func,
    FuncType,
    Instance,
    Linker,
    Module,
    Store,
    Trap,
    Val,
    ValType,
    WasmtimeError,
)

I32, I64, F64, EXTERNREF, FUNCREF = ValType.i32(), ValType.i64(), ValType.f64(), ValType.externref(), ValType.funcref()

TEXT = """(module
  (import "" "f" (func $f (param i32) (result i32)))
  (memory (export "memory") 1)
  (table (export "table") 2 funcref)
  (func (export "twice") (param i32) (result i32)
    (i32.add (call $f (local.get 0)) (call $f (i32.const 100))))
  (func (export "sum") (param i32) (result i32) (local i32)
    (loop $again
      (local.set 1 (i32.add (local.get 1) (call $f (local.get 0))))
      (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1))
  (func $deep (export "deep") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
      (else (call $f (i32.const 7)))))
  (func (export "plus") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func (export "then_trap") (param i32) (result i32) (drop (call $f (local.get 0))) unreachable)
  (func (export "many") (param i32 i64 f64 i32 i32 i32 i32 i32 i32) (result i32 f64 i64)
    (i32.add (local.get 0) (call $f (local.get 8))) (local.get 2) (local.get 1)))"""


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, with a limit, so that what is never resumed fails."""

    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(limited())


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


def guest(store: Store, f: Callable[..., Any], text: str = TEXT) -> dict[str, Any]:
    host = Func(store, FuncType([I32], [I32]), f)
    return dict(Instance(store, Module(store.engine, text), [host]).exports(store))


def test_an_awaited_result_is_that_of_the_host_call(store: Store) -> None:
    exports = guest(store, later)
    assert run(exports["twice"].call_async(store, 4)) == 208
    assert run(exports["sum"].call_async(store, 100)) == 10100
    assert run(exports["many"].call_async(store, 1, -2, 0.5, 0, 0, 0, 0, 0, 9)) == [19, 0.5, -2]


def test_a_call_that_waits_for_nothing_ends_at_once(store: Store) -> None:
    exports = guest(store, lambda x: x + 1)
    with pytest.raises(StopIteration) as info:
        exports["twice"].call_async(store, 4).send(None)
    assert info.value.value == 106


def test_others_run_while_a_call_waits(store: Store) -> None:
    events = []

    async def wait(x: int) -> int:
        events.append("wait")
        await asyncio.sleep(0)
        events.append("go on")
        return x

    async def other() -> None:
        events.append("other")

    async def main() -> None:
        await asyncio.gather(guest(store, wait)["plus"].call_async(store, 1), other())
        events.clear()
        await asyncio.gather(guest(store, wait)["deep"].call_async(store, 1), other())

    run(main())
    assert events == ["wait", "other", "go on"]


def test_frames_far_down_the_wasm_stack_survive(store: Store) -> None:
    async def wait(x: int) -> int:
        other = Store(store.engine)
        assert await guest(other, later)["deep"].call_async(other, 50) == 50 + 14
        return x

    assert run(guest(store, wait)["deep"].call_async(store, 4000)) == 4007


@pytest.mark.parametrize("kind", ["partial", "method", "object", "future", "task", "lambda"])
def test_any_awaitable_can_be_waited_for(store: Store, kind: str) -> None:
    class Host:
        async def method(self, x: int) -> int:
            return await later(x)

        async def __call__(self, x: int) -> int:
            return await later(x)

    def future(x: int) -> Any:
        made = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(made.set_result, x * 2)
        return made

    host: Any = {
        "partial": partial(later),
        "method": Host().method,
        "object": Host(),
        "future": future,
        "task": lambda x: asyncio.get_running_loop().create_task(later(x)),
        "lambda": lambda x: later(x),
    }[kind]
    assert run(guest(store, host)["sum"].call_async(store, 10)) == 110


def test_results_of_every_kind(store: Store) -> None:
    """None, several results and references arrive as those of a synchronous host function."""
    text = """(module
      (import "" "n" (func $n)) (import "" "m" (func $m (param i64) (result i32 f64 i64)))
      (import "" "r" (func $r (param externref) (result externref)))
      (import "" "g" (func $g (result funcref)))
      (table 1 funcref)
      (type $i (func (result i32)))
      (func (export "n") (call $n) (call $n))
      (func (export "m") (param i64) (result i32 f64 i64) (call $m (local.get 0)))
      (func (export "r") (param externref) (result externref) (call $r (local.get 0)))
      (func (export "g") (result i32)
        (table.set (i32.const 0) (call $g)) (call_indirect (type $i) (i32.const 0))))"""
    calls = []

    async def n() -> None:
        calls.append("n")
        await asyncio.sleep(0)

    async def m(x: int) -> tuple[int, float, int]:
        await asyncio.sleep(0)
        return 1, 2.5, x - 1

    async def r(x: object) -> object:
        await asyncio.sleep(0)
        return [x]

    seven = Func(store, FuncType([], [I32]), lambda: 7)

    async def g() -> Any:
        await asyncio.sleep(0)
        return Val.funcref(seven)

    functions = [
        Func(store, FuncType([], []), n),
        Func(store, FuncType([I64], [I32, F64, I64]), m),
        Func(store, FuncType([EXTERNREF], [EXTERNREF]), r),
        Func(store, FuncType([], [FUNCREF]), g),
    ]
    exports: Any = Instance(store, Module(store.engine, text), functions).exports(store)
    assert run(exports["n"].call_async(store)) is None
    assert calls == ["n", "n"]
    assert run(exports["m"].call_async(store, 5)) == [1, 2.5, 4]
    thing = object()
    assert run(exports["r"].call_async(store, thing)) == [thing]
    assert run(exports["g"].call_async(store)) == 7


def test_a_wrong_awaited_result_raises_as_a_wrong_result_does(store: Store) -> None:
    async def wrong(x: int) -> Any:
        await asyncio.sleep(0)
        return "text"

    exports = guest(store, wrong)
    with pytest.raises(TypeError, match=r"wrong\(\) result: expected i32|wrong\(\) result 1: expected i32"):
        run(exports["sum"].call_async(store, 1))
    assert exports["plus"](store, 1) == 2


def test_the_caller_is_valid_until_the_function_ends(store: Store) -> None:
    kept = []

    async def f(caller: Caller, x: int) -> int:
        kept.append(caller)
        await asyncio.sleep(0)
        memory: Any = caller["memory"]
        memory.write(caller, b"\x05", 0)
        return int(memory.read(caller, 0, 1)[0]) + x

    host = Func(store, FuncType([I32], [I32]), f, access_caller=True)
    exports: Any = Instance(store, Module(store.engine, TEXT), [host]).exports(store)
    assert run(exports["deep"].call_async(store, 3)) == 15
    assert repr(kept[0]) == "<Caller: the call is over>"
    with pytest.raises(ValueError, match="no longer valid"):
        exports["plus"](kept[0], 1)


def test_a_host_function_can_be_called_itself(store: Store) -> None:
    host = Func(store, FuncType([I32], [I32]), later)
    assert run(host.call_async(store, 21)) == 42


def test_exceptions_pass_through_with_their_traceback(store: Store) -> None:
    async def fail(x: int) -> int:
        await asyncio.sleep(0)
        raise KeyError(x)

    exports = guest(store, fail)
    with pytest.raises(KeyError) as info:
        run(exports["deep"].call_async(store, 3))
    assert info.value.args == (7,)
    assert info.traceback[-1].name == "fail"
    assert "wasm backtrace" in info.value.__notes__[0]
    assert info.value.__notes__[0].count("deep") >= 4
    assert exports["plus"](store, 1) == 2


def test_a_trap_after_waiting_has_a_backtrace(store: Store) -> None:
    exports = guest(store, later)
    with pytest.raises(Trap) as info:
        run(exports["then_trap"].call_async(store, 3))
    assert [frame.func_name for frame in info.value.frames] == ["then_trap"] or len(info.value.frames) == 1
    assert exports["plus"](store, 1) == 2
    assert run(exports["twice"].call_async(store, 1)) == 202


def test_stack_overflow_in_an_asynchronous_call(store: Store) -> None:
    exports = guest(store, later)
    with pytest.raises(Trap, match="stack"):
        run(exports["deep"].call_async(store, 10_000_000))
    assert run(exports["deep"].call_async(store, 5)) == 19


# --- What is not possible ------------------------------------------------------------------------------------------


def test_a_synchronous_call_cannot_wait(store: Store, recwarn: pytest.WarningsRecorder) -> None:
    exports = guest(store, later)
    with pytest.raises(
        WasmtimeError, match=r"asynchronous host function was called from a synchronous call.*call_async"
    ):
        exports["twice"](store, 1)
    gc.collect()
    assert not [w for w in recwarn if "never awaited" in str(w.message)]
    assert exports["plus"](store, 1) == 2


def test_a_nested_synchronous_call_cannot_wait(store: Store) -> None:
    """There are Python frames between the two activations, which nothing could suspend."""
    exports: dict[str, Any] = {}

    def between(x: int) -> int:
        return int(exports["inner"](store, x))

    text = """(module
      (import "" "b" (func $b (param i32) (result i32))) (import "" "f" (func $f (param i32) (result i32)))
      (func (export "outer") (param i32) (result i32) (call $b (local.get 0)))
      (func (export "inner") (param i32) (result i32) (call $f (local.get 0))))"""
    ty = FuncType([I32], [I32])
    instance = Instance(store, Module(store.engine, text), [Func(store, ty, between), Func(store, ty, later)])
    exports.update(instance.exports(store))
    with pytest.raises(WasmtimeError, match="only the outermost call can wait"):
        run(exports["outer"].call_async(store, 1))
    assert run(exports["inner"].call_async(store, 1)) == 2


def test_one_call_at_a_time(store: Store) -> None:
    exports = guest(store, later)
    first = exports["twice"].call_async(store, 1)
    first.send(None)
    for attempt in (lambda: exports["plus"](store, 1), lambda: exports["plus"].bind(store)(1)):
        with pytest.raises(WasmtimeError, match="asynchronous call into it is suspended"):
            attempt()
    with pytest.raises(WasmtimeError, match="asynchronous call into it is suspended"):
        exports["twice"].call_async(store, 1).send(None)
    first.close()
    assert exports["plus"](store, 1) == 2


def test_no_asynchronous_call_from_a_host_function_of_the_store(store: Store) -> None:
    def host(x: int) -> int:
        with pytest.raises(WasmtimeError, match="none from a host function"):
            exports["plus"].call_async(store, 1).send(None)
        return x

    exports = guest(store, host)
    assert exports["deep"](store, 0) == 7
    assert run(exports["deep"].call_async(store, 0)) == 7


def test_wrong_arguments(store: Store) -> None:
    exports = guest(store, later)
    with pytest.raises(wasmforge.WasmtimeError, match="too few parameters"):
        exports["plus"].call_async(store)
    with pytest.raises(TypeError, match="argument 1"):
        run(exports["plus"].call_async(store, "x"))
    with pytest.raises(WasmtimeError, match="wrong store"):
        exports["plus"].call_async(Store(store.engine), 1)


def test_objects_of_the_store_can_be_used_while_it_waits(store: Store) -> None:
    exports: dict[str, Any] = {}

    async def host(x: int) -> int:
        await asyncio.sleep(0)
        exports["memory"].write(store, b"abc", 10)
        exports["memory"].grow(store, 1)
        exports["table"].grow(store, 300, None)
        Instance(store, Module(store.engine, "(module (memory 1))"), [])
        store.gc()
        return int(exports["memory"].read(store, 10, 11)[0])

    exports.update(guest(store, host))
    assert run(exports["sum"].call_async(store, 2)) == 2 * 97
    assert exports["memory"].size(store) == 3


# --- Ends of all kinds ---------------------------------------------------------------------------------------------


def test_cancellation_unwinds_the_guest(store: Store) -> None:
    seen = []

    async def wait(x: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return x

    exports = guest(store, wait)

    async def main() -> None:
        task = asyncio.create_task(exports["deep"].call_async(store, 10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await exports["deep"].call_async(store, 10)

    run(main())
    assert seen == ["cancelled", "cancelled"]
    assert exports["plus"](store, 1) == 2


@pytest.mark.parametrize("where", ["_start", "_resume"])
def test_an_interrupt_between_suspending_and_awaiting(store: Store, where: str) -> None:
    """Python's signal handlers run after any call, so also when the store is suspended and nobody awaits yet."""
    export = guest(store, later)["sum"]
    call = export._function.async_call()
    real = getattr(call, where)

    def interrupted(*args: object) -> Any:
        real(*args)
        raise KeyboardInterrupt

    setattr(call, where, interrupted)
    with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="never awaited"):
        run(call.call(3))
    assert run(export.call_async(store, 1)) == 2
    setattr(call, where, real)
    first = export.call_async(store, 2)
    first.send(None)
    with pytest.raises(WasmtimeError, match="suspended"):
        call.call(3).send(None)
    with pytest.raises(StopIteration):
        while True:
            first.send(None)


def test_an_awaitable_that_pretends(store: Store) -> None:
    """Attack: an awaitable that looks like the tuple of a result."""

    class Pretender(tuple[int]):
        def __await__(self) -> Any:
            yield
            return 3

    assert run(guest(store, lambda x: Pretender([1]))["deep"].call_async(store, 1)) == 4


def test_a_host_function_may_survive_a_cancellation(store: Store) -> None:
    async def wait(x: int) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return 5
        return x

    exports = guest(store, wait)

    async def main() -> int:
        task = asyncio.create_task(exports["deep"].call_async(store, 10))
        await asyncio.sleep(0)
        task.cancel()
        return int(await task)

    assert run(main()) == 15


@pytest.mark.parametrize("how", ["close", "drop", "collect", "throw"])
def test_a_dropped_call_frees_everything(engine: Engine, how: str) -> None:
    class Thing:
        pass

    thing = Thing()

    async def wait(x: int, keep: Any = thing) -> int:
        await asyncio.sleep(0)
        return x

    store = Store(engine)
    exports = guest(store, wait)
    call = exports["deep"].call_async(store, 10)
    call.send(None)
    if how == "close":
        call.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            call.throw(KeyError())
    elif how == "collect":
        cycle: list[Any] = [call]
        cycle.append(cycle)
        del cycle, call
        gc.collect()
    call = None
    assert exports["plus"](store, 1) == 2
    assert run(exports["deep"].call_async(store, 1)) == 8
    weak, store_gone = weakref.ref(thing), weakref.ref(store._context())
    del store, exports, wait, thing
    gc.collect()
    assert weak() is None
    assert store_gone() is None


def test_a_cycle_through_a_suspended_call_is_collected(engine: Engine) -> None:
    """The store, the call and the host function refer to each other, and go together."""
    store = Store(engine)
    calls: list[Any] = []

    async def wait(x: int) -> int:
        await asyncio.sleep(0)
        return len(calls)

    calls.append(guest(store, wait)["deep"].call_async(store, 3))
    calls[0].send(None)
    gone = weakref.ref(store._context())
    calls = []
    del store, wait
    gc.collect()
    assert gone() is None


def test_a_loop_that_ends_early(store: Store) -> None:
    """`asyncio.run` cancels what is left."""

    async def wait(x: int) -> int:
        await asyncio.sleep(60)
        return x

    exports = guest(store, wait)

    async def main() -> None:
        main.task = asyncio.create_task(exports["deep"].call_async(store, 10))  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    run(main())
    assert exports["plus"](store, 1) == 2


def test_a_call_goes_on_in_another_thread(store: Store) -> None:
    call = guest(store, later)["twice"].call_async(store, 4)
    call.send(None)
    results = []

    def go_on() -> None:
        try:
            while True:
                call.send(None)
        except StopIteration as end:
            results.append(end.value)

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert results == [208]


def test_released_gil(store: Store) -> None:
    exports = guest(store, later)
    call = exports["twice"].bind_async(store, release_gil=True)
    assert run(call(4)) == 208
    with pytest.raises(Trap):
        run(exports["then_trap"].bind_async(store, release_gil=True)(4))
    pending = call(4)
    pending.send(None)
    pending.close()
    assert exports["plus"](store, 1) == 2


# --- Many stores -----------------------------------------------------------------------------------------------------


def test_stores_are_resumed_in_any_order(engine: Engine) -> None:
    """100 calls in flight, resumed at random, with exceptions, cancellations, drops and collections between."""
    rng = random.Random(6)
    module = Module(engine, TEXT)

    class Suspend:
        def __await__(self) -> Any:
            return (yield)

    async def host(x: int) -> int:
        return int(await Suspend())

    async def indirect(x: int) -> int:
        return await host(x)

    def start() -> tuple[Any, Any, int, list[int]]:
        store = Store(engine)
        f = Func(store, FuncType([I32], [I32]), rng.choice((host, indirect, lambda x: Suspend())))
        export: Any = Instance(store, module, [f]).exports(store)["sum"]
        call = export.call_async(store, rounds := rng.randrange(1, 6))
        call.send(None)
        return call, (store, export), rounds, []

    flights = [start() for _ in range(100)]
    finished = 0
    for step in range(3000):
        k = rng.randrange(len(flights))
        call, _, rounds, given = flights[k]
        action = rng.random()
        if action < 0.9:
            value = rng.randrange(1000)
            given.append(value)
            try:
                call.send(value)
                continue
            except StopIteration as end:
                assert len(given) == rounds
                assert end.value == sum(given)
                finished += 1
        elif action < 0.93:
            with pytest.raises(KeyError):
                call.throw(KeyError(step))
        elif action < 0.96:
            with pytest.raises(asyncio.CancelledError):
                call.throw(asyncio.CancelledError())
        elif action < 0.98:
            call.close()
        call = None
        if step % 500 == 0:
            gc.collect()
        flights[k] = start()
    assert finished > 300


def test_many_tasks(engine: Engine) -> None:
    async def one(n: int) -> int:
        store = Store(engine)
        return int(await guest(store, later)["sum"].call_async(store, n))

    async def main() -> list[int]:
        return list(await asyncio.gather(*(one(n) for n in range(1, 40))))

    assert run(main()) == [n * (n + 1) for n in range(1, 40)]


# --- The other ways in -----------------------------------------------------------------------------------------------

START = """(module (import "e" "f" (func $f (param i32) (result i32)))
  (global $g (mut i32) (i32.const 0))
  (func $start (global.set $g (call $f (i32.const 20))))
  (start $start)
  (func (export "get") (result i32) (global.get $g))
  (func (export "again") (param i32) (result i32) (call $f (local.get 0))))"""


def test_start_functions_may_wait(engine: Engine) -> None:
    linker = Linker(engine)
    linker.define_func("e", "f", FuncType([I32], [I32]), later)
    store = Store(engine)
    module = Module(engine, START)
    instance = run(linker.instantiate_async(store, module))
    assert instance.exports(store)["get"](store) == 40
    host: Any = linker.get(store, "e", "f")
    instance = run(Instance.instantiate_async(store, module, [host]))
    assert instance.exports(store)["get"](store) == 40
    with pytest.raises(WasmtimeError, match="asynchronous host function"):
        linker.instantiate(store, module)


def test_load_async() -> None:
    async def main() -> None:
        app = await wasmforge.load_async(START, {"e": {"f": later}})
        assert await app.get() == 40
        assert await app.again(4) == 8
        assert await wasmforge.call_async(app.again, 5) == 10
        other = await wasmforge.load_async(
            '(module (import "a" "again" (func $f (param i32) (result i32)))'
            ' (func (export "h") (param i32) (result i32) (call $f (local.get 0))))',
            {"a": app},
        )
        assert await other.h(6) == 12

    run(main())


def test_call_async_of_loaded_functions() -> None:
    app = wasmforge.load(TEXT, {"": {"f": later}})
    assert run(wasmforge.call_async(app.twice, 4)) == 208
    assert app.plus(1) == 2
    with pytest.raises(TypeError, match="function of a loaded module"):
        wasmforge.call_async(print, 1)


# --- Fuel, epochs and time -------------------------------------------------------------------------------------------

COUNT = """(module (func (export "count") (param i32) (result i32) (local i32)
    (loop $again
      (local.set 1 (i32.add (local.get 1) (i32.const 3)))
      (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1))
  (func (export "registers") (param i32 i64 f64 f64 i32 i32) (result f64)
    (local $s f64)
    (loop $again
      (local.set $s (f64.add (local.get $s) (f64.add (local.get 2)
        (f64.mul (local.get 3) (f64.convert_i64_s (i64.add (local.get 1) (i64.extend_i32_s (local.get 4))))))))
      (br_if $again (local.tee 0 (i32.sub (local.get 0) (local.get 5)))))
    (local.get $s))
  (func (export "forever") (loop $again (br $again))))"""


def metered(strategy: str, **settings: bool) -> Store:
    config = Config()
    config.strategy = strategy
    for name, value in settings.items():
        setattr(config, name, value)
    return Store(Engine(config))


def count_yields(call: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    yields = 0
    while True:
        try:
            assert call.send(None) is None
        except StopIteration as end:
            return yields, end.value
        yields += 1


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_fuel_yields(strategy: str) -> None:
    store = metered(strategy, consume_fuel=True)
    exports: Any = Instance(store, Module(store.engine, COUNT), []).exports(store)
    store.set_fuel(1_000_000)
    store.fuel_async_yield_interval(1000)
    before = store.get_fuel()
    yields, result = count_yields(exports["count"].call_async(store, 1000))
    assert result == 3000
    burnt = before - store.get_fuel()
    assert 0.8 * burnt <= yields * 1000 <= burnt, "a slice ends with the loop iteration that is under way"
    assert count_yields(exports["registers"].call_async(store, 1000, 3, 0.5, 2.0, -1, 1))[1] == 1000 * 4.5
    assert exports["count"](store, 1000) == 3000, "a synchronous call goes on"
    store.fuel_async_yield_interval(None)
    assert count_yields(exports["count"].call_async(store, 1000))[0] == 0
    store.fuel_async_yield_interval(1000)
    with pytest.raises(Trap, match="fuel"):
        count_yields(exports["forever"].call_async(store))
    with pytest.raises(ValueError, match="must not be 0"):
        store.fuel_async_yield_interval(0)


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_epoch_yields(strategy: str) -> None:
    store = metered(strategy, epoch_interruption=True)
    exports: Any = Instance(store, Module(store.engine, COUNT), []).exports(store)
    store.set_epoch_deadline(1)
    store.epoch_deadline_async_yield_and_update(1)
    call = exports["forever"].call_async(store)
    with store.engine.tick_epochs(0.001):
        for _ in range(5):
            call.send(None)
    call.close()
    store.set_epoch_deadline(0)
    assert count_yields(exports["registers"].call_async(store, 10, 3, 0.5, 2.0, -1, 1)) == (1, 45.0)
    store.set_epoch_deadline(0)
    assert exports["count"](store, 2) == 6, "a synchronous call goes on"
    store.epoch_deadline_trap()
    store.set_epoch_deadline(0)
    with pytest.raises(Trap, match="interrupt"):
        run(exports["count"].call_async(store, 2))


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_epochs_that_pass_while_others_run_are_not_the_guests(strategy: str) -> None:
    """Of several guests that never wait, each gets its slices; see `_new_epoch`."""
    store = metered(strategy, epoch_interruption=True)
    tick = Func(store, FuncType([], []), store.engine.increment_epoch)
    text = """(module (import "" "tick" (func $tick)) (func (export "run") (param i32)
      (loop $again (call $tick) (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"""
    exports: Any = Instance(store, Module(store.engine, text), [tick]).exports(store)
    store.epoch_deadline_async_yield_and_update(10)
    store.set_epoch_deadline(10)
    call = exports["run"].call_async(store, 100)
    yields = 0
    with pytest.raises(StopIteration):
        while True:
            call.send(None)
            yields += 1
            for _ in range(1000):
                store.engine.increment_epoch()
    assert yields == 9  # the tenth deadline passes in the last iteration


def test_an_epoch_yield_can_be_cancelled() -> None:
    store = metered("baseline", epoch_interruption=True)
    exports: Any = Instance(store, Module(store.engine, COUNT), []).exports(store)
    store.set_epoch_deadline(0)
    store.epoch_deadline_async_yield_and_update(0)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await exports["forever"].call_async(store)

    run(main())
    assert exports["count"](store, 2) == 6


def test_a_call_with_a_timeout(store: Store) -> None:
    exports: Any = Instance(store, Module(store.engine, COUNT), []).exports(store)
    with pytest.raises(CallTimeout, match=r"`forever` was stopped: it ran for longer than 0\.05 seconds") as info:
        exports["forever"].call(store, timeout=0.05)
    assert isinstance(info.value, TimeoutError)
    assert exports["count"].call(store, 2, timeout=60) == 6
    assert exports["count"].call(store, 2) == 6
    with pytest.raises(TypeError, match="number of seconds"):
        exports["count"].call(store, 2, timeout="1")


def test_epochs_tick_while_a_guest_keeps_the_gil() -> None:
    store = metered("baseline", epoch_interruption=True)
    exports: Any = Instance(store, Module(store.engine, COUNT), []).exports(store)
    store.set_epoch_deadline(3)
    with store.engine.tick_epochs(0.01) as ticker:
        with pytest.raises(Trap, match="interrupt"):
            exports["forever"](store)
        store.set_epoch_deadline(3)
        with pytest.raises(Trap, match="interrupt"):
            exports["forever"].bind(store, release_gil=True)()
    ticker.stop()
    epoch = store.engine._state.epoch
    assert epoch >= 6
    store.set_epoch_deadline(1)
    assert exports["count"](store, 100_000) == 300_000
    assert store.engine._state.epoch == epoch
    with pytest.raises(ValueError, match="more than 0"):
        store.engine.tick_epochs(0)


def test_the_ticker_ends_with_its_engine() -> None:
    engine = Engine()
    ticker = engine.tick_epochs(60)
    del engine
    gc.collect()
    ticker._thread.join(10)
    assert not ticker._thread.is_alive()


def test_tasks_share_the_thread_by_ticks() -> None:
    """Two guests that never wait, each in a store, take turns."""
    config = Config()
    config.epoch_interruption = True
    engine = Engine(config)
    module = Module(engine, COUNT)

    async def one(n: int) -> int:
        store = Store(engine)
        store.epoch_deadline_async_yield_and_update(1)
        store.set_epoch_deadline(1)
        export: Any = Instance(store, module, []).exports(store)["forever" if n else "count"]
        return int(await export.call_async(store, *([] if n else [10_000_000])))

    async def main() -> None:
        forever = asyncio.create_task(one(1))
        with engine.tick_epochs(0.002):
            assert await one(0) == 30_000_000
            forever.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forever

    run(main())
