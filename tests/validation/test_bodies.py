"""Typing of function bodies (specification, sections 3.4 and A.3): what is accepted, and why the rest is not."""

from __future__ import annotations

import pytest

from tests.building import assemble, one_function, rich_module
from tests.fuzzing import every_instruction, sample
from wasmforge.binary import decode, encode
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.syntax.instructions import INSTRUCTIONS, InstructionRow
from wasmforge.syntax.module import DataSegment, NameSection, SegmentMode
from wasmforge.syntax.types import F64, I32, I64, VALUE_TYPES
from wasmforge.validation import InvalidError, validate


def check(source: str | bytes, params: str = "", results: str = "") -> None:
    """Validates a body in `rich_module`, which has an item of every kind."""
    validate(rich_module(source, params, results), ALL_FEATURES)


@pytest.mark.parametrize(
    ("source", "params", "results"),
    [
        ("", "", ""),
        ("local.get 0", "i64", "i64"),
        ("local.get 0; local.tee 1; drop; local.get 1", "i32", "i32"),
        ("i32.const 1; i64.const 2", "", "i32 i64"),
        ("i32.const 1; i64.const 2; i32.wrap_i64; i32.add", "", "i32"),
        ("local.get 0; if i32; i32.const 1; else; i32.const 2; end", "i32", "i32"),
        ("local.get 0; if; nop; end", "i32", ""),
        ("block i32; i32.const 1; br 0; end", "", "i32"),
        ("block i32; i32.const 1; i32.const 0; br_if 0; end", "", "i32"),
        ("loop; br 0; end", "", ""),
        ("loop i32; br 0; end", "", "i32"),
        ("i32.const 1; i64.const 2; block 2; drop; drop; f64.const 0; f32.const 0; end; drop; drop", "", ""),
        ("i32.const 1; i64.const 2; loop 2; br 0; end; drop; drop", "", ""),
        ("i32.const 0; br_table 0 0 0", "", ""),
        ("block i32; i32.const 7; i32.const 0; br_table 0 1 0; end", "", "i32"),
        ("call 0; i32.const 0; call_indirect 1 0", "", ""),
        ("i32.const 1; i32.const 2; i32.const 0; select", "", "i32"),
        ("ref.null externref; ref.null externref; i32.const 0; select externref", "", "externref"),
        ("f64.const 0; f64.const 0; i32.const 0; select f64", "", "f64"),
        ("i32.const 0; i32.load8_s 0 4294967295", "", "i32"),
        ("i32.const 0; i64.load 3 8; drop", "", ""),
        ("i32.const 0; f64.const 0; f64.store 0 0", "", ""),
        ("global.get 0; global.set 0; global.get 1", "", "i32"),
        ("ref.func 0; global.set 2", "", ""),
        ("ref.func 1", "", "funcref"),
        ("i32.const 0; i32.const 0; table.get 0; table.set 0", "", ""),
        ("ref.null externref; i32.const 1; table.grow 1", "", "i32"),
        ("i32.const 0; ref.null externref; i32.const 1; table.fill 1", "", ""),
        ("i32.const 0; i32.const 0; i32.const 0; table.init 0 0; elem.drop 3", "", ""),
        ("i32.const 0; i32.const 0; i32.const 0; table.init 3 1", "", ""),
        ("i32.const 0; i32.const 0; i32.const 0; memory.init 1 0; data.drop 0", "", ""),
        ("i32.const 0; i32.const 0; i32.const 0; memory.copy 0 0", "", ""),
        ("memory.size; memory.grow", "", "i32"),
        ("f32.const 0; i32.trunc_sat_f32_u", "", "i32"),
        # Unreachable code: the stack yields what is asked for, but what was pushed keeps its type.
        ("unreachable", "", "i32 i64 f64"),
        ("unreachable; i32.add", "", "i32"),
        ("unreachable; select; i32.add", "", "i32"),
        ("unreachable; select", "", "f32"),
        ("unreachable; drop; drop", "", "i32"),
        ("return; i32.add; drop; br 0", "", ""),
        ("unreachable; ref.is_null", "", "i32"),
        ("unreachable; select; ref.is_null", "", "i32"),
        ("unreachable; f64.const 0; i32.const 1; br_if 0", "", "f64"),
        ("unreachable; call_indirect 2 0", "", "f64 f32"),
        ("unreachable; block 2; unreachable; end", "", "f64 f32"),
        ("block f64; block f32; unreachable; br_table 0 1; end; drop; f64.const 0; end; drop", "", ""),
        ("br 0; if; else; end", "", ""),
    ],
)
def test_valid_bodies(source: str, params: str, results: str) -> None:
    check(source, params, results)


