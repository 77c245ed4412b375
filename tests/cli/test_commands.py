"""The command line as a user meets it: what it runs, what it prints where, and with which status it ends (reference,
tables E1, E2 and E10). Most tests call `main` in this process; the guest's output is caught at the descriptor.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wasmforge import cli
from wasmforge.cli import modules

from .conftest import Result

SOURCE = Path(__file__).parents[2] / "src"

HELLO = r"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00") (data (i32.const 16) "hello\n")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const 7))))"""

# Prints the strings that `args` or `environ` gives, NULs and all.
STRINGS = r"""(module
  (import "wasi_snapshot_preview1" "%(what)s_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "%(what)s_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 12)))
    (drop (call $get (i32.const 1024) (i32.const 4096)))
    (i32.store (i32.const 8) (i32.const 4096))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))"""

# Opens "file" in the first directory and prints it; otherwise exits with the errno.
PRINT_FILE = r"""(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\00\10\00\00\64\00\00\00") (data (i32.const 16) "file")
  (func (export "_start") (local $e i32)
    (drop (call $name (i32.const 3) (i32.const 4096) (i32.const 100)))
    (i32.store (i32.const 4) (i32.const 4))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
    (i32.store (i32.const 4) (i32.const 100))
    (local.set $e (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 32)))
    (if (local.get $e) (then (call $exit (local.get $e))))
    (drop (call $read (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i32.const 4)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))))"""

FUNCTIONS = """(module
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "swap") (param i64 f64) (result f64 i64) (local.get 1) (local.get 0))
  (func (export "nothing"))
  (func (export "ref") (param funcref))
  (func $inner unreachable)
  (func (export "trap") (call $inner))
  (global (export "global") i32 (i32.const 1)))"""


# --- run


def test_a_program_runs_with_and_without_the_name_of_the_subcommand(run: Callable[..., Result]) -> None:
    assert run("run", HELLO) == Result(7, "hello\n", "")
    assert run(HELLO) == Result(7, "hello\n", "")


def test_arguments(run: Callable[..., Result]) -> None:
    program = STRINGS % {"what": "args"}
    assert run(program, "--dir", "b c", "--", "-x").out == "file0.wat\0--dir\0b c\0--\0-x\0"
    assert run("--argv0", "name", program).out == "name\0"


def test_environment(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    program = STRINGS % {"what": "environ"}
    monkeypatch.setenv("INHERITED", "from outside")
    assert run(program).out == ""
    assert (
        run("--env", "A=1", "--env=B=x=y", "--env", "INHERITED", program).out == "A=1\0B=x=y\0INHERITED=from outside\0"
    )
    assert "INHERITED=from outside\0" in run("-S", "inherit-env", program).out
    missing = run("--env", "SURELY_NOT_SET", program)
    assert missing.status == 1
    assert "environment variable `SURELY_NOT_SET` not found" in missing.err


def test_directories(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("contents")
    assert run("--dir", "data", PRINT_FILE) == Result(0, "datacontents", "")
    assert run("--dir", "data::/abc", PRINT_FILE) == Result(0, "/abccontents", "")
    assert run("--dir", ".", PRINT_FILE).status == 44
    assert run(PRINT_FILE).status == 8
    missing = run("--dir", "nope", PRINT_FILE)
    assert missing.status == 1
    assert missing.err.startswith("Error: failed to open directory `nope`\n\nCaused by:\n    No such file or directory")


def test_standard_input(tmp_path: Path) -> None:
    """The module itself may come from it."""
    result = subprocess.run(
        [sys.executable, "-m", "wasmforge", "-"], input=HELLO.encode(), capture_output=True, env=_environment()
    )
    assert (result.returncode, result.stdout, result.stderr) == (7, b"hello\n", b"")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


ARGUMENTS_WARNING = (
    "warning: using `--invoke` with a function that takes arguments is experimental and may break in the future\n"
)
RESULTS_WARNING = (
    "warning: using `--invoke` with a function that returns values is experimental and may break in the future\n"
)


def test_invoke(run: Callable[..., Result]) -> None:
    assert run("run", "--invoke", "add", FUNCTIONS, "2", "-0x3").status == 1
    assert run("run", "--invoke", "add", FUNCTIONS, "2", "-3") == Result(0, "-1\n", ARGUMENTS_WARNING + RESULTS_WARNING)
    assert run("--invoke=swap", FUNCTIONS, "0x10", "1.5").out == "1.5\n16\n"
    assert run("--invoke", "nothing", FUNCTIONS) == Result(0, "", "")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--invoke", "nope", FUNCTIONS), "no func export named `nope` found"),
        (("--invoke", "global", FUNCTIONS), "no func export named `global` found"),
        (("--invoke", "add", FUNCTIONS, "1"), "not enough arguments for `add`"),
        (("--invoke", "add", FUNCTIONS, "1", "x"), "invalid digit found in string"),
        (("--invoke", "add", FUNCTIONS, "1", "4294967296"), "number too large to fit in target type"),
        (("--invoke", "ref", FUNCTIONS, "1"), "unsupported argument type"),
    ],
)
def test_invoke_errors(run: Callable[..., Result], words: tuple[str, ...], cause: str) -> None:
    result = run("run", *words)
    assert result.status == 1
    assert "Error: failed to run main module `file" in result.err
    assert cause in result.err


