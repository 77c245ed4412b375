"""What `run` limits: fuel, epochs, memories, tables, instances (reference, E3 and E9-07 to E9-09)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Result

MODULE = """(module (memory 1) (table 1 funcref)
  (func (export "memory") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "table") (param i32) (result i32) (table.grow (ref.null func) (local.get 0)))
  (func (export "count") (param i32) (result i32)
    (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (local.get 0))
  (func (export "loop") (loop (br 0))))"""


@pytest.mark.parametrize("compiler", ["baseline", "llvm"])
def test_fuel(run: Callable[..., Result], compiler: str) -> None:
    options = ("-C", f"compiler={compiler},cache=n")
    assert run(*options, "-W", "fuel=10000", "--invoke", "count", MODULE, "10").out == "0\n"
    result = run(*options, "-W", "fuel=10000", "--invoke", "loop", MODULE)
    assert result.status == 134
    assert "wasm trap: all fuel consumed by WebAssembly" in result.err


def test_an_image_that_counts_fuel(run: Callable[..., Result]) -> None:
    """`compile -W fuel=N` makes one; it runs with fuel only."""
    assert run("compile", "-W", "fuel=1", "-o", "metered.cwasm", MODULE).status == 0
    words = ("--allow-precompiled", "--invoke", "loop", "metered.cwasm")
    assert run("run", "-W", "fuel=100", *words).status == 134
    refused = run("run", *words)
    assert refused.status == 1
    assert "consume_fuel" in refused.err or "fuel" in refused.err


def test_epochs(run: Callable[..., Result]) -> None:
    """Nothing increments the epoch: the program runs to its end, or until its time is up."""
    assert run("-W", "epoch-interruption", "--invoke", "count", MODULE, "10").out == "0\n"
    result = run("-W", "epoch-interruption,timeout=20ms", "--invoke", "loop", MODULE)
    assert result.status == 134
    assert "wasm trap: interrupt" in result.err


@pytest.mark.parametrize(("kind", "limit"), [("memory", "max-memory-size=131072"), ("table", "max-table-elements=2")])
def test_growing(run: Callable[..., Result], kind: str, limit: str) -> None:
    assert run("-W", limit, "--invoke", kind, MODULE, "1").out == "1\n"
    assert run("-W", limit, "--invoke", kind, MODULE, "2").out == "-1\n"
    assert run("-W", f"{limit},trap-on-grow-failure", "--invoke", kind, MODULE, "1").out == "1\n"
    failed = run("-W", f"{limit},trap-on-grow-failure", "--invoke", kind, MODULE, "2")
    # No trap of WebAssembly: Wasmtime ends with 1 as well.
    assert failed.status == 1
    assert f"forcing a {kind} growth failure to be a trap" in failed.err


@pytest.mark.parametrize("limit", ["max-instances", "max-tables", "max-memories"])
def test_counts(run: Callable[..., Result], limit: str) -> None:
    assert run("-W", f"{limit}=1", MODULE).status == 0
    result = run("-W", f"{limit}=0", MODULE)
    assert result.status == 1
    assert "resource limit exceeded" in result.err


SWITCHES = {
    "tail-call": "(module (func $f return_call $f))",
    "simd": "(module (func (drop (v128.const i32x4 0 0 0 0))))",
    "relaxed-simd": "(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
    "multi-memory": "(module (memory 1) (memory 1))",
    "memory64": "(module (memory i64 1))",
    "threads": "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))",
    "custom-page-sizes": "(module (memory 1 (pagesize 1)))",
    "wide-arithmetic": "(module (func (param i64) local.get 0 local.get 0 i64.mul_wide_u drop drop))",
    "function-references": "(module (type $t (func)) (func (param (ref null $t))))",
    "extended-const": "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
    "reference-types": "(module (func (param externref)))",
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_proposals(run: Callable[..., Result], switch: str) -> None:
    """Each switch lets a module in, and without it the module is refused."""
    also = ",relaxed-simd=n" if switch == "simd" else ""
    assert run("-W", switch, SWITCHES[switch]).status == 0
    refused = run("-W", f"{switch}=n{also}", SWITCHES[switch])
    assert refused.status == 1
    assert "switched off" in refused.err


def test_shared_memories(run: Callable[..., Result]) -> None:
    module = "(module (memory 1 1 shared))"
    assert run("-W", "shared-memory", module).status == 0
    assert run(module).status == 1
