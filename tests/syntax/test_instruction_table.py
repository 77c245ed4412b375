"""The instruction table: complete, without contradictions, and in agreement with the names in code."""

from __future__ import annotations

from wasmforge.syntax.instructions import (
    BY_MNEMONIC,
    BY_OPCODE,
    INSTRUCTIONS,
    Feature,
    Opcode,
    is_block,
    opcode_bytes,
)


def test_opcodes_are_unique_and_complete() -> None:
    """WebAssembly 2.0 (specification, section 5.4): 172 one-byte opcodes of 1.0, 5 sign extensions, 1 select, 2 table
    accesses, 3 references, 18 behind the prefix 0xFC and 236 vector instructions; with 20 relaxed ones of 3.0.
    Then tail calls, typed function references and wide arithmetic."""
    assert len(BY_OPCODE) == len(INSTRUCTIONS)
    one_byte = {opcode for opcode in BY_OPCODE if opcode < 256}
    assert one_byte == {
        *range(0x06),
        *range(0x0B, 0x16),
        *range(0x1A, 0x1D),
        *range(0x20, 0x27),
        *range(0x28, 0xC5),
        *range(0xD0, 0xD3),
        *range(0xD4, 0xD7),
    }
    assert {opcode for opcode in BY_OPCODE if opcode >> 12 == 0xFC} == {
        0xFC000 + number for number in (*range(18), *range(19, 23))
    }
    holes = {0x9A, 0xA2, 0xA5, 0xA6, 0xAF, 0xB0, 0xB2, 0xB3, 0xB4, 0xBB, 0xC2, 0xC5, 0xC6, 0xCF, 0xD0, 0xD2, 0xD3, 0xD4}
    holes |= {0xE2, 0xEE}
    vectors = {0xFD000 + number for number in range(0x114) if number not in holes}
    assert {opcode for opcode in BY_OPCODE if opcode >> 12 == 0xFD} == vectors
    assert sum(BY_OPCODE[opcode].feature == Feature.SIMD for opcode in vectors) == 236
    assert sum(BY_OPCODE[opcode].feature == Feature.RELAXED_SIMD for opcode in vectors) == 20


def test_mnemonics_are_unique_but_for_select() -> None:
    names = [row.mnemonic for row in INSTRUCTIONS]
    assert {name for name in names if names.count(name) > 1} == {"select"}
    assert BY_MNEMONIC["select"].opcode == Opcode.SELECT


def test_names_in_code_agree_with_the_table() -> None:
    for name, opcode in vars(Opcode).items():
        if name.isupper():
            expected = name.lower()
            mnemonic = BY_OPCODE[opcode].mnemonic.replace(".", "_")
            assert mnemonic == expected.removesuffix("_typed"), name


def test_features() -> None:
    assert BY_MNEMONIC["i32.extend8_s"].feature == Feature.SIGN_EXTENSION
    assert BY_MNEMONIC["i64.trunc_sat_f64_u"].feature == Feature.SATURATING_FLOAT_TO_INT
    assert BY_MNEMONIC["memory.copy"].feature == Feature.BULK_MEMORY
    assert BY_MNEMONIC["table.fill"].feature == Feature.REFERENCE_TYPES


def test_constant_instructions() -> None:
    """Section 3.4.13 with extended constant expressions."""
    assert {row.mnemonic for row in INSTRUCTIONS if row.constant} == {
        *(f"{t}.const" for t in ("i32", "i64", "f32", "f64", "v128")),
        *(f"{t}.{o}" for t in ("i32", "i64") for o in ("add", "sub", "mul")),
        "global.get",
        "ref.null",
        "ref.func",
    }


def test_blocks() -> None:
    assert {row.mnemonic for row in INSTRUCTIONS if is_block(row.opcode)} == {"block", "loop", "if"}


def test_opcode_bytes() -> None:
    assert opcode_bytes(Opcode.CALL) == b"\x10"
    assert opcode_bytes(Opcode.TABLE_FILL) == b"\xfc\x11"
    assert opcode_bytes(0xFD0FF) == b"\xfd\xff\x01"
