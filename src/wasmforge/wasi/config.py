"""`WasiConfig`: what an embedder lets a guest see, with the names and the behaviour of the class in the wasmtime
package. `Store.set_wasi` turns it into the store's `WasiContext`.
"""

from __future__ import annotations

import os
import sys

from wasmforge._managed import Managed
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.record import Enum
from wasmforge.wasi.context import WasiContext
from wasmforge.wasi.descriptors import CustomOutput, Descriptor, HostInput, HostOutput
from wasmforge.wasi.files import READ, WRITE
from wasmforge.wasi.host_files import HostDirectory
from wasmforge.wasi.streams import input_of, output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from wasmforge.wasi.clocks import Clocks
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.memory_directory import Contents, MemoryDirectory
    from wasmforge.wasi.remote_directory import FsspecDirectory
    from wasmforge.wasi.sockets import Socket
    from wasmforge.wasi.zip_directory import ZipDirectory

    AnyPath = str | bytes | os.PathLike[str]
    Directory = AnyPath | Mapping[str, Contents] | MemoryDirectory | ZipDirectory | FsspecDirectory

__all__ = ["DirPerms", "FilePerms", "WasiConfig"]


class DirPerms(Enum):
    """What a guest may do with the names in a preopened directory: look them up and list them, or change them."""

    READ_ONLY = READ
    WRITE_ONLY = WRITE
    READ_WRITE = READ | WRITE


class FilePerms(Enum):
    """The most that a guest may do with the contents of the files in a preopened directory."""

    READ_ONLY = READ
    WRITE_ONLY = WRITE
    READ_WRITE = READ | WRITE


def _setting(function: Callable[[WasiConfig, Any], None]) -> Any:
    """A property that can be set and not read, as in the wasmtime package."""
    return property(fset=function, doc=function.__doc__)


