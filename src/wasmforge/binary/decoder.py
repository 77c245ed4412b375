"""The decoder: bytes to a `Module` (specification, sections 5.5.2 to 5.5.17).

One method a section, all on a `_Decoder` that holds the bytes and the position. Function bodies and constant
expressions are cut out, not decoded: the validator checks the instructions of bodies in the same walk that types
them. What is accepted here is therefore a module only after `validation.validate` has seen it.

Reads are bounded by the whole input and the size of a section is compared afterwards, so that a damaged number is
reported as such and not as the end of a section that the damage made too short. Threat: counts in the billions.
Every count is compared with the bytes that are left, and with its limit, before anything is allocated for it.
"""

from __future__ import annotations

import gc

from wasmforge.binary.features import (
    COMPONENTS,
    TAGS,
    type_error,
)
from wasmforge.binary.instructions import skip_expression
from wasmforge.binary.leb128 import read_unsigned
from wasmforge.binary.names import decode_names
from wasmforge.binary.sections import SECTION_NAMES, SECTION_ORDER, Section
from wasmforge.binary.types import VALUE_TYPE_BYTES, read_reference_type, read_value_type
from wasmforge.syntax import limits
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError
from wasmforge.syntax.module import (
    CustomSection,
    DataSegment,
    ElementSegment,
    Export,
    Expression,
    FunctionBody,
    Global,
    Import,
    ImportType,
    Module,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import (
    FUNCREF,
    NON_NULL,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["decode"]

_MAGIC: Final = b"\0asm"
_VERSION: Final = b"\x01\0\0\0"
_COMPONENT_VERSION: Final = b"\x0d\0\x01\0"

_FUNCTION_TYPE: Final = 0x60
_REC: Final = 0x4E
_FUNCTION_REFERENCE: Final = ValType(FUNCREF | NON_NULL)
"""What the elements of a segment are that lists function indices."""
_TABLE_WITH_INITIALIZER: Final = 0x40
_TAG_KIND: Final = 4
_HAS_MAXIMUM: Final = 1
_SHARED: Final = 2
_IS_64: Final = 4
_HAS_PAGE_SIZE: Final = 8
"""Bits of the byte before limits (section 5.3.10; the last one of the custom-page-sizes proposal)."""
_END: Final = 0x0B

_COUNT_LIMITS: Final[dict[int, int]] = {
    Section.TYPE: limits.TYPES,
    Section.IMPORT: limits.IMPORTS,
    Section.FUNCTION: limits.FUNCTIONS,
    Section.TABLE: limits.TABLES,
    Section.MEMORY: limits.MEMORIES,
    Section.GLOBAL: limits.GLOBALS,
    Section.EXPORT: limits.EXPORTS,
    Section.ELEMENT: limits.ELEMENT_SEGMENTS,
    Section.CODE: limits.FUNCTIONS,
    Section.DATA: limits.DATA_SEGMENTS,
}
"""Items that a section may have. The validator adds what was imported."""

_EXTERN_KINDS: Final = tuple(ExternKind)
_UNEXPECTED_END: Final = "unexpected end of section or function"


def decode(data: bytes | bytearray | memoryview, *, custom_contents: bool = True) -> Module:
    """Decodes a WebAssembly binary.

    Returns a module whose bodies and constant expressions are still encoded; `validation.validate` checks the
    former. Custom sections are kept with their place, without `custom_contents` empty (half of a CPython is debug
    information that is seldom wanted); the first one called `name` is decoded as well, leniently.

    Raises `MalformedError`, which says what is wrong and at which byte offset, and `UnsupportedFeatureError` when
    the module uses a proposal that is not implemented.
    """
    # The collector would walk over the growing module again and again, a fifth of the time, and find no cycles. Two
    # threads may both come here: whoever found it running starts it again.
    collecting = gc.isenabled()
    try:
        gc.disable()
        return _Decoder(bytes(data), custom_contents).module()
    finally:
        if collecting:
            gc.enable()


class _Decoder:
    def __init__(self, data: bytes, custom_contents: bool) -> None:
        self.data: Final = data
        self.custom_contents: Final = custom_contents
        self.size: Final = len(data)
        self.at = 0
        self.section_end = 0
        self.result: Final = Module()
        self.function_section_at = 0
        self.runs: Final[dict[tuple[int, ValType], tuple[int, ValType]]] = {}

    # Primitives

    def byte(self) -> int:
        at = self.at
        if at >= self.size:
            raise MalformedError(_UNEXPECTED_END, at)
        self.at = at + 1
        return self.data[at]

    def u32(self) -> int:
        at = self.at
        if at < self.size:
            value = self.data[at]
            if value < 0x80:
                self.at = at + 1
                return value
        value, self.at = read_unsigned(self.data, at, 32)
        return value

    def length(self) -> int:
        """A number of bytes, or of elements that take a byte at least: never more than there is input."""
        start = self.at
        value = self.u32()
        if value > self.size - start:
            raise MalformedError(f"length out of bounds: {value} with {self.size - self.at} bytes left", start)
        return value

    def take(self, count: int) -> bytes:
        start = self.at
        if count > self.size - start:
            raise MalformedError(_UNEXPECTED_END, self.size)
        self.at = start + count
        return self.data[start : start + count]

    def name(self) -> str:
        start = self.at
        raw = self.take(self.length())
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"malformed UTF-8 encoding: {error.reason}", start) from None

    def value_type(self) -> ValType:
        at = self.at
        if at < self.size and self.data[at] in VALUE_TYPE_BYTES:  # spares nearly all a tuple
            self.at = at + 1
            return ValType(self.data[at])
        t, self.at = read_value_type(self.data, at, 0)
        return ValType(t)

    def reference_type(self) -> ValType:
        t, self.at = read_reference_type(self.data, self.at, 0)
        return ValType(t)

    def value_types(self) -> tuple[ValType, ...]:
        count = self.length()
        start = self.at
        raw = self.data[start : start + count]
        if len(raw) < count or raw.translate(None, VALUE_TYPE_BYTES):
            return tuple([self.value_type() for _ in range(count)])
        self.at = start + count
        return tuple(map(ValType, raw))

    def expression(self) -> Expression:
        start = self.at
        self.at = skip_expression(self.data, start, self.section_end)
        return Expression(self.data[start : self.at], start)

    # Types

    def limits_flags(self, allowed: int) -> int:
        at = self.at
        flags = self.byte()
        if flags & ~allowed:
            raise MalformedError(f"malformed limits flags {flags:#x}", at)
        return flags

    def limits(self, flags: int) -> Limits:
        # 64 bits wide in the grammar of release 3.0; the validator knows the range of each kind.
        minimum, self.at = read_unsigned(self.data, self.at, 64)
        if not flags & _HAS_MAXIMUM:
            return Limits(minimum)
        maximum, self.at = read_unsigned(self.data, self.at, 64)
        return Limits(minimum, maximum)

    def table_type(self) -> TableType:
        element = self.reference_type()
        flags = self.limits_flags(_HAS_MAXIMUM | _IS_64)
        return TableType(element, self.limits(flags), flags & _IS_64 != 0)

    def memory_type(self) -> MemoryType:
        at = self.at
        flags = self.limits_flags(_HAS_MAXIMUM | _SHARED | _IS_64 | _HAS_PAGE_SIZE)
        if flags & _HAS_PAGE_SIZE and self.at >= self.section_end:
            # Without the custom-page-sizes proposal the flags themselves are malformed, which is the better news here.
            raise MalformedError(f"malformed limits flags {flags:#x}: nothing follows", at)
        limits = self.limits(flags)
        page_size_log2 = 16
        if flags & _HAS_PAGE_SIZE:
            at = self.at
            page_size_log2 = self.u32()
            if page_size_log2 >= 64:
                raise MalformedError(f"invalid custom page size: 2**{page_size_log2} bytes", at)
        return MemoryType(limits, flags & _IS_64 != 0, flags & _SHARED != 0, page_size_log2)

    def global_type(self) -> GlobalType:
        content = self.value_type()
        at = self.at
        mutability = self.byte()
        if mutability > 1:
            raise MalformedError(f"malformed mutability {mutability:#x}", at)
        return GlobalType(content, mutability == 1)

    def extern_kind(self, what: str) -> ExternKind:
        at = self.at
        kind = self.byte()
        if kind == _TAG_KIND:
            raise UnsupportedFeatureError(TAGS, at)
        if kind > _TAG_KIND:
            raise MalformedError(f"malformed {what} kind {kind:#x}", at)
        return _EXTERN_KINDS[kind]

    # Sections

    def module(self) -> Module:
        self.header()
        place = 0
        last = 0
        while self.at < self.size:
            start = self.at
            section = self.byte()
            if section == Section.TAG:
                raise UnsupportedFeatureError(TAGS, start)
            if section not in SECTION_NAMES:
                raise MalformedError(f"malformed section id {section}", start)
            size = self.length()
            end = self.at + size
            if end > self.size:
                raise MalformedError(
                    f"length out of bounds: section of {size} bytes with {self.size - self.at} bytes left", start + 1
                )
            self.section_end = end
            if section == Section.CUSTOM:
                self.custom_section(last, start)
                continue
            if SECTION_ORDER.index(section) < place:
                raise MalformedError(
                    f"unexpected content after last section: {SECTION_NAMES[section]} section out of order or repeated",
                    start,
                )
            place = SECTION_ORDER.index(section) + 1
            last = section
            self.section(section)
            if self.at != end:
                raise MalformedError(
                    f"section size mismatch: {SECTION_NAMES[section]} section says {size} bytes "
                    f"and has {size + self.at - end}",
                    start,
                )
        self.check_counts()
        return self.result

    def header(self) -> None:
        magic, version = self.data[:4], self.data[4:8]
        if len(magic) == 4 and magic != _MAGIC:
            raise MalformedError(f"magic header not detected: expected {_MAGIC!r}, found {magic!r}", 0)
        if len(version) < 4:
            raise MalformedError(f"unexpected end of the header: it has 8 bytes, found {self.size}", self.size)
        if version == _COMPONENT_VERSION:
            raise UnsupportedFeatureError(COMPONENTS, 4)
        if version != _VERSION:
            raise MalformedError(f"unknown binary version {int.from_bytes(version, 'little'):#x}", 4)
        self.at = 8

    def check_counts(self) -> None:
        m = self.result
        if len(m.functions) != len(m.code):
            raise MalformedError(
                f"function and code section have inconsistent lengths: {len(m.functions)} functions, "
                f"{len(m.code)} bodies",
                self.function_section_at,
            )
        if m.data_count is not None and m.data_count != len(m.data):
            raise MalformedError(
                f"data count and data section have inconsistent lengths: {m.data_count} declared, "
                f"{len(m.data)} segments",
                self.size,
            )

    def section(self, section: int) -> None:
        m = self.result
        if section == Section.START:
            m.start_offset = self.at
            m.start = self.u32()
            return
        if section == Section.DATA_COUNT:
            m.data_count = self.u32()
            return
        start = self.at
        count = self.length()
        maximum = _COUNT_LIMITS.get(section, count)
        if count > maximum:
            raise MalformedError(
                f"too many items in the {SECTION_NAMES[section]} section: {count}, the limit is {maximum}", start
            )
        if section == Section.TYPE:
            for _ in range(count):
                self.rec_type()
        elif section == Section.IMPORT:
            m.imports = [self.import_() for _ in range(count)]
        elif section == Section.FUNCTION:
            self.function_section_at = start
            m.functions = [self.u32() for _ in range(count)]
        elif section == Section.TABLE:
            m.tables = [self.table() for _ in range(count)]
        elif section == Section.MEMORY:
            m.memories = [self.memory_type() for _ in range(count)]
        elif section == Section.GLOBAL:
            m.globals = [Global(self.global_type(), self.expression()) for _ in range(count)]
        elif section == Section.EXPORT:
            m.exports = [self.export() for _ in range(count)]
        elif section == Section.ELEMENT:
            m.elements = [self.element_segment() for _ in range(count)]
        elif section == Section.CODE:
            m.code = [self.function_body() for _ in range(count)]
        else:
            m.data = [self.data_segment() for _ in range(count)]

    def custom_section(self, after: int, start: int) -> None:
        name = self.name()
        if self.at > self.section_end:
            raise MalformedError(_UNEXPECTED_END, self.section_end)
        if len(self.result.custom) >= limits.CUSTOM_SECTIONS:
            raise MalformedError(f"too many custom sections: the limit is {limits.CUSTOM_SECTIONS}", start)
        names = name == "name" and self.result.names is None
        content = self.data[self.at : self.section_end] if self.custom_contents or names else b""
        if names:
            self.result.names = decode_names(content)
        self.result.custom.append(CustomSection(name, content if self.custom_contents else b"", after, start))
        self.at = self.section_end

    def rec_type(self) -> None:
        """A recursion group (section 5.3.8); without its prefix, of one type."""
        m = self.result
        at = self.at
        if at >= self.size or self.data[at] != _REC:
            m.types.append(self.function_type())
            return
        self.at = at + 1
        count = self.length()
        start = len(m.types)
        if start + count > limits.TYPES:
            raise MalformedError(f"too many types: the limit is {limits.TYPES}", at)
        for _ in range(count):
            m.types.append(self.function_type())
        if count > 1:
            m.rec_groups.append((start, count))

    def function_type(self) -> FuncType:
        at = self.at
        form = self.byte()
        if form >= 0x80:
            raise MalformedError("integer representation too long", at)
        if form != _FUNCTION_TYPE:
            raise type_error(form, f"malformed type form {form:#04x}", at)
        params = self.value_types()
        return FuncType(params, self.value_types())

    def import_(self) -> Import:
        start = self.at
        module = self.name()
        name = self.name()
        kind = self.extern_kind("import")
        type_: ImportType
        if kind == ExternKind.FUNC:
            type_ = self.u32()
        elif kind == ExternKind.TABLE:
            type_ = self.table_type()
        elif kind == ExternKind.MEMORY:
            type_ = self.memory_type()
        else:
            type_ = self.global_type()
        return Import(module, name, kind, type_, start)

    def table(self) -> Table:
        if self.at >= self.size or self.data[self.at] != _TABLE_WITH_INITIALIZER:
            return Table(self.table_type())
        self.at += 1
        at = self.at
        if self.byte() != 0:
            raise MalformedError("malformed table: expected 0x00 behind 0x40", at)
        t = self.table_type()
        return Table(t, self.expression())

    def export(self) -> Export:
        start = self.at
        name = self.name()
        kind = self.extern_kind("export")
        return Export(name, kind, self.u32(), start)

    def element_segment(self) -> ElementSegment:
        """Section 5.5.12: bit 0 of the flags says not active, bit 1 an explicit table (active) or declarative,
        bit 2 expressions instead of function indices."""
        start = self.at
        flags = self.u32()
        if flags > 7:
            raise MalformedError(f"malformed elements segment kind {flags}", start)
        table = 0
        table_offset = None
        if flags & 1:
            mode = SegmentMode.DECLARATIVE if flags & 2 else SegmentMode.PASSIVE
        else:
            mode = SegmentMode.ACTIVE
            if flags & 2:
                table = self.u32()
            table_offset = self.expression()
        uses_expressions = bool(flags & 4)
        t = FUNCREF if uses_expressions else _FUNCTION_REFERENCE
        if flags & 3:
            t = self.reference_type() if uses_expressions else self.element_kind()
        items: tuple[Expression, ...] | tuple[int, ...]
        count = self.length()
        if uses_expressions:
            items = tuple([self.expression() for _ in range(count)])
        else:
            items = tuple([self.u32() for _ in range(count)])
        return ElementSegment(mode, t, table, table_offset, items, uses_expressions, start)

    def element_kind(self) -> ValType:
        at = self.at
        kind = self.byte()
        if kind != 0:
            raise MalformedError(f"malformed element kind {kind:#x}", at)
        return _FUNCTION_REFERENCE

    def data_segment(self) -> DataSegment:
        start = self.at
        flags = self.u32()
        if flags > 2:
            raise MalformedError(f"malformed data segment kind {flags}", start)
        if flags == 1:
            return DataSegment(SegmentMode.PASSIVE, 0, None, self.take(self.length()), start)
        memory = self.u32() if flags == 2 else 0
        memory_offset = self.expression()
        return DataSegment(SegmentMode.ACTIVE, memory, memory_offset, self.take(self.length()), start)

    def function_body(self) -> FunctionBody:
        start = self.at
        size = self.length()
        body_start = self.at
        end = body_start + size
        if end > self.size:
            raise MalformedError(_UNEXPECTED_END, start)
        runs: list[tuple[int, ValType]] = []
        total = 0
        for _ in range(self.length()):
            at = self.at
            count = self.u32()
            total += count
            if total > limits.LOCALS:
                raise MalformedError(f"too many locals: {total}, the limit is {limits.LOCALS}", at)
            run = (count, self.value_type())
            runs.append(self.runs.setdefault(run, run))  # most modules have few different ones
        at = self.at
        if at >= end or self.data[end - 1] != _END:
            self.report_missing_end(end)
        self.at = end
        return FunctionBody(tuple(runs), self.data[at:end], at, body_start)

    def report_missing_end(self, end: int) -> None:
        """The grammar of a body runs on until its `end`, so what is wrong depends on what follows."""
        skip_expression(self.data, self.at, self.size)  # a damaged instruction is the better news
        if end == self.size:
            raise MalformedError(f"{_UNEXPECTED_END}: the body has no END opcode", end)
        if self.data[end] == _END:
            raise MalformedError("section size mismatch: the body ends before its END opcode", end)
        raise MalformedError("END opcode expected at the end of the body", end)
