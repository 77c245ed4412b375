"""What of this process's address space is mapped, for tests that memory goes away."""

from __future__ import annotations

from pathlib import Path

from wasmforge.runtime.mapping import unmap_recycled


def maps() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()


def is_mapped(address: int) -> bool:
    """Whether anything keeps the memory at an address but the hope that it is used again."""
    unmap_recycled()
    for line in maps():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if low <= address < high:
            return True
    return False
