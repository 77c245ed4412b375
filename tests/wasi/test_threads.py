"""wasi-threads: programs that start threads, and how they end (the proposal's README, "Design choices"); what threads
of a hostile guest can do to each other and to the host.

The scenarios are those of the official suite (its folder `threads` holds their exit codes, and programs as sources).
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import build_guests

import wasmforge
from tests.wasi.suite import WHERE_TO_GET_IT, suite_folder
from wasmforge import Config, Engine, ExitTrap, Linker, Module, Store, Trap, TrapCode, WasiConfig, WasmtimeError
from wasmforge.wasi.context import WasiContext
from wasmforge.wasi.descriptors import Descriptor, DescriptorTable
from wasmforge.wasi.errno import WasiError
from wasmforge.wasi.turns import SharedDescriptorTable, share

STRATEGIES = ("baseline", "llvm")

HEAD = """(module
  (import "env" "memory" (memory 1 4 shared))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (export "memory" (memory 0))
  (func $busy (loop $again (br $again)))
  (func $block (drop (memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const -1))))
  (func $sleep
    (i64.store (i32.const 128) (i64.const 0))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 100000000000))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320))))
  (func $read (result i32)
    (i32.store (i32.const 400) (i32.const 1024))
    (i32.store (i32.const 404) (i32.const 10))
    (call $fd_read (i32.const 0) (i32.const 400) (i32.const 1) (i32.const 408)))
  (func $wasi (call $sleep))
  (func $wasi_read (drop (call $read)))
  (func $tell (param $at i32)
    (i32.atomic.store (local.get $at) (i32.const 1))
    (drop (memory.atomic.notify (local.get $at) (i32.const -1))))
  (func $hear (param $at i32)
    (drop (memory.atomic.wait32 (local.get $at) (i32.const 0) (i64.const -1))))
  (func $start (if (i32.le_s (call $spawn (i32.const 7)) (i32.const 0)) (then unreachable)))
"""
READY = "(i32.const 32)"


def program(main: str, thread: str, more: str = "") -> str:
    return f"""{HEAD} {more}
      (func (export "wasi_thread_start") (param $tid i32) (param $arg i32) {thread})
      (func (export "_start") {main}))"""


def run(source: str | bytes, strategy: str = "baseline", wasi: WasiConfig | None = None, **options: Any) -> int:
    """As an embedder does it. The exit status."""
    config = Config()
    config.shared_memory = True
    config.strategy = strategy
    engine = Engine(config)
    store = Store(engine)
    store.set_wasi(wasi or WasiConfig())
    linker = Linker(engine)
    linker.define_wasi()
    module = Module(engine, source)
    try:
        with linker.define_wasi_threads(store, module, **options):
            linker.instantiate(store, module).exports(store)["_start"](store)
    except ExitTrap as error:
        return error.code
    finally:
        assert not [t for t in threading.enumerate() if t.name.startswith("wasi-")], "a thread has survived"
    return 0


@pytest.fixture
def silent_input() -> Iterator[WasiConfig]:
    """Standard input that never gets anything."""
    reading, writing = os.pipe()
    wasi = WasiConfig()
    wasi.stdin_file = f"/proc/self/fd/{reading}"
    yield wasi
    os.close(reading)
    os.close(writing)


def scenario(name: str) -> str:
    """The program of the suite's scenario of that name."""
    if name == "wasi_threads_spawn":
        return program(
            "(call $start) (call $hear (i32.const 32)) (call $exit (i32.const 22))",
            f"(if (i32.ne (local.get $arg) (i32.const 7)) (then unreachable)) (call $tell {READY})",
        )
    *_, end, who, what = name.split("_", 4)
    if end == "exit" and who == "nonmain":
        return program(
            f"(call $start) (call $tell {READY}) (call ${what}) unreachable",
            f"(call $hear {READY}) (call $exit (i32.const 99)) unreachable",
        )
    last = "(call $exit (i32.const 99)) unreachable" if end == "exit" else ""
    return program(f"(call $start) (call $hear {READY}) {last}", f"(call $tell {READY}) (call ${what}) unreachable")


