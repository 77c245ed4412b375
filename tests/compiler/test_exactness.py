"""Numeric instructions give exactly the specification's results (section 4.3), whatever LLVM can know of the operands:
each is run with both operands unknown, with a literal on either side, through locals, and with one operand twice.

The expected values are computed here from the specification's definitions, with Python's integers and fractions.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.compiler.machine import Machine, TrapError
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.trap import TrapKind

WIDTH = {"i32": 32, "i64": 64, "f32": 32, "f64": 64}
QUIET = {32: 1 << 22, 64: 1 << 51}
INFINITY = {32: 0x7F80_0000, 64: 0x7FF0_0000_0000_0000}


def to_float(bits: int, width: int) -> float:
    return float(struct.unpack("<f" if width == 32 else "<d", bits.to_bytes(width // 8, "little"))[0])


def to_bits(value: float, width: int) -> int:
    with np.errstate(over="ignore"):
        data = np.float32(value).tobytes() if width == 32 else struct.pack("<d", value)
    return int.from_bytes(data, "little")


def is_nan(bits: int, width: int) -> bool:
    return bits & (1 << (width - 1)) - 1 > INFINITY[width]


def float_values(width: int) -> list[int]:
    """Bit patterns: zeros, ones, infinities, NaNs of every kind, the smallest and largest numbers, halfway cases."""
    sign = 1 << (width - 1)
    infinity, quiet = INFINITY[width], QUIET[width]
    numbers = [0.0, 1.0, 0.5, 2.0, 1.5, 2.5, 3.7, 4.0, 1e30, 2.0**31, 2.0**32, 2.0**63, 2.0**64, 0.1, 255.99999]
    positive = [to_bits(v, width) for v in numbers]
    positive += [1, infinity - 1, infinity, infinity | quiet, infinity | 1, infinity | quiet | 5, infinity | quiet - 1]
    return positive + [p | sign for p in positive]


def integer_values(width: int) -> list[int]:
    top = 1 << (width - 1)
    return [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, top - 1, top, top + 1, 2 * top - 2, 2 * top - 1, 0x1234_5678, 0xFFFF]


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


TrapOr = int | str | TrapKind
Expected = Callable[..., TrapOr]


def divide_signed(a: int, b: int, width: int) -> TrapOr:
    if b == 0:
        return TrapKind.INTEGER_DIVISION_BY_ZERO
    a, b = signed(a, width), signed(b, width)
    if a == -(1 << (width - 1)) and b == -1:
        return TrapKind.INTEGER_OVERFLOW
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def remainder_signed(a: int, b: int, width: int) -> TrapOr:
    if b == 0:
        return TrapKind.INTEGER_DIVISION_BY_ZERO
    a, b = signed(a, width), signed(b, width)
    remainder = abs(a) % abs(b)
    return -remainder if a < 0 else remainder


def rotate_left(a: int, count: int, width: int) -> int:
    count %= width
    return a << count | a >> (width - count)


INTEGER_BINARY: dict[str, Expected] = {
    "add": lambda a, b, n: a + b,
    "sub": lambda a, b, n: a - b,
    "mul": lambda a, b, n: a * b,
    "div_s": divide_signed,
    "div_u": lambda a, b, n: a // b if b else TrapKind.INTEGER_DIVISION_BY_ZERO,
    "rem_s": remainder_signed,
    "rem_u": lambda a, b, n: a % b if b else TrapKind.INTEGER_DIVISION_BY_ZERO,
    "and": lambda a, b, n: a & b,
    "or": lambda a, b, n: a | b,
    "xor": lambda a, b, n: a ^ b,
    "shl": lambda a, b, n: a << b % n,
    "shr_s": lambda a, b, n: signed(a, n) >> b % n,
    "shr_u": lambda a, b, n: a >> b % n,
    "rotl": rotate_left,
    "rotr": lambda a, b, n: rotate_left(a, -b % n, n),
    "eq": lambda a, b, n: a == b,
    "ne": lambda a, b, n: a != b,
    "lt_s": lambda a, b, n: signed(a, n) < signed(b, n),
    "lt_u": lambda a, b, n: a < b,
    "gt_s": lambda a, b, n: signed(a, n) > signed(b, n),
    "gt_u": lambda a, b, n: a > b,
    "le_s": lambda a, b, n: signed(a, n) <= signed(b, n),
    "le_u": lambda a, b, n: a <= b,
    "ge_s": lambda a, b, n: signed(a, n) >= signed(b, n),
    "ge_u": lambda a, b, n: a >= b,
}
COMPARISONS = {"eq", "ne", "lt", "gt", "le", "ge"}


def sign_extend(bits: int) -> Expected:
    return lambda a, n: signed(a & (1 << bits) - 1, bits)


INTEGER_UNARY: dict[str, Expected] = {
    "clz": lambda a, n: n - a.bit_length(),
    "ctz": lambda a, n: (a & -a).bit_length() - 1 if a else n,
    "popcnt": lambda a, n: a.bit_count(),
    "eqz": lambda a, n: a == 0,
    "extend8_s": sign_extend(8),
    "extend16_s": sign_extend(16),
}

NAN = "nan"  # some arithmetic NaN, canonical if every NaN among the operands is (section 4.3.3)


def arithmetic(operation: Callable[[Any, Any], Any]) -> Expected:
    """A binary float instruction by numpy in the exact format: IEEE 754 leaves numbers no choice."""

    def expected(a: int, b: int, width: int) -> int | str:
        t = np.float32 if width == 32 else np.float64
        with np.errstate(all="ignore"):
            value = operation(t(to_float(a, width)), t(to_float(b, width)))
        return NAN if np.isnan(value) else int.from_bytes(t(value).tobytes(), "little")

    return expected


def extremum(sign: int) -> Expected:
    def expected(a: int, b: int, width: int) -> int | str:
        if is_nan(a, width) or is_nan(b, width):
            return NAN
        x, y = to_float(a, width), to_float(b, width)
        if x == y:  # of zeros, min prefers the negative one and max the positive one
            return a | b if sign < 0 else a & b
        return a if (x < y) == (sign < 0) else b

    return expected


FLOAT_BINARY: dict[str, Expected] = {
    "add": arithmetic(lambda x, y: x + y),
    "sub": arithmetic(lambda x, y: x - y),
    "mul": arithmetic(lambda x, y: x * y),
    "div": arithmetic(lambda x, y: x / y),
    "min": extremum(-1),
    "max": extremum(1),
    "copysign": lambda a, b, n: a & (1 << (n - 1)) - 1 | b & 1 << (n - 1),
    "eq": lambda a, b, n: to_float(a, n) == to_float(b, n),
    "ne": lambda a, b, n: to_float(a, n) != to_float(b, n),
    "lt": lambda a, b, n: to_float(a, n) < to_float(b, n),
    "gt": lambda a, b, n: to_float(a, n) > to_float(b, n),
    "le": lambda a, b, n: to_float(a, n) <= to_float(b, n),
    "ge": lambda a, b, n: to_float(a, n) >= to_float(b, n),
}


def rounding(operation: Callable[[float], float]) -> Expected:
    def expected(a: int, width: int) -> int | str:
        if is_nan(a, width):
            return NAN
        value = to_float(a, width)
        if math.isinf(value):
            return a
        return to_bits(math.copysign(operation(value), value), width)

    return expected


def square_root(a: int, width: int) -> int | str:
    t = np.float32 if width == 32 else np.float64
    with np.errstate(all="ignore"):
        value = np.sqrt(t(to_float(a, width)))
    return NAN if np.isnan(value) else int.from_bytes(value.tobytes(), "little")


FLOAT_UNARY: dict[str, Expected] = {
    "abs": lambda a, n: a & (1 << (n - 1)) - 1,
    "neg": lambda a, n: a ^ 1 << (n - 1),
    "ceil": rounding(lambda v: float(math.ceil(v))),
    "floor": rounding(lambda v: float(math.floor(v))),
    "trunc": rounding(lambda v: float(math.trunc(v))),
    "nearest": rounding(lambda v: float(round(v))),
    "sqrt": square_root,
}


def truncation(is_signed: bool, to: int, saturating: bool) -> Expected:
    low, high = (-(1 << (to - 1)), (1 << (to - 1)) - 1) if is_signed else (0, (1 << to) - 1)

    def expected(a: int, width: int) -> TrapOr:
        if is_nan(a, width):
            return 0 if saturating else TrapKind.BAD_CONVERSION_TO_INTEGER
        value = to_float(a, width)
        if math.isinf(value):
            whole = high + 1 if value > 0 else low - 1
        else:
            whole = math.trunc(value)
        if low <= whole <= high:
            return whole
        return (high if whole > high else low) if saturating else TrapKind.INTEGER_OVERFLOW

    return expected


def converted(is_signed: bool, to: int) -> Expected:
    def expected(a: int, width: int) -> int:
        value = signed(a, width) if is_signed else a
        if to == 64:
            return to_bits(float(value), 64)
        # int -> f64 -> f32 would round twice: make the double sticky first.
        exact = float(value)
        if int(exact) != value and struct.pack("<d", exact)[0] & 1 == 0:
            bits = int.from_bytes(struct.pack("<d", exact), "little")
            away = abs(int(exact)) < abs(value)
            exact = to_float(bits + 1 if away else bits - 1, 64)
        return to_bits(exact, 32)

    return expected


def widened(a: int, width: int) -> int | str:
    return NAN if is_nan(a, 32) else to_bits(to_float(a, 32), 64)


def narrowed(a: int, width: int) -> int | str:
    return NAN if is_nan(a, 64) else to_bits(to_float(a, 64), 32)


def conversions() -> dict[str, tuple[str, str, Expected]]:
    """Mnemonic to operand type, result type and expected value."""
    table: dict[str, tuple[str, str, Expected]] = {
        "i32.wrap_i64": ("i64", "i32", lambda a, n: a),
        "i64.extend_i32_s": ("i32", "i64", lambda a, n: signed(a, 32)),
        "i64.extend_i32_u": ("i32", "i64", lambda a, n: a),
        "i64.extend32_s": ("i64", "i64", sign_extend(32)),
        "f64.promote_f32": ("f32", "f64", widened),
        "f32.demote_f64": ("f64", "f32", narrowed),
    }
    for i, f in (("i32", "f32"), ("i64", "f64")):
        table[f"{i}.reinterpret_{f}"] = (f, i, lambda a, n: a)
        table[f"{f}.reinterpret_{i}"] = (i, f, lambda a, n: a)
    for i in ("i32", "i64"):
        for f in ("f32", "f64"):
            for s in "su":
                table[f"{i}.trunc_{f}_{s}"] = (f, i, truncation(s == "s", WIDTH[i], False))
                table[f"{i}.trunc_sat_{f}_{s}"] = (f, i, truncation(s == "s", WIDTH[i], True))
                table[f"{f}.convert_{i}_{s}"] = (i, f, converted(s == "s", WIDTH[f]))
    return table


def literal(t: str, bits: int) -> str:
    """A constant instruction for a bit pattern."""
    if t[0] == "i":
        return f"{t}.const {bits}"
    width = WIDTH[t]
    sign = "-" if bits >> (width - 1) else ""
    magnitude = bits & (1 << (width - 1)) - 1
    if is_nan(bits, width):
        return f"{t}.const {sign}nan:{magnitude & ~INFINITY[width]:#x}"
    value = abs(to_float(bits, width))
    return f"{t}.const {sign}{'inf' if math.isinf(value) else value.hex()}"


def matches(expected: TrapOr, actual: int, operands: tuple[int, ...], from_width: int, width: int) -> bool:
    if expected != NAN:
        return isinstance(expected, int) and actual == int(expected) & (1 << width) - 1
    if not is_nan(actual, width) or not actual & QUIET[width]:
        return False
    payloads = [a & (1 << (from_width - 1)) - 1 for a in operands if is_nan(a, from_width)]
    if any(p != INFINITY[from_width] | QUIET[from_width] for p in payloads):
        return True
    return actual & (1 << (width - 1)) - 1 == INFINITY[width] | QUIET[width]


def check(
    machine: Machine, name: str, arguments: tuple[int, ...], operands: tuple[int, ...], expected: TrapOr,
    from_width: int, width: int,
) -> None:  # fmt: skip
    what = f"{name} {[hex(a) for a in operands]}"
    try:
        actual = machine.call(name, *arguments)[0]
    except TrapError as e:
        assert isinstance(expected, TrapKind) and e.kind == expected, f"{what}: trapped {e.kind.name}, not {expected}"
        return
    assert not isinstance(expected, TrapKind), f"{what}: {actual:#x} instead of trap {expected}"
    good = matches(expected, actual, operands, from_width, width)
    assert good, f"{what}: {actual:#x}, expected {expected if expected == NAN else hex(int(expected))}"


def binary_module(t: str, result: str, operation: str, constants: list[int]) -> str:
    """An instruction on two unknown operands, on one operand twice, through locals and blocks, and with each constant
    on either side."""
    lines = [
        f'(func (export "both") (param {t} {t}) (result {result}) local.get 0 local.get 1 {t}.{operation})',
        f'(func (export "same") (param {t}) (result {result}) local.get 0 local.get 0 {t}.{operation})',
        f'(func (export "default") (param {t}) (result {result}) (local {t}) local.get 0 local.get 1 {t}.{operation})',
    ]
    for k, c in enumerate(constants):
        constant = literal(t, c)
        lines.append(
            f'(func (export "right{k}") (param {t}) (result {result}) local.get 0 {constant} {t}.{operation})'
            f'(func (export "left{k}") (param {t}) (result {result}) {constant} local.get 0 {t}.{operation})'
            f'(func (export "local{k}") (param {t}) (result {result}) (local $c {t}) {constant} local.set $c '
            f"  (block (br_if 0 (i32.const 0)) (local.set $c (local.get $c))) local.get 0 local.get $c {t}.{operation})"
            f'(func (export "choice{k}") (param {t}) (result {result}) local.get 0 '
            f"  (if (result {t}) ({t}.eq (local.get 0) ({constant}))"
            f"    (then {constant}) (else {constant})) {t}.{operation})"
        )
    return "(module " + "\n".join(lines) + ")"


TUNABLES = Tunables(signals_based_traps=False)


THOROUGH = {"add", "mul", "sub", "div", "div_s", "rem_s", "min", "max"}
"""What LLVM has the most identities for is tried with every literal, the rest with a third of them."""


@pytest.mark.parametrize("t", ["i32", "i64", "f32", "f64"])
def test_binary_instructions(t: str) -> None:
    width = WIDTH[t]
    values = integer_values(width) if t[0] == "i" else float_values(width)
    table = INTEGER_BINARY if t[0] == "i" else FLOAT_BINARY
    rng = random.Random(5)
    for operation, expected in table.items():
        result = "i32" if operation.split("_")[0] in COMPARISONS else t
        constants = values if operation in THOROUGH else values[::3]
        machine = Machine(binary_module(t, result, operation, constants), TUNABLES)
        to = WIDTH[result]
        for a in values:
            check(machine, "same", (a,), (a, a), expected(a, a, width), width, to)
            check(machine, "default", (a,), (a, 0), expected(a, 0, width), width, to)
            for b in values:
                check(machine, "both", (a, b), (a, b), expected(a, b, width), width, to)
            for k, b in enumerate(constants):
                if rng.random() < 0.7 and not is_nan(a, width):
                    continue
                for form in ("right", "local", "choice"):
                    check(machine, f"{form}{k}", (a,), (a, b), expected(a, b, width), width, to)
                check(machine, f"left{k}", (a,), (b, a), expected(b, a, width), width, to)


def unary_cases() -> list[tuple[str, str, str, Expected]]:
    cases = []
    for t in ("i32", "i64"):
        for operation, expected in INTEGER_UNARY.items():
            cases.append((f"{t}.{operation}", t, "i32" if operation == "eqz" else t, expected))
    for t in ("f32", "f64"):
        for operation, expected in FLOAT_UNARY.items():
            cases.append((f"{t}.{operation}", t, t, expected))
    for mnemonic, (t, result, expected) in conversions().items():
        cases.append((mnemonic, t, result, expected))
    return cases


@cache
def unary_machine() -> Machine:
    lines = []
    for mnemonic, t, result, _ in unary_cases():
        lines.append(f'(func (export "{mnemonic}") (param {t}) (result {result}) local.get 0 {mnemonic})')
        values = integer_values(WIDTH[t]) if t[0] == "i" else float_values(WIDTH[t])
        for k, c in enumerate(values):
            lines.append(f'(func (export "{mnemonic} {k}") (result {result}) {literal(t, c)} {mnemonic})')
    return Machine("(module " + "\n".join(lines) + ")", TUNABLES)


@pytest.mark.parametrize(("mnemonic", "t", "result", "expected"), unary_cases(), ids=lambda v: v if v else "")
def test_unary_instructions(mnemonic: str, t: str, result: str, expected: Expected) -> None:
    width = WIDTH[t]
    values = integer_values(width) if t[0] == "i" else float_values(width)
    for k, a in enumerate(values):
        wanted = expected(a, width)
        check(unary_machine(), mnemonic, (a,), (a,), wanted, width, WIDTH[result])
        check(unary_machine(), f"{mnemonic} {k}", (), (a,), wanted, width, WIDTH[result])


SIGNALLING = {"f32": 0x7F80_0001, "f64": 0x7FF0_0000_0000_0001}

CHAINS = {
    "widen and narrow": ("f32", "local.get 0 f64.promote_f32 f32.demote_f64"),
    "times a converted one": ("f64", "local.get 0 i32.const 1 f64.convert_i32_s f64.mul"),
    "minus a reinterpreted zero": ("f64", "local.get 0 i64.const 0 f64.reinterpret_i64 f64.sub"),
    "times a computed one": ("f64", "local.get 0 f64.const 0.5 f64.const 2 f64.mul f64.mul"),
    "times the root of one": ("f64", "local.get 0 f64.const 1 f64.sqrt f64.mul"),
    "divided by what was compared to one": (
        "f64",
        "(if (f64.eq (local.get 1) (f64.const 1)) (then (return (f64.div (local.get 0) (local.get 1))))) f64.const 0",
    ),
    "minus a negated zero": ("f32", "f32.const 0 f32.neg local.get 0 f32.sub"),
    "times a constant from a called function": ("f64", "local.get 0 call $one f64.mul"),
    "times a parameter that is one": ("f64", "local.get 0 f64.const 1 call $times"),
    "least of itself and infinity": ("f32", "local.get 0 f32.const inf f32.min"),
    "copied through select": (
        "f64",
        "local.get 0 f64.const 1 f64.const 1 local.get 1 f64.const 0 f64.gt select f64.mul",
    ),
    "rounded twice": ("f64", "local.get 0 f64.floor f64.floor"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_nothing_lets_a_signalling_nan_through(name: str) -> None:
    """Section 4.3.3: the result of arithmetic on a signalling NaN is an arithmetic, that is quiet, NaN; LLVM's
    identities for floats must not find the constants that they need."""
    t, body = CHAINS[name]
    machine = Machine(
        f"""(module
          (func $one (result f64) f64.const 1)
          (func $times (param f64 f64) (result f64) local.get 0 local.get 1 f64.mul)
          (func (export "f") (param {t} {t}) (result {t}) {body}))""",
        TUNABLES,
    )
    one = to_bits(1.0, WIDTH[t])
    for sign in (0, 1 << (WIDTH[t] - 1)):
        bits = machine.call("f", SIGNALLING[t] | sign, one)[0]
        assert is_nan(bits, WIDTH[t]) and bits & QUIET[WIDTH[t]]


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_moving_a_nan_keeps_every_bit(t: str) -> None:
    """Loads, stores, locals, blocks, calls, globals and select only move values (section 4.3.3 lists no such
    instruction among those that may change a NaN)."""
    machine = Machine(
        f"""(module (memory 1) (global $g (mut {t}) ({t}.const 0))
          (func $id (param {t}) (result {t}) local.get 0)
          (func (export "f") (param {t}) (result {t}) (local $l {t})
            (global.set $g (call $id (local.get 0)))
            (local.set $l (block (result {t}) (br_if 0 (global.get $g) (i32.const 1))))
            ({t}.store (i32.const 8) (local.get $l))
            (select ({t}.load (i32.const 8)) ({t}.const 0) (i32.const 1))))""",
        TUNABLES,
    )
    for bits in float_values(WIDTH[t]):
        assert machine.call("f", bits)[0] == bits
