"""Golden tests of the translator: the LLVM IR for small functions, readable as a description of how each kind of
instruction is compiled.

The cases stand in `golden/*.txt`, a title, the body as text, and the expected IR each. After a deliberate change of
the translator run `WASMFORGE_UPDATE_GOLDEN=1 python -m pytest tests/compiler/test_golden_ir.py` and review the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.llvm.context import ModuleContext
from wasmforge.compiler.llvm.translate import FunctionSource, translate
from wasmforge.text import parse
from wasmforge.validation import validate

GOLDEN = Path(__file__).parent / "golden"

PREAMBLE = """
  (type $t (func (param i32) (result i32)))
  (import "env" "f" (func $imported (type $t)))
  (memory 1) (table $table 4 funcref) (table $externs 4 externref)
  (global $g (mut i32) (i32.const 0))
  (func $other (type $t) local.get 0)
  (elem declare func $other)
  (data $d "passive")
"""


def cases() -> list[tuple[Path, str, str, str]]:
    found = []
    for path in sorted(GOLDEN.glob("*.txt")):
        for block in re.split(r"^=== ", path.read_text(), flags=re.M)[1:]:
            title, rest = block.split("\n", 1)
            source, _, expected = rest.partition("---\n")
            found.append((path, title.strip(), source, expected))
    return found


def translated(source: str) -> str:
    """The IR of the last function of the source; without the offsets of the vmctx's arrays, which have tests of
    their own, and with debug locations in short."""
    module = parse(f"(module {PREAMBLE} {source})")
    facts = validate(module)
    context = ModuleContext.of(module, sorted(facts.escaping), facts.tail_callers, facts.changed_tables, Tunables())
    index = len(context.functions) - 1
    body = module.code[-1]
    local_types = tuple((n, int(t)) for n, t in body.locals)
    ft = context.types[context.functions[index]]
    text = translate(FunctionSource(index, ft, local_types, body.code, body.offset), context, 10, {})
    return re.sub(r"!dbg !DILocation\(line: (\d+), column: (\d+), scope: !10\)", r"!dbg \1:\2", text)


def write(path: Path) -> None:
    blocks = [f"=== {title}\n{source}---\n{translated(source)}" for p, title, source, _ in cases() if p == path]
    path.write_text("".join(blocks))


@pytest.mark.parametrize(("path", "title", "source", "expected"), cases(), ids=lambda v: v if len(str(v)) < 50 else "")
def test_golden(path: Path, title: str, source: str, expected: str) -> None:
    if os.environ.get("WASMFORGE_UPDATE_GOLDEN"):
        write(path)
        return
    assert translated(source) == expected, f"{path.name}: {title} (see this file's docstring)"


def test_there_are_cases() -> None:
    assert len(cases()) > 10
