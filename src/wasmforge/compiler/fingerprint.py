"""Which compiler this is, for the key of the compilation cache: when anything changes that machine code is made with,
so does the fingerprint. `runtime.cache` asks for it before it looks for an image.

Sizes and modification times of the sources stand for their contents: 0.3 ms for a hundred files, where reading them
would cost two. So a development checkout never runs what yesterday's compiler made, and another installation of the
same version at worst compiles once more.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["compiled_by_these_sources", "fingerprint"]

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_ROOMS: Final = ("syntax", "binary", "text", "validation", "compiler")
"""Everything between the bytes of a module and its image, text included: the key of a text is over the text."""

_LLVM: Final = os.path.join("llvmlite", "binding", "libllvmlite.so")


def fingerprint() -> bytes:
    """Changes with the sources (or their compiled form) of the compilers and with the LLVM library beside them."""
    # The place as well: some package managers set all times to one value, but have a directory for each version.
    return repr((_PACKAGE, _sources(), _llvm())).encode()


def compiled_by_these_sources() -> bool:
    """Whether the sources are older than this process, so that what it has imported is what they say. When somebody
    edits the compiler while it runs, its images belong to a compiler that is on disk no longer."""
    import time

    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])  # field 22, counted behind the command's name
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    newest = max(modified for _, _, modified in _sources())
    return newest < (time.time() - age) * 1e9


def _sources() -> list[tuple[str, int, int]]:
    """Name, size and modification time (ns) of each source file or extension module."""
    found = []
    directories = [os.path.join(_PACKAGE, room) for room in _ROOMS]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith((".py", ".so")):
                    status = entry.stat()
                    found.append((name, status.st_size, status.st_mtime_ns))
                elif name != "__pycache__" and entry.is_dir():
                    directories.append(entry.path)
    found.sort()
    return found


def _llvm() -> tuple[str, int, int] | None:
    # Where an import would find it, without the import: that takes 100 ms.
    for directory in sys.path:
        try:
            status = os.stat(os.path.join(directory, _LLVM))
        except (OSError, ValueError):
            continue
        return directory, status.st_size, status.st_mtime_ns
    return None
