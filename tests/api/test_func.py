"""Calling functions, in both directions: arguments, errors, bit patterns, nested entry, and what a built-in function
object of `bind` does."""

from __future__ import annotations

import gc
import math
import struct
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import wasmforge
from wasmforge import Caller, Engine, Func, FuncType, Instance, Linker, Module, Store, Trap, Val, ValType, WasmtimeError
from wasmforge.instance import InstanceExports

I32, I64, F32, F64 = ValType.i32(), ValType.i64(), ValType.f32(), ValType.f64()
FUNCREF, EXTERNREF = ValType.funcref(), ValType.externref()

Instantiate = Callable[..., InstanceExports]

IDENTITY = """(module
  (func (export "i32") (param i32) (result i32) (local.get 0))
  (func (export "i64") (param i64) (result i64) (local.get 0))
  (func (export "f32") (param f32) (result f32) (local.get 0))
  (func (export "f64") (param f64) (result f64) (local.get 0))
  (func (export "funcref") (param funcref) (result funcref) (local.get 0))
  (func (export "all") (param i32 i64 f32 f64 funcref externref) (result i32 i64 f32 f64 funcref externref)
    (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)))"""


def test_integers_are_taken_signed_or_unsigned_and_given_signed(store: Store, instantiate: Instantiate) -> None:
    x = instantiate(IDENTITY)
    for name, bits in (("i32", 32), ("i64", 64)):
        for value in (0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 2 ** (bits - 1), 2**bits - 1):
            result = x[name](store, value)
            assert result == value - (2**bits if value >= 2 ** (bits - 1) else 0)


@pytest.mark.parametrize(
    ("name", "value"), [("i32", 2**32), ("i32", -(2**31) - 1), ("i64", 2**64), ("i64", -(2**63) - 1)]
)
def test_integers_out_of_range_are_overflow_errors(
    store: Store, instantiate: Instantiate, name: str, value: int
) -> None:
    """The wasmtime package cuts them off silently."""
    with pytest.raises(OverflowError, match=rf"{name}\(\) argument 1: .*{name}"):
        instantiate(IDENTITY)[name](store, value)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [("i32", "1", "str"), ("i64", 1.0, "float"), ("f32", "1", "str"), ("f64", None, "NoneType")],
)
def test_wrong_types_name_function_parameter_and_type(
    store: Store, instantiate: Instantiate, name: str, value: object, got: str
) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) argument 1: expected {name}, got {got}"):
        instantiate(IDENTITY)[name](store, value)


def test_wrong_counts_are_errors_of_both_worlds(store: Store, instantiate: Instantiate) -> None:
    """A WasmtimeError, as in the wasmtime package, and a TypeError, as for every Python function."""
    function = instantiate(IDENTITY)["i32"]
    for arguments in ((), (1, 2)):
        for error in (WasmtimeError, TypeError):
            with pytest.raises(error, match=f"given {len(arguments)}, expected 1"):
                function(store, *arguments)


def test_floats_take_ints_and_keep_their_values(store: Store, instantiate: Instantiate) -> None:
    x = instantiate(IDENTITY)
    assert x["f64"](store, 3) == 3.0
    assert isinstance(x["f64"](store, 3), float)
    assert x["f32"](store, 0.1) == struct.unpack("f", struct.pack("f", 0.1))[0]
    assert math.isnan(x["f64"](store, math.nan))
    assert math.copysign(1, x["f32"](store, -0.0)) == -1


def test_every_type_at_once(store: Store, instantiate: Instantiate) -> None:
    x = instantiate(IDENTITY)
    thing = object()
    results = x["all"](store, 1, -2, 0.5, 0.25, x["i32"], thing)
    assert results[:4] == [1, -2, 0.5, 0.25]
    assert results[4] == x["i32"]
    assert results[4](store, 7) == 7
    assert results[5] is thing
    nulls = x["all"](store, 0, 0, 0.0, 0.0, None, None)
    assert nulls[4:] == [None, None]
    wrapped = x["all"](
        store, Val.i32(1), Val.i64(2), Val.f32(3.0), Val.f64(4.0), Val.funcref(x["f64"]), Val.externref(thing)
    )
    assert wrapped == [1, 2, 3.0, 4.0, x["f64"], thing]
    assert x["all"](store, 0, 0, 0.0, 0.0, Val.funcref(None), Val.externref(None))[4:] == [None, None]


