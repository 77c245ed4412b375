"""The specification suite through images of the baseline compiler: every script as with the LLVM compiler."""

from __future__ import annotations

import functools

import pytest

import wasmforge
from tests.wast.known_failures import known_failures
from tests.wast.suite import WHERE_TO_GET_IT, make_runner, scripts, suite_folder
from wasmforge.wast import Runner

FOLDER = suite_folder()
KNOWN = known_failures()
pytestmark = pytest.mark.skipif(FOLDER is None, reason=WHERE_TO_GET_IT)

# Scripts in folders are those of proposals, nearly all of which need features that no compiler has yet.
NAMES = [name for name in scripts() if name not in KNOWN or "/" not in name]
# What another way of checking bounds could break.
ABOUT_MEMORY = ("address", "align", "bulk", "data", "endianness", "float_memory", "left", "load", "memory", "store")


@pytest.fixture(autouse=True)
def ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lazily the strategy is tested in tests/wast, where it is the default."""
    monkeypatch.setattr(wasmforge.Engine, "_lazy", False)


@functools.cache
def runner(folder: str, guard_pages: bool) -> Runner:
    return make_runner(folder, strategy="baseline", cache=False, signals_based_traps=guard_pages)


@pytest.mark.parametrize("name", NAMES)
def test_script(name: str) -> None:
    check(name, guard_pages=True)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(ABOUT_MEMORY)])
def test_script_with_explicit_bounds_checks(name: str) -> None:
    check(name, guard_pages=False)


def check(name: str, guard_pages: bool) -> None:
    assert FOLDER is not None
    result = runner(name[: name.rfind("/") + 1], guard_pages).run((FOLDER / name).read_bytes(), name)
    known = KNOWN.get(name)
    expected = 0 if known is None else known.failures
    assert len(result.failures) == expected, "\n".join(f"line {f.line}: {f.reason}" for f in result.failures[:20])
    assert known is not None or result.passed > 0
