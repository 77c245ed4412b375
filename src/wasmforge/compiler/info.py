"""What the runtime must know of a compiled module besides its machine code: the module record of the image.

The compilers' link step makes a `CompiledModuleInfo` and stores `encode()` in the section `.wasmforge.info`; the
runtime reads it with `decode` when an image is loaded and never sees the `syntax.Module` it came from.

Encoding: a CRC-32 (u32) and a `marshal` value, format version 2, of plain tuples, bytes and integers. Version 2
because later versions write back-references that depend on reference counts, so that the same module would not
always give the same bytes; strings are stored as UTF-8 because interning shows in the encoding of `str`.
"""

from __future__ import annotations

import marshal
from _struct import Struct

from wasmforge.compiler.image import checksum
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.externs import Export, Import, ImportType, SegmentMode
from wasmforge.syntax.record import NamedTuple
from wasmforge.syntax.types import ExternKind, FuncType, GlobalType, Limits, MemoryType, TableType, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = ["CodeRange", "CompiledModuleInfo", "DataInfo", "ElementInfo", "GlobalInfo", "MemoryImage"]


class CodeRange(NamedTuple):
    """A piece of the text: offset of its first byte in `.text`, and its bytes."""

    start: int
    length: int


class GlobalInfo(NamedTuple):
    """A defined global; `init` is its constant expression, encoded, with the closing `end`."""

    type: GlobalType
    init: bytes


class ElementInfo(NamedTuple):
    """An element segment. `items` are function indices, or encoded constant expressions if `uses_expressions`.
    `table` and `table_offset` (an encoded constant expression) belong to active segments."""

    mode: SegmentMode
    type: ValType
    table: int
    table_offset: bytes | None
    items: tuple[int, ...] | tuple[bytes, ...]
    uses_expressions: bool


class DataInfo(NamedTuple):
    """A data segment that is not part of a memory image: `length` bytes at `start` of `.rodata.wasm`."""

    mode: SegmentMode
    memory: int
    memory_offset: bytes | None
    start: int
    length: int


class MemoryImage(NamedTuple):
    """The initial contents of a memory: `length` bytes at `image_offset` of `.wasmforge.memory` belong at address
    `memory_offset`. All three are multiples of `image.PAGE`; the rest of the memory is zero."""

    memory_offset: int
    image_offset: int
    length: int


_PAIR: Final = Struct("<II")
_CRC: Final = Struct("<I")


