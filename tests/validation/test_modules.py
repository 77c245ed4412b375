"""Validation of modules outside of bodies (specification, section 3.5), and the facts that it returns."""

from __future__ import annotations

from typing import Any

import pytest

from tests.building import assemble, function_type, one_function, rich_module
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.features import ALL_FEATURES, KNOBS, Feature
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
    F32,
    FUNCREF,
    I32,
    I64,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
)
from wasmforge.validation import InvalidError, validate


def expression(source: str) -> Expression:
    return Expression(assemble(source))


def global_(t: ValType, source: str, mutable: bool = False) -> Global:
    return Global(GlobalType(t, mutable), expression(source))


def invalid(module: Module, message: str) -> InvalidError:
    with pytest.raises(InvalidError, match=f"^{message}") as caught:
        validate(module)
    return caught.value


def active(source: str, t: ValType = FUNCREF, table: int = 0, items: tuple[Any, ...] = ()) -> ElementSegment:
    return ElementSegment(SegmentMode.ACTIVE, t, table, expression(source), items, bool(items), 0x77)


MEMORY = MemoryType(Limits(1))
TABLE = Table(TableType(FUNCREF, Limits(1)))


def test_the_empty_module_and_the_rich_one_are_valid() -> None:
    validate(Module())
    validate(rich_module())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(2, 1), "size minimum must not be greater than maximum: 2 and 1"),
        (Limits(65537), "memory size must be at most 65536 pages .4GiB.*found 65537"),
        (Limits(0, 65537), "memory size must be at most 65536 pages"),
        (Limits(2**64 - 1, 0), "memory size must be at most 65536 pages"),
    ],
)
def test_memory_limits(limits: Limits, message: str) -> None:
    invalid(Module(memories=[MemoryType(limits)]), message)
    error = invalid(Module(imports=[Import("m", "n", ExternKind.MEMORY, MemoryType(limits), 0x55)]), message)
    assert error.offset == 0x55


def test_the_largest_memory_is_valid() -> None:
    validate(Module(memories=[MemoryType(Limits(65536, 65536))]))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(2, 1), "size minimum must not be greater than maximum"),
        (Limits(2**32), "table size must be at most"),
        (Limits(0, 2**32), "table size must be at most"),
    ],
)
def test_table_limits(limits: Limits, message: str) -> None:
    invalid(Module(tables=[Table(TableType(FUNCREF, limits))]), message)
    invalid(Module(imports=[Import("m", "n", ExternKind.TABLE, TableType(FUNCREF, limits))]), message)


def test_a_table_type_may_name_the_whole_range() -> None:
    validate(Module(tables=[Table(TableType(FUNCREF, Limits(2**32 - 1, 2**32 - 1)))]))


def without(module: Module, feature: Feature) -> str:
    """The reason why a module is refused when a proposal is switched off; it is fine otherwise."""
    validate(module, ALL_FEATURES)
    with pytest.raises(InvalidError) as caught:
        validate(module, ALL_FEATURES & ~(1 << feature))
    return str(caught.value)


@pytest.mark.parametrize(
    ("module", "feature", "name"),
    [
        (Module(memories=[MEMORY, MEMORY]), Feature.MULTI_MEMORY, "multi-memory"),
        (
            Module(imports=[Import("m", "n", ExternKind.MEMORY, MEMORY)], memories=[MEMORY]),
            Feature.MULTI_MEMORY,
            "multi_memory",
        ),
        (Module(memories=[MemoryType(Limits(1), True)]), Feature.MEMORY64, "wasm_memory64"),
        (Module(tables=[Table(TableType(FUNCREF, Limits(1), True))]), Feature.MEMORY64, "memory64"),
        (Module(memories=[MemoryType(Limits(1), page_size_log2=0)]), Feature.CUSTOM_PAGE_SIZES, "custom page sizes"),
    ],
)
def test_what_needs_a_switched_off_proposal_is_refused_by_name(module: Module, feature: Feature, name: str) -> None:
    message = without(module, feature)
    assert name in message
    assert f"set Config.{KNOBS[feature].setting} = True" in message


def test_an_access_that_names_memory_0_needs_multi_memory() -> None:
    """Section 5.4.6: the flag for a memory index is no form of earlier versions, also when the index is 0."""
    load = bytes.fromhex("4100 28420000 1a 0b")
    module = Module([FuncType((), ())], functions=[0], memories=[MEMORY], code=[FunctionBody((), load)])
    assert "wasm_multi_memory" in without(module, Feature.MULTI_MEMORY)


