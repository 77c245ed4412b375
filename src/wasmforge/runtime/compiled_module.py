"""`CompiledModule`: a loaded module, ready to be instantiated in any store of its engine (tables A2-24, A3-16). It
joins the engine code with the module record, and answers which function an offset into the text belongs to.
"""

from __future__ import annotations

from _struct import Struct
from itertools import count

from wasmforge.compiler.compatibility import check_engine
from wasmforge.compiler.environ import VMCONTEXT_MAGIC, VMContextOffsets, VMFuncRef
from wasmforge.compiler.image import INFO_SECTION
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.runtime.code import EngineCode, Types
from wasmforge.runtime.code_memory import CodeMemory
from wasmforge.runtime.libc import address_of
from wasmforge.runtime.type_registry import TypeCollection
from wasmforge.syntax.types import ExternKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Final

    from wasmforge.compiler.info import CodeRange
    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.code import ModuleWithCode
    from wasmforge.runtime.code_memory import Code
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.vm.cow import ModuleMemoryImages
    from wasmforge.syntax.types import FuncType

__all__ = ["CompiledModule", "FrameInfo"]

_HEADER: Final = Struct("<I4xQQQQQ")
_DATA_SEGMENT: Final = Struct("<QI4x")

_unique_ids: Final = count(1)


class FrameInfo:
    """One wasm frame of a backtrace.

    `func_index` counts imports; `func_name` and `module_name` come from the name section and are None without it.
    `module_offset` is the position of the instruction in the module's binary, `func_offset` the same from the start
    of the function's body; None where the address map knows none.
    """

    __slots__ = ("func_index", "func_name", "func_offset", "module_name", "module_offset")

    def __init__(
        self,
        func_index: int,
        func_name: str | None,
        module_name: str | None,
        module_offset: int | None,
        func_offset: int | None,
    ) -> None:
        self.func_index = func_index
        self.func_name = func_name
        self.module_name = module_name
        self.module_offset = module_offset
        self.func_offset = func_offset

    def __repr__(self) -> str:
        return (
            f"FrameInfo(func_index={self.func_index}, func_name={self.func_name!r}, "
            f"module_name={self.module_name!r}, module_offset={self.module_offset}, func_offset={self.func_offset})"
        )


class CompiledModule:
    """A module of an engine. Immutable after loading, and safe to use from several threads.

    Modules that only backtraces, memory images and constant expressions need are imported when they are needed: each
    costs a fresh process 0.2 ms of the ten that it may take to its first call.

    `info` is the module record, `offsets` the layout of its vmctx, `function_types` the module type index of every
    function of the index space.
    """

    __slots__ = (
        "__weakref__",
        "_exports",
        "_func_ref_positions",
        "_trampolines",
        "_vmctx_template",
        "engine",
        "engine_code",
        "function_types",
        "info",
        "memory_images",
        "num_imported_functions",
        "num_imported_globals",
        "num_imported_memories",
        "num_imported_tables",
        "offsets",
        "unique_id",
    )

    def __init__(self, engine: EngineState, code: CodeMemory) -> None:
        check_engine(code.elf(), engine.tunables)
        code.publish()
        self._set_up(engine, code, CompiledModuleInfo.decode(code.section(INFO_SECTION)))

    def _set_up(self, engine: EngineState, code: Code, info: CompiledModuleInfo) -> None:
        self.engine = engine
        self.info = info
        self.unique_id = next(_unique_ids)
        self.engine_code = EngineCode(
            code, TypeCollection(engine.types, info.types, info.rec_groups), Types(tuple(info.types))
        )
        self.memory_images: ModuleMemoryImages | None = None
        if info.memory_images:
            from wasmforge.runtime.vm.cow import ModuleMemoryImages

            self.memory_images = ModuleMemoryImages(code, info.memory_images)
        self.function_types = info.all_functions()
        kinds = [i.kind for i in info.imports]
        self.num_imported_functions = kinds.count(ExternKind.FUNC)
        self.num_imported_tables = kinds.count(ExternKind.TABLE)
        self.num_imported_memories = kinds.count(ExternKind.MEMORY)
        self.num_imported_globals = kinds.count(ExternKind.GLOBAL)
        self.offsets = VMContextOffsets(
            memories=self.num_imported_memories + len(info.memories),
            tables=self.num_imported_tables + len(info.tables),
            imported_functions=self.num_imported_functions,
            imported_globals=self.num_imported_globals,
            defined_globals=len(info.globals),
            data_segments=info.num_data,
            func_refs=len(info.func_refs),
        )
        self._exports: dict[str, tuple[int, int]] | None = None
        self._func_ref_positions: dict[int, int] | None = None
        self._vmctx_template: bytes | None = None
        self._trampolines: dict[int, int] | None = None

    @staticmethod
    def from_bytes(engine: EngineState, image: bytes | bytearray | memoryview) -> CompiledModule:
        """Loads an image. Raises WasmtimeError if it is damaged, or made for another machine, version or Tunables."""
        return CompiledModule(engine, CodeMemory.from_bytes(image, engine.custom_code_memory))

    @staticmethod
    def from_file(engine: EngineState, path: str | os.PathLike[str]) -> CompiledModule:
        """Maps an image from its file, which must not change while it is in use. Raises OSError or WasmtimeError."""
        return CompiledModule(engine, CodeMemory.from_file(path, engine.custom_code_memory))

    def serialize(self) -> bytes:
        """The image, for `from_bytes` or a file."""
        return bytes(self.engine_code.image())

    @property
    def name(self) -> str | None:
        return self.info.name

    def function_type(self, index: int) -> FuncType:
        """The type of a function of the index space, closed (see `type_registry`)."""
        return self.engine_code.signatures().function_type(self.function_types[index])

    def func_ref_position(self, index: int) -> int:
        """Which VMFuncRef of the vmctx is that of function `index`. Raises KeyError if the function does not escape."""
        return self.func_ref_positions()[index]

    def func_ref_positions(self) -> dict[int, int]:
        """`func_ref_position` of all functions that escape."""
        positions = self._func_ref_positions
        if positions is None:
            refs = self.info.func_refs
            positions = self._func_ref_positions = dict(zip(refs, range(len(refs)), strict=True))
        return positions

    def escapes(self, index: int) -> bool:
        """Whether function `index` has a VMFuncRef."""
        return index in self.func_ref_positions()

    def vmctx_template(self, code: ModuleWithCode) -> bytes:
        """A vmctx with all that is the same in every instance of this code: the header without its store context, the
        VMFuncRefs of defined functions without the vmctx, and the passive data segments."""
        shared = not code.store_code().is_private
        if shared and self._vmctx_template is not None:
            return self._vmctx_template
        offsets = self.offsets
        out = bytearray(offsets.size)
        _HEADER.pack_into(
            out,
            VMContextOffsets.MAGIC,
            VMCONTEXT_MAGIC,
            0,
            self.engine.gates.builtins,
            self.engine_code.signatures().type_ids_address,
            0,
            0,
        )
        start = offsets.func_refs // 8
        words = memoryview(out).cast("Q")[start : start + VMFuncRef.SIZE // 8 * len(self.info.func_refs)]
        self._fill_func_refs(words, code.store_code().code_memory().text_address)
        self._fill_data_segments(out)
        template = bytes(out)
        if shared:
            self._vmctx_template = template
        return template

    def _fill_func_refs(self, words: memoryview, text: int) -> None:
        """VMFuncRefs as words, of code at `text`. By columns: a CPython has 6,000, and packing each takes 4 ms."""
        info = self.info
        imported = self.num_imported_functions
        defined = [x - imported for x in info.func_refs if x >= imported]
        if not defined:
            return
        types = [info.functions[x] for x in defined]
        shared_type = self.engine_code.signatures().shared_type
        array_calls: dict[int, int] = {}
        type_ids: dict[int, int] = {}
        for t in set(types):
            trampoline = self.array_to_wasm(t)
            assert trampoline is not None
            array_calls[t] = text + trampoline.start
            type_ids[t] = shared_type(t)
        packed = Struct(f"<{len(defined)}Q").pack
        start = VMFuncRef.SIZE // 8 * (len(info.func_refs) - len(defined))
        for column, values in (
            (VMFuncRef.ARRAY_CALL, [array_calls[t] for t in types]),
            (VMFuncRef.WASM_CALL, [text + offset for offset in self.function_entries(defined)]),
            (VMFuncRef.TYPE_INDEX, [type_ids[t] for t in types]),
        ):
            words[start + column // 8 :: VMFuncRef.SIZE // 8] = memoryview(packed(*values)).cast("Q")

    def _fill_data_segments(self, out: bytearray) -> None:
        """The passive ones; active ones count as dropped, length 0."""
        data = self.engine_code.wasm_data()
        start = address_of(data) if len(data) else 0
        for x, segment in self.info.data.items():
            if segment.memory_offset is None and segment.length:
                _DATA_SEGMENT.pack_into(out, self.offsets.data_segment(x), start + segment.start, segment.length)

    def exports(self) -> dict[str, tuple[int, int]]:
        """Kind (ExternKind) and index of each export by name."""
        if self._exports is None:
            self._exports = {e.name: (e.kind, e.index) for e in self.info.exports}
        return self._exports

    # --- Where the code is --------------------------------------------------------------------------------------

    def compiled_function(self, defined: int) -> int:
        """The address of the code of a defined function."""
        return self.engine_code.text_range().start.raw() + self.info.function_range(defined).start

    def function_is_hot(self, defined: int) -> None:
        """The builtin `tier_up` of a defined function. The code of an image does not count."""

    def function_entry(self, defined: int) -> int:
        """Where in the text to call a defined function. Valid for as long as the module."""
        return self.info.function_range(defined).start

    def function_entries(self, defined: list[int]) -> list[int]:
        """`function_entry` of each."""
        starts = memoryview(self.info.packed_function_ranges).cast("I")[::2]
        return [starts[x] for x in defined]

    def function_range(self, defined: int) -> CodeRange | None:
        """Where in the text the machine code of a defined function is; None while it has none."""
        return self.info.function_range(defined)

    def array_to_wasm(self, type_index: int) -> CodeRange | None:
        """The code that lets the host call functions of a type; None if no function of that type escapes."""
        return self.info.array_to_wasm.get(type_index)

    def wasm_to_array_offset(self, signature: int) -> int | None:
        """Where in the text the trampoline for calling host functions of a type (VMSharedTypeIndex) starts."""
        trampolines = self._trampolines
        if trampolines is None:
            shared_type = self.engine_code.signatures().shared_type
            trampolines = {shared_type(x): code.start for x, code in self.info.wasm_to_array.items()}
            self._trampolines = trampolines
        return trampolines.get(signature)

    def func_name(self, index: int) -> str | None:
        """The name of a function of the index space, None without a name section."""
        from wasmforge.compiler.tables import function_names

        data = self.engine_code.func_name_data()
        return function_names.lookup(data, index) if data else None

    def func_by_text_offset(self, text_offset: int) -> int | None:
        """The defined function whose code holds an offset into the text; None for trampolines and padding."""
        return self.info.function_at(text_offset)

    def lookup_trap_code(self, text_offset: int) -> TrapKind | None:
        """What a fault of the instruction at an offset into the text means; None where none can happen."""
        return self.engine_code.module_memory_image_source().trap_at(text_offset)

    def position_at(self, text_offset: int) -> int | None:
        """The position in the binary of the instruction that the code at an offset into the text belongs to."""
        from wasmforge.compiler.tables import address_map

        data = self.engine_code.address_map_data()
        return address_map.lookup(data, text_offset) if data else None

    def frame_info(self, text_offset: int) -> FrameInfo | None:
        """What a backtrace says about a frame at an offset into the text; None for trampolines.

        For a return address pass the address minus one.
        """
        defined = self.func_by_text_offset(text_offset)
        if defined is None:
            return None
        position = self.position_at(text_offset)
        index = self.num_imported_functions + defined
        return FrameInfo(
            index,
            self.func_name(index),
            self.info.name,
            position,
            None if position is None else position - self.info.function_offset(defined),
        )
