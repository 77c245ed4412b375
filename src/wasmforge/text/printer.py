"""The printer: a `Module` to text that the parser turns into the same module again (specification, chapter 6).

Instructions are flat, a line each. Names of the name section become identifiers; a name that cannot be one, or that
is taken, becomes an annotation `(@name "...")`. The command line and `Module` tools use it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from wasmforge.binary import instructions
from wasmforge.binary.sections import Section
from wasmforge.syntax.canonical import groups
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.instructions import EMPTY_BLOCK, Immediate, Instruction, Opcode, block_result
from wasmforge.syntax.module import (
    CustomSection,
    DataSegment,
    ElementSegment,
    Expression,
    FunctionBody,
    Import,
    Module,
    NameSection,
    SegmentMode,
)
from wasmforge.syntax.types import (
    CONCRETE,
    NON_NULL,
    ExternKind,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
    ValType,
    nullable,
    type_index,
    value_type_name,
)
from wasmforge.text.literals import F32_FORMAT, F64_FORMAT, float_text
from wasmforge.text.vectors import vector_text

__all__ = ["print_functions", "print_module"]

_MOST_DECLARATIONS: Final = 10_000_000
"""Parameters, results and locals that are printed, in all functions together. Threat: a few bytes of a module that was
not validated declare four billion locals, or another function of a type with a million parameters."""
_DEEPEST_INDENT: Final = 40
"""Levels that are indented. Threat: n nested blocks with full indentation are n * n characters."""

_IDENTIFIER: Final = re.compile(r"[0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]+")
_PLAIN_BYTES: Final = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\')
_BYTES: Final = tuple(chr(b) if b in _PLAIN_BYTES else f"\\{b:02x}" for b in range(256))
_KINDS: Final = ("func", "table", "memory", "global")
"""By `ExternKind`."""
_SECTIONS: Final[dict[int, str]] = {
    Section.TYPE: "type",
    Section.IMPORT: "import",
    Section.FUNCTION: "func",
    Section.TABLE: "table",
    Section.MEMORY: "memory",
    Section.GLOBAL: "global",
    Section.EXPORT: "export",
    Section.START: "start",
    Section.ELEMENT: "elem",
    Section.DATA_COUNT: "datacount",
    Section.CODE: "code",
    Section.DATA: "data",
}


def print_module(module: Module) -> str:
    """The module in the text format.

    Parsing the text gives the same module, with these exceptions: the choice between several encodings of the same
    thing, a data count section that nothing needs, and names of things that do not exist. Raises `WasmtimeError` when
    a function body, which decoding leaves alone, is none, or declares more locals than can be printed.
    """
    return "\n".join(_Printer(module).lines()) + "\n"


def print_functions(module: Module) -> Iterator[list[tuple[str, int | None]]]:
    """The defined functions of a module in the text format, a list of lines each. With every line that is an
    instruction comes its position in the binary. Raises as `print_module` does.
    """
    printer = _Printer(module)
    imported = module.num_imported(ExternKind.FUNC)
    for k, (x, body) in enumerate(zip(module.functions, module.code, strict=True), imported):
        lines = list(printer._function(k, x, body))
        positions = [i.offset for i in instructions(body.code, body.offset)]
        # A line an instruction, but for the last `end`, which is the closing parenthesis.
        first = len(lines) - len(positions)
        yield [(line, positions[n - first] if n >= first else None) for n, line in enumerate(lines)]


def _bytes_literal(data: bytes) -> str:
    return '"' + "".join([_BYTES[b] for b in data]) + '"'


def _string_literal(text: str) -> str:
    """A name as a string. Characters that are not printable, or that change how text is shown, are escaped."""
    parts = []
    for c in text:
        if c in '"\\':
            parts.append("\\" + c)
        elif c.isprintable():
            parts.append(c)
        else:
            parts.append(f"\\u{{{ord(c):x}}}")
    return '"' + "".join(parts) + '"'


def _identifier(name: str) -> str:
    return "$" + (name if _IDENTIFIER.fullmatch(name) else _string_literal(name))


class _Names:
    """How the items of one index space are defined and referred to."""

    def __init__(self, names: dict[int, str]) -> None:
        self._identifiers: dict[int, str] = {}
        self._annotations: dict[int, str] = {}
        taken: set[str] = set()
        for index, name in names.items():
            if name and name not in taken:
                taken.add(name)
                self._identifiers[index] = _identifier(name)
            else:
                self._annotations[index] = f"(@name {_string_literal(name)})"

    def definition(self, index: int) -> str:
        """What stands behind the keyword of a definition."""
        name = self._identifiers.get(index) or self._annotations.get(index)
        return f"{name} (;{index};)" if name else f"(;{index};)"

    def local(self, index: int) -> str:
        """The same for a local; empty when it has no name."""
        return self._identifiers.get(index) or self._annotations.get(index) or ""

    def reference(self, index: int) -> str:
        return self._identifiers.get(index) or str(index)


class _Printer:
    def __init__(self, module: Module) -> None:
        self.module = module
        names = NameSection() if module.names is None else module.names
        self.names = names
        self.types = _Names(names.types)
        self.functions = _Names(names.functions)
        self.tables = _Names(names.tables)
        self.memories = _Names(names.memories)
        self.globals = _Names(names.globals)
        self.elements = _Names(names.elements)
        self.data = _Names(names.data)
        self.by_kind = (self.functions, self.tables, self.memories, self.globals)
        self.declarations = 0
        self.locals = _Names({})
        self.labels = _Labels({})

    def lines(self) -> Iterator[str]:
        yield f"(module{self._module_name()}"
        for field in self._fields():
            yield "  " + field
        yield ")"

    def _module_name(self) -> str:
        name = self.names.module
        if name is None:
            return ""
        return f" {_identifier(name)}" if name else ' (@name "")'

    def _fields(self) -> Iterator[str]:
        module = self.module
        for start, end in groups(len(module.types), module.rec_groups):
            definitions = [
                f"(type {self.types.definition(k)} (func{self._signature(module.types[k])}))" for k in range(start, end)
            ]
            yield definitions[0] if end == start + 1 else f"(rec {' '.join(definitions)})"
        counts = [0, 0, 0, 0]
        for i in module.imports:
            yield self._import(i, counts)
        for k, table in enumerate(module.tables, counts[ExternKind.TABLE]):
            init = "" if table.init is None else " " + self._flat(table.init)
            yield f"(table {self.tables.definition(k)} {self._table_type(table.type)}{init})"
        for k, memory in enumerate(module.memories, counts[ExternKind.MEMORY]):
            yield f"(memory {self.memories.definition(k)} {_memory_type(memory)})"
        for k, g in enumerate(module.globals, counts[ExternKind.GLOBAL]):
            yield f"(global {self.globals.definition(k)} {self._global_type(g.type)} {self._flat(g.init)})"
        for e in module.exports:
            name = _string_literal(e.name)
            yield f"(export {name} ({_KINDS[e.kind]} {self.by_kind[e.kind].reference(e.index)}))"
        if module.start is not None:
            yield f"(start {self.functions.reference(module.start)})"
        for k, segment in enumerate(module.elements):
            yield self._element_segment(k, segment)
        for k, (x, body) in enumerate(zip(module.functions, module.code, strict=True), counts[ExternKind.FUNC]):
            yield from self._function(k, x, body)
        for k, data in enumerate(module.data):
            yield self._data_segment(k, data)
        yield from self._custom_sections()

    def _import(self, i: Import, counts: list[int]) -> str:
        definition = self.by_kind[i.kind].definition(counts[i.kind])
        counts[i.kind] += 1
        if isinstance(i.type, TableType):
            description = self._table_type(i.type)
        elif isinstance(i.type, MemoryType):
            description = _memory_type(i.type)
        elif isinstance(i.type, GlobalType):
            description = self._global_type(i.type)
        else:
            description = f"(type {self.types.reference(i.type)})"
        place = f"{_string_literal(i.module)} {_string_literal(i.name)}"
        return f"(import {place} ({_KINDS[i.kind]} {definition} {description}))"

    # Segments and custom sections

    def _flat(self, expression: Expression) -> str:
        """A constant expression on one line, without its closing `end`. It may be one that validation would refuse."""
        words = [self._words(i) for i in instructions(expression.code)]
        return " ".join(words[:-1])

    def _offset(self, expression: Expression) -> str:
        words = self._flat(expression)
        return f"(offset {words})" if words else "(offset)"

    def _element_segment(self, index: int, segment: ElementSegment) -> str:
        parts = [f"(elem {self.elements.definition(index)}"]
        if segment.mode is SegmentMode.DECLARATIVE:
            parts.append("declare")
        elif segment.mode is SegmentMode.ACTIVE and segment.table_offset is not None:
            if segment.table:
                parts.append(f"(table {self.tables.reference(segment.table)})")
            parts.append(self._offset(segment.table_offset))
        parts.append(self._type_name(segment.type) if segment.uses_expressions else "func")
        for item in segment.items:
            if isinstance(item, Expression):
                parts.append(f"(item {self._flat(item)})")
            else:
                parts.append(self.functions.reference(item))
        return " ".join(parts) + ")"

    def _data_segment(self, index: int, segment: DataSegment) -> str:
        parts = [f"(data {self.data.definition(index)}"]
        if segment.mode is SegmentMode.ACTIVE and segment.memory_offset is not None:
            if segment.memory:
                parts.append(f"(memory {self.memories.reference(segment.memory)})")
            parts.append(self._offset(segment.memory_offset))
        parts.append(_bytes_literal(segment.data))
        return " ".join(parts) + ")"

    def _custom_sections(self) -> Iterator[str]:
        """Custom sections with their places. Those behind the name section, which the parser writes from the
        identifiers, ask to be last."""
        behind_names = False
        for custom in self.module.custom:
            if custom.name == "name" and not behind_names:
                behind_names = True
                continue
            place = _place(custom, behind_names)
            yield f"(@custom {_string_literal(custom.name)}{place} {_bytes_literal(custom.data)})"

    # Functions

    def _function(self, index: int, type_index: int, body: FunctionBody) -> Iterator[str]:
        types = self.module.types
        ft = types[type_index] if type_index < len(types) else None
        self.declarations += sum(count for count, _ in body.locals)
        if ft is not None:
            self.declarations += len(ft.params) + len(ft.results)
        if self.declarations > _MOST_DECLARATIONS:
            raise WasmtimeError(f"too many parameters and locals to print, in function {index}")
        self.locals = _Names(self.names.locals.get(index, {}))
        self.labels = _Labels(self.names.labels.get(index, {}))
        head = f"(func {self.functions.definition(index)} (type {self.types.reference(type_index)})"
        count = 0
        if ft is not None:
            head += self._declarations("param", ft.params, 0)
            head += self._results(ft.results)
            count = len(ft.params)
        yield head
        local_types = [t for n, t in body.locals for _ in range(n)]
        if local_types:
            yield "  " + self._declarations("local", local_types, count).lstrip()
        yield from self._body(body)
        yield ")"

    def _declarations(self, keyword: str, types: Iterable[ValType], first: int) -> str:
        """Parameters or locals: those with names alone, the others together."""
        out: list[str] = []
        together: list[str] = []
        for k, t in enumerate(types, first):
            name = self.locals.local(k)
            if name:
                if together:
                    out.append(f" ({keyword} {' '.join(together)})")
                    together = []
                out.append(f" ({keyword} {name} {self._type_name(t)})")
            else:
                together.append(self._type_name(t))
        if together:
            out.append(f" ({keyword} {' '.join(together)})")
        return "".join(out)

    def _body(self, body: FunctionBody) -> Iterator[str]:
        """The instructions, a line each. The `end` of the function is its closing parenthesis."""
        depth = 1
        last = body.offset + len(body.code) - 1
        for i in instructions(body.code, body.offset):
            opcode = i.row.opcode
            if opcode == Opcode.END:
                if i.offset == last:
                    return
                depth = max(depth - 1, 1)
                self.labels.close()
                yield _indent(depth) + "end"
            elif opcode == Opcode.ELSE:
                yield _indent(max(depth - 1, 1)) + "else"
            elif opcode in (Opcode.BLOCK, Opcode.LOOP, Opcode.IF):
                yield f"{_indent(depth)}{i.row.mnemonic}{self.labels.open()}{self._block_type(i.immediates[0])}"
                depth += 1
            else:
                yield _indent(depth) + self._words(i)

    def _block_type(self, t: int) -> str:
        if t >= 0:
            return f" (type {self.types.reference(t)})"
        return "" if t == EMPTY_BLOCK else f" (result {self._type_name(block_result(t))})"

    # Types

    def _type_name(self, t: int) -> str:
        if t < CONCRETE:
            return value_type_name(t)
        return f"(ref {'null ' if nullable(t) else ''}{self._heap_type(t)})"

    def _heap_type(self, t: int) -> str:
        if t >= CONCRETE:
            return self.types.reference(type_index(t))
        return value_type_name(t & ~NON_NULL).removesuffix("ref")

    def _type_names(self, types: Iterable[int]) -> str:
        return " ".join(map(self._type_name, types))

    def _results(self, types: tuple[ValType, ...]) -> str:
        return f" (result {self._type_names(types)})" if types else ""

    def _signature(self, ft: FuncType) -> str:
        params = f" (param {self._type_names(ft.params)})" if ft.params else ""
        return params + self._results(ft.results)

    def _table_type(self, t: TableType) -> str:
        return f"{'i64 ' if t.is_64 else ''}{_limits(t.limits)} {self._type_name(t.element)}"

    def _global_type(self, t: GlobalType) -> str:
        return f"(mut {self._type_name(t.content)})" if t.mutable else self._type_name(t.content)

    # Instructions

    def _words(self, i: Instruction) -> str:
        """An instruction other than those of blocks, with its immediates in the order of the text."""
        if not i.immediates:
            return i.row.mnemonic
        if i.row.immediates[0] == Immediate.BLOCK_TYPE:
            return i.row.mnemonic + self._block_type(i.immediates[0])
        if i.row.immediates[0] == Immediate.MEMARG:
            words = _memory_argument(i, self.memories)
        else:
            words = _SHOWN[i.row.immediates](self, i.immediates)
        return f"{i.row.mnemonic} {words}" if words else i.row.mnemonic


class _Labels:
    """The labels in scope, to name the targets of branches."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._count = 0
        self._stack: list[str] = []
        self._bound: dict[str, list[int]] = {}

    def open(self) -> str:
        """Enters a block; returns what stands behind its mnemonic."""
        name = self._names.get(self._count)
        self._count += 1
        identifier = _identifier(name) if name else ""
        self._stack.append(identifier)
        if identifier:
            self._bound.setdefault(identifier, []).append(len(self._stack))
            return " " + identifier
        return "" if name is None else ' (@name "")'

    def close(self) -> None:
        if self._stack:
            identifier = self._stack.pop()
            if identifier:
                self._bound[identifier].pop()

    def reference(self, label: int) -> str:
        """A branch target: by name, unless an inner block has the same one."""
        depth = len(self._stack) - label
        if depth < 1:
            return str(label)
        identifier = self._stack[depth - 1]
        return identifier if identifier and self._bound[identifier][-1] == depth else str(label)


