"""Value types, function types and the types of imports and exports (specification, section 2.3).

A value type is a plain integer, the byte that encodes it, so that the decoder and the validator compare
numbers and mypyc keeps them unboxed. The decoder and the text parser make these; everyone reads them.
"""

from __future__ import annotations

from wasmforge.syntax.record import IntEnum, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NewType

__all__ = [
    "EXTERNREF",
    "F32",
    "F64",
    "FUNCREF",
    "I32",
    "I64",
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
    "value_type_name",
]

if TYPE_CHECKING:
    ValType = NewType("ValType", int)
else:
    ValType = int
"""A value type: the byte of the binary format (specification, section 5.3)."""

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

PAGE_SIZE: Final = 65536
"""Bytes in a page of linear memory (specification, section 4.2.8), unless its type names another size."""


def value_type_name(t: int) -> str:
    """The name of a value type as the text format spells it."""
    return VALUE_TYPES.get(ValType(t), f"<value type {t:#x}>")


@record(frozen=True, slots=True)
class FuncType:
    """A function type: parameters to results."""

    params: tuple[ValType, ...]
    results: tuple[ValType, ...]

    def __str__(self) -> str:
        params = " ".join(map(value_type_name, self.params))
        results = " ".join(map(value_type_name, self.results))
        return f"[{params}] -> [{results}]"


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
