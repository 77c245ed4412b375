"""The encoder: the inverse of the decoder on canonical input, and canonical output for everything else."""

from __future__ import annotations

import pytest

from tests.building import assemble, function_type, one_function, rich_module
from tests.fuzzing import mutants, seeds
from wasmforge.binary import decode, encode
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import (
    CustomSection,
    DataSegment,
    ElementSegment,
    Expression,
    Module,
    NameSection,
    SegmentMode,
)
from wasmforge.syntax.types import EXTERNREF, FUNCREF

ZERO = Expression(assemble("i32.const 0"))


@pytest.mark.parametrize("data", seeds(), ids=len)
def test_encoding_what_was_decoded_gives_the_same_bytes(data: bytes) -> None:
    assert encode(decode(data)) == data


def test_a_small_module_byte_by_byte() -> None:
    m = one_function("local.get 0; local.get 0; i32.mul", "i32", "i32")
    assert encode(m).hex(" ") == (
        "00 61 73 6d 01 00 00 00 01 06 01 60 01 7f 01 7f 03 02 01 00 0a 09 01 07 00 20 00 20 00 6c 0b"
    )


def test_numbers_become_canonical() -> None:
    padded = b"\0asm\x01\0\0\0" + bytes.fromhex("01 89808000 8180808000 60 8000 00")
    assert encode(decode(padded)) == encode(Module(types=[function_type()]))


def test_empty_sections_are_left_out() -> None:
    assert encode(decode(b"\0asm\x01\0\0\0" + bytes.fromhex("010100 030100 0a0100"))) == b"\0asm\x01\0\0\0"


@pytest.mark.parametrize(
    ("segment", "encoded"),
    [
        (ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, ZERO, (3,), False), "00 41 00 0b 01 03"),
        (ElementSegment(SegmentMode.PASSIVE, FUNCREF, 0, None, (3,), False), "01 00 01 03"),
        (ElementSegment(SegmentMode.ACTIVE, FUNCREF, 1, ZERO, (), False), "02 01 41 00 0b 00 00"),
        (ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, (3,), False), "03 00 01 03"),
        (ElementSegment(SegmentMode.ACTIVE, FUNCREF, 0, ZERO, (ZERO,), True), "04 41 00 0b 01 41 00 0b"),
        (ElementSegment(SegmentMode.PASSIVE, EXTERNREF, 0, None, (), True), "05 6f 00"),
        (ElementSegment(SegmentMode.ACTIVE, EXTERNREF, 0, ZERO, (), True), "06 00 41 00 0b 6f 00"),
        (ElementSegment(SegmentMode.DECLARATIVE, FUNCREF, 0, None, (), True), "07 70 00"),
    ],
)
def test_element_segments_take_the_shortest_form(segment: ElementSegment, encoded: str) -> None:
    data = encode(Module(elements=[segment]))
    assert data[11:].hex(" ") == encoded
    assert encode(decode(data)) == data


@pytest.mark.parametrize(
    ("segment", "encoded"),
    [
        (DataSegment(SegmentMode.ACTIVE, 0, ZERO, b"ab"), "00 41 00 0b 02 61 62"),
        (DataSegment(SegmentMode.PASSIVE, 0, None, b""), "01 00"),
        (DataSegment(SegmentMode.ACTIVE, 3, ZERO, b""), "02 03 41 00 0b 00"),
    ],
)
def test_data_segments_take_the_shortest_form(segment: DataSegment, encoded: str) -> None:
    data = encode(Module(data=[segment]))
    assert data[11:].hex(" ") == encoded
    assert encode(decode(data)) == data


def test_the_data_count_is_written_when_there_was_one_and_is_right() -> None:
    data = encode(Module(data_count=7, data=[DataSegment(SegmentMode.PASSIVE, 0, None, b"")]))
    assert decode(data).data_count == 1
    assert decode(encode(Module())).data_count is None


def test_custom_sections_go_where_they_were() -> None:
    m = rich_module()
    m.custom = [CustomSection(f"after {k}", bytes((k,)), k) for k in (0, 1, 6, 12, 10, 11)]
    again = decode(encode(m))
    assert [(c.name, c.data, c.after) for c in again.custom] == [(c.name, c.data, c.after) for c in m.custom]


def test_a_custom_section_after_a_section_that_is_left_out_stays_in_order() -> None:
    m = Module(custom=[CustomSection("last", b"", 99), CustomSection("late", b"", 10), CustomSection("early", b"", 0)])
    assert [c.name for c in decode(encode(m)).custom] == ["early", "late", "last"]


def test_names_are_written_at_the_end() -> None:
    m = rich_module()
    m.names = NameSection("example", {1: "run"}, {1: {0: "x"}})
    again = decode(encode(m))
    assert again.names == m.names
    assert (again.custom[-1].name, again.custom[-1].after) == ("name", 11)


def test_a_name_section_that_was_decoded_is_kept_as_it_was() -> None:
    odd = CustomSection("name", bytes.fromhex("00 82 00 01 61"), 0)  # a padded size
    data = encode(Module(custom=[odd]))
    m = decode(data)
    assert m.names == NameSection("a")
    assert encode(m) == data


def test_what_decodes_can_be_encoded_and_is_then_canonical() -> None:
    decoded = 0
    for data in mutants(4_000, seed=5):
        try:
            m = decode(data)
        except WasmtimeError:
            continue
        decoded += 1
        once = encode(m)
        assert encode(decode(once)) == once
    assert decoded > 500
