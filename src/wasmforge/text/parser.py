"""The parser of modules: tokens to a `Module` (specification, section 6.6).

A first pass over the fields gives every identifier its index and reads the type definitions; a second one reads
everything else in order, so that type uses add their types in the order of the text and bodies are encoded at once.
`parse` is for whole texts; the script parser of the test suites uses `ModuleParser` on a part of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from wasmforge.binary import decode, features
from wasmforge.binary.leb128 import encode_unsigned, write_unsigned
from wasmforge.binary.names import encode_names
from wasmforge.binary.sections import SECTION_ORDER, Section
from wasmforge.binary.types import write_value_type
from wasmforge.syntax.instructions import Opcode
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
    NameSection,
    SegmentMode,
    Table,
)
from wasmforge.syntax.types import FUNCREF, NON_NULL, ExternKind, Limits, MemoryType, TableType, ValType
from wasmforge.text.body import BodyParser, Spaces
from wasmforge.text.lexer import Source
from wasmforge.text.reader import Reader
from wasmforge.text.spaces import Space, read_type_use

__all__ = ["ModuleParser", "parse"]

_KINDS: Final = {
    "func": ExternKind.FUNC,
    "table": ExternKind.TABLE,
    "memory": ExternKind.MEMORY,
    "global": ExternKind.GLOBAL,
}
_KIND_NAMES: Final = ("function", "table", "memory", "global")
"""By `ExternKind`, as messages have them."""

_FIRST: Final = 0
_LAST: Final = -1
_SECTION_WORDS: Final[dict[str, int]] = {
    "type": Section.TYPE,
    "import": Section.IMPORT,
    "func": Section.FUNCTION,
    "table": Section.TABLE,
    "memory": Section.MEMORY,
    "global": Section.GLOBAL,
    "export": Section.EXPORT,
    "start": Section.START,
    "elem": Section.ELEMENT,
    "datacount": Section.DATA_COUNT,
    "code": Section.CODE,
    "data": Section.DATA,
}
"""What may stand in the place of a custom section (specification, appendix A.6)."""


def parse(source: str | bytes | bytearray, filename: str | None = None) -> Module:
    """Parses a module in the text format.

    `source` is one `(module ...)` or the fields of one; bytes must be UTF-8. `filename` is for messages. Identifiers
    become a name section, in `Module.names`. Raises `ParseError`, which has the line and the column, when the text is
    not a module, and its subclass `UnsupportedSyntaxError` when it needs a proposal that is not implemented; what the
    decoder raises when the text is `(module binary "...")`.
    """
    text = Source(source, filename)
    reader = Reader(text)
    if text.tokens[0] == "(" and text.tokens[1] == "module":
        if text.tokens[2] == "binary" or text.tokens[3] == "binary":
            return _binary_module(reader)
        parser = ModuleParser(text, 0)
    else:
        if text.tokens[0] == "(" and text.tokens[1] == "component":
            raise reader.unsupported(features.COMPONENTS, 1)
        parser = ModuleParser(text, None)
    module = parser.parse()
    if text.tokens[parser.at]:
        raise parser.unexpected("the end of the text")
    return module


def _binary_module(reader: Reader) -> Module:
    """`(module id? binary "..."*)`: a binary in strings."""
    reader.at = 2
    reader.identifier()
    reader.expect("binary")
    data = reader.strings()
    reader.expect(")")
    if reader.tokens[reader.at]:
        raise reader.unexpected("the end of the text")
    return decode(data)


class ModuleParser(Reader):
    """Parses one module of a text. `at` is behind it afterwards."""

    def __init__(self, source: Source, at: int | None) -> None:
        """`at` is the token index of `(module`, None for a text that consists of fields only."""
        super().__init__(source, at or 0)
        self._whole = at is not None
        self._module = Module()
        self._new_spaces()
        self._fields = 0  # the token index of the first field

    def parse(self) -> Module:
        """Parses the module. Raises `ParseError`."""
        start = self.at
        if self._whole:
            self.at += 2
            self.identifier()
            while self.tokens[self.at] == "(@name":
                self.name_annotation()
        self._fields = self.at
        self._collect()
        module = self._parse_fields(start)
        types = self._spaces.types
        if types.unresolved:
            # A numeric reference to a type that a later type use appends. The list is complete now and does not
            # depend on such references, so a second pass over the same text sees it whole.
            expected = types.types
            self._new_spaces()
            self.at = self._fields
            self._collect()
            self._spaces.types.expected = expected
            self._spaces.types.complete = True
            module = self._parse_fields(start)
        return module

    def type_index(self) -> int:
        return self._spaces.types.read(self)

    def _new_spaces(self) -> None:
        spaces = self._spaces = Spaces()
        self._by_kind = (spaces.functions, spaces.tables, spaces.memories, spaces.globals)
        self._names = NameSection()
        self._rec_groups: list[tuple[int, int]] = []

    # The first pass

    def _collect(self) -> None:
        """Gives identifiers their indices and reads type definitions; everything else is for the second pass."""
        tokens = self.tokens
        types: list[int] = []
        while tokens[self.at] == "(" or tokens[self.at] == "(@custom":
            field = self.at
            word = tokens[field + 1]
            if tokens[field] == "(@custom":
                pass
            elif word == "import":
                self._collect_import()
            elif word == "type":
                self._identifier_at(self._spaces.types, field + 2)
                types.append(field)
            elif word == "rec":
                self._collect_group(types)
            elif word == "tag":
                raise self.unsupported(features.TAGS, field + 1)
            elif word == "elem":
                self._identifier_at(self._spaces.elements, field + 2)
            elif word == "data":
                self._identifier_at(self._spaces.data, field + 2)
            elif word in _KINDS:
                self._identifier_at(self._by_kind[_KINDS[word]], field + 2)
            self.at = field
            self._skip_field(word)
        ends = {start + size for start, size in self._rec_groups}
        starts = {start for start, _ in self._rec_groups}
        grouped = False
        for k, field in enumerate(types):
            grouped = k in starts or (grouped and k not in ends)
            self.at = field + 2
            self.identifier()
            annotation = self.name_annotation()
            if annotation is not None:
                self._names.types[len(self._spaces.types.types)] = annotation
            self._type_definition(not grouped)

    def _collect_group(self, types: list[int]) -> None:
        """`(rec (type ...)*)`; groups of one type are like those without `rec`."""
        first = len(types)
        self.at += 2
        while self.tokens[self.at] == "(" and self.tokens[self.at + 1] == "type":
            self._identifier_at(self._spaces.types, self.at + 2)
            types.append(self.at)
            self.skip()
        self.expect(")")
        if len(types) - first > 1:
            self._rec_groups.append((first, len(types) - first))

    def _identifier_at(self, space: Space, at: int) -> None:
        token = self.tokens[at]
        space.add(self, at, token if token[:1] == "$" else "")

    def _collect_import(self) -> None:
        at = self.at + 4
        if self.tokens[at] == "(":
            kind = _KINDS.get(self.tokens[at + 1])
            if kind is not None:
                self._identifier_at(self._by_kind[kind], at + 2)
            elif self.tokens[at + 1] == "tag":
                raise self.unsupported(features.TAGS, at + 1)

    def _skip_field(self, word: str) -> None:
        """Steps over a field. Inline segments of tables and memories take their indices."""
        start = self.at
        self.skip()
        if word == "table" or word == "memory":
            inner, space = ("elem", self._spaces.elements) if word == "table" else ("data", self._spaces.data)
            tokens = self.tokens
            for at in range(start + 2, self.at):
                if tokens[at] == inner and tokens[at - 1] == "(":
                    space.add(self, at, "")
                    break

    def _type_definition(self, alone: bool) -> None:
        if self.open("func"):
            self._spaces.types.define(self.function_type(), alone)
            self.expect(")")
            return
        word = self.tokens[self.at + 1]
        if self.tokens[self.at] == "(" and word in ("sub", "struct", "array", "descriptor", "describes"):
            raise self.unsupported(features.GC_TYPES, self.at + 1)
        if self.tokens[self.at] == "(" and word == "cont":
            raise self.unsupported(features.STACK_SWITCHING, self.at + 1)
        raise self.unexpected("`(func`")

    # The second pass

    def _parse_fields(self, start: int) -> Module:
        self._module = Module(start_offset=0)
        self._body = BodyParser(self, self._spaces)
        self._custom: dict[tuple[int, bool], list[tuple[str, bytes]]] = {}
        self._hints: list[tuple[int, list[tuple[int, int]]]] = []
        self._functions = self._tables = self._memories = self._globals = 0
        self._defined: str | None = None
        self.at = start
        if self._whole:
            self.at += 2
            self._module_name()
        handlers = _FIELDS
        while True:
            token = self.tokens[self.at]
            if token == "(":
                handler = handlers.get(self.tokens[self.at + 1])
                if handler is None:
                    raise self.unexpected("a module field", self.at + 1)
                self.at += 2
                handler(self)
            elif token == "(@custom":
                self.at += 1
                self._custom_section()
            elif self._whole:
                self.expect(")")
                break
            elif token:
                raise self.unexpected("a module field")
            else:
                break
        return self._finished()

    def _module_name(self) -> None:
        identifier = self.identifier()
        if identifier:
            self._names.module = identifier[1:]
        annotation = self.name_annotation()
        if annotation is not None:
            self._names.module = annotation
            if self.tokens[self.at] == "(@name":
                raise self.error("@name annotation: multiple module names")

    def _finished(self) -> Module:
        module = self._module
        module.types = self._spaces.types.types
        module.rec_groups = self._rec_groups
        if self._body.uses_data:
            module.data_count = len(module.data)
        self._identifiers_to_names()
        if self._names != NameSection():
            module.names = self._names
        self._place_custom_sections()
        return module

    def _identifiers_to_names(self) -> None:
        spaces = self._spaces
        names = self._names
        for space, target in (
            (spaces.types, names.types),
            (spaces.functions, names.functions),
            (spaces.tables, names.tables),
            (spaces.memories, names.memories),
            (spaces.globals, names.globals),
            (spaces.elements, names.elements),
            (spaces.data, names.data),
        ):
            annotated = dict(target)
            target.clear()
            every = {index: identifier[1:] for identifier, index in space.indices.items()} | annotated
            target.update(sorted(every.items()))

    def _read_names(self, target: dict[int, str], index: int) -> None:
        """Steps over a field's identifier, which has its index already, and takes the name of an annotation."""
        self.identifier()
        annotation = self.name_annotation()
        if annotation is not None:
            target[index] = annotation

    def _type(self) -> None:
        self.at -= 2
        self.skip()  # read by the first pass

    def _import(self) -> None:
        module = self.name()
        name = self.name()
        self.expect("(")
        kind = _KINDS.get(self.tokens[self.at])
        if kind is None:
            raise self.unexpected("`func`, `table`, `memory` or `global`")
        self.at += 1
        self._read_names(*self._next(kind))
        self._add_import(module, name, kind)
        self.expect(")")
        self.expect(")")

    def _next(self, kind: ExternKind) -> tuple[dict[int, str], int]:
        """The next index of a kind, with the map that holds the names of that kind."""
        names = self._names
        if kind == ExternKind.FUNC:
            self._functions += 1
            return names.functions, self._functions - 1
        if kind == ExternKind.TABLE:
            self._tables += 1
            return names.tables, self._tables - 1
        if kind == ExternKind.MEMORY:
            self._memories += 1
            return names.memories, self._memories - 1
        self._globals += 1
        return names.globals, self._globals - 1

    def _add_import(self, module: str, name: str, kind: ExternKind) -> None:
        """Reads the type of an import. Imports come first in their index spaces, hence in the text (6.6.13)."""
        if self._defined is not None:
            raise self.error(f"import after {self._defined}")
        type_: ImportType
        if kind == ExternKind.FUNC:
            index, params, results = read_type_use(self, self._spaces.types, [])
            type_ = self._spaces.types.matching(params, results) if index is None else index
        elif kind == ExternKind.TABLE:
            type_ = self.table_type()
        elif kind == ExternKind.MEMORY:
            type_ = self.memory_type()
        else:
            type_ = self.global_type()
        self._module.imports.append(Import(module, name, kind, type_))

    def _inline(self, kind: ExternKind) -> tuple[int, bool]:
        """What the four kinds of definitions have in common: identifier, inline exports, an inline import.

        Returns the index and whether it was an import, which is read to its end then.
        """
        names, index = self._next(kind)
        self._read_names(names, index)
        while self.open("export"):
            self._module.exports.append(Export(self.name(), kind, index))
            self.expect(")")
        if self.open("import"):
            module = self.name()
            name = self.name()
            self.expect(")")
            self._add_import(module, name, kind)
            self.expect(")")
            return index, True
        if self._defined is None:
            self._defined = _KIND_NAMES[kind]
        return index, False

    def _func(self) -> None:
        function, imported = self._inline(ExternKind.FUNC)
        if imported:
            return
        local_space = Space("local", "local")
        names: list[str] = []
        annotated: dict[int, str] = {}
        start = self.at
        index, params, results = read_type_use(self, self._spaces.types, names, annotated)
        self._add_locals(local_space, names, start)
        self._module.functions.append(self._spaces.types.matching(params, results) if index is None else index)
        # Threat: many functions of a type with many parameters; parameters that are not spelled out are only counted.
        local_space.count = len(params)
        names = []
        start = self.at
        first = local_space.count
        local_annotations: dict[int, str] = {}
        types = self.declarations("local", names, True, local_annotations)
        annotated.update((first + k, name) for k, name in local_annotations.items())
        self._add_locals(local_space, names, start)
        code = self._body.function(local_space)
        self.expect(")")
        runs = _runs(types)
        self._module.code.append(FunctionBody(runs, code))
        self._function_names(function, local_space, annotated)
        if self._body.hints:
            size = len(encode_unsigned(len(runs)))
            for n, t in runs:
                encoded = bytearray()
                write_value_type(encoded, t)
                size += len(encode_unsigned(n)) + len(encoded)
            self._hints.append((function, [(size + offset, hint) for offset, hint in self._body.hints]))

    def _add_locals(self, space: Space, names: list[str], start: int) -> None:
        for name in names:
            if name and name in space.indices:
                # Blame the second occurrence among the declarations just read.
                places = [k for k in range(start, self.at) if self.tokens[k] == name]
                raise self.error(f"duplicate local {name}", places[-1])
            space.add(self, start, name)

    def _function_names(self, function: int, space: Space, annotated: dict[int, str]) -> None:
        names = {index: identifier[1:] for identifier, index in space.indices.items()} | annotated
        if names:
            self._names.locals[function] = dict(sorted(names.items()))
        if self._body.label_names:
            self._names.labels[function] = dict(sorted(self._body.label_names.items()))

    def _table(self) -> None:
        index, imported = self._inline(ExternKind.TABLE)
        if imported:
            return
        start = self.at
        is_64 = self.address_type()
        if self.at_reference_type():
            element = self.reference_type()
            self._inline_elements(index, element, is_64)
            return
        self.at = start
        table = self.table_type()
        init: Expression | None = None
        if self.tokens[self.at] != ")":
            init = Expression(self._body.expression(False))
        self.expect(")")
        self._module.tables.append(Table(table, init))

    def _inline_elements(self, index: int, element: ValType, is_64: bool) -> None:
        """`reftype (elem ...)`: a table that is as large as the segment that fills it (section 6.6.7)."""
        self.expect("(")
        self.expect("elem")
        items: tuple[int, ...] | tuple[Expression, ...]
        if self.tokens[self.at] == "(":
            items = self._element_expressions()
        else:
            items = self._function_indices()
        self.expect(")")
        self.expect(")")
        uses_expressions = (bool(items) and isinstance(items[0], Expression)) or element != FUNCREF
        if uses_expressions:
            items = tuple([_function_reference(x) if isinstance(x, int) else x for x in items])
        t = element if uses_expressions else _FUNCTION_REFERENCE
        self._module.tables.append(Table(TableType(element, Limits(len(items), len(items)), is_64)))
        offset = _ZERO_64 if is_64 else _ZERO
        self._module.elements.append(ElementSegment(SegmentMode.ACTIVE, t, index, offset, items, uses_expressions))

    def _memory(self) -> None:
        index, imported = self._inline(ExternKind.MEMORY)
        if imported:
            return
        start = self.at
        is_64 = self.address_type()
        page_size_log2 = self.page_size()
        if self.open("data"):
            data = self.strings()
            self.expect(")")
            self.expect(")")
            pages = -(-len(data) >> page_size_log2)
            self._module.memories.append(MemoryType(Limits(pages, pages), is_64, False, page_size_log2))
            self._module.data.append(DataSegment(SegmentMode.ACTIVE, index, _ZERO_64 if is_64 else _ZERO, data))
            return
        self.at = start
        self._module.memories.append(self.memory_type())
        self.expect(")")

    def _global(self) -> None:
        _, imported = self._inline(ExternKind.GLOBAL)
        if imported:
            return
        t = self.global_type()
        init = Expression(self._body.expression(False))
        self.expect(")")
        self._module.globals.append(Global(t, init))

    def _export(self) -> None:
        name = self.name()
        self.expect("(")
        kind = _KINDS.get(self.tokens[self.at])
        if kind is None:
            if self.tokens[self.at] == "tag":
                raise self.unsupported(features.TAGS)
            raise self.unexpected("`func`, `table`, `memory` or `global`")
        self.at += 1
        index = self._by_kind[kind].read(self)
        self.expect(")")
        self.expect(")")
        self._module.exports.append(Export(name, kind, index))

    def _start(self) -> None:
        if self._module.start is not None:
            raise self.error("multiple start sections", self.at - 1)
        self._module.start = self._spaces.functions.read(self)
        self.expect(")")

    def _elem(self) -> None:
        self._read_names(self._names.elements, len(self._module.elements))
        mode = SegmentMode.PASSIVE
        table = 0
        offset: Expression | None = None
        bare = False  # an active segment without table use may list indices without `func`
        if self.take("declare"):
            mode = SegmentMode.DECLARATIVE
        elif self.open("table"):
            table = self._spaces.tables.read(self)
            self.expect(")")
            offset = self._offset()
        elif self.at_index():
            table = self._spaces.tables.read(self)
            offset = self._offset()
            bare = True
        elif self.tokens[self.at] == "(" and self.tokens[self.at + 1] not in ("ref", "item"):
            offset = self._offset()
            bare = True
        if offset is not None:
            mode = SegmentMode.ACTIVE
        element = _FUNCTION_REFERENCE
        items: tuple[int, ...] | tuple[Expression, ...]
        expressions = False
        if self.take("func") or (bare and (self.at_index() or self.tokens[self.at] == ")")):
            items = self._function_indices()
        else:
            element = self.reference_type()
            items = self._element_expressions()
            expressions = True
        self.expect(")")
        self._module.elements.append(ElementSegment(mode, element, table, offset, items, expressions))

    def _offset(self) -> Expression:
        """`(offset instr*)`, or one folded instruction."""
        if self.open("offset"):
            code = self._body.expression(False)
            self.expect(")")
        else:
            code = self._body.expression(True)
        return Expression(code)

    def _function_indices(self) -> tuple[int, ...]:
        items: list[int] = []
        functions = self._spaces.functions
        while self.at_index():
            items.append(functions.read(self))
        return tuple(items)

    def _element_expressions(self) -> tuple[Expression, ...]:
        items: list[Expression] = []
        while self.tokens[self.at] == "(":
            if self.open("item"):
                items.append(Expression(self._body.expression(False)))
                self.expect(")")
            else:
                items.append(Expression(self._body.expression(True)))
        return tuple(items)

    def _data(self) -> None:
        self._read_names(self._names.data, len(self._module.data))
        mode = SegmentMode.PASSIVE
        memory = 0
        offset: Expression | None = None
        if self.open("memory"):
            memory = self._spaces.memories.read(self)
            self.expect(")")
            offset = self._offset()
        elif self.at_index():
            memory = self._spaces.memories.read(self)
            offset = self._offset()
        elif self.tokens[self.at] == "(":
            offset = self._offset()
        if offset is not None:
            mode = SegmentMode.ACTIVE
        data = self.strings()
        self.expect(")")
        self._module.data.append(DataSegment(mode, memory, offset, data))

    # Custom sections

    def _custom_section(self) -> None:
        """`(@custom "name" place? "data"*)`; the reader stands behind `(@custom` (appendix A.6)."""
        if self.tokens[self.at][:1] != '"':
            raise self.error("@custom annotation: missing section name")
        raw = self.string()
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise self.error("@custom annotation: malformed UTF-8 encoding", self.at - 1) from None
        section, after = self._custom_place()
        data = self.strings()
        if self.tokens[self.at] != ")":
            raise self.error(f"@custom annotation: unexpected token {self.tokens[self.at]}")
        self.at += 1
        self._custom.setdefault((section, after), []).append((name, data))

    def _custom_place(self) -> tuple[int, bool]:
        """The section that the custom section stands next to, and on which side."""
        if not self.take("("):
            return _LAST, True
        word = self.tokens[self.at]
        if word not in ("before", "after"):
            raise self.error("@custom annotation: malformed placement")
        self.at += 1
        section = self.tokens[self.at]
        if word == "before" and section == "first":
            place = _FIRST, False
        elif word == "after" and section == "last":
            place = _LAST, True
        elif section in _SECTION_WORDS:
            place = _SECTION_WORDS[section], word == "after"
        else:
            raise self.error("@custom annotation: malformed section kind")
        self.at += 1
        self.expect(")")
        return place

    def _place_custom_sections(self) -> None:
        """Turns places into "behind section x", in the order in which the sections stand in the binary."""
        if self._hints:
            self._custom.setdefault((Section.CODE, False), []).append(
                ("metadata.code.branch_hint", _encode_hints(self._hints))
            )
        if not self._custom:
            return
        custom = self._module.custom
        before = 0
        places: list[tuple[int, int, bool]] = [(0, _FIRST, False)]
        for section in SECTION_ORDER:
            places += [(before, section, False), (section, section, True)]
            before = section
        for behind, section, after in places:
            for name, data in self._custom.get((section, after), ()):
                custom.append(CustomSection(name, data, behind))
        last = self._custom.get((_LAST, True), [])
        if last and self._module.names is not None:
            # The name section comes behind the last section of the specification, before what asks to be last.
            custom.append(CustomSection("name", encode_names(self._module.names), before))
        for name, data in last:
            custom.append(CustomSection(name, data, before))


