"""`wasmforge.run`: the one-call sandbox, with each of its limits (what a guest does is in WAT here; CPython and QuickJS
are in `test_guests.py`).
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge import (
    FixedClocks,
    LimitExceeded,
    MemoryDirectory,
    MemoryLimitExceeded,
    OpenFilesLimitExceeded,
    OutputLimitExceeded,
    TimeoutExpired,
    Trap,
    WasmtimeError,
)

IMPORTS = """
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (func $print (param $fd i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
"""


def guest(body: str) -> str:
    return f"(module {IMPORTS} {body})"


HELLO = guest("""
  (data (i32.const 64) "hello\\nerror\\n")
  (func (export "_start")
    (call $print (i32.const 1) (i32.const 64) (i32.const 6))
    (call $print (i32.const 2) (i32.const 70) (i32.const 6))
    (drop (call $args (i32.const 16) (i32.const 20)))
    (call $exit (i32.load (i32.const 16))))""")

ECHO = guest("""
  (func (export "_start")
    (loop $l
      (i32.store (i32.const 0) (i32.const 4096))
      (i32.store (i32.const 4) (i32.const 4096))
      (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (if (i32.load (i32.const 8)) (then
        (call $print (i32.const 1) (i32.const 4096) (i32.load (i32.const 8)))
        (br $l)))))""")

# Opens "f" to write, in the first directory, again and again; exits with the errno that ends that.
OPEN = guest("""
  (data (i32.const 64) "f")
  (func (export "_start") (local $errno i32)
    (loop $l
      (local.set $errno (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 1)
        (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 16)))
      (br_if $l (i32.eqz (local.get $errno))))
    (call $exit (local.get $errno)))""")

WRITE_FILE = guest("""
  (data (i32.const 64) "out")
  (data (i32.const 80) "written")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 3) (i32.const 1)
        (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 16)))
    (call $print (i32.load (i32.const 16)) (i32.const 80) (i32.const 7)))""")

LOOP = guest("""
  (data (i32.const 64) "begun")
  (func (export "_start")
    (call $print (i32.const 1) (i32.const 64) (i32.const 5))
    (loop $l (br $l)))""")


def test_a_program_that_ends() -> None:
    result = wasmforge.run(HELLO, ["a", "b"])
    assert (result.returncode, result.stdout, result.stderr) == (3, b"hello\n", b"error\n")
    assert result.args == ["main.wat", "a", "b"]
    assert result.files == {}
    with pytest.raises(subprocess.CalledProcessError) as caught:
        result.check_returncode()
    assert caught.value.stderr == b"error\n"
    assert "returncode=3" in repr(result)


def test_sources(tmp_path: Path) -> None:
    """Text, bytes, a path, a compiled module."""
    binary = wasmforge.wat2wasm(HELLO)
    path = tmp_path / "tool.wasm"
    path.write_bytes(binary)
    for source in (HELLO, bytes(binary), path, str(path), wasmforge.Module(wasmforge.Engine(), HELLO)):
        assert wasmforge.run(source).stdout == b"hello\n"  # type: ignore[arg-type]
    assert wasmforge.run(path).args == ["tool.wasm"]
    assert wasmforge.run(path, argv0="x").args == ["x"]


def test_outputs() -> None:
    """As `subprocess.run` has them."""
    together = wasmforge.run(HELLO, stderr=subprocess.STDOUT)
    assert (together.stdout, together.stderr) == (b"hello\nerror\n", None)
    assert wasmforge.run(HELLO, text=True).stdout == "hello\n"
    nothing = wasmforge.run(HELLO, stdout=subprocess.DEVNULL, stderr=None)
    assert (nothing.stdout, nothing.stderr) == (None, None)
    file = io.StringIO()
    pieces: list[bytes] = []
    result = wasmforge.run(HELLO, stdout=file, stderr=pieces.append)
    assert (file.getvalue(), b"".join(pieces), result.stdout) == ("hello\n", b"error\n", None)
    with pytest.raises(subprocess.CalledProcessError):
        wasmforge.run(HELLO, check=True)


def test_input() -> None:
    assert wasmforge.run(ECHO, stdin=b"x" * 10000).stdout == b"x" * 10000
    assert wasmforge.run(ECHO, stdin=io.StringIO("äöü")).stdout == "äöü".encode()
    assert wasmforge.run(ECHO).stdout == b""


def test_directories(tmp_path: Path) -> None:
    """In memory they are the guest's; those of the host can only be read unless said otherwise."""
    given = {"in": "text"}
    result = wasmforge.run(WRITE_FILE, files=given)
    assert result.files == {"in": b"text", "out": b"written"}
    assert given == {"in": "text"}
    directory = MemoryDirectory()
    wasmforge.run(WRITE_FILE, files=directory)
    assert directory["out"] == b"written"
    assert wasmforge.run(OPEN, dirs={"/": tmp_path}).returncode == 63  # EPERM
    assert list(tmp_path.iterdir()) == []
    wasmforge.run(WRITE_FILE, dirs={"/": (tmp_path, "rw")})
    assert (tmp_path / "out").read_bytes() == b"written"
    with pytest.raises(ValueError, match="mode"):
        wasmforge.run(WRITE_FILE, dirs={"/": (tmp_path, "w")})
    with pytest.raises(WasmtimeError, match="failed to add preopen dir"):
        wasmforge.run(WRITE_FILE, dirs={"/": tmp_path / "nothing"})


