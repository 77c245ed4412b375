"""Modules that another process has begun to compile, and kept (`runtime.cache.growth`): what stands in for the decoded
module and its compilers until one is needed. A program that calls no new function loads neither.

A new function is decoded from its own bytes; the rest of what the compilers want to know of the module stands in the
module record, and in the facts that validation found, which are kept with it. Nothing is validated again: the binary
lies in the same checked file as the machine code, and was valid when that was made.
"""

from __future__ import annotations

import marshal

from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wasmforge._lazy import LazyFunctions
    from wasmforge._tier_up import Optimiser
    from wasmforge.compiler.baseline import CompiledFunction
    from wasmforge.compiler.info import CompiledModuleInfo
    from wasmforge.compiler.llvm.background import BackgroundCompiler
    from wasmforge.compiler.placement import Group
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.grown_image import Growth
    from wasmforge.runtime.lazy_code import LazyCode
    from wasmforge.syntax.module import DataSegment, FunctionBody, Module
    from wasmforge.validation import ModuleValidation

__all__ = ["encode_facts", "restorer"]


def encode_facts(module: Module, facts: ModuleValidation) -> bytes:
    """What the compilers must know of a module besides its record."""
    from array import array

    sizes = array("I", (body.offset + len(body.code) - body.start for body in module.code))
    counts = array("I", facts.instruction_counts)
    return marshal.dumps(
        (
            sizes.tobytes(),
            counts.tobytes(),
            tuple(sorted(facts.declared_references)),
            tuple(sorted(facts.tail_callers)),
            facts.used_features,
            tuple(sorted(facts.changed_tables)),
        ),
        2,
    )


def restorer(
    compile_all: Callable[[Module, ModuleValidation], bytes], tier_up_threshold: int | None
) -> Callable[[EngineState, CompiledModuleInfo, LazyCode, Growth], LazyModule]:
    """Makes modules of what an image has, for an engine that would load them with these settings: see `_lazy.load`."""

    def restore(engine: EngineState, info: CompiledModuleInfo, code: LazyCode, growth: Growth) -> LazyModule:
        functions = _SavedFunctions(engine, info, code, growth.facts, compile_all, tier_up_threshold is not None)
        optimiser = None if tier_up_threshold is None else _SavedOptimiser(functions)
        return LazyModule.restored(
            engine, info, functions, code, growth, optimiser=optimiser, threshold=tier_up_threshold or 0
        )

    return restore


class _SavedFunctions:
    """The runtime's `FunctionCompiler` for one module: see there."""

    def __init__(
        self,
        engine: EngineState,
        info: CompiledModuleInfo,
        code: LazyCode,
        facts: bytes,
        compile_all: Callable[[Module, ModuleValidation], bytes],
        counters: bool,
    ) -> None:
        self._engine = engine
        self._info = info
        # Not `code` itself, which would be a cycle: modules should go as soon as nobody needs them.
        self._originals = code.originals
        self._data = code.section(".rodata.wasm")
        self._facts = facts
        self._compile_all = compile_all
        self._counters = counters
        self._made: tuple[Module, ModuleValidation, LazyFunctions] | None = None
        self._sizes: Sequence[int] | None = None
        self._counts: Sequence[int] | None = None

    entry_size: int = 0
    first_call: int = 0
    """Not asked for: the linkage is there."""

    def facts(self) -> bytes:
        return self._facts

    def _fields(self) -> tuple[Any, ...]:
        from array import array

        try:
            sizes, counts, *rest = marshal.loads(self._facts)
            self._sizes, self._counts = array("I", sizes), array("I", counts)
            return tuple(rest)
        except (EOFError, ValueError, TypeError) as error:
            raise WasmtimeError(f"damaged compiled module: its facts cannot be read ({error})") from error

    def instructions(self, defined: int) -> int:
        if self._counts is None:
            self._fields()
        assert self._counts is not None
        return self._counts[defined]

    def wasm_size(self, defined: int) -> int:
        return len(self._body(defined).code)

    def parts(self) -> tuple[Module, ModuleValidation, LazyFunctions]:
        """The module without its bodies, and what compiles it."""
        if self._made is None:
            from wasmforge._lazy import LazyFunctions
            from wasmforge.validation import ModuleValidation

            declared, tail_callers, features, changed_tables = self._fields()
            assert self._counts is not None
            info = self._info
            module = _module(info)
            facts = ModuleValidation(
                frozenset(declared),
                frozenset(info.func_refs),
                list(self._counts),
                frozenset(tail_callers),
                features,
                frozenset(changed_tables),
            )
            functions = LazyFunctions(module, facts, self._engine.tunables, self._compile_all, self._counters)
            self._made = (module, facts, functions)
        return self._made

    def _body(self, defined: int) -> FunctionBody:
        from wasmforge.binary.leb128 import read_unsigned
        from wasmforge.binary.types import read_value_type
        from wasmforge.syntax.module import FunctionBody
        from wasmforge.syntax.types import ValType

        if self._sizes is None:
            self._fields()
        assert self._sizes is not None
        start = self._info.function_offset(defined)
        data = self._originals.read(start, self._sizes[defined])
        runs, at = read_unsigned(data, 0)
        found = []
        for _ in range(runs):
            count, at = read_unsigned(data, at)
            t, at = read_value_type(data, at, start)
            found.append((count, ValType(t)))
        return FunctionBody(tuple(found), data[at:], start + at, start)

    def with_body(self, defined: int) -> LazyFunctions:
        """What compiles the module, which has the body of a function now."""
        module, _, functions = self.parts()
        if module.code[defined] is None:
            module.code[defined] = self._body(defined)
        return functions

    def compile(self, defined: int) -> CompiledFunction:
        return self.with_body(defined).compile(defined)

    def linkage(self, count: int, start: int, slots: int, stub: int) -> bytes:
        raise AssertionError("the linkage comes with the image")

    def first_call_stub(self) -> bytes:
        raise AssertionError("the linkage comes with the image")

    def tier_up_stub(self) -> bytes:
        raise AssertionError("the stub comes with the image")

    def array_to_wasm(self, type_index: int) -> bytes:
        return self.parts()[2].array_to_wasm(type_index)

    def wasm_to_array(self, type_index: int) -> bytes:
        return self.parts()[2].wasm_to_array(type_index)

    def compile_all(self) -> bytes:
        module, facts, _ = self.parts()
        for x in range(len(module.functions)):
            self.with_body(x)
        module.data = self._segments()
        return self._compile_all(module, facts)

    def _segments(self) -> list[DataSegment]:
        """Data segments that do what the module's did: what became part of a memory image is one segment."""
        from wasmforge.syntax.module import DataSegment, Expression, SegmentMode

        info = self._info
        memories = [m.minimum_bytes for m in info.all_memories()]
        images = dict(info.memory_images)
        nothing = DataSegment(SegmentMode.PASSIVE, 0, None, b"")
        found = []
        for x in range(info.num_data):
            own = info.data.get(x)
            if own is not None:
                offset = None if own.memory_offset is None else Expression(own.memory_offset)
                data = bytes(self._data[own.start : own.start + own.length])
                found.append(DataSegment(own.mode, own.memory, offset, data))
            elif images:
                memory, image = images.popitem()
                length = min(image.length, memories[memory] - image.memory_offset)
                data = self._originals.read(self._originals.pages_at + image.image_offset, length)
                offset = Expression(_constant(image.memory_offset, info.all_memories()[memory].is_64))
                found.append(DataSegment(SegmentMode.ACTIVE, memory, offset, data))
            else:
                found.append(nothing)
        return found


def _constant(value: int, is_64: bool) -> bytes:
    from wasmforge.binary.leb128 import encode_signed

    bits = 64 if is_64 else 32
    signed = value - (1 << bits) if value >> bits - 1 else value
    return bytes([0x42 if is_64 else 0x41]) + encode_signed(signed) + b"\x0b"


def _module(info: CompiledModuleInfo) -> Module:
    """The module of a record, the inverse of `compiler.description.describe`; bodies and data are left out."""
    from wasmforge.syntax.module import ElementSegment, Expression, Global, Module, NameSection, Table

    module = Module()
    module.names = NameSection(info.name)
    module.types = info.types
    module.imports = info.imports
    module.functions = info.functions
    module.rec_groups = info.rec_groups
    inits = info.table_inits
    module.tables = [Table(t, Expression(inits[x]) if x in inits else None) for x, t in enumerate(info.tables)]
    module.memories = info.memories
    module.globals = [Global(g.type, Expression(g.init)) for g in info.globals]
    module.exports = info.exports
    module.start = info.start
    module.elements = [
        ElementSegment(
            e.mode,
            e.type,
            e.table,
            None if e.table_offset is None else Expression(e.table_offset),
            tuple(Expression(i) for i in e.items if isinstance(i, bytes))
            if e.uses_expressions
            else tuple(i for i in e.items if isinstance(i, int)),
            e.uses_expressions,
        )
        for e in info.elements
    ]
    unknown: Any = None
    module.code = [unknown] * len(info.functions)
    module.data = [unknown] * info.num_data
    return module


class _SavedOptimiser:
    """The runtime's `Optimiser` for one module: see there. It makes the real one when a function is hot."""

    def __init__(self, functions: _SavedFunctions) -> None:
        self._functions = functions
        self._made: Optimiser | None = None
        self._callees: set[int] = set()

    def _real(self) -> Optimiser:
        if self._made is None:
            from wasmforge._tier_up import Optimiser

            module, facts, functions = self._functions.parts()
            self._made = Optimiser(module, facts, functions.func_refs, self._functions._engine.tunables)
        return self._made

    @property
    def background(self) -> BackgroundCompiler:
        return self._real().background

    def instructions(self, defined: int) -> int:
        return self._functions.instructions(defined)

    def note_calls(self, defined: int, targets: Sequence[int]) -> bool:
        self._callees.add(defined)
        return self._real().note_calls(defined, targets)

    def callees(self, defined: int) -> Sequence[int]:
        if defined not in self._callees:  # compiled by another process: compiling it again tells what it calls
            self.note_calls(defined, self._functions.compile(defined).call_targets)
        return self._real().callees(defined)

    def submit(self, functions: Sequence[int]) -> bool:
        for x in functions:
            self._functions.with_body(x)
        return self._real().submit(functions)

    def group(self, reply: dict[str, Any], functions: Sequence[int]) -> Group | None:
        return self._real().group(reply, functions)
