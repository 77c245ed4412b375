"""The parser of the command line: a table of options in, values out. Each subcommand has such a table.

It is our own because a command that runs a compiled program should start in milliseconds, and `argparse` takes six of
them to import. The forms are Wasmtime's: `--name value`, `--name=value`, `-N value`, `-Nvalue`. Options stand anywhere,
but for `run` only before the first argument that is none: what follows belongs to the guest. `--` ends the options.
"""

from __future__ import annotations

from wasmforge.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Option", "Parsed", "parse"]


class Option:
    """An option of a subcommand.

    Args:
        name: the long name, with dashes.
        help: a line for `--help`.
        short: a short name, with its dash.
        value: how the value is called in the help; None for a flag, which takes none.
        repeat: whether it may be given several times.
        unsupported: why it does not work here, for options of Wasmtime; using it ends with status 2.
    """

    __slots__ = ("help", "name", "repeat", "short", "unsupported", "value")

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002 - what it is
        *,
        short: str | None = None,
        value: str | None = None,
        repeat: bool = False,
        unsupported: str | None = None,
    ) -> None:
        self.name = name
        self.help = help
        self.short = short
        self.value = value
        self.repeat = repeat
        self.unsupported = unsupported


class Parsed:
    """What a command line said: `options` by long name (all values given), and the other arguments."""

    __slots__ = ("arguments", "options")

    def __init__(self) -> None:
        self.options: dict[str, list[str]] = {}
        self.arguments: list[str] = []

    def flag(self, name: str) -> bool:
        return name in self.options

    def last(self, name: str) -> str | None:
        values = self.options.get(name)
        return values[-1] if values else None

    def all(self, name: str) -> list[str]:
        return self.options.get(name, [])


def parse(argv: Sequence[str], table: Sequence[Option], *, stop_at_argument: bool = False) -> Parsed:
    """Parses `argv`.

    Args:
        argv: the words after the subcommand.
        table: its options.
        stop_at_argument: the first word that is no option, and all after it, are arguments.

    Raises:
        UsageError: an option is unknown, has no value, has one too many, or does not work here.
    """
    names = {option.name: option for option in table}
    shorts = {option.short: option for option in table if option.short is not None}
    parsed = Parsed()
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if word == "--":
            parsed.arguments += argv[position:]
            break
        value: str | None
        if word.startswith("--"):
            name, equals, rest = word.partition("=")
            option = names.get(name)
            value = rest if equals else None
        elif word.startswith("-") and word != "-":
            option = shorts.get(word[:2])
            value = word[2:].removeprefix("=") or None
        else:
            parsed.arguments.append(word)
            if stop_at_argument:
                parsed.arguments += argv[position:]
                break
            continue
        if option is None:
            raise UsageError(f"unexpected argument '{word}' found{_suggestion(word, table)}")
        if option.unsupported is not None:
            raise UsageError(f"'{option.name}' does not work in wasmforge: {option.unsupported}")
        if option.value is None:
            if value is not None:
                raise UsageError(f"'{option.name}' takes no value, but '{value}' was given")
            value = ""
        elif value is None:
            if position == len(argv):
                raise UsageError(f"a value is required for '{option.name} <{option.value}>' but none was supplied")
            value = argv[position]
            position += 1
        values = parsed.options.setdefault(option.name, [])
        if values and option.value is not None and not option.repeat:
            raise UsageError(f"'{option.name} <{option.value}>' cannot be used multiple times")
        values.append(value)
    return parsed


def _suggestion(word: str, table: Sequence[Option]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word.partition("=")[0], [option.name for option in table], 1)
    return f"; did you mean '{close[0]}'?" if close else ""


def describe(table: Sequence[Option]) -> str:
    """The options for `--help`; those that do not work here are left out."""
    rows = []
    for option in table:
        if option.unsupported is not None:
            continue
        name = f"{option.short}, {option.name}" if option.short else f"    {option.name}"
        rows.append((name + (f" <{option.value}>" if option.value else ""), option.help))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"  {name:<{width}}{text}" for name, text in rows)
