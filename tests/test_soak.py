"""A small part of `python -m tests.soak`: calls, stores and instances leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import soak

ROOT = Path(__file__).resolve().parents[1]


def test_memory_returns_to_where_it_was() -> None:
    """In a process of its own, so that nothing else allocates."""
    command = [sys.executable, "-m", "tests.soak", "--calls", "100000", "--stores", "8000", "--strategy", "baseline"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_leak_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = []
    monkeypatch.setattr(soak.Soak, "stores", lambda self, count: leaked.extend(bytearray(50) for _ in range(count)))
    grown = soak.Soak("baseline").run(0, 8000)
    assert any(line.startswith("stores: blocks") for line in grown)
