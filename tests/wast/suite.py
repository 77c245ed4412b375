"""Where the official test suites are, for the tests that run them."""

from __future__ import annotations

import os
from pathlib import Path

import wasmforge
from wasmforge.wast import Runner
from wasmforge.wast.runner import all_proposals

WHERE_TO_GET_IT = (
    "no specification suite: clone github.com/WebAssembly/testsuite at 193e551 into $WASMFORGE_TESTSUITES/spec"
)


def suite_folder() -> Path | None:
    """The folder of the specification suite; None when this machine has none."""
    root = os.environ.get("WASMFORGE_TESTSUITES") or Path(__file__).parents[3] / "shared" / "testsuites"
    folder = Path(root) / "spec"
    return folder if folder.is_dir() else None


def make_runner(name: str, **settings: object) -> Runner:
    """A runner for a script, with these settings of `Config`, and with all proposals switched on that the script's
    folder knows: the scripts of the threads proposal are older than several memories and tables, and want them
    refused."""
    config = all_proposals(wasmforge.Config())
    if name.startswith("proposals/threads/"):
        settings = {"wasm_multi_memory": False, "wasm_reference_types": False, **settings}
    for setting, value in settings.items():
        setattr(config, setting, value)
    return Runner(config=config)


def scripts() -> list[str]:
    """Every script of the suite, as a path relative to its folder."""
    folder = suite_folder()
    return [] if folder is None else sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.wast"))