def test_call_raw_keeps_bit_patterns(store: Store, instantiate: Instantiate) -> None:
    x = instantiate(IDENTITY)
    signalling = 0x7FA00001
    assert x["f32"].call_raw(store, [signalling]) == [signalling]
    assert x["i32"].call_raw(store, [0xFFFFFFFF]) == [0xFFFFFFFF]
    assert x["f64"].call_raw(store, [0x7FF0000000000001]) == [0x7FF0000000000001]
    with pytest.raises(OverflowError):
        x["i32"].call_raw(store, [2**32])
    with pytest.raises(WasmtimeError, match="too few"):
        x["i32"].call_raw(store, [])


def test_bind_gives_the_built_in_function(store: Store, instantiate: Instantiate) -> None:
    function = instantiate(IDENTITY)["i32"]
    bound = function.bind(store)
    assert type(bound).__name__ == "builtin_function_or_method"
    assert bound(5) == 5
    assert bound is function.bind(store), "it is made once"
    assert [*map(bound, range(5))] == [0, 1, 2, 3, 4]


def test_a_bound_function_is_a_reference_too(store: Store, instantiate: Instantiate) -> None:
    x = instantiate(IDENTITY)
    assert x["funcref"](store, x["i32"].bind(store)) == x["i32"]
    with pytest.raises(TypeError, match="funcref"):
        x["funcref"](store, print)
    with pytest.raises(TypeError, match="funcref"):
        x["funcref"](store, [].append)


SPIN = """(module (import "" "count" (func $count (result i32)))
  (func (export "spin") (param i64) (result i32) (local $before i32)
    (local.set $before (call $count))
    (loop (br_if 0 (i64.ne (local.tee 0 (i64.sub (local.get 0) (i64.const 1))) (i64.const 0))))
    (i32.sub (call $count) (local.get $before))))"""


def test_release_gil_lets_other_threads_run(store: Store) -> None:
    """With the GIL released another thread makes progress while wasm runs; with the GIL held it cannot make any."""
    progress: list[int] = []
    running = threading.Event()
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            progress.append(1)
            running.set()
            time.sleep(0.0005)

    # A built-in method as the host function: Python code could give the GIL away between its instructions.
    host = Func(store, FuncType([], [I32]), progress.__len__)
    spin = Instance(store, Module(store.engine, SPIN), [host]).exports(store)["spin"]
    assert isinstance(spin, Func)
    thread = threading.Thread(target=count)
    thread.start()
    running.wait()
    try:
        loops = 100_000_000
        while spin.bind(store, release_gil=True)(loops) == 0:  # a loaded machine may not get to it at once
            loops *= 2
            assert loops < 1 << 40
        assert spin.bind(store)(100_000_000) == 0
    finally:
        stop.set()
        thread.join()


def test_nested_entry(store: Store) -> None:
    """wasm calls Python, which calls wasm, and so on; each level has its own values."""
    module = Module(
        store.engine,
        """(module (import "" "python" (func $python (param i32) (result i32)))
             (func (export "wasm") (param i32) (result i32)
               (i32.add (local.get 0) (call $python (i32.sub (local.get 0) (i32.const 1))))))""",
    )
    exports: dict[str, Any] = {}

    def python(n: int) -> int:
        return int(exports["wasm"](store, n)) if n > 0 else 0

    host = Func(store, FuncType([I32], [I32]), python)
    exports["wasm"] = Instance(store, module, [host]).exports(store)["wasm"]
    assert exports["wasm"](store, 50) == 50 * 51 // 2


def test_endless_mutual_recursion_is_an_exception(store: Store) -> None:
    """Neither the wasm stack nor the thread's may be overrun."""
    module = Module(store.engine, '(module (import "" "f" (func $f)) (func (export "g") (call $f)))')
    exports: dict[str, Any] = {}
    host = Func(store, FuncType([], []), lambda: exports["g"](store))
    exports["g"] = Instance(store, module, [host]).exports(store)["g"]
    gc.collect()
    gc.disable()  # at the limit its callbacks fail, which the interpreter reports (test_lifetime.py attacks that)
    try:
        for _ in range(3):
            with pytest.raises((RecursionError, Trap)):
                exports["g"](store)
    finally:
        gc.enable()
    fine = Func(store, FuncType([], [I32]), lambda: 5)
    assert fine(store) == 5


