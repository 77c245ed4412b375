"""The optimising compiler's front: cuts a validated module into chunks, has the pool compile them, and links them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.link import canonical_types, link
from wasmforge.compiler.llvm import uniform
from wasmforge.compiler.llvm.context import ModuleContext
from wasmforge.compiler.llvm.pool import Chunk, compile_chunks, default_workers
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import Module
from wasmforge.syntax.types import ExternKind, representation
from wasmforge.validation import ModuleValidation

__all__ = ["compile_module", "hot_chunk"]

CHUNK_INSTRUCTIONS: Final = 4000
"""Aimed at by chunks. In the study 2,000 to 10,000 cost no more than the whole module at once, and smaller chunks
keep all processors busy until the end."""

GIANT_INSTRUCTIONS: Final = 50_000
HUGE_INSTRUCTIONS: Final = 300_000
"""Functions from here on are compiled with the pipelines "none" and "fast": much of LLVM is superlinear."""


def compile_module(
    module: Module,
    facts: ModuleValidation,
    tunables: Tunables,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    prepare: Callable[[ModuleContext, Chunk], Chunk] | None = None,
) -> bytes:
    """Compiles a module with LLVM and returns its image (`compiler.image`).

    `facts` are what validation returned for this module. `workers` is the number of processes (default: one a
    processor); the image does not depend on it. `progress` is called with the instructions compiled so far and
    in all; `prepare` may replace each chunk before it is compiled. Raises `WasmtimeError` when the module asks for
    something that is not supported or cannot be compiled.
    """
    if tunables.debug_guest:
        raise WasmtimeError("the LLVM compiler does not support debug_guest yet")
    func_refs = sorted(facts.escaping)
    canonical = canonical_types(module.types)
    context = ModuleContext.of(module, func_refs, facts.tail_callers, facts.changed_tables, tunables)
    chunks = _chunks(module, facts, func_refs, canonical, tunables)
    if prepare is not None:
        chunks = [prepare(context, chunk) for chunk in chunks]
    replies = compile_chunks(chunks, context.encode(), workers or default_workers(), progress)
    if facts.tail_callers:
        replies.append(uniform.tail_code())
    return link(module, func_refs, replies, canonical, tunables)


def hot_chunk(module: Module, functions: Sequence[int], instructions: int) -> Chunk:
    """Some functions of a module, together `instructions` long, as a chunk for code that replaces other code."""
    imported = module.num_imported(ExternKind.FUNC)
    pipeline = "fast" if instructions > HUGE_INSTRUCTIONS else "none" if instructions > GIANT_INSTRUCTIONS else "hot"
    return Chunk([_function(module, x - imported, x) for x in functions], [], pipeline, instructions)


def _function(module: Module, defined: int, index: int) -> tuple[int, tuple[tuple[int, int], ...], bytes, int]:
    body = module.code[defined]
    return (index, tuple((n, int(representation(t))) for n, t in body.locals), body.code, body.offset)


def _chunks(
    module: Module, facts: ModuleValidation, func_refs: list[int], canonical: list[int], tunables: Tunables
) -> list[Chunk]:
    """Cuts the module by instruction counts alone, so that the same module always gives the same chunks."""
    imported = module.num_imported(ExternKind.FUNC)
    pipeline = "none" if tunables.optimization == "none" else "speed"
    types = module.all_functions()
    entered = sorted({canonical[types[x]] for x in func_refs})
    trampolines = [("a2w", t) for t in entered] + [("w2a", t) for t in sorted(set(canonical))]
    chunks = [Chunk([], trampolines, pipeline, 10 * len(trampolines))]
    for k in range(len(module.code)):
        count = facts.instruction_counts[k]
        function = _function(module, k, imported + k)
        last = chunks[-1]
        giant = count > GIANT_INSTRUCTIONS
        if giant or last.instructions + count > CHUNK_INSTRUCTIONS or last.instructions > CHUNK_INSTRUCTIONS:
            huge = count > HUGE_INSTRUCTIONS
            chunks.append(Chunk([], [], "fast" if huge else "none" if giant else pipeline, 0))
            last = chunks[-1]
        last.functions.append(function)
        chunks[-1] = last._replace(instructions=last.instructions + count)
    return chunks
