"""What the tests compile is kept in .cache/test-images, so that repeated runs do not compile it again: the key of the
cache holds the compiler's sources. Tests of compiling itself call the compilers, or switch the cache off."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("WASMFORGE_CACHE", str(Path(__file__).resolve().parent.parent / ".cache" / "test-images"))


@pytest.fixture(autouse=True)
def runtime_lock_is_free() -> Iterator[None]:
    """No test leaves the runtime's lock locked: it is reentrant, so only the threads of a later test would notice."""
    yield
    module = sys.modules.get("wasmforge.runtime.lock")
    if module is not None:
        assert not module.LOCK._is_owned()