def _indent(depth: int) -> str:
    return "  " * min(depth, _DEEPEST_INDENT)


def _limits(limits: Limits) -> str:
    return f"{limits.minimum}" if limits.maximum is None else f"{limits.minimum} {limits.maximum}"


def _memory_type(t: MemoryType) -> str:
    pages = "" if t.page_size_log2 == 16 else f" (pagesize {1 << t.page_size_log2})"
    return f"{'i64 ' if t.is_64 else ''}{_limits(t.limits)}{' shared' if t.shared else ''}{pages}"


def _place(custom: CustomSection, behind_names: bool) -> str:
    if custom.after == 0:
        return " (before first)"
    if behind_names:
        return ""
    return f" (after {_SECTIONS.get(custom.after, 'last')})"


def _memory_argument(i: Instruction, memories: _Names) -> str:
    align, memory, offset = i.immediates[0]
    words = []
    if memory:
        words.append(memories.reference(memory))
    if offset:
        words.append(f"offset={offset}")
    if 1 << align != i.row.access:
        words.append(f"align={1 << align}")
    if len(i.immediates) > 1:
        words.append(str(i.immediates[1]))  # the lane
    return " ".join(words)


_Show = Callable[[_Printer, tuple[Any, ...]], str]


def _optional(printer_names: Callable[[_Printer], _Names]) -> _Show:
    """An index that is left out when it is 0."""
    return lambda p, v: printer_names(p).reference(v[0]) if v[0] else ""


