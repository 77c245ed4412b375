"""`Trap`, what ends an execution: its message, its code, and the WebAssembly frames that were active. The runtime
makes them, without `__init__`; embedders catch them, and raise their own from host functions.

Loaded when the first trap happens or is named, because `enum` costs a process that only calls a function 4 ms.
"""

from __future__ import annotations

from enum import Enum

from wasmforge.runtime.vm.traps import backtrace_of
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime import FrameInfo

__all__ = ["ExitTrap", "Frame", "Trap", "TrapCode"]


class TrapCode(Enum):
    """Why execution trapped (Wasmtime's codes)."""

    STACK_OVERFLOW = 0
    """The stack for WebAssembly is exhausted."""
    MEMORY_OUT_OF_BOUNDS = 1
    """An access outside of a memory."""
    HEAP_MISALIGNED = 2
    """An atomic access at an address that is no multiple of its size."""
    TABLE_OUT_OF_BOUNDS = 3
    """An access outside of a table."""
    INDIRECT_CALL_TO_NULL = 4
    """An indirect call of a null table element."""
    BAD_SIGNATURE = 5
    """An indirect call of a function with another type."""
    INTEGER_OVERFLOW = 6
    """An integer result that does not fit its type."""
    INTEGER_DIVISION_BY_ZERO = 7
    """An integer division or remainder by zero."""
    BAD_CONVERSION_TO_INTEGER = 8
    """A conversion of a float that is no integer in range."""
    UNREACHABLE = 9
    """The instruction `unreachable`."""
    INTERRUPT = 10
    """Execution was interrupted: an epoch deadline has passed."""
    OUT_OF_FUEL = 11
    """The fuel of the store is used up."""
    ATOMIC_WAIT_NON_SHARED_MEMORY = 12
    """A wait on a memory that no other thread can reach."""
    NULL_REFERENCE = 13
    """A null reference where there must be none."""
    ARRAY_OUT_OF_BOUNDS = 14
    """An access outside of an array."""
    ALLOCATION_TOO_LARGE = 15
    """An object that is larger than any may be."""
    CAST_FAILURE = 16
    """A cast of a reference to a type that its object does not have."""


class Frame:
    """A WebAssembly frame of a backtrace. Made by `Trap.frames`."""

    __slots__ = ("_info",)

    def __init__(self, info: FrameInfo | _KeptFrame) -> None:
        self._info = info

    @property
    def func_index(self) -> int:
        """Index of the function in its module, imports counted."""
        return self._info.func_index

    @property
    def func_name(self) -> str | None:
        """Name of the function from the name section, None if it has none."""
        return self._info.func_name

    @property
    def module_name(self) -> str | None:
        """Name of the module from the name section, None if it has none."""
        return self._info.module_name

    @property
    def module_offset(self) -> int:
        """Offset in bytes of the instruction in the module's binary."""
        return _offset(self._info.module_offset)

    @property
    def func_offset(self) -> int:
        """Offset in bytes of the instruction in its function."""
        return _offset(self._info.func_offset)

    def __repr__(self) -> str:
        module = self.module_name or "<unknown>"
        function = self.func_name or f"<wasm function {self.func_index}>"
        return f"<Frame {module}!{function} at {self.module_offset:#x}>"


UNKNOWN_OFFSET = (1 << 32) - 1
"""What the wasmtime package answers when an image has no address map."""


def _offset(offset: int | None) -> int:
    return UNKNOWN_OFFSET if offset is None else offset


class Trap(Exception):
    """Execution stopped: by an instruction, by the embedder, or because a limit was reached.

    Parameters:
        message: the text, for a trap that a host function raises.
    """

    _wasmforge_backtrace: object = None  # set by the runtime, see `backtrace_of`

    def __init__(self, message: str) -> None:
        if not isinstance(message, str):
            raise TypeError(f"expected the message of a trap as str, got {type(message).__name__}")
        super().__init__(message)

    @property
    def message(self) -> str:
        """The text: the backtrace, if WebAssembly was active, and the cause."""
        cause: str = self.args[0]
        backtrace = backtrace_of(self)
        if backtrace is None:
            return cause
        if backtrace.fault is not None:
            address, length = backtrace.fault
            cause = f"memory fault at wasm address {address:#x} in linear memory of size {length:#x}\n{cause}"
        if not backtrace.frames:
            return cause
        return f"error while executing at {backtrace}\n\nCaused by:\n{_indent_causes(cause)}\n"

    @property
    def frames(self) -> list[Frame]:
        """The WebAssembly frames that were active, innermost first."""
        backtrace = backtrace_of(self)
        return [] if backtrace is None else [Frame(info) for info in backtrace.frames]

    @property
    def trap_code(self) -> TrapCode | None:
        """Why execution trapped; None for traps that the embedder made."""
        backtrace = backtrace_of(self)
        return None if backtrace is None or backtrace.kind is None else TrapCode(int(backtrace.kind))

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Traps travel between processes, for instance out of a worker of `concurrent.futures`, with their frames."""
        backtrace = backtrace_of(self)
        if backtrace is None:
            return type(self), self.args
        frames = [_KeptFrame(*(getattr(f, s) for s in _FRAME)) for f in backtrace.frames]
        kept = _KeptBacktrace(str(backtrace), backtrace.kind, frames, backtrace.fault)
        return _restore, (self.args[0], kept)


_FRAME = ("func_index", "func_name", "module_name", "module_offset", "func_offset")


class _KeptFrame:
    """What `Frame` shows, without the store's code behind it."""

    __slots__ = _FRAME

    func_index: int
    func_name: str | None
    module_name: str | None
    module_offset: int | None
    func_offset: int | None

    def __init__(self, *values: Any) -> None:
        for name, value in zip(_FRAME, values, strict=True):
            setattr(self, name, value)

    def __reduce__(self) -> tuple[object, ...]:
        return _KeptFrame, tuple(getattr(self, name) for name in _FRAME)


class _KeptBacktrace:
    """The text and the frames of a backtrace. It belongs to no store of this process."""

    __slots__ = ("fault", "frames", "kind", "text")
    store_id = 0
    is_empty = False

    def __init__(
        self, text: str, kind: TrapKind | None, frames: list[_KeptFrame], fault: tuple[int, int] | None
    ) -> None:
        self.text = text
        self.kind = kind
        self.frames = frames
        self.fault = fault

    def __str__(self) -> str:
        return self.text


def _indent_causes(cause: str) -> str:
    """One cause stands alone, several (a line each, outermost first) are numbered."""
    lines = cause.split("\n")
    if len(lines) == 1:
        return f"    {cause}"
    return "\n".join(f"    {i}: {line}" for i, line in enumerate(lines))


def _restore(message: str, backtrace: _KeptBacktrace) -> Trap:
    """A trap that was pickled."""
    trap = Trap(message)
    trap._wasmforge_backtrace = backtrace
    return trap


class ExitTrap(WasmtimeError):
    """A program ended itself through WASI's `proc_exit`; `code` is its exit status, 0 for success."""

    code: int

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
