"""Generated modules that mix the proposals of WebAssembly 3.0, alone and in pairs: the same results, traps, refusals
and memories in both compilers and in wasmtime. `python -m tests.differential mixed` does more of it, by this driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import differential
from tests.differential import KINDS, Comparison, Kind, Made
from tests.generate import compare
from tests.generate_mixed import MixedEngine, engine, make_case
from wasmforge.binary import decode, instructions
from wasmforge.syntax.features import Feature

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made() -> Iterator[Make]:
    """Engines by their names, each made once."""
    engines: dict[str, Any] = {}

    def make(*names: str) -> dict[str, Any]:
        for name in names:
            if name not in engines:
                engines[name] = engine(name)
        return {name: engines[name] for name in names}

    yield make
    engines.clear()  # the wasmtime package complains about what is left when the interpreter ends


@pytest.mark.parametrize("part", range(4))
def test_against_wasmtime(made: Make, part: int) -> None:
    pytest.importorskip("wasmtime", reason="needs the wasmtime package (the extra `bench`)")
    for seed in range(25 * part, 25 * part + 25):
        assert compare(made("baseline", "explicit", "wasmtime"), make_case(seed), seed, 2) == []


def test_against_llvm(made: Make) -> None:
    for seed in range(1000, 1008):
        assert compare(made("baseline", "llvm"), make_case(seed), seed, 2) == []


def test_every_proposal_is_there_and_most_calls_end(made: Make) -> None:
    """A generator that leaves something out, or whose modules always trap or are always refused, compares little."""
    used: set[Feature] = set()
    outcomes: list[Any] = []
    runner: MixedEngine = made("baseline")["baseline"]
    for seed in range(40):
        case = make_case(seed)
        for wasm in case.modules:
            module = decode(wasm)
            used |= {Feature(i.row.feature) for body in module.code for i in instructions(body.code, body.offset)}
            shared = [memory.shared for memory in module.all_memories()]
            used |= {Feature.MULTI_MEMORY} if len(shared) > 1 else set()
            used |= {Feature.MEMORY64} if any(memory.is_64 for memory in module.all_memories()) else set()
            used |= {Feature.CUSTOM_PAGE_SIZES} if any(not m.page_size_log2 for m in module.all_memories()) else set()
        outcomes += runner.run(case, seed, 2)
    assert used >= set(Feature) - {Feature.EXTENDED_CONST, Feature.MULTI_VALUE}  # which have no instructions
    calls = [outcome[2] for outcome in outcomes if outcome[0] in ("library", "program")]
    ended = [outcome for outcome in calls if not isinstance(outcome, str)]
    assert 0.3 * len(calls) < len(ended) < 0.9 * len(calls)
    accepted = [outcome[2] for outcome in outcomes if outcome[0] == "accepts"]
    assert 0.05 * len(accepted) < sum(accepted) < 0.6 * len(accepted)


def test_a_case_depends_on_its_seed_alone() -> None:
    assert make_case(11) == make_case(11) != make_case(13)


def broken(seed: int, fuel: bool) -> Made:
    if seed == 3:
        os.abort()
    if seed == 5:
        raise ValueError("five")
    return Made(seed, 1, 1)


class Honest:
    def run(self, case: int, seed: int, calls: int) -> list[int]:
        return [case]


class Liar(Honest):
    def run(self, case: int, seed: int, calls: int) -> list[int]:
        return [case + (case == 8)]


def liars(*names: str) -> dict[str, Any]:
    return {"honest": Honest(), "liar": Liar()}


def test_crashes_exceptions_and_differences_are_told_and_the_rest_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison(Kind(broken, liars), [], 2)
    following = comparison.run(10, 0, time.monotonic() + 60)
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [
        "seed 3: the process ended with -6", "seed 5: ValueError: five", "seed 8: honest 8, liar 9"
    ]  # fmt: skip
    assert (comparison.differences, comparison.cases) == (3, following)
    assert comparison.size >= 10


def test_no_case_is_begun_after_the_time() -> None:
    comparison = Comparison(KINDS["mixed"], ["baseline"], 1)
    assert comparison.run(100, 7, time.monotonic()) == 7
    assert comparison.cases == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_command(kind: str) -> None:
    command = [sys.executable, "-m", "tests.differential", kind, "--count", "2", "--engines", "baseline", "explicit"]
    result = subprocess.run(
        command, cwd=Path(differential.__file__).parents[1], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "baseline explicit: 0 differences" in result.stdout
