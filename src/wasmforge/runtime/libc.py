"""The few calls of the C library and of CPython's stable C API that the runtime needs to arrange memory: mapping over
a reservation, protecting pages, finding the address of a buffer, copying to and from an address. Everything in
`runtime` outside `native` that touches a raw address goes through this file or through a bounds-checked view.

None of these calls is on the path of a call into or out of wasm.
"""

from __future__ import annotations

import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any, Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = [
    "MAP_ANONYMOUS",
    "MAP_FIXED",
    "MAP_NORESERVE",
    "MAP_PRIVATE",
    "MAP_SHARED",
    "PAGE",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "address_of",
    "array_at",
    "clear",
    "copy",
    "map_fixed",
    "protect",
]

PAGE: Final = mmap.PAGESIZE
PROT_NONE: Final = 0
PROT_READ: Final = mmap.PROT_READ
PROT_WRITE: Final = mmap.PROT_WRITE
PROT_EXEC: Final = mmap.PROT_EXEC
MAP_PRIVATE: Final = mmap.MAP_PRIVATE
MAP_SHARED: Final = mmap.MAP_SHARED
MAP_ANONYMOUS: Final = mmap.MAP_ANONYMOUS
MAP_FIXED: Final = 0x10
MAP_NORESERVE: Final = 0x4000  # the mmap module does not name it before 3.13

_libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap: Final = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_mprotect: Final = _libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_get_buffer: Final = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_release_buffer: Final = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.c_void_p,)

_memmove: Final[Any] = ctypes.memmove
_memset: Final[Any] = ctypes.memset

_PyBuffer: Final = ctypes.c_size_t * 16
"""Room for a Py_buffer, whose first word is the address (stable C API since 3.11)."""


def address_of(buffer: object) -> int:
    """The address of the first byte of an object with the buffer protocol.

    The address is valid for as long as the object lives and does not reallocate (an mmap or bytes never does; a
    bytearray does not while nobody resizes it).
    """
    info = _PyBuffer()
    at = ctypes.addressof(info)
    _get_buffer(buffer, at, 0)
    address: int = info[0]
    _release_buffer(at)
    return address


def protect(address: int, length: int, protection: int) -> None:
    """mprotect(2). Raises OSError (ENOMEM when the system refuses to commit that much)."""
    if _mprotect(address, length, protection):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def map_fixed(address: int, length: int, protection: int, fd: int, offset: int, *, shared: bool = False) -> None:
    """Replaces pages of a mapping of ours by a private mapping of `fd` (-1: zeros), or a shared one, which shows what
    is written to the file later. Raises OSError.

    The caller guarantees that the range lies inside a mapping that it owns: MAP_FIXED replaces whatever is there.
    """
    flags = (MAP_SHARED if shared else MAP_PRIVATE) | MAP_FIXED | (MAP_ANONYMOUS | MAP_NORESERVE if fd < 0 else 0)
    if _mmap(address, length, protection, flags, fd, offset) != address:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def copy(target: int, source: int, length: int) -> None:
    """memmove(3). The caller guarantees that both ranges are mapped, and that it may write the target."""
    _memmove(target, source, length)


def clear(address: int, length: int) -> None:
    """Writes zeros. The caller guarantees that the range is writable and its own."""
    _memset(address, 0, length)


_array_types: dict[int, Any] = {}


def array_at(address: int, length: int, owner: object) -> memoryview:
    """A writable byte view of memory at an address. The view (and each slice of it) keeps `owner` alive.

    One ctypes type a length, kept for ever: call it for sizes of which there are few, and slice the view.
    """
    array_type: Any = _array_types.get(length)
    if array_type is None:
        array_type = _array_types[length] = ctypes.c_ubyte * length
    array = array_type.from_address(address)
    array.owner = owner
    return memoryview(array).cast("B")
