"""`WasiConfig` has the names, defaults and behaviour of the wasmtime package's, and stores keep what it says to
themselves. Guests are small modules on our own runtime.
"""

from __future__ import annotations

import gc
import inspect
import os
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.guests import reexporting_module
from wasmforge import DirPerms, ExitTrap, FilePerms, Linker, Module, Store, WasiConfig, WasmtimeError

# Reads all of standard input to standard output and standard error, then exits with the number of arguments.
COPY = r"""(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\00\10\00\00\00\10\00\00")
  (func (export "_start")
    (loop $l
      (i32.store (i32.const 4) (i32.const 4096))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (if (i32.load (i32.const 4)) (then
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))
        (br $l))))
    (drop (call $args (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 24) (i32.const 28)))
    (call $exit (i32.add (i32.load (i32.const 16)) (i32.mul (i32.const 10) (i32.load (i32.const 24)))))))"""


@pytest.fixture(scope="module")
def engine() -> wasmforge.Engine:
    return wasmforge.Engine()


@pytest.fixture(scope="module")
def copy(engine: wasmforge.Engine) -> Module:
    return Module(engine, COPY)


@pytest.fixture(scope="module")
def everything(engine: wasmforge.Engine) -> Module:
    return Module(engine, reexporting_module())


def start(module: Module, engine: wasmforge.Engine, config: WasiConfig | None) -> int:
    """Runs `_start` and returns the exit status."""
    store = Store(engine)
    if config is not None:
        store.set_wasi(config)
    linker = Linker(engine)
    linker.define_wasi()
    exports = linker.instantiate(store, module).exports(store)
    with pytest.raises(ExitTrap) as trap:
        exports["_start"](store)  # type: ignore[operator]
    return trap.value.code


def opened(directory: Path) -> int:
    """How many descriptors of this process lead to `directory` or beneath it."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{entry}").startswith(str(directory))
        except FileNotFoundError:
            continue
    return count


def test_the_names_of_the_package() -> None:
    """Every public member of the package's class, with its parameters and defaults."""
    theirs = pytest.importorskip("wasmtime").WasiConfig
    for name in vars(theirs):
        if name.startswith("_"):
            continue
        ours = inspect.getattr_static(WasiConfig, name)
        if inspect.isfunction(vars(theirs)[name]):
            assert _shape(ours) == _shape(vars(theirs)[name]), name
        else:
            assert isinstance(ours, property) and ours.fset is not None and ours.fget is None, name
    assert [(p.name, p.value) for p in DirPerms] == [("READ_ONLY", 1), ("WRITE_ONLY", 2), ("READ_WRITE", 3)]
    assert [(p.name, p.value) for p in FilePerms] == [("READ_ONLY", 1), ("WRITE_ONLY", 2), ("READ_WRITE", 3)]


def _shape(function: Any) -> list[tuple[str, str]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, str(p.default)) for p in parameters]


def test_defaults(engine: wasmforge.Engine, copy: Module, capfd: pytest.CaptureFixture[str]) -> None:
    """No input, no arguments, no environment, and output that nobody sees."""
    assert start(copy, engine, WasiConfig()) == 0
    assert capfd.readouterr() == ("", "")


def test_files_as_streams(engine: wasmforge.Engine, copy: Module, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 10_000)
    (tmp_path / "out").write_bytes(b"is truncated" * 10_000)
    config = WasiConfig()
    config.stdin_file = tmp_path / "in"
    config.stdout_file = str(tmp_path / "out")
    config.stderr_file = os.fsencode(tmp_path / "err")
    config.argv = ["a", "b", "c"]
    config.env = [("A", "1"), ["B", "2"]]
    assert opened(tmp_path) == 3
    assert start(copy, engine, config) == 23
    gc.collect()
    assert opened(tmp_path) == 0, "the store closes what the config opened"
    assert (tmp_path / "out").read_bytes() == (tmp_path / "err").read_bytes() == b"x" * 10_000


def test_custom_streams(engine: wasmforge.Engine, copy: Module, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"hello")
    out: list[bytes] = []
    config = WasiConfig()
    config.stdin_file = str(tmp_path / "in")
    config.stdout_custom = out.append
    config.stderr_custom = lambda data: out.append(data.upper())
    start(copy, engine, config)
    assert out == [b"hello", b"HELLO"]


def test_an_exception_of_an_output_callback_comes_out_of_the_call(
    engine: wasmforge.Engine, copy: Module, tmp_path: Path
) -> None:
    class OwnError(Exception):
        pass

    def broken(data: bytes) -> None:
        raise OwnError(data)

    (tmp_path / "in").write_bytes(b"hello")
    config = WasiConfig()
    config.stdin_file = str(tmp_path / "in")
    config.stdout_custom = broken
    store = Store(engine)
    store.set_wasi(config)
    linker = Linker(engine)
    linker.define_wasi()
    exports = linker.instantiate(store, copy).exports(store)
    with pytest.raises(OwnError, match="hello"):
        exports["_start"](store)  # type: ignore[operator]


