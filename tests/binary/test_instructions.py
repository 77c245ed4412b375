"""The instruction codec (specification, section 5.4): every instruction there and back, offsets, and bad encodings."""

from __future__ import annotations

import pytest

from tests.building import assemble
from tests.fuzzing import every_instruction, sample
from wasmforge.binary import encode_expression, encode_instruction, instructions
from wasmforge.binary.instructions import skip_expression
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError
from wasmforge.syntax.instructions import BY_MNEMONIC, INSTRUCTIONS, Instruction, InstructionRow


@pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: f"{row.mnemonic}-{row.opcode:x}")
def test_every_instruction_survives_the_round_trip(row: InstructionRow) -> None:
    encoded = sample(row)
    (decoded,) = instructions(encoded, 7)
    assert decoded.row is row
    assert decoded.offset == 7
    assert encode_instruction(row, decoded.immediates) == encoded


@pytest.mark.parametrize(
    ("encoded", "mnemonic", "immediates"),
    [
        ("0240", "block", (-64,)),
        ("037f", "loop", (-1,)),
        ("0405", "if", (5,)),
        ("028001", "block", (128,)),
        ("0e03000102 03", "br_table", ((0, 1, 2, 3),)),
        ("0e0009", "br_table", ((9,),)),
        ("11 8001 02", "call_indirect", (128, 2)),
        ("1c017d", "select", ((0x7D,),)),
        ("28 02 10", "i32.load", ((2, 0, 16),)),
        ("2842 01 10", "i32.load", ((2, 1, 16),)),
        ("36 00 ffffffff0f", "i32.store", ((0, 0, 2**32 - 1),)),
        ("41ffffffff07", "i32.const", (2**31 - 1,)),
        ("428080808080808080807f", "i64.const", (-(2**63),)),
        ("430000c07f", "f32.const", (0x7FC00000,)),
        ("44 0100000000 00f07f", "f64.const", (0x7FF0000000000001,)),
        ("d06f", "ref.null", (0x6F,)),
        ("fc08 03 00", "memory.init", (3, 0)),
        ("fc0c 01 02", "table.init", (1, 2)),
        ("fd00 04 10", "v128.load", ((4, 0, 16),)),
        ("fd56 42 01 10 03", "v128.load32_lane", ((2, 1, 16), 3)),
        ("fd0c 0100000002000000 0300000004000080", "v128.const", (0x80000004_00000003_00000002_00000001,)),
        ("fd0d 000102030405060708090a0b0c0d0eff", "i8x16.shuffle", (bytes([*range(15), 255]),)),
        ("fd15 ff", "i8x16.extract_lane_s", (255,)),
        ("fd8001", "i16x8.abs", ()),
        ("fd9302", "i32x4.relaxed_dot_i8x16_i7x16_add_s", ()),
    ],
)
def test_value_forms_of_immediates(encoded: str, mnemonic: str, immediates: tuple[object, ...]) -> None:
    code = bytes.fromhex(encoded)
    (decoded,) = instructions(code)
    assert (decoded.row.mnemonic, decoded.immediates) == (mnemonic, immediates)
    assert encode_expression([decoded]) == code


def test_offsets_are_those_of_the_opcodes() -> None:
    code = assemble("local.get 300; i32.const -1; i32.add; memory.fill 0")
    assert [i.offset for i in instructions(code, 0x40)] == [0x40, 0x43, 0x45, 0x46, 0x49]


def test_a_sequence_of_everything_is_canonical() -> None:
    code = every_instruction()
    assert encode_expression(instructions(code)) == code


def test_numbers_are_written_in_the_shortest_form() -> None:
    assert encode_expression(instructions(bytes.fromhex("2080808000 fc8b8000 8000"))).hex() == "2000fc0b00"


def test_the_number_of_immediates_is_checked() -> None:
    with pytest.raises(ValueError, match="shorter"):
        encode_instruction(BY_MNEMONIC["call_indirect"], (0,))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("ff", "illegal opcode ff"),
        ("27", "illegal opcode 27"),
        ("fc1f", "illegal opcode fc 1f"),
        ("fcffffffff0f", "illegal opcode fc"),
        ("fc", "unexpected end"),
        ("41", "unexpected end"),
        ("41ffffffff0f", "integer too large"),
        ("430000", "unexpected end"),
        ("44000000", "unexpected end"),
        ("28 8001 00", "malformed memop flags"),
        ("0e ffffffff0f", "unexpected end"),
        ("1c ffffffff0f", "unexpected end"),
        ("1c0140", "malformed value type"),
        ("0241", "malformed block type"),
        ("02ff7f", "malformed block type"),
        ("d041", "malformed heap type"),
        ("d0", "unexpected end"),
        ("02", "unexpected end"),
    ],
)
def test_malformed_instructions(encoded: str, reason: str) -> None:
    code = b"\x01" + bytes.fromhex(encoded)
    with pytest.raises(MalformedError, match=f"^{reason}") as caught:
        list(instructions(code, 0x1000))
    assert 0x1001 <= caught.value.offset <= 0x1000 + len(code)


@pytest.mark.parametrize(
    ("encoded", "feature"),
    [
        ("fb00", "GC"),
        ("d3", "GC"),
        ("06", "legacy exception-handling"),
        ("08", "exception-handling"),
        ("0a", "exception-handling"),
        ("1f40", "exception-handling"),
        ("e2", "stack-switching"),
        ("026e", "GC"),
        ("0269", "exception-handling"),
        ("d071", "GC"),
    ],
)
def test_instructions_of_proposals_are_named(encoded: str, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        list(instructions(b"\x01" + bytes.fromhex(encoded), 0x1000))
    assert feature in caught.value.feature
    assert "not supported yet" in str(caught.value)
    assert 0x1001 <= caught.value.offset <= 0x1003


def test_skipping_an_expression_matches_its_blocks() -> None:
    code = assemble("block; loop; if i32; i32.const 11; else; i32.const 11; end; drop; end; end")
    assert skip_expression(b"\0" + code + b"\x0b", 1, len(code) + 2) == len(code) + 1


def test_skipping_deep_nesting_needs_no_recursion() -> None:
    code = b"\x02\x40" * 200_000 + b"\x0b" * 200_001
    assert skip_expression(code, 0, len(code)) == len(code)


@pytest.mark.parametrize("source", ["i32.const 0", "block; end", ""])
def test_skipping_stops_at_the_bound(source: str) -> None:
    code = assemble(source, end=False)
    with pytest.raises(MalformedError, match=r"^unexpected end"):
        skip_expression(code + b"\x0b", 0, len(code))


def test_instruction_objects_compare_by_value() -> None:
    assert Instruction(BY_MNEMONIC["br"], (1,)) == Instruction(BY_MNEMONIC["br"], (1,))
