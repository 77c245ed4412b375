"""The programs of examples/ run and print what they promise; those written with the names of the wasmtime package print
the same when only their import is changed.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import wasmforge

from .engines import printed

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SAME_IN_WASMTIME = ("host_functions", "sandbox", "traps")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def run_script(script: Path) -> str:
    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def in_wasmtime(name: str, folder: Path) -> str:
    """What an example prints when it imports wasmtime instead of wasmforge."""
    for program in EXAMPLES.glob("*.wat"):
        (folder / program.name).symlink_to(program)
    script = folder / f"{name}.py"
    script.write_text((EXAMPLES / f"{name}.py").read_text().replace("from wasmforge import", "from wasmtime import"))
    return run_script(script)


@pytest.fixture
def wasmtime() -> ModuleType:
    package: ModuleType = pytest.importorskip("wasmtime", reason="wasmtime 42.0.0 is not installed: [bench]")
    return package


@pytest.mark.parametrize("name", SAME_IN_WASMTIME)
def test_moving_over_is_changing_the_import(name: str, wasmtime: ModuleType, tmp_path: Path) -> None:
    ours, theirs = run_script(EXAMPLES / f"{name}.py").splitlines(), in_wasmtime(name, tmp_path).splitlines()
    if name == "host_functions":  # we add the wasm frames as a note to a Python exception
        note = ours.index("wasm backtrace:")
        assert ours[note + 1].endswith("inventory!total")
        del ours[note : note + 2]
    if name == "traps":  # the text about the invalid module is our own
        assert ours.pop().startswith("rejected: ")
        assert theirs.pop().startswith("rejected: ")
    assert ours == theirs


def test_quickstart() -> None:
    lines = run_script(EXAMPLES / "quickstart.py").splitlines()
    assert "gcd(3528, 3780) = 252" in lines
    assert "divide(-17, 5) = [-3, -2]" in lines
    assert "sum = 3.75" in lines
    errors = [line.partition(":")[0] for line in lines if "Error" in line]
    assert errors == ["TypeError", "TypeError", "OverflowError"]


def test_compiled_image_runs_without_a_compiler() -> None:
    lines = run_script(EXAMPLES / "compiled.py").splitlines()
    assert lines == [
        "the image is an ELF file: True",
        "fib(25) = 75025",
        "damaged: WasmtimeError",
    ]


def test_every_script_is_tested() -> None:
    assert set(SCRIPTS) == {*SAME_IN_WASMTIME, "quickstart", "compiled", "untrusted_python"}


# --- The program of `make run` ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["33"], ["8"]], ids=["default", "33", "8"])
def test_mandelbrot_prints_letters_into_a_file(arguments: list[str], wasmtime: ModuleType, tmp_path: Path) -> None:
    picture = printed(wasmforge, EXAMPLES / "mandelbrot.wat", arguments, tmp_path)
    columns = int(arguments[0]) if arguments else 79
    assert [len(line) for line in picture.splitlines()] == [columns] * (columns * 2 // 5)
    assert len(set(picture)) >= 5, "no picture"
    assert picture == printed(wasmtime, EXAMPLES / "mandelbrot.wat", arguments, tmp_path)


@pytest.mark.parametrize("argument", ["7", "1001", "x", "", "1" * 40])
def test_mandelbrot_refuses_other_widths(argument: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="status 2"):
        printed(wasmforge, EXAMPLES / "mandelbrot.wat", [argument], tmp_path)


def on_a_terminal(package: str) -> bytes:
    """What the program draws when its standard output is a terminal; standard error goes nowhere."""
    code = f"""
import sys, {package} as package
engine = package.Engine()
module = package.Module(engine, open(sys.argv[1]).read())
linker = package.Linker(engine)
linker.define_wasi()
store = package.Store(engine)
wasi = package.WasiConfig()
wasi.argv = ["mandelbrot", "20"]
wasi.inherit_stdout()
store.set_wasi(wasi)
linker.instantiate(store, module).exports(store)["_start"](store)
"""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(EXAMPLES / "mandelbrot.wat")], stdout=theirs, env=environment()
    ) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not part:
                break
            drawn += part
    os.close(ours)
    assert process.returncode == 0
    return drawn


def test_mandelbrot_draws_in_colour_on_a_terminal(wasmtime: ModuleType) -> None:
    drawn = on_a_terminal("wasmforge")
    assert drawn.count(b"\x1b[38;2;") == drawn.count("\N{UPPER HALF BLOCK}".encode()) == 20 * 8
    assert drawn.count(b"\x1b[0m") == 8
    assert drawn == on_a_terminal("wasmtime")
