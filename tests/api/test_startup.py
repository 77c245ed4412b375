"""What a process loads: `import wasmforge` next to nothing, a process that maps an image no parser, no compiler and
none of the standard library's expensive modules. Counted in modules: milliseconds depend on the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest

import wasmforge
from wasmforge import Engine, Module

EXPENSIVE = {
    "ast", "asyncio", "collections.abc", "contextlib", "dataclasses", "email", "enum", "functools", "inspect", "json",
    "importlib.metadata", "llvmlite", "logging", "numpy", "pathlib", "re", "socket", "subprocess", "threading",
    "typing",
}  # fmt: skip

PHASES = ("wasmforge.text", "wasmforge.binary", "wasmforge.validation", "wasmforge.compiler.llvm",
          "wasmforge.compiler.baseline", "wasmforge.wasi", "wasmforge.wast", "wasmforge.cli")  # fmt: skip

CALL = """
engine = wasmforge.Engine()
store = wasmforge.Store(engine)
module = wasmforge.Module.deserialize_file(engine, {path!r})
instance = wasmforge.Instance(store, module, [])
assert instance.exports(store)["add"](store, 1, 2) == 3
"""


def loaded_by(code: str) -> set[str]:
    """The modules that a statement adds to those of a bare interpreter."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    # -S: without the files of site-packages that import things on their own.
    paths = f"import sys; sys.path[:0] = {sys.path!r}\n"
    result = subprocess.run([sys.executable, "-S", "-c", paths + script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = loaded_by("import wasmforge")
    assert {name for name in loaded if name.startswith("wasmforge")} <= {"wasmforge", "wasmforge.version"}
    assert len(loaded) <= 4


def test_a_process_that_maps_an_image_loads_little(engine: Engine, tmp_path: Path) -> None:
    module = Module(
        engine,
        """(module (memory 1) (table 1 funcref) (data (i32.const 0) "x") (elem (i32.const 0) $add)
             (global i32 (i32.const 1))
             (func $add (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))""",
    )
    path = tmp_path / "add.cwasm"
    path.write_bytes(module.serialize())
    loaded = loaded_by("import wasmforge\n" + CALL.format(path=str(path)))
    assert not EXPENSIVE & loaded
    assert not {name for name in loaded if name.startswith(PHASES)}
    ours = {name for name in loaded if name.startswith("wasmforge")}
    assert len(ours) < 70
    assert len(loaded - ours) < 25


RUN = """
engine = wasmforge.Engine()
module = wasmforge.Module.from_file(engine, {path!r})
linker = wasmforge.Linker(engine)
linker.define_wasi()
store = wasmforge.Store(engine)
store.set_wasi(wasmforge.WasiConfig())
linker.instantiate(store, module).exports(store)["_start"](store)
"""


def test_a_program_that_another_process_has_compiled_loads_neither_compilers_nor_parsers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WASMFORGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "program.wasm"
    path.write_bytes(
        wasmforge.wat2wasm(
            """(module
              (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
              (memory (export "memory") 1)
              (table 1 funcref) (elem (i32.const 0) $inner)
              (global $g (mut i32) (i32.const 1))
              (data (i32.const 0) "x")
              (func $inner (drop (call $close (i32.const 1))) (global.set $g (i32.const 2)))
              (func (export "_start") (call_indirect (i32.const 0))))"""
        )
    )
    code = "import wasmforge\n" + RUN.format(path=str(path))
    assert "wasmforge.compiler.baseline" in loaded_by(code)
    loaded = loaded_by(code)
    assert not EXPENSIVE & loaded
    assert not {name for name in loaded if name.startswith(tuple(set(PHASES) - {"wasmforge.wasi"}))}
    ours = {name for name in loaded if name.startswith("wasmforge")}
    assert len(ours) < 110
    assert len(loaded - ours) < 20


def test_public_names() -> None:
    """Each name of `__all__` is there, nothing else is promised, and a wrong one is an AttributeError."""
    assert set(wasmforge.__all__) == set(wasmforge._MODULES)
    for name in wasmforge.__all__:
        value = getattr(wasmforge, name)
        if get_origin(value) is Annotated:  # for type hints: `wasmforge.i32`
            assert get_args(value)[1] == getattr(wasmforge.ValType, name)()
        else:
            assert value.__name__ == name
        assert name in dir(wasmforge)
    assert not hasattr(wasmforge, "missing")
    assert wasmforge.load is wasmforge.load
    assert callable(wasmforge.load), "no submodule hides the function"


def test_star_import() -> None:
    loaded = loaded_by("from wasmforge import *\nassert load and Trap and wat2wasm")
    assert "wasmforge.trap" in loaded
