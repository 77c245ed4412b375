"""What the gates call back: traps, exceptions that cross wasm frames, references that cross the boundary. `install`
connects them once a process; `EngineState.gates` does that before anything runs.
"""

from __future__ import annotations

from wasmforge.compiler.image import TRAP_SECTION
from wasmforge.runtime.module_registry import lookup_code
from wasmforge.runtime.native import gates
from wasmforge.runtime.store import store_of_id
from wasmforge.runtime.vm.libcalls import BUILTIN_FUNCTIONS
from wasmforge.runtime.vm.traps import make_trap, pending_backtrace
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from wasmforge.runtime.module_registry import ModuleRegistry
    from wasmforge.runtime.native import Gates

__all__ = ["install"]

MAX_NOTES: Final = 16

_installed = False


def install() -> Gates:
    """The gates, with hooks and builtins in place."""
    global _installed
    g = gates()
    if not _installed:
        g.set_hooks(on_trap=_on_trap, on_exception=_on_exception, box_ref=_box_ref, unbox_ref=_unbox_ref)
        for name, function in BUILTIN_FUNCTIONS.items():
            g.set_builtin(name, function)
        _installed = True
    return g


def _registry(store_id: int) -> ModuleRegistry | None:
    try:
        return store_of_id(store_id).registry
    except WasmtimeError:
        return None  # the store is being destroyed; the trap is more important than its frames


def _on_trap(store_id: int, kind: int, fault_address: int, pcs: tuple[int, ...], omitted: int) -> NoReturn:
    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.vm.backtrace import Backtrace

    detail = ""
    if kind == TrapKind.MEMORY_OUT_OF_BOUNDS and fault_address:
        kind = _trap_of_fault(pcs[0])
        detail = _memory_fault(store_id, fault_address)
    # No local variable may hold the exception: its traceback has this frame, and the store would be in the cycle.
    raise _without_note(store_id, make_trap(TrapKind(kind), Backtrace(_registry(store_id), pcs, omitted), detail))


def _without_note(store_id: int, exception: BaseException) -> BaseException:
    """Marks that outer gates of a store have nothing to add."""
    exception._wasmforge_stores = {store_id}  # type: ignore[attr-defined]
    return exception


def _trap_of_fault(pc: int) -> int:
    """The code that the trap table of the faulting instruction's image has for it.

    Threat: a fault at an instruction that may not fault means that compiled code computed a wrong address, and what it
    did before is unknown. It must not look like an ordinary trap, after which programs go on.
    """
    from wasmforge.compiler.tables import trap_table

    found = lookup_code(pc)
    code, offset = found if found is not None else (None, 0)
    section = b"" if code is None else code.section(TRAP_SECTION)
    kind = trap_table.lookup(section, offset) if section else None
    if kind is None:
        raise SystemError(f"wasmforge: compiled code faulted at text offset {offset:#x}, where nothing may fault")
    return kind


def _memory_fault(store_id: int, fault_address: int) -> str:
    """Where in which memory an access faulted, in the words of Wasmtime; empty for traps without a fault."""
    try:
        memories = store_of_id(store_id).memories
    except WasmtimeError:
        return ""
    for memory in memories:
        if memory.reservation.address <= fault_address < memory.reservation.end:
            offset = fault_address - memory.base
            return f"memory fault at wasm address {offset:#x} in linear memory of size {memory.byte_length:#x}"
    return ""


def _on_exception(store_id: int, exception: BaseException, pcs: tuple[int, ...], omitted: int) -> None:
    """Tells an exception that leaves wasm of a store through which frames it passes: a trap that Python code detected
    gets them as its backtrace, any other exception as a note, once a store."""
    registry = _registry(store_id)
    if registry is None or not pcs:
        return
    pending = pending_backtrace(exception)
    if pending is not None:
        pending.fill(registry, pcs, omitted)
        exception._wasmforge_stores = {store_id}  # type: ignore[attr-defined]
        return
    seen = getattr(exception, "_wasmforge_stores", None)
    if seen is None:
        try:
            seen = exception._wasmforge_stores = set()  # type: ignore[attr-defined]
        except AttributeError:
            return  # an exception without a dictionary takes no notes either
    # The frames of all activations of a store come with its innermost gate; its outer gates have nothing to add.
    # One exception object that is raised again and again, in ever new stores, must not grow without end.
    if store_id not in seen and len(seen) < MAX_NOTES:
        seen.add(store_id)
        from wasmforge.runtime.vm.backtrace import Backtrace

        backtrace = Backtrace(registry, pcs, omitted)
        if backtrace.frames:
            exception.add_note(str(backtrace))


def _box_ref(store_id: int, value_type: int, word: int) -> object:
    return store_of_id(store_id).box(value_type, word)


def _unbox_ref(store_id: int, value_type: int, value: object) -> int:
    return store_of_id(store_id).unbox(value_type, value)
