"""`Config.cache`, WASMFORGE_CACHE, and Wasmtime's configuration files (reference, C5-02, C5-03 and C5-06)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wasmforge import Config, Engine, Module, WasmtimeError
from wasmforge.runtime.cache.settings import CacheSettings, default_settings, load_settings

from .modules import text_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("WASMFORGE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "directory"),
    [
        ({}, "{home}/.cache/wasmforge/modules"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/wasmforge/modules"),
        ({"XDG_CACHE_HOME": "relative"}, "{home}/.cache/wasmforge/modules"),
        ({"WASMFORGE_CACHE": ""}, "{home}/.cache/wasmforge/modules"),
        ({"WASMFORGE_CACHE": "1"}, "{home}/.cache/wasmforge/modules"),
        ({"WASMFORGE_CACHE": "/mine", "XDG_CACHE_HOME": "/xdg"}, "/mine"),
        ({"WASMFORGE_CACHE": "mine"}, "{cwd}/mine"),
        ({"WASMFORGE_CACHE": "0"}, None),
        ({"HOME": "relative"}, None),
    ],
)
def test_default_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], directory: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = default_settings()
    if directory is None:
        assert found is None
    else:
        assert found is not None and found.directory == directory.format(home=home, cwd=os.getcwd())
        assert (found.size_limit, found.count_limit) == (1 << 30, 65_536)


def compile_with(cache: Any) -> None:
    config = Config()
    config.strategy = "baseline"
    config.cache = cache
    Module(Engine(config), text_of(1))


def count(directory: Path) -> int:
    return len(list(directory.glob("*.cwasm")))


def test_cache_is_on_unless_switched_off(engine_of: Callable[..., Any], home: Path, directory: Path) -> None:
    default = home / ".cache" / "wasmforge" / "modules"
    for off in (False, None):
        compile_with(off)
        assert not default.exists()
    compile_with(True)
    assert count(default) == 1


def test_environment_switches_the_default_off(
    engine_of: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WASMFORGE_CACHE", "0")
    compile_with(True)
    assert not (home / ".cache").exists()
    file = tmp_path / "cache.toml"
    file.write_text(f'[cache]\ndirectory = "{tmp_path}/explicit"\n')
    compile_with(str(file))  # what the program says stands
    compile_with(file)
    assert count(tmp_path / "explicit") == 1


@pytest.mark.parametrize("wrong", [1, 1.5, b"path", object()])
def test_other_values_are_type_errors(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected string or bool"):
        Config().cache = wrong  # type: ignore[assignment]


def load(tmp_path: Path, text: str) -> CacheSettings | None:
    file = tmp_path / "cache.toml"
    file.write_text(text)
    return load_settings(str(file))


def test_configuration_file_of_wasmtime(tmp_path: Path) -> None:
    """All keys of Wasmtime's documentation."""
    found = load(
        tmp_path,
        """
        [cache]
        enabled = true
        directory = "/nfs-share/wasmtime-cache/"
        worker-event-queue-size = "16"
        baseline-compression-level = 3
        optimized-compression-level = 20
        optimized-compression-usage-counter-threshold = "256"
        cleanup-interval = "1h"
        optimizing-compression-task-timeout = "30m"
        allowed-clock-drift-for-files-from-future = "1d"
        file-count-soft-limit = "64K"
        files-total-size-soft-limit = "512Mi"
        file-count-limit-percent-if-deleting = "60%"
        files-total-size-limit-percent-if-deleting = "50 %"
        """,
    )
    assert found is not None
    assert found.directory == "/nfs-share/wasmtime-cache/"
    assert (found.size_limit, found.size_percent) == (512 << 20, 50)
    assert (found.count_limit, found.count_percent) == (64_000, 60)


def test_configuration_file_with_defaults(tmp_path: Path, home: Path) -> None:
    for text in ("", "[cache]", "[cache]\nenabled = true"):
        found = load(tmp_path, text)
        assert found is not None and found.directory == f"{home}/.cache/wasmforge/modules"
        assert found.size_limit == 1 << 30
    assert load(tmp_path, "[cache]\nenabled = false") is None
    os.environ["HOME"] = "relative"
    with pytest.raises(WasmtimeError, match="needs `directory`"):
        load(tmp_path, "")


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), (7, 7), ('"7"', 7), ('" 7 "', 7), ('"2K"', 2000), ('"2 Ki"', 2048), ('"3G"', 3 * 10**9), ("0", 0)],
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    found = load(tmp_path, f'[cache]\ndirectory = "/c"\nfiles-total-size-soft-limit = {text}')
    assert found is not None and found.size_limit == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cache", "failed to parse"),
        ("cache = 3", "unexpected `cache`"),
        ("directory = '/c'", "unexpected `directory`"),
        ("[cash]", "unexpected `cash`"),
        ("[cache]\ndirektory = '/c'", "unknown setting `direktory`"),
        ("[cache]\nenabled = 1", "`enabled` must be true or false"),
        ("[cache]\ndirectory = 'relative'", "`directory` must be an absolute path, got 'relative'"),
        ("[cache]\ndirectory = 3", "must be an absolute path"),
        ('[cache]\ndirectory = "/c\\u0000"', "must be an absolute path"),
        *(
            (f"[cache]\nfiles-total-size-soft-limit = {bad}", "must be a number such as")
            for bad in ("-1", "1.5", "true", "''", "'x'", "'5 MB'", "'5iK'", "'Ki'", "'-5'", "'\u0665'")
        ),
        *(
            (f"[cache]\nfile-count-limit-percent-if-deleting = {bad}", "must be a share such as")
            for bad in ("70", "'70'", "'101%'", "'%'", "'-1%'")
        ),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WasmtimeError, match=message):
        load(tmp_path, text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WasmtimeError, match=r"failed to read .*nothing\.toml"):
        Config().cache = str(tmp_path / "nothing.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(WasmtimeError, match="failed to parse"):
        Config().cache = str(tmp_path / "binary")
