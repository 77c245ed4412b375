"""`Table`, a table of references in a store."""

from __future__ import annotations

from wasmforge.store import check_store, context
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import representation
from wasmforge.types import TableType, _check_engine, _owner_in
from wasmforge.values import Val, to_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wasmforge.runtime import VMTable
    from wasmforge.store import Storelike

__all__ = ["Table"]


class Table:
    """A table of functions (`funcref`) or of any objects (`externref`).

    Parameters:
        store: where it lives.
        ty: its type.
        init: what each element is: a `Func` or None, or any object, by the type.

    Raises:
        TypeError: `init` does not fit the type.
        WasmtimeError: there is not enough memory.
    """

    __slots__ = ("__weakref__", "_table")

    def __init__(self, store: Storelike, ty: TableType, init: Any) -> None:
        vm = context(store)
        if not isinstance(ty, TableType):
            raise TypeError(f"expected a TableType, got {type(ty).__name__}")
        _check_engine(vm, ty._owner)
        self._table = vm.new_table(ty._type, to_python(vm, ty._type.element, init))

    @classmethod
    def _wrap(cls, table: VMTable) -> Table:
        self = cls.__new__(cls)
        self._table = table
        return self

    def _checked(self, store: Storelike) -> VMTable:
        check_store(store, self._table.store_id)
        return self._table

    def type(self, store: Storelike) -> TableType:
        """The type that the table was made with."""
        table = self._checked(store)
        return TableType._wrap(table.declared_type, _owner_in(table.store, table.declared_type))

    def size(self, store: Storelike) -> int:
        """The number of elements."""
        return self._checked(store).size

    def grow(self, store: Storelike, amt: int, init: Any) -> int:
        """Add `amt` elements, each `init`.

        Returns:
            The size before.

        Raises:
            WasmtimeError: the table would be larger than its type allows, or the system refuses.
        """
        table = self._checked(store)
        init = to_python(table.store, table.element, init)
        size = -1 if amt < 0 else table.grow(amt, init)
        if size < 0:
            raise WasmtimeError(f"failed to grow table by `{amt}`")
        return size

    def get(self, store: Storelike, idx: int) -> Any | None:
        """The element `idx`: a `Func` or an object. A null reference comes as a null `Val`, which equals None, as in
        the wasmtime package. None when `idx` is out of bounds."""
        table = self._checked(store)
        if not isinstance(idx, int):
            raise TypeError(f"expected the index of an element as int, got {type(idx).__name__}")
        if not 0 <= idx < table.size:
            return None
        value = table.get(idx)
        return Val(representation(table.element), None) if value is None else value

    def set(self, store: Storelike, idx: int, val: Any) -> None:
        """Set the element `idx` to a `Func` or None, or any object, by the table's type.

        Raises:
            WasmtimeError: `idx` is out of bounds.
            TypeError: `val` does not fit the type.
        """
        table = self._checked(store)
        if not isinstance(idx, int):
            raise TypeError(f"expected the index of an element as int, got {type(idx).__name__}")
        val = to_python(table.store, table.element, val)
        if not 0 <= idx < table.size:
            raise WasmtimeError("wasm trap: undefined element: out of bounds table access")
        table.set(idx, val)

    def __repr__(self) -> str:
        return f"<Table of {self._table.size} {TableType._wrap(self._table.declared_type).element}>"