@pytest.mark.parametrize(
    ("source", "params", "results", "message"),
    [
        ("i32.const 0", "", "", "type mismatch: values remaining on stack"),
        ("", "", "i32", "type mismatch: expected i32, found nothing"),
        ("f64.const 0", "", "i32", "type mismatch: expected i32, found f64"),
        ("i32.const 0; i64.const 0; i32.add", "", "i32", "type mismatch: expected i32, found i64"),
        ("i64.const 0; i32.const 0; i32.add", "", "i32", "type mismatch: expected i32, found i64"),
        ("i32.const 0; i32.add", "", "i32", "type mismatch: expected i32, found nothing"),
        ("i32.const 0; block; drop; end", "", "", "type mismatch: expected a value, found nothing"),
        ("i32.const 0; f32.const 0; i32.store 0 0", "", "", "type mismatch: expected i32, found f32"),
        ("f32.const 0; i32.const 0; i32.store 0 0", "", "", "type mismatch: expected i32, found f32"),
        ("i64.const 0; i32.load 0 0", "", "i32", "type mismatch: expected i32, found i64"),
        ("f32.const 0; i32.eqz", "", "i32", "type mismatch: expected i32, found f32"),
        ("i64.const 0; local.set 0", "", "", "type mismatch: expected i32, found i64"),
        ("i64.const 0; local.tee 0", "", "i32", "type mismatch: expected i32, found i64"),
        ("i32.const 0; if i32; i32.const 1; end", "", "i32", "type mismatch: an if without else"),
        ("i32.const 0; if; else; i32.const 1; end", "", "", "type mismatch: values remaining"),
        ("i32.const 0; if; i32.const 1; else; end", "", "", "type mismatch: values remaining"),
        ("i64.const 0; if; end", "", "", "type mismatch: expected i32, found i64"),
        ("block i32; br 0; end", "", "i32", "type mismatch: expected i32, found nothing"),
        ("block i32; f32.const 0; i32.const 0; br_if 0; end", "", "i32", "type mismatch: expected i32, found f32"),
        ("block i32; i32.const 0; br_if 0; i32.const 0; end", "", "i32", "type mismatch: expected i32, found nothing"),
        (
            "block; block i32; i32.const 0; i32.const 0; br_table 0 1; end; drop; end",
            "",
            "",
            "type mismatch: the labels",
        ),
        ("block f32; i32.const 0; i32.const 0; br_table 0 0; end", "", "f32", "type mismatch: expected f32, found i32"),
        ("i32.const 0; call_indirect 2 0; drop; drop", "", "", "type mismatch: expected i64, found nothing"),
        ("i32.const 0; call_indirect 1 1", "", "", "type mismatch: call_indirect needs a table of funcref"),
        ("i32.const 0; f32.const 0; i32.const 0; select; drop", "", "", "type mismatch: expected f32, found i32"),
        (
            "ref.null funcref; ref.null funcref; i32.const 0; select",
            "",
            "funcref",
            "type mismatch: select without a type",
        ),
        ("i32.const 0; i32.const 0; i32.const 0; select i64; drop", "", "", "type mismatch: expected i64, found i32"),
        ("unreachable; select i32 i32", "", "", "invalid result arity: select has one result, found 2"),
        ("i32.const 0; ref.is_null; drop", "", "", "type mismatch: expected a reference, found i32"),
        ("i64.const 0; return", "", "i32", "type mismatch: expected i32, found i64"),
        ("unreachable; i64.const 0; i32.add", "", "i32", "type mismatch: expected i32, found i64"),
        ("unreachable; i64.const 0", "", "i32", "type mismatch: expected i32, found i64"),
        ("unreachable; i32.const 0; i32.const 0", "", "i32", "type mismatch: values remaining"),
        (
            "i32.const 0; i32.const 0; i32.const 0; table.init 0 1",
            "",
            "",
            "type mismatch: expected elements of type ext",
        ),
        (
            "i32.const 0; i32.const 0; i32.const 0; table.copy 1 0",
            "",
            "",
            "type mismatch: expected elements of type ext",
        ),
        ("i32.const 0; ref.null funcref; table.set 1", "", "", "type mismatch: expected externref, found funcref"),
        ("unreachable; local.get 1", "", "", "unknown local 1: the function has 1 locals"),
        ("local.set 300", "", "", "unknown local 300"),
        ("call 9", "", "", "unknown function 9: the module has 2 functions"),
        ("ref.func 2", "", "funcref", "unknown function 2"),
        ("i32.const 0; call_indirect 3 0", "", "", "unknown type 3"),
        ("i32.const 0; call_indirect 0 2", "", "", "unknown table 2"),
        ("block 9; end", "", "", "unknown type 9"),
        ("table.size 2", "", "i32", "unknown table 2"),
        ("i32.const 0; table.get 2", "", "", "unknown table 2"),
        ("table.copy 0 2", "", "", "unknown table 2"),
        ("global.get 3", "", "", "unknown global 3"),
        ("i32.const 0; global.set 4", "", "", "unknown global 4"),
        ("i32.const 0; global.set 1", "", "", "immutable global 1"),
        ("br 1", "", "", "unknown label 1: 1 labels are in scope"),
        ("i32.const 0; br_if 2", "", "", "unknown label 2"),
        ("i32.const 0; br_table 0 1000000 0", "", "", "unknown label 1000000"),
        ("elem.drop 4", "", "", "unknown elem segment 4"),
        ("table.init 4 0", "", "", "unknown elem segment 4"),
        ("data.drop 2", "", "", "unknown data segment 2"),
        ("memory.init 2 0", "", "", "unknown data segment 2"),
        ("memory.size 1", "", "i32", "unknown memory 1"),
        ("memory.copy 0 1", "", "", "unknown memory 1"),
        ("i32.const 0; i32.load 3 0; drop", "", "", "alignment must not be larger than natural"),
        ("i32.const 0; i32.load8_u 1 0; drop", "", "", "alignment must not be larger than natural"),
        ("i32.const 0; i64.load 4 0; drop", "", "", "alignment must not be larger than natural"),
        ("i32.const 0; i64.const 0; i64.store32 3 0", "", "", "alignment must not be larger than natural"),
        ("i32.const 0; i32.load 0 4294967296; drop", "", "", "offset out of range"),
    ],
)
def test_invalid_bodies(source: str, params: str, results: str, message: str) -> None:
    with pytest.raises(InvalidError, match=f"^{message}") as caught:
        check(source, params, results)
    assert caught.value.function == 1


