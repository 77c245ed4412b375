"""The runtime's tests see its own trap class, whatever the embedder's objects have set in the same process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import wasmforge.store  # noqa: F401  # sets the embedder's class now, not inside a test that would undo it
from wasmforge.runtime.vm import traps


@pytest.fixture(autouse=True)
def own_trap_class() -> Iterator[None]:
    before = traps._trap_class
    traps.set_trap_class(lambda: traps.RuntimeTrap)
    yield
    traps.set_trap_class(before)
