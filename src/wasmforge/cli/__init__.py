"""The command line. `main` finds the subcommand in a table, imports it, and prints what it raises; each subcommand
is a file with a table of options and a `main`.
"""

from __future__ import annotations

import sys

from wasmforge.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE, CommandError, UsageError, print_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["SUBCOMMANDS", "import_command", "main"]

SUBCOMMANDS = {
    "run": "run",
    "compile": "compile",
    "validate": "validate",
    "wast": "wast",
    "objdump": "objdump",
    "explore": "explore",
    "settings": "list_settings",
    "config": "cache_config",
    "cache": "cache",
    "completion": "completion",
}
"""And the module of each."""

NOT_HERE = {
    # Wasmtime's other subcommands (reference, table E1).
    "serve": "HTTP components",
    "wizer": "pre-initialization",
}
HELP_WORDS = ("-h", "--help")
VERSION_WORDS = ("-V", "--version")
VERBOSE_WORDS = ("-v", "--verbose")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        argv: its words without the program's name; those of the process when None.

    Returns:
        The exit status: the guest's own, or 0 for success, 1 for an error, 2 for wrong usage, 130 after Ctrl-C, 134
        for a trap.
    """
    status = _main(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        # The process ends now. Whatever has to be written is; the interpreter would still look through all objects for
        # cycles four times, which is a tenth of the run of a program that was compiled before.
        import gc

        gc.freeze()
    return status


def _main(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone is expected
        return status
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n\nFor more information, try '--help'.\n")
        return EXIT_USAGE
    except CommandError as error:
        sys.stdout.flush()
        print_error(error)
        return error.status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it again at exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP_WORDS or words[0] == "help":
        if len(words) > 1 and words[0] == "help":
            return _dispatch([words[1], "--help"])
        print(_help())
        return 0 if words else EXIT_USAGE
    if words[0] in VERSION_WORDS:
        return _version(words[1:])
    if words[0] in NOT_HERE:
        raise UsageError(f"'wasmforge {words[0]}' does not exist yet: {NOT_HERE[words[0]]} is not implemented")
    if words[0] in SUBCOMMANDS:
        command, rest = words[0], words[1:]
    else:
        command, rest = "run", words
    if rest and rest[0] in VERSION_WORDS:
        return _version(rest[1:])
    subcommand = import_command(command)
    if rest and rest[0] in HELP_WORDS:
        from wasmforge.cli.options import describe

        options = describe(subcommand.OPTIONS) if subcommand.OPTIONS else "  (none)"
        print(f"{subcommand.SUMMARY}\n\nUsage: {subcommand.USAGE}\n\n{subcommand.HELP}\n\nOptions:\n{options}")
        return 0
    from wasmforge.cli.settings import HelpRequest

    try:
        status: int = subcommand.main(rest)
    except HelpRequest as request:
        print(request)
        return 0
    return status


def _version(words: list[str]) -> int:
    for word in words:
        if word not in VERBOSE_WORDS:
            raise UsageError(f"unexpected argument '{word}' found\n\nUsage: wasmforge --version [-v]")
    from wasmforge.cli.version import describe

    print(describe(verbose=bool(words)))
    return 0


def import_command(command: str) -> ModuleType:
    """The module of a subcommand."""
    # Only the one that is used: each brings what it needs.
    from importlib import import_module

    return import_module(f"wasmforge.cli.{SUBCOMMANDS[command]}")


def _help() -> str:
    rows = "\n".join(f"  {name:<10} {import_command(name).SUMMARY}" for name in SUBCOMMANDS)
    return (
        "Wasmforge, a WebAssembly runtime\n\n"
        "Usage: wasmforge [OPTIONS] <WASM> [ARGS]...   (the same as `wasmforge run`)\n"
        "       wasmforge <COMMAND>\n\n"
        f"Commands:\n{rows}\n\n"
        "`wasmforge --version -v` says what this installation consists of,\n"
        "`wasmforge <COMMAND> --help` lists the options of a command.\n"
    )
