"""`wasmforge --version -v` says what the installation consists of."""

from __future__ import annotations

import sys

import pytest

from wasmforge import cli
from wasmforge.cli.version import front_end
from wasmforge.version import VERSION


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_short_form_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"wasmforge {VERSION}\n"


@pytest.mark.parametrize("word", ["-v", "--verbose"])
def test_the_long_form_has_a_row_for_each_part(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version", word]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == f"wasmforge {VERSION}"
    table = {row[2:12].strip(): row[13:] for row in rows}
    assert list(table) == ["front end", "python", "llvm", "gates", "cache", "package"]
    assert table["front end"].startswith(front_end())
    assert table["python"].endswith(f"({sys.executable})")


def test_the_cache_that_is_switched_off_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WASMFORGE_CACHE", "0")
    assert cli.main(["--version", "-v"]) == 0
    assert "cache      off" in capsys.readouterr().out


def test_without_llvmlite_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert cli.main(["--version", "-v"]) == 0
    assert "pip install 'wasmforge[llvm]'" in capsys.readouterr().out


def test_unknown_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version", "-x"]) == 2
    assert "unexpected argument '-x'" in capsys.readouterr().err
