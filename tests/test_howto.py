"""The how-to pages show only what works: their examples run and print what their comments promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import ROOT, _promised

PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
EXAMPLES = [
    pytest.param(example, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL), start=1
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_prints_what_its_comments_promise(example: str, tmp_path: Path) -> None:
    promised = _promised(example)
    assert promised, "an example without a promised line tests nothing"
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-c", example], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == promised


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4
