"""The optimising compiler as lazily compiled modules use it: joins the runtime's `TierUp` with LLVM in the background.
`_lazy` makes an `Optimiser` a module for the strategy `auto`, where llvmlite is installed.

Nothing of LLVM is imported before a function is hot: short programs start no worker.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wasmforge.compiler.environ import Tunables
    from wasmforge.compiler.llvm.background import BackgroundCompiler
    from wasmforge.compiler.placement import Group
    from wasmforge.syntax.module import Module
    from wasmforge.validation import ModuleValidation

__all__ = ["Optimiser"]


class Optimiser:
    """The runtime's `Optimiser` for one module: see `runtime.tier_up`. Functions are defined indices."""

    def __init__(self, module: Module, facts: ModuleValidation, func_refs: list[int], tunables: Tunables) -> None:
        self._module = module
        self._counts = facts.instruction_counts
        self._func_refs = func_refs
        self._tail_callers = facts.tail_callers
        self._changed_tables = facts.changed_tables
        self._tunables = tunables
        self._imported = len(module.all_functions()) - len(module.functions)
        self._callees: dict[int, tuple[int, ...]] = {}
        self._context = b""
        self._number = 0

    @property
    def background(self) -> BackgroundCompiler:
        from wasmforge.compiler.llvm.background import background_compiler

        return background_compiler()

    def instructions(self, defined: int) -> int:
        return self._counts[defined]

    def note_calls(self, defined: int, targets: Sequence[int]) -> bool:
        end = self._imported + len(self._counts)  # behind it are the numbers of counters
        self._callees[defined] = tuple({x - self._imported for x in targets if x < end})
        return any(x >= end for x in targets)

    def callees(self, defined: int) -> Sequence[int]:
        return self._callees.get(defined, ())

    def submit(self, functions: Sequence[int]) -> bool:
        from wasmforge.compiler.llvm.compile import hot_chunk
        from wasmforge.compiler.llvm.context import ModuleContext
        from wasmforge.compiler.llvm.pool import next_module

        if not self._context:
            self._context = ModuleContext.of(
                self._module, self._func_refs, self._tail_callers, self._changed_tables, self._tunables
            ).encode()
            self._number = next_module()
        count = sum(self._counts[x] for x in functions)
        chunk = hot_chunk(self._module, [self._imported + x for x in functions], count)
        return self.background.submit(self._number, self._context, chunk)

    def group(self, reply: dict[str, Any], functions: Sequence[int]) -> Group | None:
        from wasmforge.compiler.placement import check_reply

        own = range(self._imported, self._imported + len(self._counts))
        return check_reply(reply, [self._imported + x for x in functions], own)
