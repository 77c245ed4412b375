"""The machine that images are made for: triple, instruction set level, and whether this computer can run one.

The LLVM worker compiles for `llvm_cpu()`; the image records the level, and loading checks it.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["LEVELS", "TRIPLE", "host_level", "llvm_cpu"]

TRIPLE: Final = "x86_64-unknown-linux-gnu"

LEVELS: Final[dict[str, frozenset[str]]] = {
    "x86-64-v2": frozenset({"cx16", "lahf_lm", "popcnt", "ssse3", "sse4_1", "sse4_2"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
}
"""Microarchitecture levels of the x86-64 psABI with the flags that Linux shows for what each adds. v2 is the least:
rounding needs SSE4.1. Levels rather than single features, so that a cache can be shared by like machines."""

_level: str | None = None


def host_level() -> str:
    """The highest level that this computer has. Raises `WasmtimeError` when it has none of them."""
    global _level
    if _level is None:
        # The first record is enough, and on machines with many cores much cheaper than the whole file.
        with open("/proc/cpuinfo", "rb") as f:
            line = next((line for line in f if line.startswith(b"flags")), b"")
        flags = frozenset(line.decode("ascii", "replace").split())
        best = None
        for level, needed in LEVELS.items():
            if not needed <= flags:
                break
            best = level
        if best is None:
            raise WasmtimeError("this processor is too old: wasmforge needs x86-64-v2 (SSE4.2, POPCNT)")
        _level = best
    return _level


def llvm_cpu() -> str:
    """The name by which LLVM knows the level that this computer's code is compiled for."""
    return host_level()
