"""Random modules give the same results, traps, globals and memories in the baseline compiler, with and without guard
pages, as in wasmtime and in the LLVM compiler. `python -m tests.differential` does more of it."""

from __future__ import annotations

import functools

import pytest

from tests.generate import Engine, ModuleMaker, compare, engines

pytest.importorskip("wasmtime", reason="the wasmtime package is the judge: pip install '.[bench]'")


@functools.cache
def made(*names: str) -> dict[str, Engine]:
    return engines(*names)


@pytest.mark.parametrize("part", range(15))
def test_against_wasmtime(part: int) -> None:
    for seed in range(20 * part, 20 * part + 20):
        assert compare(made("baseline", "explicit", "wasmtime"), ModuleMaker(seed).make(), seed) == []


def test_against_llvm() -> None:
    for seed in range(1000, 1010):
        assert compare(made("baseline", "llvm"), ModuleMaker(seed, 20).make(), seed) == []


def test_fuel_against_wasmtime() -> None:
    """Every instruction costs what it costs in Wasmtime, in both compilers."""
    for seed in range(2000, 2020):
        maker = ModuleMaker(seed, 12, references=False)
        assert compare(made("wasmtime+fuel", "baseline+fuel", "llvm+fuel"), maker.make(), seed) == []


def test_a_difference_is_found() -> None:
    """The comparison itself works: other arguments give another outcome."""
    engine = made("baseline")["baseline"]
    wasm = ModuleMaker(1).make()
    assert engine.run(wasm, 1, 3) == engine.run(wasm, 1, 3)
    assert engine.run(wasm, 1, 3) != engine.run(wasm, 2, 3)