_FUNCTION_REFERENCE: Final = ValType(FUNCREF | NON_NULL)
"""The elements of a segment that lists function indices."""


def _function_reference(function: int) -> Expression:
    """The constant expression that a function index in a segment of expressions stands for."""
    return Expression(bytes((Opcode.REF_FUNC,)) + encode_unsigned(function) + bytes((Opcode.END,)))


_ZERO: Final = Expression(bytes((Opcode.I32_CONST, 0, Opcode.END)))
_ZERO_64: Final = Expression(bytes((Opcode.I64_CONST, 0, Opcode.END)))

_FIELDS: Final[dict[str, Callable[[ModuleParser], None]]] = {
    "type": ModuleParser._type,
    "rec": ModuleParser._type,
    "import": ModuleParser._import,
    "func": ModuleParser._func,
    "table": ModuleParser._table,
    "memory": ModuleParser._memory,
    "global": ModuleParser._global,
    "export": ModuleParser._export,
    "start": ModuleParser._start,
    "elem": ModuleParser._elem,
    "data": ModuleParser._data,
}


def _runs(types: list[ValType]) -> tuple[tuple[int, ValType], ...]:
    """Run-length encoding of local declarations."""
    runs: list[tuple[int, ValType]] = []
    for t in types:
        if runs and runs[-1][1] == t:
            runs[-1] = (runs[-1][0] + 1, t)
        else:
            runs.append((1, t))
    return tuple(runs)


def _encode_hints(hints: list[tuple[int, list[tuple[int, int]]]]) -> bytes:
    """The content of the section `metadata.code.branch_hint` (branch hinting proposal)."""
    out = bytearray()
    write_unsigned(out, len(hints))
    for function, entries in hints:
        write_unsigned(out, function)
        write_unsigned(out, len(entries))
        for offset, hint in sorted(entries):
            write_unsigned(out, offset)
            write_unsigned(out, 1)
            write_unsigned(out, hint)
    return bytes(out)
