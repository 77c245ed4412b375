"""`wasmforge.run`: a program in a sandbox of its own by one call, with limits on time, memory, output and open files.
It is `WasiConfig`, a store with limits and a deadline, put together.
"""

from __future__ import annotations

from wasmforge.engine import Engine, default_engine
from wasmforge.func_ import Func
from wasmforge.linker import Linker
from wasmforge.loading import _compile
from wasmforge.module import Module
from wasmforge.runtime.vm.limits import StoreLimits
from wasmforge.store import Store, store_data
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.trap import ExitTrap
from wasmforge.wasi.config import DirPerms, FilePerms, WasiConfig
from wasmforge.wasi.descriptors import CustomOutput, Descriptor
from wasmforge.wasi.errno import WasiError
from wasmforge.wasi.memory_directory import MemoryDirectory
from wasmforge.wasi.streams import LimitedOutput, OutputBudget, output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Any, Final

    from wasmforge.config import Config
    from wasmforge.wasi.clocks import Clocks
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.memory_directory import Contents, Files

__all__ = [
    "CompletedRun",
    "LimitExceeded",
    "MemoryLimitExceeded",
    "OpenFilesLimitExceeded",
    "OutputLimitExceeded",
    "TimeoutExpired",
    "run",
]

PIPE: Final = -1  # the numbers of `subprocess`
STDOUT: Final = -2
DEVNULL: Final = -3

DEFAULT_MAX_OUTPUT: Final = 64 << 20


class LimitExceeded(WasmtimeError):
    """A program reached a limit of `run`. `stdout`, `stderr` and `files` are what it had made by then."""

    stdout: bytes | str | None = None
    stderr: bytes | str | None = None
    files: Files

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.files = {}

    @property
    def output(self) -> bytes | str | None:
        """`stdout`, under the name of `subprocess.TimeoutExpired`."""
        return self.stdout


class TimeoutExpired(LimitExceeded, TimeoutError):
    """The program ran for longer than `timeout` seconds. `cmd` is its name and arguments."""

    def __init__(self, cmd: list[str], timeout: float) -> None:
        super().__init__(f"the program {cmd[0]!r} did not end within {timeout} seconds")
        self.cmd = cmd
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        return TimeoutExpired, (self.cmd, self.timeout), self.__dict__


class MemoryLimitExceeded(LimitExceeded):
    """The program wanted more memory than `max_memory`."""


class OutputLimitExceeded(LimitExceeded):
    """The program wrote more than `max_output` bytes to its standard output and standard error."""


class OpenFilesLimitExceeded(LimitExceeded):
    """The program held more than `max_open_files` files open."""


class CompletedRun:
    """A program that ended: `args`, `returncode`, `stdout`, `stderr` as of `subprocess.CompletedProcess`, and `files`,
    the contents of its directory in memory."""

    __slots__ = ("args", "files", "returncode", "stderr", "stdout")

    def __init__(
        self,
        args: list[str],
        returncode: int,
        stdout: bytes | str | None,
        stderr: bytes | str | None,
        files: Files,
    ) -> None:
        self.args: list[str] = args
        self.returncode: int = returncode
        self.stdout: bytes | str | None = stdout
        self.stderr: bytes | str | None = stderr
        self.files: Files = files

    def check_returncode(self) -> None:
        """Raises `subprocess.CalledProcessError` unless the exit status is 0."""
        if self.returncode:
            from subprocess import CalledProcessError

            raise CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)

    def __repr__(self) -> str:
        shown = [f"args={self.args!r}", f"returncode={self.returncode}"]
        for name in ("stdout", "stderr", "files"):
            value = getattr(self, name)
            if value:
                shown.append(f"{name}={value!r}")
        return f"CompletedRun({', '.join(shown)})"


class _Limits(StoreLimits):
    """Limits whose excess is an exception and not a failure that the guest may not expect.

    Threat: what is allowed is the sum over everything that a guest can make, so one memory, and tables (8 bytes an
    element) of together no more than an eighth of it.
    """

    __slots__ = ("_message",)

    def __init__(self, max_memory: int) -> None:
        super().__init__()
        self.memory_size = max_memory
        self.memories = 1
        self.tables = 8
        self.table_elements = max_memory // 512
        self._message = f"the program wanted more than {max_memory} bytes of memory"

    def allows_memory(self, size: int) -> bool:
        if not super().allows_memory(size):
            raise MemoryLimitExceeded(self._message)
        return True

    def allows_table(self, elements: int) -> bool:
        if not super().allows_table(elements):
            raise MemoryLimitExceeded(self._message)
        return True


