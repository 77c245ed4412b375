"""`SharedMemory`, a linear memory that instances in several stores, and so in several threads, use at once."""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.engine import Engine
from wasmforge.memory import array_interface, read, write
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.types import MemoryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any

    from wasmforge.runtime.vm.shared_memory import SharedLinearMemory

__all__ = ["SharedMemory"]


class SharedMemory(Managed):
    """A shared memory of an engine (threads proposal). Modules import it; a module that defines one exports it.

    Its bytes never move and it never shrinks, so views stay valid. What other threads write shows at once; only atomic
    instructions, and what they order, say when. Calls into stores that share a memory let other Python threads run.

    Parameters:
        engine: where it lives. Its `Config.shared_memory` must be on.
        ty: its type, with `shared=True` and a maximum.

    Raises:
        WasmtimeError: the setting is off, the type is not shared, or there is not enough memory.
    """

    def __init__(self, engine: Engine, ty: MemoryType) -> None:
        if not isinstance(engine, Engine):
            raise WrongTypeError("expected an Engine")
        if not isinstance(ty, MemoryType):
            raise WrongTypeError(f"expected a MemoryType, got {type(ty).__name__}")
        engine._check_open()
        from wasmforge.runtime.vm.shared_memory import SharedLinearMemory

        self._memory = SharedLinearMemory(engine._state, ty._type)

    def _open(self) -> SharedLinearMemory:
        self._check_open()
        return self._memory

    @classmethod
    def _wrap(cls, memory: SharedLinearMemory) -> SharedMemory:
        self = cls.__new__(cls)
        self._memory = memory
        return self

    def type(self) -> MemoryType:
        """The type that the memory was made with."""
        return MemoryType._wrap(self._open().declared_type)

    def size(self) -> int:
        """The size in pages."""
        return self._open().pages

    def data_len(self) -> int:
        """The size in bytes."""
        return self._open().byte_length

    def grow(self, delta: int) -> int:
        """Add `delta` pages of zeros. Returns the size in pages before.

        Raises:
            WasmtimeError: the memory would be larger than its type allows, or the system refuses.
        """
        if delta < 0:
            raise WasmtimeError("cannot grow by negative amount")
        pages = self._open().grow(delta)
        if pages < 0:
            raise WasmtimeError(f"failed to grow memory by `{delta}`")
        return pages

    def data_ptr(self) -> ctypes._Pointer[ctypes.c_ubyte]:
        """A pointer to the first byte. Nothing checks what is done with it: mind `data_len`."""
        from ctypes import POINTER, c_ubyte, c_void_p, cast

        return cast(c_void_p(self._open().base), POINTER(c_ubyte))

    def view(self) -> memoryview:
        """The bytes of the memory as a writable memoryview, without a copy."""
        return self._open().view()

    def read(self, start: int | None = 0, stop: int | None = None) -> bytearray:
        """A copy of the bytes from `start` up to `stop`, as `Memory.read`."""
        return read(self._open(), start, stop)

    def write(self, value: Any, start: int | None = None) -> int:
        """Copy `value` to `start`, as `Memory.write`: IndexError when it does not fit."""
        return write(self._open(), value, start)

    def atomic_notify(self, addr: int, count: int) -> int:
        """Wake up to `count` threads that wait at an address. Returns how many (`memory.atomic.notify`).

        Raises:
            Trap: the address is unaligned, or outside of the memory.
        """
        return self._open().notify(addr, count)

    def atomic_wait32(self, addr: int, expected: int, timeout: float | None = None) -> int:
        """Wait until a thread notifies an address (`memory.atomic.wait32`).

        Parameters:
            expected: what the four bytes at `addr` must be, an unsigned number; else it returns at once.
            timeout: seconds, None to wait for ever.

        Returns:
            0 when notified, 1 for another value, 2 when time is over.

        Raises:
            Trap: the address is unaligned, or outside of the memory.
        """
        return self._wait(addr, expected, 4, timeout)

    def atomic_wait64(self, addr: int, expected: int, timeout: float | None = None) -> int:
        """As `atomic_wait32`, comparing eight bytes."""
        return self._wait(addr, expected, 8, timeout)

    def _wait(self, addr: int, expected: int, size: int, timeout: float | None) -> int:
        nanoseconds = None if timeout is None else max(int(timeout * 1e9), 0)
        return self._open().wait(addr, expected.to_bytes(size, "little"), nanoseconds)

    def __buffer__(self, flags: int) -> memoryview:
        """`memoryview(memory)`, from Python 3.12 on; `view` does the same everywhere."""
        return self._open().view()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """`numpy.asarray(memory)` shares the bytes."""
        return array_interface(self._open())

    def __repr__(self) -> str:
        return f"<SharedMemory of {self._open().pages} pages>"
