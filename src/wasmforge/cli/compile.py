"""`wasmforge compile`: a module to an image that `run --allow-precompiled` and `Module.deserialize_file` map."""

from __future__ import annotations

import os

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUP_OPTIONS, parse_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELP", "OPTIONS", "check_target", "main"]

SUMMARY = "Compiles a WebAssembly module"
USAGE = "wasmforge compile [OPTIONS] <MODULE>"
HELP = "The module is a file (binary or text), or - for standard input."

OPTIONS = (
    *GROUP_OPTIONS,
    Option("--output", "where to write the image (default: the module's name with .cwasm)", short="-o", value="OUTPUT"),
    Option("--target", "the machine to compile for; only this one is known", value="TRIPLE"),
    Option("--emit-clif", "", value="DIR", unsupported="there is no Cranelift intermediate code: LLVM compiles"),
)


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    settings = parse_groups(parsed)
    settings.refuse_others("compile", "fuel")
    if len(parsed.arguments) != 1:
        raise UsageError(f"expected one module, got {len(parsed.arguments)}")
    (path,) = parsed.arguments
    check_target(parsed.last("--target"))
    config = settings.make_config()

    from wasmforge.cli.modules import compile_file
    from wasmforge.engine import Engine
    from wasmforge.syntax.errors import WasmtimeError

    output = parsed.last("--output") or _default_output(path)
    try:
        image = compile_file(Engine(config), path)
    except (OSError, WasmtimeError) as error:
        raise CommandError.during(f"failed to compile `{path}`", error) from None
    try:
        _write(output, image)
    except OSError as error:
        raise CommandError.during(f"failed to write `{output}`", error) from None
    return 0


def check_target(target: str | None) -> None:
    """Raises UsageError when `target` is another machine than this one."""
    if target is None:
        return
    import platform

    here = platform.machine()
    if target.partition("-")[0] != here:
        raise UsageError(f"cannot compile for `{target}`: this version compiles for {here}-linux only")


def _default_output(path: str) -> str:
    """In the current directory, as Wasmtime does."""
    if path == "-":
        raise UsageError("a module from standard input needs --output")
    return os.path.splitext(os.path.basename(path))[0] + ".cwasm"


def _write(path: str, image: bytes) -> None:
    """Whole or not at all: a process that maps the old image keeps it, none ever maps half of the new one."""
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        with open(1 if path == "-" else path, "wb") as file:
            file.write(image)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(image)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
