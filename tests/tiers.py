"""Puts functions of lazily compiled modules into the optimising tier, for tests that look at what runs there."""

from __future__ import annotations

import time

import wasmforge
from wasmforge.runtime.lazy_code import OPTIMISED
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.runtime.tier_up import State

__all__ = ["engine", "eager_config", "promote", "tiers"]

PATIENCE = 120.0
"""Seconds, on a machine that does many other things."""


def eager_config() -> wasmforge.Config:
    """For functions that are hot at once."""
    config = wasmforge.Config()
    config.strategy = "auto"
    config.tier_up_threshold = 1
    config.cache = False
    return config


def engine() -> wasmforge.Engine:
    return wasmforge.Engine(eager_config())


def tiers(module: wasmforge.Module) -> dict[int, int]:
    """The tier of each function, counted without imports, that is compiled."""
    lazy = module._compiled
    assert isinstance(lazy, LazyModule)
    return {x: piece.tier for x, piece in lazy.code.current.items()}


def promote(module: wasmforge.Module | LazyModule, functions: list[int] | None = None) -> None:
    """Does what running hot does to `functions` (defined indices, all by default), until they are optimised."""
    lazy = module if isinstance(module, LazyModule) else module._compiled
    assert isinstance(lazy, LazyModule)
    wanted = range(len(lazy.info.functions)) if functions is None else functions
    if not wanted:
        return
    tier_up = lazy.tier_up
    assert tier_up is not None
    for x in wanted:
        lazy.compiled_function(x)
    end = time.monotonic() + PATIENCE
    while any(lazy.code.current[x].tier != OPTIMISED for x in wanted):
        for x in wanted:
            tier_up.visit(x)
        assert not any(tier_up.functions[x].state == State.FAILED for x in wanted if x in tier_up.functions), (
            "LLVM failed"
        )
        assert time.monotonic() < end, "the background compiler does not answer"
        time.sleep(0.0005)