def test_exit_status_above_125() -> None:
    """`run` has no shell that uses these itself."""
    assert wasmforge.run(guest('(func (export "_start") (call $exit (i32.const 200)))')).returncode == 200


def test_no_command() -> None:
    with pytest.raises(WasmtimeError, match="exports no function `_start`"):
        wasmforge.run("(module)")


def test_a_trap_carries_what_was_written() -> None:
    with pytest.raises(Trap) as caught:
        wasmforge.run(
            guest("""(data (i32.const 64) "last words")
            (func (export "_start") (call $print (i32.const 1) (i32.const 64) (i32.const 10)) (unreachable))"""),
            files={"a": b""},
        )
    assert caught.value.stdout == b"last words"  # type: ignore[attr-defined]
    assert caught.value.files == {"a": b""}  # type: ignore[attr-defined]


# --- Limits


@pytest.mark.parametrize("thread", [False, True])
def test_timeout_of_an_endless_loop(thread: bool) -> None:
    errors: list[TimeoutExpired] = []

    def run() -> None:
        start = time.monotonic()
        with pytest.raises(TimeoutExpired) as caught:
            wasmforge.run(LOOP, ["x"], files={"a": b"1"}, timeout=0.2)
        assert time.monotonic() - start < 20
        errors.append(caught.value)

    if thread:
        worker = threading.Thread(target=run)
        worker.start()
        worker.join()
    else:
        run()
    (error,) = errors
    assert (error.stdout, error.output, error.stderr) == (b"begun", b"begun", b"")
    assert (error.cmd, error.timeout, error.files) == (["main.wat", "x"], 0.2, {"a": b"1"})
    assert isinstance(error, TimeoutError)
    assert isinstance(error, LimitExceeded)
    assert str(error) == "the program 'main.wat' did not end within 0.2 seconds"
    again = pickle.loads(pickle.dumps(error))
    assert (again.stdout, again.timeout) == (b"begun", 0.2)


SLEEP = guest("""
  (func (export "_start")
    (i64.store (i32.const 128) (i64.const 7))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 8))))""")


def test_timeout_of_a_program_that_sleeps() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutExpired):
        wasmforge.run(SLEEP, timeout=0.05)
    assert time.monotonic() - start < 20
    wasmforge.run(SLEEP, clocks=FixedClocks(), timeout=20)  # where time flies


def test_timeout_of_a_program_that_reads() -> None:
    """A pipe that nobody writes to, as the host's standard input; in a process of its own."""
    script = f"""
import wasmforge
config = wasmforge.WasiConfig()
config.inherit_stdin()
store = wasmforge.Store()
store.set_wasi(config)
linker = wasmforge.Linker(store.engine)
linker.define_wasi()
start = linker.instantiate(store, wasmforge.Module(store.engine, {ECHO!r})).exports(store)["_start"]
from wasmforge.runtime.deadline import Deadline
try:
    with Deadline(store._context(), 0.05, TimeoutError):
        start(store)
except TimeoutError:
    print("stopped")
"""
    read, write = os.pipe()
    result = subprocess.run([sys.executable, "-c", script], stdin=read, capture_output=True, timeout=60, text=True)
    os.close(write)
    os.close(read)
    assert result.stdout == "stopped\n", result.stderr


