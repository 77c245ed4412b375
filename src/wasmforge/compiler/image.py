"""The ELF image of a compiled module: its form, and its reader `Image`, which everything uses that loads. The writer is
`image_builder.py`. A process that maps an image imports this file and little else.

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
    "ADDRESS_MAP_SECTION",
    "CHECKSUM",
    "CHECKSUM_AT",
    "DWARF_SECTION",
    "EM_X86_64",
    "ENGINE_SECTION",
    "ET_REL",
    "E_FLAGS_MODULE",
    "HEADER",
    "INFO_SECTION",
    "Image",
    "MAGIC",
    "MEMORY_SECTION",
    "NAME_SECTION",
    "OSABI",
    "PAGE",
    "RODATA_TEXT_SECTION",
    "RODATA_WASM_SECTION",
    "SECTION",
    "SYMBOL",
    "TEXT_SECTION",
    "TRAP_SECTION",
    "align",
    "checksum",
    "checksum_of",
    "file_checksum",
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

MAGIC: Final = b"\x7fELF"
CHECKSUM_AT: Final = 12
HEADER: Final = Struct("<4sBBBBB3xIHHIQQQIHHHHHH")
SECTION: Final = Struct("<IIQQQQIIQQ")
SYMBOL: Final = Struct("<IBBHQQ")
CHECKSUM: Final = Struct("<I")

ET_REL: Final = 1
EM_X86_64: Final = 62


def align(n: int, alignment: int) -> int:
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


def file_checksum(data: bytes | bytearray | memoryview) -> int:
    view = memoryview(data)
    return checksum(view[:CHECKSUM_AT], view[CHECKSUM_AT + 4 :])


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
        self.code_size = align(constants_offset + constants_size, PAGE) - self.text_offset
        if self.text_offset % PAGE or self.text_offset + self.code_size > len(self.data) or self.code_size < 0:
            raise WasmtimeError("damaged compiled module: the machine code is not page-aligned")

    def _check_header(self, undamaged: bool) -> tuple[int, int, int]:
        data = self.data
        size = len(data)
        if size < HEADER.size or bytes(data[:4]) != MAGIC:
            raise WasmtimeError("not a compiled module: the file does not start as an ELF file")
        fields = HEADER.unpack_from(data)
        elf_class, order, osabi, check, kind, machine = (fields[k] for k in (1, 2, 4, 6, 7, 8))
        table_at, flags, entry, count, names = (fields[k] for k in (12, 13, 17, 18, 19))
        if elf_class != 2 or order != 1 or osabi != OSABI or kind != ET_REL or flags != E_FLAGS_MODULE:
            raise WasmtimeError("not a compiled module: an ELF file, but not one that wasmforge wrote")
        if machine != EM_X86_64:
            raise WasmtimeError(f"compiled module for another machine (ELF machine {machine}, here {EM_X86_64})")
        if not undamaged and check != file_checksum(data):
            raise WasmtimeError("damaged compiled module: its checksum does not match; compile the module again")
        if entry != SECTION.size or table_at + count * entry > size or not names < count:
            raise WasmtimeError("damaged compiled module: the section table lies outside the file")
        return table_at, count, names

    def _read_sections(self, table_at: int, count: int, names_index: int) -> dict[str, tuple[int, int]]:
        data = self.data
        headers = list(SECTION.iter_unpack(data[table_at : table_at + count * SECTION.size]))
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
        if len(table) % SYMBOL.size:
            raise WasmtimeError("damaged compiled module: the symbol table has a fraction of an entry")
        found = []
        for name, _, _, _, value, size in list(SYMBOL.iter_unpack(table))[1:]:
            end = strings.find(b"\0", name)
            found.append((strings[name:end].decode("utf-8", "replace"), value, size))
        return found
