"""Issue 3, point 6: the modules that mypyc compiles behave as their sources do, byte for byte and error for error.

mypyc's integers differ from Python's in ways that no type checker shows: an `i64` wraps at 64 bits, and in
`r -= 1 << s` with an `i64` s the literal was once a 32-bit C integer, so that long LEB128 numbers came out wrong.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILED = ROOT / ".cache" / "compiled"
ROOMS = ("binary", "validation", "compiler/baseline")


def why_not() -> str | None:
    """Why there is nothing to compare with: the compiled copy is missing, or of other sources."""
    if not (COMPILED / ".stamp").exists():
        return "no compiled front end in .cache/compiled: run `make compiled` (a minute or two)"
    for path in sorted((ROOT / "src" / "wasmforge").rglob("*.py")):
        copy = COMPILED / path.relative_to(ROOT / "src")
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            return f"the compiled front end is of another {path.relative_to(ROOT)}: run `make compiled`"
    return None


def run(library: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(library), str(ROOT)])}
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


reason = why_not()
needs_compiled = pytest.mark.skipif(reason is not None, reason=str(reason))


@needs_compiled
def test_the_declared_dependencies_are_enough(tmp_path: Path) -> None:
    """An environment for development has more: what the compiled modules import of it nobody would miss."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in declared:
        distribution = importlib.metadata.distribution(requirement.partition(">")[0])
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(str(distribution.locate_file(top)))
    code = (
        f"import sys; sys.path += {[str(COMPILED), str(tmp_path)]!r}\n"
        "from wasmforge import Config, Engine, Module, wat2wasm\n"
        "config = Config(); config.cache = False; config.strategy = 'baseline'\n"
        "Module(Engine(config), wat2wasm('(module (func (drop (i32.const 1))))'))\n"
        "import wasmforge.binary, wasmforge.compiler.baseline.compile; print(wasmforge.binary.decoder.__file__)"
    )
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith(".so")


def outcomes(library: Path) -> dict[str, Any]:
    found = json.loads(run(library, "-m", "tests.packaging.outcomes"))
    assert Path(found["front end"]).is_relative_to(library), "the wrong front end was measured"
    return {"file": found["front end"], **found["outcomes"]}


@needs_compiled
def test_compiled_and_uncompiled_agree_on_every_module() -> None:
    pure = outcomes(ROOT / "src")
    compiled = outcomes(COMPILED)
    assert pure.pop("file").endswith(".py")
    assert compiled.pop("file").endswith(".so")
    # Another test may be building the guests of the benchmark between the two.
    assert {name for name in compiled.keys() ^ pure.keys() if not name.startswith("guest ")} == set()
    common = compiled.keys() & pure.keys()
    assert [(name, pure[name], compiled[name]) for name in common if pure[name] != compiled[name]] == []
    complete = [steps for steps in pure.values() if len(steps) == 6]
    refused = [steps for steps in pure.values() if ": " in steps[-1]]
    assert len(complete) > 300 and len(refused) > 1000, "the modules no longer reach every step"


@needs_compiled
@pytest.mark.parametrize("room", ROOMS)
def test_every_module_of_a_room_is_compiled(room: str) -> None:
    """`__init__` only imports, `buffer` and `words` are there for the uncompiled form; everything else is an extension
    module, so that no call crosses over."""
    sources = {path.stem for path in (ROOT / "src" / "wasmforge" / room).glob("*.py")} - {"__init__", "buffer", "words"}
    folder = COMPILED / "wasmforge" / room
    assert {path.name.partition(".")[0] for path in folder.glob("*.so")} == sources


@needs_compiled
def test_the_version_names_the_front_end() -> None:
    assert "front end  compiled (by mypyc)" in run(COMPILED, "-m", "wasmforge", "--version", "-v")
    assert "front end  pure (Python sources)" in run(ROOT / "src", "-m", "wasmforge", "--version", "-v")


@needs_compiled
def test_the_gates_of_the_installation_are_those_that_run() -> None:
    """The image of the gates is keyed by their sources: that of a wheel must be current when it is installed."""
    assert f"gates      {COMPILED}" in run(COMPILED, "-m", "wasmforge", "--version", "-v")


@needs_compiled
def test_a_warm_start_does_not_load_the_compiled_library() -> None:
    """It has three megabytes. `tests.api.test_startup` holds the same for the sources."""
    code = "import sys, wasmforge\nfrom wasmforge import Engine, Store\nStore(Engine())\nprint(*sys.modules)"
    assert not [name for name in run(COMPILED, "-c", code).split() if "__mypyc" in name]


def test_the_checkout_has_no_extension_modules() -> None:
    """They would hide every edit of the sources beside them."""
    assert list((ROOT / "src").rglob("*.so")) == []
