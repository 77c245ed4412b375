"""Robustness: damaged modules are valid or raise a WasmtimeError, and the wasmtime package agrees about which."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import check, mutants, mutate, seeds
from wasmforge.binary import decode
from wasmforge.syntax.errors import UnsupportedFeatureError, WasmtimeError
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.validation import InvalidError, validate


def test_mutants_are_refused_or_valid() -> None:
    """Everything but a WasmtimeError would come out of `check`."""
    outcomes = [check(data) for data in mutants(20_000, seed=4)]
    for outcome in ("valid", "MalformedError", "InvalidError", "UnsupportedFeatureError"):
        assert outcomes.count(outcome) > 200, f"the mutator no longer reaches {outcome}"


def test_the_mutator_is_deterministic() -> None:
    assert list(mutants(50, seed=9)) == list(mutants(50, seed=9))
    assert list(mutants(50, seed=9)) != list(mutants(50, seed=10))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(seeds()), st.data())
def test_flip_cut_repeat(seed: bytes, data: st.DataObject) -> None:
    """The same with shrinking: the smallest damage that breaks something is what hypothesis reports."""
    out = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        if len(out) <= 8:
            break
        start = data.draw(st.integers(8, len(out) - 1))
        end = data.draw(st.integers(start + 1, len(out)))
        change = data.draw(st.sampled_from(["flip", "cut", "repeat"]))
        if change == "flip":
            out[start] ^= data.draw(st.integers(1, 255))
        elif change == "cut":
            del out[start:end]
        else:
            out[end:end] = out[start:end]
    check(bytes(out))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_behind_the_header(data: bytes) -> None:
    check(b"\0asm\x01\0\0\0" + data)
    check(data)


def test_every_truncation_is_refused() -> None:
    """A module cut anywhere but between sections is malformed; between them it may be a smaller module."""
    for seed in seeds():
        for size in range(len(seed)):
            try:
                validate(decode(seed[:size]), ALL_FEATURES)
            except WasmtimeError:
                continue
            assert decode(seed[:size]).custom == decode(seed).custom[: len(decode(seed[:size]).custom)]


def test_the_wasmtime_package_agrees() -> None:
    """Wasmtime 42 with the same features accepts exactly the same mutants."""
    wasmtime = pytest.importorskip("wasmtime", reason="the bench extra is not installed")
    config = wasmtime.Config()
    config.wasm_memory64 = False
    for feature in ("function_references", "wide_arithmetic"):  # of which the package has the C functions only
        getattr(wasmtime._bindings, f"wasmtime_config_wasm_{feature}_set")(config.ptr(), True)
    engine = wasmtime.Engine(config)
    rng = random.Random(6)
    originals = seeds()
    for k in range(4_000):
        data = mutate(originals[k % len(originals)], rng)
        try:
            validate(decode(data), ALL_FEATURES)
            mine = "valid"
        except UnsupportedFeatureError:
            continue  # the package has no switch for some proposals
        except InvalidError as error:
            if "multi-memory" in str(error):
                continue
            mine = str(error)
        except WasmtimeError as error:
            mine = str(error)
        if mine.startswith("malformed import kind 0x20"):
            continue  # exact function imports, which the package reads without being asked
        if re.match("malformed (value|reference|block) type 0x[0-3]", mine):
            continue  # a type index that stands where a type should, which the package takes for one
        try:
            wasmtime.Module.validate(engine, data)
            theirs = "valid"
        except wasmtime.WasmtimeError as error:
            theirs = str(error)
        if "global.get of locally defined global" in theirs:
            continue  # allowed by release 3.0, there only with the GC proposal
        assert (mine == "valid") == (theirs == "valid"), f"{data.hex()}\nwasmforge: {mine}\nwasmtime: {theirs}"
