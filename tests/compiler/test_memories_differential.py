"""Generated modules with several memories and tables, 32 and 64 bits wide, with pages of one byte: the same results,
traps and memories in the baseline compiler with and without guard pages, in wasmtime and in the LLVM compiler.
`python -m tests.differential memories` does more of it."""

from __future__ import annotations

import functools

import pytest

from tests.generate import Engine, compare
from tests.generate_memories import MemoryModuleMaker, engines


@functools.cache
def made(*names: str) -> dict[str, Engine]:
    return engines(*names)


@pytest.mark.parametrize("part", range(4))
def test_against_wasmtime(part: int) -> None:
    pytest.importorskip("wasmtime", reason="needs the wasmtime package (the extra `bench`)")
    for seed in range(25 * part, 25 * part + 25):
        assert compare(made("baseline", "explicit", "wasmtime"), MemoryModuleMaker(seed).make(), seed, 2) == []


def test_against_llvm() -> None:
    for seed in range(1000, 1006):
        assert compare(made("baseline", "llvm", "llvm-explicit"), MemoryModuleMaker(seed, 6).make(), seed, 2) == []


def test_the_edges_are_reached() -> None:
    """Most calls end, and many find an edge: a generator that never traps, or always, compares little."""
    engine = made("baseline")["baseline"]
    outcomes: list[object] = []
    for seed in range(10):
        outcomes += [
            outcome for name, *outcome in engine.run(MemoryModuleMaker(seed).make(), seed, 2) if name[0] == "f"
        ]
    traps = outcomes.count(["MEMORY_OUT_OF_BOUNDS"])
    assert 0.05 * len(outcomes) < traps < 0.6 * len(outcomes)