class _CustomError(Exception):
    pass


def test_an_exception_keeps_its_traceback_and_gets_the_wasm_frames(store: Store) -> None:
    module = Module(
        store.engine,
        """(module $guest (import "" "f" (func $host)) (func $inner (call $host))
             (func $outer (export "run") (call $inner)))""",
    )

    def failing_host_function() -> None:
        raise _CustomError("from the host")

    run = Instance(store, module, [Func(store, FuncType([], []), failing_host_function)]).exports(store)["run"]
    with pytest.raises(_CustomError) as caught:
        run(store)
    assert "failing_host_function" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    (note,) = caught.value.__notes__
    assert "guest!inner" in note
    assert note.index("guest!inner") < note.index("guest!outer")


def test_base_exceptions_pass_too(store: Store) -> None:
    module = Module(store.engine, '(module (import "" "f" (func $f)) (func (export "g") (call $f)))')
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):

        def fail(error: type[BaseException] = error) -> None:
            raise error

        g = Instance(store, module, [Func(store, FuncType([], []), fail)]).exports(store)["g"]
        with pytest.raises(error):
            g(store)


def test_a_trap_in_a_nested_call_shows_all_frames(store: Store, instantiate: Instantiate) -> None:
    inner = instantiate('(module $inner (func $fail (export "fail") unreachable))')["fail"]
    outer = Module(store.engine, '(module $outer (import "" "f" (func $f)) (func $run (export "run") (call $f)))')
    host = Func(store, FuncType([], []), lambda: inner(store))
    with pytest.raises(Trap) as caught:
        Instance(store, outer, [host]).exports(store)["run"](store)
    assert [(f.module_name, f.func_name) for f in caught.value.frames] == [("inner", "fail"), ("outer", "run")]


@pytest.mark.parametrize(
    ("results", "value"),
    [([I32], "a"), ([I32], None), ([I32], 1.5), ([I32], 2**40), ([F64], "a"), ([FUNCREF], 1), ([I32, I32], 1),
     ([I32, I32], [1]), ([I32, I32], [1, 2, 3]), ([I32, I32], [1, "a"]), ([], 1)],
)  # fmt: skip
def test_wrong_results_of_host_functions(store: Store, results: list[ValType], value: object) -> None:
    function = Func(store, FuncType([], results), lambda: value)
    with pytest.raises((TypeError, OverflowError), match="lambda"):
        function(store)
    assert Func(store, FuncType([], [I32]), lambda: 3)(store) == 3


def test_host_functions_may_be_any_callable(store: Store) -> None:
    class Adder:
        def __init__(self) -> None:
            self.total = 0

        def __call__(self, x: int) -> int:
            self.total += x
            return self.total

        def method(self, x: int) -> int:
            return x + 1

    adder = Adder()
    assert Func(store, FuncType([I32], [I32]), adder)(store, 3) == 3
    assert Func(store, FuncType([I32], [I32]), adder.method)(store, 3) == 4
    assert Func(store, FuncType([F64], [F64]), math.sqrt)(store, 9.0) == 3.0
    with pytest.raises(TypeError, match="callable"):
        Func(store, FuncType([], []), 1)  # type: ignore[arg-type]


def test_many_parameters_and_results(store: Store) -> None:
    """More than registers can hold, in both directions."""
    types = [I32, F64, I64, F32] * 20
    values = [i + 0.5 if t in (F32, F64) else i for i, t in enumerate(types)]
    host = Func(store, FuncType(types, types), lambda *args: list(args))
    text = " ".join(map(str, types))
    module = Module(
        store.engine,
        f"""(module (import "" "" (func $f (param {text}) (result {text})))
              (func (export "g") (param {text}) (result {text})
                {" ".join(f"(local.get {i})" for i in range(len(types)))} (call $f)))""",
    )
    assert Instance(store, module, [host]).exports(store)["g"](store, *values) == values


