"""A signal at every single instruction of the gates' critical stretches, by ptrace: random signals practically never
meet these windows, but one that is lost there leaves an endless loop that Ctrl-C cannot stop.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

from wasmforge.compiler.environ import StoreContext
from wasmforge.runtime.native.signals import STOP_SIGNAL

PRELUDE = """
import os, signal, sys, threading
import wasmforge.runtime.native as native
from tests.runtime.native.fake import Store, ft, set_hooks
from tests.runtime.native.guest import HOST, code
from wasmforge.syntax.errors import WasmtimeError
g = native.gates()
def stop(store):
    raise KeyboardInterrupt
set_hooks(on_stop=stop)
g.hook_stop()
s = Store(code())
s.set_import(0, lambda x: 1, HOST)
I_I = ft("i", "i")
add = s.function("add", ft("ii", "i"))
add(1, 2)
def say(*words):
    print(*words, flush=True)
say(*(g._image.address(n) for n in ("enter", "entry_window", "enter_ret", "gate_return_window", "gate_return_end",
                                    "keeping_return_window", "keeping_return_end", "inject_window", "inject_end",
                                    "builtin_memory_move", "short_return_window", "short_return_end",
                                    "enter_async", "enter_resume", "gate_suspend")),
    s.context)
class Awaitable:
    def __await__(self):
        yield
"""

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
PEEKTEXT, POKETEXT, CONT, SINGLESTEP, GETREGS, SETREGS, ATTACH, DETACH = 1, 4, 7, 9, 12, 13, 16, 17
RIP = 16
SYS_TGKILL = 234


def ptrace(request: int, pid: int, address: int = 0, data: Any = 0) -> int:
    ctypes.set_errno(0)
    result = int(libc.ptrace(request, pid, address, data))
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace {request}")
    return result


class Traced:
    """A child process stopped at chosen instructions of its main thread."""

    def __init__(self, environment: dict[str, str], script: str) -> None:
        self.wake_read, self.wake_write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + f"WAKE = {self.wake_read}\n" + script],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.wake_read],
        )
        assert self.process.stdin and self.process.stdout
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        names = (
            "enter",
            "entry_window",
            "enter_ret",
            "gate_return_window",
            "gate_return_end",
            "keeping_return_window",
            "keeping_return_end",
            "inject_window",
            "inject_end",
            "builtin_memory_move",
            "short_return_window",
            "short_return_end",
            "enter_async",
            "enter_resume",
            "gate_suspend",
            "context",
        )
        self.symbols = dict(zip(names, map(int, self.stdout.readline().split()), strict=True))
        self.pid = self.process.pid

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.wake_read)
        os.close(self.wake_write)

    def line(self) -> str:
        """The child's next line; a lost signal shows as a timeout."""
        ready, _, _ = select.select([self.stdout], [], [], 5)
        assert ready, "the signal was lost: wasm runs for ever"
        return self.stdout.readline().decode().strip()

    def cpu_time(self) -> int:
        """Clock ticks (10 ms) that the child has run in user mode."""
        with open(f"/proc/{self.pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[11])

    def go(self) -> None:
        self.stdin.write(b"go\n")
        self.stdin.flush()

    def _stopped(self, wanted: int) -> None:
        while True:
            _, status = os.waitpid(self.pid, 0)
            assert os.WIFSTOPPED(status), status
            if os.WSTOPSIG(status) == wanted:
                return
            ptrace(CONT, self.pid, 0, os.WSTOPSIG(status))

    def registers(self) -> ctypes.Array[ctypes.c_ulong]:
        registers = (ctypes.c_ulong * 27)()
        ptrace(GETREGS, self.pid, 0, ctypes.addressof(registers))
        return registers

    def run_to(self, address: int, start: Callable[[], None]) -> None:
        """Attaches, lets the child run from `start()` to `address`, and leaves it stopped before that instruction."""
        ptrace(ATTACH, self.pid)
        self._stopped(signal.SIGSTOP)
        original = ptrace(PEEKTEXT, self.pid, address)
        ptrace(POKETEXT, self.pid, address, (original & ~0xFF) | 0xCC)
        ptrace(CONT, self.pid)
        start()
        self._stopped(signal.SIGTRAP)
        registers = self.registers()
        assert registers[RIP] == address + 1
        registers[RIP] = address
        ptrace(SETREGS, self.pid, 0, ctypes.addressof(registers))
        ptrace(POKETEXT, self.pid, address, original)

    def step(self) -> int:
        ptrace(SINGLESTEP, self.pid)
        self._stopped(signal.SIGTRAP)
        return int(self.registers()[RIP])

    def stop_and_release(self) -> None:
        """Tells the store to stop, as `runtime/deadline.py` does, and lets the child go on: the signal arrives before
        the next instruction."""
        at = self.symbols["context"] + StoreContext.STOP
        ptrace(POKETEXT, self.pid, at, (ptrace(PEEKTEXT, self.pid, at) & ~0xFFFF_FFFF) | 1)
        assert libc.syscall(SYS_TGKILL, self.pid, self.pid, int(STOP_SIGNAL)) == 0
        ptrace(DETACH, self.pid)

    def release(self, number: int = 0) -> None:
        """Lets the child go on, with a signal."""
        ptrace(DETACH, self.pid, 0, number)


@pytest.fixture
def traced(child_environment: dict[str, str]) -> Iterator[Callable[[str], Traced]]:
    started: list[Traced] = []

    def start(script: str) -> Traced:
        child = Traced(child_environment, script)
        started.append(child)
        try:
            ptrace(ATTACH, child.pid)
        except OSError as error:
            pytest.skip(f"no ptrace here: {error}")
        child._stopped(signal.SIGSTOP)
        child.release()
        return child

    yield start
    for child in started:
        child.close()


KINDS = ("interrupt", "stop")


def step_through(
    child: Traced,
    address: int,
    steps: int,
    finish: Callable[[], None],
    start: Callable[[], None] | None = None,
    kind: str = "interrupt",
) -> set[int]:
    """SIGINT, or the signal of a deadline, after 0, 1, 2, ... instructions from `address`; the program counters that
    were met."""
    met = set()
    for n in range(steps):
        child.run_to(address, start or child.go)
        for _ in range(n):
            child.step()
        met.add(int(child.registers()[RIP]))
        if kind == "stop":
            child.stop_and_release()
        else:
            child.release(signal.SIGINT)
        finish()
    return met


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, 1])
def test_signal_at_every_instruction_of_the_entry(traced: Callable[[str], Traced], flags: int, kind: str) -> None:
    child = traced(f"""
endless = s.function("endless", I_I, {flags})
for _ in sys.stdin:
    try:
        endless(1)
    except KeyboardInterrupt:
        say("interrupted", s.idle())
""")

    def finish() -> None:
        assert child.line() == "interrupted True"

    met = step_through(child, child.symbols["enter"], 34, finish, kind=kind)
    window = [pc for pc in met if child.symbols["entry_window"] <= pc < child.symbols["enter_ret"]]
    assert len(window) == 6, "every instruction of the window"
    assert any(not child.symbols["enter"] <= pc < child.symbols["inject_end"] for pc in met), "and into wasm"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("what", ["host", "memory_move", "builtin", "keeping builtin"])
