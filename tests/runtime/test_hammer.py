"""Many threads call the functions of one module while tier-up replaces them; `python -m tests.hammer` does it for
longer, with more functions."""

from __future__ import annotations

import threading
import time

import pytest

from tests.hammer import Hammer
from tests.tiers import PATIENCE, eager_config
from wasmforge import Engine
from wasmforge.compiler.availability import llvm_available


@pytest.mark.skipif(not llvm_available(), reason="needs llvmlite")
def test_threads_call_functions_while_they_are_replaced() -> None:
    config = eager_config()
    config.tier_up_threshold = 20
    hammer = Hammer(Engine(config), 150)
    end = time.monotonic() + PATIENCE
    threads = [threading.Thread(target=hammer.work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    try:
        while hammer.optimised() < 101 and not hammer.wrong and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        hammer.stop = True
        for thread in threads:
            thread.join()
    assert not hammer.wrong
    assert hammer.optimised() > 100 and hammer.calls > 150
