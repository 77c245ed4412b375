"""Making traps. The hooks of the gates, tables and instantiation raise them; which class is raised is decided by the
room that shows `Trap` to the embedder, by `set_trap_class`.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.compiled_module import FrameInfo as FrameInfo
    from wasmforge.runtime.vm.backtrace import Backtrace as Backtrace

    class TrapClass(Protocol):
        """What is called to make a trap: a class of exceptions."""

        def __call__(self, message: str, kind: TrapKind, backtrace: Backtrace) -> BaseException: ...


__all__ = [
    "RuntimeTrap",
    "make_trap",
    "memory_out_of_bounds",
    "pending_backtrace",
    "set_trap_class",
    "table_out_of_bounds",
    "trap",
]


class RuntimeTrap(WasmtimeError):
    """A trap while no embedder's class has been set. `kind` is the code, `backtrace` the wasm frames."""

    def __init__(self, message: str, kind: TrapKind, backtrace: Backtrace) -> None:
        super().__init__(message)
        self.kind = kind
        self.backtrace = backtrace


_trap_class: TrapClass = RuntimeTrap


def set_trap_class(trap_class: TrapClass) -> None:
    """Sets what traps are made with; applies to the whole process.

    The class keeps the `Backtrace` it is given and looks at its frames only when somebody asks: a trap that Python code
    detects gets them after it was made.
    """
    global _trap_class
    _trap_class = trap_class


_messages: dict[TrapKind, str] | None = None


def make_trap(kind: TrapKind, backtrace: Backtrace) -> BaseException:
    """The exception for a trap with its frames, which also hang on its attribute `_wasmforge_backtrace`."""
    global _messages
    if _messages is None:
        from wasmforge.compiler.trap import TRAP_MESSAGES

        _messages = TRAP_MESSAGES
    exception = _trap_class(_messages[kind], kind, backtrace)
    exception._wasmforge_backtrace = backtrace  # type: ignore[attr-defined]
    return exception


def trap(kind: TrapKind) -> BaseException:
    """The exception for a trap that Python code detects, to be raised. When wasm called that code, the gate's hook
    (`hooks.on_exception`) adds the frames."""
    from wasmforge.runtime.vm.backtrace import Backtrace

    return make_trap(kind, Backtrace(None, (), 0))


def table_out_of_bounds() -> BaseException:
    """The trap of an access outside a table."""
    from wasmforge.compiler.trap import TrapKind

    return trap(TrapKind.TABLE_OUT_OF_BOUNDS)


def memory_out_of_bounds() -> BaseException:
    """The trap of an access outside a memory."""
    from wasmforge.compiler.trap import TrapKind

    return trap(TrapKind.MEMORY_OUT_OF_BOUNDS)


def pending_backtrace(exception: BaseException) -> Backtrace | None:
    """The backtrace of a trap made by `trap`, while it still has no frames."""
    backtrace: Backtrace | None = getattr(exception, "_wasmforge_backtrace", None)
    return backtrace if backtrace is not None and backtrace.is_empty else None
