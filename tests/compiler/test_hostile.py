"""Modules made to blow a compiler up are compiled in bounded time or refused with a WasmtimeError (never a crash, a
RecursionError or a hang). Each case attacks one structure whose size the module alone decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wasmforge.binary import decode, encode
from wasmforge.binary.leb128 import encode_unsigned as u
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import INFO_SECTION, Image
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.compiler.llvm import compile as front
from wasmforge.compiler.llvm import compile_module, pool
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import Export, FunctionBody, Module
from wasmforge.syntax.types import I32, ExternKind, FuncType, Limits, MemoryType
from wasmforge.validation import validate

GET = b"\x20\x00"
END = b"\x0b"
BLOCK, LOOP, IF = b"\x02\x40", b"\x03\x40", b"\x04\x40"


def function(code: bytes, local_count: int = 0, extra: FuncType | None = None) -> Module:
    """A module with one function of type [i32] -> [i32]."""
    types = [FuncType((I32,), (I32,))] + ([extra] if extra else [])
    module = Module(types=types, functions=[0], memories=[MemoryType(Limits(1))])
    module.exports = [Export("f", ExternKind.FUNC, 0)]
    module.code = [FunctionBody(((local_count, I32),) if local_count else (), code)]
    return decode(encode(module))


def table_of_100_000_targets() -> Module:
    targets = bytes(k & 1 for k in range(100_000))
    return function(b"\x02\x7f\x02\x7f" + GET + GET + b"\x0e" + u(len(targets)) + targets + b"\x00" + END * 3)


def table_of_different_targets() -> Module:
    n = 1500
    targets = b"".join(u(k) for k in range(n))
    return function(BLOCK * n + GET + b"\x0e" + u(n - 1) + targets + END * n + GET + END)


def nested_blocks() -> Module:
    return function(BLOCK * 100_000 + END * 100_000 + GET + END)


def nested_loops() -> Module:
    return function(LOOP * 20_000 + END * 20_000 + GET + END)


def nested_ifs() -> Module:
    return function((GET + IF) * 5000 + b"\x41\x07\x21\x00" + END * 5000 + GET + END)


def nested_in_unreachable_code() -> Module:
    return function(b"\x00" + BLOCK * 99_000 + END * 99_000 + END)


def deep_operand_stack() -> Module:
    return function(GET * 20_000 + b"\x6a" * 19_999 + END)


def long_block() -> Module:
    return function(GET + b"\x41\x03\x6a\x20\x00\x6c" * 3_000 + END)


def declared_locals() -> Module:
    return function(b"\x20" + u(49_999) + END, local_count=49_999)


def many_locals_in_many_blocks() -> Module:
    code = b"".join(GET + IF + b"\x20" + u(k) + b"\x21" + u(k + 1) + END for k in range(1, 2500))
    return function(code + GET + END, local_count=3000)


def calls() -> Module:
    return function(GET + b"\x10\x00" * 10_000 + END)


def traps() -> Module:
    return function((GET + IF + b"\x00" + END) * 5000 + GET + END)


@pytest.mark.parametrize(
    "make",
    [
        table_of_100_000_targets,
        table_of_different_targets,
        nested_blocks,
        nested_loops,
        nested_ifs,
        nested_in_unreachable_code,
        deep_operand_stack,
        long_block,
        declared_locals,
        many_locals_in_many_blocks,
        calls,
        traps,
    ],
)
def test_is_compiled(make: Callable[[], Module]) -> None:
    module = make()
    image = Image(compile_module(module, validate(module), Tunables(), workers=1))
    assert CompiledModuleInfo.decode(image.section(INFO_SECTION)).function_range(0).length > 0


def test_branches_with_too_many_values_are_refused() -> None:
    n = 2000
    wide = FuncType((), (I32,) * 1000)
    branches = b"".join(GET + b"\x0d" + u(k) for k in range(n))
    module = function(b"\x02\x01" * n + b"\x41\x01" * 1000 + branches + END * n + b"\x1a" * 999 + END, extra=wide)
    with pytest.raises(WasmtimeError, match="function 0 is too complex"):
        compile_module(module, validate(module), Tunables(), workers=1)


def test_giants_take_the_linear_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "HUGE_INSTRUCTIONS", 1000)
    monkeypatch.setattr(front, "GIANT_INSTRUCTIONS", 1000)
    pipelines = record_pipelines(monkeypatch)
    module = long_block()
    assert compile_module(module, validate(module), Tunables(), workers=1)
    assert "fast" in pipelines and "none" not in pipelines


def record_pipelines(monkeypatch: pytest.MonkeyPatch, instructions: int | None = None) -> list[str]:
    """Notes the pipeline of every request, and optionally lies about its size, which sets its time limit."""
    seen: list[str] = []
    original = pool._Worker.send

    def send(self: pool._Worker, module: int, context: bytes, chunk: pool.Chunk, pipeline: str) -> None:
        seen.append(pipeline)
        chunk = chunk if instructions is None else chunk._replace(instructions=instructions)
        original(self, module, context, chunk, pipeline)

    monkeypatch.setattr(pool._Worker, "send", send)
    return seen


ALMOST_NO_TIME = -32_000
"""As a number of instructions: what is left of the limit's constant part is less than a second."""


def quadratic() -> Module:
    return function(GET + b"\x41\x03\x6a\x20\x00\x6c" * 10_000 + END)


def test_a_chunk_that_takes_too_long_is_tried_with_the_linear_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    pool._pool.end_all()
    pipelines = record_pipelines(monkeypatch, ALMOST_NO_TIME)
    module = quadratic()
    assert compile_module(module, validate(module), Tunables(), workers=1)
    assert "fast" in pipelines


def test_a_chunk_that_always_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pool._pool.end_all()
    monkeypatch.setattr(pool, "_RETRY_PIPELINE", "speed")
    record_pipelines(monkeypatch, ALMOST_NO_TIME)
    module = quadratic()
    with pytest.raises(WasmtimeError, match=r"functions 0 to 0 \(out of processor time"):
        compile_module(module, validate(module), Tunables(), workers=1)
