"""Where the compilation cache is and how large it may become: the defaults, the environment, and Wasmtime's
configuration files. `Config` makes one of these; `ImageCache` follows it.
"""

from __future__ import annotations

import os

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

__all__ = ["CacheSettings", "default_settings", "load_settings"]

VARIABLE: Final = "WASMFORGE_CACHE"
"""The environment variable: "0" for no cache, "1" for the default one, or its directory."""

SIZE_LIMIT: Final = 1 << 30
"""Bytes, twice Wasmtime's: our images are not compressed, so that they can be mapped."""

COUNT_LIMIT: Final = 65_536
PERCENT: Final = 70
"""Wasmtime's: how many entries at most, and how much of each limit is left after removing."""


class CacheSettings:
    """`directory` is an absolute path. When the entries have more than `size_limit` bytes or are more than
    `count_limit`, those that were not used for the longest time are removed until at most `size_percent` and
    `count_percent` of the limits are left."""

    __slots__ = ("count_limit", "count_percent", "directory", "size_limit", "size_percent")

    def __init__(
        self,
        directory: str,
        size_limit: int = SIZE_LIMIT,
        size_percent: int = PERCENT,
        count_limit: int = COUNT_LIMIT,
        count_percent: int = PERCENT,
    ) -> None:
        self.directory = directory
        self.size_limit = size_limit
        self.size_percent = size_percent
        self.count_limit = count_limit
        self.count_percent = count_percent


def default_settings() -> CacheSettings | None:
    """What the environment says; None for no cache."""
    value = os.environ.get(VARIABLE, "")
    if value == "0":
        return None
    if value not in ("", "1"):
        return CacheSettings(os.path.abspath(value))
    directory = _default_directory()
    return None if directory is None else CacheSettings(directory)


def _default_directory() -> str | None:
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # the XDG specification: relative paths are ignored
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        root = os.path.join(home, ".cache")
    return os.path.join(root, "wasmforge", "modules")


def load_settings(path: str) -> CacheSettings | None:
    """Reads a configuration file of Wasmtime's cache (TOML, all settings in the table `cache`).

    Raises:
        WasmtimeError: the file cannot be read, or has unknown or malformed settings.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            contents = tomllib.load(file)
    except OSError as error:
        raise WasmtimeError(f"failed to read cache configuration file: {path}\n\nCaused by:\n    {error}\n") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WasmtimeError(f"failed to parse cache configuration file: {path}\n\nCaused by:\n    {error}\n") from error
    table = contents.pop("cache", {})
    if contents or not isinstance(table, dict):
        name = next(iter(contents), "cache")
        raise WasmtimeError(
            f"cache configuration file {path}: unexpected `{name}`: all settings are in a table [cache]"
        )
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _SETTINGS:
            raise WasmtimeError(f"cache configuration file {path}: unknown setting `{name}`")
        try:
            attribute, parse = _SETTINGS[name]
            found[attribute] = parse(value)
        except ValueError as error:
            raise WasmtimeError(f"cache configuration file {path}: `{name}` {error}, got {value!r}") from None
    if not found.pop("enabled", True):
        return None
    found.pop("", None)
    if "directory" not in found:
        directory = _default_directory()
        if directory is None:
            raise WasmtimeError(f"cache configuration file {path}: needs `directory`, there is no home directory")
        found["directory"] = directory
    return CacheSettings(**found)


_UNITS: Final = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGTP", 1)},
    **{unit + "i": 1024**power for power, unit in enumerate("KMGTP", 1)},
}


def _size(value: object) -> int:
    """Wasmtime writes numbers as strings with a unit, "512Mi"; plain integers are as clear."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        digits = text.rstrip("KMGTPi")
        unit = text[len(digits) :]
        digits = digits.strip()
        if digits.isascii() and digits.isdigit() and unit in _UNITS:
            factor: int = _UNITS[unit]
            return int(digits) * factor
    raise ValueError('must be a number such as "512Mi" or "2G"')


def _percent(value: object) -> int:
    digits = value.strip().removesuffix("%").rstrip() if isinstance(value, str) and "%" in value else ""
    if digits.isascii() and digits.isdigit() and int(digits) <= 100:
        return int(digits)
    raise ValueError('must be a share such as "70%"')


def _directory(value: object) -> str:
    if isinstance(value, str) and os.path.isabs(value) and "\0" not in value:
        return value
    raise ValueError("must be an absolute path")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def _anything(value: object) -> None:
    return None


_SETTINGS: Final[dict[str, tuple[str, Callable[[object], Any]]]] = {
    "enabled": ("enabled", _switch),
    "directory": ("directory", _directory),
    "files-total-size-soft-limit": ("size_limit", _size),
    "files-total-size-limit-percent-if-deleting": ("size_percent", _percent),
    "file-count-soft-limit": ("count_limit", _size),
    "file-count-limit-percent-if-deleting": ("count_percent", _percent),
    # How Wasmtime's background thread compresses entries and how often it cleans up. Ours are mapped, so they are not
    # compressed, and there is no thread: the settings are accepted because no result depends on them.
    **dict.fromkeys(
        (
            "worker-event-queue-size",
            "baseline-compression-level",
            "optimized-compression-level",
            "optimized-compression-usage-counter-threshold",
            "cleanup-interval",
            "optimizing-compression-task-timeout",
            "allowed-clock-drift-for-files-from-future",
        ),
        ("", _anything),
    ),
}
