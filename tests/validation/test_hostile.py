"""Limits (specification, appendix A.1), and modules made to exhaust a careless validator.

None of these may raise anything but a WasmtimeError, and none may take memory or time out of proportion to its size;
the time is held by the timeout of the test run.
"""

from __future__ import annotations

import tracemalloc

import pytest

from tests.building import FRONT_END_IS_COMPILED, FunctionBody, assemble, function_type, one_function
from wasmforge.binary import decode, encode
from wasmforge.binary.leb128 import encode_unsigned
from wasmforge.syntax import limits
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.module import Export, Import, Module, Table
from wasmforge.syntax.types import FUNCREF, I32, ExternKind, FuncType, Limits, TableType
from wasmforge.validation import InvalidError, validate


def body(*parts: bytes) -> Module:
    return one_function(b"".join(parts) + b"\x0b")


def invalid(module: Module, message: str) -> None:
    with pytest.raises(InvalidError, match=f"^{message}"):
        validate(module)


def test_parameters_and_results_of_a_type() -> None:
    validate(Module(types=[FuncType((I32,) * 1000, (I32,) * 1000)]))
    invalid(Module(types=[FuncType((I32,) * 1001, ())]), "too many parameters: 1001 in type 0, the limit is 1000")
    invalid(Module(types=[function_type(), FuncType((), (I32,) * 1001)]), "too many results: 1001 in type 1")


def test_locals() -> None:
    validate(one_function("", "i32", "", ((49_999, I32),)))
    invalid(one_function("", "i32", "", ((50_000, I32),)), "too many locals: 50001, the limit is 50000 in function 0")
    invalid(one_function("", "", "", ((25_000, I32), (25_001, I32))), "too many locals")
    invalid(one_function("", "", "", ((0xFFFFFFFF, I32),)), "too many locals: 4294967295")


@pytest.mark.parametrize("n", [3_999, 4_000, 4_001, 100_000])
def test_a_deep_stack(n: int) -> None:
    """The array of the operand stack grows on the way, and keeps what is on it."""
    validate(body(b"\x42\0", b"\x41\0" * n, b"\x1a" * n, b"\x1a"))
    invalid(body(b"\x42\0", b"\x41\0" * n, b"\x1a" * n, b"\x45\x1a"), "type mismatch: expected i32, found i64")


def test_a_thousand_results_again_and_again() -> None:
    types = [FuncType((), (I32,) * 1000), FuncType((I32,) * 1000, ()), function_type()]
    for pops, message in (
        (20, ""),
        (19, "type mismatch: values remaining"),
        (21, "type mismatch: expected i32, found"),
    ):
        code = b"\x10\0" * 20 + b"\x10\x01" * pops + b"\x0b"
        bodies = [FunctionBody((), b"\0\x0b"), FunctionBody((), b"\x0b"), FunctionBody((), code)]
        module = Module(types=types, functions=[0, 1, 2], code=bodies)
        if message:
            invalid(module, message)
        else:
            validate(module)


