"""Traps as Python exceptions: which class they have, what they carry, and how Python code makes one. The gates make
those of compiled code by themselves (`native/raising.py`), after `tell_gates`; which class that is decides the room
that shows `Trap` to the embedder, by `set_trap_class`.

A trap carries its `Backtrace` as attribute `_wasmforge_backtrace`, one that a gate has made at first the pair of a
module registry (or None) and the bytes of a trap record: `backtrace_of` makes the `Backtrace` when somebody looks.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.compiled_module import FrameInfo as FrameInfo
    from wasmforge.runtime.native import Gates
    from wasmforge.runtime.vm.backtrace import Backtrace as Backtrace


__all__ = [
    "RuntimeTrap",
    "backtrace_of",
    "make_trap",
    "memory_out_of_bounds",
    "pending_backtrace",
    "set_trap_class",
    "table_out_of_bounds",
    "tell_gates",
    "trap",
]


class RuntimeTrap(WasmtimeError):
    """A trap while no embedder's class has been set."""

    @property
    def backtrace(self) -> Backtrace:
        """The wasm frames."""
        found = backtrace_of(self)
        assert found is not None
        return found

    @property
    def kind(self) -> TrapKind | None:
        """The code."""
        return self.backtrace.kind


def _runtime_trap() -> type[BaseException]:
    return RuntimeTrap


_trap_class: Callable[[], type[BaseException]] = _runtime_trap
_told: Gates | None = None


def set_trap_class(load: Callable[[], type[BaseException]]) -> None:
    """Sets what gives the class of traps, which is asked when the first one happens. For the whole process.

    Traps are made by `__new__` of the class, with the text of their code as the only argument, and without `__init__`.
    """
    global _trap_class
    _trap_class = load
    if _told is not None:
        _told.set_trap_class(None)


def tell_gates(g: Gates) -> None:
    """Tells the gates how traps are made."""
    global _told
    from wasmforge.compiler.trap import TRAP_KINDS, TRAP_MESSAGES

    _told = g
    g.set_trap_class(_trap_class(), [TRAP_MESSAGES[kind] for kind in TRAP_KINDS])


def backtrace_of(exception: BaseException) -> Backtrace | None:
    """What a trap tells of its origin; None for any other exception, and for a trap that the embedder made."""
    found = getattr(exception, "_wasmforge_backtrace", None)
    if type(found) is tuple:
        from wasmforge.runtime.vm.backtrace import Backtrace

        found = exception._wasmforge_backtrace = Backtrace.of_record(*found)  # type: ignore[attr-defined]
    backtrace: Backtrace | None = found
    return backtrace


def make_trap(kind: TrapKind, backtrace: Backtrace) -> BaseException:
    """The exception for a trap with its frames."""
    from wasmforge.compiler.trap import TRAP_MESSAGES

    trap_class = _trap_class()
    backtrace.kind = kind
    exception = trap_class.__new__(trap_class, TRAP_MESSAGES[kind])
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
    found = getattr(exception, "_wasmforge_backtrace", None)
    if found is None or type(found) is tuple or not found.is_empty:
        return None
    backtrace: Backtrace = found
    return backtrace
