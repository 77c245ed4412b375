"""The part of `ctypes` that the runtime uses, made of `_ctypes`, its C half. Import it as `ctypes`, with the real one
for the type checker::

    TYPE_CHECKING = False
    if TYPE_CHECKING:
        import ctypes
    else:
        from wasmforge.runtime import ffi as ctypes

The Python half imports the types, struct and os machinery of three other platforms and defines pointer and string types
that nobody here uses: 3 ms of a start-up that has 10. Names and behaviour are those of `ctypes`; what is missing is
missing.
"""

from __future__ import annotations

import _ctypes
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    Array,
    CFuncPtr,
    Structure,
    _SimpleCData,
    addressof,
    byref,
    get_errno,
    sizeof,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

__all__ = [
    "CDLL",
    "Array",
    "Structure",
    "addressof",
    "byref",
    "c_char",
    "c_char_p",
    "c_int",
    "c_long",
    "c_size_t",
    "c_ssize_t",
    "c_ubyte",
    "c_uint",
    "c_uint32",
    "c_uint64",
    "c_ulong",
    "c_void_p",
    "create_string_buffer",
    "get_errno",
    "memmove",
    "memset",
    "py_object",
    "pythonapi",
    "sizeof",
]

_RTLD_NOW: Final = 2


class c_char(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "c"


class c_ubyte(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "B"


class c_int(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "i"


class c_uint(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "I"


class c_long(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "l"


class c_ulong(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "L"


class c_char_p(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "z"


class c_void_p(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "P"


class py_object(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "O"


# Linux and macOS on 64-bit machines, which is all that wasmforge runs on, have 64-bit longs.
c_size_t = c_uint64 = c_ulong
c_ssize_t = c_long
c_uint32 = c_uint


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = c_int


class _ErrnoFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class _PythonFunction(CFuncPtr):
    """Called with the GIL held, and checked for a Python exception afterwards."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
    _restype_ = c_int


class CDLL:
    """The process itself (`name` None), with its functions as attributes."""

    _kind: type[CFuncPtr] = _Function

    def __init__(self, name: None, use_errno: bool = False) -> None:
        if use_errno:
            self._kind = _ErrnoFunction
        self._handle: int = _ctypes.dlopen(name, _RTLD_NOW)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        function = self._kind(_ctypes.dlsym(self._handle, name))
        self.__dict__[name] = function
        return function


class _PythonDLL(CDLL):
    _kind = _PythonFunction


pythonapi: Final = _PythonDLL(None)

memmove: Final[Any] = _Function(_ctypes._memmove_addr)  # type: ignore[attr-defined]
memmove.argtypes = (c_void_p, c_void_p, c_size_t)
memmove.restype = c_void_p

memset: Final[Any] = _Function(_ctypes._memset_addr)  # type: ignore[attr-defined]
memset.argtypes = (c_void_p, c_int, c_size_t)
memset.restype = c_void_p


def create_string_buffer(init: bytes | int, size: int | None = None) -> Any:
    """A mutable array of bytes: of a length, or holding `init` and a closing 0 or up to `size`."""
    if isinstance(init, int):
        return (c_char * init)()
    buffer: Any = (c_char * (len(init) + 1 if size is None else size))()
    buffer.value = init
    return buffer