@pytest.mark.skipif(FRONT_END_IS_COMPILED, reason="mypyc puts the limits into the code, where no test can lower them")
def test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of a million are lowered here: what is tested is that each is compared."""
    module = one_function("", exports=[Export("e", ExternKind.FUNC, 0)])
    validate(module)
    for name, what in (("TYPES", "types"), ("FUNCTIONS", "functions"), ("EXPORTS", "exports")):
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, 0)
            invalid(module, f"too many {what}: 1, the limit is 0")


def test_a_hundred_tables() -> None:
    table = Table(TableType(FUNCREF, Limits(0)))
    imported = Import("m", "t", ExternKind.TABLE, table.type)
    validate(Module(imports=[imported] * 50, tables=[table] * 50))
    invalid(Module(imports=[imported] * 50, tables=[table] * 51), "too many tables: 101, the limit is 100")


def test_names() -> None:
    validate(one_function("", exports=[Export("é" * 50_000, ExternKind.FUNC, 0)]))
    invalid(one_function("", exports=[Export("é" * 50_001, ExternKind.FUNC, 0)]), "name too long: the limit is 100000")


def test_body_size() -> None:
    invalid(body(b"\x01" * limits.BODY_SIZE), "function body too big: 7654322 bytes, the limit is 7654321")


def test_nesting_is_not_recursion() -> None:
    depth = limits.NESTING
    validate(body(b"\x02\x40" * depth, b"\x0b" * depth))
    validate(body(b"\x41\x00\x04\x40" * depth, b"\x05\x0b" * depth))


def test_nesting_is_bounded() -> None:
    invalid(body(b"\x02\x40" * (limits.NESTING + 1)), "nesting too deep")


WIDE = FuncType((I32,) * 1000, (I32,) * 1000)
SOURCE = FuncType((), (I32,) * 1000)
SINK = FuncType((I32,) * 1000, ())


def wide(code: bytes) -> Module:
    """Functions of type [] -> [] with the code, then 1000 -> 1000, 0 -> 1000 and 1000 -> 0."""
    types = [function_type(), WIDE, SOURCE, SINK]
    sources = (code, b"\x00\x0b", b"\x00\x0b", b"\x0b")
    return Module(types=types, functions=[0, 1, 2, 3], code=[FunctionBody((), c) for c in sources])


@pytest.mark.parametrize(
    "code",
    [
        b"\x10\x02" * 100_000,  # every call pushes a thousand results
        b"\x02\x02\x00\x0b" * 100_000,  # a block whose unreachable end yields a thousand
        b"\x02\x01\x00" * 99_000,  # nested blocks whose parameters unreachable code yields
        b"\x00" + b"\x02\x02\x41\x00\x0d\x00" * 50_000,  # conditional branches to wide labels
    ],
    ids=["calls", "ends", "parameters", "branches"],
)
def test_the_operand_stack_is_bounded(code: bytes) -> None:
    """Threat: a body of a few hundred kilobytes asks for gigabytes of operands."""
    if code[:2] == b"\x02\x01":
        code = b"\x00" + code
    module = wide(code + b"\x00\x0b")
    tracemalloc.start()
    try:
        with pytest.raises((InvalidError, MalformedError), match=r"^(too many operands|type mismatch|unexpected end)"):
            validate(module)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_wide_calls_in_reachable_and_unreachable_code() -> None:
    validate(wide(b"\x10\x02" + b"\x10\x01" * 5_000 + b"\x10\x03\x0b"))
    validate(wide(b"\x00" + b"\x10\x01" * 5_000 + b"\x10\x03\x0b"))


def test_a_branch_table_of_millions_with_wide_labels() -> None:
    """Threat: labels times operands. Each distinct type list is compared once."""
    labels = 500_000
    code = (
        b"\x02\x02" + b"\x10\x02\x41\x00\x0e" + encode_unsigned(labels) + b"\x00" * (labels + 1) + b"\x0b\x10\x03\x0b"
    )
    validate(wide(code))


def test_a_branch_table_with_many_distinct_labels() -> None:
    depth = 20_000
    labels = b"".join(encode_unsigned(k) for k in range(depth)) + b"\x00"
    code = b"\x02\x02" * depth + b"\x10\x02\x41\x00\x0e" + encode_unsigned(depth) + labels + b"\x0b" * depth
    validate(wide(code + b"\x10\x03\x0b"))


def test_many_functions_with_many_locals() -> None:
    """Threat: 50,000 locals cost five bytes. They must not be written out a function."""
    count = 5_000
    module = Module(
        types=[function_type()], functions=[0] * count, code=[FunctionBody(((50_000, I32),), b"\x0b")] * count
    )
    again = decode(encode(module))
    assert len(validate(again).instruction_counts) == count


def test_many_runs_of_no_locals() -> None:
    validate(one_function("local.get 0; drop", "i32", "", ((0, I32),) * 100_000))


def test_a_branch_table_count_in_the_billions() -> None:
    with pytest.raises(MalformedError, match=r"^unexpected end"):
        validate(body(assemble("i32.const 0", end=False), bytes.fromhex("0e ffffffff0f 00")))
