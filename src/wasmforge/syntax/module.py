"""The module record (specification, section 2.5): what the decoder and the text parser produce, and the
only form of a module that the validator, the compilers, the encoder and the printer take.

Function bodies and constant expressions stay encoded: they are walked by plain loops over bytes, and a
26 MB module would not fit comfortably into instruction objects. `binary.instructions` iterates over them.
"""

from __future__ import annotations

from wasmforge.syntax.externs import Export, Import, ImportType, SegmentMode
from wasmforge.syntax.record import field, record
from wasmforge.syntax.types import ExternKind, FuncType, GlobalType, MemoryType, TableType, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NewType

__all__ = [
    "CustomSection",
    "DataSegment",
    "DefinedFuncIndex",
    "ElementSegment",
    "Export",
    "Expression",
    "FuncIndex",
    "FunctionBody",
    "Global",
    "Import",
    "ImportType",
    "Module",
    "NameSection",
    "SegmentMode",
    "Table",
]

if TYPE_CHECKING:
    FuncIndex = NewType("FuncIndex", int)
    """An index into the function index space: imports first, then definitions."""

    DefinedFuncIndex = NewType("DefinedFuncIndex", int)
    """An index into the defined functions only."""
else:
    FuncIndex = DefinedFuncIndex = int


@record(frozen=True, slots=True)
class Expression:
    """A constant expression, encoded, its closing `end` included.

    `offset` is the position of its first byte in the binary (0 when it came from text).
    """

    code: bytes
    offset: int = 0


@record(frozen=True, slots=True)
class FunctionBody:
    """One entry of the code section.

    `locals` is run-length encoded as in the binary, `(count, type)` pairs without the parameters. `code` is
    the encoded instruction sequence with its closing `end`; `offset` the position of `code[0]` in the binary, `start`
    that of the first byte of the body, where the locals are.
    """

    locals: tuple[tuple[int, ValType], ...]
    code: bytes
    offset: int = 0
    start: int = 0


@record(frozen=True, slots=True)
class Table:
    """`init` is what the elements are at first, null when it is None."""

    type: TableType
    init: Expression | None = None


@record(frozen=True, slots=True)
class Global:
    type: GlobalType
    init: Expression


@record(frozen=True, slots=True)
class ElementSegment:
    """`table` and `offset` mean something for active segments only. `items` is a list of function indices
    when the binary used the short form (`uses_expressions` false), of constant expressions otherwise."""

    mode: SegmentMode
    type: ValType
    table: int
    table_offset: Expression | None
    items: tuple[int, ...] | tuple[Expression, ...]
    uses_expressions: bool
    offset: int = 0


@record(frozen=True, slots=True)
class DataSegment:
    """`memory` and `memory_offset` mean something for active segments only."""

    mode: SegmentMode
    memory: int
    memory_offset: Expression | None
    data: bytes
    offset: int = 0


@record(frozen=True, slots=True)
class CustomSection:
    """`after` is the id of the non-custom section that it follows (0 at the start)."""

    name: str
    data: bytes
    after: int
    offset: int = 0


@record(slots=True)
class NameSection:
    """The custom section `name` (specification, appendix A.5), decoded leniently: a damaged one is ignored."""

    module: str | None = None
    functions: dict[int, str] = field(default_factory=dict)
    locals: dict[int, dict[int, str]] = field(default_factory=dict)
    labels: dict[int, dict[int, str]] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)
    tables: dict[int, str] = field(default_factory=dict)
    memories: dict[int, str] = field(default_factory=dict)
    globals: dict[int, str] = field(default_factory=dict)
    elements: dict[int, str] = field(default_factory=dict)
    data: dict[int, str] = field(default_factory=dict)


@record(slots=True)
class Module:
    """A module. Lists hold definitions in index order; imports are not repeated in them.

    `rec_groups` are the groups of more than one type, as index of the first type and number of types; every other type
    is a group of its own (specification, section 2.3.9).
    """

    types: list[FuncType] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    memories: list[MemoryType] = field(default_factory=list)
    globals: list[Global] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    start: int | None = None
    elements: list[ElementSegment] = field(default_factory=list)
    data_count: int | None = None
    code: list[FunctionBody] = field(default_factory=list)
    data: list[DataSegment] = field(default_factory=list)
    custom: list[CustomSection] = field(default_factory=list)
    names: NameSection | None = None
    start_offset: int = 0
    rec_groups: list[tuple[int, int]] = field(default_factory=list)

    def imports_of(self, kind: ExternKind) -> Iterator[Import]:
        return (i for i in self.imports if i.kind == kind)

    def all_functions(self) -> list[int]:
        """The type index of every function of the index space."""
        return [i.type for i in self.imports_of(ExternKind.FUNC) if isinstance(i.type, int)] + self.functions

    def all_tables(self) -> list[TableType]:
        return [i.type for i in self.imports_of(ExternKind.TABLE) if isinstance(i.type, TableType)] + [
            t.type for t in self.tables
        ]

    def all_memories(self) -> list[MemoryType]:
        return [i.type for i in self.imports_of(ExternKind.MEMORY) if isinstance(i.type, MemoryType)] + self.memories

    def all_globals(self) -> list[GlobalType]:
        return [i.type for i in self.imports_of(ExternKind.GLOBAL) if isinstance(i.type, GlobalType)] + [
            g.type for g in self.globals
        ]

    def num_imported(self, kind: ExternKind) -> int:
        return sum(i.kind == kind for i in self.imports)
