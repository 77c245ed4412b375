"""Types as the embedder sees them: value, function, global, table and memory types, and what a module imports and
exports (specification, section 2.3). Programs build them to describe host objects; `Module` hands them out.

Each wraps the record of the same name in `syntax.types`, which is what every lower room works with. This module is
on the path of a process that only maps an image, so it imports neither `typing` nor `dataclasses` (20 ms of the
25 that such a process may take).
"""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.syntax import types as syntax
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import ClassVar

    from wasmforge.runtime import VMStore
    from wasmforge.runtime.type_registry import TypeCollection

__all__ = [
    "ExportType",
    "ExternType",
    "FuncType",
    "GlobalType",
    "ImportType",
    "Limits",
    "MemoryType",
    "TableType",
    "ValType",
]

# `anyref` is how the wasmtime package spells externref; programs that print types see the same word here.
_NAMES = {**syntax.VALUE_TYPES, syntax.EXTERNREF: "anyref"}

_MAX_TABLE_SIZE = (1 << 32) - 1
_MAX_TABLE_SIZE_64 = (1 << 64) - 1


class ValType(Managed):
    """A value type: `ValType.i32()` and so on. Instances compare by what they denote."""

    _code: syntax.ValType
    _owner: TypeCollection | None = None  # keeps the type that a reference type names

    def __init__(self) -> None:
        raise WasmtimeError("cannot construct directly")

    @classmethod
    def i32(cls) -> ValType:
        return _from_code(syntax.I32)

    @classmethod
    def i64(cls) -> ValType:
        return _from_code(syntax.I64)

    @classmethod
    def f32(cls) -> ValType:
        return _from_code(syntax.F32)

    @classmethod
    def f64(cls) -> ValType:
        return _from_code(syntax.F64)

    @classmethod
    def v128(cls) -> ValType:
        """A vector of 128 bits. The wasmtime package has no name for it."""
        return _from_code(syntax.V128)

    @classmethod
    def externref(cls) -> ValType:
        return _from_code(syntax.EXTERNREF)

    @classmethod
    def funcref(cls) -> ValType:
        return _from_code(syntax.FUNCREF)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ValType) and self._code == other._code and _same_engine(self._owner, other._owner)

    def __hash__(self) -> int:
        return hash(self._code)

    def __str__(self) -> str:
        return _NAMES.get(self._code) or syntax.value_type_name(self._code)

    __repr__ = __str__


def _from_code(code: syntax.ValType, owner: TypeCollection | None = None) -> ValType:
    """The embedder's object for a value type of `syntax`. `owner` is what keeps its type index alive, if it has one."""
    ty = ValType.__new__(ValType)
    ty._code = code
    if code >= syntax.CONCRETE:
        ty._owner = owner
    return ty


def _same_engine(a: TypeCollection | None, b: TypeCollection | None) -> bool:
    """Whether type indices mean the same for two owners."""
    return a is b or a is None or b is None or a.registry is b.registry


def _check_engine(vm: VMStore, owner: TypeCollection | None) -> None:
    """Raises WasmtimeError for a type that names types of another engine than the store's."""
    if owner is not None:
        if owner.registry is not vm.engine.types:
            raise WasmtimeError("a type refers to types of another engine")
        vm.keep_alive(owner)


def _owner_of(types: Iterable[object]) -> TypeCollection | None:
    """What keeps the types alive that some value types name. Raises WasmtimeError if they are of several engines."""
    owners = [ty._owner for ty in types if isinstance(ty, ValType) and ty._owner is not None]
    if not owners:
        return None
    if not all(_same_engine(owners[0], owner) for owner in owners):
        raise WasmtimeError("the types refer to types of several engines")
    if all(owner is owners[0] for owner in owners):
        return owners[0]
    from wasmforge.runtime.type_registry import TypeCollection

    codes = tuple([ty._code for ty in types if isinstance(ty, ValType)])
    return TypeCollection(owners[0].registry, (syntax.FuncType(codes, ()),), closed=True)


class FuncType(Managed):
    """The type of a function.

    Parameters:
        params: the types of the parameters, in order.
        results: the types of the results, in order.
    """

    _type: syntax.FuncType
    _owner: TypeCollection | None = None

    def __init__(self, params: Iterable[ValType], results: Iterable[ValType]) -> None:
        params, results = tuple(params), tuple(results)
        self._type = syntax.FuncType(_codes(params), _codes(results))
        self._owner = _owner_of(params + results)

    @classmethod
    def _wrap(cls, ty: syntax.FuncType, owner: TypeCollection | None = None) -> FuncType:
        self = cls.__new__(cls)
        self._type = ty
        self._owner = owner
        return self

    @property
    def params(self) -> list[ValType]:
        """The types of the parameters."""
        return [_from_code(t, self._owner) for t in self._type.params]

    @property
    def results(self) -> list[ValType]:
        """The types of the results."""
        return [_from_code(t, self._owner) for t in self._type.results]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FuncType) and self._type == other._type and _same_engine(self._owner, other._owner)

    def __hash__(self) -> int:
        return hash(self._type)

    def __repr__(self) -> str:
        return f"FuncType({self.params}, {self.results})"


