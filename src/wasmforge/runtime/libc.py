"""The few calls of the C library and of CPython's stable C API that the runtime needs to arrange memory: mapping over
a reservation, protecting pages, finding the address of a buffer, copying to and from an address. Everything in
`runtime` outside `native` that touches a raw address goes through this file or through a bounds-checked view.

It uses `_ctypes`, the C half of ctypes: the Python half costs 3 ms of a start-up that has 10. None of these calls
is on the path of a call into or out of wasm.
"""

from __future__ import annotations

import _ctypes
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = [
    "MAP_ANONYMOUS",
    "MAP_FIXED",
    "MAP_NORESERVE",
    "MAP_PRIVATE",
    "PAGE",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "address_of",
    "array_at",
    "map_fixed",
    "protect",
]

PAGE: Final = mmap.PAGESIZE
PROT_NONE: Final = 0
PROT_READ: Final = mmap.PROT_READ
PROT_WRITE: Final = mmap.PROT_WRITE
PROT_EXEC: Final = mmap.PROT_EXEC
MAP_PRIVATE: Final = mmap.MAP_PRIVATE
MAP_ANONYMOUS: Final = mmap.MAP_ANONYMOUS
MAP_FIXED: Final = 0x10
MAP_NORESERVE: Final = 0x4000  # the mmap module does not name it before 3.13

_RTLD_NOW: Final = 2


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class _Object(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "O"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _PythonFunction(_ctypes.CFuncPtr):
    """Called with the GIL held, and checked for a Python exception afterwards."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = _Long


class _PyBuffer(_ctypes.Array):  # type: ignore[type-arg]
    """Room for a Py_buffer, whose first word is the address (stable C API since 3.11)."""

    _type_ = _Long
    _length_ = 16


_process: Final[int] = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]


def _bind(kind: type[_ctypes.CFuncPtr], name: str, *argument_types: type) -> Any:
    function = kind(_ctypes.dlsym(_process, name))
    function.argtypes = argument_types
    return function


_mmap: Final = _bind(_Function, "mmap", _Long, _Long, _Long, _Long, _Long, _Long)
_mprotect: Final = _bind(_Function, "mprotect", _Long, _Long, _Long)
_get_buffer: Final = _bind(_PythonFunction, "PyObject_GetBuffer", _Object, _Long, _Long)
_release_buffer: Final = _bind(_PythonFunction, "PyBuffer_Release", _Long)


def address_of(buffer: object) -> int:
    """The address of the first byte of an object with the buffer protocol.

    The address is valid for as long as the object lives and does not reallocate (an mmap or bytes never does; a
    bytearray does not while nobody resizes it).
    """
    info = _PyBuffer()
    at = _ctypes.addressof(info)
    _get_buffer(buffer, at, 0)
    address: int = info[0]
    _release_buffer(at)
    return address


def protect(address: int, length: int, protection: int) -> None:
    """mprotect(2). Raises OSError (ENOMEM when the system refuses to commit that much)."""
    if _mprotect(address, length, protection):
        error = _ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def map_fixed(address: int, length: int, protection: int, fd: int, offset: int) -> None:
    """Replaces pages of a mapping of ours by a private mapping of `fd` (-1: zeros). Raises OSError.

    The caller guarantees that the range lies inside a mapping that it owns: MAP_FIXED replaces whatever is there.
    """
    flags = MAP_PRIVATE | MAP_FIXED | (MAP_ANONYMOUS | MAP_NORESERVE if fd < 0 else 0)
    if _mmap(address, length, protection, flags, fd, offset) != address:
        error = _ctypes.get_errno()
        raise OSError(error, os.strerror(error))


_array_types: dict[int, Any] = {}


def array_at(address: int, length: int, owner: object) -> memoryview:
    """A writable byte view of memory at an address. The view (and each slice of it) keeps `owner` alive.

    One ctypes type a length, kept for ever: call it for sizes of which there are few, and slice the view.
    """
    array_type: Any = _array_types.get(length)
    if array_type is None:
        array_type = type("Bytes", (_ctypes.Array,), {"_type_": _Byte, "_length_": length})
        _array_types[length] = array_type
    array = array_type.from_address(address)
    array.owner = owner
    return memoryview(array).cast("B")