def run(
    source: str | bytes | bytearray | PathLike[str] | Module,
    args: Sequence[str] = (),
    *,
    argv0: str | None = None,
    stdin: Any = None,
    stdout: Any = PIPE,
    stderr: Any = PIPE,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, Contents] | MemoryDirectory | None = None,
    dirs: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    max_memory: int | None = None,
    max_output: int | None = DEFAULT_MAX_OUTPUT,
    max_open_files: int | None = None,
    threads: bool | int = False,
    clocks: Clocks | None = None,
    random_seed: int | None = None,
    text: bool = False,
    check: bool = False,
    config: Config | None = None,
    engine: Engine | None = None,
) -> CompletedRun:
    """Run a WASI program to its end, in a store of its own. It sees nothing but what is given here.

        result = wasmforge.run("tool.wasm", ["in.txt"], files={"in.txt": "text"}, timeout=5)
        result.returncode, result.stdout, result.files["out.txt"]

    Parameters:
        source: a path, the binary (bytes), the text (str starting with a parenthesis or comment), or a `Module`.
        args: the arguments, without the program's name, which is `argv0` or the file's.
        stdin: bytes, str, a file object, or a callable; see `WasiConfig.stdin`. None: no input.
        stdout, stderr: captured by default. `subprocess.DEVNULL`, a file object, a bytearray or a callable;
            `stderr=subprocess.STDOUT` puts both together.
        env: the environment variables.
        files: the program's directory "/", in memory: names to contents, as for `MemoryDirectory`.
        dirs: more directories, by their name in the guest: a path of the host, which can only be read,
            `(path, "rw")`, a dict, `MemoryDirectory`, `ZipDirectory` or `FsspecDirectory`.
        timeout: seconds that the program may run, not counting compilation. It ends an endless loop and a program
            that waits; a stream of Python that blocks is waited for.
        max_memory: bytes of linear memory; as much again as an eighth of it for tables.
        max_output: bytes of standard output and error together. None: no limit.
        max_open_files: how many files the program may hold open.
        threads: let the program start threads (wasi-threads), True for up to 128 at a time, or how many. It then runs
            in an engine with shared memories. `max_memory` allows each thread its own tables.
        clocks, random_seed: see `WasiConfig`: runs that repeat exactly.
        text: decode the captured output as UTF-8.
        check: raise `subprocess.CalledProcessError` when the exit status is not 0.
        config, engine: settings, or the engine to compile in; by default the engine that `load` uses.

    Raises:
        TimeoutExpired, MemoryLimitExceeded, OutputLimitExceeded, OpenFilesLimitExceeded: a limit was reached; all are
            `LimitExceeded` and carry what the program had written.
        Trap: the program trapped. It has the attributes `stdout`, `stderr` and `files` too.
        WasmtimeError: the module is malformed, or not a WASI command.
        OSError: the file cannot be read.
    """
    name = argv0 if argv0 is not None else _name_of(source)
    command = [name, *args]
    wasi = WasiConfig()
    wasi.argv = command
    wasi.env = list((env or {}).items())
    if stdin is not None and stdin != DEVNULL:
        wasi.stdin = stdin
    directory = None
    if files is not None:
        directory = files if isinstance(files, MemoryDirectory) else MemoryDirectory(files)
        wasi.preopen_dir(directory, "/")
    for guest_path, given in (dirs or {}).items():
        _preopen(wasi, guest_path, given)
    if clocks is not None:
        wasi.clocks = clocks
    if random_seed is not None:
        wasi.random_seed = random_seed
    if max_open_files is not None:
        wasi.max_open_files = max_open_files
    outputs = _Outputs(stdout, stderr, max_output, text)
    wasi._streams[1:] = outputs.descriptors

    if isinstance(source, Module):
        module = source
    else:
        module = _compile(engine or _engine_for(config, bool(threads)), source)
    store = Store(module._engine)
    if max_memory is not None:
        store._context().limits = _Limits(max_memory)
    store.set_wasi(wasi)
    if max_open_files is not None:
        message = f"the program opened more than {max_open_files} files"
        store_data(store).wasi.descriptors.exceeded = lambda: OpenFilesLimitExceeded(message)
    try:
        returncode = _call(store, module, command, timeout, threads)
        _close(store_data(store).wasi)
    except Exception as error:
        _close(store_data(store).wasi, suppress=True)  # the exception keeps the store alive through its traceback
        error.stdout, error.stderr = outputs.captured()  # type: ignore[attr-defined]
        error.files = {} if directory is None else directory.to_dict()  # type: ignore[attr-defined]
        raise
    result = CompletedRun(command, returncode, *outputs.captured(), {} if directory is None else directory.to_dict())
    if check:
        result.check_returncode()
    return result