def _codes(types: Iterable[ValType]) -> tuple[syntax.ValType, ...]:
    codes = []
    for ty in types:
        if not isinstance(ty, ValType):
            raise TypeError("expected ValType")
        codes.append(ty._code)
    return tuple(codes)


def _code(ty: object) -> syntax.ValType:
    if not isinstance(ty, ValType):
        raise TypeError("expected valtype")
    return ty._code


class GlobalType(Managed):
    """The type of a global variable: what it holds, and whether it may change."""

    _type: syntax.GlobalType
    _owner: TypeCollection | None = None

    def __init__(self, valtype: ValType, mutable: bool) -> None:
        self._type = syntax.GlobalType(_code(valtype), bool(mutable))
        self._owner = valtype._owner

    @classmethod
    def _wrap(cls, ty: syntax.GlobalType, owner: TypeCollection | None = None) -> GlobalType:
        self = cls.__new__(cls)
        self._type = ty
        self._owner = owner
        return self

    @property
    def content(self) -> ValType:
        """The type of the value."""
        return _from_code(self._type.content, self._owner)

    @property
    def mutable(self) -> bool:
        """Whether the value may change."""
        return self._type.mutable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GlobalType) and self._type == other._type and _same_engine(self._owner, other._owner)

    def __hash__(self) -> int:
        return hash(self._type)

    def __repr__(self) -> str:
        return f"GlobalType({self.content}, mutable={self.mutable})"


class Limits:
    """A range of sizes: pages of a memory, or elements of a table.

    Parameters:
        min: the initial size.
        max: how far it may grow, or None for as far as the store allows.
    """

    __slots__ = ("max", "min")

    def __init__(self, min: int, max: int | None) -> None:  # noqa: A002 - the package's parameter names
        self.min: int = min
        self.max: int | None = max

    @classmethod
    def _wrap(cls, limits: syntax.Limits) -> Limits:
        return cls(limits.minimum, limits.maximum)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limits) and self.min == other.min and self.max == other.max

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable, as in the package

    def __repr__(self) -> str:
        return f"Limits({self.min}, {self.max})"


def _checked_limits(limits: object) -> Limits:
    if not isinstance(limits, Limits):
        raise TypeError("expected Limits")
    if not isinstance(limits.min, int) or not (limits.max is None or isinstance(limits.max, int)):
        raise TypeError(f"limits must be integers, got {limits!r}")
    if limits.min < 0:
        raise WasmtimeError(f"minimum size must not be negative, got {limits.min}")
    return limits


class TableType(Managed):
    """The type of a table: what its elements are, its size in elements, and whether indices have 64 bits (memory64
    proposal)."""

    _type: syntax.TableType
    _owner: TypeCollection | None = None

    def __init__(self, valtype: ValType, limits: Limits, is_64: bool = False) -> None:
        limits = _checked_limits(limits)
        element = _code(valtype)
        if not syntax.is_reference(element):
            raise WasmtimeError("failed to allocate TableType")
        most = _MAX_TABLE_SIZE_64 if is_64 else _MAX_TABLE_SIZE
        if limits.min > most or (limits.max or 0) > most:
            raise WasmtimeError(f"table size must be at most {most} elements, got {limits!r}")
        self._type = syntax.TableType(element, syntax.Limits(limits.min, limits.max), bool(is_64))
        self._owner = valtype._owner

    @classmethod
    def _wrap(cls, ty: syntax.TableType, owner: TypeCollection | None = None) -> TableType:
        self = cls.__new__(cls)
        self._type = ty
        self._owner = owner
        return self

    @property
    def element(self) -> ValType:
        """The type of the elements, a reference type."""
        return _from_code(self._type.element, self._owner)

    @property
    def limits(self) -> Limits:
        """The size in elements."""
        return Limits._wrap(self._type.limits)

    @property
    def is_64(self) -> bool:
        """Whether indices have 64 bits."""
        return self._type.is_64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableType) and self._type == other._type and _same_engine(self._owner, other._owner)

    def __hash__(self) -> int:
        return hash(self._type)

    def __repr__(self) -> str:
        return f"TableType({self.element}, {self.limits!r}{', is_64=True' if self.is_64 else ''})"


