"""`wasmforge wast`: runs scripts of the specification's test suites, a line a file."""

from __future__ import annotations

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUP_OPTIONS, parse_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Runs WebAssembly test scripts"
USAGE = "wasmforge wast [OPTIONS] <SCRIPT_FILE>..."
HELP = "Prints a line a file. The exit status is 0 only when all files pass."

OPTIONS = (
    *GROUP_OPTIONS,
    Option("--verbose", "list what failed in each file", short="-v"),
    Option("--generate-dwarf", "", value="BOOL", unsupported="text modules have no debug information"),
    Option("--precompile-save", "", value="DIR", unsupported="it is not implemented yet"),
    Option("--precompile-load", "", value="DIR", unsupported="it is not implemented yet"),
    Option("--async", "", value="BOOL", unsupported="asynchronous execution is not implemented yet"),
)


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    settings = parse_groups(parsed)
    settings.refuse_others("wast")
    if not parsed.arguments:
        raise UsageError("the following required arguments were not provided:\n  <SCRIPT_FILE>...")

    from wasmforge.wast import Runner

    runner = Runner(config=settings.make_config())
    failed = 0
    for path in parsed.arguments:
        try:
            with open(path, "rb") as file:
                source = file.read()
        except OSError as error:
            raise CommandError.during(f"failed to read `{path}`", error) from None
        result = runner.run(source, path)
        print(result, flush=True)
        if not result.ok:
            failed += 1
            if parsed.flag("--verbose"):
                for failure in result.failures:
                    print(f"    {path}:{failure.line}: {failure.reason}", flush=True)
    return 1 if failed else 0
