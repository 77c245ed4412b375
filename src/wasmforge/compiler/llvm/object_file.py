"""A reader of the ELF objects that LLVM writes: just what position-independent x86-64 code without data consists of.

The worker parses each object and hands its text, its constants and what is left to relocate to the parent's link step.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from wasmforge.syntax.errors import WasmtimeError

__all__ = ["IN_TEXT", "TO_SYMBOL", "ObjectFile", "Relocation", "parse_object"]

_SECTION: Final = Struct("<IIQQQQIIQQ")
_SYMBOL: Final = Struct("<IBBHQQ")
_RELOCATION: Final = Struct("<QQq")

_SHF_ALLOC: Final = 2
_SHF_EXECINSTR: Final = 4
_SHF_WRITE: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_RELA: Final = 4
_SHT_NOBITS: Final = 8
_R_X86_64_64: Final = 1
_R_X86_64_PC32: Final = 2
_R_X86_64_PLT32: Final = 4
_STT_FUNC: Final = 2
_CONSTANT_ALIGNMENT: Final = 64

IN_TEXT: Final = 0
IN_CONSTANTS: Final = 1
TO_SYMBOL: Final = 2


class Relocation(NamedTuple):
    """A 32-bit field relative to itself that still needs its value: `target + addend - place`.

    `place_in` says whether `place` is an offset in the text or in the constants; `target_in` whether `target` is
    one of these, or (`TO_SYMBOL`) the number of an undefined symbol in `ObjectFile.undefined`.
    """

    place_in: int
    place: int
    target_in: int
    target: int
    addend: int


class ObjectFile(NamedTuple):
    """`functions` are `(name, text offset, size)`; `line_program` is the contents of `.debug_line` (may be empty), in
    which `line_addresses` gives the text offsets for the 8-byte addresses at some positions."""

    text: bytearray
    constants: bytearray
    functions: list[tuple[str, int, int]]
    undefined: list[str]
    relocations: list[Relocation]
    line_program: bytes
    line_addresses: dict[int, int]


def parse_object(data: bytes) -> ObjectFile:
    """Splits an object. Calls inside its text are resolved already; everything else that is relative is returned.

    Raises `WasmtimeError` for anything that code of this compiler must not contain: writable data, absolute
    addresses, more than one text section.
    """
    return _Parser(data).parse()


class _Parser:
    def __init__(self, data: bytes) -> None:
        self.data = data
        table_at = int.from_bytes(data[0x28:0x30], "little")
        count = int.from_bytes(data[0x3C:0x3E], "little")
        names_index = int.from_bytes(data[0x3E:0x40], "little")
        self.headers = [_SECTION.unpack_from(data, table_at + _SECTION.size * k) for k in range(count)]
        self.names = [self.string(self.headers[names_index][4] + h[0]) for h in self.headers]
        self.text_index = -1
        self.constants_at: dict[int, int] = {}  # section index to its offset among the constants
        self.constants = bytearray()

    def string(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def contents(self, index: int) -> bytes:
        header = self.headers[index]
        return b"" if header[1] == _SHT_NOBITS else self.data[header[4] : header[4] + header[5]]

    def parse(self) -> ObjectFile:
        self.place_sections()
        text = bytearray(self.contents(self.text_index)) if self.text_index >= 0 else bytearray()
        symbols, functions = self.symbols()
        undefined: dict[str, int] = {}
        relocations: list[Relocation] = []
        line_addresses: dict[int, int] = {}
        line_program = b""
        for k, header in enumerate(self.headers):
            if self.names[k] == ".debug_line":
                line_program = self.contents(k)
            if header[1] != _SHT_RELA:
                continue
            target = header[7]
            if target == self.text_index or target in self.constants_at:
                self.relocate(k, target, symbols, text, undefined, relocations)
            elif self.names[target] == ".debug_line":
                for place, info, addend in _RELOCATION.iter_unpack(self.contents(k)):
                    _, section, value = symbols[info >> 32]
                    if info & 0xFFFF_FFFF == _R_X86_64_64 and section == self.text_index:
                        line_addresses[place] = value + addend
        return ObjectFile(text, self.constants, functions, list(undefined), relocations, line_program, line_addresses)

    def place_sections(self) -> None:
        """Finds the text and lays the constants out, the widest alignment first."""
        constants = []
        for k, header in enumerate(self.headers):
            flags, size = header[2], header[5]
            if not flags & _SHF_ALLOC or size == 0 or self.names[k].startswith(".note"):
                continue
            if flags & _SHF_WRITE or (flags & _SHF_EXECINSTR and self.text_index >= 0):
                raise WasmtimeError(f"compiler bug: the object has an unexpected section {self.names[k]}")
            if flags & _SHF_EXECINSTR:
                self.text_index = k
            elif not self.names[k].startswith(".eh_frame"):
                constants.append((-header[8], k))
        for negative_alignment, k in sorted(constants):
            alignment = min(-negative_alignment or 1, _CONSTANT_ALIGNMENT)
            self.constants += bytes(-len(self.constants) % alignment)
            self.constants_at[k] = len(self.constants)
            self.constants += self.contents(k)

    def symbols(self) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]:
        """All symbols as (name, section, value), and the functions."""
        symbols = []
        functions = []
        for header in self.headers:
            if header[1] != _SHT_SYMTAB:
                continue
            strings = self.headers[header[6]][4]
            table = self.data[header[4] : header[4] + header[5]]
            for name_at, info, _, section, value, size in _SYMBOL.iter_unpack(table):
                name = self.string(strings + name_at)
                symbols.append((name, section, value))
                if info & 15 == _STT_FUNC and section == self.text_index:
                    functions.append((name, value, size))
        return symbols, functions

    def relocate(
        self,
        index: int,
        target_section: int,
        symbols: list[tuple[str, int, int]],
        text: bytearray,
        undefined: dict[str, int],
        relocations: list[Relocation],
    ) -> None:
        in_text = target_section == self.text_index
        base = 0 if in_text else self.constants_at[target_section]
        for place, info, addend in _RELOCATION.iter_unpack(self.contents(index)):
            kind = info & 0xFFFF_FFFF
            name, section, value = symbols[info >> 32]
            if kind not in (_R_X86_64_PC32, _R_X86_64_PLT32):
                raise WasmtimeError(f"compiler bug: relocation of kind {kind} against {name or section}")
            if section == self.text_index and in_text:
                difference = value + addend - place
                text[place : place + 4] = difference.to_bytes(4, "little", signed=True)
                continue
            if section == 0:
                target_in, target = TO_SYMBOL, undefined.setdefault(name, len(undefined))
            elif section == self.text_index:
                target_in, target = IN_TEXT, value
            else:
                target_in, target = IN_CONSTANTS, self.constants_at[section] + value
            place_in = IN_TEXT if in_text else IN_CONSTANTS
            relocations.append(Relocation(place_in, base + place, target_in, target, addend))