def test_callers_end_with_their_call(store: Store) -> None:
    kept: list[Caller] = []
    host = Func(store, FuncType([], []), kept.append, access_caller=True)
    module = Module(
        store.engine, '(module (import "" "" (func $f)) (memory (export "memory") 1) (func (export "g") (call $f)))'
    )
    exports = Instance(store, module, [host]).exports(store)
    exports["g"](store)
    host(store)
    for caller in kept:
        assert caller.get("memory") is None
        with pytest.raises(KeyError):
            caller["memory"]
        for use in (exports["memory"].size, exports["g"], host, lambda c: Func(c, FuncType([], []), print)):
            with pytest.raises(ValueError, match="caller is no longer valid"):
                use(caller)
    with pytest.raises(TypeError):
        kept[0].get(1)  # type: ignore[arg-type]


def test_a_caller_stands_for_its_store(store: Store) -> None:
    seen: list[object] = []

    def function(caller: Caller) -> None:
        own = Func(caller, FuncType([], [I32]), lambda: 4)
        seen.append(own(caller))
        seen.append(caller["g"].type(caller).params)  # type: ignore[union-attr]

    host = Func(store, FuncType([], []), function, access_caller=True)
    module = Module(store.engine, '(module (import "" "" (func $f)) (func (export "g") (call $f)))')
    Instance(store, module, [host]).exports(store)["g"](store)
    assert seen == [4, []]


def test_objects_of_other_stores_are_refused(engine: Engine) -> None:
    """The wasmtime package aborts the process for most of these."""
    here, there = Store(engine), Store(engine)
    module = Module(
        engine,
        """(module (func (export "f") (param funcref) (result funcref) (local.get 0)) (memory (export "m") 1)
             (table (export "t") 1 funcref) (global (export "g") (mut funcref) (ref.null func)))""",
    )
    x = Instance(here, module, []).exports(here)
    y = Instance(there, module, []).exports(there)
    instance = Instance(here, module, [])
    linker = Linker(engine)
    wrong: list[Callable[[], object]] = [
        lambda: x["f"](there, None),
        lambda: x["f"].type(there),
        lambda: x["f"].bind(there),
        lambda: x["f"].call_raw(there, [0]),
        lambda: x["m"].size(there),
        lambda: x["m"].read(there),
        lambda: x["m"].write(there, b"a"),
        lambda: x["m"].grow(there, 1),
        lambda: x["m"].view(there),
        lambda: x["t"].get(there, 0),
        lambda: x["t"].set(there, 0, None),
        lambda: x["g"].value(there),
        lambda: x["g"].set_value(there, None),
        lambda: instance.exports(there),
        lambda: linker.define(there, "", "", x["f"]),
        lambda: linker.define_instance(there, "", instance),
        lambda: x["t"].set(here, 0, y["f"]),
        lambda: x["g"].set_value(here, y["f"]),
        lambda: wasmforge.Table(here, wasmforge.TableType(FUNCREF, wasmforge.Limits(1, 1)), y["f"]),
        lambda: wasmforge.Global(here, wasmforge.GlobalType(FUNCREF, True), y["f"]),
    ]
    for number, action in enumerate(wrong):
        with pytest.raises(WasmtimeError, match="store"):
            action()
            pytest.fail(f"case {number}")
    with pytest.raises(WasmtimeError, match="wrong store"):
        x["f"](here, y["f"])
    assert x["f"](here, x["f"]) == x["f"]


@pytest.mark.parametrize("wrong", [None, 1, "store", object()])
def test_what_is_no_store_is_a_type_error(store: Store, instantiate: Instantiate, wrong: Any) -> None:
    x = instantiate('(module (func (export "f")) (memory (export "m") 1))')
    for action in (
        lambda: x["f"](wrong),
        lambda: x["f"].type(wrong),
        lambda: x["m"].size(wrong),
        lambda: Instance(wrong, Module(store.engine, "(module)"), []),
        lambda: Linker(store.engine).instantiate(wrong, Module(store.engine, "(module)")),
        lambda: wasmforge.Memory(wrong, wasmforge.MemoryType(wasmforge.Limits(1, 1))),
    ):
        with pytest.raises(TypeError, match="expected a"):
            action()


def test_reprs_and_equality(store: Store, instantiate: Instantiate) -> None:
    x = instantiate('(module (func $f (export "f") (param i32)) (export "same" (func $f)) (func (export "other")))')
    assert x["f"] == x["same"]
    assert hash(x["f"]) == hash(x["same"])
    assert x["f"] != x["other"]
    assert "[i32] -> []" in repr(x["f"])
