"""`VMGlobal`: a WebAssembly global, a cell of 16 bytes in a vmctx or, when the embedder made it, in the store's arena.
Compiled code reads and writes the cell itself; importers hold its address.
"""

from __future__ import annotations

from _struct import Struct

from wasmforge.compiler.environ import VALRAW_SIZE
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128, representation, value_type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from wasmforge.runtime.store import VMStore
    from wasmforge.syntax.types import GlobalType

__all__ = ["VMGlobal", "vector_bytes"]

_WIDTHS: Final[dict[int, int]] = {I32: 4, I64: 8, F32: 4, F64: 8, V128: 16, FUNCREF: 8, EXTERNREF: 4}
_F32: Final = Struct("<f")
_F64: Final = Struct("<d")


class VMGlobal:
    """A global of a store. `address` is that of its cell, `store_id` the store it belongs to. It does not keep its
    store alive."""

    EXTERN_KIND: ClassVar = 3  # ExternKind.GLOBAL
    __slots__ = ("__weakref__", "_cell", "_store", "address", "store_id", "type")

    def __init__(self, store: VMStore, global_type: GlobalType, address: int) -> None:
        self.type = global_type
        self.address = address
        self.store_id = store.id
        self._store = store.weak
        # Machine code leaves the upper bytes of a narrow cell undefined, so only the type's own bytes are looked at.
        self._cell = store.arena.view(address, VALRAW_SIZE)[: _WIDTHS[representation(global_type.content)]]

    @property
    def store(self) -> VMStore:
        """The store, which must be alive for references to mean something. Raises WasmtimeError when it is gone."""
        from wasmforge.runtime.store import require

        return require(self._store)

    def get_raw(self) -> int:
        """The bits as an unsigned number."""
        return int.from_bytes(self._cell, "little")

    def set_raw(self, bits: int) -> None:
        """Writes the bits; whether the global is mutable is not checked."""
        self._cell[:] = bits.to_bytes(len(self._cell), "little")

    def get(self) -> object:
        """The value: a signed int, a float, 16 bytes, a function, None, or the object of an externref."""
        t = self.type.content
        if t in (I32, I64):
            return int.from_bytes(self._cell, "little", signed=True)
        if t == F32:
            return _F32.unpack(self._cell)[0]
        if t == F64:
            return _F64.unpack(self._cell)[0]
        if t == V128:
            return bytes(self._cell)
        return self.store.box(t, self.get_raw())

    def set(self, value: object) -> None:
        """Raises WasmtimeError if the global is immutable, TypeError or OverflowError for a value that does not fit."""
        if not self.type.mutable:
            raise WasmtimeError("immutable global cannot be set")
        self.initialize(value)

    def initialize(self, value: object) -> None:
        """`set` for a new global, mutable or not."""
        t = self.type.content
        if t in (I32, I64):
            bits = 8 * len(self._cell)
            if not isinstance(value, int):
                raise TypeError(f"expected {value_type_name(t)}, got {type(value).__name__}")
            if not -1 << (bits - 1) <= value < 1 << bits:
                raise OverflowError(f"{value} is out of range for {value_type_name(t)}")
            self.set_raw(value & (1 << bits) - 1)
        elif t in (F32, F64):
            if not isinstance(value, (int, float)):
                raise TypeError(f"expected {value_type_name(t)}, got {type(value).__name__}")
            self._cell[:] = _float_bytes(t, value)
        elif t == V128:
            self._cell[:] = vector_bytes(value)
        else:
            self.set_raw(self.store.unbox(t, value))


def vector_bytes(value: object) -> bytes:
    """A v128 as bytes, lane 0 first, from an integer or from anything with a buffer of 16 bytes.

    Raises TypeError, OverflowError or ValueError for what is none, as calls do (`runtime.native.boxing`).
    """
    if hasattr(value, "__index__"):
        try:
            number: int = value.__index__()
        except TypeError:
            pass  # an array of numpy, which is an integer only if it has one element
        else:
            if not -1 << 127 <= number < 1 << 128:
                raise OverflowError(f"{number} is out of range for v128")
            return (number & (1 << 128) - 1).to_bytes(16, "little")
    try:
        data = bytes(memoryview(value))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"expected v128, got {type(value).__name__}") from None
    if len(data) != 16:
        raise ValueError(f"a v128 has 16 bytes, got {len(data)}")
    return data


def _float_bytes(t: int, value: float) -> bytes:
    if t == F64:
        return _F64.pack(value)
    try:
        return _F32.pack(value)
    except OverflowError:
        # Demotion rounds to infinity (section 4.3.3); struct refuses instead.
        return _F32.pack(float("inf") if value > 0 else float("-inf"))
