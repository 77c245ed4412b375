"""The fault handler leaves by a jump instead of `rt_sigreturn`: what only the kernel would have restored must be as it
was."""

from __future__ import annotations

import ctypes
import signal

import pytest

import wasmforge

FE_UPWARD = 0x800  # <fenv.h> on x86-64
SOURCE = '(module (memory 1) (func (export "load") (param i32) (result i32) (i32.load (local.get 0))))'


@pytest.fixture(scope="module")
def app() -> wasmforge.loading.LoadedModule:  # type: ignore[name-defined]
    return wasmforge.load(SOURCE)


def _trap(app: object) -> None:
    with pytest.raises(wasmforge.Trap, match="out of bounds memory access"):
        app.load(-1)  # type: ignore[attr-defined]


def test_rounding_mode_survives_a_memory_trap(app: object) -> None:
    libm = ctypes.CDLL("libm.so.6")
    third = 1.0 / 3.0
    assert libm.fesetround(FE_UPWARD) == 0
    try:
        _trap(app)
        mode = libm.fegetround()  # the x87 control word
        upward = float("1.0") / float("3.0")  # MXCSR
    finally:
        libm.fesetround(0)
    assert mode == FE_UPWARD
    assert upward > third


def test_signal_mask_survives_a_memory_trap(app: object) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        _trap(app)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _trap(app)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
