"""Machine code as the engine owns it and as a store runs it, and program counters of either, which must never be
mixed (tables A1 and A2 of the reference). Module loading makes an `EngineCode` an artifact; a store's `ModuleRegistry`
makes a `StoreCode` of it at the first instantiation; function values are computed from a `ModuleWithCode`.

With guest debugging a store runs a private copy whose addresses differ from the original's. Only an *offset* into
the text is meaningful in both, so the two kinds of program counter are two types without arithmetic between them.
"""

from __future__ import annotations

from wasmforge.compiler.image import (
    ADDRESS_MAP_SECTION,
    DWARF_SECTION,
    NAME_SECTION,
    RODATA_WASM_SECTION,
    TRAP_SECTION,
)
from wasmforge.runtime.code_registry import register_code, unregister_code
from wasmforge.runtime.lifetime import died, undo_after
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Generic, Self, TypeVar

    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.code_memory import Code, CodeMemory
    from wasmforge.runtime.compiled_module import CompiledModule
    from wasmforge.runtime.module_registry import ModuleRegistry
    from wasmforge.runtime.type_registry import TypeCollection
    from wasmforge.syntax.types import FuncType

__all__ = [
    "EngineCode",
    "EngineCodePC",
    "ModuleWithCode",
    "PCRange",
    "PrivateStoreCode",
    "StoreCode",
    "StoreCodePC",
    "Types",
    "make_store_code",
]

_MASK: Final = (1 << 64) - 1


class _ProgramCounter:
    """What both kinds share. Not an int: `+` of two program counters, or a comparison of the two kinds, is an error
    for mypy and at run time."""

    __slots__ = ("_raw",)

    def __init__(self, raw: int) -> None:
        self._raw = raw & _MASK

    def raw(self) -> int:
        """The address as a number, for the machine."""
        return self._raw

    def __add__(self, offset: int) -> Self:
        """Moves by bytes, modulo 2**64: a hostile offset gives a wrong address, not an exception in a handler."""
        if not isinstance(offset, int):
            return NotImplemented
        return type(self)(self._raw + offset)

    def __sub__(self, offset: int) -> Self:
        if not isinstance(offset, int):
            return NotImplemented
        return type(self)(self._raw - offset)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._raw == self._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._raw:#x})"


class EngineCodePC(_ProgramCounter):
    """An address in engine code: the canonical, read-only copy of an artifact's machine code."""

    __slots__ = ()

    def __lt__(self, other: EngineCodePC) -> bool:
        return self._raw < other._raw if type(other) is EngineCodePC else NotImplemented

    def __le__(self, other: EngineCodePC) -> bool:
        return self._raw <= other._raw if type(other) is EngineCodePC else NotImplemented

    @staticmethod
    def offset_of(pcs: PCRange[EngineCodePC], pc: int) -> int | None:
        """The offset of a raw address in a half-open range, None outside."""
        return pcs.offset_of(pc)


class StoreCodePC(_ProgramCounter):
    """An address in store code: the copy that the instances of one store execute; the engine's own or a private one."""

    __slots__ = ()

    @classmethod
    def from_raw(cls, pc: int) -> StoreCodePC:
        """A search key from an address seen while code ran (a signal, a backtrace)."""
        return cls(pc)

    def __lt__(self, other: StoreCodePC) -> bool:
        return self._raw < other._raw if type(other) is StoreCodePC else NotImplemented

    def __le__(self, other: StoreCodePC) -> bool:
        return self._raw <= other._raw if type(other) is StoreCodePC else NotImplemented

    @staticmethod
    def offset_of(pcs: PCRange[StoreCodePC], pc: int) -> int | None:
        """The offset of a raw address in a half-open range, None outside."""
        return pcs.offset_of(pc)


if TYPE_CHECKING:
    _PC = TypeVar("_PC", EngineCodePC, StoreCodePC)

    class _PCRangeBase(Generic[_PC]):
        __slots__ = ()
