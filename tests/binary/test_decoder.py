"""The decoder (specification, section 5.5): golden modules section by section, error messages and their offsets."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.building import FRONT_END_IS_COMPILED, assemble, function_type
from wasmforge.binary import decode
from wasmforge.binary.leb128 import encode_unsigned
from wasmforge.syntax import limits
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError
from wasmforge.syntax.module import (
    CustomSection,
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
    F64,
    FUNCREF,
    I32,
    I64,
    NON_NULL,
    ExternKind,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
)

HEADER = b"\0asm\x01\0\0\0"


def section(number: int, content: str | bytes) -> bytes:
    body = content if isinstance(content, bytes) else bytes.fromhex(content)
    return bytes((number,)) + encode_unsigned(len(body)) + body


def module(*sections: bytes) -> bytes:
    return HEADER + b"".join(sections)


def constant(value: int, offset: int) -> Expression:
    return Expression(assemble(f"i32.const {value}"), offset)


def test_the_empty_module() -> None:
    assert decode(HEADER) == Module()


def test_types() -> None:
    m = decode(module(section(1, "02 60 00 00 60 02 7f 7e 03 7d 7c 70")))
    assert m.types == [function_type(), function_type("i32 i64", "f32 f64 funcref")]


def test_imports() -> None:
    m = decode(
        module(section(2, "04 01 6d 01 66 00 05 01 6d 01 74 01 6f 01 02 03 01 6d 00 02 00 01 01 6d 02 c3a9 03 7e 01"))
    )
    assert m.imports == [
        Import("m", "f", ExternKind.FUNC, 5, 0xB),
        Import("m", "t", ExternKind.TABLE, TableType(EXTERNREF, Limits(2, 3)), 0x11),
        Import("m", "", ExternKind.MEMORY, MemoryType(Limits(1)), 0x1A),
        Import("m", "é", ExternKind.GLOBAL, GlobalType(I64, True), 0x20),
    ]


def test_functions_and_code() -> None:
    m = decode(
        module(section(1, "01 60 00 00"), section(3, "02 00 00"), section(10, "02 02 00 0b 07 02 03 7f 00 7c 01 0b"))
    )
    assert m.functions == [0, 0]
    assert m.code == [
        FunctionBody((), b"\x0b", 0x18, 0x17),
        FunctionBody(((3, I32), (0, F64)), b"\x01\x0b", 0x1F, 0x1A),
    ]


def test_tables_memories_globals() -> None:
    m = decode(module(section(4, "01 70 00 05"), section(5, "01 01 8001 8002"), section(6, "01 7f 01 41 2a 0b")))
    assert m.tables == [Table(TableType(FUNCREF, Limits(5)))]
    assert m.memories == [MemoryType(Limits(128, 256))]
    assert m.globals == [Global(GlobalType(I32, True), constant(42, 0x1B))]


def test_exports_and_start() -> None:
    m = decode(module(section(7, "02 01 61 00 01 00 02 00"), section(8, "07")))
    assert m.exports == [Export("a", ExternKind.FUNC, 1, 0xB), Export("", ExternKind.MEMORY, 0, 0xF)]
    assert (m.start, m.start_offset) == (7, 0x14)


ZERO = "41 00 0b"


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (f"00 {ZERO} 01 03", (SegmentMode.ACTIVE, FUNCREF | NON_NULL, 0, (3,), False)),
        ("01 00 01 03", (SegmentMode.PASSIVE, FUNCREF | NON_NULL, 0, (3,), False)),
        (f"02 05 {ZERO} 00 01 03", (SegmentMode.ACTIVE, FUNCREF | NON_NULL, 5, (3,), False)),
        ("03 00 01 03", (SegmentMode.DECLARATIVE, FUNCREF | NON_NULL, 0, (3,), False)),
        (f"04 {ZERO} 01 d2030b", (SegmentMode.ACTIVE, FUNCREF, 0, "d2030b", True)),
        ("05 6f 01 d06f0b", (SegmentMode.PASSIVE, EXTERNREF, 0, "d06f0b", True)),
        (f"06 05 {ZERO} 6f 01 d06f0b", (SegmentMode.ACTIVE, EXTERNREF, 5, "d06f0b", True)),
        ("07 70 01 d2030b", (SegmentMode.DECLARATIVE, FUNCREF, 0, "d2030b", True)),
    ],
)
def test_the_eight_forms_of_element_segments(
    encoded: str, expected: tuple[SegmentMode, int, int, tuple[int, ...] | str, bool]
) -> None:
    (segment,) = decode(module(section(9, "01" + encoded))).elements
    items: list[object] = [i.code.hex() if isinstance(i, Expression) else i for i in segment.items]
    mode, type_, table, item, uses_expressions = expected
    assert isinstance(segment, ElementSegment)
    assert (segment.mode, segment.type, segment.table) == (mode, type_, table)
    assert items == ([item] if isinstance(item, str) else list(item))
    assert segment.uses_expressions is uses_expressions
    assert (segment.table_offset is not None) == (mode is SegmentMode.ACTIVE)
    assert segment.offset == 0xB


def test_the_three_forms_of_data_segments() -> None:
    m = decode(module(section(12, "03"), section(11, f"03 00 {ZERO} 01 61 01 02 6162 02 01 {ZERO} 00")))
    assert m.data_count == 3
    assert m.data == [
        DataSegment(SegmentMode.ACTIVE, 0, constant(0, 0xF), b"a", 0xE),
        DataSegment(SegmentMode.PASSIVE, 0, None, b"ab", 0x14),
        DataSegment(SegmentMode.ACTIVE, 1, constant(0, 0x1A), b"", 0x18),
    ]


def test_custom_sections_keep_their_place() -> None:
    m = decode(
        module(section(0, "01 61 ff"), section(1, "00"), section(0, "01 62"), section(0, "00"), section(10, "00"))
    )
    assert m.custom == [
        CustomSection("a", b"\xff", 0, 0x8),
        CustomSection("b", b"", 1, 0x10),
        CustomSection("", b"", 1, 0x14),
    ]


def test_constant_expressions_may_hold_any_instruction_until_validation() -> None:
    code = assemble("i32.const 1; block i32; i32.const 2; end; i32.add")
    assert decode(module(section(6, b"\x01\x7f\0" + code))).globals[0].init == Expression(code, 0xD)


@pytest.mark.parametrize(
    ("data", "message", "offset"),
    [
        (b"", "unexpected end", 0),
        (b"\0as", "unexpected end of the header: it has 8 bytes, found 3", 3),
        (b"\0asm\1\0", "unexpected end of the header", 6),
        (b"\0asn\1\0\0\0", "magic header not detected", 0),
        (b"(module)", "magic header not detected", 0),
        (b"\0asm\2\0\0\0", "unknown binary version 0x2", 4),
        (module(b"\x0e\0"), "malformed section id 14", 8),
        (module(b"\x01\x05\x00"), "length out of bounds", 9),
        (module(section(1, "01 60 00 00 00")), "section size mismatch: type section says 5 bytes and has 4", 8),
        (module(b"\x01\x03\x01\x60\x00\x00"), "section size mismatch: type section says 3 bytes and has 4", 8),
        (module(section(3, "00"), section(1, "00")), "unexpected content after last section: type", 0xB),
        (module(section(1, "00"), section(1, "00")), "unexpected content after last section", 0xB),
        (module(section(1, "01 60 01 40 00")), "malformed value type 0x40", 0xD),
        (module(section(1, "01 61 00 00")), "malformed type form 0x61", 0xB),
        (module(section(2, "01 02 c328 00 00 00")), "malformed UTF-8 encoding", 0xB),
        (module(section(2, "01 03 eda080 00 00 00")), "malformed UTF-8 encoding", 0xB),  # a surrogate
        (module(section(2, "01 00 00 05")), "malformed import kind", 0xD),
        (module(section(7, "01 00 07 00")), "malformed export kind", 0xC),
        (module(section(4, "01 7f 00 00")), "malformed reference type", 0xB),
        (module(section(5, "01 10 00")), "malformed limits flags", 0xB),
        (module(section(5, "01 08")), "malformed limits flags 0x8: nothing follows", 0xB),
        (module(section(5, "01 08 00 40")), "invalid custom page size: 2..64 bytes", 0xD),
        (module(section(4, "01 70 08 00 00")), "malformed limits flags 0x8", 0xC),
        (module(section(6, "01 7f 02 41 00 0b")), "malformed mutability", 0xC),
        (module(section(6, "01 7f 00 41 00")), "unexpected end of section or function", 0xF),
        (module(section(9, "01 08")), "malformed elements segment kind 8", 0xB),
        (module(section(9, "01 01 01 00")), "malformed element kind", 0xC),
        (module(section(11, "01 03 00")), "malformed data segment kind 3", 0xB),
        (module(section(12, "01")), "data count and data section have inconsistent lengths", 0xB),
        (module(section(3, "01 00")), "function and code section have inconsistent lengths", 0xA),
        (module(section(10, "01 02 00 0b")), "function and code section have inconsistent lengths", 0),
        (module(section(0, "05 6162")), "length out of bounds", 0xA),
        (module(section(0, "")), "unexpected end", 0xA),
    ],
)
def test_messages_and_offsets(data: bytes, message: str, offset: int) -> None:
    with pytest.raises(MalformedError, match=f"^{message}") as caught:
        decode(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("data", "feature"),
    [
        (b"\0asm\x0d\0\x01\0", "component model"),
        (module(section(13, "00")), "exception-handling"),
        (module(section(2, "01 00 00 04 00 00")), "exception-handling"),
        (module(section(1, "01 5f 00")), "GC"),
    ],
)
def test_modules_of_proposals_name_the_feature(data: bytes, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        decode(data)
    assert feature in caught.value.feature
    assert f"{caught.value.offset:#x}" in str(caught.value)


BILLIONS = "ffffffff0f"


@pytest.mark.parametrize(
    "content",
    [
        *[(number, BILLIONS) for number in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)],
        (1, f"01 60 {BILLIONS}"),
        (2, f"01 {BILLIONS}"),
        (9, f"01 01 00 {BILLIONS}"),
        (9, f"01 05 70 {BILLIONS}"),
        (10, f"01 {BILLIONS}"),
        (10, f"01 06 {BILLIONS}"),
        (11, f"01 01 {BILLIONS}"),
        (0, BILLIONS),
    ],
)
def test_counts_in_the_billions_allocate_nothing(content: tuple[int, str]) -> None:
    """Threat: a count that asks for gigabytes. It must fail before the allocation."""
    data = module(section(*content))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match=r"^(length out of bounds|unexpected end)"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def with_body(body: str) -> bytes:
    content = bytes.fromhex(body)
    return module(
        section(1, "01 60 00 00"), section(3, "01 00"), section(10, b"\x01" + bytes((len(content),)) + content)
    )


def test_locals_stay_run_length_encoded() -> None:
    assert decode(with_body("02 d08603 7f 00 7e 0b")).code[0].locals == ((50_000, I32), (0, I64))


@pytest.mark.parametrize("runs", ["01 d18603 7f", "02 ffffffff0f 7f 01 7f", "03 d08603 7f 00 7e 01 7f"])
def test_too_many_locals(runs: str) -> None:
    """Threat: five bytes of body declare four billion locals."""
    with pytest.raises(MalformedError, match=r"^too many locals: \d+, the limit is 50000"):
        decode(with_body(runs + "0b"))


@pytest.mark.parametrize(
    ("number", "limit", "item"),
    [
        (1, limits.TYPES, "60 00 00"),
        (2, limits.IMPORTS, "00 00 00 00"),
        (3, limits.FUNCTIONS, "00"),
        (4, limits.TABLES, "70 00 00"),
        (6, limits.GLOBALS, "7f 00 41 00 0b"),
        (7, limits.EXPORTS, "00 00 00"),
        (9, limits.ELEMENT_SEGMENTS, "01 00 00"),
        (10, limits.FUNCTIONS, "02 00 0b"),
        (11, limits.DATA_SEGMENTS, "01 00"),
    ],
)
def test_counts_are_compared_with_their_limits_before_the_items_are_made(number: int, limit: int, item: str) -> None:
    """Threat: items of a byte or two whose records take a hundred."""
    data = module(section(number, encode_unsigned(limit + 1) + bytes.fromhex(item) * (limit + 1)))
    tracemalloc.start()
    try:
        with pytest.raises(
            MalformedError, match=rf"^too many items in the .* section: {limit + 1}, the limit is {limit}"
        ):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(FRONT_END_IS_COMPILED, reason="mypyc puts the limits into the code, where no test can lower them")
def test_custom_sections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CUSTOM_SECTIONS", 3)
    assert len(decode(module(*[section(0, "00")] * 3)).custom) == 3
    with pytest.raises(MalformedError, match=r"^too many custom sections: the limit is 3"):
        decode(module(*[section(0, "00")] * 4))


def test_bytes_like_input_is_accepted() -> None:
    assert decode(memoryview(bytearray(HEADER))) == Module()
