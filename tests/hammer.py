"""Many threads call the functions of one generated module in random order, each in a store of its own, while functions
are compiled at their first calls (and, under `auto`, replaced by better code): right results, nothing left behind.

    python -m tests.hammer --seconds 30 --functions 10000 --threads 8 --strategy auto
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
import time
from typing import Any

from tests.numbered import numbered, sum_of
from wasmforge import Config, Engine, Instance, Module, Store
from wasmforge.compiler.llvm.background import background_compiler
from wasmforge.runtime.lazy_code import OPTIMISED
from wasmforge.runtime.lazy_module import LazyModule


class Hammer:
    def __init__(self, engine: Engine, functions: int) -> None:
        self.functions = functions
        self.module = Module(engine, numbered(functions))
        self.calls = 0
        self.wrong: list[object] = []
        self.stop = False

    def work(self, seed: int) -> None:
        try:
            store = Store(self.module._engine)
            exports = Instance(store, self.module, []).exports(store)
            # Half of the threads let others run while they are in wasm.
            callables: list[Any] = [
                exports[f"f{n}"]._function.make_callable(release_gil=bool(seed % 2))  # type: ignore[union-attr]
                for n in range(self.functions)
            ]
            r = random.Random(seed)
            order = list(range(self.functions))
            while not self.stop:
                r.shuffle(order)
                for k, n in enumerate(order):
                    if callables[n](seed) != sum_of(n, seed):
                        self.wrong.append((seed, n))
                    if not k % 64 and self.stop:
                        break
                self.calls += k
        except BaseException as error:
            self.wrong.append(error)
            raise

    def run(self, threads: int, seconds: float) -> None:
        running = [threading.Thread(target=self.work, args=(k,)) for k in range(threads)]
        for thread in running:
            thread.start()
        time.sleep(seconds)
        self.stop = True
        for thread in running:
            thread.join()

    def optimised(self) -> int:
        """How many functions have better code by now."""
        module = self.module._compiled
        if not isinstance(module, LazyModule):
            return 0
        return sum(piece.tier == OPTIMISED for piece in list(module.code.current.values()))


def children() -> int:
    """Of this process, the background compiler apart, which ends here; zombies too."""
    background_compiler().close()
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def code_mappings() -> int:
    with open("/proc/self/maps") as file:
        return sum("wasmforge-code" in line for line in file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--functions", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="modules, one after the other")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--threshold", type=int, default=50, help="calls after which a function is hot")
    options = parser.parse_args()
    config = Config()
    config.strategy = options.strategy
    config.tier_up_threshold = options.threshold
    engine = Engine(config)
    Module(engine, "(module)")
    before = descriptors(), code_mappings()
    wrong = 0
    for n in range(options.rounds):
        hammer = Hammer(engine, options.functions)
        hammer.run(options.threads, options.seconds / options.rounds)
        print(
            f"round {n}: {hammer.calls:,} calls, wrong: {hammer.wrong[:5] or 'none'}, "
            f"{hammer.optimised():,} functions optimised"
        )
        wrong += len(hammer.wrong)
        del hammer
    left = children()
    after = descriptors(), code_mappings()
    print(f"descriptors and mappings of code before {before}, after {after}; {left} child processes")
    return 1 if wrong or left or after[0] > before[0] + 1 or after[1] > before[1] else 0


if __name__ == "__main__":
    sys.exit(main())
