"""Files to modules, for every subcommand that takes one: what a file is, compiling it with progress on a terminal."""

from __future__ import annotations

import sys

from wasmforge.cli.errors import CommandError
from wasmforge.module import Module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmforge.engine import Engine

__all__ = ["Progress", "compile_contents", "compile_file", "load_file", "read_file"]

ELF_MAGIC = b"\x7fELF"
PROGRESS_AFTER = 1.0  # seconds of compiling before anything is shown


def read_file(path: str) -> bytes:
    """The contents of a file, or of standard input for "-"."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def _magic(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(ELF_MAGIC))


def load_file(engine: Engine, path: str, allow_precompiled: bool) -> Module:
    """A module from a file: binary, text, or, when allowed, an image made by `wasmforge compile`.

    Threat: an image is machine code that runs with all rights of this process, and any file may start like one. So they
    are accepted only by `--allow-precompiled`, as in Wasmtime.
    """
    if path != "-" and _magic(path) == ELF_MAGIC and allow_precompiled:
        return Module.deserialize_file(engine, path)
    with Progress(path) as progress:
        if path != "-":
            return Module._from_path(engine, path, progress.report, _refuse_image)
        contents = read_file(path)
        if contents.startswith(ELF_MAGIC) and allow_precompiled:
            return Module.deserialize(engine, contents)
        _refuse_image(contents)
        return Module._with_progress(engine, contents, progress.report)


def _refuse_image(contents: bytes) -> None:
    if contents.startswith(ELF_MAGIC):
        raise CommandError("running a precompiled module requires the `--allow-precompiled` flag")


def compile_file(engine: Engine, path: str) -> bytes:
    """The image of a file with a binary or a text module, always compiled anew."""
    return compile_contents(engine, path, read_file(path))


def compile_contents(engine: Engine, path: str, contents: bytes) -> bytes:
    """The same for what has been read from `path`."""
    from wasmforge.module import _to_wasm

    wasm = _to_wasm(contents)
    with Progress(path) as progress:
        return engine._compile(wasm, progress.report)


class Progress:
    """A line on standard error while a compilation takes long, if that is a terminal; nothing on a pipe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = False
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        import time

        self._clock: Callable[[], float] = time.monotonic
        self._start = self._clock()
        return self

    def report(self, done: int, total: int) -> None:
        """Called by the compiler: how many of how many parts are done."""
        elapsed = self._clock() - self._start
        if not self._terminal or elapsed < PROGRESS_AFTER or not total:
            return
        self._shown = True
        bar = "#" * (20 * done // total)
        sys.stderr.write(f"\r\x1b[Kcompiling {self._name} [{bar:<20}] {100 * done // total}% {elapsed:.0f} s")
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
