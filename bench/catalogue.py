"""The guests: C programs of our own under bench/guests, with their small and large workloads.

Used by `build_guests` (what to compile), by the benchmark of run times (large) and by tests/guests (small).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

BENCH: Final = Path(__file__).resolve().parent
SOURCES: Final = BENCH / "guests"
BUILD: Final = BENCH / "build"


@dataclass(frozen=True)
class Guest:
    """A program: `small` is its argument for tests (below 0.3 s), `large` for measurements (about a second in
    wasmtime).
    """

    name: str
    what: str
    small: str
    large: str

    @property
    def source(self) -> Path:
        return SOURCES / f"{self.name}.c"

    @property
    def wasm(self) -> Path:
        return BUILD / f"{self.name}.wasm"

    @property
    def native(self) -> Path:
        return BUILD / f"{self.name}.native"


GUESTS: Final[tuple[Guest, ...]] = (
    Guest("compressor", "LZ77 with hash chains, canonical Huffman codes, and back", "96", "8192"),
    Guest("digest", "SHA-256 and BLAKE2b", "256", "32768"),
    Guest("sorting", "quicksort, heapsort, merge sort and radix sort of records", "6000", "400000"),
    Guest("bytecode", "an interpreter loop: a stack machine with a switch", "4", "500"),
    Guest("matrix", "f64 products, LU decomposition, power iteration", "72", "720"),
    Guest("json", "a parser and printer of JSON with a tree in malloc", "400", "60000"),
    Guest("nbody", "planets in f64, a membrane in f32", "4000", "5000000"),
    Guest("regex", "backtracking and automaton matchers", "150", "36000"),
    Guest("bits", "sieve, queens, bit tricks, modular powers", "1", "300"),
    Guest("hashmap", "string keys, chains and an LRU list in malloc", "20000", "1500000"),
    Guest("mandelbrot", "escape times in f64 and f32", "96", "1800"),
    Guest("calls", "recursion, calls through tables, many arguments", "0", "15"),
)