ORDINARY = [row for row in INSTRUCTIONS if row.params is not None]
"""Those whose type does not depend on the context."""


@pytest.mark.parametrize("row", ORDINARY, ids=lambda row: f"{row.mnemonic}-{row.opcode:x}")
def test_every_ordinary_instruction_has_the_signature_of_the_table(row: InstructionRow) -> None:
    """With its operands it is valid, with any operand of another type or without the first it is not."""
    assert row.params is not None and row.results is not None
    zero = {t: assemble(f"{name}.const 0", end=False) for t, name in VALUE_TYPES.items() if name[-1] in "248"}
    results = " ".join(VALUE_TYPES[t] for t in row.results)
    operands = [zero[t] for t in row.params]
    check(b"".join(operands) + sample(row) + b"\x0b", results=results)
    for k, t in enumerate(row.params):
        wrong = [*operands[:k], zero[F64 if t != F64 else I32], *operands[k + 1 :]]
        with pytest.raises(InvalidError, match=r"^type mismatch"):
            check(b"".join(wrong) + sample(row) + b"\x0b", results=results)
    if operands:
        with pytest.raises(InvalidError, match=r"^type mismatch"):
            check(b"".join(operands[1:]) + sample(row) + b"\x0b", results=results)


def test_all_instructions_are_valid_in_unreachable_code() -> None:
    check(every_instruction())


