"""v128 at the boundary: 16 bytes with lane 0 first, or an int with lane 0 lowest; bit patterns are ints."""

from __future__ import annotations

import array
import struct
from typing import Any

import pytest

import wasmforge
from wasmforge import Config, Engine, Func, FuncType, Global, GlobalType, Instance, Module, Store, Val, ValType

BYTES = bytes(range(16))
NUMBER = int.from_bytes(BYTES, "little")
TEXT = """(module
  (import "host" "f" (func $host (param i32 v128 f64) (result v128 i64)))
  (global $g (export "g") (mut v128) (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15))
  (global (export "constant") v128 (v128.const i32x4 1 2 3 4))
  (func (export "same") (param v128) (result v128) (local.get 0))
  (func (export "call") (param v128) (result v128 i64) (call $host (i32.const 7) (local.get 0) (f64.const 0.5)))
  (func (export "set") (param v128) (global.set $g (local.get 0)))
  (func (export "many") (param v128 v128 v128 v128 v128 v128 v128 v128 v128 v128) (result v128 v128 v128 i32 v128)
    (local.get 9) (local.get 8) (local.get 0) (i32.const 5) (local.get 4)))"""


@pytest.fixture(scope="module", params=["llvm", "baseline"])
def engine(request: pytest.FixtureRequest) -> Engine:
    config = Config()
    config.strategy = request.param
    return Engine(config)


class Made:
    def __init__(self, engine: Engine) -> None:
        self.store = Store(engine)
        self.seen: list[object] = []
        self.answer: object = (BYTES[::-1], -1)
        v = ValType
        ft = FuncType([v.i32(), v.v128(), v.f64()], [v.v128(), v.i64()])
        host = Func(self.store, ft, self.host)
        self.exports = Instance(self.store, Module(engine, TEXT), [host]).exports(self.store)

    def host(self, *values: object) -> Any:
        self.seen.append(values)
        return self.answer

    def call(self, name: str, *values: object) -> Any:
        function = self.exports[name]
        assert isinstance(function, Func)
        return function(self.store, *values)


@pytest.fixture
def made(engine: Engine) -> Made:
    return Made(engine)


@pytest.mark.parametrize(
    "value",
    [BYTES, bytearray(BYTES), memoryview(BYTES), array.array("H", BYTES), NUMBER, Val.v128(BYTES), Val.v128(NUMBER)],
    ids=lambda value: type(value).__name__,
)
def test_what_counts_as_a_vector(made: Made, value: object) -> None:
    assert made.call("same", value) == BYTES


def test_arrays_of_numpy(made: Made) -> None:
    numpy = pytest.importorskip("numpy")
    assert made.call("same", numpy.arange(16, dtype="uint8")) == BYTES
    assert made.call("same", numpy.frombuffer(BYTES, "float32")) == BYTES
    assert made.call("same", numpy.int64(-2)) == struct.pack("<qq", -2, -1)


@pytest.mark.parametrize("number", [0, -1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 127, (1 << 128) - 1, -(1 << 127)])
def test_integers_of_128_bits(made: Made, number: int) -> None:
    assert made.call("same", number) == (number % (1 << 128)).to_bytes(16, "little")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1 << 128, OverflowError, r"same\(\) argument 1: out of range for v128"),
        (-(1 << 127) - 1, OverflowError, r"same\(\) argument 1: out of range for v128"),
        (BYTES[:15], ValueError, "a v128 has 16 bytes, got 15"),
        (BYTES + b"x", ValueError, "a v128 has 16 bytes, got 17"),
        ("0123456789abcdef", TypeError, r"same\(\) argument 1: expected v128, got str"),
        (1.0, TypeError, r"same\(\) argument 1: expected v128, got float"),
        (None, TypeError, r"same\(\) argument 1: expected v128, got NoneType"),
        (memoryview(bytes(32))[::2], BufferError, "contiguous"),
    ],
)
def test_what_is_no_vector(made: Made, value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made.call("same", value)


def test_through_a_host_function(made: Made) -> None:
    assert made.call("call", NUMBER) == [BYTES[::-1], -1]
    made.answer = [5, 2**64 - 1]
    assert made.call("call", BYTES) == [struct.pack("<QQ", 5, 0), -1]
    assert made.seen == [(7, BYTES, 0.5)] * 2
    made.answer = ("no", 1)
    with pytest.raises(TypeError, match=r"result 1: expected v128, got str"):
        made.call("call", BYTES)
    made.answer = (b"short", 1)
    with pytest.raises(ValueError, match="a v128 has 16 bytes, got 5"):
        made.call("call", BYTES)


def test_more_than_the_registers_hold(made: Made) -> None:
    values = [bytes([k]) * 16 for k in range(10)]
    assert made.call("many", *values) == [values[9], values[8], values[0], 5, values[4]]


def test_bit_patterns_are_integers(made: Made) -> None:
    function = made.exports["same"]
    assert isinstance(function, Func)
    for bits in (0, 5, 1 << 64, (1 << 128) - 1):
        assert function.call_raw(made.store, [bits]) == [bits]


def test_globals(made: Made, engine: Engine) -> None:
    exported = made.exports["g"]
    assert isinstance(exported, Global)
    assert exported.value(made.store) == BYTES
    exported.set_value(made.store, 3)
    assert exported.value(made.store) == struct.pack("<QQ", 3, 0)
    made.call("set", BYTES)
    assert exported.value(made.store) == BYTES
    constant = made.exports["constant"]
    assert isinstance(constant, Global)
    assert constant.value(made.store) == struct.pack("<4I", 1, 2, 3, 4)
    own = Global(made.store, GlobalType(ValType.v128(), True), Val.v128(NUMBER))
    reader = Module(
        engine,
        """(module (import "m" "g" (global $g (mut v128)))
             (func (export "f") (result v128) (global.get $g) (global.set $g (v128.const i64x2 7 8))))""",
    )
    function = Instance(made.store, reader, [own]).exports(made.store)["f"]
    assert isinstance(function, Func)
    assert function(made.store) == BYTES
    assert own.value(made.store) == struct.pack("<QQ", 7, 8)
    for wrong, error in (("x", TypeError), (b"", ValueError), (1 << 128, OverflowError), (None, TypeError)):
        with pytest.raises(error):
            own.set_value(made.store, wrong)


def test_values_and_types() -> None:
    value = Val.v128(NUMBER)
    assert value.value == BYTES == value.as_v128()
    assert value.type == ValType.v128()
    assert str(value.type) == "v128"
    assert value == Val.v128(BYTES)
    assert Val.i64(1).as_v128() is None
    assert value.as_i64() is None
    assert repr(value) == f"Val.v128({BYTES!r})"
    for wrong, error in (("x", TypeError), (b"", ValueError), (1 << 128, OverflowError), (1.5, TypeError)):
        with pytest.raises(error):
            Val.v128(wrong)  # type: ignore[arg-type]
    module = Module(Engine(), '(module (func (export "f") (param v128 i32)))')
    (export,) = module.exports
    assert isinstance(export.type, FuncType)
    assert export.type.params == [ValType.v128(), ValType.i32()]


def test_loaded_modules() -> None:
    app = wasmforge.load('(module (func (export "f") (param v128) (result v128) (v128.not (local.get 0))))')
    assert app.f(0) == b"\xff" * 16
