"""`Memory`, a linear memory of a store: read and written by copies, or through views that share its bytes."""

from __future__ import annotations

from wasmforge.store import check_store, context
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.types import MemoryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any

    from wasmforge.runtime import LinearMemory
    from wasmforge.store import Storelike

__all__ = ["Memory"]


class Memory:
    """A linear memory.

    Its bytes never move: views and pointers stay valid when the memory grows, and show its length at the time when
    they were made. A view made by `view`, `get_buffer_ptr` or numpy keeps the bytes alive even after the store is gone.

    Parameters:
        store: where it lives.
        ty: its type.

    Raises:
        WasmtimeError: there is not enough memory.
    """

    __slots__ = ("__weakref__", "_memory")

    def __init__(self, store: Storelike, ty: MemoryType) -> None:
        vm = context(store)
        if not isinstance(ty, MemoryType):
            raise WrongTypeError(f"expected a MemoryType, got {type(ty).__name__}")
        self._memory = vm.new_memory(ty._type)

    @classmethod
    def _wrap(cls, memory: LinearMemory) -> Memory:
        self = cls.__new__(cls)
        self._memory = memory
        return self

    def _checked(self, store: Storelike) -> LinearMemory:
        check_store(store, self._memory.store_id)
        return self._memory

    def type(self, store: Storelike) -> MemoryType:
        """The type that the memory was made with."""
        return MemoryType._wrap(self._checked(store).declared_type)

    def size(self, store: Storelike) -> int:
        """The size in pages."""
        return self._checked(store).pages

    def page_size(self, store: Storelike) -> int:
        """Bytes in a page: 65536, or 1 (custom-page-sizes proposal)."""
        return self._checked(store).page_size

    def page_size_log2(self, store: Storelike) -> int:
        """The binary logarithm of `page_size`."""
        return self._checked(store).page_size_log2

    def data_len(self, store: Storelike) -> int:
        """The size in bytes."""
        return self._checked(store).byte_length

    def grow(self, store: Storelike, delta: int) -> int:
        """Add `delta` pages of zeros.

        Returns:
            The size in pages before.

        Raises:
            WasmtimeError: the memory would be larger than its type allows, or the system refuses.
        """
        memory = self._checked(store)
        if delta < 0:
            raise WasmtimeError("cannot grow by negative amount")
        pages = memory.grow(delta)
        if pages < 0:
            raise WasmtimeError(f"failed to grow memory by `{delta}`")
        return pages

    def read(self, store: Storelike, start: int | None = 0, stop: int | None = None) -> bytearray:
        """A copy of the bytes from `start` up to `stop`, chosen like a list's slice: negative numbers count from the
        end, and what lies outside of the memory is left out."""
        return read(self._checked(store), start, stop)

    def write(self, store: Storelike, value: Any, start: int | None = None) -> int:
        """Copy `value` into the memory.

        Parameters:
            value: bytes, a bytearray, a buffer, or an iterable of ints.
            start: where to, 0 if None; a negative number counts from the end.

        Returns:
            The number of bytes.

        Raises:
            IndexError: `value` does not fit behind `start`.
        """
        return write(self._checked(store), value, start)

    def view(self, store: Storelike) -> memoryview:
        """The bytes of the memory as a writable memoryview, without a copy."""
        return self._checked(store).view()

    def data_ptr(self, store: Storelike) -> ctypes._Pointer[ctypes.c_ubyte]:
        """A pointer to the first byte. Nothing checks what is done with it: mind `data_len`."""
        from ctypes import POINTER, c_ubyte, c_void_p, cast

        return cast(c_void_p(self._checked(store).base), POINTER(c_ubyte))

    def get_buffer_ptr(
        self, store: Storelike, size: int | None = None, offset: int = 0
    ) -> ctypes.Array[ctypes.c_ubyte]:
        """The bytes of the memory as a ctypes array, without a copy, for numpy and the like.

        Parameters:
            size: the number of bytes, the size of the whole memory if None.
            offset: of the first byte.

        Raises:
            IndexError: the array would reach outside of the memory. (The wasmtime package makes it all the same.)
        """
        from ctypes import c_ubyte

        memory = self._checked(store)
        if size is None:
            size = memory.byte_length
        if size < 0 or offset < 0 or offset + size > memory.byte_length:
            raise IndexError(f"{size} bytes at offset {offset} reach outside of a memory of {memory.byte_length} bytes")
        return (c_ubyte * size).from_buffer(memory.view(), offset)

    def __buffer__(self, flags: int) -> memoryview:
        """`memoryview(memory)`, from Python 3.12 on; `view` does the same everywhere."""
        return self._memory.view()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """`numpy.asarray(memory)` shares the bytes."""
        return array_interface(self._memory)

    def __repr__(self) -> str:
        return f"<Memory of {self._memory.pages} pages>"


def read(memory: LinearMemory, start: int | None, stop: int | None) -> bytearray:
    """`Memory.read` without the store."""
    start, stop, _ = slice(start, stop).indices(memory.byte_length)
    if stop <= start:
        return bytearray()
    return bytearray(memory.view()[start:stop])


def write(memory: LinearMemory, value: Any, start: int | None) -> int:
    """`Memory.write` without the store."""
    size = memory.byte_length
    first = slice(start, None).indices(size)[0]
    if first >= size:
        raise IndexError("index out of range")
    if not isinstance(value, (bytes, bytearray)):
        value = bytearray(value)
    end = first + len(value)
    if end > size:
        raise IndexError("index out of range")
    memory.view()[first:end] = value
    return end - first


def array_interface(memory: LinearMemory) -> dict[str, Any]:
    """numpy's array interface, version 3; `data` is an object with the buffer protocol, which keeps the bytes alive."""
    return {"version": 3, "shape": (memory.byte_length,), "typestr": "|u1", "data": memory.view()}
