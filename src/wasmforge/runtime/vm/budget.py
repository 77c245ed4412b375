"""`Budget`: how long the guests of one store may still run: the part of its fuel that compiled code does not see yet,
its epoch deadline, and what happens then. The store makes one when somebody asks; the builtins `out_of_fuel` and
`new_epoch` ask it, the embedder sets it, the engine tells it of each new epoch.

Fuel as in Wasmtime: the count in the store context rises from minus what was given towards 0. It is an i64, so what
is above its range waits in a reserve. A deadline is here and not where compiled code sees it: whoever moves the epoch
or the deadline writes the outcome of the comparison to the instances, and compiled code has one word to look at.
"""

from __future__ import annotations

from wasmforge.compiler.environ import StoreContext, VMContextOffsets
from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Final

    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.vm.records import Arena

__all__ = ["Budget"]

_LARGEST: Final = (1 << 63) - 1
_ALL: Final = (1 << 64) - 1
_PASSED: Final = (1).to_bytes(4, "little")
_AHEAD: Final = bytes(4)


class Budget:
    """The fuel and the deadline of one store. It does not refer to the store; `instances` are the addresses of its
    vmctxs, which may become more.

    `on_epoch` decides at the deadline: it returns how many ticks to go on for, or None to trap, or raises. None instead
    of a function traps. With `epoch_yields` an asynchronous call then lets the event loop run before it goes on.
    """

    __slots__ = (
        "__weakref__",
        "_arena",
        "_context",
        "_deadline",
        "_engine",
        "_fuel_interval",
        "_instances",
        "_reserve",
        "epoch_yields",
        "on_epoch",
    )

    def __init__(self, engine: EngineState, arena: Arena, context: int, instances: Collection[int]) -> None:
        self._engine = engine
        self._arena = arena
        self._context = context
        self._instances = instances
        self._reserve = 0
        self._deadline = 0
        self.on_epoch: Callable[[], int | None] | None = None
        self.epoch_yields = False
        self._fuel_interval: int | None = None
        engine.watch_epochs(self)

    # --- Fuel -----------------------------------------------------------------------------------------------

    @property
    def fuel(self) -> int:
        """What is left. Raises WasmtimeError when the engine does not count."""
        self._require_fuel()
        count = self._arena.read_u64(self._context + StoreContext.FUEL_CONSUMED)
        if count >> 63:
            count -= 1 << 64
        return min(max(self._reserve - count, 0), _ALL)

    @fuel.setter
    def fuel(self, amount: int) -> None:
        self._require_fuel()
        injected = min(amount, _LARGEST if self._fuel_interval is None else self._fuel_interval)
        self._reserve = amount - injected
        self._arena.write_u64(self._context + StoreContext.FUEL_CONSUMED, -injected & _ALL)

    def _require_fuel(self) -> None:
        if not self._engine.tunables.consume_fuel:
            raise WasmtimeError("fuel is not configured in this store")

    @property
    def fuel_interval(self) -> int | None:
        """How much fuel a guest burns at most before an asynchronous call lets the event loop run; None: any."""
        return self._fuel_interval

    @fuel_interval.setter
    def fuel_interval(self, interval: int | None) -> None:
        left = self.fuel
        self._fuel_interval = None if interval is None else min(interval, _LARGEST)
        self.fuel = left

    def refill(self) -> bool:
        """Gives compiled code the next part of the fuel. Returns False when there is none."""
        left = self.fuel
        if left == 0:
            return False
        self.fuel = left
        return True

    # --- Epochs ---------------------------------------------------------------------------------------------

    def set_deadline(self, ticks: int) -> None:
        """Sets the deadline `ticks` after the engine's epoch."""
        self._deadline = min(self._engine.epoch + ticks, _ALL)
        self.update()

    def inherit(self, other: Budget) -> None:
        """Takes over the deadline of another store, and what happens then."""
        self.on_epoch = other.on_epoch
        self._deadline = other._deadline
        self.update()

    @property
    def passed(self) -> bool:
        """Whether the deadline is over."""
        return self._engine.epoch >= self._deadline

    def update(self) -> None:
        """Tells the instances whether the deadline is over. For any thread."""
        with LOCK:  # two threads that write the outcomes of different comparisons would do it in any order
            word = _PASSED if self.passed else _AHEAD
            for vmctx in list(self._instances):
                self._arena.write(vmctx + VMContextOffsets.DEADLINE_PASSED, word)

    def extension(self) -> int | None:
        """Called when compiled code has seen the deadline pass. Returns for how many ticks it may go on, which is to
        be told to `set_deadline`, or None if it may not."""
        ahead = self._deadline - self._engine.epoch
        if ahead > 0:  # somebody has moved it meanwhile
            return ahead
        return None if self.on_epoch is None else self.on_epoch()