def test_signal_at_every_instruction_of_the_return_from_a_gate(
    traced: Callable[[str], Traced], what: str, flags: int, kind: str
) -> None:
    """The host call or builtin returns to a function that calls it once more: its return is the one stopped at."""
    child = traced(f"""
def host(x):
    return 1
s.set_import(0, host, HOST)
g.set_builtin("memory_grow", lambda *_: -1)
g.set_builtin("new_epoch", lambda vmctx: None)
def recurse_until(x):
    return endless(1)
endless = s.function("endless", I_I, {flags})
once = {{
    "host": lambda: s.function("host_then_endless", I_I, {flags})(1),
    "memory_move": lambda: s.function("move_then_endless", I_I, {flags})(100),
    "builtin": lambda: s.function("grow_then_endless", I_I, {flags})(1),
    "keeping builtin": lambda: s.function("keep_then_endless", I_I, {flags})(1),
}}[{what!r}]
for _ in sys.stdin:
    try:
        once()
    except KeyboardInterrupt:
        say("interrupted", s.idle())
""")

    def finish() -> None:
        assert child.line() == "interrupted True"

    keeping = what.startswith("keeping")
    name = "keeping_return" if keeping else "gate_return"
    met = step_through(child, child.symbols[f"{name}_window"] - 3, 17 + 7 * keeping, finish, kind=kind)
    window = [pc for pc in met if child.symbols[f"{name}_window"] <= pc < child.symbols[f"{name}_end"]]
    assert len(window) == 9 + 7 * keeping, "every instruction of the window"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, 1])
def test_signal_at_every_instruction_of_a_short_move(traced: Callable[[str], Traced], flags: int, kind: str) -> None:
    """What is moved without leaving the wasm stack; behind it the wasm loops for ever."""
    child = traced(f"""
once = s.function("move_then_endless", I_I, {flags})
for _ in sys.stdin:
    try:
        once(8)
    except KeyboardInterrupt:
        say("interrupted", s.idle())
""")

    def finish() -> None:
        assert child.line() == "interrupted True"

    met = step_through(child, child.symbols["builtin_memory_move"], 20, finish, kind=kind)
    window = [pc for pc in met if child.symbols["short_return_window"] <= pc < child.symbols["short_return_end"]]
    assert len(window) == 6, "every instruction of the window"
    assert any(not child.symbols["enter"] <= pc < child.symbols["inject_end"] for pc in met), "and into wasm"