class CompiledModuleInfo:
    """The record. Everything is in index order; offsets are in bytes.

    - `name`: the module's name from the name section, or None.
    - `types`, `imports`, `exports`: as in `syntax.Module` (offsets into the binary are not kept).
    - `functions`: the type index of every defined function.
    - `tables`, `memories`, `globals`: the defined ones. `table_inits` has the initial value, a constant expression, of
      those tables, by position, that declare one.
    - `rec_groups`: as in `syntax.Module`.
    - `start`: index of the start function or None.
    - `elements`: all segments; active ones apply in order.
    - `data`: by index the data segments that instances deal with, active ones to be applied in this order; those that
      are in a memory image (24,000 in a CPython) only count for `num_data`, the size of the index space.
    - `memory_images`: memory index to `MemoryImage`, for memories whose initial contents are known (defined ones only).
    - `func_refs`: indices of the functions that escape, ascending; the k-th one's VMFuncRef stands at
      `VMContextOffsets.func_ref(k)`.
    - `array_to_wasm`: type index to trampoline, for every type index whose signature an escaping function has.
    - `wasm_to_array`: type index to trampoline, for every type index.
    - `dwarf`: name, start and length in `.wasmforge.dwarf` of the guest's debug sections.
    - `has_unparsed_debuginfo`: the module had debug sections that were not kept.
    """

    __slots__ = (
        "array_to_wasm",
        "data",
        "dwarf",
        "elements",
        "exports",
        "func_refs",
        "functions",
        "globals",
        "has_unparsed_debuginfo",
        "imports",
        "memories",
        "memory_images",
        "name",
        "num_data",
        "packed_function_offsets",
        "packed_function_ranges",
        "rec_groups",
        "start",
        "table_inits",
        "tables",
        "types",
        "wasm_to_array",
    )

    def __init__(self) -> None:
        self.name: str | None = None
        self.types: list[FuncType] = []
        self.imports: list[Import] = []
        self.functions: list[int] = []
        self.rec_groups: list[tuple[int, int]] = []
        self.tables: list[TableType] = []
        self.table_inits: dict[int, bytes] = {}
        self.memories: list[MemoryType] = []
        self.globals: list[GlobalInfo] = []
        self.exports: list[Export] = []
        self.start: int | None = None
        self.elements: list[ElementInfo] = []
        self.data: dict[int, DataInfo] = {}
        self.num_data = 0
        self.memory_images: dict[int, MemoryImage] = {}
        self.func_refs: list[int] = []
        self.array_to_wasm: dict[int, CodeRange] = {}
        self.wasm_to_array: dict[int, CodeRange] = {}
        self.dwarf: list[tuple[str, int, int]] = []
        self.has_unparsed_debuginfo = False
        # u32 pairs (text offset, length) and u32 (offset of the body in the binary), by defined function index:
        # packed, because a module of 10,000 functions would pay milliseconds for tuples that most runs never read.
        self.packed_function_ranges = b""
        self.packed_function_offsets = b""

    # --- Look-ups -------------------------------------------------------------------------------------------

    def num_imported(self, kind: ExternKind) -> int:
        return sum(i.kind == kind for i in self.imports)

    def all_functions(self) -> list[int]:
        """The type index of every function of the index space."""
        return [i.type for i in self.imports if isinstance(i.type, int)] + self.functions

    def all_tables(self) -> list[TableType]:
        return [i.type for i in self.imports if isinstance(i.type, TableType)] + self.tables

    def all_memories(self) -> list[MemoryType]:
        return [i.type for i in self.imports if isinstance(i.type, MemoryType)] + self.memories

    def all_globals(self) -> list[GlobalType]:
        return [i.type for i in self.imports if isinstance(i.type, GlobalType)] + [g.type for g in self.globals]

    def function_range(self, defined: int) -> CodeRange:
        """Where in the text the machine code of a defined function is."""
        if defined < 0:
            raise IndexError(defined)
        return CodeRange(*_PAIR.unpack_from(self.packed_function_ranges, defined * _PAIR.size))

    def function_offset(self, defined: int) -> int:
        """Position in the binary of the body of a defined function, from which Wasmtime counts too."""
        if defined < 0:
            raise IndexError(defined)
        return int.from_bytes(self.packed_function_offsets[4 * defined : 4 * defined + 4], "little")

    def function_at(self, text_offset: int) -> int | None:
        """The defined function whose machine code holds `text_offset`, or None (a trampoline, padding)."""
        from _bisect import bisect_right  # 0.2 ms, for backtraces only

        packed = memoryview(self.packed_function_ranges).cast("I")[::2]
        # Functions are laid out in index order, so their starts are sorted.
        k = bisect_right(packed, text_offset) - 1
        if k < 0:
            return None
        start, length = self.function_range(k)
        return k if text_offset < start + length else None

    # --- Encoding -------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The contents of the section `.wasmforge.info`."""
        body = marshal.dumps(
            (
                None if self.name is None else self.name.encode(),
                tuple((_encode_types(t.params), _encode_types(t.results)) for t in self.types),
                tuple(
                    (i.module.encode(), i.name.encode(), int(i.kind), _encode_import_type(i.type)) for i in self.imports
                ),
                tuple(self.functions),
                tuple(self.rec_groups),
                tuple(map(_encode_table, self.tables)),
                tuple(self.table_inits.items()),
                tuple(map(_encode_memory, self.memories)),
                tuple((int(g.type.content), int(g.type.mutable), g.init) for g in self.globals),
                tuple((e.name.encode(), int(e.kind), e.index) for e in self.exports),
                self.start,
                tuple(
                    (_MODES.index(e.mode), int(e.type), e.table, e.table_offset, e.items, int(e.uses_expressions))
                    for e in self.elements
                ),
                self.num_data,
                tuple((x, _MODES.index(d.mode), *d[1:]) for x, d in self.data.items()),
                tuple((x, *image) for x, image in sorted(self.memory_images.items())),
                tuple(self.func_refs),
                tuple((x, *r) for x, r in sorted(self.array_to_wasm.items())),
                tuple((x, *r) for x, r in sorted(self.wasm_to_array.items())),
                tuple((name.encode(), start, length) for name, start, length in self.dwarf),
                int(self.has_unparsed_debuginfo),
                self.packed_function_ranges,
                self.packed_function_offsets,
            ),
            2,
        )
        return _CRC.pack(checksum(body)) + body

    @classmethod
    def decode(cls, data: bytes | memoryview) -> CompiledModuleInfo:
        """Reads what `encode` wrote. Raises `WasmtimeError` when it is damaged."""
        view = memoryview(data)
        if len(view) < _CRC.size or _CRC.unpack_from(view)[0] != checksum(view[_CRC.size :]):
            raise WasmtimeError("damaged compiled module: the checksum of its module record does not match")
        try:
            return cls._from_fields(marshal.loads(view[_CRC.size :]))
        except (EOFError, TypeError, ValueError, IndexError) as e:
            raise WasmtimeError(f"damaged compiled module: its module record cannot be read ({e})") from e

    @classmethod
    def _from_fields(cls, fields: Any) -> CompiledModuleInfo:
        info = cls()
        (
            name,
            types,
            imports,
            functions,
            rec_groups,
            tables,
            table_inits,
            memories,
            global_variables,
            exports,
            info.start,
            elements,
            info.num_data,
            data,
            memory_images,
            func_refs,
            array_to_wasm,
            wasm_to_array,
            dwarf,
            unparsed,
            info.packed_function_ranges,
            info.packed_function_offsets,
        ) = fields
        info.name = None if name is None else name.decode()
        info.types = [FuncType(_value_types(params), _value_types(results)) for params, results in types]
        info.imports = [
            Import(module.decode(), field.decode(), ExternKind(kind), _decode_import_type(kind, t))
            for module, field, kind, t in imports
        ]
        info.functions = list(functions)
        info.rec_groups = list(rec_groups)
        info.tables = list(map(_decode_table, tables))
        info.table_inits = dict(table_inits)
        info.memories = list(map(_decode_memory, memories))
        info.globals = [
            GlobalInfo(GlobalType(ValType(t), bool(mutable)), init) for t, mutable, init in global_variables
        ]
        info.exports = [Export(field.decode(), ExternKind(kind), x) for field, kind, x in exports]
        info.elements = [
            ElementInfo(_MODES[mode], ValType(t), table, offset, items, bool(uses))
            for mode, t, table, offset, items, uses in elements
        ]
        info.data = {
            x: DataInfo(_MODES[mode], memory, offset, start, length) for x, mode, memory, offset, start, length in data
        }
        info.memory_images = {x: MemoryImage(*image) for x, *image in memory_images}
        info.func_refs = list(func_refs)
        info.array_to_wasm = {x: CodeRange(start, length) for x, start, length in array_to_wasm}
        info.wasm_to_array = {x: CodeRange(start, length) for x, start, length in wasm_to_array}
        info.dwarf = [(section.decode(), start, length) for section, start, length in dwarf]
        info.has_unparsed_debuginfo = bool(unparsed)
        return info


