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
    """A program, with its arguments for tests (below 0.3 s) and for measurements (about 0.4 s in wasmtime).

    Large workloads repeat themselves on data that fits the second-level cache of a present-day core, so that they
    measure compiled code, and not the memory of a machine that others use as well. They are short for the same reason:
    the minimum of many short samples finds the quiet moments of a busy machine, that of a few long ones does not.
    """

    name: str
    what: str
    small: tuple[str, ...]
    large: tuple[str, ...]
    vectors: bool = False
    """Whether it is written with vectors of 128 bits."""

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
    Guest("compressor", "LZ77 with hash chains, canonical Huffman codes, and back", ("96",), ("128", "36")),
    Guest("digest", "SHA-256 and BLAKE2b", ("256",), ("256", "80")),
    Guest("sorting", "quicksort, heapsort, merge sort and radix sort of records", ("6000",), ("10000", "55")),
    Guest("bytecode", "an interpreter loop: a stack machine with a switch", ("4",), ("120",)),
    Guest("emulator", "a RISC-V processor and programs for it", ("1",), ("200",)),
    Guest("matrix", "f64 products, LU decomposition, power iteration", ("72",), ("150", "60")),
    Guest("json", "a parser and printer of JSON with a tree in malloc", ("400",), ("1000", "40")),
    Guest("nbody", "planets in f64, a membrane in f32", ("4000",), ("2000000",)),
    Guest("regex", "backtracking and automaton matchers", ("150",), ("15000",)),
    Guest("bits", "sieve, queens, bit tricks, modular powers", ("1",), ("150",)),
    Guest("hashmap", "string keys, chains and an LRU list in malloc", ("20000",), ("10000", "200")),
    Guest("mandelbrot", "escape times in f64 and f32", ("96",), ("1200",)),
    Guest("calls", "recursion, calls through tables, many arguments", ("0",), ("13",)),
)

VECTOR_GUESTS: Final[tuple[Guest, ...]] = (
    Guest("vector_matrix", "products in f32x4 and f64x2", ("40",), ("96", "700"), vectors=True),
    Guest("vector_blake3", "BLAKE3 over four chunks in u32x4", ("8",), ("64", "8000"), vectors=True),
    Guest("vector_base64", "base64 both ways with swizzles in u8x16", ("3",), ("48", "15000"), vectors=True),
    Guest("vector_mandelbrot", "escape times in f32x4 and f64x2", ("64",), ("1800",), vectors=True),
)
"""Programs for the vector instructions, which the others do without."""
