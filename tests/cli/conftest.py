"""`run`, which runs a command line in this process and in a directory of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from wasmforge import cli


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command line in a directory of its own. An argument that starts with "(" becomes a file of that text."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        line = []
        for i, word in enumerate(words):
            if word.startswith("("):
                Path(f"file{i}.wat").write_text(word)
                word = f"file{i}.wat"
            line.append(word)
        status = cli.main(line)
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run