@pytest.mark.parametrize("row", [row for row in INSTRUCTIONS if row.access], ids=lambda row: row.mnemonic)
def test_memory_instructions_need_a_memory(row: InstructionRow) -> None:
    with pytest.raises(InvalidError, match=r"^unknown memory 0"):
        validate(one_function(b"\x00" + sample(row) + b"\x0b"))


def test_atomic_accesses_need_their_alignment() -> None:
    for align, good in ((1, False), (2, True), (3, False)):
        module = rich_module(f"i32.const 0; i32.atomic.load {align} 4; drop")
        if good:
            validate(module)
            continue
        with pytest.raises(InvalidError, match=r"^alignment must (be natural|not be larger than natural)"):
            validate(module)


def test_ref_func_needs_a_declaration() -> None:
    module = one_function("ref.func 0; drop")
    with pytest.raises(InvalidError, match=r"^undeclared function reference 0"):
        validate(module)


@pytest.mark.parametrize("source", ["memory.init 0 0", "data.drop 0"])
def test_data_instructions_need_the_data_count_section(source: str) -> None:
    module = rich_module("i32.const 0; i32.const 0; i32.const 0;" + source)
    module.data_count = None
    with pytest.raises(MalformedError, match=r"^data count section required"):
        validate(module)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "unexpected end of section or function"),
        ("01", "unexpected end of section or function"),
        ("02 40 0b", "unexpected end of section or function"),
        ("0b 0b", "section size mismatch"),
        ("05 0b", "END opcode expected"),
        ("02 40 05 0b 0b", "END opcode expected"),
        ("41 00 04 40 05 05 0b 0b", "END opcode expected"),
        ("ff 0b", "illegal opcode ff"),
        ("fc 20 0b", "illegal opcode fc 20"),
        ("fc ffffffff0f 0b", "illegal opcode fc"),
        ("41 808080808000 0b", "integer representation too long"),
        ("41 8080808070 0b", "integer too large"),
        ("42 8080808080808080807e 0b", "integer too large"),
        ("42 8080808080808080808000 0b", "integer representation too long"),
        ("20 8080808010 0b", "integer too large"),
        ("20 808080808000 0b", "integer representation too long"),
        ("21 80", "unexpected end of section or function"),
        ("28 80 01 00 0b", "malformed memop flags"),
        ("41 00 28 00 808080808080808080 8000 0b", "integer representation too long"),
        ("41 00 28 00 808080808080808080 7f 0b", "integer too large"),
        ("41 00 0e ffffffff0f 00 0b", "unexpected end of section or function"),
        ("00 1c ffffffff0f 0b", "unexpected end of section or function"),
        ("00 1c 01 40 0b", "malformed value type"),
        ("02 41 0b 0b", "malformed block type"),
        ("02 ff7f 0b 0b", "malformed block type"),
        ("d0 41 0b", "malformed heap type"),
        ("43 00 00", "unexpected end of section or function"),
        ("44 0b", "unexpected end of section or function"),
        ("10", "unexpected end of section or function"),
        ("fc", "unexpected end of section or function"),
        ("fc 08 00", "unexpected end of section or function"),
        ("fe 03 01 0b", "malformed atomic ordering: expected a zero byte"),
        ("fe 03", "unexpected end of section or function"),
    ],
)
def test_malformed_bodies(code: str, message: str) -> None:
    with pytest.raises(MalformedError, match=f"^{message}"):
        check(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "feature"),
    [
        ("1f 40 00 0b 0b", "exception-handling"),
        ("fb 00 00 0b", "GC"),
        ("d0 6e 0b", "GC"),
    ],
)
def test_bodies_that_use_a_proposal_name_it(code: str, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        check(bytes.fromhex(code))
    assert feature in caught.value.feature


def test_an_error_names_function_and_offset() -> None:
    module = rich_module("f64.const 0; i32.eqz; drop")
    module.names = NameSection(functions={1: "foo"})
    decoded = decode(encode(module))
    with pytest.raises(InvalidError) as caught:
        validate(decoded)
    offset = decoded.code[0].offset + 9
    assert str(caught.value) == f'type mismatch: expected i32, found f64 in function 1 "foo" at offset {offset:#x}'
    assert (caught.value.function, caught.value.function_name, caught.value.offset) == (1, "foo", offset)


def test_offsets_of_malformed_bodies_are_those_of_the_module() -> None:
    module = one_function(bytes.fromhex("01 ff 0b"))
    data = encode(module)
    with pytest.raises(MalformedError) as caught:
        validate(decode(data))
    assert data[caught.value.offset] == 0xFF


def test_locals_beyond_the_expanded_ones_are_found() -> None:
    """Section 3.4.7: the index space of locals is the parameters and then the declared ones, however many."""
    runs = ((300, I32), (0, F64), (400, I64), (1, F64))
    source = "local.get {}; local.set {}; local.get {}; local.tee {}; drop"
    for x in (1, 255, 256, 300):
        validate(one_function(source.format(x, x, x, x) + "; i32.const 0; local.set " + str(x), "i64", "", runs))
    for x in (301, 500, 700):
        validate(one_function(f"i64.const 0; local.set {x}", "i64", "", runs))
    validate(one_function("f64.const 0; local.set 701", "i64", "", runs))
    with pytest.raises(InvalidError, match=r"^type mismatch: expected i64, found i32"):
        validate(one_function("i32.const 0; local.tee 301; drop", "i64", "", runs))
    with pytest.raises(InvalidError, match=r"^unknown local 702: the function has 702 locals"):
        validate(one_function("local.get 702; drop", "i64", "", runs))


@pytest.mark.parametrize("branch", ["br {}", "i32.const 0; br_if {}", "i32.const 0; br_table {} {}"])
def test_labels_of_two_bytes(branch: str) -> None:
    def nested(label: int) -> str:
        return "block;" * 200 + branch.format(label, label) + "; end" * 200

    check(nested(199))
    check(nested(200))
    with pytest.raises(InvalidError, match=r"^unknown label 201: 201 labels are in scope"):
        check(nested(201))


def test_long_encodings_of_small_numbers_are_accepted() -> None:
    module = one_function(bytes.fromhex("20 8080808000 21 8000 41 ffffffff7f 42 80808080808080808000 1a 1a 0b"), "i32")
    validate(module)


def test_a_memory_index_in_a_memarg_is_accepted_when_it_is_zero() -> None:
    check(bytes.fromhex("41 00 28 42 00 04 1a 0b"))
    with pytest.raises(InvalidError, match=r"^unknown memory 1"):
        check(bytes.fromhex("41 00 28 42 01 04 1a 0b"))


def test_data_segments_are_counted_by_the_data_count_section() -> None:
    module = rich_module("data.drop 2")
    module.data.append(DataSegment(SegmentMode.PASSIVE, 0, None, b""))
    module.data_count = 3
    validate(module)
