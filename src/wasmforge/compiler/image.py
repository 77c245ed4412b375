"""The ELF image of a compiled module: writer and reader.

`ImageBuilder` is used by the compilers' link step and by the gates; `Image` by everything that loads. A process that
maps an image imports this file and little else, so it needs no dataclasses and no regular expressions.

An image is an ELF64 relocatable file (ET_REL) with an OS/ABI number of its own: no program headers, no
relocations, every section at its final place in the file, so that loading is mapping. The machine code (`.text`)
starts at a page, the constants that it addresses relative to the program counter (`.rodata.text`) follow it
directly, and both are mapped as one piece. The checksum of everything else in the file stands in the last four bytes
of `e_ident`, which ELF leaves to us.
"""

from __future__ import annotations

from _imp import source_hash
from _struct import Struct

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

__all__ = [
    "Image",
    "ImageBuilder",
    "ADDRESS_MAP_SECTION",
    "DWARF_SECTION",
    "ENGINE_SECTION",
    "INFO_SECTION",
    "MEMORY_SECTION",
    "NAME_SECTION",
    "PAGE",
    "RODATA_TEXT_SECTION",
    "RODATA_WASM_SECTION",
    "TEXT_SECTION",
    "TRAP_SECTION",
    "checksum",
    "checksum_of",
]

TEXT_SECTION: Final = ".text"
RODATA_TEXT_SECTION: Final = ".rodata.text"
RODATA_WASM_SECTION: Final = ".rodata.wasm"
MEMORY_SECTION: Final = ".wasmforge.memory"
ADDRESS_MAP_SECTION: Final = ".wasmforge.addrmap"
TRAP_SECTION: Final = ".wasmforge.traps"
NAME_SECTION: Final = ".name.wasm"
DWARF_SECTION: Final = ".wasmforge.dwarf"
INFO_SECTION: Final = ".wasmforge.info"
ENGINE_SECTION: Final = ".wasmforge.engine"

PAGE: Final = 4096
"""Alignment of what is mapped: the text and the memory images."""

OSABI: Final = 200
"""`e_ident[EI_OSABI]`, the number that Wasmtime uses too: no system takes the file for one of its own."""

E_FLAGS_MODULE: Final = 1

_MAGIC: Final = b"\x7fELF"
_CHECKSUM_AT: Final = 12
_HEADER: Final = Struct("<4sBBBBB3xIHHIQQQIHHHHHH")
_SECTION: Final = Struct("<IIQQQQIIQQ")
_SYMBOL: Final = Struct("<IBBHQQ")
_CHECKSUM: Final = Struct("<I")

_ET_REL: Final = 1
_EM_X86_64: Final = 62
_SHT_PROGBITS: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_STRTAB: Final = 3
_SHF_ALLOC: Final = 2
_SHF_EXECINSTR: Final = 4
_STT_FUNC_GLOBAL: Final = 1 << 4 | 2


def _align(n: int, alignment: int) -> int:
    return n + alignment - 1 & -alignment


def checksum(*parts: bytes | bytearray | memoryview) -> int:
    """A checksum of 32 bits of some bytes, against damage and not against attack.

    It is SipHash, which the interpreter has built in for its own files; CRC-32 is slower by half, and the module
    that has it takes 0.4 ms to load.
    """
    return checksum_of(parts)


def checksum_of(parts: Iterable[bytes | bytearray | memoryview]) -> int:
    """`checksum` of parts of which each is valid until the next is asked for."""
    value = 0
    for part in parts:
        value = int.from_bytes(source_hash(value, part)[:4], "little")
    return value


