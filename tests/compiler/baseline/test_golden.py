"""What the compiler makes of a few small functions, as text to read. `python -m tests.compiler.baseline.test_golden`
writes the expectations anew: look at the difference before you commit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compiler.baseline.compiling import functions, instructions
from wasmforge.text import parse

GOLDEN = Path(__file__).parent / "golden"
SOURCES = sorted(p.stem for p in GOLDEN.glob("*.wat"))


def listing(source: str) -> str:
    names = parse(source).names
    assert names is not None
    parts = []
    for (_, name), function in zip(
        sorted((x, n) for x, n in names.functions.items() if n != "host"), functions(source), strict=True
    ):
        parts.append("\n".join([f"{name}:", *instructions(function.code)]))
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("name", SOURCES)
def test_golden(name: str) -> None:
    assert listing((GOLDEN / f"{name}.wat").read_text()) == (GOLDEN / f"{name}.s").read_text()


if __name__ == "__main__":
    for stem in SOURCES:
        (GOLDEN / f"{stem}.s").write_text(listing((GOLDEN / f"{stem}.wat").read_text()))
