"""Programs written for the wasmtime package do the same here: each scenario below runs with both packages and must
give the same values, the same classes of exceptions and, where callers read them, the same texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wasmforge
from wasmforge import engine

wasmtime = pytest.importorskip("wasmtime", reason="needs the wasmtime package (the extra `bench`)")

Outcome = tuple[object, ...]
Scenario = Callable[[Any], Iterator[Outcome]]

PUBLIC_ERRORS = ("ExitTrap", "WasmtimeError", "Trap")

MODULE = """
(module $everything
  (func $add (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func $mix (export "mix") (param i64 f32 f64) (result f64)
    (f64.add (f64.convert_i64_s (local.get 0)) (f64.add (f64.promote_f32 (local.get 1)) (local.get 2))))
  (func (export "i64") (param i64) (result i64) (local.get 0))
  (func (export "f32") (param f32) (result f32) (local.get 0))
  (func (export "f64") (param f64) (result f64) (local.get 0))
  (func (export "externref") (param externref) (result externref) (local.get 0))
  (func (export "funcref") (param funcref) (result funcref) (local.get 0))
  (func (export "two") (result i32 i64) (i32.const 1) (i64.const -2))
  (func (export "nothing"))
  (func $boom (export "boom") (unreachable))
  (func $outer (export "outer") (call $boom))
  (func $divide (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func $truncate (export "truncate") (param f32) (result i32) (i32.trunc_f32_s (local.get 0)))
  (func $load (export "load") (param i32) (result i32) (i32.load offset=4 (local.get 0)))
  (func $indirect (export "indirect") (param i32) (call_indirect (param i64) (i64.const 0) (local.get 0)))
  (memory (export "memory") 1 3)
  (data (i32.const 8) "hello")
  (table (export "functions") 4 10 funcref)
  (elem (i32.const 1) $add)
  (table (export "objects") 2 externref)
  (global (export "counter") (mut i32) (i32.const 5))
  (global (export "constant") i64 (i64.const -7))
  (global (export "object") (mut externref) (ref.null extern))
)
"""


class Kind:
    """An exception of ours. It equals every name of its class and its bases: what a program that knows the package
    catches, catches it."""

    def __init__(self, exception: Exception) -> None:
        self.names = [c.__name__ for c in type(exception).__mro__]

    def __eq__(self, other: object) -> bool:
        return other in self.names[: self.names.index("Exception") + 1]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.names[0])


def outcome(action: Callable[[], object], *, text: bool = False) -> Outcome:
    """What an action gives: a value, or the class of an exception as the package names it, and its text on request."""
    try:
        value = action()
    except Exception as e:
        name: object = next((c.__name__ for c in type(e).__mro__ if c.__name__ in PUBLIC_ERRORS), type(e).__name__)
        if type(e).__module__.startswith("wasmforge."):
            name = Kind(e)
        return ("error", name, str(e)) if text else ("error", name)
    if type(value).__module__.split(".")[0] in ("wasmforge", "wasmtime"):
        return ("object", type(value).__name__)
    return ("value", type(value).__name__, repr(value))


def everything(w: Any) -> tuple[Any, Any]:
    store = w.Store()
    module = w.Module(store.engine, MODULE)
    return store, w.Instance(store, module, []).exports(store)


def calls(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    yield outcome(lambda: x["add"](store, 1, 2))
    yield outcome(lambda: x["add"](store, 2**31 - 1, 1))
    yield outcome(lambda: x["add"](store, -1, -1))
    yield outcome(lambda: x["add"](store, True, False))
    yield outcome(lambda: x["add"](store, w.Val.i32(4), w.Val.i32(5)))
    yield outcome(lambda: x["mix"](store, -3, 0.5, 0.25))
    yield outcome(lambda: x["i64"](store, -(2**63)))
    yield outcome(lambda: x["f32"](store, 0.1))
    yield outcome(lambda: x["f32"](store, float("inf")))
    yield outcome(lambda: x["f64"](store, 0.1))
    yield outcome(lambda: x["f64"](store, w.Val.f64(2.5)))
    yield outcome(lambda: x["two"](store))
    yield outcome(lambda: x["nothing"](store))
    for value in ("text", None, 0, [1]):
        yield outcome(lambda value=value: x["externref"](store, value))  # type: ignore[misc]
    yield outcome(lambda: x["externref"](store, w.Val.externref("wrapped")))
    yield outcome(lambda: x["funcref"](store, None))
    yield outcome(lambda: x["funcref"](store, x["add"])(store, 3, 4))
    yield outcome(lambda: x["funcref"](store, w.Val.funcref(x["add"]))(store, 3, 4))


def wrong_calls(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    yield outcome(lambda: x["add"](store, 1), text=True)
    yield outcome(lambda: x["add"](store, 1, 2, 3), text=True)
    yield outcome(lambda: x["add"](store, "a", 1))
    yield outcome(lambda: x["add"](store, 1.5, 1))
    yield outcome(lambda: x["add"](store, None, 1))
    yield outcome(lambda: x["f32"](store, "a"))
    yield outcome(lambda: x["f64"](store, None))
    yield outcome(lambda: x["funcref"](store, "a"))
    yield outcome(lambda: x["funcref"](store, 1))
    yield outcome(lambda: x["f32"](store, w.Val.i32(1)))
    yield outcome(lambda: x["i64"](store, w.Val.f64(1.0)))


def traps(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("boom", ()),
        ("outer", ()),
        ("divide", (1, 0)),
        ("divide", (-(2**31), -1)),
        ("truncate", (float("nan"),)),
        ("truncate", (1e10,)),
        ("load", (65536,)),
        ("load", (-1,)),
        ("indirect", (0,)),
        ("indirect", (1,)),
        ("indirect", (100,)),
    ]
    for name, arguments in cases:
        yield outcome(lambda name=name, arguments=arguments: x[name](store, *arguments), text=True)  # type: ignore[misc]
        try:
            x[name](store, *arguments)
        except w.Trap as trap:
            yield ("message", trap.message == str(trap), str(trap.trap_code))
            for frame in trap.frames:
                yield (frame.func_index, frame.func_name, frame.module_name, frame.module_offset, frame.func_offset)


def made_traps(w: Any) -> Iterator[Outcome]:
    trap = w.Trap("out of cheese")
    yield (str(trap), trap.message, trap.frames, trap.trap_code, isinstance(trap, w.WasmtimeError))
    error = w.WasmtimeError("no cheese")
    yield (str(error), isinstance(error, Exception), issubclass(w.ExitTrap, w.WasmtimeError))
    yield tuple((code.name, code.value) for code in w.TrapCode if code.value <= 10)  # beyond: ours only


def memories(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    memory = x["memory"]
    yield (memory.size(store), memory.data_len(store))
    ty = memory.type(store)
    yield (ty.limits.min, ty.limits.max, ty.is_64, ty.is_shared)
    yield outcome(lambda: memory.read(store, 8, 13))
    yield outcome(lambda: memory.read(store, -4))
    yield outcome(lambda: memory.read(store, 13, 8))
    yield outcome(lambda: memory.read(store, 300000, 300005))
    yield outcome(lambda: len(memory.read(store)))
    yield outcome(lambda: memory.write(store, b"abc", 8))
    yield outcome(lambda: memory.write(store, bytearray(b"xy"), -2))
    yield outcome(lambda: memory.write(store, [1, 2, 3], 100))
    yield outcome(lambda: memory.write(store, b""))
    yield outcome(lambda: memory.read(store, 0, 16))
    yield outcome(lambda: memory.write(store, b"abc", -2), text=True)
    yield outcome(lambda: memory.write(store, b"", 65536), text=True)
    yield outcome(lambda: memory.write(store, b"abc", 200000), text=True)
    yield outcome(lambda: memory.write(store, "text"))
    yield outcome(lambda: bytes(memory.get_buffer_ptr(store, 5, 8)))
    yield outcome(lambda: memory.data_ptr(store)[8])
    yield outcome(lambda: memory.grow(store, 1))
    yield outcome(lambda: memory.grow(store, 10), text=True)
    yield outcome(lambda: memory.grow(store, -1), text=True)
    yield outcome(lambda: len(memory.get_buffer_ptr(store)))
    yield (memory.size(store), memory.type(store).limits.min)
    own = w.Memory(store, w.MemoryType(w.Limits(2, None)))
    yield (own.size(store), own.type(store).limits.max)


def tables(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    functions, objects = x["functions"], x["objects"]
    yield (functions.size(store), functions.type(store).limits.min, functions.type(store).limits.max)
    yield (str(functions.type(store).element), str(objects.type(store).element))
    yield outcome(lambda: functions.get(store, 1)(store, 2, 3))
    yield outcome(lambda: functions.get(store, 0))
    yield outcome(lambda: functions.get(store, 0) == None)  # noqa: E711
    yield outcome(lambda: functions.get(store, 100))
    yield outcome(lambda: functions.set(store, 0, x["add"]))
    yield outcome(lambda: functions.get(store, 0)(store, 2, 3))
    yield outcome(lambda: functions.set(store, 0, None))
    yield outcome(lambda: functions.get(store, 0))
    yield outcome(lambda: functions.set(store, 10, None), text=True)
    yield outcome(lambda: functions.set(store, 0, 1), text=True)
    yield outcome(lambda: functions.grow(store, 2, x["add"]))
    yield outcome(lambda: functions.get(store, 5)(store, 2, 3))
    yield outcome(lambda: functions.grow(store, 100, None), text=True)
    yield (functions.size(store), functions.type(store).limits.min)
    yield outcome(lambda: objects.set(store, 0, "an object"))
    yield outcome(lambda: objects.get(store, 0))
    yield outcome(lambda: objects.get(store, 1))
    own = w.Table(store, w.TableType(w.ValType.externref(), w.Limits(2, 5)), "initial")
    yield outcome(lambda: (own.get(store, 1), own.size(store)))
    yield outcome(lambda: w.Table(store, w.TableType(w.ValType.funcref(), w.Limits(1, None)), 1), text=True)


def globals_(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    counter, constant, obj = x["counter"], x["constant"], x["object"]
    yield (counter.value(store), constant.value(store), str(counter.type(store).content), counter.type(store).mutable)
    yield outcome(lambda: counter.set_value(store, -9))
    yield outcome(lambda: counter.value(store))
    yield outcome(lambda: counter.set_value(store, w.Val.i32(3)))
    yield outcome(lambda: counter.value(store))
    yield outcome(lambda: counter.set_value(store, "a"), text=True)
    yield outcome(lambda: counter.set_value(store, w.Val.i64(1)), text=True)
    yield outcome(lambda: constant.set_value(store, 1), text=True)
    yield outcome(lambda: obj.value(store))
    yield outcome(lambda: obj.set_value(store, {"a": 1}))
    yield outcome(lambda: obj.value(store))
    own = w.Global(store, w.GlobalType(w.ValType.f64(), True), 1.5)
    yield outcome(lambda: own.value(store))
    yield outcome(lambda: w.Global(store, w.GlobalType(w.ValType.i32(), True), "a"), text=True)
    yield outcome(lambda: w.Global(store, 1, 1), text=True)


def types(w: Any) -> Iterator[Outcome]:
    v = w.ValType
    for ty in (v.i32(), v.i64(), v.f32(), v.f64(), v.externref(), v.funcref()):
        yield (str(ty), repr(ty), ty == v.i32(), ty != v.i32(), ty == 1)
    yield outcome(lambda: v(), text=True)
    function = w.FuncType([v.i32(), v.f64()], [v.i64()])
    yield (str(function.params), str(function.results))
    yield outcome(lambda: w.FuncType([1], []), text=True)
    yield outcome(lambda: w.GlobalType(1, True), text=True)
    yield outcome(lambda: w.TableType(v.i32(), w.Limits(1, 2)), text=True)
    yield outcome(lambda: w.TableType(v.funcref(), 1), text=True)
    yield (w.Limits(1, None) == w.Limits(1, None), w.Limits(1, 2) == w.Limits(1, 3), w.Limits(1, 2).max)
    yield outcome(lambda: w.MemoryType((1, 2)), text=True)
    yield outcome(lambda: w.MemoryType(w.Limits(2**32, None)), text=True)
    yield outcome(lambda: w.MemoryType(w.Limits(1, 2**32)), text=True)
    yield outcome(lambda: w.MemoryType(w.Limits(65537, None)), text=True)
    yield outcome(lambda: w.MemoryType(w.Limits(3, 1)), text=True)


def values(w: Any) -> Iterator[Outcome]:
    v = w.Val
    for val in (v.i32(2**33 + 1), v.i64(-5), v.f32(0.1), v.f64(0.1), v.externref("x"), v.externref(None)):
        yield (val.value, str(val.type), val.as_i32(), val.as_i64(), val.as_f32(), val.as_f64(), val.as_externref())
    yield (v.i32(3) == 3, v.i32(3) == v.i64(3), v.i32(3) == v.i32(3), v.externref(None) == None)  # noqa: E711
    yield outcome(lambda: v.i32("a"), text=True)
    yield outcome(lambda: v.f32(1), text=True)
    yield outcome(lambda: v.ref_null(w.ValType.i32()), text=True)
    yield outcome(lambda: v.ref_null(w.ValType.funcref()).value)


def modules(w: Any) -> Iterator[Outcome]:
    engine = w.Engine()
    module = w.Module(engine, '(module (import "a" "f" (func (param i32))) (import "" "g" (global i32)) '
                              '(memory (export "m") 1 2) (table (export "t") 3 funcref))')  # fmt: skip
    for i in module.imports:
        yield (i.module, i.name, type(i.type).__name__)
    for e in module.exports:
        yield (e.name, type(e.type).__name__, e.type.limits.min, e.type.limits.max)
    yield outcome(lambda: w.Module(engine, b"(module)").exports)
    yield outcome(lambda: w.Module(engine, bytearray(b"\0asm\1\0\0\0")).exports)
    yield outcome(lambda: w.Module.validate(engine, b"\0asm\1\0\0\0"))
    for wrong in (1, "", None, memoryview(b"\0asm\1\0\0\0")):
        yield outcome(lambda wrong=wrong: w.Module(engine, wrong), text=True)  # type: ignore[misc]
    yield outcome(lambda: w.Module(1, b""), text=True)
    yield outcome(lambda: w.Module(engine, b""))
    yield outcome(lambda: w.Module(engine, "(module (func (result i32)))"))
    yield outcome(lambda: w.Module(engine, "(module"))
    yield outcome(lambda: w.Module.validate(engine, b"(module)"))
    yield outcome(lambda: w.Module.validate(engine, "(module)"), text=True)
    yield outcome(lambda: w.Module.from_file(engine, "/does/not/exist"))
    yield outcome(lambda: w.Module.deserialize(engine, "text"), text=True)
    yield outcome(lambda: w.Module.deserialize(engine, b"damaged"))
    yield outcome(lambda: w.Module.deserialize_file(engine, "/does/not/exist"))
    yield outcome(lambda: type(module.serialize()))
    yield outcome(lambda: w.Module.deserialize(engine, module.serialize()).imports[0].module)
    yield outcome(lambda: w.wat2wasm("(module)"))
    yield outcome(lambda: w.wat2wasm("(modul)"))
    module.close()
    yield outcome(lambda: module.exports, text=True)


def host_functions(w: Any) -> Iterator[Outcome]:
    store = w.Store()
    i32, f64 = w.ValType.i32(), w.ValType.f64()

    def call(params: list[Any], results: list[Any], function: Any, *arguments: object) -> Outcome:
        return outcome(lambda: w.Func(store, w.FuncType(params, results), function)(store, *arguments))

    yield call([], [], lambda: None)
    yield call([i32, f64], [f64], lambda a, b: a * b, 3, 0.5)
    yield call([], [i32, i32], lambda: (1, 2))
    yield call([], [i32, i32], lambda: [1, 2])
    yield call([], [i32], lambda: w.Val.i32(4))
    yield call([], [f64], lambda: w.Val.f64(4.5))
    yield call([], [i32], lambda: True)
    yield call([], [i32], lambda: "a")
    yield call([], [i32], lambda: None)
    yield call([], [i32], lambda: 1.5)
    yield call([], [i32, i32], lambda: 1)
    yield call([i32], [], lambda: None, 1)
    yield call([], [w.ValType.externref()], lambda: "object")
    yield call([], [w.ValType.externref()], lambda: w.Val.externref("object"))
    yield call([], [w.ValType.funcref()], lambda: None)
    yield outcome(lambda: w.Func(store, 1, 1), text=True)
    yield outcome(lambda: w.Func(1, w.FuncType([], []), print), text=True)

    def fail() -> None:
        raise ValueError("host")

    def trap() -> None:
        raise w.Trap("my own")

    def error() -> None:
        raise w.WasmtimeError("mine too")

    module = w.Module(store.engine, '(module (import "" "" (func $f)) (func (export "run") (call $f)))')
    for function in (fail, trap, error):
        instance = w.Instance(store, module, [w.Func(store, w.FuncType([], []), function)])
        run = instance.exports(store)["run"]
        yield outcome(lambda run=run: run(store), text=True)  # type: ignore[misc]


def callers(w: Any) -> Iterator[Outcome]:
    store = w.Store(data={"key": 1})
    seen: list[Outcome] = []
    kept = []

    def function(caller: Any, address: int) -> int:
        kept.append(caller)
        seen.append(outcome(lambda: caller.get("memory")))
        seen.append(outcome(lambda: caller.get("missing")))
        seen.append(outcome(lambda: caller["missing"], text=True))
        seen.append(outcome(lambda: caller["memory"].read(caller, address, address + 2)))
        return int(caller["memory"].write(caller, b"!", address))

    host = w.Func(store, w.FuncType([w.ValType.i32()], [w.ValType.i32()]), function, access_caller=True)
    module = w.Module(
        store.engine,
        """(module (import "" "" (func $f (param i32) (result i32))) (memory (export "memory") 1)
             (data (i32.const 4) "hi") (func (export "run") (result i32) (call $f (i32.const 4))))""",
    )
    exports = w.Instance(store, module, [host]).exports(store)
    yield outcome(lambda: exports["run"](store))
    yield from seen
    yield outcome(lambda: exports["memory"].read(store, 4, 6))
    yield outcome(lambda: kept[0].get("memory"))
    yield outcome(lambda: kept[0]["memory"], text=True)
    yield outcome(lambda: exports["memory"].size(kept[0]), text=True)
    yield outcome(store.data)


def instances(w: Any) -> Iterator[Outcome]:
    store, x = everything(w)
    yield (len(x), list(x), [type(item).__name__ for item in x.by_index])
    yield outcome(lambda: x["missing"], text=True)
    yield outcome(lambda: x.get("missing"))
    yield outcome(lambda: "add" in x)

    function = w.Func(store, w.FuncType([], []), lambda: None)
    wider = w.Func(store, w.FuncType([w.ValType.i32()], [w.ValType.i32()]), lambda x: x)
    variable = w.Global(store, w.GlobalType(w.ValType.i32(), True), 1)
    constant = w.Global(store, w.GlobalType(w.ValType.i32(), False), 1)
    long = w.Global(store, w.GlobalType(w.ValType.i64(), False), 1)
    module = w.Module(store.engine, '(module (import "a" "b" (func)) (import "" "x" (global i32)))')
    for imports in (
        [],
        [function],
        [function, constant, constant],
        [function, constant],
        [function, function],
        [function, variable],
        [function, long],
        [wider, constant],
        [function, 1],
        [constant, function],
    ):
        yield outcome(lambda imports=imports: w.Instance(store, module, imports), text=True)  # type: ignore[misc]

    needs_memory = w.Module(store.engine, '(module (import "m" "m" (memory 2 4)))')
    needs_table = w.Module(store.engine, '(module (import "m" "t" (table 2 4 funcref)))')
    for low, high in ((1, 4), (2, None), (2, 5), (2, 3), (3, 4)):
        memory = w.Memory(store, w.MemoryType(w.Limits(low, high)))
        table = w.Table(store, w.TableType(w.ValType.funcref(), w.Limits(low, high)), None)
        yield outcome(lambda memory=memory: w.Instance(store, needs_memory, [memory]), text=True)  # type: ignore[misc]
        yield outcome(lambda table=table: w.Instance(store, needs_table, [table]), text=True)  # type: ignore[misc]
        yield outcome(lambda memory=memory: w.Instance(store, needs_table, [memory]), text=True)  # type: ignore[misc]
    objects = w.Table(store, w.TableType(w.ValType.externref(), w.Limits(2, 4)), None)
    yield outcome(lambda: w.Instance(store, needs_table, [objects]), text=True)

    for source in (
        "(module (func $start unreachable) (start $start))",
        '(module (memory 1) (data (i32.const 65536) "a"))',
        "(module (table 1 funcref) (func $f) (elem (i32.const 1) $f))",
    ):
        failing = w.Module(store.engine, source)
        yield outcome(lambda failing=failing: w.Instance(store, failing, []))  # type: ignore[misc]


def other_stores(w: Any) -> Iterator[Outcome]:
    engine = w.Engine()
    here, there, elsewhere = w.Store(engine), w.Store(engine), w.Store(w.Engine())
    function = w.Func(here, w.FuncType([], []), lambda: None)
    module = w.Module(engine, '(module (import "" "" (func)))')
    plain = w.Module(engine, '(module (func (export "f") (param funcref)))')
    yield outcome(lambda: w.Instance(there, module, [function]), text=True)
    yield outcome(lambda: w.Instance(elsewhere, plain, []), text=True)
    linker = w.Linker(engine)
    linker.define(here, "", "", function)
    yield outcome(lambda: linker.instantiate(there, module), text=True)


def linkers(w: Any) -> Iterator[Outcome]:
    store = w.Store()
    i32 = w.ValType.i32()
    log: list[object] = []
    function = w.Func(store, w.FuncType([], []), lambda: log.append("called"))
    constant = w.Global(store, w.GlobalType(i32, False), 7)
    module = w.Module(
        store.engine,
        """(module (import "a" "b" (func $f)) (import "" "x" (global $x i32))
             (func (export "run") (result i32) (call $f) (global.get $x)) (func (export "")))""",
    )
    linker = w.Linker(store.engine)
    yield outcome(lambda: linker.instantiate(store, module), text=True)
    yield outcome(lambda: linker.define(store, "a", "b", function))
    yield outcome(lambda: linker.define(store, "a", "b", function), text=True)
    yield outcome(lambda: linker.define(store, "", "x", 1), text=True)
    yield outcome(lambda: linker.instantiate(store, module), text=True)
    yield outcome(lambda: linker.define(store, "", "x", function))
    yield outcome(lambda: linker.instantiate(store, module), text=True)
    linker.allow_shadowing = True
    yield outcome(lambda: linker.define(store, "", "x", constant))
    instance = linker.instantiate(store, module)
    yield outcome(lambda: instance.exports(store)["run"](store))
    yield (list(log),)
    linker.allow_shadowing = False
    yield outcome(lambda: linker.define_instance(store, "i", instance))
    yield outcome(lambda: linker.define_instance(store, "i", instance), text=True)
    yield outcome(lambda: linker.define_instance(store, "i", 1), text=True)
    yield outcome(lambda: linker.get(store, "i", "run")(store))
    yield outcome(lambda: linker.get(store, "i", "missing"), text=True)
    yield outcome(lambda: linker.get_default(store, "i")(store))
    yield outcome(lambda: linker.get_default(store, "missing")(store))
    yield outcome(lambda: linker.define_func("h", "f", w.FuncType([i32], [i32]), lambda x: x + 1))
    yield outcome(lambda: linker.define_func("h", "f", w.FuncType([i32], [i32]), lambda x: x + 1), text=True)
    yield outcome(lambda: linker.define_func("h", "g", 1, print), text=True)
    for _ in range(2):
        other = w.Store(store.engine)
        yield outcome(lambda other=other: linker.get(other, "h", "f")(other, 4))  # type: ignore[misc]


def linked_modules(w: Any) -> Iterator[Outcome]:
    store = w.Store()
    log: list[object] = []
    linker = w.Linker(store.engine)
    linker.define_func("host", "log", w.FuncType([w.ValType.i32()], []), log.append)
    command = w.Module(
        store.engine,
        """(module (import "host" "log" (func $log (param i32)))
             (global $n (mut i32) (i32.const 0)) (memory (export "memory") 1)
             (func $count (export "count") (param i32) (result i32)
               (global.set $n (i32.add (global.get $n) (local.get 0))) (call $log (global.get $n)) (global.get $n))
             (func (export "_start") (drop (call $count (i32.const 100)))))""",
    )
    yield outcome(lambda: linker.define_module(store, "command", command))
    # Every call of a command's function is a new instance.
    for _ in range(2):
        yield outcome(lambda: linker.get(store, "command", "count")(store, 5))
        yield outcome(lambda: linker.get_default(store, "command")(store))
    reactor = w.Module(
        store.engine,
        """(module (import "command" "count" (func $count (param i32) (result i32)))
             (global $n (mut i32) (i32.const 0))
             (func (export "_initialize") (global.set $n (call $count (i32.const 7))))
             (func (export "next") (result i32)
               (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))""",
    )
    yield outcome(lambda: linker.define_module(store, "reactor", reactor))
    for _ in range(2):
        yield outcome(lambda: linker.get(store, "reactor", "next")(store))
    yield (list(log),)
    yield outcome(lambda: linker.define_module(store, "r", 1), text=True)
    missing = w.Module(store.engine, '(module (import "no" "such" (func)) (func (export "_start")))')
    yield outcome(lambda: linker.define_module(store, "m", missing), text=True)
    yield outcome(lambda: linker.define_module(store, "reactor", reactor), text=True)
    exporting = w.Module(store.engine, '(module (memory (export "other") 1) (func (export "_start")))')
    yield outcome(lambda: linker.define_module(store, "e", exporting), text=True)


def configs(w: Any) -> Iterator[Outcome]:
    config = w.Config()
    yield outcome(lambda: setattr(config, "wasm_bulk_memory", 1), text=True)
    yield outcome(lambda: setattr(config, "wasm_bulk_memory", True))
    yield outcome(lambda: setattr(config, "strategy", "auto"))
    yield outcome(lambda: setattr(config, "strategy", "interpreter"), text=True)
    yield outcome(lambda: setattr(config, "cranelift_opt_level", "speed"))
    yield outcome(lambda: setattr(config, "cranelift_opt_level", "x"), text=True)
    yield outcome(lambda: setattr(config, "profiler", "none"))
    yield outcome(lambda: setattr(config, "profiler", "x"), text=True)
    yield outcome(lambda: setattr(config, "parallel_compilation", False))
    yield outcome(lambda: config.wasm_simd, text=True)
    engine = w.Engine(config)
    yield outcome(engine.is_pulley)
    yield outcome(lambda: w.Engine(config), text=True)
    yield outcome(lambda: setattr(config, "wasm_simd", False), text=True)
    yield outcome(lambda: w.Engine(1), text=True)
    yield outcome(lambda: w.Store(1), text=True)


def closing(w: Any) -> Iterator[Outcome]:
    with w.Store() as store:
        function = w.Func(store, w.FuncType([], []), lambda: None)
        yield outcome(lambda: function(store))
    yield outcome(lambda: function(store), text=True)
    yield outcome(store.data, text=True)
    store.close()
    yield outcome(lambda: w.Memory(store, w.MemoryType(w.Limits(1, 1))), text=True)


WIDE = """
(module (memory $a (export "a") 1 3) (memory $b (export "b") i64 1 4) (memory $c (export "c") i64 0)
  (table (export "t") i64 2 5 funcref)
  (func (export "load") (param i64) (result i32) (i32.load $b offset=8 (local.get 0)))
  (func (export "grow") (param i64) (result i64) (memory.grow $b (local.get 0)))
  (func (export "copy") (param i32 i64 i32) (memory.copy $a $b (local.get 0) (local.get 1) (local.get 2)))
  (func (export "call") (param i64) (call_indirect (local.get 0)))
  (data (memory $b) (i64.const 100) "hello"))
"""


def wide_memories(w: Any) -> Iterator[Outcome]:
    """Several memories, memories and tables of 64 bits."""
    store = w.Store()
    module = w.Module(store.engine, WIDE)
    x = w.Instance(store, module, []).exports(store)
    for export in module.exports:
        if isinstance(export.type, w.MemoryType):
            yield outcome(lambda t=export.type: (t.is_64, t.is_shared, t.limits.min, t.limits.max))  # type: ignore[misc]
    yield outcome(lambda: (x["t"].type(store).limits.min, x["t"].size(store), x["t"].grow(store, 3, None)))
    yield outcome(lambda: x["t"].grow(store, 1, None), text=True)
    for address in (92, 65524, 65525, 2**32, -1, -9, 2**63 - 1):
        yield outcome(lambda a=address: x["load"](store, a))  # type: ignore[misc]
    for arguments in (
        (0, 100, 5),
        (65531, 100, 5),
        (65532, 100, 5),
        (0, 65531, 5),
        (0, 65532, 5),
        (0, -5, 5),
        (-1, 0, 1),
    ):
        yield outcome(lambda a=arguments: x["copy"](store, *a))  # type: ignore[misc]
    yield outcome(lambda: bytes(x["a"].read(store, 0, 5)))
    for delta in (1, 0, -1, 3, 2**62, 2):
        yield outcome(lambda d=delta: x["grow"](store, d))  # type: ignore[misc]
    yield outcome(lambda: (x["b"].size(store), x["b"].data_len(store), x["c"].size(store)))
    yield outcome(lambda: x["b"].grow(store, 1), text=True)
    yield outcome(lambda: x["c"].grow(store, 2))
    for index in (0, 5, 2**32, -1):
        yield outcome(lambda i=index: x["call"](store, i))  # type: ignore[misc]
    narrow = w.Module(store.engine, '(module (memory (import "a" "b") 1))')
    wide = w.Module(store.engine, '(module (memory (import "a" "b") i64 1))')
    table = w.Module(store.engine, '(module (table (import "a" "b") 1 funcref))')
    yield outcome(lambda: w.Instance(store, narrow, [x["a"]]))
    yield outcome(lambda: w.Instance(store, narrow, [x["b"]]), text=True)
    yield outcome(lambda: w.Instance(store, wide, [x["a"]]), text=True)
    yield outcome(lambda: w.Instance(store, wide, [x["c"]]))
    yield outcome(lambda: w.Instance(store, table, [x["t"]]), text=True)
    for limits in ((1, 2), (1 << 40, None), (2, 1), (1, 1 << 64), (1 << 64, None)):
        yield outcome(lambda a=limits: w.MemoryType(w.Limits(*a), is_64=True), text=True)  # type: ignore[misc]
    memory = w.Memory(store, w.MemoryType(w.Limits(2, 3), is_64=True))
    yield outcome(lambda: (memory.size(store), memory.grow(store, 1), memory.data_len(store)))
    small = w.Memory(store, w.MemoryType(w.Limits(5, 9), page_size_log2=0))
    yield outcome(lambda: (small.size(store), small.grow(store, 4), small.data_len(store)))
    for name in ("wasm_memory64", "wasm_multi_memory"):
        config = w.Config()
        setattr(config, name, False)
        without = w.Engine(config)
        for text in ("(module (memory i64 1))", "(module (table i64 1 funcref))", "(module (memory 1) (memory 1))"):
            yield outcome(lambda e=without, t=text: w.Module(e, t))  # type: ignore[misc]


SCENARIOS: list[Scenario] = [
    calls, wrong_calls, traps, made_traps, memories, tables, globals_, types, values, modules, host_functions, callers,
    instances, other_stores, linkers, linked_modules, configs, closing, wide_memories,
]  # fmt: skip


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_both_packages_do_the_same(scenario: Scenario, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_automatic_strategy", lambda: strategy)
    monkeypatch.setattr(engine.Engine, "_lazy", strategy != "llvm")
    ours, theirs = list(scenario(wasmforge)), list(scenario(wasmtime))
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        assert our == their, f"step {number}"
