"""Issue 3, point 4: without llvmlite everything runs in baseline; what needs LLVM says how to get it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wasmforge import Config, Engine, WasmtimeError
from wasmforge.compiler.availability import llvm_available

ROOT = Path(__file__).resolve().parents[2]
HINT = r"pip install 'wasmforge\[llvm\]'"


@pytest.fixture
def no_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)  # an import of it raises ModuleNotFoundError


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize("strategy", ["llvm", "cranelift"])
def test_asking_for_llvm_says_how_to_install_it(strategy: str) -> None:
    config = Config()
    with pytest.raises(WasmtimeError, match=HINT):
        config.strategy = strategy


@pytest.mark.usefixtures("no_llvm")
@pytest.mark.parametrize("strategy", ["auto", "baseline", "winch", None])
def test_other_strategies_fall_back_to_baseline(strategy: str | None) -> None:
    config = Config()
    if strategy is not None:
        config.strategy = strategy
    assert Engine(config)._strategy == "baseline"


def test_availability_is_what_an_import_finds() -> None:
    pytest.importorskip("llvmlite")
    assert llvm_available()
    code = "import sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    code += f"sys.path.insert(0, {str(ROOT / 'src')!r})\n"
    code += "from wasmforge.compiler.availability import llvm_available\nassert not llvm_available()\n"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_runs_without_llvmlite() -> None:
    """The whole way, in a process that cannot import it: gates from an image, code from the baseline compiler."""
    code = (
        "import sys; sys.modules['llvmlite'] = None; import wasmforge\n"
        'app = wasmforge.load(\'(module (func (export "add") (param i32 i32) (result i32)'
        " (i32.add (local.get 0) (local.get 1))))')\n"
        "print(app.add(40, 2))"
    )
    paths = f"import sys; sys.path[:0] = {sys.path!r}\n"
    result = subprocess.run([sys.executable, "-c", paths + code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "42\n"), result.stderr


def test_an_installation_requires_neither_llvm_nor_much_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [name.partition(">")[0] for name in project["project"]["dependencies"]] == ["librt", "mypy-extensions"]
    assert project["project"]["optional-dependencies"]["llvm"]
