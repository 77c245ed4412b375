"""Writes the ELF image of a compiled module, of which `image.py` has the form and the reader. The compilers' link step
uses it, and the cache for what a module has grown to.
"""

from __future__ import annotations

from wasmforge.compiler.image import (
    CHECKSUM,
    CHECKSUM_AT,
    E_FLAGS_MODULE,
    EM_X86_64,
    ET_REL,
    HEADER,
    MAGIC,
    OSABI,
    PAGE,
    RODATA_TEXT_SECTION,
    SECTION,
    SYMBOL,
    TEXT_SECTION,
    align,
    file_checksum,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["ImageBuilder"]

_SHT_PROGBITS: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_STRTAB: Final = 3
_SHF_ALLOC: Final = 2
_SHF_EXECINSTR: Final = 4
_STT_FUNC_GLOBAL: Final = 1 << 4 | 2


class ImageBuilder:
    """Collects sections and symbols, then writes the file. Sections keep the order in which they were added."""

    def __init__(self) -> None:
        self._sections: list[tuple[str, bytes | bytearray | memoryview, int, int]] = []
        self._symbols: list[tuple[str, int, int]] = []

    def add_text(self, text: bytes | bytearray | memoryview, constants: bytes | bytearray, constants_at: int) -> None:
        """The machine code and, `constants_at` bytes behind its first byte, what it addresses relative to itself.

        Comes before all other sections, so that the code starts at the file's second page.
        """
        if self._sections or not len(text) <= constants_at < len(text) + PAGE or constants_at % 64:
            raise ValueError("the text comes first, its constants right behind it, aligned to a cache line")
        self._sections.append((TEXT_SECTION, text, PAGE, _SHF_ALLOC | _SHF_EXECINSTR))
        self._sections.append((RODATA_TEXT_SECTION, constants, 64, _SHF_ALLOC))

    def add_section(self, name: str, data: bytes | bytearray | memoryview, alignment: int = 8) -> None:
        """Adds a section. One aligned to `PAGE` is also padded to whole pages, so that it can be mapped alone."""
        self._sections.append((name, data, alignment, _SHF_ALLOC))

    def add_symbol(self, name: str, offset: int, size: int) -> None:
        """Names `size` bytes of the text for debuggers, profilers and disassemblers."""
        self._symbols.append((name, offset, size))

    def build(self) -> bytes:
        """The file. The same calls give the same bytes."""
        return bytes(self.assemble())

    def assemble(self) -> bytearray:
        """As `build`, without a copy of megabytes at the end."""
        out = bytearray(HEADER.size)
        names = bytearray(b"\0")
        headers = [SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
        self._sections_into(out, names, headers)
        self._symbols_into(out, names, headers)
        own_name = len(names)
        names += b".shstrtab\0"
        headers.append(SECTION.pack(own_name, _SHT_STRTAB, 0, 0, len(out), len(names), 0, 0, 1, 0))
        out += names
        out += bytes(align(len(out), 8) - len(out))
        table_at = len(out)
        out += b"".join(headers)
        count = len(headers)
        out[: HEADER.size] = HEADER.pack(
            *(MAGIC, 2, 1, 1, OSABI, 0, 0, ET_REL, EM_X86_64, 1, 0, 0, table_at, E_FLAGS_MODULE),
            *(HEADER.size, 0, 0, SECTION.size, count, count - 1),
        )
        CHECKSUM.pack_into(out, CHECKSUM_AT, file_checksum(out))
        return out

    def _sections_into(self, out: bytearray, names: bytearray, headers: list[bytes]) -> None:
        for name, data, alignment, flags in self._sections:
            start = align(len(out), alignment)
            out += bytes(start - len(out))
            out += data
            headers.append(SECTION.pack(len(names), _SHT_PROGBITS, flags, 0, start, len(data), 0, 0, alignment, 0))
            names += name.encode() + b"\0"
            if name == RODATA_TEXT_SECTION or (alignment == PAGE and name != TEXT_SECTION):
                out += bytes(align(len(out), PAGE) - len(out))

    def _symbols_into(self, out: bytearray, names: bytearray, headers: list[bytes]) -> None:
        strings = bytearray(b"\0")
        table = bytearray(SYMBOL.size)
        for name, offset, size in self._symbols:
            table += SYMBOL.pack(len(strings), _STT_FUNC_GLOBAL, 0, 1, offset, size)
            strings += name.encode() + b"\0"
        out += bytes(align(len(out), 8) - len(out))
        link = len(headers) + 1
        headers.append(SECTION.pack(len(names), _SHT_SYMTAB, 0, 0, len(out), len(table), link, 1, 8, SYMBOL.size))
        names += b".symtab\0"
        out += table
        headers.append(SECTION.pack(len(names), _SHT_STRTAB, 0, 0, len(out), len(strings), 0, 0, 1, 0))
        names += b".strtab\0"
        out += strings
