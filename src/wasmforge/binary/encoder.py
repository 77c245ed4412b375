"""The encoder: a `Module` to bytes, in canonical form (specification, chapter 5).

Every number has its shortest encoding, empty sections are left out and segments take the shortest of their forms,
so that two modules that are equal give the same bytes. The text front end and `Module.serialize` use it.
"""

from __future__ import annotations

from wasmforge.binary.leb128 import encode_name, write_unsigned
from wasmforge.binary.names import encode_names
from wasmforge.binary.sections import SECTION_ORDER, Section
from wasmforge.binary.types import write_value_type
from wasmforge.syntax.canonical import groups
from wasmforge.syntax.module import (
    DataSegment,
    ElementSegment,
    Export,
    FunctionBody,
    Global,
    Import,
    Module,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import FUNCREF, FuncType, GlobalType, Limits, MemoryType, TableType, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, TypeVar

    _Item = TypeVar("_Item")

__all__ = ["encode"]

_HEADER: Final = b"\0asm\x01\0\0\0"


def encode(module: Module) -> bytes:
    """Encodes a module.

    A custom section goes behind the section that its `after` names. `module.names` is written as a name section
    at the end when `module.custom` does not hold one already: a decoded module keeps the bytes of its own.

    `encode(decode(data)) == data` for every `data` in canonical form. Indices are written as they stand: an
    invalid module gives the binary of an invalid module.
    """
    out = bytearray(_HEADER)
    _write_custom_sections(out, module, 0)
    for section in SECTION_ORDER:
        content = _section(module, section)
        if content:
            _write_section(out, section, content)
        _write_custom_sections(out, module, section)
    for custom in module.custom:
        if custom.after != 0 and custom.after not in SECTION_ORDER:
            _write_custom_section(out, custom.name, custom.data)
    if module.names is not None and not any(custom.name == "name" for custom in module.custom):
        names = encode_names(module.names)
        if names:
            _write_custom_section(out, "name", names)
    return bytes(out)


def _write_section(out: bytearray, section: int, content: bytearray) -> None:
    out.append(section)
    write_unsigned(out, len(content))
    out += content


def _write_custom_sections(out: bytearray, module: Module, after: int) -> None:
    for custom in module.custom:
        if custom.after == after:
            _write_custom_section(out, custom.name, custom.data)


def _write_custom_section(out: bytearray, name: str, data: bytes) -> None:
    content = bytearray()
    content += encode_name(name)
    content += data
    _write_section(out, Section.CUSTOM, content)


def _section(m: Module, section: int) -> bytearray:
    """The content of a section, empty when the section is to be left out."""
    out = bytearray()
    if section == Section.START:
        if m.start is not None:
            write_unsigned(out, m.start)
    elif section == Section.DATA_COUNT:
        if m.data_count is not None:
            write_unsigned(out, len(m.data))
    elif section == Section.TYPE:
        if m.types:
            _write_rec_groups(out, m)
    else:
        items, write = _CONTENTS[section](m)
        _write_vector(out, items, write)
    return out


def _write_vector(out: bytearray, items: Sequence[_Item], write: Callable[[bytearray, _Item], None]) -> None:
    if items:
        write_unsigned(out, len(items))
        for item in items:
            write(out, item)


def _write_types(out: bytearray, types: tuple[ValType, ...]) -> None:
    write_unsigned(out, len(types))
    for t in types:
        write_value_type(out, t)


def _write_function_type(out: bytearray, ft: FuncType) -> None:
    out.append(0x60)
    _write_types(out, ft.params)
    _write_types(out, ft.results)


def _write_rec_groups(out: bytearray, m: Module) -> None:
    """The type section: groups of several types have a prefix (section 5.3.8)."""
    every = list(groups(len(m.types), m.rec_groups))
    write_unsigned(out, len(every))
    for start, end in every:
        if end - start != 1:
            out.append(0x4E)
            write_unsigned(out, end - start)
        for ft in m.types[start:end]:
            _write_function_type(out, ft)


def _write_limits(out: bytearray, limits: Limits, flags: int) -> None:
    """The bits of the flags are those that the decoder names."""
    out.append(flags if limits.maximum is None else flags | 1)
    write_unsigned(out, limits.minimum)
    if limits.maximum is not None:
        write_unsigned(out, limits.maximum)


def _write_table_type(out: bytearray, t: TableType) -> None:
    write_value_type(out, t.element)
    _write_limits(out, t.limits, 4 if t.is_64 else 0)


def _write_memory_type(out: bytearray, t: MemoryType) -> None:
    custom_pages = t.page_size_log2 != 16
    _write_limits(out, t.limits, (2 if t.shared else 0) | (4 if t.is_64 else 0) | (8 if custom_pages else 0))
    if custom_pages:
        write_unsigned(out, t.page_size_log2)


def _write_global_type(out: bytearray, t: GlobalType) -> None:
    write_value_type(out, t.content)
    out.append(1 if t.mutable else 0)


def _write_import(out: bytearray, i: Import) -> None:
    out += encode_name(i.module)
    out += encode_name(i.name)
    out.append(i.kind)
    if isinstance(i.type, TableType):
        _write_table_type(out, i.type)
    elif isinstance(i.type, MemoryType):
        _write_memory_type(out, i.type)
    elif isinstance(i.type, GlobalType):
        _write_global_type(out, i.type)
    else:
        write_unsigned(out, i.type)


def _write_table(out: bytearray, t: Table) -> None:
    if t.init is not None:
        out += b"\x40\0"
    _write_table_type(out, t.type)
    if t.init is not None:
        out += t.init.code


def _write_global(out: bytearray, g: Global) -> None:
    _write_global_type(out, g.type)
    out += g.init.code


def _write_export(out: bytearray, e: Export) -> None:
    out += encode_name(e.name)
    out.append(e.kind)
    write_unsigned(out, e.index)


def _write_element_segment(out: bytearray, e: ElementSegment) -> None:
    """Section 5.5.12; the bits of the flags are explained in the decoder."""
    flags = 4 if e.uses_expressions else 0
    if e.mode is not SegmentMode.ACTIVE:
        flags |= 1 if e.mode is SegmentMode.PASSIVE else 3
    elif e.table != 0 or (e.uses_expressions and e.type != FUNCREF):
        flags |= 2
    out.append(flags)
    if e.table_offset is not None and e.mode is SegmentMode.ACTIVE:
        if flags & 2:
            write_unsigned(out, e.table)
        out += e.table_offset.code
    if flags & 3:
        if e.uses_expressions:
            write_value_type(out, e.type)
        else:
            out.append(0)
    write_unsigned(out, len(e.items))
    for item in e.items:
        if isinstance(item, int):
            write_unsigned(out, item)
        else:
            out += item.code


def _write_data_segment(out: bytearray, d: DataSegment) -> None:
    if d.mode is SegmentMode.PASSIVE or d.memory_offset is None:
        out.append(1)
    else:
        out.append(2 if d.memory else 0)
        if d.memory:
            write_unsigned(out, d.memory)
        out += d.memory_offset.code
    write_unsigned(out, len(d.data))
    out += d.data


def _write_body(out: bytearray, body: FunctionBody) -> None:
    content = bytearray()
    write_unsigned(content, len(body.locals))
    for count, t in body.locals:
        write_unsigned(content, count)
        write_value_type(content, t)
    write_unsigned(out, len(content) + len(body.code))
    out += content
    out += body.code


_CONTENTS: Final[dict[int, Callable[[Module], tuple[Sequence[Any], Callable[[bytearray, Any], None]]]]] = {
    Section.IMPORT: lambda m: (m.imports, _write_import),
    Section.FUNCTION: lambda m: (m.functions, write_unsigned),
    Section.TABLE: lambda m: (m.tables, _write_table),
    Section.MEMORY: lambda m: (m.memories, _write_memory_type),
    Section.GLOBAL: lambda m: (m.globals, _write_global),
    Section.EXPORT: lambda m: (m.exports, _write_export),
    Section.ELEMENT: lambda m: (m.elements, _write_element_segment),
    Section.CODE: lambda m: (m.code, _write_body),
    Section.DATA: lambda m: (m.data, _write_data_segment),
}
"""What each section holds and how an item of it is written; start and data count are single numbers."""
