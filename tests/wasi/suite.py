"""The official test suite of WASI (WebAssembly/wasi-testsuite, branch prod/testsuite-all, 3db7f5d): where it is, what
the JSON beside each program says, and how one is run. `specification.md` of the suite describes the format.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

WHERE_TO_GET_IT = (
    "no WASI test suite: clone github.com/WebAssembly/wasi-testsuite at 3db7f5d (branch prod/testsuite-all) into "
    "$WASMFORGE_TESTSUITES/wasi"
)
KNOWN_FAILURES = Path(__file__).with_name("known_failures.toml")
REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("p1-assemblyscript", "p1-c", "p1-rust", "threads")  # p3-rust holds components


class Program(NamedTuple):
    """A program of the suite and what its JSON says."""

    name: str  # folder/program
    path: Path
    args: list[str]
    env: dict[str, str]
    dirs: list[str]
    exit_code: int
    stdout: str | None
    stderr: str | None


class Outcome(NamedTuple):
    exit_code: int
    stdout: bytes
    stderr: bytes


def suite_folder() -> Path | None:
    root = os.environ.get("WASMFORGE_TESTSUITES") or REPOSITORY.parent / "shared" / "testsuites"
    folder = Path(root) / "wasi"
    return folder if folder.is_dir() else None


@cache
def programs() -> dict[str, Program]:
    """Every program of the folders, by name; empty when this machine has no suite."""
    folder = suite_folder()
    if folder is None:
        return {}
    found = {}
    for kind in FOLDERS:
        for path in sorted((folder / kind).glob("*.wasm")):
            specification = path.with_suffix(".json")
            says: dict[str, Any] = json.loads(specification.read_text()) if specification.exists() else {}
            unknown = set(says) - {"args", "env", "dirs", "exit_code", "stdout", "stderr"}
            assert not unknown, f"{specification}: {unknown} is not understood"
            name = f"{kind}/{path.stem}"
            found[name] = Program(
                name,
                path,
                says.get("args", []),
                says.get("env", {}),
                says.get("dirs", []),
                says.get("exit_code", 0),
                says.get("stdout"),
                says.get("stderr"),
            )
    return found


def known_failures() -> dict[str, str]:
    """Programs that do not pass yet, with what each waits for."""
    with KNOWN_FAILURES.open("rb") as file:
        table: dict[str, str] = tomllib.load(file)
    return table


def prepare_directories(program: Program, where: Path) -> list[tuple[Path, str]]:
    """Fresh, writable copies of the directories that a program gets: host path and guest path."""
    result = []
    for name in program.dirs:
        target = where / name
        shutil.copytree(program.path.parent / name, target)
        for directory, _, files in os.walk(target):
            os.chmod(directory, 0o755)
            for file in files:
                os.chmod(os.path.join(directory, file), 0o644)
            for cleanup in (f for f in files if f.endswith(".cleanup")):
                os.unlink(os.path.join(directory, cleanup))
        result.append((target, name))
    return result


def check(program: Program, outcome: Outcome) -> None:
    """Asserts what the specification of the suite asks for."""
    details = f"{program.name}: {outcome}"
    assert outcome.exit_code == program.exit_code, details
    if program.stdout is not None:
        assert outcome.stdout.decode() == program.stdout, details
    if program.stderr is not None:
        assert outcome.stderr.decode() == program.stderr, details


# --- Our own runtime


@cache
def _compiler_fingerprint() -> str:
    """Changes with every file that decides what an image looks like."""
    digest = hashlib.sha256()
    source = REPOSITORY / "src" / "wasmforge"
    for room in ("syntax", "binary", "validation", "compiler"):
        for path in sorted((source / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiled(engine: Any, path: Path, strategy: str) -> Any:
    """The module of a file, from an image in .cache when this compiler has compiled it before: most programs of the
    suite take seconds."""
    import wasmforge

    wasm = path.read_bytes()
    key = hashlib.sha256(wasm).hexdigest()[:16]
    image = REPOSITORY / ".cache" / "wasi-suite" / _compiler_fingerprint() / f"{key}-{strategy}.cwasm"
    if image.exists():
        return wasmforge.Module.deserialize_file(engine, image)
    module = wasmforge.Module(engine, wasm)
    image.parent.mkdir(parents=True, exist_ok=True)
    temporary = image.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(module.serialize())
    temporary.replace(image)
    return module


@cache
def _engine(strategy: str) -> Any:
    import wasmforge

    config = wasmforge.Config()
    config.strategy = strategy
    return wasmforge.Engine(config)


def in_memory(directories: list[tuple[Path, str]]) -> list[tuple[Any, str]]:
    """The same directories as `MemoryDirectory` objects."""
    import wasmforge

    def read(path: Path) -> Any:
        return {p.name: read(p) if p.is_dir() else p.read_bytes() for p in path.iterdir()}

    return [(wasmforge.MemoryDirectory(read(path)), name) for path, name in directories]


def run_with_wasmforge(program: Program, directories: Sequence[tuple[Any, str]], strategy: str) -> Outcome:
    """As an embedder does it: `WasiConfig`, `Linker.define_wasi`, `_start`. Directories: host paths or objects."""
    import wasmforge

    stdout: list[bytes] = []
    stderr: list[bytes] = []
    config = wasmforge.WasiConfig()
    config.argv = [program.path.name, *program.args]
    config.env = list(program.env.items())
    config.stdout_custom = stdout.append
    config.stderr_custom = stderr.append
    for host, guest in directories:
        config.preopen_dir(host, guest)
    engine = _engine(strategy)
    store = wasmforge.Store(engine)
    store.set_wasi(config)
    linker = wasmforge.Linker(engine)
    linker.define_wasi()
    start = linker.instantiate(store, compiled(engine, program.path, strategy)).exports(store)["_start"]
    return Outcome(_exit_code(lambda: start(store), wasmforge), b"".join(stdout), b"".join(stderr))


def _exit_code(start: Callable[[], object], api: Any) -> int:
    try:
        start()
    except api.ExitTrap as error:
        return int(error.code)
    except api.Trap:
        return 134
    return 0


# --- Our functions on the runtime of the wasmtime package


@cache
def _package_engine() -> Any:
    import wasmtime

    return wasmtime.Engine()


def run_with_package(program: Program, directories: list[tuple[Path, str]]) -> Outcome:
    """Our WASI functions, called by code that the wasmtime package compiled and runs: shows that they are right without
    any other room of this project."""
    import ctypes

    import wasmtime

    from wasmforge.syntax.types import I32
    from wasmforge.trap import ExitTrap
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.descriptors import CustomOutput
    from wasmforge.wasi.guest_memory import GuestMemory
    from wasmforge.wasi.host_files import HostDirectory
    from wasmforge.wasi.preview1 import FUNCTIONS, MODULE_NAME, host_function

    stdout: list[bytes] = []
    stderr: list[bytes] = []
    context = WasiContext(
        [program.path.name, *program.args],
        program.env.items(),
        (None, CustomOutput(stdout.append), CustomOutput(stderr.append)),
    )
    for host, guest in directories:
        context.preopen(HostDirectory.preopen(host, guest.encode(), 3, 3))
    engine = _package_engine()
    store = wasmtime.Store(engine)
    linker = wasmtime.Linker(engine)
    exits: list[int] = []

    def locate(caller: Any) -> tuple[WasiContext, GuestMemory]:
        memory = caller.get("memory")
        length = memory.data_len(store)
        address = ctypes.addressof(memory.data_ptr(store).contents)
        return context, GuestMemory(memoryview((ctypes.c_char * length).from_address(address)).cast("B"))

    def noting_exit(function: Callable[..., int]) -> Callable[..., int]:
        def call(*values: Any) -> int:
            try:
                return function(*values)
            except ExitTrap as error:  # the package turns every exception into a trap of its own
                exits.append(error.code)
                raise

        return call

    for row in FUNCTIONS:
        params = [wasmtime.ValType.i32() if t == I32 else wasmtime.ValType.i64() for t in row.type.params]
        ty = wasmtime.FuncType(params, [wasmtime.ValType.i32()] * len(row.type.results))
        linker.define_func(MODULE_NAME, row.name, ty, noting_exit(host_function(row, locate)), access_caller=True)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(program.path)))
    start = instance.exports(store)["_start"]
    code = 0
    try:
        start(store)
    except (ExitTrap, wasmtime.Trap, wasmtime.WasmtimeError):
        code = exits[-1] if exits else 134
    context.close()
    return Outcome(code, b"".join(stdout), b"".join(stderr))
