"""Fixtures for the tests of the gates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wasmforge.runtime.native import gates

from tests.runtime.native.fake import Store, note_exception, raise_trap
from tests.runtime.native.guest import code


@pytest.fixture
def store() -> Iterator[Store]:
    """A store whose context must be idle again at the end."""
    gates().set_hooks(on_trap=raise_trap, on_exception=note_exception)
    gates().hook_signals()
    s = Store(code())
    yield s
    assert s.idle()
    s.close()