def _engine_for(config: Config | None, threads: bool) -> Engine:
    if config is None and threads:
        from wasmforge.config import Config

        config = Config()
        config.shared_memory = True
    return Engine(config) if config is not None else default_engine()


def _call(store: Store, module: Module, command: list[str], timeout: float | None, threads: bool | int) -> int:
    """Runs the program, the start function of its module included; its exit status."""
    try:
        if timeout is None:
            _start(store, module, threads)
        else:
            from wasmforge.runtime.deadline import Deadline

            with Deadline(store._context(), timeout, lambda: TimeoutExpired(command, timeout)):
                _start(store, module, threads)
    except ExitTrap as error:
        return error.code
    except WasmtimeError as error:
        status: int | None = getattr(error, "exit_status", None)
        if status is None:
            raise
        return status
    return 0


def _start(store: Store, module: Module, threads: bool | int) -> None:
    linker = Linker(store.engine)
    linker.define_wasi()
    if not threads:
        _run_start(store, linker, module)
        return
    with linker.define_wasi_threads(store, module, None if threads is True else threads):
        _run_start(store, linker, module)


def _run_start(store: Store, linker: Linker, module: Module) -> None:
    exports = linker.instantiate(store, module).exports(store)
    for name in ("_start", ""):
        function = exports.get(name)
        if isinstance(function, Func):
            function(store)
            return
    raise WasmtimeError("the module is no WASI command: it exports no function `_start`")


def _close(context: WasiContext, suppress: bool = False) -> None:
    """Closes the files that the program left open, so that what is written through arrives."""
    try:
        context.close()
    except (WasiError, OSError) as error:
        if suppress:
            return
        raise WasmtimeError(f"a file that the program had left open could not be written back: {error}") from error


def _name_of(source: object) -> str:
    if isinstance(source, (bytes, bytearray)) or (not hasattr(source, "__fspath__") and not isinstance(source, str)):
        return "main.wasm"
    import os

    path = os.fspath(source)
    return "main.wat" if path.lstrip().startswith(("(", ";;")) else os.path.basename(path)


def _preopen(wasi: WasiConfig, guest_path: str, given: Any) -> None:
    """Directories of the host can be read only, unless said otherwise; what is in memory is the guest's anyway."""
    import os

    writable = not isinstance(given, (str, bytes, os.PathLike))
    if isinstance(given, tuple):
        given, mode = given
        if mode not in ("r", "rw"):
            raise ValueError(f"the mode of a directory is 'r' or 'rw', not {mode!r}")
        writable = mode == "rw"
    if writable:
        wasi.preopen_dir(given, guest_path)
    else:
        wasi.preopen_dir(given, guest_path, DirPerms.READ_ONLY, FilePerms.READ_ONLY)


class _Outputs:
    """Standard output and error: what is captured, and the limit over both."""

    def __init__(self, stdout: Any, stderr: Any, limit: int | None, text: bool) -> None:
        self._text = text
        self._captured: list[bytearray | None] = []
        self.descriptors: list[Descriptor | None] = []
        for name, target in (("stdout", stdout), ("stderr", stderr)):
            if target == STDOUT and name == "stderr":
                self._captured.append(None)
                self.descriptors.append(self.descriptors[0])
                continue
            captured = bytearray() if isinstance(target, int) and target == PIPE else None
            self._captured.append(captured)
            self.descriptors.append(_output(target, captured, name))
        if limit is None:
            return
        message = f"the program wrote more than {limit} bytes of output"
        budget = OutputBudget(limit, lambda: OutputLimitExceeded(message))
        limited: dict[int, Descriptor] = {}
        for i, descriptor in enumerate(self.descriptors):
            if descriptor is not None:
                self.descriptors[i] = limited.setdefault(id(descriptor), LimitedOutput(descriptor, budget))

    def captured(self) -> tuple[bytes | str | None, bytes | str | None]:
        first, second = self._captured
        return self._shown(first), self._shown(second)

    def _shown(self, data: bytearray | None) -> bytes | str | None:
        if data is None:
            return None
        return data.decode("utf-8", "replace") if self._text else bytes(data)


def _output(target: Any, captured: bytearray | None, name: str) -> Descriptor | None:
    if captured is not None:
        return CustomOutput(captured.extend)
    if target is None or (isinstance(target, int) and target == DEVNULL):
        return None
    return output_of(target, name)
