"""How a `Module` travels to another process: as its image and the settings of its engine. `Module.__reduce__` makes
both; `rebuild` is what `pickle` calls on the other side.

Threat: an image is machine code. Unpickling runs code that the sender chooses in any case, so this opens no door that
`pickle` has closed; but bytes from elsewhere must not be unpickled, modules or not.
"""

from __future__ import annotations

from wasmforge.compiler.environ import Tunables
from wasmforge.engine import Engine, default_engine
from wasmforge.module import Module
from wasmforge.runtime import EngineState
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Settings: TypeAlias = tuple[tuple[tuple[str, int | bool | str], ...], int, bool, str, int | None]
    """Tunables, bytes of stack, whether shared memories may be made, strategy, threshold of tier-up."""

__all__ = ["rebuild", "settings_of"]

_engines: dict[Settings, Engine] = {}
"""One engine for all modules that arrive with the same settings, so that they can be linked with each other."""


def settings_of(engine: Engine) -> Settings:
    """What `rebuild` makes an equal engine of."""
    state = engine._state
    tunables = tuple(state.tunables.as_dict().items())
    threshold = engine._tier_up_threshold
    return tunables, state.max_wasm_stack, state.shared_memory, engine._wanted_strategy, threshold


def rebuild(version: str, settings: Settings, image: bytes) -> Module:
    """The module in this process. Raises WasmtimeError when it was made by another version or for another processor, or
    is damaged."""
    if version != VERSION:
        raise WasmtimeError(
            f"the pickled module was made by wasmforge {version}, this is {VERSION}: send the WebAssembly instead"
        )
    return Module.deserialize(_engine_with(settings), image)


def _engine_with(settings: Settings) -> Engine:
    engine = _engines.get(settings)
    if engine is None or engine._closed:
        engine = default_engine()
        if engine._closed or settings_of(engine) != settings:
            engine = _new_engine(settings)
        _engines[settings] = engine
    return engine


def _new_engine(settings: Settings) -> Engine:
    tunables, max_wasm_stack, shared_memory, strategy, threshold = settings
    engine = Engine()
    engine._tunables = Tunables(**dict(tunables))  # type: ignore[arg-type]
    engine._wanted_strategy = strategy
    engine._tier_up_threshold = threshold
    engine._state = EngineState(engine._tunables, max_wasm_stack=max_wasm_stack, shared_memory=shared_memory)
    return engine
