"""`EngineState`: what an `Engine` shares among its stores and threads: the tunables, the canonical types, the gates.
The embedder's `Engine` makes one; `CompiledModule` and `VMStore` take it.
"""

from __future__ import annotations

from wasmforge.runtime.lock import LOCK
from wasmforge.runtime.type_registry import TypeRegistry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from weakref import WeakSet

    from wasmforge.compiler.environ import Tunables
    from wasmforge.runtime.code_memory import CustomCodeMemory
    from wasmforge.runtime.native import Gates, StackPool
    from wasmforge.runtime.vm.budget import Budget

__all__ = ["EngineState"]


_stacks: StackPool | None = None


class EngineState:
    """One an engine. `max_wasm_stack` is the size of each store's wasm stack in bytes, `shared_memory` whether shared
    memories may be created."""

    __slots__ = (
        "__weakref__",
        "_budgets",
        "_gates",
        "_stacks",
        "custom_code_memory",
        "epoch",
        "max_wasm_stack",
        "shared_memory",
        "tunables",
        "types",
    )

    def __init__(
        self,
        tunables: Tunables,
        *,
        max_wasm_stack: int = 512 << 10,
        custom_code_memory: CustomCodeMemory | None = None,
        shared_memory: bool = False,
    ) -> None:
        self.tunables = tunables
        self.types = TypeRegistry()
        self.max_wasm_stack = max_wasm_stack
        self.custom_code_memory = custom_code_memory
        self.shared_memory = shared_memory
        self._gates: Gates | None = None
        self._stacks: StackPool | None = None
        self.epoch = 0
        self._budgets: WeakSet[Budget] | None = None

    @property
    def gates(self) -> Gates:
        """The process's gates, with the runtime's hooks and builtins in place."""
        if self._gates is None:
            from wasmforge.runtime.vm.hooks import install

            self._gates = install()
        return self._gates

    def watch_epochs(self, budget: Budget) -> None:
        """Has the budget of a store told of new epochs, for as long as it lives."""
        if self.tunables.epoch_interruption:
            from weakref import WeakSet

            with LOCK:
                if self._budgets is None:
                    self._budgets = WeakSet()
                self._budgets.add(budget)

    def increment_epoch(self) -> None:
        """Begins the next epoch, and tells the stores. From any thread."""
        with LOCK:
            self.epoch += 1
            budgets = [] if self._budgets is None else list(self._budgets)
        for budget in budgets:
            if budget.passed:
                budget.update()

    @property
    def stacks(self) -> StackPool:
        """Where stores get their wasm stacks from: one pool a process, since a pool keeps free stacks mapped for
        ever."""
        if self._stacks is None:
            self._stacks = _stack_pool()
        return self._stacks


def _stack_pool() -> StackPool:
    global _stacks
    if _stacks is None:
        from wasmforge.runtime.native import StackPool

        _stacks = StackPool()
    return _stacks
