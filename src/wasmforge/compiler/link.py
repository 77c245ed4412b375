"""The link step: machine code and table rows of all chunks to one image. Both compilers end here.

Text of all chunks comes first, their constants behind it; what is relative between them is resolved, so that nothing is
left to relocate. The module record with everything that the runtime wants to know is made here too.
"""

from __future__ import annotations

from array import array
from struct import pack_into

from wasmforge.compiler.compatibility import encode_engine
from wasmforge.compiler.description import describe, lay_out_data
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import (
    ADDRESS_MAP_SECTION,
    DWARF_SECTION,
    ENGINE_SECTION,
    INFO_SECTION,
    MEMORY_SECTION,
    NAME_SECTION,
    PAGE,
    RODATA_WASM_SECTION,
    TRAP_SECTION,
)
from wasmforge.compiler.image_builder import ImageBuilder
from wasmforge.compiler.info import CodeRange, CompiledModuleInfo
from wasmforge.compiler.tables import address_map, function_names, trap_table
from wasmforge.compiler.target import host_level
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import Module
from wasmforge.syntax.types import ExternKind, FuncType, machine_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = ["canonical_types", "link"]

_CHUNK_ALIGNMENT: Final = 64
_TEXT_LIMIT: Final = 1 << 30
"""Relative 32-bit distances reach 2 GiB; half of it leaves room for the constants."""


def canonical_types(types: list[FuncType]) -> list[int]:
    """For every type index the first one with the same signature, as far as machine code tells types apart."""
    first: dict[FuncType, int] = {}
    return [first.setdefault(machine_signature(ft), x) for x, ft in enumerate(types)]


def link(
    module: Module,
    func_refs: list[int],
    chunks: list[dict[str, Any]],
    canonical: list[int],
    tunables: Tunables,
) -> bytes:
    """Makes the image.

    `chunks` are replies of `llvm.worker.compile_chunk`; their symbols are `f<function>`, `a2w<type>`, `w2a<type>` and
    what only chunks use (`llvm.uniform`). `canonical` gives for every type index the first one with the same signature:
    they share trampolines.
    """
    code = _Code(chunks)
    builder = ImageBuilder()
    builder.add_text(code.text, code.constants, code.constants_at)
    info = _describe(module, func_refs, code, canonical)
    _add_data(builder, module, info, tunables)
    if tunables.generate_address_map:
        builder.add_section(ADDRESS_MAP_SECTION, address_map.encode(code.offsets, code.positions))
    builder.add_section(TRAP_SECTION, trap_table.encode(code.offsets, code.codes))
    builder.add_section(NAME_SECTION, function_names.encode(module.names.functions if module.names else {}))
    _add_dwarf(builder, module, info, tunables)
    builder.add_section(INFO_SECTION, info.encode())
    builder.add_section(ENGINE_SECTION, encode_engine(tunables, host_level()))
    for symbol, (start, length) in code.symbols.items():
        builder.add_symbol(_symbol_name(symbol), start, length)
    return builder.build()


def _symbol_name(symbol: str) -> str:
    """Wasmtime's names for what the compilers call f5, a2w0 and w2a0; others are our own."""
    if symbol.startswith("f"):
        return f"wasm[0]::function[{symbol[1:]}]"
    if symbol.startswith("tail"):
        return symbol
    kind = "array_to_wasm" if symbol.startswith("a2w") else "wasm_to_array"
    return f"{kind}_trampoline[{symbol[3:]}]"


class _Code:
    """The text of all chunks, laid out and resolved."""

    def __init__(self, chunks: list[dict[str, Any]]) -> None:
        self.text = bytearray()
        self.constants = bytearray()
        self.symbols: dict[str, CodeRange] = {}
        self.offsets = array("I")
        self.positions = array("I")
        self.codes = array("B")
        bases = [self._place(chunk) for chunk in chunks]
        self.text += b"\xcc" * (-len(self.text) % _CHUNK_ALIGNMENT)
        self.constants_at = len(self.text)
        if self.constants_at + len(self.constants) > _TEXT_LIMIT:
            raise WasmtimeError(f"the module is too large: more than {_TEXT_LIMIT} bytes of machine code")
        for chunk, (text_base, constants_base) in zip(chunks, bases, strict=True):
            self._relocate(chunk, text_base, constants_base)

    def _place(self, chunk: dict[str, Any]) -> tuple[int, int]:
        self.text += b"\xcc" * (-len(self.text) % _CHUNK_ALIGNMENT)
        self.constants += bytes(-len(self.constants) % _CHUNK_ALIGNMENT)
        text_base, constants_base = len(self.text), len(self.constants)
        self.text += chunk["text"]
        self.constants += chunk["constants"]
        for name, start, size in chunk["functions"]:
            self.symbols[name] = CodeRange(text_base + start, size)
        offsets = array("I", chunk["offsets"])
        if offsets and self.offsets and self.offsets[-1] == text_base + offsets[0]:
            # The chunk before ends exactly where this one begins: the row that closes it gives way.
            self.offsets.pop()
            self.positions.pop()
            self.codes.pop()
        self.offsets.extend(array("I", (text_base + o for o in offsets)) if text_base else offsets)
        self.positions.frombytes(chunk["positions"])
        self.codes.frombytes(chunk["codes"])
        if offsets and text_base + offsets[-1] < len(self.text):
            self.offsets.append(len(self.text))  # behind the last byte, which may belong to the call of a trap
            self.positions.append(address_map.NO_POSITION)
            self.codes.append(0)
        return text_base, constants_base

    def _relocate(self, chunk: dict[str, Any], text_base: int, constants_base: int) -> None:
        bases = (text_base, self.constants_at + constants_base)
        targets = [self.symbols[name].start for name in chunk["undefined"]]
        rows = array("q", chunk["relocations"])
        for k in range(0, len(rows), 5):
            place_in, place, target_in, target, addend = rows[k : k + 5]
            value = targets[target] if target_in == 2 else bases[target_in] + target
            value += addend - bases[place_in] - place
            if place_in:
                pack_into("<i", self.constants, constants_base + place, value)
            else:
                pack_into("<i", self.text, text_base + place, value)


def _describe(module: Module, func_refs: list[int], code: _Code, canonical: list[int]) -> CompiledModuleInfo:
    info = describe(module, func_refs)
    imported = module.num_imported(ExternKind.FUNC)
    ranges = array("I")
    for k in range(len(module.functions)):
        ranges.extend(code.symbols[f"f{imported + k}"])
    info.packed_function_ranges = ranges.tobytes()
    for x, first in enumerate(canonical):
        if (found := code.symbols.get(f"a2w{first}")) is not None:
            info.array_to_wasm[x] = found
        info.wasm_to_array[x] = code.symbols[f"w2a{first}"]
    return info


def _add_data(builder: ImageBuilder, module: Module, info: CompiledModuleInfo, tunables: Tunables) -> None:
    """Data segments, and the memory images that some of them are part of."""
    contents, pages = lay_out_data(module, info, tunables)
    builder.add_section(RODATA_WASM_SECTION, contents)
    if pages:
        builder.add_section(MEMORY_SECTION, pages, PAGE)


def _add_dwarf(builder: ImageBuilder, module: Module, info: CompiledModuleInfo, tunables: Tunables) -> None:
    sections = [c for c in module.custom if c.name.startswith(".debug_")]
    if not tunables.parse_wasm_debuginfo:
        info.has_unparsed_debuginfo = bool(sections)
        return
    contents = bytearray()
    for section in sections:
        info.dwarf.append((section.name, len(contents), len(section.data)))
        contents += section.data
    builder.add_section(DWARF_SECTION, contents)
