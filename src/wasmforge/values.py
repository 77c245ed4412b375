"""`Val`, a WebAssembly value that carries its type, for the places where a plain Python value would leave the type
open. Calls, globals and tables take and give plain Python values; a `Val` is accepted wherever one is.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    NON_NULL,
    REFERENCE_TYPES,
    V128,
    representation,
)
from wasmforge.syntax.types import ValType as ValTypeCode
from wasmforge.types import ValType, _from_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from wasmforge.func_ import Func
    from wasmforge.runtime import VMStore

__all__ = ["Val", "plain_reference", "to_python"]


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("expected an integer")
    return int(value)


def _float(value: object) -> float:
    if not isinstance(value, float):
        raise TypeError("expected a float")
    return float(value)


def _round_to_f32(value: float) -> float:
    """The nearest f32; too large ones become infinite (specification, section 4.3.3, `demote`)."""
    from ctypes import c_float

    return c_float(value).value


def wrap_signed(value: int, bits: int) -> int:
    """`value` modulo 2**bits, as a signed number."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


class Val:
    """A value and its type. Made by the class methods `i32`, `i64`, `f32`, `f64`, `v128`, `externref`, `funcref` and
    `ref_null`; integers outside the range of their type wrap around, floats are rounded to it."""

    __slots__ = ("_code", "_value")

    def __init__(self, code: ValTypeCode, value: Any) -> None:
        self._code = code
        self._value = value

    @classmethod
    def i32(cls, val: int) -> Val:
        """A 32-bit integer. Raises TypeError for anything but an int."""
        return cls(I32, wrap_signed(_integer(val), 32))

    @classmethod
    def i64(cls, val: int) -> Val:
        """A 64-bit integer. Raises TypeError for anything but an int."""
        return cls(I64, wrap_signed(_integer(val), 64))

    @classmethod
    def f32(cls, val: float) -> Val:
        """A 32-bit float. Raises TypeError for anything but a float."""
        return cls(F32, _round_to_f32(_float(val)))

    @classmethod
    def f64(cls, val: float) -> Val:
        """A 64-bit float. Raises TypeError for anything but a float."""
        return cls(F64, _float(val))

    @classmethod
    def v128(cls, val: int | bytes | bytearray | memoryview) -> Val:
        """A vector of 128 bits, from 16 bytes with lane 0 first, or an integer with lane 0 lowest.

        Raises TypeError for anything else, ValueError for another number of bytes, OverflowError for more bits.
        """
        from wasmforge.runtime.vm.globals import vector_bytes

        return cls(V128, vector_bytes(val))

    @classmethod
    def externref(cls, extern: Any) -> Val:
        """A reference to any Python object; None is the null reference."""
        return cls(EXTERNREF, extern)

    @classmethod
    def funcref(cls, f: Func | None) -> Val:
        """A reference to a function; None is the null reference."""
        return cls(FUNCREF, f)

    @classmethod
    def ref_null(cls, ty: ValType) -> Val:
        """The null reference of a reference type. Raises WasmtimeError for other types."""
        if ty == ValType.externref():
            return cls.externref(None)
        if ty == ValType.funcref():
            return cls.funcref(None)
        raise WasmtimeError(f"Invalid reference type for `ref_null`: {ty}")

    @property
    def value(self) -> Any:
        """The plain Python value."""
        return self._value

    @property
    def type(self) -> ValType:
        """The type of the value."""
        return _from_code(self._code)

    def _as(self, code: ValTypeCode) -> Any:
        return self._value if self._code == code else None

    def as_i32(self) -> int | None:
        """The value of an i32, None for other types."""
        value: int | None = self._as(I32)
        return value

    def as_i64(self) -> int | None:
        """The value of an i64, None for other types."""
        value: int | None = self._as(I64)
        return value

    def as_f32(self) -> float | None:
        """The value of an f32, None for other types."""
        value: float | None = self._as(F32)
        return value

    def as_f64(self) -> float | None:
        """The value of an f64, None for other types."""
        value: float | None = self._as(F64)
        return value

    def as_v128(self) -> bytes | None:
        """The 16 bytes of a v128, None for other types."""
        value: bytes | None = self._as(V128)
        return value

    def as_externref(self) -> Any | None:
        """The object of an externref, None for other types and for the null reference."""
        return self._as(EXTERNREF)

    def as_funcref(self) -> Func | None:
        """The function of a funcref, None for other types and for the null reference."""
        func: Func | None = self._as(FUNCREF)
        return func

    def __index__(self) -> int:
        """An integer counts as one, so that a call takes a `Val` where it takes an int."""
        if self._code == V128:
            return int.from_bytes(self._value, "little")
        if self._code not in (I32, I64):
            raise TypeError("wrong type of `Val` provided")
        return int(self._value)

    def __float__(self) -> float:
        """A float counts as one."""
        if self._code not in (F32, F64):
            raise TypeError("wrong type of `Val` provided")
        return float(self._value)

    def __eq__(self, other: object) -> bool:
        """Values are equal when type and value are; a plain value is compared with the value alone."""
        if isinstance(other, Val):
            return self._code == other._code and bool(self._value == other._value)
        return bool(self._value == other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # equal to plain values of several types

    def __repr__(self) -> str:
        return f"Val.{self.type}({self._value!r})" if self._code != EXTERNREF else f"Val.externref({self._value!r})"


def plain_reference(value: object) -> object:
    """The reference in a `Val` of one; anything else as it is."""
    if type(value) is Val and value._code in REFERENCE_TYPES:
        return value._value
    return value


_INTEGER_BITS = {I32: 32, I64: 64}


def to_python(vm: VMStore, code: ValTypeCode, value: object) -> Any:
    """What the runtime takes for a value that the embedder gives for a type: a `Val` opened, integers signed.

    Parameters:
        vm: the store that a function must belong to.
        code: the type to convert to.

    Raises:
        TypeError: the value does not fit the type.
        OverflowError: an integer has more bits than the type, signed or unsigned.
        WasmtimeError: a function of another store.
    """
    if isinstance(value, Val):
        if value._code != representation(code):
            raise TypeError("wrong type of `Val` provided")
        value = value._value
    if code == V128:
        from wasmforge.runtime.vm.globals import vector_bytes

        return vector_bytes(value)
    if code >= NON_NULL:
        vm.check_reference(code, value)
        return value
    if code == EXTERNREF or (code == FUNCREF and value is None):
        return value
    if code == FUNCREF:
        assert vm.unwrap_function is not None
        function = vm.unwrap_function(value)
        if function is not None:
            if function.store.id != vm.id:
                raise WasmtimeError("reference used with wrong store")
            return value
    elif code in _INTEGER_BITS:
        if isinstance(value, int):
            bits = _INTEGER_BITS[code]
            if not -(1 << bits - 1) <= value < 1 << bits:
                raise OverflowError(f"{value} is out of range for {_from_code(code)}")
            return wrap_signed(value, bits)
    elif isinstance(value, (int, float)):
        return float(value)
    raise TypeError(f"don't know how to convert {value!r} to {_from_code(code)}")