def test_a_trap(run: Callable[..., Result]) -> None:
    """Status 134, and the chain of causes with the backtrace."""
    result = run("run", "--invoke", "trap", FUNCTIONS)
    assert result.status == 134
    lines = result.err.splitlines()
    assert lines[0] == "Error: failed to run main module `file3.wat`"
    assert lines[1:4] == ["", "Caused by:", "    0: failed to invoke `trap`"]
    assert lines[4] == "    1: error while executing at wasm backtrace:"
    assert lines[5].startswith("           0:")
    assert lines[5].endswith("- <unknown>!inner")
    assert lines[-1] == "    2: wasm trap: wasm `unreachable` instruction executed"


def test_a_start_function_that_traps(run: Callable[..., Result]) -> None:
    assert run("(module (func $f unreachable) (start $f))").status == 134


def test_a_reactor_is_initialised(run: Callable[..., Result]) -> None:
    reactor = """(module (global $g (mut i32) (i32.const 1))
      (func (export "_initialize") (global.set $g (i32.const 42)))
      (func (export "get") (result i32) (global.get $g)))"""
    assert run("--invoke", "get", reactor).out == "42\n"


def test_a_module_without_a_main_function_does_nothing(run: Callable[..., Result]) -> None:
    assert run("(module)") == Result(0, "", "")


def test_exit_statuses_of_the_guest(run: Callable[..., Result]) -> None:
    assert run(HELLO.replace("i32.const 7", "i32.const 0")).status == 0
    assert run(HELLO.replace("i32.const 7", "i32.const 125")).status == 125
    invalid = run(HELLO.replace("i32.const 7", "i32.const 126"))
    assert invalid.status == 1
    assert "exit with invalid exit status outside of [0..126)" in invalid.err


def test_a_wrong_pointer_shows_where(run: Callable[..., Result]) -> None:
    result = run(HELLO.replace("(i32.const 1) (i32.const 0)", "(i32.const 1) (i32.const -4)"))
    assert result.status == 1
    assert "wasm backtrace:" in result.err
    assert "Pointer out of bounds" in result.err