class MemoryType(Managed):
    """The type of a linear memory.

    Parameters:
        limits: the size in pages.
        is_64: whether addresses have 64 bits (memory64 proposal).
        shared: whether threads share the memory (threads proposal); it needs a maximum.
        page_size_log2: the binary logarithm of the bytes in a page: 16, or 0 (custom-page-sizes proposal).
    """

    _type: syntax.MemoryType

    def __init__(self, limits: Limits, is_64: bool = False, shared: bool = False, page_size_log2: int = 16) -> None:
        if not isinstance(limits, Limits):
            raise TypeError("expected Limits")
        bits = 64 if is_64 else 32
        if limits.min >= 1 << bits:
            raise WasmtimeError("minimum size too large")
        if limits.max and limits.max >= 1 << bits:
            raise WasmtimeError("maximum size too large")
        limits = _checked_limits(limits)
        if shared and limits.max is None:
            raise WasmtimeError("shared memories must have a maximum size")
        if limits.max is not None and limits.max < limits.min:
            raise WasmtimeError("maximum page size cannot be smaller than the minimum page size")
        if page_size_log2 not in (0, 16):
            raise WasmtimeError(f"page size must be 2**16 or 2**0, but was given 2**{page_size_log2}")
        most = (1 << bits) >> page_size_log2
        if limits.min > most:
            raise WasmtimeError("minimum size is too large for this memory type's index type")
        if limits.max is not None and limits.max > most:
            raise WasmtimeError("maximum size is too large for this memory type's index type")
        self._type = syntax.MemoryType(syntax.Limits(limits.min, limits.max), bool(is_64), bool(shared), page_size_log2)

    @classmethod
    def _wrap(cls, ty: syntax.MemoryType) -> MemoryType:
        self = cls.__new__(cls)
        self._type = ty
        return self

    @property
    def limits(self) -> Limits:
        """The size in pages."""
        return Limits._wrap(self._type.limits)

    @property
    def is_64(self) -> bool:
        """Whether addresses have 64 bits."""
        return self._type.is_64

    @property
    def is_shared(self) -> bool:
        """Whether threads share the memory."""
        return self._type.shared

    @property
    def page_size(self) -> int:
        """Bytes in a page: 65536, or 1."""
        return 1 << self._type.page_size_log2

    @property
    def page_size_log2(self) -> int:
        """The binary logarithm of `page_size`."""
        return self._type.page_size_log2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryType) and self._type == other._type

    def __hash__(self) -> int:
        return hash(self._type)

    def __repr__(self) -> str:
        more = ", is_64=True" if self.is_64 else ""
        if self.is_shared:
            more += ", shared=True"
        if self.page_size_log2 != 16:
            more += f", page_size_log2={self.page_size_log2}"
        return f"MemoryType({self.limits!r}{more})"


ExternType = FuncType | TableType | MemoryType | GlobalType
"""The type of an import or an export."""


def _wrap_extern_type(
    ty: syntax.FuncType | syntax.TableType | syntax.MemoryType | syntax.GlobalType, owner: TypeCollection | None = None
) -> ExternType:
    """The embedder's object for the type of an import or export, with what keeps the types alive that it names."""
    if isinstance(ty, syntax.FuncType):
        return FuncType._wrap(ty, owner)
    if isinstance(ty, syntax.TableType):
        return TableType._wrap(ty, owner)
    if isinstance(ty, syntax.MemoryType):
        return MemoryType._wrap(ty)
    return GlobalType._wrap(ty, owner)


def _owner_in(vm: VMStore, ty: syntax.FuncType | syntax.TableType | syntax.GlobalType) -> TypeCollection | None:
    """What keeps the types alive that the type of something in a store names, beyond the store's life."""
    if isinstance(ty, syntax.FuncType):
        values = ty.params + ty.results
    else:
        values = (ty.element if isinstance(ty, syntax.TableType) else ty.content,)
    if max(values, default=0) < syntax.CONCRETE:
        return None
    from wasmforge.runtime.type_registry import TypeCollection

    return TypeCollection(vm.engine.types, (syntax.FuncType(values, ()),), closed=True)


class ImportType(Managed):
    """What a module asks for: the two names and the type of an import. Made by `Module.imports`."""

    _module: str
    _name: str
    _type: ExternType

    def __init__(self) -> None:
        raise WasmtimeError("cannot construct directly")

    @classmethod
    def _new(cls, module: str, name: str, ty: ExternType) -> ImportType:
        self = cls.__new__(cls)
        self._module = module
        self._name = name
        self._type = ty
        return self

    @property
    def module(self) -> str:
        """The first name: which module the import comes from."""
        return self._module

    @property
    def name(self) -> str | None:
        """The second name: which item of that module."""
        return self._name

    @property
    def type(self) -> ExternType:
        """The type that the item must have."""
        return self._type

    def __repr__(self) -> str:
        return f"<ImportType {self._module!r} {self._name!r}: {self._type!r}>"


class ExportType(Managed):
    """What a module offers: the name and the type of an export. Made by `Module.exports`."""

    _name: str
    _type: ExternType

    def __init__(self) -> None:
        raise WasmtimeError("cannot construct directly")

    @classmethod
    def _new(cls, name: str, ty: ExternType) -> ExportType:
        self = cls.__new__(cls)
        self._name = name
        self._type = ty
        return self

    @property
    def name(self) -> str:
        """The name of the export."""
        return self._name

    @property
    def type(self) -> ExternType:
        """The type of the export."""
        return self._type

    def __repr__(self) -> str:
        return f"<ExportType {self._name!r}: {self._type!r}>"