def test_memory_types() -> None:
    """Sections 3.2.1 and 3.2.6: the sizes that each address type and page size can name."""
    for t, most in (
        (MemoryType(Limits(0)), 1 << 16),
        (MemoryType(Limits(0), True), 1 << 48),
        (MemoryType(Limits(0), page_size_log2=0), (1 << 32) - 1),
        (MemoryType(Limits(0), True, page_size_log2=0), (1 << 64) - 1),
    ):
        for minimum, maximum in ((most, None), (0, most), (most, most)):
            good = MemoryType(Limits(minimum, maximum), t.is_64, False, t.page_size_log2)
            validate(Module(memories=[good]), ALL_FEATURES)
        for minimum, maximum in ((most + 1, None), (0, most + 1)):
            bad = MemoryType(Limits(minimum, maximum), t.is_64, False, t.page_size_log2)
            with pytest.raises(InvalidError, match="memory size must be at most"):
                validate(Module(memories=[bad]), ALL_FEATURES)
    for log2 in (1, 2, 15, 17, 63):
        with pytest.raises(InvalidError, match="invalid custom page size"):
            validate(Module(memories=[MemoryType(Limits(0), page_size_log2=log2)]), ALL_FEATURES)


def test_there_are_at_most_a_hundred_memories() -> None:
    validate(Module(memories=[MEMORY] * 100))
    invalid(Module(memories=[MEMORY] * 101), "too many memories: 101, the limit is 100")


def test_type_indices() -> None:
    invalid(Module(imports=[Import("m", "f", ExternKind.FUNC, 0)]), "unknown type 0")
    error = invalid(Module(functions=[3], code=[FunctionBody((), b"\x0b", 0x30)]), "unknown type 3")
    assert (error.function, error.offset) == (0, 0x30)


def test_functions_and_bodies_are_as_many() -> None:
    with pytest.raises(MalformedError, match=r"^function and code section have inconsistent lengths"):
        validate(Module(types=[function_type()], functions=[0]))


@pytest.mark.parametrize(
    "g",
    [
        global_(I32, "i32.const -1"),
        global_(I64, "i64.const 3; i64.const 4; i64.mul; i64.const 1; i64.sub; i64.const 2; i64.add"),
        global_(I32, "global.get 0; i32.const 4; i32.add"),
        global_(F32, "global.get 1"),
        global_(FUNCREF, "ref.func 0"),
        global_(FUNCREF, "ref.null funcref"),
        global_(EXTERNREF, "ref.null externref", mutable=True),
        global_(I64, "global.get 3"),
    ],
)
def test_constant_expressions(g: Global) -> None:
    """Section 3.4.13, with extended constants and, as in release 3.0, earlier globals that the module defines."""
    validate(_with_globals(g))


def _with_globals(*defined: Global) -> Module:
    """Four globals before `defined`: i32 and f32 constants, a mutable i32, and a constant i64 of the module itself."""
    imports = [
        Import("m", str(k), ExternKind.GLOBAL, t)
        for k, t in enumerate((GlobalType(I32, False), GlobalType(F32, False), GlobalType(I32, True)))
    ]
    return one_function("", imports=imports, globals=[global_(I64, "i64.const 1"), *defined])


@pytest.mark.parametrize(
    ("g", "message"),
    [
        (global_(I32, "i64.const 0"), "type mismatch: expected i32, found i64"),
        (global_(I32, ""), "type mismatch: expected i32, found nothing"),
        (global_(I32, "i32.const 0; i32.const 0"), "type mismatch: expected i32, found i32 i32"),
        (global_(I32, "i32.const 0; i32.add"), "type mismatch: expected i32, found nothing"),
        (global_(I32, "i32.const 0; i64.const 0; i32.add"), "type mismatch: expected i32, found i64"),
        (global_(FUNCREF, "ref.null externref"), "type mismatch: expected funcref, found externref"),
        (global_(EXTERNREF, "ref.func 0"), r"type mismatch: expected externref, found \(ref 0\)"),
        (global_(I32, "global.get 1"), "type mismatch: expected i32, found f32"),
        (global_(I32, "i32.const 0; i32.ctz"), "constant expression required, found i32.ctz"),
        (global_(I32, "i32.const 0; i32.const 0; i32.div_s"), "constant expression required, found i32.div_s"),
        (global_(I32, "nop; i32.const 0"), "constant expression required, found nop"),
        (global_(I32, "block i32; i32.const 0; end"), "constant expression required, found block"),
        (global_(I32, "unreachable"), "constant expression required, found unreachable"),
        (global_(I32, "global.get 2"), "constant expression required, found global.get of the mutable global 2"),
        (global_(I32, "global.get 4"), "unknown global 4"),
        (global_(I32, "global.get 5"), "unknown global 5"),
        (global_(FUNCREF, "ref.func 1"), "unknown function 1"),
        (global_(FUNCREF, "ref.func 1; drop"), "unknown function 1"),
    ],
)
def test_invalid_constant_expressions(g: Global, message: str) -> None:
    invalid(_with_globals(g, global_(I32, "i32.const 5")), message)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (ExternKind.FUNC, "function"),
        (ExternKind.TABLE, "table"),
        (ExternKind.MEMORY, "memory"),
        (ExternKind.GLOBAL, "global"),
    ],
)
def test_export_indices(kind: ExternKind, what: str) -> None:
    error = invalid(Module(exports=[Export("e", kind, 0, 0x44)]), f'unknown {what} 0 in the export "e" at offset 0x44')
    assert error.offset == 0x44


