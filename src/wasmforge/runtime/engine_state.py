"""`EngineState`: what an `Engine` shares among its stores and threads: the tunables, the canonical types, the gates.
The embedder's `Engine` makes one; `CompiledModule` and `VMStore` take it.
"""

from __future__ import annotations

from wasmforge.runtime.type_registry import TypeRegistry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.code_memory import CustomCodeMemory
    from wasmforge.runtime.native import Gates, StackPool

__all__ = ["EngineState"]


_stacks: StackPool | None = None


class EngineState:
    """One an engine. `max_wasm_stack` is the size of each store's wasm stack in bytes."""

    __slots__ = ("__weakref__", "_gates", "custom_code_memory", "max_wasm_stack", "tunables", "types")

    def __init__(
        self,
        tunables: Tunables,
        *,
        max_wasm_stack: int = 512 << 10,
        custom_code_memory: CustomCodeMemory | None = None,
    ) -> None:
        self.tunables = tunables
        self.types = TypeRegistry()
        self.max_wasm_stack = max_wasm_stack
        self.custom_code_memory = custom_code_memory
        self._gates: Gates | None = None

    @property
    def gates(self) -> Gates:
        """The process's gates, with the runtime's hooks and builtins in place."""
        if self._gates is None:
            from wasmforge.runtime.vm.hooks import install

            self._gates = install()
        return self._gates

    @property
    def stacks(self) -> StackPool:
        """Where stores get their wasm stacks from: one pool a process, since a pool keeps free stacks mapped for
        ever."""
        global _stacks
        if _stacks is None:
            from wasmforge.runtime.native import StackPool

            _stacks = StackPool()
        return _stacks
