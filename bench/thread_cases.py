"""What the section on threads measures, in a worker process: a parallel kernel over one shared memory."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final

Package = Any

# A pseudo-random walk that reads and writes its own part of the memory, and adds to a common count at times.
KERNEL: Final = """
(module
  (import "" "memory" (memory 2 2 shared))
  (func (export "work") (param $part i32) (param $rounds i32) (result i32)
    (local $state i32) (local $at i32)
    (local.set $state (i32.const 0x9e3779b9))
    (loop $again
      (local.set $state (i32.add (i32.mul (local.get $state) (i32.const 1664525)) (i32.const 1013904223)))
      (local.set $at (i32.add (local.get $part) (i32.and (i32.shr_u (local.get $state) (i32.const 16))
        (i32.const 0x3ffc))))
      (i32.store offset=4096 (local.get $at)
        (i32.xor (i32.load offset=4096 (local.get $at)) (i32.rotl (local.get $state) (i32.const 7))))
      (if (i32.eqz (i32.and (local.get $rounds) (i32.const 0xffff)))
        (then (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))))
      (br_if $again (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (local.get $state)))
"""
PART: Final = 65536
"""Bytes between the parts of two threads, which share no line of a cache."""


class ParallelKernel:
    """Instances of the kernel, a store each, over one memory."""

    def __init__(self, package: Package, most: int) -> None:
        config = package.Config()
        config.shared_memory = True
        engine = package.Engine(config)
        module = package.Module(engine, KERNEL)
        memory = package.SharedMemory(engine, package.MemoryType(package.Limits(2, 2), shared=True))
        self._instances = []
        for _ in range(most):
            store = package.Store(engine)
            linker = package.Linker(engine)
            linker.define(store, "", "memory", memory)
            self._instances.append((store, linker.instantiate(store, module).exports(store)["work"]))

    def sample(self, threads: int, rounds: int) -> dict[str, Any]:
        """Wall time of `rounds` spread over some threads, and how many processors they had meanwhile."""
        barrier = threading.Barrier(threads + 1)

        def run(part: int) -> None:
            store, work = self._instances[part]
            barrier.wait()
            work(store, part * PART, rounds // threads)

        running = [threading.Thread(target=run, args=(part,)) for part in range(threads)]
        for thread in running:
            thread.start()
        barrier.wait()
        start, used = time.perf_counter(), time.process_time()
        for thread in running:
            thread.join()
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "processors": (time.process_time() - used) / seconds,
            "cores": len(os.sched_getaffinity(0)),
        }