def test_export_names_are_unique() -> None:
    module = one_function("", exports=[Export("a", ExternKind.FUNC, 0), Export("b", ExternKind.FUNC, 0)])
    validate(module)
    module.exports.append(Export("a", ExternKind.FUNC, 0))
    invalid(module, 'duplicate export name "a"')


def test_the_start_function() -> None:
    validate(one_function("", start=0))
    invalid(one_function("", start=1), "unknown function 1")
    invalid(
        one_function("", "i32", start=0), r"start function 0 must have the type \[\] -> \[\], found \[i32\] -> \[\]"
    )
    invalid(one_function("i32.const 0", "", "i32", start=0), "start function")


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (active("i32.const 0", table=1), "unknown table 1"),
        (active("i64.const 0"), "type mismatch: expected i32, found i64"),
        (
            active("i32.const 0", EXTERNREF),
            "type mismatch: expected elements of type funcref for table 0, found externref",
        ),
        (active("global.get 0"), "unknown global 0"),
        (active("i32.const 0", items=(expression("i32.const 0"),)), "type mismatch: expected funcref, found i32"),
        (active("i32.const 0", items=(expression("ref.func 9"),)), "unknown function 9"),
        (ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, (1,), False), "unknown function 1"),
        (ElementSegment(SegmentMode.PASSIVE, EXTERNREF, 0, None, (0,), False), "type mismatch: expected externref"),
        (ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, None, (), False), "constant expression required"),
    ],
)
def test_invalid_element_segments(segment: ElementSegment, message: str) -> None:
    validate(one_function("", tables=[TABLE], elements=[active("i32.const 0", items=(expression("ref.func 0"),))]))
    invalid(one_function("", tables=[TABLE], elements=[segment]), message)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (DataSegment(SegmentMode.ACTIVE, 1, expression("i32.const 0"), b"", 0x66), "unknown memory 1"),
        (DataSegment(SegmentMode.ACTIVE, 0, expression("f32.const 0"), b""), "type mismatch: expected i32, found f32"),
        (DataSegment(SegmentMode.ACTIVE, 0, expression("memory.size"), b""), "constant expression required"),
        (DataSegment(SegmentMode.ACTIVE, 0, None, b""), "constant expression required"),
    ],
)
def test_invalid_data_segments(segment: DataSegment, message: str) -> None:
    invalid(Module(memories=[MEMORY], data=[segment]), message)


def test_passive_data_needs_no_memory() -> None:
    validate(Module(data=[DataSegment(SegmentMode.PASSIVE, 0, None, b"x")], data_count=1))


def test_facts() -> None:
    """Which functions escape, for funcrefs and trampolines, and how many instructions each body has."""
    module = Module(
        types=[function_type()],
        imports=[Import("m", "f", ExternKind.FUNC, 0)],
        functions=[0] * 7,
        tables=[TABLE],
        globals=[global_(FUNCREF, "ref.func 2")],
        exports=[Export("e", ExternKind.FUNC, 1)],
        start=6,
        elements=[
            ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, (3,), False),
            ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, (expression("ref.func 4"),), True),
        ],
        code=[
            FunctionBody((), assemble(source)) for source in ["", "nop", "block; end", "ref.func 4; drop", "", "", ""]
        ],
    )
    facts = validate(module)
    assert facts.declared_references == {1, 2, 3, 4}
    assert facts.escaping == {1, 2, 3, 4, 6}
    assert facts.instruction_counts == [1, 2, 3, 3, 1, 1, 1]


def test_a_direct_call_does_not_make_a_function_escape() -> None:
    assert validate(one_function("call 0")).escaping == frozenset()
