"""`wasmforge explore`: one HTML page that shows a module's functions as text, as LLVM IR and as machine code side by
side. The page needs no network and no other file.
"""

from __future__ import annotations

import os

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUP_OPTIONS, parse_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmforge.compiler.llvm.context import ModuleContext
    from wasmforge.compiler.llvm.pool import Chunk
    from wasmforge.config import Config
    from wasmforge.engine import Engine
    from wasmforge.syntax.module import Module
    from wasmforge.validation import ModuleValidation

    Lines = list[tuple[str, int | None]]

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Shows a module, its LLVM IR and its machine code side by side in an HTML page"
USAGE = "wasmforge explore [OPTIONS] <MODULE>"
HELP = """\
The module is a file (binary or text), or - for standard input. Pointing at a line lights up what belongs to it in the
other columns, a click keeps it lit and scrolls there. The IR is what LLVM is given, the machine code what it makes."""

OPTIONS = (
    *GROUP_OPTIONS,
    Option("--output", "the page to write (default: the module's name with .explore.html)", short="-o", value="FILE"),
    Option("--target", "the machine to compile for; only this one is known", value="TRIPLE"),
)


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    settings = parse_groups(parsed)
    settings.refuse_others("explore", "fuel")
    if len(parsed.arguments) != 1:
        raise UsageError(f"expected one module, got {len(parsed.arguments)}")
    (path,) = parsed.arguments
    from wasmforge.cli.compile import check_target

    check_target(parsed.last("--target"))
    output = parsed.last("--output")
    if output is None:
        if path == "-":
            raise UsageError("a module from standard input needs --output")
        output = os.path.splitext(os.path.basename(path))[0] + ".explore.html"
    if settings.config.get("strategy", ("", "llvm"))[1] in ("baseline", "winch"):
        raise UsageError("`-C compiler=baseline` does not work with `wasmforge explore`: it shows what LLVM makes")
    config = settings.make_config()

    from wasmforge.cli.modules import read_file
    from wasmforge.syntax.errors import WasmtimeError

    try:
        page = _page(path, read_file(path), config)
    except (OSError, WasmtimeError) as error:
        raise CommandError.during(f"failed to explore `{path}`", error) from None
    try:
        with open(1 if output == "-" else output, "w", encoding="utf-8", closefd=output != "-") as file:
            file.write(page)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError.during(f"failed to write `{output}`", error) from None
    if output != "-":
        print(f"Exploration written to {output}")
    return 0


def _page(path: str, contents: bytes, config: Config) -> str:
    from wasmforge.binary import decode
    from wasmforge.cli.disassembly import functions, instructions, open_disassembler
    from wasmforge.cli.explore_page import page
    from wasmforge.cli.printable import shortened
    from wasmforge.compiler.availability import llvm_available
    from wasmforge.compiler.image import Image
    from wasmforge.engine import Engine
    from wasmforge.module import _to_wasm
    from wasmforge.text.printer import print_functions
    from wasmforge.validation import validate

    disassembler = open_disassembler()
    if not llvm_available():
        raise CommandError("LLVM is not installed", ["llvmlite is missing: pip install 'wasmforge[llvm]'"])
    engine = Engine(config)
    module = decode(_to_wasm(contents))
    facts = validate(module, engine._tunables.features)
    imported = len(module.all_functions()) - len(module.functions)
    columns: dict[int, tuple[Lines, Lines, Lines]] = {}
    for k, lines in enumerate(print_functions(module), imported):
        columns[k] = (lines, [], [])
    image_bytes, irs = _compile(engine, path, module, facts)
    from wasmforge.compiler.llvm.annotate import read_functions

    for ir in irs:
        for index, lines in read_functions(ir):
            columns[index][1].extend(lines)
    image = Image(image_bytes)
    names = {}
    for function in functions(image):
        if function.number is not None:
            name = f" {shortened(function.name)}" if function.name else ""
            names[function.number] = f"function {function.number}{name}"
            columns[function.number][2].extend(
                (f"{i.offset:>6x}:  {i.text}", i.position) for i in instructions(image, function, disassembler)
            )
    return page(shortened(os.path.basename(path)), [(names[index], columns[index]) for index in sorted(columns)])


def _compile(engine: Engine, path: str, module: Module, facts: ModuleValidation) -> tuple[bytes, list[str]]:
    """The image, and the IR of its chunks."""
    from wasmforge.cli.modules import Progress
    from wasmforge.compiler.llvm.annotate import annotated
    from wasmforge.compiler.llvm.compile import compile_module

    irs: list[str] = []

    def prepare(context: ModuleContext, chunk: Chunk) -> Chunk:
        chunk = annotated(context, chunk)
        irs.append(chunk.ir)
        return chunk

    with Progress(path) as progress:
        image = compile_module(
            module, facts, engine._tunables, workers=engine._workers, progress=progress.report, prepare=prepare
        )
    return image, irs