def test_inherited_streams(
    engine: wasmforge.Engine, copy: Module, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors 0, 1 and 2 of the process; they stay open afterwards."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"typed")
    os.close(write_end)
    kept = os.dup(0)
    os.dup2(read_end, 0)
    try:
        monkeypatch.setattr("sys.argv", ["program", "argument"])
        monkeypatch.setattr(os, "environ", {"ONE": "1"})
        config = WasiConfig()
        config.inherit_stdin()
        config.inherit_stdout()
        config.inherit_stderr()
        config.inherit_argv()
        config.inherit_env()
        assert start(copy, engine, config) == 12
        gc.collect()
        for descriptor in (0, 1, 2):
            os.fstat(descriptor)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(read_end)
    assert capfd.readouterr() == ("typed", "typed")


def test_a_config_is_used_up(engine: wasmforge.Engine, tmp_path: Path) -> None:
    config = WasiConfig()
    Store(engine).set_wasi(config)
    with pytest.raises(ValueError, match="already closed"):
        Store(engine).set_wasi(config)
    with pytest.raises(ValueError, match="already closed"):
        config.argv = ["x"]
    with pytest.raises(ValueError, match="already closed"):
        config.inherit_stdout()
    with pytest.raises(ValueError, match="already closed"):
        config.preopen_dir(str(tmp_path), "/")


def test_closing_an_unused_config_closes_its_files(tmp_path: Path) -> None:
    with WasiConfig() as config:
        config.stdout_file = str(tmp_path / "out")
        config.preopen_dir(str(tmp_path), "/")
        assert opened(tmp_path) == 2
    assert opened(tmp_path) == 0


def test_errors(tmp_path: Path) -> None:
    config = WasiConfig()
    for name in ("stdin_file", "stdout_file", "stderr_file"):
        with pytest.raises(WasmtimeError, match=f"failed to set {name[:-5]} file"):
            setattr(config, name, str(tmp_path / "no" / "file"))
    with pytest.raises(WasmtimeError, match="failed to add preopen dir"):
        config.preopen_dir(str(tmp_path / "nothing"), "/")
    (tmp_path / "file").touch()
    with pytest.raises(WasmtimeError, match="failed to add preopen dir"):
        config.preopen_dir(str(tmp_path / "file"), "/")
    with pytest.raises(WasmtimeError, match="NUL"):
        config.argv = ["a\0b"]
    with pytest.raises(TypeError):
        config.argv = [b"bytes"]
    with pytest.raises(TypeError):
        config.env = [("name", 1)]
    with pytest.raises(AttributeError):
        config.stdou = "misspelt"
    with pytest.raises(AttributeError):
        _ = config.argv


def test_permissions_reach_the_guest(engine: wasmforge.Engine, everything: Module, tmp_path: Path) -> None:
    """A directory to read cannot be written, through compiled code."""
    (tmp_path / "file").touch()
    config = WasiConfig()
    config.preopen_dir(str(tmp_path), "/ro", DirPerms.READ_ONLY, FilePerms.READ_ONLY)
    config.preopen_dir(str(tmp_path), "/rw")
    store, exports = _instance(engine, everything, config)
    exports["memory"].write(store, b"file", 0)
    assert exports["path_open"](store, 3, 0, 0, 4, 0, 2, 2, 0, 100) == 0
    assert exports["path_open"](store, 3, 0, 0, 4, 0, 64, 64, 0, 100) == 63
    assert exports["path_unlink_file"](store, 3, 0, 4) == 63
    assert exports["path_open"](store, 4, 0, 0, 4, 0, 64, 64, 0, 100) == 0
    assert exports["path_unlink_file"](store, 4, 0, 4) == 0
    assert os.listdir(tmp_path) == []


def _instance(engine: wasmforge.Engine, module: Module, config: WasiConfig | None) -> tuple[Store, Any]:
    store = Store(engine)
    if config is not None:
        store.set_wasi(config)
    linker = Linker(engine)
    linker.define_wasi()
    return store, linker.instantiate(store, module).exports(store)


def test_a_store_without_wasi(engine: wasmforge.Engine, everything: Module) -> None:
    """The guest's call fails with what to do, and works as soon as it is done."""
    store, exports = _instance(engine, everything, None)
    with pytest.raises(WasmtimeError, match=r"call store\.set_wasi"):
        exports["sched_yield"](store)
    store.set_wasi(WasiConfig())
    assert exports["sched_yield"](store) == 0


def test_a_caller_without_memory(engine: wasmforge.Engine) -> None:
    module = Module(
        engine,
        """(module (import "wasi_snapshot_preview1" "sched_yield" (func $f (result i32)))
        (memory 1) (func (export "f") (result i32) (call $f)))""",
    )
    store, exports = _instance(engine, module, WasiConfig())
    with pytest.raises(WasmtimeError, match="missing required memory export"):
        exports["f"](store)
    linker = Linker(engine)
    linker.define_wasi()
    function: Any = linker.get(store, "wasi_snapshot_preview1", "sched_yield")
    with pytest.raises(WasmtimeError, match="missing required memory export"):
        function(store)


def test_memory_that_grows(engine: wasmforge.Engine) -> None:
    """A function that has seen the memory small uses all of it after growth, and none beyond."""
    module = Module(
        engine,
        """(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "random") (param i32 i32) (result i32) (call $random (local.get 0) (local.get 1)))
        (func (export "grow") (result i32) (memory.grow (i32.const 1))))""",
    )
    store, exports = _instance(engine, module, WasiConfig())
    assert exports["random"](store, 65528, 8) == 0
    with pytest.raises(WasmtimeError, match="Pointer out of bounds"):
        exports["random"](store, 65528, 16)
    assert exports["grow"](store) == 1
    assert exports["random"](store, 65528, 16) == 0
    assert exports["random"](store, 131064, 8) == 0
    assert bytes(exports["memory"].read(store, 131064, 131072)) != bytes(8)
    with pytest.raises(WasmtimeError, match="Pointer out of bounds"):
        exports["random"](store, 131064, 9)


def test_two_instances_in_a_store_use_their_own_memories(engine: wasmforge.Engine) -> None:
    module = Module(
        engine,
        """(module (import "wasi_snapshot_preview1" "args_sizes_get" (func $f (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "f") (param i32) (drop (call $f (local.get 0) (i32.const 8)))))""",
    )
    store = Store(engine)
    config = WasiConfig()
    config.argv = ["a", "b", "c"]
    store.set_wasi(config)
    linker = Linker(engine)
    linker.define_wasi()
    first, second = (linker.instantiate(store, module).exports(store) for _ in range(2))
    first["f"](store, 0)  # type: ignore[operator]
    second["f"](store, 4)  # type: ignore[operator]
    first["f"](store, 16)  # type: ignore[operator]
    memories = [bytes(e["memory"].read(store, 0, 20)) for e in (first, second)]  # type: ignore[union-attr]
    three = b"\3\0\0\0"
    assert memories[0] == three + bytes(4) + b"\6\0\0\0" + bytes(4) + three
    assert memories[1] == bytes(4) + three + b"\6\0\0\0" + bytes(8)


def test_stores_do_not_share(engine: wasmforge.Engine, everything: Module, tmp_path: Path) -> None:
    """One linker, two stores: each sees its own descriptors, also in stores made where another one was."""
    linker = Linker(engine)
    linker.define_wasi()
    for _ in range(20):
        guests = []
        for directory in ("a", "b"):
            (tmp_path / directory).mkdir(exist_ok=True)
            store = Store(engine)
            config = WasiConfig()
            config.preopen_dir(str(tmp_path / directory), "/" + directory)
            store.set_wasi(config)
            guests.append((directory, store, linker.instantiate(store, everything).exports(store)))
        for directory, store, exports in guests:
            memory: Any = exports["memory"]
            memory.write(store, directory.encode(), 0)
            assert exports["path_create_directory"](store, 3, 0, 1) == 0  # type: ignore[operator]
            assert os.listdir(tmp_path / directory) == [directory]
            assert exports["path_remove_directory"](store, 3, 0, 1) == 0  # type: ignore[operator]
            assert exports["fd_prestat_get"](store, 4, 64) == 8  # type: ignore[operator]


def test_a_linker_defines_wasi_once(engine: wasmforge.Engine) -> None:
    linker = Linker(engine)
    linker.define_wasi()
    with pytest.raises(WasmtimeError, match="defined twice"):
        linker.define_wasi()


def test_dropped_stores_leave_nothing_open(engine: wasmforge.Engine, everything: Module, tmp_path: Path) -> None:
    for _ in range(50):
        config = WasiConfig()
        config.preopen_dir(str(tmp_path), "/")
        store, exports = _instance(engine, everything, config)
        assert exports["sched_yield"](store) == 0
        del store, exports
    gc.collect()
    assert opened(tmp_path) == 0


def test_load_with_wasi(tmp_path: Path) -> None:
    """The short way."""
    config = WasiConfig()
    written: list[bytes] = []
    (tmp_path / "in").write_bytes(b"input")
    config.stdin_file = str(tmp_path / "in")
    config.stdout_custom = written.append
    app = wasmforge.load(COPY, wasi=config)
    with pytest.raises(ExitTrap) as trap:
        app._start()
    assert trap.value.code == 0
    assert str(trap.value) == "Exited with i32 exit status 0"
    assert written == [b"input"]
