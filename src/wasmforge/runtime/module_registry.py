"""From a program counter to what it belongs to, twice (tables A2-04, A2-05, A3-02, A3-03): the process-wide code
registry, which the signal handler's table mirrors and which knows no stores; and a `ModuleRegistry` a store, which
leads from a `StoreCodePC` to the module and its function for backtraces, and owns the store's `StoreCode`.
"""

from __future__ import annotations

from _bisect import bisect_right, insort_right

from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.code import EngineCode, ModuleWithCode, StoreCode, StoreCodePC
    from wasmforge.runtime.code_memory import Code
    from wasmforge.runtime.compiled_module import CompiledModule, FrameInfo
    from wasmforge.runtime.native import Gates

__all__ = ["ModuleRegistry", "fault_kinds", "lookup_code", "register_code", "unregister_code"]

MAX_FRAMES = 1024
"""Frames that a store remembers for backtraces."""

_lock = LOCK
_starts: list[int] = []
_ranges: dict[int, tuple[int, Code]] = {}
fault_kinds: dict[int, int] = {}
"""Trap codes that were found for faulting program counters, for `hooks`: programs that trap do it at few places. It is
emptied whenever code goes, since other code may get its addresses."""

_gates: Gates | None = None  # looked up once: at the end of the interpreter, when modules go, nothing can be imported


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
        at = bisect_right(_starts, start)
        if (at and _ranges[_starts[at - 1]][0] > start) or (at < len(_starts) and _starts[at] < start + length):
            raise ValueError(f"code at {start:#x} overlaps registered code")
        _ranges[start] = (start + length, code)  # first, so that after a Ctrl-C in here `unregister_code` still works
        _gates.register_code(start, start + length)
        insort_right(_starts, start)  # looked up again: a collection meanwhile may have removed others


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
            fault_kinds.clear()


def lookup_code(pc: int) -> tuple[Code, int] | None:
    """The code that a program counter lies in and the offset into its text, None outside all registered code."""
    with _lock:
        at = bisect_right(_starts, pc)
        if not at:
            return None
        start = _starts[at - 1]
        end, code = _ranges[start]
        return (code, pc - start) if pc < end else None


class _LoadedCode:
    __slots__ = ("end", "module", "start", "store_code")

    def __init__(self, store_code: StoreCode, module: CompiledModule) -> None:
        text = store_code.text_range()
        self.store_code = store_code
        self.module = module  # an artifact holds one module until there are components
        self.start = text.start.raw()
        self.end = text.end.raw()


class ModuleRegistry:
    """The modules of a store. It outlives the store where a backtrace still needs it, but holds no memory of it."""

    __slots__ = ("_by_engine_code", "_frames", "_loaded", "_starts", "_tunables", "modules")

    def __init__(self, tunables: Tunables) -> None:
        self._tunables = tunables
        self._starts: list[int] = []
        self._loaded: dict[int, _LoadedCode] = {}  # by start; modules without text are in `modules` only
        self._by_engine_code: dict[EngineCode, StoreCode] = {}
        self.modules: dict[int, CompiledModule] = {}  # by unique id
        # What was found for program counters, whose code stays as long as this object: programs that use exceptions
        # raise them at few places, and each look-up takes microseconds.
        self._frames: dict[int, FrameInfo | None] = {}

    def register_module(self, module: CompiledModule) -> ModuleWithCode:
        """Makes the store code of a module at its first registration. Calling it again gives the same code."""
        from wasmforge.runtime.code import ModuleWithCode, StoreCode

        store_code = self._by_engine_code.get(module.engine_code)
        if store_code is None:
            store_code = StoreCode(module.engine_code, self._tunables)
            loaded = _LoadedCode(store_code, module)
            if loaded.start != loaded.end:
                self._insert(loaded, module.engine_code)
            else:
                self._by_engine_code[module.engine_code] = store_code
        self.modules[module.unique_id] = module
        return ModuleWithCode.from_raw(module, store_code)

    def _insert(self, loaded: _LoadedCode, engine_code: EngineCode) -> None:
        at = bisect_right(self._starts, loaded.start)
        before = self._loaded[self._starts[at - 1]] if at else None
        if (before is not None and before.end > loaded.start) or (
            at < len(self._starts) and self._starts[at] < loaded.end
        ):
            raise AssertionError(f"store code at {loaded.start:#x} overlaps that of another module")
        # No call from here on, so that a Ctrl-C leaves either nothing of the module here or all of it.
        self._loaded[loaded.start] = loaded
        self._starts[at:at] = (loaded.start,)
        self._by_engine_code[engine_code] = loaded.store_code

    def store_code(self, engine_code: EngineCode) -> StoreCode | None:
        return self._by_engine_code.get(engine_code)

    def loaded_modules(self) -> Iterator[ModuleWithCode]:
        from wasmforge.runtime.code import ModuleWithCode

        for module in self.modules.values():
            yield ModuleWithCode.from_raw(module, self._by_engine_code[module.engine_code])

    def module_and_code_by_pc(self, pc: StoreCodePC) -> tuple[ModuleWithCode, int] | None:
        """The module that runs at an address of this store, and the offset into its text. None outside."""
        from wasmforge.runtime.code import ModuleWithCode

        at = bisect_right(self._starts, pc.raw())
        if not at:
            return None
        loaded = self._loaded[self._starts[at - 1]]
        offset = loaded.store_code.text_range().offset_of(pc.raw())
        return None if offset is None else (ModuleWithCode.from_raw(loaded.module, loaded.store_code), offset)

    def lookup_frame_info(self, pc: StoreCodePC) -> FrameInfo | None:
        """What a backtrace says about a frame; None for a trampoline or code that is not this store's."""
        raw = pc.raw()
        if raw in self._frames:
            return self._frames[raw]
        found = self.module_and_code_by_pc(pc)
        if found is None:
            return None
        if len(self._frames) >= MAX_FRAMES:
            self._frames.clear()
        frame = self._frames[raw] = found[0].module().frame_info(found[1])
        return frame

    def wasm_to_array_trampoline(self, signature: int) -> int | None:
        """The address of the code through which wasm calls host functions of a type (VMSharedTypeIndex).

        Any registered module's will do: a linear search, done once a host function. None until one has it.
        """
        for module in self.modules.values():
            start = module.wasm_to_array_offset(signature)
            if start is not None:
                return module.engine_code.wasm_to_array_trampoline_pc(start).raw()
        return None
