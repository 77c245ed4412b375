"""One engine a strategy for the tests of the embedder's objects: what they compile shares its types."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wasmforge import Config, Engine, Instance, Module, Store
from wasmforge.extern import Extern
from wasmforge.instance import InstanceExports

_engines: dict[str, Engine] = {}


@pytest.fixture(params=["llvm", "baseline"])
def engine(request: pytest.FixtureRequest) -> Engine:
    strategy: str = request.param
    if strategy not in _engines:
        config = Config()
        config.strategy = strategy
        _engines[strategy] = Engine(config)
    return _engines[strategy]


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def instantiate(store: Store) -> Callable[..., InstanceExports]:
    """Text and imports to the exports of an instance in `store`."""

    def make(text: str, *imports: Extern) -> InstanceExports:
        return Instance(store, Module(store.engine, text), imports).exports(store)

    return make
