"""`wasmforge cache` shows and clears what `wasmforge run` leaves on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmforge.cli import main

ANSWER = '(module (func (export "answer") (result i32) (i32.const 42)))'


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "modules"
    monkeypatch.setenv("WASMFORGE_CACHE", str(path))
    return path


@pytest.fixture
def compiled(directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    source = tmp_path / "answer.wat"
    source.write_text(ANSWER)
    assert main(["run", "-C", "compiler=llvm", "--invoke", "answer", str(source)]) == 0
    assert capfd.readouterr().out == "42\n"
    return source


def test_show_and_clear(compiled: Path, directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # A record of the source file joins the image where compiling took so long that the file counts as settled.
    entries = sorted(directory.iterdir(), key=lambda entry: entry.stat().st_size)
    entry = entries[-1]
    size = f"{sum(entry.stat().st_size for entry in entries) / 1024:.1f} KiB"
    for words in (["cache"], ["cache", "show"]):
        assert main(words) == 0
        assert capfd.readouterr().out == f"{directory}\n1 module, {size} of at most 1.0 GiB\n"
    assert main(["cache", "path"]) == 0
    assert capfd.readouterr().out == f"{directory}\n"
    (directory / f"{entry.name}.12.tmp").write_bytes(b"half")
    assert main(["cache"]) == 0
    assert "1 unfinished, 4 B" in capfd.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert capfd.readouterr().out.startswith("removed 1 module, ")
    assert list(directory.iterdir()) == []
    assert main(["cache"]) == 0
    assert capfd.readouterr().out == f"{directory}\n0 modules, 0 B of at most 1.0 GiB\n"


def test_nothing_there_yet(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, output in ((["cache"], f"{directory}\n0 modules, 0 B\n"), (["cache", "clear"], "removed 0 modules")):
        assert main(words) == 0
        assert capfd.readouterr().out.startswith(output)
    assert not directory.exists()


def test_run_without_cache(compiled: Path, directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["cache", "clear"])
    common = ["--invoke", "answer", str(compiled)]
    assert main(["run", "-C", "compiler=llvm,cache=n", *common]) == 0
    assert list(directory.iterdir()) == []
    file = tmp_path / "cache.toml"
    file.write_text(f'[cache]\ndirectory = "{tmp_path}/other"\nfiles-total-size-soft-limit = "3Gi"\n')
    assert main(["run", "-C", f"compiler=llvm,cache-config={file}", *common]) == 0
    assert list(directory.iterdir()) == [] and len(list((tmp_path / "other").iterdir())) == 1
    capfd.readouterr()
    assert main(["cache", "--config", str(file)]) == 0
    output = capfd.readouterr().out
    assert output.startswith(f"{tmp_path}/other\n1 module") and "at most 3.0 GiB" in output


@pytest.mark.parametrize("words", [["cache", "shrink"], ["cache", "show", "clear"], ["cache", "--wat"]])
def test_wrong_usage(words: list[str], directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capfd.readouterr().err.startswith("error: ")


def test_reasons_for_no_cache(
    compiled: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    directory.chmod(0o777)
    assert main(["cache"]) == 1
    assert "others may write to it (drwxrwxrwx)" in capfd.readouterr().err
    directory.chmod(0o700)
    monkeypatch.setenv("WASMFORGE_CACHE", "0")
    assert main(["cache"]) == 1
    assert "switched off" in capfd.readouterr().err
    assert main(["cache", "--config", "/nowhere.toml"]) == 1
    assert "failed to read cache configuration file: /nowhere.toml" in capfd.readouterr().err
