"""The pool of LLVM processes: what dies costs an error at most, nothing is left behind, and threads, forks and Ctrl-C
meet no trap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.llvm import compile_module, pool
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import Module
from wasmforge.text import parse
from wasmforge.validation import validate

SMALL = '(module (func (export "f") (param i32) (result i32) local.get 0 i32.const 1 i32.add))'


def compiled(module: Module, workers: int = 1) -> bytes:
    return compile_module(module, validate(module), Tunables(), workers=workers)


def large(functions: int) -> Module:
    """A module that keeps a worker busy for a while: every chunk takes a good part of a second."""
    body = "(local.set 0 (i32.mul (i32.add (local.get 0) (local.get 1)) (i32.load (local.get 1))))" * 150
    return parse("(module (memory 1)" + f"(func (param i32 i32) {body})" * functions + ")")


def idle_pids() -> list[int]:
    return [w.process.pid for w in pool._pool.idle]


def wait_until_busy() -> int:
    """The process id of a worker that is compiling."""
    for _ in range(1000):
        busy = [w for w in list(pool._pool.all) if w not in pool._pool.idle]
        if busy:
            return busy[0].process.pid
        time.sleep(0.01)
    raise AssertionError("no worker is busy")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_for_end(pid: int) -> None:
    for _ in range(1000):
        if not is_running(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


def test_a_worker_serves_one_module_after_the_other() -> None:
    first = compiled(parse(SMALL))
    pids = idle_pids()
    assert compiled(parse(SMALL)) == first
    assert idle_pids() == pids


def test_the_image_does_not_depend_on_workers_or_their_history() -> None:
    module = large(30)
    assert compiled(module, workers=1) == compiled(module, workers=3)


def test_progress_ends_with_everything() -> None:
    module = large(20)
    calls: list[tuple[int, int]] = []
    compile_module(module, validate(module), Tunables(), workers=2, progress=lambda *a: calls.append(a))
    assert calls[-1][0] == calls[-1][1] > 0
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_an_idle_worker_that_died_is_replaced() -> None:
    expected = compiled(parse(SMALL))
    for pid in idle_pids():
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    assert compiled(parse(SMALL)) == expected


def test_a_worker_that_dies_at_work_is_replaced_and_the_chunk_tried_again() -> None:
    module = large(40)
    expected = compiled(module)
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(compiled, module)
        os.kill(wait_until_busy(), signal.SIGKILL)
        assert future.result(timeout=120) == expected


def test_a_chunk_that_kills_every_worker_is_an_error() -> None:
    """What LLVM's `abort` does to its process, from outside."""
    module = large(60)
    done = threading.Event()

    def kill_all() -> None:
        while not done.is_set():
            for worker in list(pool._pool.all):
                if worker not in pool._pool.idle:
                    worker.process.send_signal(signal.SIGABRT)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        with pytest.raises(WasmtimeError, match=r"LLVM could not compile functions .* \(SIGABRT\)"):
            compiled(module)
    finally:
        done.set()
        thread.join()
    assert compiled(parse(SMALL))


def test_threads_compile_at_once() -> None:
    modules = [large(4 + k) for k in range(6)]
    expected = [compiled(m) for m in modules]
    with ThreadPoolExecutor(6) as executor:
        assert list(executor.map(compiled, modules)) == expected
    assert len(pool._pool.idle) == len(pool._pool.all)


def test_workers_end_when_the_pool_is_told_so() -> None:
    compiled(parse(SMALL))
    pids = [w.process.pid for w in pool._pool.all]
    pool._pool.end_all()
    assert pids and not any(is_running(pid) for pid in pids)
    assert compiled(parse(SMALL))


def run_script(script: str) -> subprocess.Popen[str]:
    prelude = """
        import os, signal, sys, threading, time
        from tests.compiler.test_pool import compiled, large, parse, pool, SMALL, wait_until_busy
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in [os.getcwd(), *sys.path] if p)},
    )


def test_a_worker_ends_with_its_parent_even_while_it_compiles() -> None:
    process = run_script(
        """
        threading.Thread(target=compiled, args=(large(400),), daemon=True).start()
        print(wait_until_busy(), flush=True)
        time.sleep(60)
        """
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    time.sleep(0.3)
    process.kill()
    process.communicate()
    wait_for_end(worker)


def test_nothing_is_left_after_a_normal_exit() -> None:
    process = run_script("compiled(parse(SMALL)); print([w.process.pid for w in pool._pool.all][0])")
    out, errors = process.communicate(timeout=60)
    assert errors == ""
    assert not is_running(int(out))


def test_ctrl_c_ends_a_compilation_at_once_and_the_next_one_works() -> None:
    process = run_script(
        """
        def interrupt():
            worker = wait_until_busy()
            time.sleep(0.3)
            print(worker, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        start = time.monotonic()
        try:
            compiled(large(300))
        except KeyboardInterrupt:
            print("interrupted", len(pool._pool.all) == len(pool._pool.idle), flush=True)
        print(len(compiled(parse(SMALL))) > 0)
        """
    )
    out, errors = process.communicate(timeout=120)
    worker, interrupted, works = out.splitlines()
    assert (interrupted, works, errors) == ("interrupted True", "True", "")
    assert not is_running(int(worker))


def test_a_forked_child_has_a_pool_of_its_own() -> None:
    process = run_script(
        """
        first = compiled(parse(SMALL))
        parents = {w.process.pid for w in pool._pool.all}
        pid = os.fork()
        if pid == 0:
            same = compiled(parse(SMALL)) == first
            own = {w.process.pid for w in pool._pool.all}
            pool._pool.end_all()
            os._exit(0 if same and not own & parents else 1)
        _, status = os.waitpid(pid, 0)
        again = compiled(parse(SMALL)) == first and {w.process.pid for w in pool._pool.all} == parents
        print(os.waitstatus_to_exitcode(status), again)
        """
    )
    out, errors = process.communicate(timeout=60)
    assert (out.strip(), errors) == ("0 True", "")


def test_modules_in_the_current_directory_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat: whoever can write into the directory where a user happens to be would run code in the worker."""
    (tmp_path / "llvmlite.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "marshal.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    pool._pool.end_all()
    assert compiled(parse(SMALL))
