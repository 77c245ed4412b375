"""`wasmforge cache`: what the compilation cache holds, where it is, and how to empty it."""

from __future__ import annotations

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmforge.runtime.cache.settings import CacheSettings

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Shows or clears the cache of compiled modules"
USAGE = "wasmforge cache [OPTIONS] [show|clear|path]"
HELP = """\
What is compiled is kept on disk, and found there by the next process that runs the same module.

  show   the directory, how many modules it holds, their size, and how much of those that are compiled while they run
         has been compiled by which compiler (the default)
  clear  removes them; programs that are running keep theirs
  path   the directory alone, for scripts

The environment variable WASMFORGE_CACHE names another directory; 0 switches the cache off."""

OPTIONS = (Option("--config", "the cache of a configuration file (TOML, as for `-C cache-config`)", value="FILE"),)


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    action = parsed.arguments[0] if parsed.arguments else "show"
    if len(parsed.arguments) > 1 or action not in _ACTIONS:
        raise UsageError(f"expected show, clear or path, got '{' '.join(parsed.arguments)}'")
    settings = _settings(parsed.last("--config"))

    from wasmforge.runtime.cache.trust import UntrustedError

    try:
        _ACTIONS[action](settings)
    except FileNotFoundError:
        print("0 modules, 0 B" if action == "show" else "removed 0 modules, 0 B")
    except UntrustedError as error:
        raise CommandError("the cache is not used, because others could put code into it", [str(error)]) from None
    except OSError as error:
        raise CommandError.during(f"failed to {action} the cache", error) from None
    return 0


def _settings(config: str | None) -> CacheSettings:
    from wasmforge.runtime.cache.settings import default_settings, load_settings
    from wasmforge.syntax.errors import WasmtimeError

    try:
        settings = default_settings() if config is None else load_settings(config)
    except WasmtimeError as error:
        raise CommandError(str(error)) from None
    if settings is None:
        raise CommandError("the cache is switched off, or there is no home directory for it")
    return settings


def _show(settings: CacheSettings) -> None:
    import os

    from wasmforge.runtime.cache.grown import count_functions
    from wasmforge.runtime.cache.storing import entries
    from wasmforge.runtime.cache.trust import open_directory

    print(settings.directory)
    directory = open_directory(settings.directory)
    try:
        found = list(entries(directory))
        grown = [counts for entry in found if entry.is_image and (counts := count_functions(directory, entry.name))]
    finally:
        os.close(directory)
    modules = [entry for entry in found if entry.is_image]
    unfinished = [entry for entry in found if entry.temporary]
    size = sum(entry.size for entry in found if not entry.temporary)
    print(f"{_count(len(modules), size)} of at most {_size(settings.size_limit)}")
    if grown:
        baseline, optimised, functions = map(sum, zip(*grown, strict=True))
        print(
            f"{_modules(len(grown))} compiled while running: {baseline:,} of {functions:,} functions by the baseline "
            f"compiler, {optimised:,} by LLVM"
        )
    if unfinished:
        print(f"{len(unfinished)} unfinished, {_size(sum(entry.size for entry in unfinished))}")


def _clear(settings: CacheSettings) -> None:
    from wasmforge.runtime.cache.storing import clear

    print(f"removed {_count(*clear(settings))}")


def _path(settings: CacheSettings) -> None:
    print(settings.directory)


_ACTIONS = {"show": _show, "clear": _clear, "path": _path}


def _count(number: int, size: int) -> str:
    return f"{_modules(number)}, {_size(size)}"


def _modules(number: int) -> str:
    return f"{number} module{'' if number == 1 else 's'}"


def _size(size: int) -> str:
    number = float(size)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