def test_modules_that_are_none(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("run", "nothing.wasm")
    assert result.status == 1
    assert result.err.startswith("Error: failed to load `nothing.wasm`\n\nCaused by:\n    No such file or directory")
    result = run("(module (func (result i32)))")
    assert result.status == 1
    assert "type mismatch" in result.err
    (tmp_path / "cut.wasm").write_bytes(b"\0asm\1\0")
    assert run("cut.wasm").status == 1
    assert run(".").status == 1
    unknown = run('(module (import "env" "f" (func)))')
    assert unknown.status == 1
    assert "unknown import: `env::f` has not been defined" in unknown.err


def test_unknown_imports(run: Callable[..., Result]) -> None:
    module = """(module (import "env" "f" (func $f (param i32) (result i64 f32)))
      (func (export "_start")) (func (export "call") (result i64 f32) (call $f (i32.const 1))))"""
    assert run("-W", "unknown-imports-trap", module).status == 0
    trapped = run("-W", "unknown-imports-trap", "--invoke", "call", module)
    assert trapped.status == 134
    assert "unknown import: `env::f` has not been defined" in trapped.err
    assert run("-W", "unknown-imports-default", "--invoke", "call", module).out == "0\n0\n"
    assert run("-W", "unknown-imports-default=n", module).status == 1


def test_wasi_can_be_withheld(run: Callable[..., Result]) -> None:
    for switch in ("cli=n", "common=n"):
        result = run("-S", switch, HELLO)
        assert result.status == 1
        assert "unknown import: `wasi_snapshot_preview1::fd_write` has not been defined" in result.err
    assert run("-S", "common=n,cli", HELLO).status == 7


def test_threads(run: Callable[..., Result]) -> None:
    """`-S threads`: a program that starts one and waits for what it stores."""
    program = """(module
      (import "env" "memory" (memory 1 1 shared))
      (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
      (func (export "wasi_thread_start") (param i32 i32)
        (i32.atomic.store (i32.const 0) (local.get 1))
        (drop (memory.atomic.notify (i32.const 0) (i32.const 1))))
      (func (export "_start")
        (if (i32.lt_s (call $spawn (i32.const 42)) (i32.const 0)) (then unreachable))
        (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))
        (if (i32.ne (i32.atomic.load (i32.const 0)) (i32.const 42)) (then unreachable))))"""
    assert run("-S", "threads", "-W", "shared-memory", program) == Result(0, "", "")
    assert run("-W", "shared-memory", program).status == 1


def test_preload(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "library.wat").write_text('(module (func (export "f") (result i32) (i32.const 5)))')
    main = """(module (import "library" "f" (func $f (result i32)))
      (func (export "get") (result i32) (i32.add (call $f) (i32.const 1))))"""
    assert run("--preload", "library=library.wat", "--invoke", "get", main).out == "6\n"
    assert run("--preload", "other=library.wat", main).status == 1
    missing = run("--preload", "library=nothing.wat", main)
    assert missing.status == 1
    assert "failed to process preload `library`" in missing.err
    assert run("--preload", "library", main).status == 2


def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    """In wasm code and in a host call: status 130, and nothing on the screen."""
    exit_call = "(call $exit (i32.const 7))"
    fd_read = "(func $read (param i32 i32 i32 i32) (result i32))"
    loop = tmp_path / "loop.wat"
    loop.write_text(HELLO.replace(exit_call, "(loop $l (br $l))"))
    read = tmp_path / "read.wat"
    reading = HELLO.replace(exit_call, "(drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))")
    read.write_text(reading.replace("(memory", f'(import "wasi_snapshot_preview1" "fd_read" {fd_read}) (memory', 1))
    for path in (loop, read):
        process = subprocess.Popen(
            [sys.executable, "-m", "wasmforge", str(path)],
            env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`wasmforge ... | head` ends without a word about it."""
    path = tmp_path / "functions.wat"
    path.write_text(FUNCTIONS)
    read_end, write_end = os.pipe()
    os.close(read_end)
    for words in (["run", "--invoke", "add", str(path), "1", "2"], ["objdump", str(path)], ["settings"]):
        command = [sys.executable, "-m", "wasmforge", *words]
        result = subprocess.run(command, env=_environment(), stdout=write_end, stderr=subprocess.PIPE)
        assert b"Traceback" not in result.stderr
        assert b"Broken" not in result.stderr
        assert result.returncode != 0
    os.close(write_end)


# --- compile, and running its output


def test_compile_and_run_the_image(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(HELLO)
    assert run("compile", "app.wat") == Result(0, "", "")
    assert (tmp_path / "app.cwasm").read_bytes().startswith(b"\x7fELF")
    assert run("run", "--allow-precompiled", "app.cwasm") == Result(7, "hello\n", "")
    refused = run("run", "app.cwasm")
    assert refused.status == 1
    assert refused.err == "Error: running a precompiled module requires the `--allow-precompiled` flag\n"
    assert run("compile", "-o", "other.cwasm", "-O", "opt-level=2", "app.wat").status == 0
    assert sorted(os.listdir(tmp_path)) == ["app.cwasm", "app.wat", "other.cwasm"]


def test_a_damaged_image_is_an_error(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text(HELLO)
    assert run("compile", "app.wat").status == 0
    image = bytearray((tmp_path / "app.cwasm").read_bytes())
    image[len(image) // 2] ^= 0x40
    (tmp_path / "app.cwasm").write_bytes(image)
    result = run("run", "--allow-precompiled", "app.cwasm")
    assert result.status == 1
    assert "failed to load `app.cwasm`" in result.err


def test_compile_errors(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("compile").status == 2
    assert run("compile", "a", "b").status == 2
    assert run("compile", "-").status == 2
    assert run("compile", "--target", "riscv64gc-unknown-linux-gnu", "(module)").status == 2
    assert run("compile", "--emit-clif", "x", "(module)").status == 2
    assert run("compile", "(module (func unknown))").status == 1
    unwritable = run("compile", "-o", "no/such/place", "(module)")
    assert unwritable.status == 1
    assert "failed to write `no/such/place`" in unwritable.err


def test_an_image_needs_no_compiler(tmp_path: Path) -> None:
    """Running an image imports neither LLVM nor a parser nor argparse: that is what makes it start at once."""
    path = tmp_path / "app.wat"
    path.write_text(HELLO)
    assert cli.main(["compile", str(path), "-o", str(tmp_path / "app.cwasm")]) == 0
    program = (
        "import sys\nfrom wasmforge.cli import main\n"
        f"status = main(['--allow-precompiled', {str(tmp_path / 'app.cwasm')!r}])\n"
        "unwanted = {'llvmlite', 'argparse', 'wasmforge.text', 'wasmforge.binary', 'wasmforge.validation',"
        " 'wasmforge.wasi.config'}\n"
        "print(status, sorted(unwanted & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], env=_environment(), capture_output=True, text=True)
    assert result.stdout == "hello\n7 []\n", result.stderr


def test_only_the_end_of_the_process_leaves_cycles_where_they_are() -> None:
    program = (
        "import gc, sys\nfrom wasmforge.cli import main\nsys.argv[1:] = ['--version']\n"
        "print(main(['--version']), gc.get_freeze_count(), main(), gc.get_freeze_count() > 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], env=_environment(), capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "0 0 0 True", result.stderr


# --- Progress


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in the first second, then one line that is wiped at the end; never anything on a pipe."""
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        clock = _Clock()
        with modules.Progress("app.wasm") as progress:
            progress._clock, progress._start = clock, 0.0
            progress.report(1, 10)
            assert capsys.readouterr().err == ""
            clock.now = 1.5
            progress.report(5, 10)
            shown = capsys.readouterr().err
            assert ("compiling app.wasm" in shown and "50%" in shown) == terminal
            assert bool(shown) == terminal
        assert capsys.readouterr().err == ("\r\x1b[K" if terminal else "")


def test_progress_without_reports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading a large module, or compiling one large function, shows that it goes on."""
    monkeypatch.setattr(modules, "PROGRESS_AFTER", 0.0)
    monkeypatch.setattr(modules, "TICK", 0.001)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        shown = ""
        with modules.Progress("app.wasm"):
            deadline = time.monotonic() + (20 if terminal else 0.02)
            while "s\r" not in shown and time.monotonic() < deadline:
                shown += capsys.readouterr().err
        assert bool(re.search(r"loading app\.wasm \d+ s", shown)) == terminal
        assert bool(shown) == terminal
        assert capsys.readouterr().err.endswith("\r\x1b[K") == terminal
        assert capsys.readouterr().err == ""  # the thread has ended


# --- wast, validate, help


def test_wast(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "good.wast").write_text('(module (func (export "f") (result i32) (i32.const 1)))\n'
                                        '(assert_return (invoke "f") (i32.const 1))')  # fmt: skip
    (tmp_path / "bad.wast").write_text('(module (func (export "f") (result i32) (i32.const 1)))\n'
                                       '(assert_return (invoke "f") (i32.const 2))')  # fmt: skip
    good = run("wast", "good.wast")
    assert good.status == 0
    assert good.out.count("\n") == 1
    assert good.out.startswith("good.wast: ")
    both = run("wast", "good.wast", "bad.wast")
    assert both.status == 1
    assert both.out.count("\n") == 2
    assert "bad.wast:2: " in run("wast", "--verbose", "good.wast", "bad.wast").out
    assert run("wast").status == 2
    assert run("wast", "nothing.wast").status == 1


def test_validate(run: Callable[..., Result]) -> None:
    assert run("validate", HELLO, FUNCTIONS) == Result(0, "", "")
    result = run("validate", HELLO, "(module (func (result i32)))", "nothing.wasm")
    assert result.status == 1
    assert "file2.wat: " in result.err
    assert "nothing.wasm: No such file or directory" in result.err
    assert "file1.wat" not in result.err


def test_help_and_version(run: Callable[..., Result]) -> None:
    import wasmforge

    assert run("--version") == Result(0, f"wasmforge {wasmforge.__version__}\n", "")
    assert run("-V").status == run("run", "-V").status == run("compile", "--version").status == 0
    for words in (("--help",), ("-h",), ("help",)):
        result = run(*words)
        assert result.status == 0
        for command in cli.SUBCOMMANDS:
            assert f"  {command} " in result.out
    for command in cli.SUBCOMMANDS:
        assert f"Usage: wasmforge {command}" in run(command, "--help").out
        assert f"Usage: wasmforge {command}" in run("help", command).out
    assert "--invoke <FUNCTION>" in run("run", "--help").out
    assert run().status == 2
    assert "opt-level" in run("run", "-O", "help").out


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--unknown", "x"),
        ("--unknown",),
        ("run", "--profile", "guest,out.json,5ms", "x"),
        ("run", "--profile", "gprof", "x"),
        ("run", "--config", "no such file", "x"),
        ("compile", "-W", "timeout=1", "x"),
        ("wast", "-W", "fuel=1", "x"),
        ("run", "-W", "timeout=soon", "x"),
        ("run", "-W", "exceptions", "x"),
        ("run", "-D", "coredump", "x"),
        ("compile", "-D", "coredump=x", "x"),
        *((name,) for name in cli.NOT_HERE),
    ],
)
def test_what_does_not_work_says_so(run: Callable[..., Result], words: tuple[str, ...]) -> None:
    """Status 2 and a message, never silence."""
    result = run(*words)
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("error: ")


class TestProfile:
    TEXT = '(module (func $never) (func $"a\\0ab" (export "_start") (call $c)) (func $c))'

    def names(self, path: Path) -> dict[str, bytes]:
        """What a jitdump says, by name."""
        data = path.read_bytes()
        magic, version, header, machine, _, pid, start, _ = struct.unpack_from("<6I2Q", data)
        assert (magic, version, machine, pid) == (0x4A695444, 1, 62, os.getpid())
        assert 0 < start < time.monotonic_ns()
        found = {}
        while header < len(data):
            kind, size, then = struct.unpack_from("<2IQ", data, header)
            _, _, vma, address, length, index = struct.unpack_from("<2I4Q", data, header + 16)
            assert (kind, then, vma, index) == (0, start, address, len(found))
            name, code = data[header + 56 : header + size - length], data[header + size - length : header + size]
            assert name[-1:] == b"\0"
            found[f"{index} {name[:-1].decode()}"] = code
            header += size
        return found

    @pytest.mark.parametrize("compiler", ["baseline", "llvm"])
    def test_jitdump(self, run: Callable[..., Result], tmp_path: Path, compiler: str) -> None:
        assert run("run", "-C", f"cache=n,compiler={compiler}", "--profile", "jitdump", self.TEXT).status == 0
        found = self.names(tmp_path / f"jit-{os.getpid()}.dump")
        tier = " [baseline]" if compiler == "baseline" else ""
        functions = {name.partition(" ")[2]: code for name, code in found.items() if "function" in name}
        # Compiled at their first calls, a function that nobody calls is not there.
        wanted = {f"wasm[0]::function[1]::a?b{tier}", f"wasm[0]::function[2]::c{tier}"}
        assert set(functions) - wanted == (set() if compiler == "baseline" else {"wasm[0]::function[0]::never"})
        assert wanted <= set(functions)
        assert all(code.startswith(b"\x55") or compiler == "llvm" for code in functions.values())  # push rbp

    def test_perfmap(self, run: Callable[..., Result], tmp_path: Path) -> None:
        """Threat: somebody else has made a link of the name in /tmp, to a file that we may write."""
        path = Path(f"/tmp/perf-{os.getpid()}.map")
        (tmp_path / "victim").write_text("untouched")
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "victim")
        try:
            assert run("run", "-C", "cache=n,compiler=llvm", "--profile=perfmap", self.TEXT).status == 0
            lines = path.read_text().splitlines()
        finally:
            path.unlink()
        assert (tmp_path / "victim").read_text() == "untouched"
        assert [line.split(" ", 2)[2] for line in lines] == [
            "wasm[0]::function[0]::never", "wasm[0]::function[1]::a?b", "wasm[0]::function[2]::c"
        ]  # fmt: skip
        assert all(int(line.split()[0], 16) > 0 and int(line.split()[1], 16) > 0 for line in lines)

    def test_a_program_that_traps_is_there_too(self, run: Callable[..., Result], tmp_path: Path) -> None:
        text = '(module (func (export "_start") unreachable))'
        assert run("run", "-C", "cache=n,compiler=baseline", "--profile", "jitdump", text).status == 134
        assert any("function[0]" in name for name in self.names(tmp_path / f"jit-{os.getpid()}.dump"))


class TestCoreDump:
    LIBRARY = """(module $library (memory (export "m") 1 3) (data (i32.const 5000) "found")
        (global (export "g") (mut i32) (i32.const -7)) (table 1 externref)
        (func $inner (export "inner") (param i32) (i64.store offset=65530 (local.get 0) (i64.const 1))))"""
    PROGRAM = """(module $program (import "library" "inner" (func $inner (param i32))) (import "library" "m" (memory 1))
        (import "library" "g" (global $g (mut i32))) (memory $big i64 1 1) (data (memory $big) (i64.const 65535) "z")
        (global (mut f64) (f64.const 0.5)) (global funcref (ref.func $inner)) (global v128 (v128.const i64x2 1 2))
        (func (export "_start") (global.set $g (i32.const 3)) (drop (memory.grow (i32.const 1)))
            (call $inner (i32.const 70000))))"""

    def dump(self, run: Callable[..., Result], tmp_path: Path, compiler: str) -> tuple[bytes, Result]:
        (tmp_path / "library.wat").write_text(self.LIBRARY)
        settings = ("-C", f"cache=n,compiler={compiler}", "-D", "coredump=core.%p", "--preload", "library=library.wat")
        result = run("run", *settings, self.PROGRAM)
        assert result.status == 134
        assert f": core dumped at core.{os.getpid()}\n" in result.err
        return (tmp_path / f"core.{os.getpid()}").read_bytes(), result

    @pytest.mark.parametrize("compiler", ["baseline", "llvm"])
    def test_memories_globals_instances_and_frames(
        self, run: Callable[..., Result], tmp_path: Path, compiler: str
    ) -> None:
        from wasmforge.binary import decode

        data, _ = self.dump(run, tmp_path, compiler)
        module = decode(data)
        # The library's memory as it is, the program's own.
        assert [(m.limits.minimum, m.limits.maximum, m.is_64) for m in module.memories] == [(2, 3, False), (1, 1, True)]
        contents = [(s.memory, s.data.strip(b"\0")) for s in module.data]
        assert contents == [(0, b"found"), (1, b"z")]
        assert [g.init.code.hex() for g in module.globals] == [
            "41030b", "44000000000000e03f0b", "d0700b", "fd0c" + "01".ljust(16, "0") + "02".ljust(16, "0") + "0b"
        ]  # fmt: skip
        sections = {section.name: section.data for section in module.custom}
        assert sections["core"].startswith(b"\0") and sections["core"].endswith(b".wat")
        assert sections["coremodules"] == b"\2\0\7library\0\7program"
        # Module, memories, globals.
        assert sections["coreinstances"] == b"\2" + b"\0\0\1\0\1\0" + b"\0\1\2\0\1\4\0\1\2\3"
        head, frames = sections["corestack"][:6], sections["corestack"][6:]
        assert head == b"\0\4main" and frames[0] == 2
        inner, start = frames[1:7], frames[7:]
        assert (inner[1], inner[2], inner[4:]) == (0, 0, b"\0\0")  # instance, function; no locals, no operands
        assert (start[1], start[2], start[4:]) == (1, 1, b"\0\0")
        assert 0 < inner[3] < start[3] < 64  # offsets in their functions

    def test_it_is_a_module(self, run: Callable[..., Result], tmp_path: Path) -> None:
        wasmtime = pytest.importorskip("wasmtime")
        wasmtime.Module.validate(wasmtime.Engine(), self.dump(run, tmp_path, "baseline")[0])

    def test_what_cannot_be_written_is_a_warning(self, run: Callable[..., Result]) -> None:
        text = '(module (func (export "_start") unreachable))'
        result = run("run", "-D", "coredump=no/such/directory", text)
        assert result.status == 134
        assert result.err.startswith("warning: coredump failed to generate: ")

    def test_no_trap_no_dump(self, run: Callable[..., Result], tmp_path: Path) -> None:
        assert run("run", "-D", "coredump=core", '(module (func (export "_start")))').status == 0
        assert not (tmp_path / "core").exists()


class TestTiers:
    def test_a_table_on_standard_error_tells_what_ran_where(self, run: Callable[..., Result], tmp_path: Path) -> None:
        path = tmp_path / "hello.wat"
        path.write_text(HELLO.replace('(func (export "_start")', '(func $never) (func $\\1b (export "_start")'))
        result = run("run", "--tiers", str(path))
        assert (result.status, result.out) == (7, "hello\n")
        lines = result.err.splitlines()
        assert lines[0] == f"{path}:"
        assert lines[1].split() == ["function", "tiers", "wasm", "code", "counted", "compiled", "in"]
        assert "baseline" in lines[2] and lines[2].endswith(" ms")
        assert lines[3].startswith("  baseline: 1 of 2 functions, ")
        assert lines[4].startswith("  llvm: 0 of 2 functions, 0 bytes of wasm, 0 bytes of code")

    def test_an_image_has_one_line(self, run: Callable[..., Result], tmp_path: Path) -> None:
        source, image = tmp_path / "hello.wat", tmp_path / "hello.cwasm"
        source.write_text(HELLO)
        assert run("compile", str(source), "-o", str(image)).status == 0
        result = run("run", "--tiers", "--allow-precompiled", str(image))
        assert result.status == 7
        assert result.err.splitlines()[1].startswith("  1 functions, compiled ahead of time: ")
