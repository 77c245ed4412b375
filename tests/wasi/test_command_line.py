"""The official suite of preview 1 by the command line, with Wasmtime's options; and the options for sockets, time and
preview 0.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.wasi.suite import REPOSITORY, Outcome, check, known_failures, prepare_directories, programs
from wasmforge.cli import main

PASSING = [name for name in programs() if name not in known_failures()]

SERVER = """(module
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv" (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\00\\10\\00\\00\\64\\00\\00\\00")
  (func (export "_start") (local $errno i32)
    (local.set $errno (call $accept (i32.const 3) (i32.const 0) (i32.const 16)))
    (local.set $errno (i32.or (local.get $errno)
      (call $recv (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 24))))
    (local.set $errno (i32.or (local.get $errno)
      (call $send (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 20))))
    (call $exit (local.get $errno))))"""


@pytest.fixture(autouse=True, scope="module")
def _cache() -> object:
    """Images of the suite stay between runs: some programs take seconds to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WASMFORGE_CACHE", str(REPOSITORY / ".cache" / "wasi-command-line"))
        yield


def command_line(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> Outcome:
    capfd.readouterr()
    status = main(list(words))
    captured = capfd.readouterr()
    return Outcome(status, captured.out.encode(), captured.err.encode())


@pytest.mark.parametrize("name", PASSING)
def test_program_of_the_suite(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    program = programs()[name]
    words = ["run", "-C", "compiler=baseline"]
    for host, guest in prepare_directories(program, tmp_path):
        words += ["--dir", f"{host}::{guest}"]
    for variable, value in program.env.items():
        words += ["--env", f"{variable}={value}"]
    outcome = command_line([*words, str(program.path), *program.args], capfd)
    # A trap's message goes to standard error too; what the suite wants there is the program's own.
    check(program, outcome)


def test_a_server(tmp_path: Path) -> None:
    program = tmp_path / "server.wat"
    program.write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "wasmforge", "run", "-S", f"tcplisten=127.0.0.1:{port}", str(program)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for _ in range(400):
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=20)
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.05)
        with client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        assert process.wait(20) == 0


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:x", "1.2.3.4:5:6", "127.0.0.1:99999"])
def test_addresses_that_are_none(address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "a.wat"
    program.write_text("(module)")
    outcome = command_line(["run", "-S", f"tcplisten={address}", str(program)], capfd)
    assert outcome.exit_code == 1
    assert f"failed to listen at `{address}`" in outcome.stderr.decode()


@pytest.mark.parametrize("timeout", ["0.05", "50ms", "50000us"])
def test_timeout(timeout: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A trap, as in Wasmtime."""
    program = tmp_path / "loop.wat"
    program.write_text('(module (func (export "_start") (loop $l (br $l))))')
    outcome = command_line(["run", "-W", f"timeout={timeout}", str(program)], capfd)
    assert outcome.exit_code == 134
    assert "wasm trap: interrupt" in outcome.stderr.decode()
    assert command_line(["run", "-W", "timeout=fast", str(program)], capfd).exit_code == 2
    program.write_text('(module (func (export "_start")))')
    assert command_line(["run", "-W", "timeout=1h", str(program)], capfd).exit_code == 0


def test_preview_0(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "old.wat"
    program.write_text(
        '(module (import "wasi_unstable" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'
        '(func (export "_start") (call $exit (i32.const 5))))'
    )
    assert command_line(["run", str(program)], capfd).exit_code == 5
    refused = command_line(["run", "-S", "preview0=n", str(program)], capfd)
    assert refused.exit_code == 1
    assert "unknown import: `wasi_unstable::proc_exit` has not been defined" in refused.stderr.decode()


def test_the_suite_is_here() -> None:
    if os.environ.get("WASMFORGE_TESTSUITES"):
        assert PASSING
