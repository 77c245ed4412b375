"""`import` of WebAssembly modules, by the hook that `import wasmforge.loader` installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ADDING = '(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
USING = """(module
  (import "adding" "add" (func $add (param i32 i32) (result i32)))
  (import "helper" "log" (func $log (param i32)))
  (memory (export "memory") 1)
  (func (export "run") (call $log (call $add (i32.const 20) (i32.const 22)))))"""


def run(folder: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_import_each_other_and_python(tmp_path: Path) -> None:
    (tmp_path / "adding.wat").write_text(ADDING)
    (tmp_path / "using.wat").write_text(USING)
    (tmp_path / "helper.py").write_text("def log(x):\n    print('logged', x)\n")
    program = "import wasmforge.loader, adding, using; print(adding.add(1, 2)); using.run(); print(using.memory[0])"
    assert run(tmp_path, program) == "3\nlogged 42\n0\n"


def test_packages_and_errors(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.wat").write_text(ADDING)
    (tmp_path / "broken.wasm").write_bytes(b"\0asm garbage")
    program = """
import wasmforge, wasmforge.loader
from package import inner
print(inner.add(2, 3), inner.__file__.endswith("inner.wat"))
for name in ("broken", "nothing"):
    try:
        __import__(name)
    except (wasmforge.WasmtimeError, ImportError) as error:
        print(type(error).__name__)
"""
    assert run(tmp_path, program) == "5 True\nMalformedError\nModuleNotFoundError\n"
