"""Value types, function types and the types of imports and exports (specification, section 2.3).

A value type is a plain integer, so that the decoder and the validator compare numbers and mypyc keeps them unboxed:
for numbers, vectors and nullable references to abstract heap types the byte that encodes it; for other references

    heap type | NON_NULL?        heap type: that byte, or CONCRETE | type index << INDEX_SHIFT

so that the same type always has the same number. Type indices are those of a module's type space, in the runtime those
of the engine's registry. Bit 9 is free for what a later proposal says about a reference (exactness).

The decoder and the text parser make these; everyone reads them.
"""

from __future__ import annotations

from wasmforge.syntax.record import IntEnum, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NewType

__all__ = [
    "BOTTOM_REFERENCE",
    "CONCRETE",
    "EXTERNREF",
    "F32",
    "F64",
    "FUNCREF",
    "I32",
    "I64",
    "INDEX_SHIFT",
    "NON_NULL",
    "NUMBER_TYPES",
    "REFERENCE_TYPES",
    "V128",
    "VALUE_TYPES",
    "ExternKind",
    "FuncType",
    "GlobalType",
    "Limits",
    "MemoryType",
    "TableType",
    "ValType",
    "PAGE_SIZE",
    "concrete_type",
    "has_default",
    "is_reference",
    "machine_signature",
    "nullable",
    "representation",
    "type_index",
    "value_type_name",
    "with_index",
]

if TYPE_CHECKING:
    ValType = NewType("ValType", int)
else:
    ValType = int
"""A value type: the byte of the binary format (specification, section 5.3), or a reference type as above."""

I32: Final = ValType(0x7F)
I64: Final = ValType(0x7E)
F32: Final = ValType(0x7D)
F64: Final = ValType(0x7C)
V128: Final = ValType(0x7B)
FUNCREF: Final = ValType(0x70)
EXTERNREF: Final = ValType(0x6F)

VALUE_TYPES: Final[dict[ValType, str]] = {
    I32: "i32",
    I64: "i64",
    F32: "f32",
    F64: "f64",
    V128: "v128",
    FUNCREF: "funcref",
    EXTERNREF: "externref",
}
NUMBER_TYPES: Final = frozenset({I32, I64, F32, F64})
REFERENCE_TYPES: Final = frozenset({FUNCREF, EXTERNREF})
"""The reference types that every WebAssembly with references knows; `is_reference` tells for all."""

NON_NULL: Final = 0x80
CONCRETE: Final = 0x100
INDEX_SHIFT: Final = 10
BOTTOM_REFERENCE: Final = ValType(NON_NULL)
"""The reference without a heap type that validation finds in unreachable code; it matches every reference."""

_LAST_HEAP_TYPE: Final = 0x74

PAGE_SIZE: Final = 65536
"""Bytes in a page of linear memory (specification, section 4.2.8), unless its type names another size."""


def value_type_name(t: int) -> str:
    """The name of a value type as the text format spells it."""
    name = VALUE_TYPES.get(ValType(t))
    if name is not None:
        return name
    if t < NON_NULL:
        return f"<value type {t:#x}>"
    null = "" if t & NON_NULL else "null "
    if t >= CONCRETE:
        return f"(ref {null}{t >> INDEX_SHIFT})"
    heap = VALUE_TYPES.get(ValType(t & ~NON_NULL), "bottom")
    return f"(ref {null}{heap.removesuffix('ref')})"


def concrete_type(index: int, null: bool) -> ValType:
    """The reference to a type of an index space, nullable or not."""
    return ValType(CONCRETE | index << INDEX_SHIFT | (0 if null else NON_NULL))


def is_reference(t: int) -> bool:
    """Whether the values of a type are references."""
    return t <= _LAST_HEAP_TYPE or t >= NON_NULL


def nullable(t: int) -> bool:
    """Whether a reference type has the null reference."""
    return not t & NON_NULL


def has_default(t: int) -> bool:
    """Whether a local or a table element of the type has an initial value: all but references that cannot be null."""
    return t < NON_NULL or not t & NON_NULL


def type_index(t: int) -> int:
    """The type index that a reference type names, -1 if it names none."""
    return t >> INDEX_SHIFT if t >= CONCRETE else -1


def with_index(t: int, index: int) -> ValType:
    """A reference type that names a type index, with another one."""
    return ValType(t & (1 << INDEX_SHIFT) - 1 | index << INDEX_SHIFT)


def representation(t: int) -> ValType:
    """How compiled code and records hold a value: a number type, `FUNCREF` for the address of a VMFuncRef or
    `EXTERNREF` for a handle. All that compilers and gates need to know of a type."""
    if t < NON_NULL:
        return ValType(t)
    return FUNCREF if t >= CONCRETE else ValType(t & ~NON_NULL)


@record(frozen=True, slots=True)
class FuncType:
    """A function type: parameters to results."""

    params: tuple[ValType, ...]
    results: tuple[ValType, ...]

    def __str__(self) -> str:
        params = " ".join(map(value_type_name, self.params))
        results = " ".join(map(value_type_name, self.results))
        return f"[{params}] -> [{results}]"


def machine_signature(ft: FuncType) -> FuncType:
    """A function type with the `representation` of each type: all that calls depend on."""
    if max(ft.params + ft.results, default=0) < NON_NULL:
        return ft
    return FuncType(tuple(map(representation, ft.params)), tuple(map(representation, ft.results)))


@record(frozen=True, slots=True)
class Limits:
    """A size range of a table (in elements) or a memory (in pages). `maximum` is None when open."""

    minimum: int
    maximum: int | None = None


@record(frozen=True, slots=True)
class TableType:
    """The type of a table; `is_64` tells whether its indices are i64 (specification, section 2.3.11)."""

    element: ValType
    limits: Limits
    is_64: bool = False

    @property
    def address_type(self) -> ValType:
        """The type of its indices."""
        return I64 if self.is_64 else I32


@record(frozen=True, slots=True)
class MemoryType:
    """The type of a memory: limits in pages, whether addresses are i64, whether threads share it, and the binary
    logarithm of the bytes in a page (16 unless the custom-page-sizes proposal says otherwise)."""

    limits: Limits
    is_64: bool = False
    shared: bool = False
    page_size_log2: int = 16

    @property
    def address_type(self) -> ValType:
        """The type of its addresses."""
        return I64 if self.is_64 else I32

    @property
    def minimum_bytes(self) -> int:
        """The bytes that it has at least, at any time: memories never shrink."""
        return self.limits.minimum << self.page_size_log2


@record(frozen=True, slots=True)
class GlobalType:
    content: ValType
    mutable: bool


class ExternKind(IntEnum):
    """What an import or an export is; the numbers are those of the binary format (section 5.5.5)."""

    FUNC = 0
    TABLE = 1
    MEMORY = 2
    GLOBAL = 3
