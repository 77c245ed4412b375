"""What a process does that finds no image of the gates: it has one built by a child process, and leaves it in the cache
for those that come after. `loader.py` calls it, and imports it only then.
"""

from __future__ import annotations

import contextlib
import os
import sys

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["build", "store"]

_CHILD: Final = "from wasmforge.runtime.native.build import main\nsys.exit(main(['-']))"

_KEPT: Final = 32
"""Images that stay in the cache: each of 16 KB, two for each state of the sources."""

_BUILD_TIMEOUT: Final = 120  # seconds; a build takes 0.5


def store(path: str, data: bytes) -> None:
    """Writes the cache file so that readers see all of it or nothing. Without a cache all works, only slower."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
        _remove_old(os.path.dirname(path))


def _remove_old(directory: str) -> None:
    """Removes what sources of long ago have left, and processes that were killed. Raises OSError."""
    with os.scandir(directory) as entries:
        ours = [
            e for e in entries if e.name.startswith(("gates-", "known-gates-")) and e.is_file(follow_symlinks=False)
        ]
    ours.sort(key=lambda e: -e.stat(follow_symlinks=False).st_mtime_ns)
    for entry in ours[_KEPT:]:
        os.unlink(entry.path)


def build() -> bytes:
    """The bytes of a new image, from a child process."""
    import subprocess  # which those that only store do not need

    if not sys.executable:  # an embedded interpreter
        raise WasmtimeError(
            "cannot build the gates between Python and wasm: this process does not know its Python executable. "
            "Run `python -m wasmforge.runtime.native.build` once"
        )
    paths = [p or os.getcwd() for p in sys.path]
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n" + _CHILD]
    try:
        child = subprocess.run(
            command, capture_output=True, timeout=_BUILD_TIMEOUT, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WasmtimeError(f"cannot build the gates between Python and wasm: {error}") from error
    if child.returncode != 0:
        text = child.stderr.decode(errors="replace").strip().splitlines()
        reason = text[-1] if text else f"exit status {child.returncode}"
        raise WasmtimeError(
            f"cannot build the gates between Python and wasm: {reason}. They are compiled once, by llvmlite, and then "
            "cached: install llvmlite, or a wheel of wasmforge that contains them"
        )
    return child.stdout
