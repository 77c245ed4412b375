"""The modules that the specification suite gives as bytes, taken from its scripts without the text front end.

`(module binary "...")` strings are found by a scanner for strings, comments and parentheses, so that the decoder
can be tested against the official files on its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ESCAPES = {"t": b"\t", "n": b"\n", "r": b"\r", '"': b'"', "'": b"'", "\\": b"\\"}


@dataclass
class SuiteBinary:
    """One `(module binary ...)`: what the script asserts of it ("valid", "malformed", "invalid", ...)."""

    file: str
    line: int
    assertion: str
    data: bytes
    text: str


def suite_folder() -> Path:
    """The folder of the specification suite, or a skip that says how to get it."""
    root = os.environ.get("WASMFORGE_TESTSUITES") or Path(__file__).parents[3] / "shared" / "testsuites"
    folder = Path(root) / "spec"
    if not folder.is_dir():
        pytest.skip(
            "no specification suite: clone github.com/WebAssembly/testsuite at 193e551 into $WASMFORGE_TESTSUITES/spec"
        )
    return folder


def suite_binaries(path: Path) -> Iterator[SuiteBinary]:
    """All binary modules of one script, in order."""
    source = path.read_text(encoding="utf-8", errors="surrogateescape")
    for start, tokens in _top_level_forms(source):
        words = [t for t in tokens if isinstance(t, str)]
        strings = [t for t in tokens if isinstance(t, bytes)]
        if "binary" not in words[:4]:
            continue
        line = source.count("\n", 0, start) + 1
        if words[0] == "module":
            yield SuiteBinary(path.name, line, "valid", b"".join(strings), "")
        elif words[0].startswith("assert_"):
            yield SuiteBinary(path.name, line, words[0][7:], b"".join(strings[:-1]), strings[-1].decode())


def _top_level_forms(source: str) -> Iterator[tuple[int, list[str | bytes]]]:
    """The tokens of every top-level form: words as str, strings as their bytes; parentheses are left out."""
    at = 0
    depth = 0
    start = 0
    tokens: list[str | bytes] = []
    while at < len(source):
        char = source[at]
        if source.startswith(";;", at):
            at = source.find("\n", at) + 1 or len(source)
        elif source.startswith("(;", at):
            at = source.index(";)", at) + 2
        elif char == '"':
            value, at = _string(source, at + 1)
            tokens.append(value)
        elif char in "()":
            if char == "(" and depth == 0:
                start, tokens = at, []
            depth += 1 if char == "(" else -1
            at += 1
            if depth == 0 and tokens:
                yield start, tokens
        elif char.isspace():
            at += 1
        else:
            end = at
            while end < len(source) and not source[end].isspace() and source[end] not in '()";':
                end += 1
            tokens.append(source[at : max(end, at + 1)])
            at = max(end, at + 1)


def _string(source: str, at: int) -> tuple[bytes, int]:
    out = bytearray()
    while source[at] != '"':
        if source[at] != "\\":
            out += source[at].encode("utf-8", "surrogateescape")
            at += 1
        elif source[at + 1] in _ESCAPES:
            out += _ESCAPES[source[at + 1]]
            at += 2
        elif source[at + 1] == "u":
            end = source.index("}", at)
            out += chr(int(source[at + 3 : end], 16)).encode("utf-8", "surrogatepass")
            at = end + 1
        else:
            out.append(int(source[at + 1 : at + 3], 16))
            at += 3
    return bytes(out), at + 1
