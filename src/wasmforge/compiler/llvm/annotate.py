"""LLVM IR in which every instruction carries a debug location, for people who want to see what became of a module
(`wasmforge explore`). What is compiled to run has locations only where it may trap or call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from wasmforge.compiler.llvm.context import ModuleContext
from wasmforge.compiler.llvm.pool import Chunk
from wasmforge.compiler.llvm.prototype import Prototype
from wasmforge.compiler.llvm.translate import FunctionSource, _Translator
from wasmforge.compiler.llvm.worker import chunk_ir
from wasmforge.syntax.types import FuncType

__all__ = ["annotated", "read_functions"]

_LOCATION: Final = re.compile(r", !dbg !DILocation\(line: (\d+), column: \d+, scope: !\d+\)")
_DEFINITION: Final = re.compile(r"define .* @f(\d+)\(")


def annotated(context: ModuleContext, chunk: Chunk) -> Chunk:
    """The chunk with its IR, for `compile_module(prepare=...)`. Locations do not change the machine code."""
    ir = chunk_ir(context, chunk.functions, chunk.trampolines, chunk.pipeline, _translate)
    return chunk._replace(ir=ir)


def read_functions(ir: str) -> Iterator[tuple[int, list[tuple[str, int | None]]]]:
    """The functions of annotated IR: index, and the lines without their locations, each with the position in the binary
    of the instruction that it comes from."""
    index = -1
    lines: list[tuple[str, int | None]] = []
    for line in ir.split("\n"):
        definition = _DEFINITION.match(line)
        if definition is not None:
            index = int(definition.group(1))
            line = re.sub(r" !dbg !\d+", "", line)
        if index < 0:
            continue
        location = _LOCATION.search(line)
        position = int(location.group(1)) - 1 if location is not None else None
        lines.append((_LOCATION.sub("", line), position))
        if line == "}":
            yield index, lines
            index, lines = -1, []


class _Output(list[str]):
    """What the translator appends to, which notes for which instruction that is."""

    def __init__(self, translator: _Translator) -> None:
        super().__init__()
        self.translator = translator
        self.locations: list[str] = []

    def append(self, text: str) -> None:
        super().append(text)
        self.locations.append(self.translator.here())


def _translate(
    source: FunctionSource,
    context: ModuleContext,
    scope: int,
    prototypes: dict[FuncType, Prototype],
    short_blocks: bool = False,
) -> str:
    """As `translate`, with locations."""
    translator = _Translator(source, context, scope, prototypes, short_blocks)
    output = translator.out = _Output(translator)
    plain = translator.run()
    body = "\n".join(output) + "\n}\n"
    assert plain.endswith(body)
    # What joined the output as a whole (`late`) has no note, and belongs to no single instruction.
    lines: list[str] = []
    for k, text in enumerate(output):
        known = _LOCATION.search(text)  # the site of a trap is several lines, and only its call has a location
        location = known.group() if known is not None else output.locations[k] if k < len(output.locations) else ""
        lines += [_with_location(line, location) for line in text.split("\n")]
    return plain[: -len(body)] + "\n".join(lines) + "\n}\n"


def _with_location(line: str, location: str) -> str:
    """Instructions are indented; labels are not, and the cases of a switch more."""
    if not line.startswith("  ") or "!dbg" in line or line.endswith("["):
        return line
    return line if line.startswith("    ") and not line.endswith(" ]") else line + location
