"""Compares engines on random modules, in several processes: results, traps, refusals, and what is left in memories and
globals.

    python -m tests.differential KIND --count 1000 [--seed 0] [--jobs 2] [--seconds 60] [--engines NAME...]

KIND is `functions` (scalars, control, calls; every other module has vectors), `atomics`, `memories` or `mixed` (all
proposals in one module, types across modules, refusals). `--count` is a number of functions for the first three, of
modules for `mixed`. A case depends on its seed alone; the seeds from `--seed` on are taken until there are enough or
the time is over, and the last line says which were. Every difference is printed with its seed; a case that ends the
process is one. Exits with 1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NamedTuple

from tests.generate import ModuleMaker, compare, engines
from tests.generate_atomics import AtomicModuleMaker
from tests.generate_memories import MemoryModuleMaker
from tests.generate_memories import engines as memory_engines
from tests.generate_mixed import engine as mixed_engine
from tests.generate_mixed import make_case
from tests.generate_vectors import VectorModuleMaker

PART: Final = 20
"""Cases that a process is given at a time."""


class Made(NamedTuple):
    """What one seed makes: `case` for `compare`, and how much of `--count` it is."""

    case: Any
    calls: int
    size: int


class Kind(NamedTuple):
    make: Callable[[int, bool], Made]
    engines: Callable[..., dict[str, Any]]


def _functions(seed: int, fuel: bool) -> Made:
    # Wasmtime does not keep the count of fuel around calls of references.
    maker = (VectorModuleMaker if seed % 2 else ModuleMaker)(seed, 24, not fuel)
    return Made(maker.make(), 3, maker.count - 1)


def _atomics(seed: int, fuel: bool) -> Made:
    maker = AtomicModuleMaker(seed, 24, not fuel)
    return Made(maker.make(), 3, maker.count - 1)


def _memories(seed: int, fuel: bool) -> Made:
    maker = MemoryModuleMaker(seed, 8)
    return Made(maker.make(), 2, maker.count - 1)


def _mixed(seed: int, fuel: bool) -> Made:
    case = make_case(seed)
    return Made(case, 2, len(case.modules))


def _mixed_engines(*names: str) -> dict[str, Any]:
    return {name: mixed_engine(name) for name in names}


KINDS: Final = {
    "functions": Kind(_functions, engines),
    "atomics": Kind(_atomics, engines),
    "memories": Kind(_memories, memory_engines),
    "mixed": Kind(_mixed, _mixed_engines),
}


def _child(connection: Connection, kind: Kind, names: list[str]) -> None:
    """Answers each seed with its size and its differences."""
    made = kind.engines(*names)
    fuel = any("+fuel" in name for name in names)
    while True:
        try:
            seed = connection.recv()
        except EOFError:
            return
        try:
            found = kind.make(seed, fuel)
            connection.send((found.size, compare(made, found.case, seed, found.calls)))
        except Exception as error:
            connection.send((0, [f"seed {seed}: {type(error).__name__}: {error}"]))


class Worker:
    """A process that compares, with the seeds that it still has to do."""

    def __init__(self, kind: Kind, names: list[str]) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_child, args=(theirs, kind, names), daemon=True)
        self.process.start()
        theirs.close()
        self.seeds: list[int] = []

    def give(self, seeds: list[int]) -> None:
        for seed in seeds:
            self.connection.send(seed)
        self.seeds += seeds


class Comparison:
    """The parent: hands out seeds in their order and counts."""

    def __init__(self, kind: Kind, names: list[str], jobs: int) -> None:
        self.kind = kind
        self.names = names
        self.jobs = jobs
        self.size = self.cases = self.differences = 0

    def run(self, count: int, seed: int, deadline: float) -> int:
        """Returns the first seed that was not taken."""
        workers = [Worker(self.kind, self.names) for _ in range(self.jobs)]
        while True:
            for worker in workers:
                missing = count - self.size - sum(len(other.seeds) for other in workers)
                if not worker.seeds and missing > 0 and time.monotonic() < deadline:
                    part = min(PART, max(1, missing // self.jobs))
                    worker.give(list(range(seed, seed + part)))
                    seed += part
            busy = [worker for worker in workers if worker.seeds]
            if not busy:
                break
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready and not self.take(worker):
                    workers[workers.index(worker)] = heir = Worker(self.kind, self.names)
                    heir.give(worker.seeds)
        for worker in workers:
            worker.connection.close()
        return seed

    def take(self, worker: Worker) -> bool:
        """Takes an answer; False if the process has ended instead."""
        seed = worker.seeds.pop(0)
        self.cases += 1
        try:
            size, differences = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            size, differences = 0, [f"seed {seed}: the process ended with {worker.process.exitcode}"]
        self.size += size
        for line in differences:
            print(line, flush=True)
        self.differences += len(differences)
        return worker.process.exitcode is None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description="Compare engines.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--engines", nargs="+", default=["baseline", "llvm", "wasmtime"])
    options = parser.parse_args(arguments)
    start = time.monotonic()
    comparison = Comparison(KINDS[options.kind], options.engines, options.jobs)
    following = comparison.run(options.count, options.seed, start + options.seconds)
    what = "modules" if options.kind == "mixed" else "functions"
    print(
        f"{options.kind}: {comparison.size} {what} in {comparison.cases} cases, seeds {options.seed} to "
        f"{following - 1}, {' '.join(options.engines)}: {comparison.differences} differences, "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if comparison.differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
