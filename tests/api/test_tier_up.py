"""Tier-up: hot functions are compiled in the background and swapped in while the program runs. Whatever becomes of the
worker, programs compute the same, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import wasmforge
from tests.tiers import PATIENCE, eager_config, engine, promote, tiers
from wasmforge.compiler.availability import llvm_available
from wasmforge.runtime.age import age
from wasmforge.runtime.lazy_code import BASELINE, OPTIMISED
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.runtime.tier_up import State

pytestmark = pytest.mark.skipif(not llvm_available(), reason="needs llvmlite")

HOT = """
(module
  (type $unary (func (param i32) (result i32)))
  (table 2 funcref)
  (elem (i32.const 0) $double $fib)
  (func $double (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add
        (call $fib (i32.sub (local.get 0) (i32.const 1)))
        (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
  (func (export "sum") (param i32) (result i32) (local i32)
    (loop
      (local.set 1 (i32.add (local.get 1) (local.get 0)))
      (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
    (local.get 1))
  (func (export "indirect") (param i32 i32) (result i32)
    (call_indirect (type $unary) (local.get 1) (local.get 0)))
  (func (export "once") (param i32) (result i32) (call $double (local.get 0))))
"""

TRAPS = """
(module
  (memory 1)
  (global $depth (mut i32) (i32.const 0))
  (func $divide (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func $load (param i32) (result i32) (nop) (i32.load offset=8 (local.get 0)))
  (func $deep (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (unreachable)))
    (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
  (func (export "divide") (param i32) (result i32)
    (i32.add (call $divide (i32.const 7) (local.get 0)) (call $divide (i32.const 8) (local.get 0))))
  (func (export "load") (param i32) (result i32)
    (i32.add (call $load (i32.const 0)) (call $load (local.get 0))))
  (func (export "deep") (param i32) (result i32) (call $deep (local.get 0)))
  (func $forever (export "forever") (result i32) (i32.add (i32.const 1) (call $forever))))
"""
FAULTS = [("divide", 0), ("load", -100), ("deep", 6), ("forever", None)]


def run_until(condition: Callable[[], bool], work: Callable[[], None]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        work()
        time.sleep(0.0005)  # the compiler's process runs at low priority: with two busy cores it would get nowhere
        assert time.monotonic() < end


def instantiate(wat: str, config: wasmforge.Config | None = None) -> tuple[wasmforge.Module, wasmforge.Store, object]:
    e = wasmforge.Engine(config or eager_config())
    store = wasmforge.Store(e)
    module = wasmforge.Module(e, wat)
    return module, store, wasmforge.Instance(store, module, []).exports(store)


def describe(trap: wasmforge.Trap) -> tuple[str, list[tuple[int, int, int]]]:
    return trap.message, [(f.func_index, f.module_offset, f.func_offset) for f in trap.frames]


def faults(store: wasmforge.Store, exports: object) -> list[tuple[str, list[tuple[int, int, int]]]]:
    found = []
    for name, argument in FAULTS:
        with pytest.raises(wasmforge.Trap) as info:
            exports[name](store, *(() if argument is None else (argument,)))  # type: ignore[index]
        message, frames = describe(info.value)
        # How many frames fit on the stack is the compiler's business.
        found.append((message, frames[:10]))
    return found


@contextlib.contextmanager
def fresh_background() -> Iterator[object]:
    """The background compiler without a worker, before and after."""
    from wasmforge.compiler.llvm.background import background_compiler

    background = background_compiler()
    background.close()
    background._failures = 0
    try:
        yield background
    finally:
        background.close()
        background._failures = 0


class TestSwitch:
    def test_calls_make_a_function_hot(self) -> None:
        module, store, exports = instantiate(HOT)

        def work() -> None:
            assert exports["fib"](store, 12) == 144  # type: ignore[index]

        run_until(lambda: tiers(module).get(1) == OPTIMISED, work)
        work()

    def test_iterations_make_a_function_hot(self) -> None:
        config = eager_config()
        config.tier_up_threshold = 1000
        module, store, exports = instantiate(HOT, config)

        def work() -> None:
            assert exports["sum"](store, 10_000) == 50_005_000  # type: ignore[index]

        work()
        lazy = module._compiled
        assert isinstance(lazy, LazyModule) and lazy.tier_up is not None
        assert lazy.tier_up.count(2) > 9000
        run_until(lambda: tiers(module).get(2) == OPTIMISED, work)
        work()

    def test_a_function_that_never_got_hot_stays_in_baseline(self) -> None:
        config = wasmforge.Config()
        config.cache = False
        module, store, exports = instantiate(HOT, config)
        assert exports["once"](store, 4) == 8  # type: ignore[index]
        assert tiers(module) == {0: BASELINE, 4: BASELINE}

    def test_baseline_has_no_tier_up(self) -> None:
        config = wasmforge.Config()
        config.strategy = "baseline"
        module, store, exports = instantiate(HOT, config)
        assert exports["fib"](store, 20) == 6765  # type: ignore[index]
        assert module._compiled.tier_up is None  # type: ignore[attr-defined]

    def test_none_as_threshold_means_no_tier_up(self) -> None:
        config = wasmforge.Config()
        config.tier_up_threshold = None
        module, _, _ = instantiate(HOT, config)
        assert module._compiled.tier_up is None  # type: ignore[attr-defined]

    @pytest.mark.parametrize("wrong", [0, -1, 1 << 31])
    def test_thresholds_out_of_range_are_refused(self, wrong: int) -> None:
        with pytest.raises(wasmforge.WasmtimeError, match="between 1 and"):
            wasmforge.Config().tier_up_threshold = wrong

    def test_tables_and_importers_reach_the_new_code(self) -> None:
        """Function references and imports have the function's permanent address, which jumps through its slot."""
        e = engine()
        store = wasmforge.Store(e)
        module = wasmforge.Module(e, HOT)
        exports = wasmforge.Instance(store, module, []).exports(store)
        importer = wasmforge.Module(
            e,
            '(module (import "" "fib" (func $fib (param i32) (result i32)))'
            ' (func (export "run") (param i32) (result i32) (i32.add (i32.const 1) (call $fib (local.get 0)))))',
        )
        run = wasmforge.Instance(store, importer, [exports["fib"]]).exports(store)["run"]
        assert run(store, 10) == 56 and exports["indirect"](store, 1, 10) == 55
        promote(module)
        promote(importer)
        assert run(store, 10) == 56 and exports["indirect"](store, 1, 10) == 55 and exports["fib"](store, 10) == 55
        # The old code counts; if calls still went there, this would show.
        counts = [module._compiled.tier_up.count(x) for x in range(5)]  # type: ignore[attr-defined]
        assert run(store, 15) == 611 and exports["indirect"](store, 1, 15) == 610
        assert counts == [module._compiled.tier_up.count(x) for x in range(5)]  # type: ignore[attr-defined]

    def test_fuel_is_counted_alike_in_both_tiers(self) -> None:
        config = eager_config()
        config.consume_fuel = True
        module, store, exports = instantiate(HOT, config)
        used = []
        for _ in range(2):
            store.set_fuel(1 << 40)
            assert exports["fib"](store, 12) == 144  # type: ignore[index]
            assert exports["sum"](store, 100) == 5050  # type: ignore[index]
            used.append((1 << 40) - store.get_fuel())
            promote(module)
        assert used[0] == used[1] > 1000

    def test_out_of_memory_in_a_visit_is_not_the_programs_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module, store, exports = instantiate(HOT)
        tier_up = module._compiled.tier_up  # type: ignore[attr-defined]
        failures: list[BaseException] = [MemoryError(), RecursionError(), MemoryError()]
        progress = type(tier_up)._progress

        def fail(self: object) -> None:
            if failures:
                raise failures.pop()
            progress(self)

        monkeypatch.setattr(type(tier_up), "_progress", fail)

        def work() -> None:
            assert exports["fib"](store, 12) == 144  # type: ignore[index]

        run_until(lambda: tiers(module).get(1) == OPTIMISED, work)
        assert not failures


class TestTraps:
    @pytest.mark.parametrize("promoted", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2], [3, 4, 5], [0, 4]])
    def test_backtraces_are_those_of_baseline_whatever_tiers_the_frames_are_in(self, promoted: list[int]) -> None:
        module, store, exports = instantiate(TRAPS)
        before = faults(store, exports)
        promote(module, promoted)
        assert {x for x, tier in tiers(module).items() if tier == OPTIMISED} >= set(promoted)
        assert faults(store, exports) == before
        assert len(before[2][1]) == 8  # the deep recursion has its frames


class TestWorker:
    def test_one_that_is_killed_costs_only_time(self) -> None:
        with fresh_background() as background:
            module, store, exports = instantiate(HOT)
            killed = []

            def work() -> None:
                assert exports["fib"](store, 10) == 55  # type: ignore[index]
                if not killed and background._busy:  # type: ignore[attr-defined]
                    killed.append(background._process.pid)  # type: ignore[attr-defined]
                    os.kill(killed[0], signal.SIGKILL)

            run_until(lambda: tiers(module).get(1) == OPTIMISED, work)
            assert killed and not Path(f"/proc/{killed[0]}").exists()

    @pytest.mark.parametrize(
        "command",
        [
            "exec sleep 100",
            "exec cat /dev/zero",
            "printf '\\377\\377\\377\\177abcdefg'; exec sleep 100",
            "printf '\\004\\000\\000\\000\\001\\002\\003\\004\\133\\377\\377\\377'; exec sleep 100",
            "exit 3",
            "read line; exit 0",
        ],
    )
    def test_one_that_is_silent_or_mad_is_given_up(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three in a row, and no other is started."""
        from wasmforge.compiler.llvm import background as module_under_test

        started: list[subprocess.Popen[bytes]] = []

        def start(*_: str) -> subprocess.Popen[bytes]:
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(["/bin/sh", "-c", command], stdin=pipe, stdout=pipe, process_group=0))
            return started[-1]

        with fresh_background() as background:
            monkeypatch.setattr(module_under_test, "start_process", start)
            monkeypatch.setattr(module_under_test, "SECONDS", 0.05)
            module, store, exports = instantiate(HOT)

            def work() -> None:
                assert exports["fib"](store, 10) == 55  # type: ignore[index]
                assert exports["sum"](store, 3) == 6  # type: ignore[index]

            run_until(lambda: background.is_disabled, work)  # type: ignore[attr-defined]
            for _ in range(50):
                work()
            assert len(started) == 3 and all(process.poll() is not None for process in started)
            assert OPTIMISED not in tiers(module).values()

    def test_a_function_that_llvm_refuses_does_not_keep_others_from_getting_better(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from wasmforge import _tier_up

        group = _tier_up.Optimiser.group

        def refuse(self: _tier_up.Optimiser, reply: dict[str, object], functions: list[int]) -> object:
            return None if 1 in functions else group(self, reply, functions)

        monkeypatch.setattr(_tier_up.Optimiser, "group", refuse)
        module, store, exports = instantiate(HOT)
        lazy = module._compiled
        assert isinstance(lazy, LazyModule) and lazy.tier_up is not None
        functions = lazy.tier_up.functions

        def work() -> None:
            assert exports["fib"](store, 10) == 55  # type: ignore[index]
            assert exports["indirect"](store, 1, 3) == 2  # type: ignore[index]
            assert exports["sum"](store, 3) == 6  # type: ignore[index]

        work()
        run_until(lambda: all(functions[x].state in (State.OPTIMISED, State.FAILED) for x in (1, 2, 3)), work)
        assert functions[1].state == State.FAILED
        assert tiers(module) == {1: BASELINE, 2: OPTIMISED, 3: OPTIMISED}


PROGRAM = """
import os, sys, wasmforge
sys.path.insert(0, {root!r})
from tests.tiers import engine
from wasmforge.compiler.llvm.background import background_compiler
e = engine()
store = wasmforge.Store(e)
module = wasmforge.Module(e, {wat!r})
exports = wasmforge.Instance(store, module, []).exports(store)
while not background_compiler()._busy:
    exports["fib"](store, 10)
print(background_compiler()._process.pid, flush=True)
{end}
"""


class TestExit:
    @pytest.mark.parametrize(
        "end",
        ["", "raise SystemExit(3)", "os._exit(0)", "os.kill(os.getpid(), 9)", "exports['fib'](store, 1 << 20)"],
        ids=["end", "exception", "_exit", "SIGKILL", "trap"],
    )
    def test_no_worker_outlives_the_program(self, end: str) -> None:
        root = Path(__file__).resolve().parents[2]
        text = PROGRAM.format(root=str(root), wat=HOT, end=end)
        process = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE)
        worker = Path(f"/proc/{int(process.stdout)}")
        # The kernel tells the worker that its input has ended; it needs to be scheduled to notice.
        end_of_patience = time.monotonic() + PATIENCE
        while worker.exists() and b"wasmforge" in (worker / "cmdline").read_bytes():
            assert time.monotonic() < end_of_patience
            time.sleep(0.01)

    def test_a_child_of_fork_is_as_old_as_its_parent(self) -> None:
        """By the time from which on functions are optimised; its own processor time begins at 0."""
        before = age()
        child = os.fork()
        if child == 0:
            os._exit(0 if before <= age() < before + 60 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert age() - before < 10, "its parent does not get older by it"

    def test_a_child_of_fork_gets_a_worker_of_its_own(self) -> None:
        module, store, exports = instantiate(HOT)
        from wasmforge.compiler.llvm.background import background_compiler

        background = background_compiler()

        def work() -> None:
            assert exports["sum"](store, 100) == 5050  # type: ignore[index]
            assert exports["fib"](store, 10) == 55  # type: ignore[index]

        run_until(lambda: background._busy, work)
        process = background._process
        child = os.fork()
        if child == 0:
            try:
                run_until(lambda: tiers(module).get(1) == tiers(module).get(2) == OPTIMISED, work)
                work()
                assert background._process.pid != process.pid
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        run_until(lambda: tiers(module).get(1) == tiers(module).get(2) == OPTIMISED, work)
        work()
        assert background._process is process
