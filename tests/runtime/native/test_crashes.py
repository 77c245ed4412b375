"""Genuine crashes stay crashes: whoever reported them before us still does, and the process dies by the signal. Each
test runs a process of its own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Protocol

import pytest

PRELUDE = """
import ctypes, faulthandler, os, signal, sys, threading, time
import wasmforge.runtime.native as native
from tests.runtime.native.fake import Store, Trap, ft, libc, set_hooks
from tests.runtime.native.guest import HOST, code
I_I = ft("i", "i")
def start(hook=True):
    g = native.gates()
    set_hooks()
    if hook:
        g.hook_signals()
    return Store(code())
def trap(store):
    try:
        store.function("load", I_I)(-1)
        raise AssertionError("no trap")
    except Trap:
        print("trapped", flush=True)
"""


class Run(Protocol):
    def __call__(self, script: str, *options: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(child_environment: dict[str, str]) -> Run:
    """Runs a script after the prelude in a process of its own."""

    def start(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *options, "-c", PRELUDE + script],
            capture_output=True,
            text=True,
            timeout=60,
            env=child_environment,
            check=False,
        )

    return start


def assert_crash(result: subprocess.CompletedProcess[str], number: int = signal.SIGSEGV, report: bool = True) -> None:
    assert result.returncode == -number, (result.returncode, result.stderr)
    assert ("Fatal Python error" in result.stderr) == report, result.stderr
    assert result.stderr.count("Fatal Python error") <= 1, result.stderr


CRASHES = {
    "in libc": "ctypes.string_at(8)",
    "in wasm, outside of memory": 's.function("outside", I_I)(1)',
    "in wasm, host memory behind the guest's back": """
fake = Store(code())
native.gates().unregister_memory(fake.reservation)
fake.function("load", I_I)(-1)
""",
    "in wasm, a memory that has gone and was where the last fault was found": """
fake = Store(code())
trap(fake)
native.gates().unregister_memory(fake.reservation)
fake.function("load", I_I)(-1)
""",
    "in a host function": """
s.set_import(0, lambda x: ctypes.string_at(8), HOST)
s.function("call_host", I_I)(1)
""",
    "in memory_move, an address that the bounds check should have refused": """
s.function("move", ft("iii"))(0, 70000, 100)
""",
    "in memory_move, the same for so little that the gate moves it itself": """
s.function("move", ft("iii"))(0, 70000, 10)
""",
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES.keys())
@pytest.mark.parametrize("when", ["before", "after", "late", "never"])
def test_crash_is_reported_once_and_fatal(run: Run, crash: str, when: str) -> None:
    """faulthandler enabled before the gates, after them, after the last re-check of the hooks, or not at all."""
    enable = "faulthandler.enable()\n"
    script = {
        "before": f"{enable}s = start()\ntrap(s)\n{crash}",
        "after": f"s = start()\ntrap(s)\n{enable}native.gates().hook_signals()\ntrap(s)\n{crash}",
        "late": f"s = start()\ntrap(s)\n{enable}{crash}",
        "never": f"s = start()\ntrap(s)\n{crash}",
    }[when]
    result = run(script)
    assert "trapped" in result.stdout, result.stderr
    assert_crash(result, report=when != "never")


def test_crash_under_dev_mode(run: Run) -> None:
    assert_crash(run("s = start()\ntrap(s)\nctypes.string_at(8)", "-X", "dev"))


def test_faulthandler_toggled_many_times_does_not_grow_the_chain(run: Run) -> None:
    script = """
s = start()
for _ in range(200):
    faulthandler.enable()
    native.gates().hook_signals()
    faulthandler.disable()
    native.gates().hook_signals()
assert all(len(chain) <= 3 for chain in native.gates()._signals._chains.values())
faulthandler.enable()
native.gates().hook_signals()
trap(s)
ctypes.string_at(8)
"""
    result = run(script)
    assert "trapped" in result.stdout, result.stderr
    assert_crash(result)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS])
def test_a_sent_signal_is_not_a_trap(run: Run, number: int) -> None:
    """kill(pid, SIGSEGV) while wasm runs kills, although the program counter is in wasm code."""
    script = f"""
s = start()
def send():
    time.sleep(0.05)
    os.kill(os.getpid(), {int(number)})
threading.Thread(target=send).start()
s.function("endless", I_I, 1)(1)
"""
    assert_crash(run(script), number, report=False)
    assert_crash(
        run("s = start()\nfaulthandler.enable()\nnative.gates().hook_signals()\n" + script.split("\n", 2)[2]), number
    )


def test_attack_a_forged_fault(run: Run) -> None:
    """rt_sigqueueinfo can claim any fault address; the kernel marks what it did not raise itself with si_code <= 0."""
    script = """
