"""`wasmforge validate`: whether files are valid modules, without compiling them."""

from __future__ import annotations

from wasmforge.cli.errors import UsageError
from wasmforge.cli.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmforge.cli.options import Option

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Checks that modules are valid"
USAGE = "wasmforge validate <MODULE>..."
HELP = "Prints what is wrong and where, a line a file. The exit status is 0 only when all are valid."

OPTIONS: tuple[Option, ...] = ()


def main(argv: Sequence[str]) -> int:
    import sys

    parsed = parse(argv, OPTIONS)
    if not parsed.arguments:
        raise UsageError("the following required arguments were not provided:\n  <MODULE>...")

    from wasmforge.binary import decode
    from wasmforge.cli.modules import read_file
    from wasmforge.module import _to_wasm
    from wasmforge.syntax.errors import WasmtimeError
    from wasmforge.validation import validate

    failed = False
    for path in parsed.arguments:
        try:
            validate(decode(_to_wasm(read_file(path))))
        except (WasmtimeError, OSError) as error:
            failed = True
            reason = error.strerror if isinstance(error, OSError) else error
            sys.stderr.write(f"{path}: {reason}\n")
    return 1 if failed else 0
