"""The lexer (specification, section 6.3): tokens, white space, comments, strings, identifiers, annotations, places."""

from __future__ import annotations

import contextlib
import time

import pytest

from wasmforge.text import ParseError
from wasmforge.text.lexer import Source, is_string, string_bytes


def tokens(text: str | bytes) -> list[str]:
    source = Source(text)
    return source.tokens[: source.tokens.index("")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\r ", []),
        ("(module)", ["(", "module", ")"]),
        ("()()", ["(", ")", "(", ")"]),
        ("a(b)c", ["a", "(", "b", ")", "c"]),
        ("i32.const -0x1_F", ["i32.const", "-0x1_F"]),
        ("$!#%&'*+-./:<=>?@\\^_`|~", ["$!#%&'*+-./:<=>?@\\^_`|~"]),
        ('a ;; comment ( " $\nb', ["a", "b"]),
        ("a ;; to the end", ["a"]),
        ("a;;comment\rb", ["a", "b"]),
        ("a(;;)b", ["a", "b"]),
        ("a(;;;)b", ["a", "b"]),
        ('a(; ( ; ) " ;; ;)b', ["a", "b"]),
        ("a(;(;;)(;(;;););)b", ["a", "b"]),
        ("(;\0\x7fä;)", []),
        ('"a" "b"', ['"a"', '"b"']),
        ('"a""b"', ['"a""b"']),
        ('x"a"1', ['x"a"1']),
        ('"(; ;; \\" ) "', ['"(; ;; \\" ) "']),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('$"a"', ["$a"]),
        ('$"a b" $" "', ["$a b", "$ "]),
        (r'$"\41\42" $"\u{41}B"', ["$AB", "$AB"]),
        ('($"x")', ["(", "$x", ")"]),
        (r'$"\"" ', ['$"']),
    ],
)
def test_a_quoted_identifier_is_the_identifier_that_it_spells(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (@b c) d", ["a", "d"]),
        ("(@a)(@b)(@0)(@!$@#)", []),
        ('(@"quoted id" x)e', ["e"]),
        ("(@a (b (c) ()) (@d (e)) )f", ["f"]),
        ('(@a , ; ] [ }} }x{ ({) ")" "(" x")"y )f', ["f"]),
        ("(@a (;;) (; (;;) ;) ;; )\n)f", ["f"]),
        ("(@a @ (@) (@ x) $)f", ["f"]),
        ("f (@custom x)", ["f", "(@custom", "x", ")"]),
        ('(@"name" "x")', ["(@name", '"x"', ")"]),
        ('(@metadata.code.branch_hint "")', ["(@metadata.code.branch_hint", '""', ")"]),
    ],
)
def test_annotations_are_skipped_unless_they_mean_something(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("a\n  $ b", "empty identifier", 2, 3),
        ('$""', "empty identifier", 1, 1),
        ('$ "a"', "empty identifier", 1, 1),
        ('$"a\nb"', "empty identifier", 1, 1),
        ('$"\\ef"', "malformed UTF-8", 1, 1),
        ('$"a"b', "unknown operator", 1, 1),
        ('$"\\q"', "malformed string escape", 1, 1),
        ('$a"b"', "unknown operator", 1, 1),
        ('"abc', "unclosed string", 1, 1),
        ('a "b\n"', "unclosed string", 1, 3),
        ('"\\"', "unclosed string", 1, 1),
        ('"a\tb"', "illegal character", 1, 3),
        ("a , b", "unknown operator ,", 1, 3),
        ("a [", "unknown operator [", 1, 3),
        ("\x0c", "illegal character", 1, 1),
        ("a é", "illegal character", 1, 3),
        ("(;", "unclosed comment", 1, 1),
        ("a (; (; ;)", "unclosed comment", 1, 3),
        ("(@)", "empty annotation id", 1, 1),
        ("(@ x)", "empty annotation id", 1, 1),
        ('(@"")', "empty annotation id", 1, 1),
        ("x (@a (b)", "unclosed annotation", 1, 3),
        ('(@a "', "unclosed string", 1, 5),
        ('(@a "\\zz")', "malformed string escape", 1, 5),
        ("(@a \x01)", "illegal character", 1, 5),
    ],
)
def test_what_is_no_token_is_an_error_with_its_place(text: str, reason: str, line: int, column: int) -> None:
    with pytest.raises(ParseError) as caught:
        Source(text, "f.wat")
    assert caught.value.reason.startswith(reason)
    assert (caught.value.filename, caught.value.line, caught.value.column) == ("f.wat", line, column)


def test_bytes_must_be_utf8_and_the_place_of_what_is_not_is_found() -> None:
    with pytest.raises(ParseError, match="malformed UTF-8 encoding") as caught:
        Source(b"(module)\n;; \xc3\xa4 \xff")
    assert (caught.value.line, caught.value.column) == (2, 6)


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ('""', b""),
        ('"abc"', b"abc"),
        ('"ä€😀"', "ä€😀".encode()),
        (r'"\t\n\r\"\'\\"', b"\t\n\r\"'\\"),
        (r'"\00\ff\Aa0"', b"\x00\xff\xaa0"),
        (r'"\u{0}\u{7f}\u{10_FFFF}"', b"\x00\x7f" + "\U0010ffff".encode()),
        (r'"ä\c3\a4"', "ää".encode()),
    ],
)
def test_strings_stand_for_bytes(literal: str, expected: bytes) -> None:
    assert is_string(literal)
    assert string_bytes(literal) == expected


@pytest.mark.parametrize(
    "literal", [r'"\x"', r'"\0"', r'"\u{}"', r'"\u{110000}"', r'"\u{d800}"', r'"\u{1__0}"', '"\ud800"']
)
def test_bad_escapes_are_errors(literal: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        string_bytes(literal)


def test_places_are_right_behind_comments_and_annotations() -> None:
    source = Source('(module ;; x\n (; a (; b ;) ;) foo\n\t(@custom "n") $"id")')
    where = {source.tokens[k]: (source.line(k), source.offset(k)) for k in range(7)}
    text = source.text
    assert where["foo"] == (2, text.index("foo"))
    assert where["(@custom"] == (3, text.index("(@custom"))
    assert where["$id"] == (3, text.index('$"id"'))


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000,
        "(" * 1_000_000,
        "(;" * 500_000,
        "(;(;;);)" * 100_000,
        "(;;)" * 250_000,
        "(; ( ; " * 150_000,
        ";" * 1_000_000,
        '"' + "\\a" * 500_000,
        "a" * 1_000_000,
        "(@a" * 300_000,
        "(@a)" * 250_000,
        '$"a" ' * 200_000,
        'x"' * 500_000,
        "$" * 1_000_000,
    ],
    ids=lambda t: t[:8],
)
def test_time_is_linear_in_the_length_of_hostile_text(text: str) -> None:
    """Threat: a text that makes the lexer go over the same characters again and again. Anything worse than linear
    would take minutes on a megabyte; the bound only has to tell these apart."""
    start = time.process_time()
    with contextlib.suppress(ParseError):
        Source(text)
    assert time.process_time() - start < 20
