"""`wasmforge config new`: writes a configuration file of the compilation cache, with the defaults of this machine."""

from __future__ import annotations

import os

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmforge.cli.options import Option

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Creates a configuration file of the compilation cache"
USAGE = "wasmforge config new [FILE]"
HELP = """\
Writes a file in the format of Wasmtime's cache configuration, with what holds without one, and prints where it is.
`-C cache-config=FILE` and `wasmforge cache --config FILE` read it; no file is read unless it is named. Without FILE it
is `wasmforge/config.toml` in $XDG_CONFIG_HOME, else in ~/.config. A file that exists is left alone."""

OPTIONS: tuple[Option, ...] = ()


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    if not parsed.arguments or parsed.arguments[0] != "new" or len(parsed.arguments) > 2:
        raise UsageError(f"expected `new [FILE]`, got '{' '.join(parsed.arguments)}'")
    path = os.path.abspath(parsed.arguments[1]) if len(parsed.arguments) == 2 else _default_path()
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(_contents())
    except FileExistsError:
        raise CommandError(f"failed to create cache configuration file `{path}`", ["it exists already"]) from None
    except OSError as error:
        raise CommandError.during(f"failed to create cache configuration file `{path}`", error) from None
    print(f"Successfully created a new configuration file at {path}")
    return 0


def _default_path() -> str:
    root = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(root):  # the XDG specification: relative paths are ignored
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise CommandError("there is no home directory for the configuration file: name one")
        root = os.path.join(home, ".config")
    return os.path.join(root, "wasmforge", "config.toml")


def _contents() -> str:
    from wasmforge.runtime.cache import settings

    return f"""\
# Configuration of wasmforge's compilation cache. What is commented out says what holds otherwise.

[cache]
enabled = true

# An absolute path; this user's cache directory otherwise.
# directory = {_quoted(settings._default_directory() or "/path/to/directory")}

# Beyond these, the modules that were not used for the longest time are removed until the shares below are left.
# files-total-size-soft-limit = "{settings.SIZE_LIMIT >> 20}Mi"
# file-count-soft-limit = {settings.COUNT_LIMIT}
# files-total-size-limit-percent-if-deleting = "{settings.PERCENT}%"
# file-count-limit-percent-if-deleting = "{settings.PERCENT}%"
"""


def _quoted(text: str) -> str:
    """A TOML string. Threat: a directory whose name ends the line would add settings of its own."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
