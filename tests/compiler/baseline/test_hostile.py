"""Modules that attack the compiler or what it compiles: sizes at the limits, amplification, exhausted stacks. They
compile in linear time, or are refused with an exception."""

from __future__ import annotations

import time

import pytest

import wasmforge
from tests.building import assemble, one_function
from tests.compiler.baseline.compiling import compiler, functions
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import FunctionBody, Module
from wasmforge.syntax.types import F64, I32, I64, FuncType

NOP = b"\x01"
DROP = b"\x1a"
END = b"\x0b"


def engine() -> wasmforge.Engine:
    config = wasmforge.Config()
    config.strategy = "baseline"
    config.cache = False
    return wasmforge.Engine(config)


def compile_body(code: bytes, locals_: tuple[tuple[int, int], ...] = (), results: str = "") -> tuple[bytes, float]:
    """The code of one function, and the seconds that it took."""
    made = compiler(one_function(code, results=results, locals_=locals_))  # type: ignore[arg-type]
    start = time.process_time()
    return made.compile_function(0).code, time.process_time() - start


# Bodies by the number of repetitions, each of which once was, or easily is, quadratic.
SHAPES = {
    "deep stack of constants": lambda n: b"\x41\x01" * n + DROP * n + END,
    "deep stack of locals": lambda n: b"\x20\x00" * n + DROP * n + END,
    "locals read below and then assigned": lambda n: (
        b"".join(b"\x20" + bytes((k % 100,)) for k in range(n))
        + b"".join(b"\x41\x05\x21" + bytes((k % 100,)) for k in range(n))
        + DROP * n
        + END
    ),
    "globals below constants": lambda n: b"\x41\x01" * n + b"\x20\x00\x45" * n + DROP * (2 * n) + END,
    "nested blocks": lambda n: b"\x02\x40" * n + END * n + END,
    "nested loops": lambda n: b"\x03\x40" * n + END * n + END,
    "nested ifs": lambda n: b"\x41\x01\x04\x40" * n + END * n + END,
    "branches out of everything": lambda n: b"\x02\x40" * n + b"\x20\x00\x0d\x00" * n + END * n + END,
    "dead code": lambda n: b"\x00" + b"\x02\x40\x00" * n + END * n + END,
    "blocks under a deep stack": lambda n: b"\x41\x01" * n + b"\x02\x40\x0b" * n + DROP * n + END,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_linear(shape: str) -> None:
    """32 times as many instructions take about 32 times as long, and not 1,024 times. The bound lies far from both, and
    the larger body is tried again when it took longer, since processors of test machines are shared."""
    make = SHAPES[shape]
    locals_ = ((100, I32),)
    small = min(compile_body(make(1000), locals_)[1] for _ in range(5))
    bound = 200 * small + 0.1
    assert any(compile_body(make(32000), locals_)[1] < bound for _ in range(3))


def test_fifty_thousand_locals() -> None:
    """Locals that are not used cost nothing; those that are have homes in a frame that touches every probe."""
    code, _ = compile_body(assemble("nop"), ((49_999, I64),))
    assert len(code) < 100
    body = b"".join(b"\x20" + _unsigned(k) + b"\x21" + _unsigned(k + 1) for k in range(49_999)) + END
    code, _ = compile_body(body, ((50_000, I64),))
    assert len(code) > 49_999


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def test_frames_beyond_the_guard_exhaust_the_stack_with_a_trap() -> None:
    """THREAT: a frame larger than the guard region must not reach the memory behind it."""
    count = 20_000
    text = f"""(module (func $f (export "f") (param $n i32) (result i64) (local {"i64 " * count})
        {" ".join(f"(local.set {k} (i64.add (local.get {k - 1}) (i64.const 1)))" for k in range(2, count))}
        (if (local.get $n) (then (drop (call $f (i32.sub (local.get $n) (i32.const 1))))))
        (local.get {count - 1})))"""
    store = wasmforge.Store(engine())
    f = wasmforge.Instance(store, wasmforge.Module(store.engine, text), []).exports(store)["f"]
    assert f(store, 1) == count - 2
    for _ in range(3):
        with pytest.raises(wasmforge.Trap, match="call stack exhausted"):
            f(store, 1_000_000)
    assert f(store, 2) == count - 2


def test_endless_recursion() -> None:
    store = wasmforge.Store(engine())
    text = '(module (func $f (export "f") (param i64) (result i64) (i64.add (call $f (local.get 0)) (local.get 0))))'
    f = wasmforge.Instance(store, wasmforge.Module(store.engine, text), []).exports(store)["f"]
    for _ in range(3):
        with pytest.raises(wasmforge.Trap, match="call stack exhausted"):
            f(store, 1)


def module_with_types(types: list[FuncType], function: int, code: bytes) -> Module:
    return Module(types=types, functions=[0, function], code=[FunctionBody((), b"\x00\x0b"), FunctionBody((), code)])


def test_calls_that_pass_a_thousand_values_again_and_again_are_refused() -> None:
    """Two bytes of body move two thousand values: ten kilobytes of machine code."""
    many = FuncType((I32,) * 1000, (I32,) * 1000)
    nothing = FuncType((), ())
    code = b"\x41\x00" * 1000 + b"\x10\x00" * 1_000 + DROP * 1000 + END
    made = compiler(module_with_types([many, nothing], 1, code))
    start = time.process_time()
    with pytest.raises(WasmtimeError, match="too complex"):
        made.compile_function(1)
    assert time.process_time() - start < 30


def test_branches_that_carry_a_thousand_values_to_many_labels_are_refused() -> None:
    many = FuncType((), (F64,) * 1000)
    nothing = FuncType((), ())
    depth = 600
    table = b"\x0e" + _unsigned(depth - 1) + b"".join(_unsigned(k) for k in range(depth))
    opening = b"".join(b"\x02\x00" + b"\x41\x00" for _ in range(depth - 1)) + b"\x02\x00"
    code = opening + b"".join(b"\x44" + bytes(8) for _ in range(1000)) + b"\x41\x00" + table + END
    code += (b"\x1a" * 1000 + b"\x00" + END) * (depth - 1) + b"\x1a" * 1000 + END
    made = compiler(module_with_types([many, nothing], 1, code))
    with pytest.raises(WasmtimeError, match="too complex"):
        made.compile_function(1)


def test_a_large_table_of_branches() -> None:
    """A hundred thousand entries are a table, not a hundred thousand comparisons."""
    n = 100_000
    body = b"\x02\x40\x02\x40\x20\x00\x0e" + _unsigned(n) + b"\x00\x01" * (n // 2) + b"\x01" + END + END + END
    code, seconds = compile_body(body, ((1, I32),))
    assert len(code) < 5 * n
    assert seconds < 5


def test_a_body_of_the_largest_size() -> None:
    """Half a megabyte here, in linear time; the limit is 7.6."""
    body = b"\x20\x00\x41\x01\x6a\x21\x00" * 75_000 + END
    code, seconds = compile_body(body, ((1, I32),))
    assert len(code) < 10 * len(body)
    assert seconds < 10


def test_functions_are_independent() -> None:
    """What a compiler keeps between functions does not show: the same function gives the same bytes, whatever came
    before, even a function that was refused."""
    text = "(module (func (param i32 f64) (result f64) (local i64) (local.set 2 (i64.const 3)) (local.get 1)) {})"
    alone = functions(text.format(""))[0].code
    other = "(func (param f32 f32) (result f32) (local f64) (local.set 2 (f64.const 1)) (local.get 1))"
    module = text.replace("(module ", "(module " + other).format("")
    assert functions(module)[1].code == alone
    many = FuncType((I32,) * 1000, (I32,) * 1000)
    code = b"\x41\x00" * 1000 + b"\x10\x00" * 300 + DROP * 1000 + END
    made = compiler(module_with_types([many, FuncType((), ())], 1, code))
    before = made.compile_function(0).code
    with pytest.raises(WasmtimeError):
        made.compile_function(1)
    assert made.compile_function(0).code == before


def test_a_thousand_parameters_and_results() -> None:
    """The limits of validation: into the host, back, and through a function that reverses them."""
    names = [("i32", "i64", "f32", "f64")[k % 4] for k in range(1000)]
    params, results = " ".join(names), " ".join(reversed(names))
    text = f"""(module
      (import "host" "f" (func $host (param {params}) (result {params})))
      (func $reverse (param {params}) (result {results})
        {" ".join(f"(local.get {k})" for k in reversed(range(1000)))})
      (func (export "f") (param {params}) (result {results})
        {" ".join(f"(local.get {k})" for k in range(1000))} call $host call $reverse))"""
    store = wasmforge.Store(engine())
    types = [getattr(wasmforge.ValType, name)() for name in names]
    host = wasmforge.Func(store, wasmforge.FuncType(types, types), lambda *values: list(values))
    f = wasmforge.Instance(store, wasmforge.Module(store.engine, text), [host]).exports(store)["f"]
    arguments = [float(k) if name[0] == "f" else k for k, name in enumerate(names)]
    assert f(store, *arguments) == arguments[::-1]
