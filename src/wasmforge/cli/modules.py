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
PROGRESS_AFTER = 1.0  # seconds of loading and compiling before anything is shown
TICK = 0.5  # seconds from line to line while nothing is reported


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
    """A line on standard error while loading or compiling takes long, if that is a terminal; nothing on a pipe.

    A thread keeps it up to date, since a single large function may take the compiler a minute without a report. It is
    started without `threading`, which takes longer to import than most modules take to load.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = False
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._done = self._total = 0

    def __enter__(self) -> Progress:
        import time

        self._clock: Callable[[], float] = time.monotonic
        self._start = self._clock()
        if self._terminal:
            import _thread

            self._stop, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
            self._stop.acquire()
            self._ended.acquire()
            try:
                _thread.start_new_thread(self._tick, ())
            except RuntimeError:  # no more threads: reports alone must do
                self._ended.release()
        return self

    def _tick(self) -> None:
        try:
            wait = PROGRESS_AFTER
            while not self._stop.acquire(timeout=wait):
                self._show()
                wait = TICK
        except (OSError, ValueError):
            pass  # nobody sees the terminal any more
        finally:
            self._ended.release()

    def report(self, done: int, total: int) -> None:
        """Called by the compiler: how many of how many parts are done."""
        self._done, self._total = done, total
        if self._terminal and self._clock() - self._start >= PROGRESS_AFTER:
            self._show()

    def _show(self) -> None:
        self._shown = True
        elapsed = self._clock() - self._start
        line = f"\r\x1b[Kloading {self._name} {elapsed:.0f} s"
        if self._total:
            share = self._done / self._total
            line = f"\r\x1b[Kcompiling {self._name} [{'#' * int(20 * share):<20}] {share:.0%} {elapsed:.0f} s"
        sys.stderr.write(line)
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._stop.release()
            self._ended.acquire()
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