def _segment_and(segments: Callable[[_Printer], _Names], targets: Callable[[_Printer], _Names]) -> _Show:
    """`table.init` and `memory.init`: in the text the table or memory comes first, and may be left out when 0."""
    return lambda p, v: (f"{targets(p).reference(v[1])} " if v[1] else "") + segments(p).reference(v[0])


def _pair(names: Callable[[_Printer], _Names]) -> _Show:
    return lambda p, v: f"{names(p).reference(v[0])} {names(p).reference(v[1])}" if v[0] or v[1] else ""


def _tables(p: _Printer) -> _Names:
    return p.tables


def _memories(p: _Printer) -> _Names:
    return p.memories


def _elements(p: _Printer) -> _Names:
    return p.elements


def _data(p: _Printer) -> _Names:
    return p.data


_SHOWN: Final[dict[tuple[Immediate, ...], _Show]] = {
    (Immediate.LABEL,): lambda p, v: p.labels.reference(v[0]),
    (Immediate.LABEL_TABLE,): lambda p, v: " ".join(map(p.labels.reference, v[0])),
    (Immediate.FUNC,): lambda p, v: p.functions.reference(v[0]),
    (Immediate.LOCAL,): lambda p, v: p.locals.reference(v[0]),
    (Immediate.GLOBAL,): lambda p, v: p.globals.reference(v[0]),
    (Immediate.ELEM,): lambda p, v: p.elements.reference(v[0]),
    (Immediate.DATA,): lambda p, v: p.data.reference(v[0]),
    (Immediate.TYPE,): lambda p, v: p.types.reference(v[0]),
    (Immediate.ORDERING,): lambda p, v: "",
    (Immediate.TABLE,): _optional(_tables),
    (Immediate.MEMORY,): _optional(_memories),
    (Immediate.ELEM, Immediate.TABLE): _segment_and(_elements, _tables),
    (Immediate.DATA, Immediate.MEMORY): _segment_and(_data, _memories),
    (Immediate.TABLE, Immediate.TABLE): _pair(_tables),
    (Immediate.MEMORY, Immediate.MEMORY): _pair(_memories),
    (Immediate.TYPE, Immediate.TABLE): lambda p, v: (
        (f"{p.tables.reference(v[1])} " if v[1] else "") + f"(type {p.types.reference(v[0])})"
    ),
    (Immediate.I32_CONST,): lambda p, v: str(v[0]),
    (Immediate.I64_CONST,): lambda p, v: str(v[0]),
    (Immediate.F32_CONST,): lambda p, v: float_text(v[0], F32_FORMAT),
    (Immediate.F64_CONST,): lambda p, v: float_text(v[0], F64_FORMAT),
    (Immediate.V128_CONST,): lambda p, v: vector_text(v[0]),
    (Immediate.LANE,): lambda p, v: str(v[0]),
    (Immediate.LANES,): lambda p, v: " ".join(map(str, v[0])),
    (Immediate.REF_TYPE,): lambda p, v: p._heap_type(v[0]),
    (Immediate.SELECT_TYPES,): lambda p, v: f"(result {p._type_names(v[0])})",
}
"""How the immediates of an instruction are written, by their kinds. Memory arguments need the instruction's row."""
