"""What the gates call back: traps, exceptions that cross wasm frames, references that cross the boundary. `install`
connects them once a process; `EngineState.gates` does that before anything runs.
"""

from __future__ import annotations

from wasmforge.runtime.code_registry import lookup_code
from wasmforge.runtime.native import gates
from wasmforge.runtime.store import _stores, store_of_id
from wasmforge.runtime.vm.libcalls import BUILTIN_FUNCTIONS
from wasmforge.runtime.vm.traps import backtrace_of, pending_backtrace, tell_gates
from wasmforge.syntax.errors import ResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.runtime.native import Gates

__all__ = ["install"]

MAX_NOTES: Final = 16

_installed = False


def install() -> Gates:
    """The gates, with hooks and builtins in place."""
    global _installed
    g = gates()
    if not _installed:
        g.set_hooks(
            on_first_trap=_on_first_trap,
            on_fault=_on_fault,
            on_exception=_on_exception,
            box_ref=_box_ref,
            unbox_ref=_unbox_ref,
            on_async_misuse=_on_async_misuse,
            result_error=ResultError,
        )
        for name, function in BUILTIN_FUNCTIONS.items():
            g.set_builtin(name, function)
        _installed = True
    return g


def _on_first_trap() -> None:
    tell_gates(gates())


def _on_fault(pc: int) -> int:
    """The code that the trap table of the faulting instruction's image has for it.

    Threat: a fault at an instruction that may not fault means that compiled code computed a wrong address, and what it
    did before is unknown. It must not look like an ordinary trap, after which programs go on.
    """
    found = lookup_code(pc)
    code, offset = found if found is not None else (None, 0)
    kind = None if code is None else code.trap_at(offset)
    if kind is None:
        raise SystemError(f"wasmforge: compiled code faulted at text offset {offset:#x}, where nothing may fault")
    return kind


def _on_exception(store_id: int, exception: BaseException, pcs: tuple[int, ...], omitted: int) -> None:
    """Tells an exception that leaves wasm of a store through which frames it passes: a trap that Python code detected
    gets them as its backtrace, any other exception as a note, once a store."""
    weak = _stores.get(store_id)
    store = None if weak is None else weak()
    if store is None or not pcs:  # a store that is being destroyed has nothing to say
        return
    registry = store.registry
    # All that is kept at an exception is in here; asking for an attribute that is not there takes three times as long.
    attributes = exception.__dict__
    if "_wasmforge_backtrace" in attributes:
        pending = pending_backtrace(exception)
        if pending is not None:
            pending.fill(registry, pcs, omitted, store_id)
            return
        backtrace = backtrace_of(exception)
        if backtrace is not None and backtrace.store_id == store_id:
            return
    seen: tuple[int, ...] = attributes.get("_wasmforge_stores", ())
    # The frames of all activations of a store come with its innermost gate; its outer gates have nothing to add.
    # One exception object that is raised again and again, in ever new stores, must not grow without end.
    if store_id not in seen and len(seen) < MAX_NOTES:
        attributes["_wasmforge_stores"] = *seen, store_id
        note = registry.note(pcs, omitted)
        if note:
            try:  # noqa: SIM105  # contextlib costs a cold start 0.5 ms
                exception.add_note(note)
            except AttributeError:
                pass  # its class lets nobody set attributes


def _on_async_misuse(store_id: int, kind: int, awaitable: object) -> None:
    """An asynchronous call cannot be suspended or started. Raises WasmtimeError."""
    from wasmforge.runtime.vm.async_call import explain_misuse

    explain_misuse(store_id, kind, awaitable)


def _box_ref(store_id: int, value_type: int, word: int) -> object:
    return store_of_id(store_id).box(value_type, word)


def _unbox_ref(store_id: int, value_type: int, value: object) -> int:
    return store_of_id(store_id).unbox(value_type, value)