_MODES: Final = (SegmentMode.ACTIVE, SegmentMode.PASSIVE, SegmentMode.DECLARATIVE)


def _encode_types(types: tuple[ValType, ...]) -> bytes | tuple[int, ...]:
    """Bytes where the types allow it, which most modules do."""
    return bytes(types) if max(types, default=0) < 256 else tuple(map(int, types))


def _value_types(encoded: bytes | tuple[int, ...]) -> tuple[ValType, ...]:
    return tuple(map(ValType, encoded))


def _encode_table(t: TableType) -> tuple[Any, ...]:
    return (int(t.element), t.limits.minimum, t.limits.maximum, int(t.is_64))


def _decode_table(fields: tuple[Any, ...]) -> TableType:
    element, minimum, maximum, is_64 = fields
    return TableType(ValType(element), Limits(minimum, maximum), bool(is_64))


def _encode_memory(t: MemoryType) -> tuple[Any, ...]:
    return (t.limits.minimum, t.limits.maximum, int(t.is_64), int(t.shared), t.page_size_log2)


def _decode_memory(fields: tuple[Any, ...]) -> MemoryType:
    minimum, maximum, is_64, shared, page_size_log2 = fields
    return MemoryType(Limits(minimum, maximum), bool(is_64), bool(shared), page_size_log2)


def _encode_import_type(t: ImportType) -> Any:
    if isinstance(t, int):
        return t
    if isinstance(t, TableType):
        return _encode_table(t)
    if isinstance(t, MemoryType):
        return _encode_memory(t)
    return (int(t.content), int(t.mutable))


def _decode_import_type(kind: int, fields: Any) -> ImportType:
    if kind == ExternKind.FUNC:
        return int(fields)
    if kind == ExternKind.TABLE:
        return _decode_table(fields)
    if kind == ExternKind.MEMORY:
        return _decode_memory(fields)
    content, mutable = fields
    return GlobalType(ValType(content), bool(mutable))
