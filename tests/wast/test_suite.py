"""The specification suite: every script passes, or stands in the list of known failures with what it waits for."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.wast.known_failures import known_failures
from tests.wast.suite import WHERE_TO_GET_IT, make_runner, scripts, suite_folder
from wasmforge.wast import FileResult, Runner

FOLDER = suite_folder()
KNOWN = known_failures()
pytestmark = pytest.mark.skipif(FOLDER is None, reason=WHERE_TO_GET_IT)

CONFIGURATIONS: dict[str, dict[str, object]] = {
    "default": {},
    "llvm": {"strategy": "llvm"},
    "explicit bounds checks": {"strategy": "llvm", "signals_based_traps": False},
}
"""By default functions are compiled at their first call. Images of the baseline compiler: tests/compiler/baseline."""

MEMORY_SCRIPTS = [
    name
    for name in scripts()
    if name not in KNOWN
    and name.startswith(
        ("address", "align", "bulk", "data", "endianness", "float_memory", "left", "load", "memory", "store", "traps")
    )
]
"""Scripts that are about memory: the ones that another way of checking bounds could break."""


@functools.cache
def runner(folder: str, configuration: str) -> Runner:
    """One engine a process, folder and configuration."""
    return make_runner(folder, **CONFIGURATIONS[configuration])


def run(name: str, configuration: str) -> FileResult:
    assert isinstance(FOLDER, Path)
    folder = name[: name.rfind("/") + 1]
    return runner(folder, configuration).run((FOLDER / name).read_bytes(), name)


def explain(result: FileResult) -> str:
    return "\n".join([str(result), *(f"  line {f.line}: {f.reason}" for f in result.failures[:20])])


@pytest.mark.parametrize("configuration", ["default", "llvm"])
@pytest.mark.parametrize("name", scripts())
def test_script(name: str, configuration: str) -> None:
    result = run(name, configuration)
    known = KNOWN.get(name)
    if known is None:
        assert result.ok, explain(result)
        assert result.passed > 0
        return
    assert not result.ok, f"{name} passes now: take it off the list of known failures"
    assert result.features == known.waits, explain(result)
    if len(result.failures) < known.failures:
        pytest.fail(f"{len(result.failures)} commands of {name} fail, {known.failures} are listed: shorten the list")
    assert len(result.failures) == known.failures, explain(result)
    pytest.xfail(f"waits for {', '.join(known.waits)}")


@pytest.mark.parametrize("name", MEMORY_SCRIPTS)
def test_script_with_explicit_bounds_checks(name: str) -> None:
    result = run(name, "explicit bounds checks")
    assert result.ok, explain(result)


def test_the_list_has_only_scripts_that_exist_and_reasons_for_all() -> None:
    assert not set(KNOWN) - set(scripts())
    assert all(entry.waits for entry in KNOWN.values())


def test_enough_of_the_suite_passes() -> None:
    """The scripts whose modules need none of the proposals that are not implemented."""
    at_top = [name for name in scripts() if "/" not in name]
    assert len([name for name in at_top if name not in KNOWN]) >= 74