def _checksum(data: bytes | bytearray | memoryview) -> int:
    view = memoryview(data)
    return checksum(view[:_CHECKSUM_AT], view[_CHECKSUM_AT + 4 :])


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
        out = bytearray(_HEADER.size)
        names = bytearray(b"\0")
        headers = [_SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
        self._sections_into(out, names, headers)
        self._symbols_into(out, names, headers)
        own_name = len(names)
        names += b".shstrtab\0"
        headers.append(_SECTION.pack(own_name, _SHT_STRTAB, 0, 0, len(out), len(names), 0, 0, 1, 0))
        out += names
        out += bytes(_align(len(out), 8) - len(out))
        table_at = len(out)
        out += b"".join(headers)
        count = len(headers)
        out[: _HEADER.size] = _HEADER.pack(
            *(_MAGIC, 2, 1, 1, OSABI, 0, 0, _ET_REL, _EM_X86_64, 1, 0, 0, table_at, E_FLAGS_MODULE),
            *(_HEADER.size, 0, 0, _SECTION.size, count, count - 1),
        )
        _CHECKSUM.pack_into(out, _CHECKSUM_AT, _checksum(out))
        return out

    def _sections_into(self, out: bytearray, names: bytearray, headers: list[bytes]) -> None:
        for name, data, alignment, flags in self._sections:
            start = _align(len(out), alignment)
            out += bytes(start - len(out))
            out += data
            headers.append(_SECTION.pack(len(names), _SHT_PROGBITS, flags, 0, start, len(data), 0, 0, alignment, 0))
            names += name.encode() + b"\0"
            if name == RODATA_TEXT_SECTION or (alignment == PAGE and name != TEXT_SECTION):
                out += bytes(_align(len(out), PAGE) - len(out))

    def _symbols_into(self, out: bytearray, names: bytearray, headers: list[bytes]) -> None:
        strings = bytearray(b"\0")
        table = bytearray(_SYMBOL.size)
        for name, offset, size in self._symbols:
            table += _SYMBOL.pack(len(strings), _STT_FUNC_GLOBAL, 0, 1, offset, size)
            strings += name.encode() + b"\0"
        out += bytes(_align(len(out), 8) - len(out))
        link = len(headers) + 1
        headers.append(_SECTION.pack(len(names), _SHT_SYMTAB, 0, 0, len(out), len(table), link, 1, 8, _SYMBOL.size))
        names += b".symtab\0"
        out += table
        headers.append(_SECTION.pack(len(names), _SHT_STRTAB, 0, 0, len(out), len(strings), 0, 0, 1, 0))
        names += b".strtab\0"
        out += strings


class Image:
    """A reader of an image in memory or of a mapped file.

    Raises `WasmtimeError` for anything that is not an undamaged image. Threat: a truncated or flipped cache file
    must never be mapped as code; the checksum covers every byte. (A *forged* image can run any machine code, as in
    Wasmtime: images are only loaded from where the embedder trusts.)

    `undamaged` leaves out the checksum, for the cache, which knows files that it has checked before.

    `text_offset` is the file offset of the machine code, a multiple of `PAGE`; `text_size` its length; `code_size` the
    length of the whole executable piece with its constants, also a multiple of `PAGE`.
    """

    __slots__ = ("_sections", "code_size", "data", "text_offset", "text_size")

    def __init__(self, data: bytes | bytearray | memoryview, *, undamaged: bool = False) -> None:
        self.data = memoryview(data).cast("B")
        table_at, count, names_index = self._check_header(undamaged)
        self._sections = self._read_sections(table_at, count, names_index)
        self.text_offset, self.text_size = self.section_range(TEXT_SECTION)
        constants_offset, constants_size = self.section_range(RODATA_TEXT_SECTION)
        self.code_size = _align(constants_offset + constants_size, PAGE) - self.text_offset
        if self.text_offset % PAGE or self.text_offset + self.code_size > len(self.data) or self.code_size < 0:
            raise WasmtimeError("damaged compiled module: the machine code is not page-aligned")

    def _check_header(self, undamaged: bool) -> tuple[int, int, int]:
        data = self.data
        size = len(data)
        if size < _HEADER.size or bytes(data[:4]) != _MAGIC:
            raise WasmtimeError("not a compiled module: the file does not start as an ELF file")
        fields = _HEADER.unpack_from(data)
        elf_class, order, osabi, check, kind, machine = (fields[k] for k in (1, 2, 4, 6, 7, 8))
        table_at, flags, entry, count, names = (fields[k] for k in (12, 13, 17, 18, 19))
        if elf_class != 2 or order != 1 or osabi != OSABI or kind != _ET_REL or flags != E_FLAGS_MODULE:
            raise WasmtimeError("not a compiled module: an ELF file, but not one that wasmforge wrote")
        if machine != _EM_X86_64:
            raise WasmtimeError(f"compiled module for another machine (ELF machine {machine}, here {_EM_X86_64})")
        if not undamaged and check != _checksum(data):
            raise WasmtimeError("damaged compiled module: its checksum does not match; compile the module again")
        if entry != _SECTION.size or table_at + count * entry > size or not names < count:
            raise WasmtimeError("damaged compiled module: the section table lies outside the file")
        return table_at, count, names

    def _read_sections(self, table_at: int, count: int, names_index: int) -> dict[str, tuple[int, int]]:
        data = self.data
        headers = list(_SECTION.iter_unpack(data[table_at : table_at + count * _SECTION.size]))
        names_at, names_size = headers[names_index][4:6]
        names = bytes(data[names_at : names_at + names_size])
        sections = {}
        for header in headers[1:]:
            start, size = header[4:6]
            end = names.find(b"\0", header[0])
            if start + size > len(data) or end < 0:
                raise WasmtimeError("damaged compiled module: a section lies outside the file")
            sections[names[header[0] : end].decode("utf-8", "replace")] = (start, size)
        return sections

    def has_section(self, name: str) -> bool:
        return name in self._sections

    def section_names(self) -> list[str]:
        return list(self._sections)

    def section_range(self, name: str) -> tuple[int, int]:
        """File offset and size of a section. Raises `WasmtimeError` if there is none of that name."""
        found = self._sections.get(name)
        if found is None:
            raise WasmtimeError(f"damaged compiled module: section {name} is missing")
        return found

    def section(self, name: str) -> memoryview:
        """The contents of a section, a view into `data`."""
        start, size = self.section_range(name)
        return self.data[start : start + size]

    def symbols(self) -> list[tuple[str, int, int]]:
        """Name, text offset and size of every symbol, in the order in which they were added."""
        strings = bytes(self.section(".strtab"))
        table = self.section(".symtab")
        if len(table) % _SYMBOL.size:
            raise WasmtimeError("damaged compiled module: the symbol table has a fraction of an entry")
        found = []
        for name, _, _, _, value, size in list(_SYMBOL.iter_unpack(table))[1:]:
            end = strings.find(b"\0", name)
            found.append((strings[name:end].decode("utf-8", "replace"), value, size))
        return found
