"""The official test suite of WASI preview 1: every program, on our runtime and, with our functions, on that of the
wasmtime package. What does not pass stands in one list, with what it waits for; the list can only shrink.

Optimising all programs takes minutes, so that LLVM compiles a fifth of the largest group, unless WASMFORGE_ALL_GUESTS
is set; compiled by the baseline compiler, and on the package's runtime, all run in any case.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.wasi.suite import (
    WHERE_TO_GET_IT,
    check,
    in_memory,
    known_failures,
    prepare_directories,
    programs,
    run_with_package,
    run_with_wasmforge,
)
from wasmforge.syntax.errors import WasmtimeError

PASSING = [name for name in programs() if name not in known_failures()]
RUST = [name for name in PASSING if name.startswith("p1-rust/")]
CHOSEN = [name for name in PASSING if name not in RUST or RUST.index(name) % 5 == 0]


@pytest.fixture(autouse=True)
def _needs_suite() -> None:
    if not programs():
        pytest.skip(WHERE_TO_GET_IT)


def test_the_suite_is_complete() -> None:
    """72 programs of preview 1; a loader that finds fewer tests nothing."""
    counts = {kind: sum(name.startswith(kind + "/") for name in PASSING) for kind in ("p1-c", "p1-rust")}
    assert counts == {"p1-c": 14, "p1-rust": 46}
    assert set(known_failures()) <= set(programs()), "the list names programs that do not exist"


@pytest.mark.parametrize("name", PASSING if os.environ.get("WASMFORGE_ALL_GUESTS") else CHOSEN)
def test_program_compiled_by_llvm(tmp_path: Path, name: str) -> None:
    program = programs()[name]
    check(program, run_with_wasmforge(program, prepare_directories(program, tmp_path), "llvm"))


@pytest.mark.parametrize("name", PASSING)
def test_program_compiled_by_baseline(tmp_path: Path, name: str) -> None:
    program = programs()[name]
    check(program, run_with_wasmforge(program, prepare_directories(program, tmp_path), "baseline"))


@pytest.mark.parametrize("name", [name for name in PASSING if programs()[name].dirs])
def test_program_in_memory(tmp_path: Path, name: str) -> None:
    """What uses directories, on directories that only exist in this process."""
    program = programs()[name]
    check(program, run_with_wasmforge(program, in_memory(prepare_directories(program, tmp_path)), "baseline"))


@pytest.mark.parametrize("name", PASSING)
def test_program_on_the_runtime_of_the_package(tmp_path: Path, name: str) -> None:
    pytest.importorskip("wasmtime", reason="the wasmtime package runs the programs: pip install wasmforge[bench]")
    program = programs()[name]
    check(program, run_with_package(program, prepare_directories(program, tmp_path)))


@pytest.mark.parametrize("name", known_failures())
def test_known_failures_still_fail(tmp_path: Path, name: str) -> None:
    """A program that passes leaves the list."""
    program = programs()[name]
    with pytest.raises((WasmtimeError, AssertionError)):
        check(program, run_with_wasmforge(program, prepare_directories(program, tmp_path), "llvm"))
