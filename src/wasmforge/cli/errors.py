"""How the command line ends: wrong usage, errors with their causes, traps, exits. `main` catches what the subcommands
raise and prints it as Wasmtime does.
"""

from __future__ import annotations

import sys

from wasmforge.runtime.vm.traps import backtrace_of
from wasmforge.syntax.errors import WasmtimeError

__all__ = ["CommandError", "UsageError", "describe_trap", "print_error"]

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
EXIT_TRAP = 134  # 128 + SIGABRT, Wasmtime's


class UsageError(Exception):
    """The command line itself is wrong, or asks for what does not exist here; exit status 2."""


class CommandError(Exception):
    """What was asked for failed. `causes` go from the outermost to the innermost; exit status `status`."""

    def __init__(self, message: str, causes: list[str] | None = None, status: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.causes = causes or []
        self.status = status

    @classmethod
    def during(cls, what: str, error: BaseException) -> CommandError:
        """`error`, with what was being done when it happened."""
        if isinstance(error, CommandError):
            return cls(what, [error.message, *error.causes], error.status)
        if isinstance(error, OSError) and error.strerror:
            name = f" `{error.filename}`" if error.filename is not None else ""
            return cls(what, [f"{error.strerror}{name} (os error {error.errno})"])
        if isinstance(error, WasmtimeError):
            # A host function failed: the runtime notes where WebAssembly was.
            notes = getattr(error, "__notes__", ())
            return cls(what, [*(f"error while executing at {note}" for note in notes), str(error)])
        return cls(what, describe_trap(error), EXIT_TRAP)


def describe_trap(trap: BaseException) -> list[str]:
    """The causes of a trap: its backtrace, if WebAssembly was active, and why it happened."""
    causes = str(trap.args[0] if trap.args else trap).split("\n")
    backtrace = backtrace_of(trap)
    if backtrace is not None and backtrace.frames:
        causes.insert(0, f"error while executing at {backtrace}")
    return causes


def print_error(error: CommandError) -> None:
    """Prints an error in Wasmtime's form: the message, and its causes, numbered when there are several."""
    lines = [f"Error: {error.message}"]
    if error.causes:
        lines += ["", "Caused by:"]
        several = len(error.causes) > 1
        for number, cause in enumerate(error.causes):
            prefix = f"{number:>5}: " if several else "    "
            lines.append(prefix + cause.replace("\n", "\n" + " " * len(prefix)))
    sys.stderr.write("\n".join(lines) + "\n")