def test_timeout_of_a_program_that_opens_a_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with pytest.raises(TimeoutExpired):
        wasmforge.run(
            guest("""(data (i32.const 64) "f") (func (export "_start")
            (drop (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 0)
              (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16))))"""),
            dirs={"/": tmp_path},
            timeout=0.05,
        )


def test_timeout_of_a_start_function() -> None:
    with pytest.raises(TimeoutExpired):
        wasmforge.run('(module (start $f) (func $f (loop $l (br $l))) (func (export "_start")))', timeout=0.02)


def test_a_timeout_that_is_not_reached() -> None:
    assert wasmforge.run(HELLO, timeout=60).stdout == b"hello\n"


GROW = '(func (export "_start") (loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))))'


def test_memory_limit() -> None:
    with pytest.raises(MemoryLimitExceeded, match="wanted more than 1000000 bytes of memory"):
        wasmforge.run(guest(GROW), max_memory=1_000_000)
    with pytest.raises(MemoryLimitExceeded):
        wasmforge.run(guest(GROW), max_memory=100_000)  # two pages at the start are too many
    with pytest.raises(MemoryLimitExceeded):
        wasmforge.run('(module (table 1000000 funcref) (func (export "_start")))', max_memory=1_000_000)
    table = '(module (table 1 funcref) (func (export "_start") (drop (table.grow (ref.null func) (i32.const 10000)))))'
    with pytest.raises(MemoryLimitExceeded):
        wasmforge.run(table, max_memory=1_000_000)
    assert wasmforge.run(HELLO, max_memory=200_000).stdout == b"hello\n"


FLOOD = guest("""
  (func (export "_start")
    (loop $l
      (call $print (i32.const 1) (i32.const 64) (i32.const 1000))
      (call $print (i32.const 2) (i32.const 64) (i32.const 1000))
      (br $l)))""")


def test_output_limit() -> None:
    with pytest.raises(OutputLimitExceeded, match="more than 4500 bytes") as caught:
        wasmforge.run(FLOOD, max_output=4500)
    assert caught.value.stdout is not None
    assert caught.value.stderr is not None
    assert (len(caught.value.stdout), len(caught.value.stderr)) == (2500, 2000)
    with pytest.raises(OutputLimitExceeded):
        wasmforge.run(FLOOD, max_output=4500, stderr=subprocess.STDOUT)
    with pytest.raises(OutputLimitExceeded):
        wasmforge.run(FLOOD, max_output=0)
    assert wasmforge.run(HELLO, max_output=12).returncode == 1


def test_output_is_limited_unless_said_otherwise() -> None:
    """A program that floods must not fill the host's memory."""
    with pytest.raises(OutputLimitExceeded):
        wasmforge.run(FLOOD, timeout=300)


def test_open_files_limit() -> None:
    with pytest.raises(OpenFilesLimitExceeded, match="more than 5 files"):
        wasmforge.run(OPEN, files={}, max_open_files=5)
    assert wasmforge.run(WRITE_FILE, files={}, max_open_files=1).files == {"out": b"written"}


def test_nothing_stays_open_when_a_program_is_stopped(tmp_path: Path) -> None:
    """While the exception is kept, too, whose traceback refers to everything."""
    before = len(os.listdir("/proc/self/fd"))
    kept = []
    for _ in range(3):
        with pytest.raises(OpenFilesLimitExceeded) as caught:
            wasmforge.run(OPEN, dirs={"/": (tmp_path, "rw")}, max_open_files=20)
        kept.append(caught.value)
    assert len(os.listdir("/proc/self/fd")) <= before + 3  # a thread or two of the compiler


def test_storage_limit() -> None:
    """A full disk is nothing unusual for a program: it gets ENOSPC."""
    assert wasmforge.run(OPEN, files=MemoryDirectory(max_size=100)).returncode == 51


def test_runs_repeat_exactly() -> None:
    body = guest("""
      (func (export "_start")
        (drop (call $random (i32.const 64) (i32.const 16)))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 80)))
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 88)))
        (call $print (i32.const 1) (i32.const 64) (i32.const 32)))""")

    def run() -> Any:
        return wasmforge.run(body, random_seed=1, clocks=FixedClocks(realtime=10**18)).stdout

    assert run() == run() != wasmforge.run(body).stdout