class WasiConfig(Managed):
    """Configures WASI for a store. Nothing is visible to the guest that is not set here.

    A config is used up by `Store.set_wasi`; using it afterwards raises ValueError.
    """

    def __init__(self) -> None:
        self._args: list[str] = []
        self._env: list[tuple[str, str]] = []
        self._streams: list[Descriptor | None] = [None, None, None]
        self._directories: list[Descriptor] = []
        self._sockets: list[Socket] = []
        self._clocks: Clocks | None = None
        self._random: Callable[[int], bytes] | None = None
        self._max_open_files: int | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            self._check_open()
            if not hasattr(type(self), name):
                raise AttributeError(f"WasiConfig has no setting {name!r}")
        super().__setattr__(name, value)

    def _release(self) -> None:
        for descriptor in (*self._streams, *self._directories, *self._sockets):
            if descriptor is not None:
                descriptor.close()

    @_setting
    def argv(self, argv: list[str]) -> None:
        """The program's arguments, its name first."""
        arguments = list(argv)
        _check_strings(arguments)
        self._args = arguments

    def inherit_argv(self) -> None:
        """Gives the guest this process's arguments (`sys.argv`)."""
        self._check_open()
        self._args = list(sys.argv)

    @_setting
    def env(self, pairs: Iterable[Iterable[str]]) -> None:
        """The environment variables, pairs of name and value."""
        variables = []
        for pair in pairs:
            name, value = pair
            _check_strings((name, value))
            variables.append((name, value))
        self._env = variables

    def inherit_env(self) -> None:
        """Gives the guest all environment variables of this process."""
        self._check_open()
        self._env = list(os.environ.items())

    @_setting
    def stdin_file(self, path: AnyPath) -> None:
        """A file that the guest reads as its standard input. WasmtimeError if it cannot be opened."""
        self._streams[0] = HostInput(_open_stream(path, os.O_RDONLY, "stdin"), owned=True)

    def inherit_stdin(self) -> None:
        """The guest reads this process's standard input."""
        self._check_open()
        self._streams[0] = HostInput(0, owned=False)

    @_setting
    def stdout_file(self, path: AnyPath) -> None:
        """A file that takes the guest's standard output; created, or truncated. WasmtimeError if that fails."""
        self._streams[1] = HostOutput(_open_stream(path, _TO_WRITE, "stdout"), owned=True)

    @_setting
    def stdout_custom(self, callback: Callable[[bytes], int | None]) -> None:
        """A callable that takes the guest's standard output: it gets bytes and returns how many it took, or None for
        all. What it raises ends the guest and leaves the call that entered it."""
        self._streams[1] = CustomOutput(callback)

    def inherit_stdout(self) -> None:
        """The guest writes to this process's standard output (to descriptor 1, past the buffer of `sys.stdout`)."""
        self._check_open()
        self._streams[1] = HostOutput(1, owned=False)

    @_setting
    def stderr_file(self, path: AnyPath) -> None:
        """A file that takes the guest's standard error; created, or truncated. WasmtimeError if that fails."""
        self._streams[2] = HostOutput(_open_stream(path, _TO_WRITE, "stderr"), owned=True)

    @_setting
    def stderr_custom(self, callback: Callable[[bytes], int | None]) -> None:
        """As `stdout_custom`, for standard error."""
        self._streams[2] = CustomOutput(callback)

    def inherit_stderr(self) -> None:
        """The guest writes to this process's standard error."""
        self._check_open()
        self._streams[2] = HostOutput(2, owned=False)

    @_setting
    def stdin(self, source: Any) -> None:
        """What the guest reads as its standard input: bytes, str (as UTF-8), a binary or text file object, or a
        callable `f(size) -> bytes` that returns b"" at the end; None for nothing. A file object stays the caller's."""
        self._streams[0] = None if source is None else input_of(source)

    @_setting
    def stdout(self, target: Any) -> None:
        """What takes the guest's standard output: a binary or text file object (`io.BytesIO()` to have it), a
        bytearray, or a callable as for `stdout_custom`; None discards it. What the object raises
        ends the guest and leaves the call that entered it; only OSError is the guest's."""
        self._streams[1] = None if target is None else output_of(target, "stdout")

    @_setting
    def stderr(self, target: Any) -> None:
        """As `stdout`, for standard error."""
        self._streams[2] = None if target is None else output_of(target, "stderr")

    @_setting
    def clocks(self, clocks: Clocks) -> None:
        """The clocks that the guest sees: `FixedClocks(...)`, or a subclass of `Clocks`."""
        from wasmforge.wasi.clocks import Clocks

        if not isinstance(clocks, Clocks):
            raise TypeError(f"expected Clocks, got {type(clocks).__name__}")
        self._clocks = clocks

    @_setting
    def random_seed(self, seed: int) -> None:
        """Makes the guest's random numbers a sequence that this number decides: for runs that repeat exactly, and
        never for secrets."""
        from random import Random

        self._random = Random(seed).randbytes

    @_setting
    def random(self, source: Callable[[int], bytes]) -> None:
        """Where the guest's random bytes come from: a callable `f(size) -> bytes` of exactly that size."""
        if not callable(source):
            raise TypeError(f"expected a callable, got {type(source).__name__}")
        self._random = source

    @_setting
    def max_open_files(self, limit: int) -> None:
        """How many files the guest may hold open besides what it is given; beyond it, it gets EMFILE. By default half
        of what this process may open."""
        if limit < 0:
            raise WasmtimeError("max_open_files cannot be negative")
        self._max_open_files = limit

    def preopen_dir(
        self,
        path: Directory,
        guest_path: str,
        dir_perms: DirPerms = DirPerms.READ_WRITE,
        file_perms: FilePerms = FilePerms.READ_WRITE,
    ) -> None:
        """Lets the guest use a directory and everything beneath it, and nothing else.

        Args:
            path: the directory on the host; or one that is none: a dict of names to contents (`MemoryDirectory` to
                read it back), a `ZipDirectory`, an `FsspecDirectory`.
            guest_path: its name in the guest.
            dir_perms: whether the guest may look names up, change them, or both.
            file_perms: whether it may read files, write them, or both.

        Raises:
            WasmtimeError: the directory cannot be opened.
        """
        self._check_open()
        if "\0" in guest_path:
            raise WasmtimeError(f"failed to add preopen dir: {guest_path!r} contains a NUL character")
        try:
            directory = open_directory(path, guest_path.encode(), dir_perms.value, file_perms.value)
        except (OSError, ValueError) as error:
            raise WasmtimeError(f"failed to add preopen dir: {path!r}: {_reason(error)}") from error
        self._directories.append(directory)

    def preopen_socket(self, socket: socket.socket) -> None:
        """Gives the guest a listening or connected stream socket. Sockets have the first numbers from 3 on, before the
        directories. The guest uses a duplicate; a listening socket is made non-blocking.

        Raises:
            WasmtimeError: it is another kind of socket.
        """
        self._check_open()
        from wasmforge.wasi.sockets import preopened

        try:
            self._sockets.append(preopened(socket))
        except (OSError, ValueError) as error:
            raise WasmtimeError(f"failed to add a socket: {_reason(error)}") from error

    def _consume(self) -> WasiContext:
        """The context that this config describes; the config is used up."""
        self._check_open()
        self._closed = True
        stdin, stdout, stderr = self._streams
        context = WasiContext(self._args, self._env, (stdin, stdout, stderr))
        if self._clocks is not None:
            context.clocks = self._clocks
        if self._random is not None:
            context.random = self._random
        if self._max_open_files is not None:
            context.descriptors.limit = 3 + len(self._directories) + len(self._sockets) + self._max_open_files
        for opened in self._sockets:
            if self._directories:
                opened.expect_directories()
            context.preopen(opened)
        for directory in self._directories:
            context.preopen(directory)
        # The files are the context's now, and shall close with it.
        self._streams = []
        self._directories = []
        self._sockets = []
        return context


def open_directory(directory: Any, name: bytes, dir_perms: int, file_perms: int) -> Descriptor:
    """The descriptor of a directory of any kind, preopened under `name`. Raises OSError, ValueError, TypeError."""
    opener = getattr(directory, "_open", None)
    if opener is None and hasattr(directory, "items"):
        from wasmforge.wasi.memory_directory import MemoryDirectory

        opener = MemoryDirectory(directory)._open
    if opener is None:
        return HostDirectory.preopen(directory, name, dir_perms, file_perms)
    opened: Descriptor = opener(name, dir_perms, file_perms)
    return opened


_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _open_stream(path: AnyPath, flags: int, stream: str) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise WasmtimeError(f"failed to set {stream} file: {os.fsdecode(path)!r}: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _check_strings(strings: Iterable[object]) -> None:
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"expected str, got {type(string).__name__}")
        if "\0" in string:
            raise WasmtimeError(f"arguments and environment variables cannot contain NUL characters: {string!r}")
