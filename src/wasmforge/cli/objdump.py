"""`wasmforge objdump`: the machine code of an image, or of a module that it compiles, with the instructions of the
module that it comes from and the traps that it may raise.
"""

from __future__ import annotations

import sys

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUP_OPTIONS, _boolean, parse_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Final

    from wasmforge.cli.disassembly import Function, MachineInstruction
    from wasmforge.cli.options import Parsed
    from wasmforge.compiler.image import Image
    from wasmforge.config import Config

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Disassembles a compiled module"
USAGE = "wasmforge objdump [OPTIONS] [FILE]"
HELP = """\
FILE is an image made by `wasmforge compile`, which is read and not run, or a module (binary or text), which is compiled
first; standard input when it is missing, or -. Lines with ╭ say which instruction of the module the following ones
come from (its offset in the binary), lines with ╰ which trap a fault of the instruction above means."""

_ABSENT: Final = "images have no such table"
OPTIONS = (
    *GROUP_OPTIONS,
    Option("--addresses", "show the address of every instruction"),
    Option("--address-jumps", "show the addresses that jumps lead to, and no others"),
    Option("--address-width", "columns for the addresses (default: 10)", value="N"),
    Option("--bytes", "show the bytes of every instruction"),
    Option("--funcs", "all, wasm (the default), trampoline, builtin or libcall", value="KIND"),
    Option("--filter", "only functions whose name contains this", value="STR"),
    Option("--color", "auto (the default), always or never", value="WHEN"),
    Option("--addrmap", "y or n: show which instructions of the module they come from (default: y)", value="BOOL"),
    Option("--traps", "y or n: show which traps a fault means (default: y)", value="BOOL"),
    Option("--stack-maps", "", value="BOOL", unsupported=_ABSENT),
    Option("--exception-tables", "", value="BOOL", unsupported=_ABSENT),
    Option("--frame-tables", "", value="BOOL", unsupported=_ABSENT),
)

KINDS: Final = ("all", "wasm", "trampoline", "builtin", "libcall")
_BYTES_COLUMN: Final = 30
_RESET: Final = "\x1b[0m"
_COLORS: Final = {"name": "\x1b[1m", "address": "\x1b[2m", "position": "\x1b[36m", "trap": "\x1b[31m"}


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    settings = parse_groups(parsed)
    settings.refuse_others("objdump", "fuel")
    if len(parsed.arguments) > 1:
        raise UsageError(f"unexpected argument '{parsed.arguments[1]}' found")
    style = _Style(parsed)
    kind = _choice(parsed, "--funcs", KINDS, "wasm")
    wanted = parsed.last("--filter") or ""
    config = settings.make_config()

    from wasmforge.cli.disassembly import functions, instructions, open_disassembler
    from wasmforge.syntax.errors import WasmtimeError

    disassembler = open_disassembler()
    path = parsed.arguments[0] if parsed.arguments else "-"
    try:
        image = _open_image(path, config, [option for option, _ in settings.config.values()])
        first = True
        for function in functions(image):
            if kind not in ("all", function.kind) or wanted not in f"{function.symbol}::{function.name or ''}":
                continue
            if not first:
                print()
            first = False
            for line in style.function(function, list(instructions(image, function, disassembler))):
                print(line)
    except BrokenPipeError:
        raise  # whoever reads has seen enough
    except (OSError, WasmtimeError) as error:
        raise CommandError.during(f"failed to disassemble `{path}`", error) from None
    return 0


def _open_image(path: str, config: Config, options: Sequence[str]) -> Image:
    """The image in a file, or that of the module in it. Raises UsageError for `options` with an image, which has been
    compiled already."""
    from wasmforge.cli.modules import ELF_MAGIC, compile_contents, read_file
    from wasmforge.compiler.image import Image

    contents = read_file(path)
    if contents.startswith(ELF_MAGIC):
        if options:
            raise UsageError(f"`{options[0]}` does not work with an image: it is compiled already")
        return Image(contents)
    from wasmforge.engine import Engine

    return Image(compile_contents(Engine(config), path, contents))


def _choice(parsed: Parsed, name: str, choices: Sequence[str], default: str) -> str:
    value = parsed.last(name) or default
    if value not in choices:
        raise UsageError(f"invalid value '{value}' for '{name}': expected one of {', '.join(choices)}")
    return value


class _Style:
    """What is shown, and how."""

    def __init__(self, parsed: Parsed) -> None:
        self._addresses = parsed.flag("--addresses")
        self._jumps = parsed.flag("--address-jumps")
        self._bytes = parsed.flag("--bytes")
        self._positions = _boolean("--addrmap", parsed.last("--addrmap"))
        self._traps = _boolean("--traps", parsed.last("--traps"))
        width = parsed.last("--address-width") or "10"
        if not width.isdecimal() or not 1 <= len(width) <= 2:
            raise UsageError(f"invalid value '{width}' for '--address-width': expected a number of columns below 100")
        self._width = int(width)
        when = _choice(parsed, "--color", ("auto", "always", "never"), "auto")
        import os

        self._color = when == "always" or (when == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))

    def _paint(self, what: str, text: str) -> str:
        return f"{_COLORS[what]}{text}{_RESET}" if self._color else text

    def function(self, function: Function, code: Sequence[MachineInstruction]) -> Iterator[str]:
        """The lines of a function."""
        from wasmforge.cli.printable import shortened

        name = function.symbol + (f"::{shortened(function.name)}" if function.name else "")
        yield self._paint("name", name) + ":"
        targets = _jump_targets(code) if self._jumps else frozenset()
        indent = " " * (self._width + 1)
        position = trap = None
        for instruction in code:
            if self._positions and instruction.position not in (None, position):
                yield indent + self._paint("position", f"╭─╼ addrmap: {instruction.position:#x}")
            position = instruction.position
            yield self._instruction(instruction, targets)
            if self._traps and instruction.trap not in (None, trap):
                yield indent + self._paint("trap", f"╰─╼ trap: {_trap_name(instruction.trap)}")
            trap = instruction.trap

    def _instruction(self, instruction: MachineInstruction, targets: frozenset[int]) -> str:
        shown = instruction.offset in targets if self._jumps else self._addresses
        line = self._paint("address", f"{instruction.offset:>{self._width}x}:") if shown else " " * (self._width + 1)
        if self._bytes:
            line += f" {instruction.code.hex(' '):<{_BYTES_COLUMN}}"
        return f"{line} {instruction.text}"


def _jump_targets(code: Iterable[MachineInstruction]) -> frozenset[int]:
    found = set()
    for instruction in code:
        mnemonic, _, operand = instruction.text.partition(" ")
        if mnemonic.startswith("j") and operand.startswith("0x"):
            found.add(int(operand, 16))
    return frozenset(found)


def _trap_name(trap: object) -> str:
    """Wasmtime's spelling: MemoryOutOfBounds."""
    return "".join(word.capitalize() for word in getattr(trap, "name", str(trap)).split("_"))
