"""`Global`, a global variable of a store. (The name of the module avoids the built-in function's.)"""

from __future__ import annotations

from wasmforge.store import check_store, context
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import representation
from wasmforge.types import GlobalType, _check_engine, _owner_in
from wasmforge.values import Val, to_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wasmforge.runtime import VMGlobal
    from wasmforge.store import Storelike

__all__ = ["Global"]


class Global:
    """A global variable.

    Parameters:
        store: where it lives.
        ty: its type.
        val: its first value: an int, a float, a `Func` or None, any object, or a `Val`, by the type.

    Raises:
        TypeError: `val` does not fit the type.
    """

    __slots__ = ("__weakref__", "_global")

    def __init__(self, store: Storelike, ty: GlobalType, val: Any) -> None:
        vm = context(store)
        if not isinstance(ty, GlobalType):
            raise TypeError("expected a GlobalType")
        _check_engine(vm, ty._owner)
        self._global = vm.new_global(ty._type, to_python(vm, ty._type.content, val))

    @classmethod
    def _wrap(cls, global_: VMGlobal) -> Global:
        self = cls.__new__(cls)
        self._global = global_
        return self

    def _checked(self, store: Storelike) -> VMGlobal:
        check_store(store, self._global.store_id)
        return self._global

    def type(self, store: Storelike) -> GlobalType:
        """The type of the variable."""
        global_ = self._checked(store)
        return GlobalType._wrap(global_.type, _owner_in(global_.store, global_.type))

    def value(self, store: Storelike) -> Any:
        """The present value. A null reference comes as a null `Val`, which equals None, as in the wasmtime package."""
        global_ = self._checked(store)
        value = global_.get()
        return Val(representation(global_.type.content), None) if value is None else value

    def set_value(self, store: Storelike, val: Any) -> None:
        """Change the value.

        Raises:
            WasmtimeError: the variable is immutable.
            TypeError: `val` does not fit the type.
        """
        global_ = self._checked(store)
        val = to_python(global_.store, global_.type.content, val)
        if not global_.type.mutable:
            raise WasmtimeError("immutable global cannot be set")
        global_.set(val)

    def __repr__(self) -> str:
        return f"<Global {GlobalType._wrap(self._global.type)!r}: {self._global.get()!r}>"
