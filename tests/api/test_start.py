"""The bundle of bytecode that a start reads instead of fifty files (`wasmforge/_start.py`): it is made, used, and never
preferred to a source that changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasmforge

SHOW = """
import wasmforge
wasmforge.Engine
import wasmforge.runtime.store as store, wasmforge.engine as engine
print(type(store.__loader__).__name__, getattr(engine, "EDITED", None), sys.meta_path[0].__class__.__name__)
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    source = Path(wasmforge.__file__).parent
    copy = tmp_path / "wasmforge"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    copy.chmod(0o755)


def run(package: Path, *options: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{SHOW}"
    result = subprocess.run(
        [sys.executable, "-S", *options, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def bundle(package: Path) -> Path:
    (found,) = (package / "__pycache__").glob("_start.*.bundle")
    return found


def test_the_first_start_makes_it_and_the_second_uses_it(package: Path) -> None:
    assert run(package)[0] == "SourceFileLoader"
    assert bundle(package).is_file()
    loader, _, finder = run(package)
    assert loader == "_Loader"
    assert finder != "_Finder"  # it stands there only during the import


def test_an_edited_source_is_what_runs(package: Path) -> None:
    run(package)
    with open(package / "engine.py", "a", encoding="utf-8") as file:
        file.write("\nEDITED = 'yes'\n")
    assert run(package)[:2] == ["SourceFileLoader", "yes"]
    assert run(package)[:2] == ["_Loader", "yes"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_bundle_is_made_again(package: Path, damage: str) -> None:
    run(package)
    data = bytearray(bundle(package).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    bundle(package).write_bytes(data[: {"cut": len(data) // 3, "flip": len(data), "empty": 0}[damage]])
    assert run(package)[0] == "SourceFileLoader"
    assert run(package)[0] == "_Loader"


def test_a_package_that_moved_does_not_run_the_old_one(package: Path) -> None:
    run(package)
    moved = package.parent / "elsewhere" / "wasmforge"
    shutil.copytree(package, moved)  # with __pycache__ and all times
    assert run(moved)[0] == "SourceFileLoader"


def test_nothing_is_written_when_bytecode_is_not(package: Path) -> None:
    run(package, "-B")
    assert not (package / "__pycache__").exists()
