"""What type checkers make of the package from outside: pyright in its strict mode on the examples and on a program that
uses the public names, and what it says about their completeness. (`mypy --strict` reads the same in `make lint`.)"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wasmforge

ROOT = Path(__file__).resolve().parents[2]
PYRIGHT = shutil.which("pyright") or shutil.which("pyright", path=str(Path(sys.executable).parent))
INTERNAL = {
    f"wasmforge.{name}"
    for name in ("func_.Caller", "func_.Caller.__init__", "trap.Frame", "trap.Frame.__init__", "loading.load")
}
"""Nobody but the package makes a `Caller` or a `Frame`; a loaded module has the attributes that its exports name."""

pytestmark = pytest.mark.skipif(PYRIGHT is None, reason="needs pyright: pip install pyright")


def pyright(directory: Path, *arguments: str) -> dict[str, Any]:
    command = [str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, *arguments]
    out = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def strict(directory: Path) -> dict[str, Any]:
    settings = {"include": ["."], "typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")]}
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    return pyright(directory, "-p", ".")


def test_programs_of_users_have_no_errors(tmp_path: Path) -> None:
    programs = [*sorted((ROOT / "examples").glob("*.py")), ROOT / "tests" / "packaging" / "embedder.py"]
    for path in programs:
        shutil.copy(path, tmp_path)
    found = strict(tmp_path)
    assert found["summary"]["filesAnalyzed"] == len(programs)
    assert [(d["file"], d["range"]["start"]["line"], d["message"]) for d in found["generalDiagnostics"]] == []


def test_an_error_of_a_user_is_found(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("import wasmforge\nwasmforge.Config().wasm_simd = 'yes'\nwasmforge.Limits(1)\n")
    assert len(strict(tmp_path)["generalDiagnostics"]) == 2


def test_public_names_have_types(tmp_path: Path) -> None:
    report = pyright(tmp_path, "--verifytypes", "wasmforge", "--ignoreexternal")["typeCompleteness"]
    values = [getattr(wasmforge, name) for name in wasmforge.__all__]
    public = {f"{value.__module__}.{value.__qualname__}" for value in values if hasattr(value, "__qualname__")}
    symbols = [s for s in report["symbols"] if any(f"{s['name']}.".startswith(f"{name}.") for name in public)]
    assert len(symbols) > 300
    vague = [s["name"] for s in symbols if not s["isTypeKnown"] or s["isTypeAmbiguous"]]
    assert [name for name in vague if name not in INTERNAL] == []
