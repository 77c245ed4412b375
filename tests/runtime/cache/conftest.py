"""Engines with a cache of their own, and a list that grows by one for each compilation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wasmforge import Config, Engine, Module
from wasmforge.compiler import fingerprint
from wasmforge.runtime import cache as cache_room


@pytest.fixture(autouse=True)
def ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled lazily has no image to keep."""
    monkeypatch.setattr(Engine, "_lazy", False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the cache is; nothing is there yet."""
    return tmp_path / "cache" / "modules"


@pytest.fixture
def engine_of(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Makes engines with the given settings. The environment names the cache, for child processes too."""
    monkeypatch.setenv("WASMFORGE_CACHE", str(directory))
    # Somebody may be editing the compiler while the tests run; test_cache.py tests what happens then.
    steady = cache_room.fingerprint()
    monkeypatch.setattr(cache_room, "fingerprint", lambda: steady)
    monkeypatch.setattr(fingerprint, "compiled_by_these_sources", lambda: True)

    def make(**settings: Any) -> Engine:
        config = Config()
        config.strategy = "baseline"  # these tests are not about the code; it compiles without child processes
        for name, value in settings.items():
            setattr(config, name, value)
        return Engine(config)

    return make


@pytest.fixture
def cached(engine_of: Callable[..., Engine]) -> Callable[..., Module]:
    """Compiles with a new engine, which knows nothing but what is on disk."""
    return lambda source, **settings: Module(engine_of(**settings), source)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    compile_ = Engine._compile

    def counted(self: Engine, wasm: bytes, *rest: Any) -> bytes:
        made.append(len(wasm))
        return compile_(self, wasm, *rest)

    monkeypatch.setattr(Engine, "_compile", counted)
    return made
