"""Programs in C behave as they do elsewhere: each guest prints byte for byte what it prints in the wasmtime package and
as native code. The programs are in bench/guests and check their own work (round trips, two algorithms that must agree).
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from bench import build_guests
from bench.catalogue import GUESTS, VECTOR_GUESTS, Guest

import wasmforge

from .engines import printed

missing = build_guests.compiler_missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

each_guest = pytest.mark.parametrize("guest", GUESTS, ids=[guest.name for guest in GUESTS])
with_vectors = pytest.mark.parametrize("guest", (*GUESTS, *VECTOR_GUESTS), ids=lambda guest: guest.name)


@pytest.fixture
def wasmtime() -> ModuleType:
    """The package that says what is right; its absence is a reason to skip, not to fail."""
    package: ModuleType = pytest.importorskip("wasmtime", reason="wasmtime 42.0.0 is not installed: [bench]")
    return package


def native_output(guest: Guest) -> bytes:
    return subprocess.run([guest.native, *guest.small], capture_output=True, check=True, timeout=60).stdout


@with_vectors
def test_guest_prints_what_it_prints_elsewhere(guest: Guest, wasmtime: ModuleType, tmp_path: Path) -> None:
    build_guests.build([guest])
    expected = printed(wasmtime, guest.wasm, guest.small, tmp_path)
    assert expected.count(b"\n") >= 3, "the reference printed next to nothing"
    assert printed(wasmforge, guest.wasm, guest.small, tmp_path) == expected
    assert native_output(guest) == expected


@each_guest
def test_guest_uses_webassembly_2_without_vectors(guest: Guest, wasmtime: ModuleType) -> None:
    """The benchmark compares what both engines can do: a compiler that starts to emit vectors must not go unnoticed."""
    build_guests.build([guest], native=False)
    config = wasmtime.Config()
    for feature in ("wasm_relaxed_simd", "wasm_simd", "wasm_tail_call", "wasm_threads", "wasm_memory64"):
        setattr(config, feature, False)
    wasmtime.Module.validate(wasmtime.Engine(config), guest.wasm.read_bytes())


def test_wrong_argument_ends_with_its_status(tmp_path: Path) -> None:
    """Exit statuses travel: `compressor 0` says what is wrong and calls exit(1) (WASI preview 1, proc_exit)."""
    guest = next(guest for guest in GUESTS if guest.name == "compressor")
    build_guests.build([guest], native=False)
    with pytest.raises(AssertionError, match="status 1"):
        printed(wasmforge, guest.wasm, ["0"], tmp_path)
    assert b"size must be" in (tmp_path / "wasmforge.out").read_bytes()