SCENARIOS = {
    "wasi_threads_spawn": 22,
    **{
        f"wasi_threads_exit_{who}_{what}": 99
        for who in ("main", "nonmain")
        for what in ("block", "busy", "wasi", "wasi_read")
    },
    **{f"wasi_threads_return_main_{what}": 0 for what in ("block", "busy", "wasi", "wasi_read")},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_of_the_suite(silent_input: WasiConfig, name: str, strategy: str) -> None:
    """A program ends with all its threads, whatever these do: by exit, or when its main thread returns."""
    assert run(scenario(name), strategy, silent_input) == SCENARIOS[name]


def test_the_scenarios_end_as_the_suite_says() -> None:
    folder = suite_folder()
    if folder is None:
        pytest.skip(WHERE_TO_GET_IT)
    said = {p.stem: json.loads(p.read_text())["exit_code"] for p in (folder / "threads").glob("wasi_threads_*.json")}
    assert said.items() <= SCENARIOS.items()
    assert len(said) == 9


def test_a_program_without_threads() -> None:
    assert run(program("", "")) == 0


@pytest.mark.parametrize("what", ["busy", "block", "wasi", "wasi_read"])
def test_a_trap_in_a_thread_ends_the_program(silent_input: WasiConfig, what: str) -> None:
    source = program(f"(call $start) (call $tell {READY}) (call ${what})", f"(call $hear {READY}) unreachable")
    with pytest.raises(Trap) as caught:
        run(source, wasi=silent_input)
    assert caught.value.trap_code is TrapCode.UNREACHABLE


def test_a_trap_in_the_main_thread_ends_the_program() -> None:
    with pytest.raises(Trap):
        run(program(f"(call $start) (call $hear {READY}) unreachable", f"(call $tell {READY}) (call $busy)"))


def test_threads_have_numbers_of_their_own_and_globals_of_their_own() -> None:
    """A fresh instance (globals), the same memory; numbers from 1 on, unique among threads that live."""
    source = program(
        """(global.set $g (i32.const 5))
        (if (i32.ne (call $spawn (i32.const 0)) (i32.const 1)) (then unreachable))
        (if (i32.ne (call $spawn (i32.const 4)) (i32.const 2)) (then unreachable))
        (call $hear (i32.const 512)) (call $hear (i32.const 516))
        (call $exit (i32.add (i32.load (i32.const 600)) (i32.load (i32.const 604))))""",
        """(i32.store (i32.add (i32.const 600) (local.get $arg)) (i32.add (global.get $g) (local.get $tid)))
        (call $tell (i32.add (i32.const 512) (local.get $arg))) (call $block)""",
        "(global $g (mut i32) (i32.const 1))",
    )
    assert run(source) == 5  # 1 + 1 and 1 + 2


def test_attack_a_guest_that_spawns_for_ever() -> None:
    """Threat: threads are the host's. Beyond the limit the guest gets a negative number; ended threads make room."""
    forever = program(
        """(local $n i32) (loop $again (if (i32.gt_s (call $spawn (i32.const 0)) (i32.const 0))
          (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $again)))) (call $exit (local.get $n))""",
        "(call $block)",
    )
    assert run(forever, max_threads=5) == 5
    assert run(forever, max_threads=0) == 0
    # Threads that spawn threads: the bomb stays as small.
    bomb = program(
        "(drop (call $spawn (i32.const 0))) (call $sleep_a_little)",
        "(loop $again (drop (call $spawn (i32.const 0))) (br $again))",
        "(func $sleep_a_little (drop (memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const 30000000))))",
    )
    before = threading.active_count()
    assert run(bomb, max_threads=3) == 0
    assert threading.active_count() == before


def test_a_deadline_ends_all_threads() -> None:
    source = program("(call $start) (call $busy)", "(call $busy)")
    with pytest.raises(wasmforge.TimeoutExpired):
        wasmforge.run(source, threads=True, timeout=0.1)
    assert wasmforge.run(scenario("wasi_threads_exit_nonmain_block"), threads=4).returncode == 99


def test_nothing_is_left_behind() -> None:
    run(scenario("wasi_threads_exit_nonmain_busy"))
    gc.collect()
    descriptors, stores = len(os.listdir("/proc/self/fd")), len(_stores())
    for _ in range(5):
        run(scenario("wasi_threads_exit_nonmain_busy"))
        run(scenario("wasi_threads_exit_main_block"))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert len(_stores()) <= stores
    from wasmforge.runtime import deadline

    assert not deadline._requests


def _stores() -> Any:
    from wasmforge.runtime import store

    return store._stores


def test_a_program_that_nobody_closed_does_not_keep_the_process() -> None:
    """Threads in endless loops when the interpreter ends."""
    script = f"""
import wasmforge
config = wasmforge.Config(); config.shared_memory = True
engine = wasmforge.Engine(config); store = wasmforge.Store(engine); store.set_wasi(wasmforge.WasiConfig())
linker = wasmforge.Linker(engine); linker.define_wasi()
module = wasmforge.Module(engine, {program("(call $start)", "(call $busy)")!r})
threads = linker.define_wasi_threads(store, module)
linker.instantiate(store, module).exports(store)["_start"](store)
assert len(threads) == 1
print("end")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"end\n", b"")


def test_what_cannot_have_threads() -> None:
    config = Config()
    config.shared_memory = True
    engine = Engine(config)
    linker = Linker(engine)
    with pytest.raises(WasmtimeError, match="imports no shared memory"):
        linker.define_wasi_threads(Store(engine), Module(engine, "(module (memory 1))"))
    module = Module(engine, program("", ""))
    with pytest.raises(WasmtimeError, match="negative"):
        linker.define_wasi_threads(Store(engine), module, -1)
    store = Store(engine)
    linker.define_wasi_threads(store, module).close()
    with pytest.raises(WasmtimeError, match="used"):
        Linker(engine).define_wasi_threads(store, module)
    config = Config()
    config.shared_memory = True
    config.consume_fuel = True
    engine = Engine(config)
    with pytest.raises(WasmtimeError, match="fuel"):
        Linker(engine).define_wasi_threads(Store(engine), Module(engine, program("", "")))
    # A module without the entry point: the call fails, and the program goes on.
    assert (
        run(f'{HEAD} (func (export "_start") (call $exit (i32.eq (call $spawn (i32.const 0)) (i32.const -1)))))') == 1
    )


def test_limits_hold_for_all_threads_together() -> None:
    """Threat: what each thread may have, a guest has as often as it spawns."""
    grow = program(
        f"(call $start) (call $hear {READY}) (call $busy)",
        "(drop (memory.grow (i32.const 1))) (call $tell (i32.const 32))",
    )
    with pytest.raises(wasmforge.MemoryLimitExceeded):
        wasmforge.run(grow, threads=True, max_memory=65536, timeout=20)
    own = program("", "").replace('(export "memory"', '(memory 1) (export "memory"')
    assert wasmforge.run(own, threads=True).returncode == 0
    with pytest.raises(WasmtimeError, match="memories of its own"):
        wasmforge.run(own, threads=True, max_memory=1 << 20)


def test_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "program.wat"
    path.write_text(scenario("wasi_threads_exit_nonmain_wasi_read"))

    def wasmforge_run(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "wasmforge", "run", *options, str(path)]
        reading, writing = os.pipe()
        try:
            done = subprocess.run(command, stdin=reading, capture_output=True, text=True, timeout=60, check=False)
        finally:
            os.close(reading)
            os.close(writing)
        return done.returncode, done.stderr

    assert wasmforge_run("-W", "shared-memory", "-S", "threads") == (99, "")
    assert "shared memory support is disabled" in wasmforge_run("-S", "threads")[1]
    assert "unknown import" in wasmforge_run("-W", "shared-memory")[1]


@pytest.mark.slow
def test_the_program_in_c_of_the_suite(tmp_path: Path) -> None:
    """Three threads that wait for each other, compiled by zig with an entry in assembly, as wasi-libc has it."""
    folder = suite_folder()
    if folder is None:
        pytest.skip(WHERE_TO_GET_IT)
    if (missing := build_guests.compiler_missing()) is not None:
        pytest.skip(missing)
    zig = [sys.executable, "-m", "ziglang", "cc", "--target=wasm32-wasi", "-O2", "-matomics", "-mbulk-memory"]
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(build_guests.ZIG_CACHE / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(build_guests.ZIG_CACHE / "local"),
    }
    # zig's wasi-libc is the one without threads, which lacks this function.
    header = tmp_path / "spawn.h"
    header.write_text(
        'int __wasi_thread_spawn(void *) __attribute__((import_module("wasi"), import_name("thread-spawn")));'
    )
    source, entry = folder / "threads" / "thread_spawn-simple.c", folder / "threads" / "wasi_thread_spawn.S"
    memory = "-Wl,--import-memory,--export-memory,--shared-memory,--max-memory=67108864"
    for arguments in (
        ["-include", str(header), "-c", str(source), "-o", "program.o"],
        ["-c", str(entry), "-o", "entry.o"],
        ["program.o", "entry.o", memory, "-o", "program.wasm"],
    ):
        subprocess.run([*zig, *arguments], cwd=tmp_path, env=environment, check=True, timeout=500)
    for strategy in STRATEGIES:
        assert run((tmp_path / "program.wasm").read_bytes(), strategy) == 0


# --- Descriptors ------------------------------------------------------------------------------------------------


class Recording(Descriptor):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_descriptor_in_use_is_closed_when_the_last_call_is_over() -> None:
    from wasmforge.runtime.thread_group import ThreadGroup
    from wasmforge.wasi.turns import Turn, Turns

    context = WasiContext()
    share(context)
    table = context.descriptors
    assert isinstance(table, SharedDescriptorTable)
    table.limit = 5
    opened = Recording()
    number = table.add(opened)
    turns = Turns(ThreadGroup())
    turn = Turn(turns)
    assert table.get(number) is opened
    with turn.given_up():
        other = threading.Thread(target=lambda: turns.around(lambda _, n: table.close(n) or 0)(None, number))
        other.start()
        other.join()
        assert opened.closed == 0
        with pytest.raises(WasiError):
            DescriptorTable.get(table, number)  # for everybody else it is closed
        table.add(Recording())
        with pytest.raises(WasiError):
            table.add(Recording())  # and still counts
    turn.end()
    assert opened.closed == 1
    table.add(Recording())


def test_attack_a_descriptor_is_closed_while_another_thread_reads() -> None:
    """Threat: the host's descriptor goes while a thread waits for it, the host process opens a file of its own, which
    gets the same number, and the guest reads that file.

    Without `SharedDescriptorTable` the host's number is free as soon as the guest has closed its own, and the thread
    that waits reads from what has the number next.
    """
    reading, writing = os.pipe()
    wasi = WasiConfig()
    wasi.stdin_file = f"/proc/self/fd/{reading}"
    [stdin, *_] = wasi._streams
    assert stdin is not None
    host_number = stdin.descriptor  # type: ignore[attr-defined]
    opened: list[int] = []

    def secret() -> None:
        """The host opens files; then the pipe, which the guest may read, gets something."""
        opened.extend(os.open(__file__, os.O_RDONLY) for _ in range(8))
        os.write(writing, b"pipe")

    source = program(
        """(call $start) (call $hear (i32.const 32))
        (drop (memory.atomic.wait32 (i32.const 64) (i32.const 0) (i64.const 20000000)))
        (if (call $fd_close (i32.const 0)) (then unreachable))
        (if (i32.ne (call $fd_close (i32.const 0)) (i32.const 8)) (then unreachable))
        (call $secret)
        (call $hear (i32.const 36))
        (call $exit (i32.eq (i32.load (i32.const 1024)) (i32.const 0x65706970)))""",
        f"(call $tell {READY}) (drop (call $read)) (call $tell (i32.const 36))",
        "",
    ).replace("(import", '(import "host" "secret" (func $secret)) (import', 1)
    config = Config()
    config.shared_memory = True
    engine = Engine(config)
    store = Store(engine)
    store.set_wasi(wasi)
    linker = Linker(engine)
    linker.define_wasi()
    linker.define_func("host", "secret", wasmforge.FuncType([], []), secret)
    module = Module(engine, source)
    try:
        with linker.define_wasi_threads(store, module), pytest.raises(ExitTrap) as caught:
            linker.instantiate(store, module).exports(store)["_start"](store)
        assert host_number not in opened
        assert caught.value.code == 1, "the guest has read something else than its pipe"
        with pytest.raises(OSError):
            os.fstat(host_number)  # closed with the call
    finally:
        for descriptor in (reading, writing, *opened):
            os.close(descriptor)


def test_attack_threads_that_open_and_close_the_same_numbers(tmp_path: Path) -> None:
    """Threat: two threads that close the same descriptor free its number twice, so that two files get it. Nor is there
    an entry for compiled stubs, which would not ask whether a descriptor is in use."""
    context = WasiContext()
    share(context)
    table = context.descriptors
    from wasmforge.runtime.thread_group import ThreadGroup
    from wasmforge.wasi.turns import Turns

    turns = Turns(ThreadGroup())
    made: list[Recording] = []

    def open_one(_: Any) -> int:
        made.append(Recording())
        return table.add(made[-1])

    def close_one(_: Any, number: int) -> int:
        try:
            table.close(number)
        except WasiError:
            return 8
        return 0

    opening, closing = turns.around(open_one), turns.around(close_one)

    def work() -> None:
        for i in range(300):
            opening(None)
            closing(None, 3 + i % 4)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    left = list(table._entries.values())
    assert sum(r.closed for r in made) == len(made) - (len(left) - 3)
    assert all(r.closed <= 1 for r in made)
    assert sorted({*table._entries, *table._free}) == list(range(table._next))
    assert len(table._free) == len(set(table._free))
    assert not any(context.native._words[4:])
