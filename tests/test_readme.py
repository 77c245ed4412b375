"""The README shows only what works: its Python examples run and print what their comments promise, and the files and
commands that it names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def _promised(example: str) -> list[str]:
    """What the comments behind print calls say, in order."""
    lines = []
    for line in example.splitlines():
        if match := re.search(r"print\(.*\)\s+# (.+)$", line):
            lines.append(match[1])
        elif match := re.search(r"# prints (.+)$", line):
            lines.extend(match[1].split(", "))
    return lines


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_prints_what_its_comments_promise(number: int) -> None:
    promised = _promised(EXAMPLES[number])
    assert promised, "an example without a promised line tests nothing"
    result = subprocess.run([sys.executable, "-c", EXAMPLES[number]], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == promised


def test_named_files_exist() -> None:
    names = set(re.findall(r"`((?:docs|examples|tests)/[\w./-]*|CONTRIBUTING\.md)`", README))
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []
