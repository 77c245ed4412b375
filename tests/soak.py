"""A million calls, and 100,000 stores with instances that come and go: memory returns to where it was.

    python -m tests.soak [--calls 1000000] [--stores 100000] [--strategy auto]

Calls are of every kind that crosses the boundary: in the style of the wasmtime package and of Python, into host
functions, with several results, with references, and such that trap or raise. Each store has two instances; one imports
from the other, and they have memories, tables, host functions and a cycle through one of these. What a process has is
counted after a part of it, when caches and pools are full and the second tier has come up, and after all of it. Exits
with 1 if it has grown.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from wasmforge import Config, Engine, Func, FuncType, Instance, Linker, Module, Store, Trap, ValType, load

LIBRARY: Final = """(module
    (memory (export "memory") 1 2) (data (i32.const 8) "wasmforge")
    (table (export "table") 4 8 funcref) (elem (i32.const 0) $add)
    (global $count (export "count") (mut i32) (i32.const 0))
    (func $add (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"""

PROGRAM: Final = """(module
    (import "host" "f" (func $f (param i32) (result i32)))
    (import "library" "memory" (memory 1)) (import "library" "table" (table 4 funcref))
    (import "library" "add" (func $add (param i32 i32) (result i32)))
    (memory $own 1 1)
    (func (export "add") (param i32 i32) (result i32) (call $add (local.get 0) (local.get 1)))
    (func (export "host") (param i32) (result i32) (call $f (local.get 0)))
    (func (export "pair") (param i64 f64) (result i64 f64) (local.get 0) (local.get 1))
    (func (export "echo") (param externref) (result externref) (local.get 0))
    (func (export "trap") (param i32) (result i32) (i32.load (i32.const -1)))
    (func (export "grow") (result i32) (memory.grow (i32.const 1))))"""


class Held(NamedTuple):
    """What a process has: resident memory that is its own, in KiB, address space, mappings, open files, and blocks of
    Python's allocator."""

    resident: int
    address_space: int
    mappings: int
    files: int
    blocks: int


ALLOWED: Final = Held(2048, 65536, 128, 2, 3000)
"""Growth that no leak of one thing a store, or a hundred calls, could hide in. Stores that are garbage in a cycle wait
for the collector, so that more than ever before may be there at once: each has a stack, which goes to a pool."""

WARM_UP: Final = {"calls": 400_000, "stores": 1000}
"""Before the first count, at most half of all."""


def held() -> Held:
    gc.collect()
    rows = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    resident = int(rows["RssAnon"].split()[0])
    mappings = Path("/proc/self/maps").read_bytes().count(b"\n")
    return Held(
        resident, int(rows["VmSize"].split()[0]), mappings, len(os.listdir("/proc/self/fd")), sys.getallocatedblocks()
    )


def host(x: int) -> int:
    if x == 13:
        raise ValueError("no luck")
    return x + 1


class Soak:
    def __init__(self, strategy: str) -> None:
        config = Config()
        config.strategy = strategy
        config.cache = False
        self.engine = Engine(config)
        self.modules = [Module(self.engine, text) for text in (LIBRARY, PROGRAM)]
        self.type = FuncType([ValType.i32()], [ValType.i32()])
        self.exports = self.program(Store(self.engine))
        self.app = load(LIBRARY, engine=self.engine)

    def program(self, store: Store, f: Any = host) -> Any:
        library, program = self.modules
        linker = Linker(self.engine)
        linker.define_instance(store, "library", Instance(store, library, []))
        linker.define(store, "host", "f", Func(store, self.type, f))
        return linker.instantiate(store, program).exports(store), store

    def calls(self, count: int) -> None:
        """Ten calls a round."""
        exports, store = self.exports
        add, call_host, pair, echo = (exports[name] for name in ("add", "host", "pair", "echo"))
        for k in range(count // 10):
            for x in range(4):
                assert add(store, k, x) == k + x
            assert self.app.add(k, 1) == k + 1
            assert call_host(store, 70_000) == 70_001
            assert pair(store, k << 20, 0.5) == [k << 20, 0.5]
            assert echo(store, held_by_wasm := [k]) is held_by_wasm
            for name, error, argument in (("trap", Trap, 0), ("host", ValueError, 13)):
                try:
                    exports[name](store, argument)
                except error:
                    continue
                raise AssertionError(name)

    def stores(self, count: int) -> None:
        for k in range(count):
            kept: list[Any] = []
            exports, store = self.program(Store(self.engine), lambda x, kept=kept: x + len(kept))
            kept.append(store if k % 10 == 0 else k)  # in every tenth a cycle
            assert exports["host"](store, 3) == 4
            assert exports["add"](store, k, 1) == k + 1
            if k % 3 == 0:
                assert exports["grow"](store) == 1

    def run(self, calls: int, stores: int) -> list[str]:
        """What has grown."""
        grown = []
        for name, work, count in (("calls", self.calls, calls), ("stores", self.stores, stores)):
            first = min(max(count // 10, WARM_UP[name]), count // 2)
            work(first)
            before = held()
            start = time.monotonic()
            work(count - first)
            seconds = time.monotonic() - start
            after = held()
            change = Held(*(b - a for a, b in zip(before, after, strict=True)))
            print(f"{count:,} {name}, {seconds:.0f} s: from {before} by {change}", flush=True)
            grown += [
                f"{name}: {field} by {found}"
                for field, found, most in zip(Held._fields, change, ALLOWED, strict=True)
                if found > most
            ]
        return grown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="See whether memory comes back.")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--stores", type=int, default=100_000)
    parser.add_argument("--strategy", default="auto")
    options = parser.parse_args()
    grown = Soak(options.strategy).run(options.calls, options.stores)
    for line in grown:
        print(f"has grown: {line}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
