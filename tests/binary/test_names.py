"""The name section (specification, appendix A.5): every subsection, and that damage never makes a module malformed."""

from __future__ import annotations

import random

import pytest

from tests.building import FRONT_END_IS_COMPILED
from tests.fuzzing import mutate
from wasmforge.binary.names import decode_names, encode_names
from wasmforge.syntax import limits
from wasmforge.syntax.module import NameSection

FULL = NameSection(
    module="m",
    functions={0: "f", 200: "größer"},
    locals={0: {0: "x", 1: "y"}, 3: {0: "z"}},
    labels={0: {0: "l"}},
    types={0: "t"},
    tables={0: "table"},
    memories={0: "memory"},
    globals={1: "g"},
    elements={0: "e"},
    data={0: "d"},
)


def test_round_trip() -> None:
    assert decode_names(encode_names(FULL)) == FULL


def test_entries_are_sorted_and_empty_subsections_left_out() -> None:
    names = NameSection(functions={2: "b", 1: "a"}, locals={5: {}, 4: {1: "x", 0: "w"}})
    assert encode_names(names).hex(" ") == "01 07 02 01 01 61 02 01 62 02 09 01 04 02 00 01 77 01 01 78"
    assert encode_names(NameSection()) == b""


def test_an_empty_module_name_is_a_name() -> None:
    assert decode_names(encode_names(NameSection(""))) == NameSection("")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", NameSection()),
        ("00", NameSection()),
        ("00 ffffffff0f", NameSection()),
        ("00 02 01 61 01", NameSection("a")),
        ("00 02 01 ff 01 04 01 00 01 66", NameSection(functions={0: "f"})),  # not UTF-8: only that one is lost
        ("01 07 02 00 01 66 01 09 67", NameSection(functions={0: "f"})),  # a name that is too long ends its map
        ("0b 02 00 00 00 02 01 61", NameSection("a")),  # subsection 11 names tags
        ("7f 01 00 00 02 01 61", NameSection("a")),
        ("01 05 ffffffff0f", NameSection()),
        ("02 05 ffffffff0f", NameSection()),
    ],
)
def test_damage_costs_only_what_is_damaged(content: str, expected: NameSection) -> None:
    assert decode_names(bytes.fromhex(content)) == expected


@pytest.mark.skipif(FRONT_END_IS_COMPILED, reason="mypyc puts the limits into the code, where no test can lower them")
def test_names_beyond_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat: an entry of three bytes takes a hundred in a dictionary."""
    monkeypatch.setattr(limits, "NAMES", 3)
    names = NameSection("m", dict.fromkeys(range(2), "f"), {0: dict.fromkeys(range(5), "x"), 1: {0: "y"}})
    assert decode_names(encode_names(names)) == NameSection("m", {0: "f", 1: "f"}, {0: {0: "x"}})


def test_mutants_never_raise() -> None:
    rng = random.Random(2)
    content = b"\0" * 8 + encode_names(FULL)  # the mutator leaves eight bytes of header alone
    for _ in range(3_000):
        decode_names(mutate(content, rng)[8:])
