"""What Python users expect: `help` and signatures of exports, host functions from type hints, useful `repr`s, arrays
without copies, and modules that travel to other processes."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import pydoc
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

import wasmforge
from wasmforge import (
    Caller,
    Config,
    Engine,
    Func,
    FuncType,
    HostFunction,
    Instance,
    Linker,
    Module,
    Store,
    Val,
    ValType,
    WasmtimeError,
    f32,
    i32,
    i64,
    load,
)
from wasmforge._pickling import settings_of

I32, I64, F32, F64 = ValType.i32(), ValType.i64(), ValType.f32(), ValType.f64()

CALLS_ADD = """(module
  (import "host" "add" (func $add (param i32 i32) (result i32)))
  (func (export "three") (result i32) (call $add (i32.const 1) (i32.const 2))))"""

INCREMENT = '(module (func (export "f") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))'


def run_in_worker(module: Module, number: int) -> int:
    result: int = load(module).f(number)
    return result


# --- help, signatures, repr -----------------------------------------------------------------------------------------


def test_help_shows_the_type(engine: Engine) -> None:
    app = load(
        """(module
          (func (export "add") (param i32 i64) (result f32) (f32.const 0))
          (func (export "two") (result i32 f64) (i32.const 1) (f64.const 2))
          (func (export "a name")))""",
        engine=engine,
    )
    assert "add(i32, i64) -> f32" in pydoc.render_doc(app.add)
    assert list(inspect.signature(app.add).parameters) == ["p0", "p1"]
    assert list(inspect.signature(app.two).parameters) == []
    assert app.two.__doc__ == "WebAssembly function two() -> i32, f64"
    assert app["a name"].__doc__ == "WebAssembly function a name()"


def test_documentation_of_exports_is_bounded(engine: Engine) -> None:
    """A small module can export a large signature very often; what is kept of it must not grow with both."""
    many = " ".join(["i32"] * 1000)
    exports = "".join(f'(export "f{k}" (func 0))' for k in range(100))
    app = load(f"(module (func (param {many})) {exports})", engine=engine)
    assert app.f7.__doc__ is None


def test_tab_completion_offers_the_exports_alone(engine: Engine) -> None:
    app = load(INCREMENT, engine=engine)
    assert [name for name in dir(app) if not name.startswith("_")] == ["f"]


def test_repr_says_what_it_is() -> None:
    config = Config()
    config.consume_fuel = True
    assert repr(config) == "<Config strategy='auto', consume_fuel=True>"
    engine = Engine(config)
    assert repr(engine) == "<Engine strategy='auto', consume_fuel=True>"
    store = Store(engine, {"a": 1})
    assert repr(store).endswith("with dict data>")
    module = Module(engine, '(module $m (func (export "f")))')
    assert repr(Instance(store, module, [])) == "<Instance of 'm': 1 exports>"
    store.close()
    assert repr(store) == "<Store closed>"
    objects = (engine, config, store, module, Linker(engine), Val.i32(1), I32, FuncType([I32], []))
    assert [o for o in objects if " object at 0x" in repr(o)] == []


# --- Host functions -------------------------------------------------------------------------------------------------


@wasmforge.func("i32, i32 -> i32")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@wasmforge.func
def many(a: i32, b: i64, c: f32, d: float, e: bool, g: bytes, h: Func | None, i: object) -> tuple[int, i64]:
    return a, b


@wasmforge.func
def peek(caller: Caller, address: int) -> int:
    return bytes(caller["memory"].read(caller, address, address + 1))[0]


def test_a_decorated_function_is_still_a_function() -> None:
    assert isinstance(add, HostFunction)
    assert add(1, 2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert repr(add) == "<HostFunction add: [i32 i32] -> [i32]>"


def test_types_of_hints() -> None:
    expected = [I32, I64, F32, F64, I32, ValType.v128(), ValType.funcref(), ValType.externref()]
    assert many.type == FuncType(expected, [I32, I64])
    assert (peek.type, peek.access_caller) == (FuncType([I32], [I32]), True)

    def nothing() -> None: ...

    assert wasmforge.func(nothing).type == FuncType([], [])


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("i32, i64 -> f32", FuncType([I32, I64], [F32])),
        ("(i32, i64) -> (f32, f64)", FuncType([I32, I64], [F32, F64])),
        ("", FuncType([], [])),
        ("->", FuncType([], [])),
        ("-> v128", FuncType([], [ValType.v128()])),
        ("externref,funcref", FuncType([ValType.externref(), ValType.funcref()], [])),
    ],
)
def test_signatures(signature: str, expected: FuncType) -> None:
    assert wasmforge.func(signature)(lambda *_: None).type == expected


def test_hints_that_say_too_little() -> None:
    def untyped(a):
        return a

    def no_result(a: int):
        return a

    def text(a: str) -> None: ...

    def rest(*a: int) -> None: ...

    def open_tuple() -> tuple[int, ...]:
        return ()

    for function, message in (
        (untyped, "parameter 'a' needs a type hint"),
        (no_result, "the result needs a type hint"),
        (text, "no WebAssembly type for <class 'str'>"),
        (rest, "positional arguments only"),
        (open_tuple, "number of results must be known"),
    ):
        with pytest.raises(TypeError, match=message):
            wasmforge.func(function)
    with pytest.raises(TypeError, match="got 'int'"):
        wasmforge.func("int -> i32")
    with pytest.raises(TypeError, match="expected a signature"):
        wasmforge.func(7)


def test_host_functions_are_imports(engine: Engine) -> None:
    assert load(CALLS_ADD, {"host": {"add": add}}, engine=engine).three() == 3
    with pytest.raises(WasmtimeError, match="incompatible import type for `host::add`"):
        load(CALLS_ADD, {"host": {"add": peek}}, engine=engine)

    module = Module(engine, CALLS_ADD)
    linker = Linker(engine)
    store = Store(engine)
    linker.define(store, "host", "add", add)
    for each in (store, Store(engine)):  # it belongs to no store: one definition serves all
        assert linker.instantiate(each, module).exports(each)["three"](each) == 3
        assert Instance(each, module, [add.bind(each)]).exports(each)["three"](each) == 3
    with pytest.raises(WasmtimeError, match="defined twice"):
        linker.define(store, "host", "add", add)


def test_a_host_function_with_its_caller(engine: Engine) -> None:
    app = load(
        """(module (import "host" "peek" (func $peek (param i32) (result i32)))
             (memory (export "memory") 1) (data (i32.const 5) "*")
             (func (export "f") (result i32) (call $peek (i32.const 5))))""",
        {"host": {"peek": peek}},
        engine=engine,
    )
    assert app.f() == 42


# --- Memory ---------------------------------------------------------------------------------------------------------


def test_arrays_share_the_bytes_also_after_growing(engine: Engine) -> None:
    numpy = pytest.importorskip("numpy")
    app = load(
        """(module (memory (export "memory") 1 3)
             (func (export "grow") (drop (memory.grow (i32.const 1))))
             (func (export "set") (param i32 i32) (i32.store (local.get 0) (local.get 1))))""",
        engine=engine,
    )
    before = numpy.asarray(app.memory)
    app.grow()
    after = numpy.asarray(app.memory)
    app.set(8, 7)
    assert (before[8], after[8]) == (7, 7)
    after[8] = 9
    assert (before[8], app.memory[8]) == (9, 9)
    assert (len(before), len(after)) == (65536, 131072)
    if sys.version_info >= (3, 12):
        assert memoryview(app.memory)[8] == 9
    assert app.memory.view()[8] == 9


# --- Pickling -------------------------------------------------------------------------------------------------------


def test_modules_travel_to_other_processes(engine: Engine) -> None:
    module = Module(engine, INCREMENT)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(run_in_worker, [module] * 3, range(3))) == [1, 2, 3]


def test_an_unpickled_module_has_the_settings_of_its_engine() -> None:
    config = Config()
    config.consume_fuel = True
    module = Module(Engine(config), INCREMENT)
    copies = [pickle.loads(pickle.dumps(module)) for _ in range(2)]
    assert copies[0].engine is copies[1].engine
    store = Store(copies[0].engine)
    store.set_fuel(100)
    f: Any = Instance(store, copies[1], []).exports(store)["f"]
    assert f(store, 41) == 42
    assert store.get_fuel() < 100


def test_a_module_is_compiled_once_for_all_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module(Engine(), INCREMENT)
    first = pickle.dumps(module)

    def compile_again(_: object) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(type(module._compiled), "serialize", compile_again)
    assert pickle.dumps(module) == first


def test_what_does_not_fit_is_refused() -> None:
    module = Module(Engine(), INCREMENT)
    rebuild, (version, settings, image) = module.__reduce__()
    with pytest.raises(WasmtimeError, match=r"made by wasmforge 0\.0\.0\.never"):
        rebuild("0.0.0.never", settings, image)
    damaged = bytearray(image)
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(WasmtimeError):
        rebuild(version, settings, bytes(damaged))
    other = Config()
    other.consume_fuel = True
    wrong = settings_of(Engine(other))
    with pytest.raises(WasmtimeError, match="consume_fuel"):
        rebuild(version, wrong, image)
    module.close()
    with pytest.raises(ValueError, match="closed"):
        pickle.dumps(module)


def test_coroutine_functions_have_types_too(engine: Engine) -> None:
    @wasmforge.func
    async def add_later(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def main() -> int:
        app = await wasmforge.load_async(CALLS_ADD, {"host": {"add": add_later}}, engine=engine)
        result: int = await app.three()
        return result

    assert asyncio.run(main()) == 3

    async def by_hand() -> Any:
        store = Store(engine)
        add = Func(store, add_later.type, add_later)
        three = Instance(store, Module(engine, CALLS_ADD), [add]).exports(store)["three"]
        return await three.call_async(store)

    assert asyncio.run(by_hand()) == 3
