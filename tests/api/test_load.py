"""`wasmforge.load`: exports as attributes, imports as plain Python, and what is not loaded by accident."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge import (
    Engine,
    Func,
    FuncType,
    Global,
    GlobalType,
    Limits,
    Memory,
    MemoryType,
    Module,
    Store,
    Table,
    TableType,
    Trap,
    ValType,
    WasmtimeError,
    load,
)

MODULE = """(module $example
  (func $add (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "two") (result i32 f64) (i32.const 1) (f64.const 2.5))
  (func (export "a name") (result i32) (i32.const 5))
  (func (export "pick") (param i32) (result funcref) (table.get $t (local.get 0)))
  (func (export "call") (param funcref) (result i32) (table.set $t (i32.const 0) (local.get 0))
    (call_indirect (param i32 i32) (result i32) (i32.const 20) (i32.const 22) (i32.const 0)))
  (memory (export "memory") 1 3) (data (i32.const 0) "hello")
  (table $t (export "table") 3 8 funcref) (elem (i32.const 1) $add)
  (global (export "counter") (mut i32) (i32.const 7))
  (global (export "constant") f64 (f64.const 0.5)))"""


@pytest.fixture
def app(engine: Engine) -> Any:
    return load(MODULE, engine=engine)


def test_functions_are_built_in_function_objects(app: Any) -> None:
    assert app.add(1, 2) == 3
    assert app.two() == [1, 2.5]
    assert type(app.add) is type(len)
    assert app.add.__name__ == "add"
    assert app["a name"]() == 5
    assert app["add"] is app.add
    with pytest.raises(TypeError, match=r"add\(\) takes 2 arguments \(1 given\)"):
        app.add(1)
    with pytest.raises(TypeError, match=r"add\(\) argument 2: expected i32, got str"):
        app.add(1, "x")


def test_memory(app: Any) -> None:
    memory = app.memory
    assert (memory.size, len(memory), memory.type) == (1, 65536, MemoryType(Limits(1, 3)))
    assert memory[0:5] == b"hello"
    assert memory[1] == ord("e")
    assert memory[-1] == 0
    memory[0:5] = b"HELLO"
    memory[5] = 33
    assert memory.read(0, 6) == b"HELLO!"
    assert memory.write(b"abc", -3) == 3
    assert memory[-3:] == b"abc"
    view = memory.view()
    assert memory.grow(1) == 1
    view[0] = 1
    assert memory[0] == 1
    assert memory.size == 2
    with pytest.raises(WasmtimeError, match="failed to grow memory by `9`"):
        memory.grow(9)
    with pytest.raises(WasmtimeError):
        memory.grow(-1)
    with pytest.raises(IndexError):
        memory[len(memory)]
    with pytest.raises(IndexError):
        memory.write(b"abc", len(memory) - 1)
    with pytest.raises(ValueError):
        memory[0:2] = b"abc"


def test_table(app: Any) -> None:
    table = app.table
    assert (len(table), table.type) == (3, TableType(ValType.funcref(), Limits(3, 8)))
    assert table[0] is None
    assert table[1](3, 4) == 7
    assert table[1] is app.table[1]
    table[-1] = app.add
    assert table[2](1, 1) == 2
    assert [f is None for f in (table[0], table[1], table[2])] == [True, False, False]
    assert table.grow(2, app.add) == 3
    assert table[4](5, 5) == 10
    for wrong in (5, -6):
        with pytest.raises(IndexError):
            table[wrong]
    with pytest.raises(WasmtimeError):
        table.grow(100)
    with pytest.raises(TypeError, match="funcref"):
        table[0] = 5


def test_globals(app: Any) -> None:
    assert (app.counter.value, app.constant.value) == (7, 0.5)
    app.counter.value = -1
    assert app.counter.value == -1
    assert app.counter.type == GlobalType(ValType.i32(), True)
    with pytest.raises(WasmtimeError, match="immutable"):
        app.constant.value = 1.0
    with pytest.raises(TypeError):
        app.counter.value = "x"
    with pytest.raises(AttributeError, match=r"counter\.value"):
        app.counter = 5


def test_function_references_are_built_in_too(app: Any) -> None:
    assert app.pick(0) is None
    assert app.pick(1)(20, 1) == 21
    assert app.call(app.pick(1)) == 42
    assert app.call(app.add) == 42
    with pytest.raises(TypeError, match="funcref"):
        app.call(len)


def test_it_is_a_pleasant_object(app: Any) -> None:
    assert list(app) == ["add", "two", "a name", "pick", "call", "memory", "table", "counter", "constant"]
    assert len(app) == 9
    assert "a name" in app
    assert "nothing" not in app
    assert {"add", "memory"} <= set(dir(app))
    assert "a name" not in dir(app)
    assert repr(app).startswith("<LoadedModule 'example': add(i32, i32) -> i32; two() -> i32, f64; ")
    with pytest.raises(AttributeError, match="'LoadedModule' object has no attribute 'sub'"):
        app.sub  # noqa: B018
    with pytest.raises(KeyError):
        app["sub"]
    assert not hasattr(app, "sub")
    for part in (app.memory, app.table, app.counter):
        assert "Loaded" in repr(part)


def test_exports_with_awkward_names(engine: Engine) -> None:
    """An export can have any name, also one that Python uses."""
    names = ["__class__", "__dict__", "_store", "__getattr__", "_exports", "", "ünï", "a\\00b", "class"]
    functions = "".join(f'(func (export "{name}") (result i32) (i32.const {i}))' for i, name in enumerate(names))
    app = load(f"(module {functions})", engine=engine)
    for i, name in enumerate(names):
        assert app[name.replace("\\00", "\0")]() == i
    assert app.ünï() == 6
    assert isinstance(app, type(load("(module)", engine=engine)))


def test_sources(tmp_path: Path, engine: Engine) -> None:
    binary = wasmforge.wat2wasm(MODULE)
    (tmp_path / "example.wasm").write_bytes(binary)
    (tmp_path / "example.wat").write_text(";; a comment\n" + MODULE)
    sources: list[Any] = [
        MODULE, "\n  " + MODULE, ";; comment\n" + MODULE, MODULE.encode(), bytes(binary), binary,
        tmp_path / "example.wasm", str(tmp_path / "example.wasm"), tmp_path / "example.wat", Module(engine, MODULE),
    ]  # fmt: skip
    for source in sources:
        assert load(source, engine=engine).add(1, 2) == 3
    assert load(Module(engine, MODULE)).add(1, 2) == 3
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.wasm")
    for wrong in (b"", b"\0asm", "(modul)"):
        with pytest.raises(WasmtimeError):
            load(wrong, engine=engine)


def test_an_image_is_not_loaded_by_accident(tmp_path: Path, engine: Engine) -> None:
    """Machine code in what somebody calls a WebAssembly file must not run: only `deserialize` loads it."""
    image = Module(engine, MODULE).serialize()
    (tmp_path / "innocent.wasm").write_bytes(image)
    for source in (tmp_path / "innocent.wasm", image, bytes(image)):
        with pytest.raises(WasmtimeError, match="deserialize"):
            load(source, engine=engine)
        if isinstance(source, bytes):
            with pytest.raises(WasmtimeError):
                Module(engine, source)
    assert load(Module.deserialize_file(engine, tmp_path / "innocent.wasm")).add(1, 2) == 3


IMPORTING = """(module
  (import "env" "f" (func $f (param i32 f64) (result f64)))
  (import "env" "memory" (memory 1))
  (import "env" "limit" (global $limit i32))
  (import "env" "table" (table 1 externref))
  (func (export "run") (param i32) (result f64) (call $f (local.get 0) (f64.const 0.5)))
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "limit") (result i32) (global.get $limit))
  (func (export "put") (param externref) (table.set (i32.const 0) (local.get 0))))"""


def test_imports_of_every_kind(engine: Engine) -> None:
    store = Store(engine)
    memory = Memory(store, MemoryType(Limits(1, None)))
    table = Table(store, TableType(ValType.externref(), Limits(1, None)), None)
    app = load(IMPORTING, {"env": {"f": lambda a, b: a + b, "memory": memory, "limit": 3, "table": table}})
    assert app.run(2) == 2.5
    memory.write(store, b"\x2a", 9)
    assert app.peek(9) == 42
    assert app.limit() == 3
    app.put("thing")
    assert table.get(store, 0) == "thing"


def test_modules_import_from_each_other(engine: Engine) -> None:
    library = load(MODULE, engine=engine)
    text = """(module (import "lib" "add" (func $add (param i32 i32) (result i32))) (import "lib" "memory" (memory 1))
                (import "lib" "counter" (global $n (mut i32)))
                (func (export "run") (result i32) (global.set $n (i32.const 100))
                  (call $add (i32.load8_u (i32.const 0)) (global.get $n))))"""
    whole = load(text, {"lib": library})
    parts = load(text, {"lib": {"add": library.add, "memory": library.memory, "counter": library.counter}})
    for app in (whole, parts):
        assert app.run() == ord("h") + 100
    assert library.counter.value == 100
    other = load(MODULE, engine=engine)
    mixed = load(text, {"lib": {"add": other.add, "memory": library.memory, "counter": library.counter}})
    assert mixed.run() == ord("h") + 100, "a function of another store is called as a Python function"
    with pytest.raises(WasmtimeError, match="cross-`Store`"):
        load(text, {"lib": {"add": other.add, "memory": library.memory, "counter": other.counter}})


def test_func_objects_and_globals(engine: Engine) -> None:
    store = Store(engine)
    text = """(module (import "" "f" (func $f (result i32))) (import "" "g" (global $g (mut i64)))
                (func (export "run") (result i64) (i64.add (i64.extend_i32_s (call $f)) (global.get $g))))"""
    func = Func(store, FuncType([], [ValType.i32()]), lambda: 5)
    variable = Global(store, GlobalType(ValType.i64(), True), 10)
    app = load(text, {"": {"f": func, "g": variable}})
    assert app.run() == 15
    variable.set_value(store, 20)
    assert app.run() == 25
    assert load(text, {"": {"f": math.floor and (lambda: 1), "g": variable}}, store=store).run() == 21


def test_wrong_imports(engine: Engine) -> None:
    text = '(module (import "env" "f" (func (param i32))))'
    for imports in (None, {}, {"env": {}}, {"other": {"f": print}}):
        with pytest.raises(WasmtimeError, match="unknown import: `env::f` has not been defined"):
            load(text, imports, engine=engine)
    with pytest.raises(TypeError, match="import `env::f`: expected a callable, got int"):
        load(text, {"env": {"f": 1}}, engine=engine)
    with pytest.raises(TypeError, match="expected a Memory"):
        load('(module (import "env" "m" (memory 1)))', {"env": {"m": b""}}, engine=engine)
    with pytest.raises(WasmtimeError, match="incompatible import type for `env::f`"):
        store = Store(engine)
        load(text, {"env": {"f": Func(store, FuncType([], []), print)}})
    with pytest.raises(OverflowError):
        load('(module (import "env" "g" (global i32)))', {"env": {"g": 2**40}}, engine=engine)


def test_errors_of_imports_pass(engine: Engine) -> None:
    def fail(x: int) -> None:
        raise LookupError(x)

    app = load(
        '(module (import "e" "f" (func $f (param i32))) (func $run (export "run") (call $f (i32.const 3))))',
        {"e": {"f": fail}},
        engine=engine,
    )
    with pytest.raises(LookupError) as caught:
        app.run()
    assert "run" in caught.value.__notes__[0]


def test_start_functions_run(engine: Engine) -> None:
    log: list[int] = []
    text = '(module (import "" "f" (func $f (param i32))) (func $s (call $f (i32.const 9))) (start $s))'
    load(text, {"": {"f": log.append}}, engine=engine)
    assert log == [9]
    with pytest.raises(Trap):
        load("(module (func $s unreachable) (start $s))", engine=engine)


def test_where_it_goes(engine: Engine) -> None:
    config = wasmforge.Config()
    config.cranelift_opt_level = "none"
    assert load(MODULE, config=config).add(1, 1) == 2
    with pytest.raises(TypeError, match="at most one"):
        load(MODULE, engine=engine, store=Store(engine))
    store = Store(engine, "data")
    app = load('(module (func (export "f") (result funcref) (ref.func $g)) (func $g (export "g")))', store=store)
    assert isinstance(app.f(), Func), "in a store of the embedder's, references are its objects"
    app.f()(store)


def test_wasi_needs_to_be_given(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    text = """(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 8) "\\10\\00\\00\\00\\06\\00\\00\\00hello\\0a")
      (func (export "hello") (result i32) (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0))))"""
    with pytest.raises(WasmtimeError, match="wasi="):
        load(text, engine=engine)
    wasi = wasmforge.WasiConfig()
    written: list[bytes] = []
    wasi.stdout_custom = written.append
    assert load(text, engine=engine, wasi=wasi).hello() == 0
    assert written == [b"hello\n"]
    assert load(text, {"wasi_snapshot_preview1": {"fd_write": lambda *_: 7}}, engine=engine).hello() == 7
