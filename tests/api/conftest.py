"""One engine for the tests of the embedder's objects: what they compile shares its types."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wasmforge
from wasmforge import Engine, Instance, Module, Store
from wasmforge.extern import Extern
from wasmforge.instance import InstanceExports

_engine: Engine | None = None


@pytest.fixture
def engine() -> Engine:
    global _engine
    if _engine is None:
        _engine = wasmforge.Engine()
    return _engine


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def instantiate(store: Store) -> Callable[..., InstanceExports]:
    """Text and imports to the exports of an instance in `store`."""

    def make(text: str, *imports: Extern) -> InstanceExports:
        return Instance(store, Module(store.engine, text), imports).exports(store)

    return make