s = start()
information = (ctypes.c_uint32 * 32)()
information[0] = signal.SIGSEGV
information[2] = 2**32 - 1  # SI_QUEUE
ctypes.c_uint64.from_buffer(information, 16).value = s.reservation + 70000
def send():
    time.sleep(0.05)
    assert libc.syscall(129, os.getpid(), signal.SIGSEGV, information) == 0
# Only the thread in wasm may take the signal.
t = threading.Thread(target=send)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSEGV])
t.start()
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGSEGV])
s.function("endless", I_I, 1)(1)
"""
    assert_crash(run(script), signal.SIGSEGV, report=False)


def test_bus_error_in_memory_is_a_trap_and_elsewhere_a_crash(run: Run) -> None:
    script = """
import mmap, tempfile
s = start()
file = tempfile.TemporaryFile()
file.truncate(65536)
assert libc.mmap(s.reservation, 65536, 3, 0x12, file.fileno(), 0) == s.reservation
assert s.function("load", I_I)(0) == 0
file.truncate(0)
try:
    s.function("load", I_I)(0)
except Trap as trap_:
    print("kind", trap_.kind, flush=True)
ctypes.string_at(s.reservation, 1)
"""
    result = run(script)
    assert "kind 1" in result.stdout, result.stderr
    assert_crash(result, signal.SIGBUS, report=False)


def test_another_runtime_in_the_process(run: Run) -> None:
    """The wasmtime package installs handlers, too: both sides' traps work, whoever came last, and a crash is still
    one.
    """
    pytest.importorskip("wasmtime")
    script = """
import wasmtime
def other():
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    text = '(module (memory 1) (func (export "f") (param i32) (result i32) (i32.load (local.get 0))))'
    instance = wasmtime.Instance(store, wasmtime.Module(engine, text), [])
    f = instance.exports(store)["f"]
    assert f(store, 0) == 0
    for _ in range(20):
        try:
            f(store, -1)
            raise AssertionError
        except wasmtime.Trap:
            pass
        trap(s)
if ORDER:
    wasmtime.Engine()
s = start()
trap(s)
other()
native.gates().hook_signals()
other()
ctypes.string_at(8)
"""
    for order in (False, True):
        result = run(f"ORDER = {order}\n" + script)
        assert result.stdout.count("trapped") == 41, result.stderr
        assert_crash(result, report=False)


def test_fork(run: Run) -> None:
    """A child of fork, also from a thread, traps, enters and is interrupted."""
    script = """
s = start()
def child():
    trap(s)
    assert s.function("add", ft("ii", "i"))(2, 3) == 5
    for _ in range(3):
        parent = os.getpid()
        try:
            if os.fork() == 0:
                time.sleep(0.05)
                os.kill(parent, signal.SIGINT)
                os._exit(0)
            s.function("endless", I_I)(1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        os.wait()
def forked():
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
forked()
t = threading.Thread(target=forked)
t.start()
t.join()
trap(s)
print("done")
"""
    result = run(script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("interrupted") == 6
    assert result.stdout.count("trapped") == 3
    assert result.stdout.endswith("done\n")


def test_fork_inside_a_host_function(run: Run) -> None:
    script = """
s = start()
def host(x):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
    return x + (pid == 0)
s.set_import(0, host, HOST)
r = s.function("call_host", I_I)(1)
assert s.idle()
trap(s)
print("result", r, flush=True)
os._exit(0)
"""
    result = run(script)
    assert result.returncode == 0, result.stderr
    assert "result 1" in result.stdout
    assert "result 2" in result.stdout


def test_exit_while_threads_run_wasm(run: Run) -> None:
    """Daemon threads in wasm, some of them about to take the GIL, do not turn the interpreter's exit into a crash."""
    script = """
stores = [start() for _ in range(3)]
for s in stores:
    s.set_import(0, lambda x: 1, HOST)
threading.Thread(target=stores[0].function("endless", I_I, 1), args=(1,), daemon=True).start()
threading.Thread(target=stores[1].function("endless_host", I_I, 1), args=(1,), daemon=True).start()
def entries():
    add = stores[2].function("add", ft("ii", "i"), 1)
    while True:
        add(1, 2)
threading.Thread(target=entries, daemon=True).start()
time.sleep(0.1)
print("done", flush=True)
"""
    for _ in range(3):
        result = run(script)
        assert result.returncode == 0, (result.returncode, result.stderr)
        assert result.stdout == "done\n"
