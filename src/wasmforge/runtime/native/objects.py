"""Whether this interpreter lays its ints out as the gates expect: a question to real objects, not to a version number.
`gates.py` asks once a process and tells the machine code, which otherwise uses CPython's functions for everything.

THREAT: a gate that reads or writes an object of another layout corrupts the interpreter. So nothing is assumed that is
not seen here: the size of an object's head (that of free-threaded and reference-tracing builds is larger), the place of
its type, and both words by which an int of one digit is known.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["PyObject", "int_tags"]


class PyObject:
    """CPython's objects as far as the gates look into them."""

    REFERENCES: Final = 0
    TYPE: Final = 8
    INT_TAG: Final = 16  # of an int: tells its sign and the number of its digits
    INT_DIGIT: Final = 24  # u32, the lowest 30 bits


_HEAD_SIZE: Final = 16  # reference count and type
_DIGIT_LIMIT: Final = 1 << 30


def int_tags() -> tuple[int, int] | None:
    """The words at `PyObject.INT_TAG` of a positive and of a negative int of one digit of 30 bits, the digit behind
    them; None when the ints of this interpreter look otherwise."""
    if object.__basicsize__ != _HEAD_SIZE or int.__basicsize__ != PyObject.INT_DIGIT or int.__itemsize__ != 4:
        return None
    positive, negative = _tag(12345), _tag(-12345)
    several = (_tag(_DIGIT_LIMIT), _tag(-_DIGIT_LIMIT), _tag(1 << 60))
    for value in (_DIGIT_LIMIT - 1, 98765):
        if (_tag(value), _tag(-value)) != (positive, negative):
            return None
        if _digit(value) != value or _digit(-value) != value or _type(value) != id(int):
            return None
    if positive == negative or positive in several or negative in several:
        return None
    return positive, negative


def _tag(value: int) -> int:
    word: int = ctypes.c_uint64.from_address(id(value) + PyObject.INT_TAG).value
    return word


def _digit(value: int) -> int:
    digit: int = ctypes.c_uint32.from_address(id(value) + PyObject.INT_DIGIT).value
    return digit


def _type(value: int) -> int:
    address: int = ctypes.c_uint64.from_address(id(value) + PyObject.TYPE).value
    return address