else:

    class _PCRangeBase:
        """`Generic` at run time would import half of `typing` for nothing."""

        __slots__ = ()

        def __class_getitem__(cls, _kind: object) -> object:
            return cls


class PCRange(_PCRangeBase["_PC"]):
    """A half-open range of program counters of one kind."""

    __slots__ = ("end", "start")

    def __init__(self, start: _PC, end: _PC) -> None:
        self.start: _PC = start
        self.end: _PC = end

    def offset_of(self, pc: int) -> int | None:
        return pc - self.start._raw if self.start._raw <= pc < self.end._raw else None

    def __contains__(self, pc: _PC) -> bool:
        return type(pc) is type(self.start) and self.start._raw <= pc._raw < self.end._raw

    def __len__(self) -> int:
        return self.end._raw - self.start._raw

    def __repr__(self) -> str:
        return f"{self.start!r}..{self.end!r}"


class Types:
    """The types of an artifact as its creator numbers them. A component will add its own kinds beside the module's."""

    __slots__ = ("_module_types",)

    def __init__(self, module_types: tuple[FuncType, ...]) -> None:
        self._module_types = module_types

    def module_types(self) -> tuple[FuncType, ...]:
        """The function types of the core module, by module type index."""
        return self._module_types


class EngineCode:
    """The original machine code of one loaded artifact, with what is needed to interpret it.

    Shared by all stores; it does not hand out its CodeMemory, so that nobody executes the original where a store has
    its own copy. The range is registered for as long as this object lives.
    """

    __slots__ = ("__weakref__", "_key", "_original_code", "_signatures", "_types")

    def __init__(self, code: Code, signatures: TypeCollection, types: Types) -> None:
        self._key: int | None = None
        self._original_code = code
        self._signatures = signatures
        self._types = types
        # In this order: a Ctrl-C in between must not leave a range registered whose addresses others may get.
        self._key = undo_after(self, lambda: unregister_code(code.text_address, code))
        register_code(code.text_address, code.text_length, code)

    def __del__(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            died(key)

    def check_alive(self) -> None:
        """Raises after the finaliser has run: an object resurrected by a `__del__` must not be instantiated, because
        faults in its code would not be recognised any more."""
        if self._key is None:
            raise WasmtimeError("the module has been garbage-collected; it cannot be used from a __del__ method")

    def types(self) -> Types:
        return self._types

    def module_types(self) -> tuple[FuncType, ...]:
        return self._types.module_types()

    def signatures(self) -> TypeCollection:
        """Module type index to the engine-wide VMSharedTypeIndex."""
        return self._signatures

    def text_size(self) -> int:
        return self._original_code.text_length

    def text_range(self) -> PCRange[EngineCodePC]:
        start = EngineCodePC(self._original_code.text_address)
        return PCRange(start, start + self._original_code.text_length)

    def raw_wasm_to_array_trampoline_data(self, start: int, length: int) -> memoryview:
        """The code of a wasm-to-array trampoline. It may run straight from engine code: trampolines are never
        patched."""
        return self._original_code.text()[start : start + length]

    def wasm_to_array_trampoline_pc(self, start: int) -> EngineCodePC:
        return self.text_range().start + start

    def address_map_data(self) -> memoryview:
        return self._original_code.section(ADDRESS_MAP_SECTION)

    def trap_data(self) -> memoryview:
        return self._original_code.section(TRAP_SECTION)

    def func_name_data(self) -> memoryview:
        return self._original_code.section(NAME_SECTION)

    def wasm_dwarf(self) -> memoryview:
        return self._original_code.section(DWARF_SECTION)

    def image(self) -> memoryview:
        """The whole ELF image, what `Module.serialize` returns."""
        return self._original_code.image()

    def text(self) -> memoryview:
        return self._original_code.text()

    def wasm_data(self) -> memoryview:
        """All data segments, one after another; the data ranges of the module record are relative to it."""
        return self._original_code.section(RODATA_WASM_SECTION)

    def module_memory_image_source(self) -> Code:
        """The image as a source of copy-on-write memory images (A2-08)."""
        return self._original_code


class StoreCode:
    """The code of one artifact as one store runs it; owned by that store's ModuleRegistry. This one is the original."""

    __slots__ = ("__weakref__", "_storage", "engine_code")

    def __init__(self, engine_code: EngineCode, storage: Code) -> None:
        engine_code.check_alive()
        self.engine_code = engine_code
        self._storage = storage

    @property
    def is_private(self) -> bool:
        return False

    def code_memory(self) -> Code:
        """The memory that is executed."""
        return self._storage

    def code_memory_mut(self) -> CodeMemory | None:
        """The memory for patching; None when it is shared with other stores."""
        return None

    def text_range(self) -> PCRange[StoreCodePC]:
        start = StoreCodePC(self._storage.text_address)
        return PCRange(start, start + self._storage.text_length)

    def text(self) -> memoryview:
        return self._storage.text()


class PrivateStoreCode(StoreCode):
    """A copy of the original for one store, which a debugger may patch."""

    __slots__ = ("_copy", "_key")

    def __init__(self, engine_code: EngineCode, original: Code) -> None:
        self._key: int | None = None
        copy = self._copy = original.deep_clone()
        super().__init__(engine_code, copy)
        copy.publish()
        # The private range leads to the original's tables: they are found by offset, and never patched.
        self._key = undo_after(self, lambda: unregister_code(copy.text_address, original))
        register_code(copy.text_address, copy.text_length, original)

    def __del__(self) -> None:
        key, self._key = self._key, None
        if key is not None:
            died(key)

    @property
    def is_private(self) -> bool:
        return True

    def code_memory_mut(self) -> CodeMemory | None:
        return self._copy


def make_store_code(engine_code: EngineCode, tunables: Tunables) -> StoreCode:
    """The code of an artifact for a store: the original, or with `tunables.debug_guest` a private copy."""
    original = engine_code.module_memory_image_source()
    return (PrivateStoreCode if tunables.debug_guest else StoreCode)(engine_code, original)


class ModuleWithCode:
    """A module with the code that a store runs for it: the only place where callable addresses are computed."""

    __slots__ = ("_module", "_store_code")

    def __init__(self, module: CompiledModule, store_code: StoreCode) -> None:
        self._module = module
        self._store_code = store_code

    @classmethod
    def in_store(cls, registry: ModuleRegistry, module: CompiledModule) -> ModuleWithCode | None:
        """The pair for a module registered in a store, else None."""
        store_code = registry.store_code(module.engine_code)
        return None if store_code is None else cls(module, store_code)

    def module(self) -> CompiledModule:
        return self._module

    def store_code(self) -> StoreCode:
        return self._store_code

    def finished_functions(self) -> Iterator[tuple[int, memoryview]]:
        """(defined function index, code) of every defined function that is compiled, in order."""
        text = self._store_code.text()
        for index in range(len(self._module.info.functions)):
            found = self._module.function_range(index)
            if found is not None:
                yield index, text[found.start : found.start + found.length]

    def finished_function(self, index: int) -> memoryview | None:
        """The code of a defined function; None while it is not compiled."""
        found = self._module.function_range(index)
        return None if found is None else self._store_code.text()[found.start : found.start + found.length]

    def function_pc(self, index: int) -> StoreCodePC:
        """Where to call a defined function."""
        return self._store_code.text_range().start + self._module.function_entry(index)

    def array_to_wasm_trampoline(self, type_index: int) -> memoryview | None:
        """The code that lets the host call functions of a type; None if no function of that type escapes."""
        found = self._module.array_to_wasm(type_index)
        return None if found is None else self._store_code.text()[found.start : found.start + found.length]

    def array_to_wasm_pc(self, type_index: int) -> StoreCodePC | None:
        found = self._module.array_to_wasm(type_index)
        return None if found is None else self._store_code.text_range().start + found.start

    def text_offset(self, pc: StoreCodePC) -> int | None:
        """The offset of an address in this store's text, None if it lies elsewhere."""
        return self._store_code.text_range().offset_of(pc.raw())
