"""Modules: what is compiled, what is serialised, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wasmforge import Config, Engine, Instance, Module, Store, Trap, WasmtimeError, wat2wasm

ADD = '(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'


def add(engine: Engine, module: Module) -> int:
    store = Store(engine)
    result = Instance(store, module, []).exports(store)["add"](store, 1, 2)
    assert isinstance(result, int)
    return result


def test_text_and_binary(engine: Engine, tmp_path: Path) -> None:
    binary = wat2wasm(ADD)
    (tmp_path / "add.wasm").write_bytes(binary)
    (tmp_path / "add.wat").write_text(ADD)
    for module in (
        Module(engine, ADD),
        Module(engine, ADD.encode()),
        Module(engine, binary),
        Module(engine, bytes(binary)),
        Module.from_file(engine, tmp_path / "add.wasm"),
        Module.from_file(engine, str(tmp_path / "add.wat")),
    ):
        assert add(engine, module) == 3


def test_serialised_modules_run_again(engine: Engine, tmp_path: Path) -> None:
    image = Module(engine, ADD).serialize()
    assert image[:4] == b"\x7fELF"
    path = tmp_path / "add.cwasm"
    path.write_bytes(image)
    for other in (engine, Engine()):
        assert add(other, Module.deserialize(other, image)) == 3
        assert add(other, Module.deserialize(other, bytes(image))) == 3
        assert add(other, Module.deserialize_file(other, str(path))) == 3
        assert add(other, Module.deserialize_file(other, path)) == 3
    assert Module.deserialize(engine, image).serialize() == image


def test_an_image_for_other_settings_is_refused(engine: Engine) -> None:
    image = Module(engine, ADD).serialize()
    for name, value in (
        ("signals_based_traps", False),
        ("memory_guard_size", 1 << 20),
        ("cranelift_opt_level", "none"),
    ):
        config = Config()
        setattr(config, name, value)
        other = Engine(config)
        with pytest.raises(WasmtimeError):
            Module.deserialize(other, image)
        assert add(other, Module(other, ADD)) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "wasm", "elf"])
def test_a_damaged_image_is_refused(engine: Engine, tmp_path: Path, damage: str) -> None:
    image = Module(engine, ADD).serialize()
    step = max(1, len(image) // 64)
    damaged = {
        "cut": [image[:n] for n in range(0, len(image), step)],
        "flip": [image[:n] + bytes([image[n] ^ 0x10]) + image[n + 1 :] for n in range(0, len(image), step)],
        "empty": [b""],
        "wasm": [wat2wasm(ADD)],
        "elf": [Path(sys.executable).resolve().read_bytes()[:100_000]],
    }[damage]
    path = tmp_path / "damaged"
    for data in damaged:
        with pytest.raises(WasmtimeError):
            Module.deserialize(engine, bytes(data))
        path.write_bytes(data)
        with pytest.raises(WasmtimeError):
            Module.deserialize_file(engine, path)


def test_files_that_are_no_files(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(WasmtimeError, match="No such file"):
        Module.deserialize_file(engine, tmp_path / "missing")
    with pytest.raises(WasmtimeError):
        Module.deserialize_file(engine, tmp_path)
    with pytest.raises(FileNotFoundError):
        Module.from_file(engine, tmp_path / "missing")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(WasmtimeError):
        Module.deserialize_file(engine, fifo)


def test_errors_say_where(engine: Engine) -> None:
    with pytest.raises(WasmtimeError, match="offset"):
        Module(engine, b"\0asm\1\0\0\0\1")
    with pytest.raises(WasmtimeError, match="2"):
        Module(engine, "(module\n  (func (result i32)\n    (i32.bogus)))")
    with pytest.raises(WasmtimeError, match="type mismatch"):
        Module(engine, "(module (func (result i32) (i64.const 1)))")
    with pytest.raises(WasmtimeError):
        Module.validate(engine, bytes(wat2wasm("(module)"))[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "(module (tag))",
        "(module (type (struct)))",
    ],
)
def test_later_proposals_are_refused(engine: Engine, text: str) -> None:
    with pytest.raises(WasmtimeError):
        Module(engine, text)


def test_imports_and_exports_have_types(engine: Engine) -> None:
    module = Module(
        engine,
        """(module $name (import "a" "f" (func (param i32) (result i64))) (import "a" "g" (global (mut f32)))
             (import "b" "m" (memory 1 2)) (import "b" "t" (table 3 externref))
             (export "f" (func 0)) (export "g" (global 0)) (export "m" (memory 0)) (export "t" (table 0)))""",
    )
    assert [repr(i) for i in module.imports] == [
        "<ImportType 'a' 'f': FuncType([i32], [i64])>",
        "<ImportType 'a' 'g': GlobalType(f32, mutable=True)>",
        "<ImportType 'b' 'm': MemoryType(Limits(1, 2))>",
        "<ImportType 'b' 't': TableType(anyref, Limits(3, None))>",
    ]
    assert [(e.name, e.type) for e in module.exports] == [
        (name, i.type) for name, i in zip("fgmt", module.imports, strict=True)
    ]
    assert repr(module) == "<Module 'name': 4 imports, 4 exports>"


def test_a_module_serves_many_stores(engine: Engine) -> None:
    module = Module(
        engine,
        """(module (global $n (mut i32) (i32.const 0)) (func (export "next") (result i32)
             (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))""",
    )
    stores = [Store(engine) for _ in range(5)]
    exports = [Instance(s, module, []).exports(s) for s in stores]
    for number, (s, x) in enumerate(zip(stores, exports, strict=True)):
        for _ in range(number):
            x["next"](s)
    assert [x["next"](s) for s, x in zip(stores, exports, strict=True)] == [1, 2, 3, 4, 5]


def test_instances_outlive_their_module(engine: Engine) -> None:
    store = Store(engine)
    with Module(engine, ADD) as module:
        exports = Instance(store, module, []).exports(store)
    assert exports["add"](store, 3, 4) == 7
    with pytest.raises(ValueError, match="already closed"):
        Instance(store, module, [])


def test_explicit_bounds_checks(engine: Engine) -> None:
    """`signals_based_traps = False`: the same traps without signals."""
    config = Config()
    config.signals_based_traps = False
    config.memory_init_cow = False
    other = Engine(config)
    store = Store(other)
    module = Module(
        other,
        """(module (memory (export "m") 1) (data (i32.const 65532) "\\01\\02\\03\\04")
             (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
             (func (export "far") (param i32) (result i32) (i32.load8_u offset=65535 (local.get 0))))""",
    )
    x = Instance(store, module, []).exports(store)
    assert x["load"](store, 65532) == 0x04030201
    assert x["far"](store, 0) == 4
    for name, address in (("load", 65533), ("load", -1), ("far", 1), ("far", -1)):
        with pytest.raises(Trap, match="out of bounds memory access"):
            x[name](store, address)
    x["m"].grow(store, 1)
    assert x["far"](store, 1) == 0


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_parallel_compilation_off_gives_the_same_image(strategy: str) -> None:
    functions = "\n".join(f'(func (export "f{i}") (result i32) (i32.const {i}))' for i in range(200))
    images = []
    for parallel in (True, False):
        config = Config()
        config.strategy = strategy
        config.parallel_compilation = parallel
        images.append(Module(Engine(config), f"(module {functions})").serialize())
    assert images[0] == images[1]


def test_validate_does_not_compile() -> None:
    """Nor does it load a compiler."""
    code = (
        "import sys, wasmforge as w; w.Module.validate(w.Engine(), b'\\0asm\\1\\0\\0\\0'); "
        "assert not [m for m in sys.modules if 'llvm' in m]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
