"""The machine code of an image, function by function, with what its tables know of each instruction. `objdump` and
`explore` print it; the disassembler is capstone, an extra of the package.
"""

from __future__ import annotations

from wasmforge.cli.errors import CommandError
from wasmforge.compiler.image import ADDRESS_MAP_SECTION, NAME_SECTION, TEXT_SECTION, TRAP_SECTION
from wasmforge.compiler.tables import address_map, function_names, trap_table
from wasmforge.syntax.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from wasmforge.compiler.image import Image
    from wasmforge.compiler.trap import TrapKind

__all__ = ["Function", "MachineInstruction", "functions", "instructions", "open_disassembler"]

_WASM: Final = "wasm[0]::function["


class Function(NamedTuple):
    """A piece of the text. `kind` is what `objdump --funcs` selects by; `number` is the function's index in its module,
    or None; `name` comes from the module and may hold anything."""

    symbol: str
    kind: str
    number: int | None
    name: str | None
    start: int
    size: int


class MachineInstruction(NamedTuple):
    """`offset` is that in the text; `position` the one of the WebAssembly instruction in the binary, if known; `trap`
    what a fault here would mean."""

    offset: int
    code: bytes
    text: str
    position: int | None
    trap: TrapKind | None


def open_disassembler() -> Any:
    """Capstone for x86-64, in the syntax that Wasmtime prints (AT&T).

    Raises CommandError when it is not installed."""
    try:
        import capstone
    except ImportError:
        raise CommandError(
            "the disassembler is not installed", ["capstone is missing: pip install 'wasmforge[objdump]'"]
        ) from None
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    disassembler.syntax = capstone.CS_OPT_SYNTAX_ATT
    disassembler.skipdata = True  # what is no instruction is shown as bytes, and does not end the listing
    return disassembler


def functions(image: Image) -> list[Function]:
    """What the image's symbols name, in the order of the text."""
    names = image.section(NAME_SECTION)
    found = []
    for symbol, start, size in image.symbols():
        index = None
        kind = "trampoline" if "_trampoline[" in symbol else "builtin"
        if symbol.startswith(_WASM):
            kind = "wasm"
            digits = symbol[len(_WASM) : -1]
            index = int(digits) if digits.isdecimal() and len(digits) < 11 else None
        name = None if index is None else function_names.lookup(names, index)
        found.append(Function(symbol, kind, index, name, start, size))
    return sorted(found, key=lambda function: function.start)


def instructions(image: Image, function: Function, disassembler: Any) -> Iterator[MachineInstruction]:
    """The instructions of a function."""
    positions = image.section(ADDRESS_MAP_SECTION) if image.has_section(ADDRESS_MAP_SECTION) else b""
    traps = image.section(TRAP_SECTION)
    code = bytes(image.section(TEXT_SECTION)[function.start : function.start + function.size])
    for address, size, mnemonic, operands in disassembler.disasm_lite(code, function.start):
        yield MachineInstruction(
            address,
            code[address - function.start :][:size],
            f"{mnemonic} {operands}".rstrip(),
            address_map.lookup(positions, address),
            trap_table.lookup(traps, address),
        )
