"""The process-wide registry of executable text (tables A2-04, A3-02): which code an address lies in. The signal
handler's table mirrors it. `EngineCode` and `StoreCode` announce their ranges; traps look their program counters up. It
knows no stores: those have a `ModuleRegistry` each.
"""

from __future__ import annotations

from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.runtime.code_memory import Code
    from wasmforge.runtime.native import Gates

__all__ = ["count_up_to", "lookup_code", "register_code", "unregister_code"]

_lock = LOCK
_starts: list[int] = []
_ranges: dict[int, tuple[int, Code]] = {}
_gates: Gates | None = None  # looked up once: at the end of the interpreter, when modules go, nothing can be imported


def count_up_to(ascending: list[int], address: int) -> int:
    """How many addresses of a list are not above `address`."""
    if not ascending or address >= ascending[-1]:
        return len(ascending)
    from _bisect import bisect_right  # 0.2 ms, which a process with one module saves

    return bisect_right(ascending, address)


def _insert(ascending: list[int], address: int) -> None:
    """Inserts an address that is not there, in one step: an allocation between looking up and inserting may start a
    collection, whose finalisers remove others."""
    if not ascending or address > ascending[-1]:
        ascending.append(address)
        return
    from _bisect import insort_right

    insort_right(ascending, address)


def register_code(start: int, length: int, code: Code) -> None:
    """Announces executable text: `length` bytes at `start`, whose tables are those of `code`.

    From now on the signal handler takes a fault in the range for wasm's. Raises ValueError on overlap: two owners
    of one address would mean that a mapping was freed too early.
    """
    global _gates
    if not length:
        return
    if _gates is None:
        from wasmforge.runtime.native import gates

        _gates = gates()
    with _lock:
        at = count_up_to(_starts, start)
        if (at and _ranges[_starts[at - 1]][0] > start) or (at < len(_starts) and _starts[at] < start + length):
            raise ValueError(f"code at {start:#x} overlaps registered code")
        _ranges[start] = (start + length, code)  # first, so that after a Ctrl-C in here `unregister_code` still works
        _gates.register_code(start, start + length)
        _insert(_starts, start)


def unregister_code(start: int, code: Code) -> None:
    """Forgets the range that was registered at `start` for `code`. Nothing happens when it was not: text of length 0
    never is, nor what an exception kept from it."""
    with _lock:
        if start in _ranges and _ranges[start][1] is code:
            assert _gates is not None
            try:  # noqa: SIM105  # contextlib costs a cold start 0.5 ms
                _gates.unregister_code(start)
            except WasmtimeError:
                pass  # a second try, after one that failed half-way
            if start in _starts:
                _starts.remove(start)
            del _ranges[start]
            _gates.forget_faults()


def lookup_code(pc: int) -> tuple[Code, int] | None:
    """The code that a program counter lies in and the offset into its text, None outside all registered code."""
    with _lock:
        at = count_up_to(_starts, pc)
        if not at:
            return None
        start = _starts[at - 1]
        end, code = _ranges[start]
        return (code, pc - start) if pc < end else None
