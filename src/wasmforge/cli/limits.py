"""The limits of `wasmforge run`: fuel, the epoch, and how much a program may take (`-W fuel`, `-W max-memory-size` and
so on) to the store that it runs in.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.cli.settings import Settings
    from wasmforge.store import Store

__all__ = ["limit"]

_LIMITS: Final = {
    "max-memory-size": "memory_size",
    "max-table-elements": "table_elements",
    "max-instances": "instances",
    "max-tables": "tables",
    "max-memories": "memories",
}
"""Settings, and the parameters of `Store.set_limits`."""

_NEVER: Final = 1 << 62
"""Epochs. Nothing increments the epoch on the command line, and a deadline that has not been set has passed."""


def limit(store: Store, settings: Settings) -> None:
    """Gives a new store what the command line says."""
    other = settings.other
    store.set_limits(**{parameter: other[name] for name, parameter in _LIMITS.items() if name in other})
    if other.get("trap-on-grow-failure"):
        store._context().limits.trap_on_grow_failure = True
    if "fuel" in other:
        store.set_fuel(other["fuel"])
    if settings.config.get("epoch_interruption", ("", False))[1]:
        store.set_epoch_deadline(_NEVER)
