"""The sections of the benchmark, in the order in which they run: each a function from settings to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bench.measure import Row, Settings
from bench.sections import (
    asynchronous,
    calls,
    compilation,
    guests,
    metering,
    processes,
    starts,
    threads,
    tiers,
    traps,
    wasi,
)

SECTIONS: Final[dict[str, Callable[[Settings], Iterator[Row]]]] = {
    "guests": guests.measure,
    "vectors": guests.measure_vectors,
    "tiers": tiers.measure,
    "calls": calls.measure,
    "asynchronous": asynchronous.measure,
    "traps": traps.measure,
    "wasi": wasi.measure,
    "threads": threads.measure,
    "metering": metering.measure,
    "processes": processes.measure,
    "starts": starts.measure,
    "compilation": compilation.measure,
}

TITLES: Final = {
    "guests": "Run time of programs in C",
    "vectors": "Run time of programs with vectors",
    "tiers": "Run time by tier: baseline, and auto after warm-up",
    "calls": "Calls between Python and wasm",
    "asynchronous": "Asynchronous calls",
    "traps": "Traps and exceptions",
    "wasi": "WASI functions",
    "threads": "Threads over one shared memory",
    "metering": "What fuel and epochs cost",
    "processes": "Fresh processes",
    "starts": "CPython and QuickJS for WASI, from start to exit",
    "compilation": "Compilation and memory (for information)",
}
