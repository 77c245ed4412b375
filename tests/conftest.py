"""What the tests compile is kept in .cache/test-images, so that repeated runs do not compile it again: the key of the
cache holds the compiler's sources. Tests of compiling itself call the compilers, or switch the cache off."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wasmforge.engine import Engine

os.environ.setdefault("WASMFORGE_CACHE", str(Path(__file__).resolve().parent.parent / ".cache" / "test-images"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a shell without job control, where Python leaves Ctrl-C ignored: tests that send it would
    # wait for their time to be over.
    signal.signal(signal.SIGINT, signal.default_int_handler)

open_cache = Engine._open_cache


def open_cache_of_images(engine: Engine) -> Any:
    """What is compiled while a test runs is compiled anew in each, or most compilers would be tested once and then
    never again. tests/runtime/cache/test_growth.py is about the alternative."""
    return None if engine._lazy else open_cache(engine)


Engine._open_cache = open_cache_of_images  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def runtime_lock_is_free() -> Iterator[None]:
    """No test leaves the runtime's lock locked: it is reentrant, so only the threads of a later test would notice."""
    yield
    module = sys.modules.get("wasmforge.runtime.lock")
    if module is not None:
        assert not module.LOCK._is_owned()
