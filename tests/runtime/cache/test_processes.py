"""Many processes compile the same and different modules into one cache while some are killed and others remove
entries: every one that ends by itself has computed the right answers, and so does every later one.

`python -m tests.runtime.cache.test_processes 200` runs the large variant by itself, `... 200 auto` that of entries that
grow: processes that call some functions of each module and keep what both compilers have made of them.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from .modules import ROOT, child_environment

MODULES = 12

CHILD = """
import os, random, sys
from tests.runtime.cache.modules import answer, call, hold_sources_steady, text_of
hold_sources_steady()
from wasmforge import Config, Engine, Module
from wasmforge.runtime.cache.settings import CacheSettings
seed, modules, limit = map(int, sys.argv[1:])
numbers = list(range(modules))
random.Random(seed).shuffle(numbers)
for n in numbers:
    config = Config()
    config.strategy = "baseline"
    Engine._lazy = False
    config._cache = CacheSettings(os.environ["WASMFORGE_CACHE"], size_limit=limit)
    # Every other module is large enough to be mapped, and to be killed in the middle of being written.
    module = Module(Engine(config), text_of(n, 300_000 * (n % 2)))
    assert call(module) == answer(n), f"module {n} is wrong"
print("right")
"""

FUNCTIONS = 30

GROWING_CHILD = """
import os, random, sys, time
from tests.runtime.cache.modules import hold_sources_steady
from tests.runtime.cache.test_processes import FUNCTIONS, many_functions, value
hold_sources_steady()
from wasmforge import Config, Engine, Instance, Module, Store
from wasmforge.runtime.cache.settings import CacheSettings
seed, modules, limit = map(int, sys.argv[1:])
r = random.Random(seed)
for n in r.sample(range(modules), modules):
    config = Config()
    config.strategy = "auto"
    config.tier_up_threshold = 20
    config._cache = CacheSettings(os.environ["WASMFORGE_CACHE"], size_limit=limit)
    store = Store(Engine(config))
    exports = Instance(store, Module(store.engine, many_functions(n)), []).exports(store)
    for k in r.sample(range(FUNCTIONS), 9):
        for x in range(20):
            assert exports[f"f{k}"](store, x) == value(n, k, x), f"module {n} is wrong"
    end = time.monotonic() + (0.6 if n == seed % 48 else 0)
    while time.monotonic() < end:  # until LLVM has made something
        for k in range(3):
            assert exports[f"f{k}"](store, 9) == value(n, k, 9), f"module {n} is wrong"
print("right")
"""


def many_functions(n: int) -> str:
    """Module n, with functions that are different from all others, each with a loop."""
    functions = (
        f"""(func (export "f{k}") (param i32) (result i32) (local i32)
        (loop (local.set 1 (i32.add (local.get 1) (i32.const {1000 * n + k})))
            (br_if 0 (i32.ge_s (local.tee 0 (i32.sub (local.get 0) (i32.const 1))) (i32.const 0))))
        (local.get 1))"""
        for k in range(FUNCTIONS)
    )
    return f"(module {' '.join(functions)})"


def value(n: int, k: int, x: int) -> int:
    """What function k of module n makes of an argument."""
    return (x + 1) * (1000 * n + k)


class Swarm:
    """Processes on one cache, `at_once` at a time."""

    def __init__(self, directory: Path, at_once: int, seed: int, child: str) -> None:
        self._child = child
        self._longest = 0.3 if child == CHILD else 1.2
        self._environment = child_environment(directory)
        self._at_once = at_once
        self._random = random.Random(seed)
        self._alive: list[tuple[subprocess.Popen[str], float]] = []
        self.killed = self.right = 0

    def start(self, seed: int, limit: int, kill: bool) -> None:
        while len(self._alive) >= self._at_once:
            self._reap()
        command = [sys.executable, "-c", self._child, str(seed), str(MODULES), str(limit)]
        child = subprocess.Popen(
            command, env=self._environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # From before the first module is compiled until after the last one is, on a busy machine too.
        deadline = time.monotonic() + self._random.uniform(0.02, self._longest) if kill else float("inf")
        self._alive.append((child, deadline))

    def finish(self) -> None:
        while self._alive:
            self._reap()

    def _reap(self) -> None:
        now = time.monotonic()
        for child, deadline in list(self._alive):
            if child.poll() is None and now > deadline:
                child.kill()
                child.wait()
            if child.poll() is None:
                continue
            output, errors = child.communicate()
            self._alive.remove((child, deadline))
            if child.returncode == -9 and deadline < float("inf"):
                self.killed += 1
            else:
                assert (child.returncode, output) == (0, "right\n"), errors
                self.right += 1
        if len(self._alive) >= self._at_once or self._alive:
            time.sleep(0.01)


def run(directory: Path, processes: int, seed: int = 1, child: str = CHILD) -> tuple[int, int]:
    """Returns how many processes were killed and how many were right."""
    generous, tight = 1 << 30, 1 << 20
    swarm = Swarm(directory, 8, seed, child)
    for number in range(processes):
        # A third is killed; a quarter has so little room that it removes the entries of the others.
        swarm.start(number, tight if number % 4 == 3 else generous, kill=number % 3 == 1)
    swarm.finish()
    killed, right = swarm.killed, swarm.right
    for number in range(2):
        swarm.start(number, generous, kill=False)
        swarm.finish()
    assert swarm.right == right + 2
    return killed, right


def check(directory: Path, processes: int, child: str = CHILD) -> None:
    killed, right = run(directory, processes, child=child)
    assert killed + right == processes
    assert killed > processes // 10, "too few were killed for a test"
    assert len(list(directory.glob("*.cwasm"))) == MODULES


@pytest.mark.slow
def test_processes_on_one_cache(directory: Path) -> None:
    check(directory, 60)


@pytest.mark.slow
def test_processes_that_grow_one_cache(directory: Path) -> None:
    check(directory, 40, GROWING_CHILD)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = GROWING_CHILD if sys.argv[2:] == ["auto"] else CHILD
        killed_count, right_count = run(Path(temporary) / "modules", int(sys.argv[1]), child=text)
        print(f"killed {killed_count}, right {right_count}")
