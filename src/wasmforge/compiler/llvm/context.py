"""What the translator must know of the module around a function, small enough to be sent to a worker process.

The parent makes a `ModuleContext` from the module record and the facts of validation; `encode` and `decode` carry it
through the pipe as a `marshal` value.
"""

from __future__ import annotations

import marshal
from typing import Final

from wasmforge.compiler.environ import Tunables, VMContextOffsets
from wasmforge.compiler.link import canonical_types
from wasmforge.compiler.llvm.fixed_tables import FixedTable, fixed_tables
from wasmforge.compiler.memory_plan import MemoryPlan, memory_plan
from wasmforge.syntax.module import Module
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    ExternKind,
    FuncType,
    ValType,
    machine_signature,
    representation,
)

__all__ = ["BACKGROUND", "BOOL", "IR_TYPES", "VECTOR", "ModuleContext", "alignment"]

BACKGROUND: Final = "--background"
"""The argument of a worker process that works while the program runs."""

BOOL: Final = ValType(1)
"""The type, on the translator's operand stack only, of a comparison whose result is consumed as a condition at
once: LLVM's i1, which saves widening to i32 and testing again."""

VECTOR: Final = "<2 x i64>"
"""What a v128 is wherever instructions do not say otherwise; all vectors of 16 bytes share registers."""

IR_TYPES: Final[dict[int, str]] = {
    I32: "i32",
    I64: "i64",
    F32: "float",
    F64: "double",
    V128: VECTOR,
    FUNCREF: "ptr",
    EXTERNREF: "i32",
    BOOL: "i1",
}
"""Value types in LLVM IR. A funcref is the address of a VMFuncRef, an externref a handle."""


def alignment(ir: str) -> str:
    """The suffix of a load or store of this type in a cell, slot or area of the runtime, which are aligned to 8."""
    return ", align 8" if ir == VECTOR else ""


class ModuleContext:
    """The module as function bodies see it. Indices are those of the index spaces, imports first.

    Value types are those that machine code knows (`syntax.types.representation`).

    - `types`: every function type.
    - `functions`, `imported_functions`: the type index of every function; how many of them are imported.
    - `tables`: element types; `wide_tables`: whether their indices are i64.
    - `fixed_tables`: what is known of the tables that never change; `canonical`: every type's first equal one.
    - `memories`: how accesses to each are checked.
    - `globals`, `imported_globals`: value types; how many are imported.
    - `func_refs`: function index to the position of its VMFuncRef in the vmctx.
    - `tail_callers`: the functions with tail calls, which have the uniform prototype.
    - `local`: the functions to call directly, None for all of the module's own; the others are called through their
      code pointer slots. It changes from chunk to chunk and does not travel.
    """

    def __init__(
        self,
        types: list[FuncType],
        functions: list[int],
        imported_functions: int,
        tables: list[int],
        wide_tables: list[bool],
        memories: list[MemoryPlan],
        global_types: list[int],
        imported_globals: int,
        data_segments: int,
        func_refs: list[int],
        tail_callers: frozenset[int],
        canonical: list[int],
        fixed: dict[int, FixedTable],
        tunables: Tunables,
    ) -> None:
        self.types = types
        self.functions = functions
        self.imported_functions = imported_functions
        self.tables = tables
        self.wide_tables = wide_tables
        self.fixed_tables = fixed
        self.canonical = canonical
        self.memories = memories
        self.globals = global_types
        self.imported_globals = imported_globals
        self.data_segments = data_segments
        self.func_refs = {x: k for k, x in enumerate(func_refs)}
        self.tail_callers = tail_callers
        self.tunables = tunables
        self.local: frozenset[int] | None = None
        self.offsets = VMContextOffsets(
            memories=len(memories),
            tables=len(tables),
            imported_functions=imported_functions,
            imported_globals=imported_globals,
            defined_globals=len(global_types) - imported_globals,
            data_segments=data_segments,
            func_refs=len(func_refs),
        )

    @classmethod
    def of(
        cls,
        module: Module,
        func_refs: list[int],
        tail_callers: frozenset[int],
        changed_tables: frozenset[int],
        tunables: Tunables,
    ) -> ModuleContext:
        """The context of a module of which `func_refs` (ascending function indices) escape, with what validation found
        out about it."""
        canonical = canonical_types(module.types)
        return cls(
            types=[machine_signature(ft) for ft in module.types],
            functions=module.all_functions(),
            imported_functions=module.num_imported(ExternKind.FUNC),
            tables=[int(representation(t.element)) for t in module.all_tables()],
            wide_tables=[t.is_64 for t in module.all_tables()],
            memories=[memory_plan(t, tunables) for t in module.all_memories()],
            global_types=[int(representation(t.content)) for t in module.all_globals()],
            imported_globals=module.num_imported(ExternKind.GLOBAL),
            data_segments=len(module.data),
            func_refs=func_refs,
            tail_callers=tail_callers,
            canonical=canonical,
            fixed=fixed_tables(module, changed_tables, tail_callers, canonical),
            tunables=tunables,
        )

    def encode(self) -> bytes:
        return marshal.dumps(
            (
                [(bytes(t.params), bytes(t.results)) for t in self.types],
                self.functions,
                self.imported_functions,
                self.tables,
                self.wide_tables,
                [tuple(plan) for plan in self.memories],
                self.globals,
                self.imported_globals,
                self.data_segments,
                list(self.func_refs),
                sorted(self.tail_callers),
                self.canonical,
                [(x, tuple(table)) for x, table in self.fixed_tables.items()],
                self.tunables.as_dict(),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> ModuleContext:
        (
            types,
            functions,
            imported,
            tables,
            wide_tables,
            memories,
            global_types,
            imported_globals,
            segments,
            func_refs,
            tail_callers,
            canonical,
            fixed,
            settings,
        ) = marshal.loads(data)
        return cls(
            [FuncType(tuple(map(ValType, p)), tuple(map(ValType, r))) for p, r in types],
            functions,
            imported,
            tables,
            wide_tables,
            [MemoryPlan(*plan) for plan in memories],
            global_types,
            imported_globals,
            segments,
            func_refs,
            frozenset(tail_callers),
            canonical,
            {x: FixedTable(*table) for x, table in fixed},
            Tunables(**settings),
        )
