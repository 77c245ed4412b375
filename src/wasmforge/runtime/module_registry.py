"""A `ModuleRegistry` a store (tables A2-05, A3-03): it owns the store's `StoreCode`, and leads from a `StoreCodePC` to
the module and its function. Instantiation registers modules; backtraces ask.
"""

from __future__ import annotations

from wasmforge.runtime.code import ModuleWithCode, make_store_code
from wasmforge.runtime.code_registry import count_up_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.code import EngineCode, StoreCode, StoreCodePC
    from wasmforge.runtime.compiled_module import CompiledModule, FrameInfo

__all__ = ["ModuleRegistry"]

MAX_FRAMES = 1024
"""Frames that a store remembers for backtraces."""

MAX_NOTES = 64
"""Texts of backtraces that a store remembers, each of at most 5 KB or so."""


class ModuleRegistry:
    """The modules of a store. It outlives the store where a backtrace still needs it, but holds no memory of it."""

    __slots__ = ("_by_engine_code", "_frames", "_loaded", "_notes", "_starts", "_tunables", "modules")

    def __init__(self, tunables: Tunables) -> None:
        self._tunables = tunables
        self._starts: list[int] = []
        # By start. An artifact holds one module until there are components; one without text is in `modules` only.
        self._loaded: dict[int, ModuleWithCode] = {}
        self._by_engine_code: dict[EngineCode, ModuleWithCode] = {}
        self.modules: dict[int, CompiledModule] = {}  # by unique id
        # What was found for program counters, whose code stays as long as this object: programs that use exceptions
        # raise them at few places, and each look-up takes microseconds.
        self._frames: dict[int, FrameInfo | None] = {}
        self._notes: dict[tuple[tuple[int, ...], int], str] = {}

    def register_module(self, module: CompiledModule) -> ModuleWithCode:
        """Makes the store code of a module at its first registration. Calling it again gives the same code."""
        found = self._by_engine_code.get(module.engine_code)
        if found is None:
            found = ModuleWithCode(module, make_store_code(module.engine_code, self._tunables))
            self._insert(found)
        self.modules[module.unique_id] = module
        return found

    def _insert(self, loaded: ModuleWithCode) -> None:
        code = loaded.store_code().code_memory()
        start = code.text_address
        at = count_up_to(self._starts, start)
        if (at and self._end(self._starts[at - 1]) > start) or (
            at < len(self._starts) and self._starts[at] < start + code.text_length
        ):
            raise AssertionError(f"store code at {start:#x} overlaps that of another module")
        engine_code = loaded.module().engine_code
        # No call from here on, so that a Ctrl-C leaves either nothing of the module here or all of it.
        if code.text_length:
            self._loaded[start] = loaded
            self._starts[at:at] = (start,)
        self._by_engine_code[engine_code] = loaded

    def _end(self, start: int) -> int:
        return start + self._loaded[start].store_code().code_memory().text_length

    def store_code(self, engine_code: EngineCode) -> StoreCode | None:
        found = self._by_engine_code.get(engine_code)
        return None if found is None else found.store_code()

    def loaded_modules(self) -> Iterator[ModuleWithCode]:
        for module in self.modules.values():
            yield self._by_engine_code[module.engine_code]

    def module_and_code_by_pc(self, pc: StoreCodePC) -> tuple[ModuleWithCode, int] | None:
        """The module that runs at an address of this store, and the offset into its text. None outside."""
        at = count_up_to(self._starts, pc.raw())
        if not at:
            return None
        loaded = self._loaded[self._starts[at - 1]]
        offset = loaded.text_offset(pc)
        return None if offset is None else (loaded, offset)

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

    def note(self, pcs: tuple[int, ...], omitted: int) -> str:
        """The text of a backtrace, which exceptions of host functions take along; empty when it has no frames."""
        key = pcs, omitted
        note = self._notes.get(key)
        if note is None:
            from wasmforge.runtime.vm.backtrace import Backtrace

            backtrace = Backtrace(self, pcs, omitted)
            if len(self._notes) >= MAX_NOTES:
                self._notes.clear()
            note = self._notes[key] = str(backtrace) if backtrace.frames else ""
        return note

    def wasm_to_array_trampoline(self, signature: int) -> int | None:
        """The address of the code through which wasm calls host functions of a type (VMSharedTypeIndex).

        Any registered module's will do: a linear search, done once a host function. None until one has it.
        """
        for module in self.modules.values():
            start = module.wasm_to_array_offset(signature)
            if start is not None:
                return module.engine_code.wasm_to_array_trampoline_pc(start).raw()
        return None
