"""Mutated texts: the parser gives a module or a `ParseError`, and what it parses can be printed and parsed again."""

# ruff: noqa: E501 (texts of modules)
from __future__ import annotations

import contextlib
import random

import pytest

from tests.text.abbreviations import ABBREVIATIONS
from wasmforge.binary import decode, encode
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.text import ParseError, parse, print_module
from wasmforge.text.keywords import KEYWORDS, OPERATORS
from wasmforge.text.lexer import Source

SEEDS = [text for pair in ABBREVIATIONS.values() for text in pair if len(text) < 5000]
WORDS = [
    *OPERATORS, *KEYWORDS, "(", ")", "$x", '$"x"', "0", "-1", "0x1p-3", "nan:0x1", '"a"', '"\\ff"', "(@custom", "(@name",
    "(@metadata.code.branch_hint", "(@x", ";;", "(;", ";)", "\n", "v128", "align=4", "offset=1", "\0", "é", "4294967295",
]  # fmt: skip


def mutant(rng: random.Random) -> str:
    text = rng.choice(SEEDS)
    if rng.random() < 0.3:
        text = text + rng.choice(SEEDS)
    if rng.random() < 0.5:
        characters = list(text)
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(characters))
            action = rng.randrange(3)
            if action == 0:
                del characters[at : at + rng.randint(1, 5)]
            elif action == 1:
                characters.insert(at, rng.choice('()$";@0a.\n\\=_'))
            else:
                characters[at] = chr(rng.randrange(0x20, 0x7F))
            characters = characters or [" "]
        return "".join(characters)
    tokens = [t for t in Source(text).tokens if t]
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(tokens))
        action = rng.randrange(5)
        if action == 0:
            del tokens[at]
        elif action == 1:
            tokens.insert(at, rng.choice(WORDS))
        elif action == 2:
            tokens[at] = rng.choice(WORDS)
        elif action == 3:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        else:
            tokens[at:at] = tokens[at : at + rng.randint(1, 8)]
        tokens = tokens or ["("]
    return " ".join(tokens)


@pytest.mark.parametrize("seed", range(4))
def test_mutants(seed: int) -> None:
    rng = random.Random(seed)
    parsed = refused = 0
    for _ in range(2500):
        text = mutant(rng)
        try:
            module = parse(text)
        except ParseError as e:
            refused += 1
            assert e.line >= 1
            assert e.column >= 1
            continue
        parsed += 1
        binary = encode(module)
        try:
            printed = print_module(decode(binary))
        except WasmtimeError:
            continue  # a reference that the decoder refuses, such as data that a missing section counts
        assert encode(parse(printed)) == binary, text
    assert parsed > 40
    assert refused > 100


@pytest.mark.parametrize("seed", range(2))
def test_random_bytes(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(2000):
        raw = bytes(rng.choice(b'()"\\;@$ \n09afx_.-+\xc3\xa4\xff') for _ in range(rng.randrange(40)))
        with contextlib.suppress(ParseError):
            parse(raw)
