"""Small modules for tests of the rooms below the text front end: a line assembler, and modules with one function."""

from __future__ import annotations

from typing import Any

from wasmforge.binary import decoder, encode_expression
from wasmforge.syntax.instructions import BY_MNEMONIC, BY_OPCODE, Immediate, Instruction, Opcode
from wasmforge.syntax.module import (
    DataSegment,
    ElementSegment,
    Export,
    Expression,
    FunctionBody,
    Global,
    Import,
    Module,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import (
    EXTERNREF,
    FUNCREF,
    I32,
    VALUE_TYPES,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
)

FRONT_END_IS_COMPILED = decoder.__file__.endswith(".so")
"""Whether the tests run on what mypyc made of the sources (`make test-compiled`)."""

TYPES = {name: t for t, name in VALUE_TYPES.items()}


def assemble(source: str, end: bool = True) -> bytes:
    """Encodes instructions that are separated by `;`, their immediates as numbers in the order of the binary.

    `block`, `loop` and `if` take a value type, a type index or nothing; a memarg is two numbers, the exponent of the
    alignment and the offset; `select` with types is the typed one; the labels of `br_table` end with the default.
    """
    sequence = [_instruction(line.split()) for line in source.split(";") if line.strip()]
    if end:
        sequence.append(Instruction(BY_OPCODE[Opcode.END]))
    return encode_expression(sequence)


def _instruction(words: list[str]) -> Instruction:
    row = BY_OPCODE[Opcode.SELECT_TYPED] if words[0] == "select" and len(words) > 1 else BY_MNEMONIC[words[0]]
    rest = words[1:]
    values: list[Any] = []
    for kind in row.immediates:
        if kind == Immediate.BLOCK_TYPE:
            word = rest.pop(0) if rest else ""
            values.append(TYPES[word] - 0x80 if word in TYPES else int(word) if word else -64)
        elif kind == Immediate.LABEL_TABLE:
            values.append(tuple(int(word) for word in rest))
        elif kind == Immediate.SELECT_TYPES:
            values.append(tuple(TYPES[word] for word in rest))
        elif kind == Immediate.REF_TYPE:
            values.append(TYPES[rest.pop(0)])
        elif kind == Immediate.MEMARG:
            values.append((int(rest.pop(0)), 0, int(rest.pop(0))))
        elif kind == Immediate.LANES:
            values.append(bytes(int(word) for word in rest))
        else:
            values.append(int(rest.pop(0), 0) if rest else 0)
    return Instruction(row, tuple(values))


def types(names: str) -> tuple[ValType, ...]:
    """Value types by name, separated by spaces."""
    return tuple(TYPES[name] for name in names.split())


def function_type(params: str = "", results: str = "") -> FuncType:
    return FuncType(types(params), types(results))


def one_function(
    source: str | bytes,
    params: str = "",
    results: str = "",
    locals_: tuple[tuple[int, ValType], ...] = (),
    **fields: Any,
) -> Module:
    """A module whose first type and function are the given ones; `fields` are set on the module."""
    code = source if isinstance(source, bytes) else assemble(source)
    module = Module(types=[function_type(params, results)], functions=[0], code=[FunctionBody(locals_, code)])
    for name, value in fields.items():
        setattr(module, name, value)
    return module


def rich_module(source: str | bytes = "", params: str = "", results: str = "") -> Module:
    """A module with an item of every kind, so that any instruction finds what its immediates name.

    Index 0 of every space: a function of type [] -> [], a table of funcref, a memory, a mutable i32 global, a passive
    element and data segment. Index 1: a table of externref, an immutable global. The function is function 1.
    """
    zero = Expression(assemble("i32.const 0"))
    return Module(
        types=[function_type(params, results), function_type(), function_type("i32 i64", "f64 f32")],
        imports=[
            Import("host", "function", ExternKind.FUNC, 1),
            Import("host", "table", ExternKind.TABLE, TableType(FUNCREF, Limits(1, 10))),
            Import("host", "memory", ExternKind.MEMORY, MemoryType(Limits(0))),
            Import("host", "global", ExternKind.GLOBAL, GlobalType(I32, True)),
            Import("host", "constant", ExternKind.GLOBAL, GlobalType(I32, False)),
        ],
        functions=[0],
        tables=[Table(TableType(EXTERNREF, Limits(0, None)))],
        globals=[Global(GlobalType(FUNCREF, True), Expression(assemble("ref.func 0")))],
        exports=[Export("run", ExternKind.FUNC, 1), Export("memory", ExternKind.MEMORY, 0)],
        start=0,
        elements=[
            ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, (0,), False),
            ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, zero, (Expression(assemble("ref.null funcref")),), True),
            ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, (1,), False),
            ElementSegment(SegmentMode.ACTIVE, EXTERNREF, 1, zero, (), True),
        ],
        data_count=2,
        code=[FunctionBody(((1, I32),), source if isinstance(source, bytes) else assemble(source))],
        data=[
            DataSegment(SegmentMode.PASSIVE, 0, None, b"passive"),
            DataSegment(SegmentMode.ACTIVE, 0, Expression(assemble("global.get 1")), b"active"),
        ],
    )