@pytest.mark.parametrize("kind", KINDS)
def test_second_signal_at_every_instruction_of_the_resumption(traced: Callable[[str], Traced], kind: str) -> None:
    """The first signal's handler returns; the second arrives while the interrupted wasm is about to be resumed."""
    child = traced(f"""
hits = 0
def handler(number, frame):
    global hits
    hits += 1
    if hits % 2 == 0 and {kind!r} == "interrupt":
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)
g.hook_signals()
endless = s.function("endless", I_I)
for _ in sys.stdin:
    try:
        say("running")
        endless(1)
    except KeyboardInterrupt:
        say("interrupted", s.idle())
""")

    def start() -> None:
        child.go()
        while child.line() != "running":
            pass
        before = child.cpu_time()
        while child.cpu_time() < before + 2:  # nothing but the loop takes that long
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGINT)

    def finish() -> None:
        assert child.line() == "interrupted True"

    met = step_through(child, child.symbols["inject_window"], 10, finish, start, kind)
    window = [pc for pc in met if child.symbols["inject_window"] <= pc < child.symbols["inject_end"]]
    assert len(window) == 7, "every instruction of the window"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, 1])
def test_signal_at_every_instruction_of_an_asynchronous_entry(
    traced: Callable[[str], Traced], flags: int, kind: str
) -> None:
    child = traced(f"""
endless, _, _ = s.async_function("endless", I_I, {flags})
for _ in sys.stdin:
    try:
        endless(1)
    except KeyboardInterrupt:
        say("interrupted", s.async_idle())
""")

    def finish() -> None:
        assert child.line() == "interrupted True"

    step_through(child, child.symbols["enter_async"], 34, finish, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("what", ["host", "keeping builtin"])
def test_signal_at_every_instruction_of_a_suspension_and_a_resumption(
    traced: Callable[[str], Traced], what: str, flags: int, kind: str
) -> None:
    """Whatever comes between the host call and the wasm behind it, the endless loop there is stopped."""
    child = traced(f"""
s.set_import(0, lambda x: Awaitable(), HOST)
g.set_builtin("new_epoch", lambda vmctx: Awaitable())
start, resume, throw = s.async_function({what!r} == "host" and "host_then_endless" or "keep_then_endless", I_I, {flags})
for _ in sys.stdin:
    try:
        out = None
        out = start(1)
        assert type(out) is Awaitable
        resume(1)
    except KeyboardInterrupt:
        if not s.async_idle():  # it came before the resumption
            try:
                throw(KeyError())
            except KeyError:
                pass
        say("interrupted", s.async_idle())
""")

    def finish() -> None:
        assert child.line() == "interrupted True"

    met = step_through(child, child.symbols["gate_suspend"], 30, finish, kind=kind)
    assert len(met) == 30
    met = step_through(child, child.symbols["enter_resume"], 62, finish, kind=kind)
    name = "keeping_return" if what.startswith("keeping") else "gate_return"
    window = [pc for pc in met if child.symbols[f"{name}_window"] <= pc < child.symbols[f"{name}_end"]]
    assert len(window) == 9 + 7 * what.startswith("keeping"), "as far as the end of the gate"


def test_results_survive_a_signal_at_every_instruction_of_the_return(traced: Callable[[str], Traced]) -> None:
    """A handler that returns and runs wasm of the same store, at every instruction around the return of a builtin with
    a result.
    """
    child = traced("""
g.set_builtin("memory_grow", lambda vmctx, pages, memory: pages * 3)
hits = 0
def handler(number, frame):
    global hits
    hits += 1
    assert add(40, 2) == 42
signal.signal(signal.SIGINT, handler)
g.hook_signals()
grow = s.function("grow", ft("I", "I"))
for k, _ in enumerate(sys.stdin):
    say(grow(k + 5) - 3 * (k + 5), hits - k, s.idle())
""")

    def finish() -> None:
        assert child.line() == "0 1 True"

    met = step_through(child, child.symbols["gate_return_window"] - 3, 40, finish)
    assert len(met) > 25


def test_registers_survive_a_signal_at_every_instruction_of_a_return_that_keeps_them(
    traced: Callable[[str], Traced],
) -> None:
    child = traced("""
from tests.runtime.native.guest import KEPT_SUM
g.set_builtin("new_epoch", lambda vmctx: None)
hits = 0
def handler(number, frame):
    global hits
    hits += 1
    assert add(40, 2) == 42
signal.signal(signal.SIGINT, handler)
g.hook_signals()
keep = s.function("keep", I_I)
for k, _ in enumerate(sys.stdin):
    say(keep(1) - KEPT_SUM, hits - k, s.idle())
""")

    def finish() -> None:
        assert child.line() == "0 1 True"

    met = step_through(child, child.symbols["keeping_return_window"] - 3, 45, finish)
    assert len(met) > 25


def test_a_store_is_taken_from_before_the_gil_is_released(traced: Callable[[str], Traced]) -> None:
    """One thread is stopped between giving up the GIL and switching stacks; another one must not get into the store."""
    child = traced("""
released = s.function("add", ft("ii", "i"), 1)
def other():
    while os.read(WAKE, 1):
        try:
            say("entered", add(1, 2))
        except WasmtimeError:
            say("refused")
threading.Thread(target=other, daemon=True).start()
for _ in sys.stdin:
    say("result", released(2, 3))
""")
    for n in range(10):
        child.run_to(child.symbols["enter"], child.go)
        for _ in range(n):
            child.step()
        os.write(child.wake_write, b"x")
        assert child.line() == "refused"
        child.release()
        assert child.line() == "result 5"
