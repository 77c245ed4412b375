"""Lays out the gates from LLVM's object file (`link`), so that nothing is left to relocate when the image is mapped but
the slots of what CPython and the C library export. `build.py` calls it.
"""

from __future__ import annotations

from _struct import pack_into, unpack_from

from wasmforge.runtime.native.image import PAGE, GatesImage
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["link"]

_SHF_WRITE: Final = 1
_SHF_ALLOC: Final = 2
_SHF_EXECINSTR: Final = 4
_SHT_SYMTAB: Final = 2
_SHT_RELA: Final = 4
_SHT_NOBITS: Final = 8
_RELATIVE: Final = frozenset({2, 4})  # R_X86_64_PC32, R_X86_64_PLT32
_SLOT: Final = frozenset({9, 41, 42})  # R_X86_64_GOTPCREL, GOTPCRELX, REX_GOTPCRELX


class _Object:
    """What linking needs of an ELF object file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        (section_table,) = unpack_from("<Q", data, 0x28)
        entry_size, count, names_index = unpack_from("<HHH", data, 0x3A)
        # name, type, flags, address, offset, size, link, info, alignment, entry size
        self.sections = [unpack_from("<IIQQQQIIQQ", data, section_table + i * entry_size) for i in range(count)]
        self.names = [self._string(self.sections[names_index][4] + s[0]) for s in self.sections]
        self.symbols: list[tuple[str, int, int]] = []  # name, section index, value
        for section in self.sections:
            if section[1] == _SHT_SYMTAB:
                strings = self.sections[section[6]][4]
                for at in range(section[4], section[4] + section[5], 24):
                    name, _info, _other, index, value, _size = unpack_from("<IBBHQQ", data, at)
                    self.symbols.append((self._string(strings + name), index, value))

    def _string(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def kept(self, writable: bool) -> list[int]:
        """Indices of the sections that are loaded, code first."""
        chosen = [
            i
            for i, s in enumerate(self.sections)
            if s[2] & _SHF_ALLOC
            and bool(s[2] & _SHF_WRITE) == writable
            and not self.names[i].startswith((".eh_frame", ".note"))
        ]
        return sorted(chosen, key=lambda i: not self.sections[i][2] & _SHF_EXECINSTR)


def _place(obj: _Object, indices: list[int], at: int, offsets: dict[int, int]) -> int:
    for i in indices:
        alignment = max(1, obj.sections[i][8])
        at = -(-at // alignment) * alignment
        offsets[i] = at
        at += obj.sections[i][5]
    return at


def link(data: bytes, key: bytes) -> GatesImage:
    """Lays out LLVM's object file and resolves its references.

    Raises WasmtimeError for a relocation that would have to be done again at each load, or an import without a slot.
    """
    obj = _Object(data)
    offsets: dict[int, int] = {}
    readable = obj.kept(writable=False)
    code_end = _place(obj, [i for i in readable if obj.sections[i][2] & _SHF_EXECINSTR], 0, offsets)
    end = _place(obj, [i for i in readable if i not in offsets], code_end, offsets)
    text_size = -(-end // PAGE) * PAGE

    imports: dict[str, int] = {}
    for relocation, _target, symbol in _relocations(obj, offsets):
        if relocation[1] in _SLOT and obj.symbols[symbol][1] == 0:
            imports.setdefault(obj.symbols[symbol][0], text_size + 8 * len(imports))
    writable = obj.kept(writable=True)
    for i in writable:
        if obj.sections[i][1] != _SHT_NOBITS and any(
            data[obj.sections[i][4] : obj.sections[i][4] + obj.sections[i][5]]
        ):
            raise WasmtimeError(
                f"the gates' variables in {obj.names[i]} must start as zero: the image has no data for them"
            )
    writable_end = _place(obj, writable, text_size + 8 * len(imports), offsets)

    image = bytearray(text_size)
    for i in readable:
        size = obj.sections[i][5]
        image[offsets[i] : offsets[i] + size] = data[obj.sections[i][4] : obj.sections[i][4] + size]
    special = {"text_start": 0, "text_end": code_end}
    symbols = dict(special)
    for name, index, value in obj.symbols:
        if name and index in offsets:
            symbols[name] = offsets[index] + value
    for (at, kind, addend), target, symbol in _relocations(obj, offsets):
        name, index, value = obj.symbols[symbol]
        if index in offsets:
            resolved = offsets[index] + value
        elif name in special:
            resolved = special[name]
        elif kind in _SLOT:
            resolved = imports[name]
        else:
            raise WasmtimeError(f"the gates refer to {name or obj.names[index]!r} other than through a slot")
        if kind in _SLOT and name not in imports:
            raise WasmtimeError(f"the gates want a slot for their own symbol {name!r}")
        if kind not in _RELATIVE and kind not in _SLOT:
            raise WasmtimeError(f"relocation type {kind} of {name!r} needs the load address")
        pack_into("<i", image, target + at, resolved + addend - (target + at))
    return GatesImage(key, bytes(image), -(-(writable_end - text_size) // PAGE) * PAGE, imports, symbols)


def _relocations(obj: _Object, offsets: dict[int, int]) -> list[tuple[tuple[int, int, int], int, int]]:
    """((offset, type, addend), offset of the section in the image, symbol index) of every loaded section."""
    found = []
    for section in obj.sections:
        if section[1] == _SHT_RELA and section[7] in offsets:
            for at in range(section[4], section[4] + section[5], 24):
                offset, info, addend = unpack_from("<QQq", obj.data, at)
                found.append(((offset, info & 0xFFFFFFFF, addend), offsets[section[7]], info >> 32))
    return found
