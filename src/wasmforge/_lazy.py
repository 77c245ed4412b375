"""Modules that are compiled while they run: joins the baseline compiler with the runtime's `LazyModule`. `Module` comes
here for every strategy but `llvm`.

What stays in memory of a module is its record and the bodies of its functions, not the binary: later tiers and
`Module.serialize` compile from the bodies.
"""

from __future__ import annotations

from wasmforge._saved import encode_facts
from wasmforge._tier_up import Optimiser
from wasmforge.binary import decode
from wasmforge.compiler.baseline import Compiler, Context
from wasmforge.compiler.baseline.compile import check_supported
from wasmforge.compiler.baseline.counters import tier_up_stub
from wasmforge.compiler.baseline.first_call import ENTRY_SIZE, FIRST_CALL, first_call_stub, linkage
from wasmforge.compiler.baseline.trampolines import array_to_wasm, wasm_to_array
from wasmforge.compiler.description import describe, lay_out_data
from wasmforge.runtime.compiled_module import CompiledModule
from wasmforge.runtime.grown_image import Originals
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.validation import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from wasmforge.compiler.baseline import CompiledFunction
    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.syntax.module import Module
    from wasmforge.validation import ModuleValidation

__all__ = ["LazyFunctions", "load", "originals_of", "parse"]

CODE_LIMIT: Final = 1 << 30
"""Bytes of text: relative 32-bit distances reach 2 GiB."""

_ROOM: Final = 32
"""Bytes of address space a byte of wasm, where 1.5 are used: for optimised copies, and for functions that take more."""

_WIDE: Final = 16
"""With signatures of more values a call of two bytes takes hundreds, and no estimate holds."""


def parse(engine: EngineState, wasm: bytes) -> tuple[Module, ModuleValidation]:
    """Decodes and validates a binary, which is needed no longer afterwards: of a CPython it is twice as large as what
    is kept of it. Raises WasmtimeError when it is no valid module."""
    module = decode(wasm, custom_contents=engine.tunables.parse_wasm_debuginfo)
    return module, validate(module, engine.tunables.features)


def load(
    engine: EngineState,
    parsed: tuple[Module, ModuleValidation],
    compile_all: Callable[[Module, ModuleValidation], bytes],
    originals: Originals | None = None,
    *,
    ahead_if_unsupported: bool = False,
    tier_up_threshold: int | None = None,
) -> CompiledModule:
    """The module that compiles itself while it runs. `parsed` is what `parse` returned, `originals` what
    `originals_of` did, for a module that may be kept. `compile_all` makes an image of
    it: for `serialize`, and at once for a module that the baseline compiler does not support, if
    `ahead_if_unsupported`. LLVM compiles hot functions, unless `tier_up_threshold`
    (`environ.DEFAULT_TIER_UP_THRESHOLD`) is None. Raises WasmtimeError when it is not supported."""
    module, facts = parsed
    try:
        check_supported(facts, engine.tunables)
    except WasmtimeError:
        if not ahead_if_unsupported:
            raise
        return CompiledModule.from_bytes(engine, compile_all(module, facts))
    tiers = tier_up_threshold is not None
    functions = LazyFunctions(module, facts, engine.tunables, compile_all, tiers)
    optimiser = Optimiser(module, facts, functions.func_refs, engine.tunables) if tiers else None
    info = describe(module, functions.func_refs)
    data, pages = lay_out_data(module, info, engine.tunables)
    names = module.names.functions if module.names else {}
    return LazyModule(
        engine,
        info,
        functions,
        _capacity(module),
        data=data,
        pages=pages,
        names=names,
        originals=originals,
        optimiser=optimiser,
        threshold=tier_up_threshold or 0,
    )


def originals_of(parsed: tuple[Module, ModuleValidation], wasm: bytes) -> Originals:
    """The beginning of a binary, to the end of its last function body, so that the rest may go."""
    code = parsed[0].code
    return Originals.of(memoryview(wasm)[: code[-1].offset + len(code[-1].code) if code else 0])


def _capacity(module: Module) -> int:
    """Bytes of address space for the machine code of a module."""
    if any(len(t.params) > _WIDE or len(t.results) > _WIDE for t in module.types):
        return CODE_LIMIT
    size = sum(len(body.code) + 64 for body in module.code)
    return min(CODE_LIMIT, (1 << 20) + 512 * len(module.types) + _ROOM * size)


class LazyFunctions:
    """The runtime's `FunctionCompiler` for one module: see there."""

    entry_size: int = ENTRY_SIZE
    first_call: int = FIRST_CALL

    def __init__(
        self,
        module: Module,
        facts: ModuleValidation,
        tunables: Tunables,
        compile_all: Callable[[Module, ModuleValidation], bytes],
        counters: bool,
    ) -> None:
        self.func_refs = sorted(facts.escaping)
        self._module = module
        self._facts = facts
        self._compile_all = compile_all
        self._context = Context(module, self.func_refs, facts.tail_callers, tunables, slots=True, counters=counters)
        self._idle: list[Compiler] = []

    def compile(self, defined: int) -> CompiledFunction:
        # A compiler is for one function at a time, and calls overlap (see `FunctionCompiler`). After an exception,
        # say a KeyboardInterrupt, one is in no state to be used again.
        try:
            compiler = self._idle.pop()
        except IndexError:
            compiler = Compiler(self._context)
        compiled = compiler.compile_function(self._context.imported_functions + defined)
        self._idle.append(compiler)
        return compiled

    def linkage(self, count: int, start: int, slots: int, stub: int) -> bytes:
        return linkage(count, start, slots, stub)

    def first_call_stub(self) -> bytes:
        return first_call_stub()

    def wasm_size(self, defined: int) -> int:
        return len(self._module.code[defined].code)

    def tier_up_stub(self) -> bytes:
        return tier_up_stub()

    def array_to_wasm(self, type_index: int) -> bytes:
        return array_to_wasm(self._context.signature(type_index))

    def wasm_to_array(self, type_index: int) -> bytes:
        return wasm_to_array(self._context.signature(type_index))

    def compile_all(self) -> bytes:
        return self._compile_all(self._module, self._facts)

    def facts(self) -> bytes:
        return encode_facts(self._module, self._facts)
