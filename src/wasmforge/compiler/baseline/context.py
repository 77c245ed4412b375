"""What the compiler must know of the module around a function, as lists that the hot loops index.

`compile.compile_module` makes one a module from the module record and the facts of validation; `function` and the
emitters read it.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Op
from wasmforge.compiler.baseline.registers import ARGUMENTS, FLOAT_ARGUMENTS, FLOAT_RESULTS, RESULTS
from wasmforge.compiler.environ import (
    VALRAW_SIZE,
    StoreContext,
    Tunables,
    VMContextOffsets,
    assign_params,
    assign_results,
)
from wasmforge.compiler.memory_plan import UNREACHABLE_SIZE, memory_plan
from wasmforge.compiler.target import host_level
from wasmforge.syntax.module import Module
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    F64,
    I32,
    V128,
    ExternKind,
    FuncType,
    machine_signature,
    representation,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["AREA", "FLOAT", "NARROW", "VECTOR", "Context", "Signature"]

AREA: Final = 64
"""Places from here on are slots of an area of the store context, those below are registers."""

FLOAT: Final = 1
NARROW: Final = 2
VECTOR: Final = 4
"""Bits of a signature's type bytes: f32, f64 or v128; four bytes that want zero-extension (i32, f32, externref); v128
alone."""


def _flags(t: int) -> int:
    if t == V128:
        return FLOAT | VECTOR
    return (FLOAT if t in (F32, F64) else 0) | (NARROW if t in (I32, F32, EXTERNREF) else 0)


class Signature:
    """How a function type travels (rules 2 to 4 of the convention).

    `params` and `results` have the type flags of each value; `param_places` and `result_places` the register of each,
    or `AREA` plus its position in the overflow or results area.
    """

    def __init__(self, ft: FuncType) -> None:
        self.params = bytes(_flags(t) for t in ft.params)
        self.results = bytes(_flags(t) for t in ft.results)
        registers = {"integer": ARGUMENTS, "vector": FLOAT_ARGUMENTS}
        self.param_places: list[int] = [
            AREA + p.index if p.kind == "area" else registers[p.kind][p.index] for p in assign_params(ft)
        ]
        registers = {"integer": RESULTS, "vector": FLOAT_RESULTS}
        self.result_places: list[int] = [
            AREA + p.index if p.kind == "area" else registers[p.kind][p.index] for p in assign_results(ft)
        ]
        self.uses_area = any(p >= AREA for p in self.param_places) or any(p >= AREA for p in self.result_places)


def overflow_offset(place: int) -> int:
    """Where in the store context a parameter with an area place travels."""
    return StoreContext.OVERFLOW_AREA + VALRAW_SIZE * (place - AREA)


def results_offset(place: int) -> int:
    """Where in the store context a result with an area place travels."""
    return StoreContext.RESULTS_AREA + VALRAW_SIZE * (place - AREA)


def load_of(flags: int) -> int:
    """The instruction that loads a value of the vector class, by its type flags."""
    if flags & VECTOR:
        return Op.MOVUPS
    return Op.MOVSS if flags & NARROW else Op.MOVSD


def store_of(flags: int) -> int:
    """The one that stores it, and what is above a float with it."""
    return Op.MOVUPS_STORE if flags & VECTOR else Op.MOVSD_STORE


class Context:
    """The module as function bodies see it. Indices are those of the index spaces, imports first.

    Value types are those that machine code knows (`syntax.types.representation`).

    `func_refs` are the escaping functions in ascending order, `tail_callers` those with tail calls. `slots` chooses the
    form of calls between functions of the module: direct (`call rel32`), or through code pointer slots
    (`call [rip + slot]`), for code that is compiled function by function. `counters` lets each
    function count its calls and loops (`counters`), for code that can be replaced by better code.
    """

    def __init__(
        self,
        module: Module,
        func_refs: list[int],
        tail_callers: frozenset[int],
        tunables: Tunables,
        slots: bool = False,
        counters: bool = False,
    ) -> None:
        self.module = module
        self.tunables = tunables
        self.slots = slots
        self.counters = counters
        self.tail_callers = tail_callers
        self.types: list[FuncType] = [machine_signature(ft) for ft in module.types]
        self.signatures: list[Signature | None] = [None] * len(module.types)
        self.functions: list[int] = module.all_functions()
        self.imported_functions: int = module.num_imported(ExternKind.FUNC)
        self.tables: list[int] = [int(representation(t.element)) for t in module.all_tables()]
        self.table_wide: list[bool] = [t.is_64 for t in module.all_tables()]
        self.globals: list[int] = [int(representation(t.content)) for t in module.all_globals()]
        self.imported_globals: int = module.num_imported(ExternKind.GLOBAL)
        self.func_refs: dict[int, int] = {x: k for k, x in enumerate(func_refs)}
        self.offsets = VMContextOffsets.of(module, len(func_refs))
        plans = [memory_plan(t, tunables) for t in module.all_memories()]
        self.memory_wide: list[bool] = [p.is_64 for p in plans]
        self.memory_page_size_log2: list[int] = [p.page_size_log2 for p in plans]
        self.memory_minimum: list[int] = [min(p.minimum, UNREACHABLE_SIZE) for p in plans]
        self.memory_guard: list[int] = [p.guard for p in plans]
        self.has_bmi: bool = host_level() != "x86-64-v2"
        self.has_avx: bool = self.has_bmi
        """AVX2 and FMA too: levels bring them together."""
        self.deterministic: bool = tunables.relaxed_simd_deterministic
        """Relaxed vector instructions as in the specification's deterministic profile."""
        self.vectors_pass: bool = V128 in self.globals or any(V128 in ft.results for ft in self.types)
        """Whether a function could have a vector without an instruction that makes one."""

    def signature(self, type_index: int) -> Signature:
        """The signature of a function type, made when first wanted."""
        found = self.signatures[type_index]
        if found is None:
            found = Signature(self.types[type_index])
            self.signatures[type_index] = found
        return found
