"""Constant expressions (specification, section 3.3.10) with the operators of extended-const, as raw bits."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmforge.binary.leb128 import encode_signed, encode_unsigned
from wasmforge.runtime.vm.const_expr import evaluate
from wasmforge.syntax.errors import WasmtimeError


def run(code: bytes) -> int:
    return evaluate(code + b"\x0b", {0: 7, 200: 2**64 - 1}.__getitem__, lambda x: 0x1000 + x)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_i32_arithmetic_is_modulo_2_32(a: int, b: int) -> None:
    operands = b"\x41" + encode_signed(a) + b"\x41" + encode_signed(b)
    assert run(operands + b"\x6a") == (a + b) % 2**32
    assert run(operands + b"\x6b") == (a - b) % 2**32
    assert run(operands + b"\x6c") == (a * b) % 2**32


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_i64_arithmetic_is_modulo_2_64(a: int, b: int) -> None:
    operands = b"\x42" + encode_signed(a) + b"\x42" + encode_signed(b)
    assert run(operands + b"\x7c") == (a + b) % 2**64
    assert run(operands + b"\x7d") == (a - b) % 2**64
    assert run(operands + b"\x7e") == (a * b) % 2**64


def test_floats_keep_their_bits() -> None:
    signalling = struct.pack("<I", 0x7FA00001)
    assert run(b"\x43" + signalling) == 0x7FA00001
    assert run(b"\x44" + struct.pack("<d", -0.0)) == 1 << 63


def test_globals_and_references() -> None:
    assert run(b"\x23\x00") == 7
    assert run(b"\x23" + encode_unsigned(200)) == 2**64 - 1
    assert run(b"\xd0\x70") == run(b"\xd0\x6f") == 0
    assert run(b"\xd2" + encode_unsigned(300)) == 0x1000 + 300
    assert run(b"\x23\x00\x41\x02\x6c\x41\x7f\x6a") == 13


@pytest.mark.parametrize("code", [b"", b"\x41", b"\x41\x80", b"\x6a", b"\x41\x00\x6a", b"\x00", b"\x41\x01\x41\x02"])
def test_what_is_no_constant_expression_is_refused(code: bytes) -> None:
    """Attack: a damaged module record."""
    with pytest.raises(WasmtimeError, match="not a constant expression"):
        run(code)
