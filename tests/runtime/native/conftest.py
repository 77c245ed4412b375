"""Fixtures for the tests of the gates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.native.fake import Store, set_hooks
from tests.runtime.native.guest import GUEST_FILE, code, compiled
from wasmforge.runtime.native import gates
from wasmforge.runtime.vm import hooks


@pytest.fixture(scope="session")
def guest_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled functions as a file for child processes."""
    path = tmp_path_factory.mktemp("gates") / "guest.bin"
    path.write_bytes(compiled())
    return path


@pytest.fixture
def child_environment(guest_file: Path) -> dict[str, str]:
    """What a child process needs to import the package and the tests."""
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, GUEST_FILE: str(guest_file)}


@pytest.fixture(autouse=True)
def real_hooks() -> Iterator[None]:
    """Gives the gates back to the runtime, whose tests may follow in the same process."""
    yield
    hooks._installed = False
    hooks.install().set_trap_class(None)
    gates().forget_faults()


@pytest.fixture
def store() -> Iterator[Store]:
    """A store whose context must be idle again at the end."""
    set_hooks()
    gates().hook_signals()
    s = Store(code())
    yield s
    assert s.idle()
    s.close()
