"""Where the official test suites are, for the tests that run them."""

from __future__ import annotations

import os
from pathlib import Path

WHERE_TO_GET_IT = (
    "no specification suite: clone github.com/WebAssembly/testsuite at 193e551 into $WASMFORGE_TESTSUITES/spec"
)


def suite_folder() -> Path | None:
    """The folder of the specification suite; None when this machine has none."""
    root = os.environ.get("WASMFORGE_TESTSUITES") or Path(__file__).parents[3] / "shared" / "testsuites"
    folder = Path(root) / "spec"
    return folder if folder.is_dir() else None


def scripts() -> list[str]:
    """Every script of the suite, as a path relative to its folder."""
    folder = suite_folder()
    return [] if folder is None else sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.wast"))
