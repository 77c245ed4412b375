"""What is measured inside a worker process. A case is prepared once and then gives samples.

Each function of `CASES` takes the package (`wasmforge` or `wasmtime`: same names) and the arguments of the section that
asked for it. Times are in seconds; of the processor where one thread does the work, so that a busy machine counts less.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

Package = Any  # wasmforge or wasmtime, whose names are the same


class Prepared(NamedTuple):
    """A case ready to run: facts about its preparation, and the function that takes one sample."""

    opened: dict[str, Any]
    sample: Callable[[], dict[str, Any]]


def peak_memory() -> int:
    """Highest resident size of this process so far, in KiB. (`ru_maxrss` would include its parent's before exec.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


# ---- guests ----


def guest(package: Package, path: str, arguments: list[str], settings: dict[str, Any] | None = None) -> Prepared:
    """CPU time of `_start` of a WASI program, in a new store each time; and a digest of what it printed. `settings` are
    properties of the engine's config; with fuel or epochs the store gets plenty of both."""
    base = peak_memory()
    config = package.Config()
    for name, value in (settings or {}).items():
        setattr(config, name, value)
    engine = package.Engine(config)
    module = package.Module.from_file(engine, path)
    linker = package.Linker(engine)
    linker.define_wasi()
    output = Path(tempfile.mkdtemp(prefix="wasmforge-bench-")) / "stdout"

    def sample() -> dict[str, Any]:
        store = package.Store(engine)
        wasi = package.WasiConfig()
        wasi.argv = [Path(path).stem, *arguments]
        wasi.stdout_file = str(output)
        store.set_wasi(wasi)
        if settings and settings.get("consume_fuel"):
            store.set_fuel(1 << 62)
        if settings and settings.get("epoch_interruption"):
            store.set_epoch_deadline(1 << 40)
        entry = linker.instantiate(store, module).exports(store)["_start"]
        start = time.process_time()
        try:
            entry(store)
        except package.ExitTrap as exit_trap:
            if exit_trap.code != 0:
                raise
        elapsed = time.process_time() - start
        printed = output.read_bytes()
        output.unlink()
        return {"seconds": elapsed, "digest": hashlib.sha256(printed).hexdigest(), "memory": peak_memory() - base}

    return Prepared({}, sample)


def compilation(package: Package, path: str) -> Prepared:
    """Wall time from bytes to a module that can be instantiated. The worker is started without a cache of modules."""
    code = Path(path).read_bytes()
    engine = package.Engine()

    def sample() -> dict[str, Any]:
        start = time.perf_counter()
        module = package.Module(engine, code)
        elapsed = time.perf_counter() - start
        return {"seconds": elapsed, "image": len(module.serialize())}

    return Prepared({}, sample)


# ---- calls ----

EXPORTS: Final = """
(module
  (import "host" "nop" (func $nop))
  (import "host" "add" (func $host_add (param i32 i32) (result i32)))
  (import "host" "mixed" (func $mixed (param i32 i64 f32 f64) (result f64)))
  (import "host" "fail" (func $fail))
  (memory 1)
  (func (export "nop"))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "mixed") (param i32 i64 f32 f64) (result f64)
    (f64.add (f64.convert_i32_s (local.get 0))
      (f64.add (f64.convert_i64_s (local.get 1)) (f64.add (f64.promote_f32 (local.get 2)) (local.get 3)))))
  (func (export "two_results") (param i64 i64) (result i64 i64) (local.get 1) (local.get 0))
  (func (export "host_nop") (param $n i32)
    (loop $again
      (call $nop)
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
  (func (export "host_add") (param $n i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (call $host_add (local.get $sum) (local.get $n)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
  (func (export "host_mixed") (param $n i32) (result f64) (local $sum f64)
    (loop $again
      (local.set $sum (call $mixed (local.get $n) (i64.const 3) (f32.const 0.5) (local.get $sum)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
  (func (export "unreachable") unreachable)
  (func (export "divide") (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
  (func (export "out_of_bounds") (param i32) (result i32) (i32.load offset=65536 (local.get 0)))
  (func $recurse (export "recurse") (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $deep (export "deep") (param i32)
    (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1)))) (else unreachable)))
  (func (export "host_fail") (call $fail)))
"""


class HostFailure(Exception):
    """What the host function of `host_fail` raises."""


def _instance(package: Package) -> tuple[Any, Any]:
    def add(a: int, b: int) -> int:
        return a + b & 0x7FFFFFFF

    def nop() -> None:
        pass

    def mixed(a: int, b: int, c: float, d: float) -> float:
        return d + c

    def fail() -> None:
        raise HostFailure

    engine = package.Engine()
    store = package.Store(engine)
    types = package.ValType
    i32, i64, f32, f64 = types.i32(), types.i64(), types.f32(), types.f64()
    functions = [
        package.Func(store, package.FuncType([], []), nop),
        package.Func(store, package.FuncType([i32, i32], [i32]), add),
        package.Func(store, package.FuncType([i32, i64, f32, f64], [f64]), mixed),
        package.Func(store, package.FuncType([], []), fail),
    ]
    instance = package.Instance(store, package.Module(engine, EXPORTS), functions)
    return store, instance.exports(store)


def _bind(style: str, store: Any, function: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The callable and its leading arguments: `package` is `f(store, ...)`, the others are our built-in objects."""
    if style == "package":
        return function, (store,)
    return function.bind(store, release_gil=style == "release"), ()


def _calibrate(loop: Callable[[int], float], seconds: float) -> int:
    """How many repetitions take about `seconds`.

    The shortest of three times counts. Under `auto` a call may load the compilers (25 ms, when the cache has the module
    without the function) or start the background one: taken for the time of a call, that makes samples of three calls,
    whose reading is the way to the clock and cold caches.
    """
    count = 1
    while (elapsed := min(loop(count) for _ in range(3))) < seconds / 4 and count < 1 << 24:
        count *= 4
    return max(1, int(count * seconds / max(elapsed, 1e-9)))


def _repeated(loop: Callable[[int], float], seconds: float) -> Prepared:
    count = _calibrate(loop, seconds)
    return Prepared({"count": count}, lambda: {"seconds": loop(count) / count})


def call(package: Package, function: str, arguments: list[Any], style: str, seconds: float) -> Prepared:
    """One call from Python into wasm, without the cost of the loop around it."""
    store, exports = _instance(package)
    callable_, leading = _bind(style, store, exports[function])
    values = (*leading, *arguments)

    def timed(count: int) -> float:
        # Written out by number of arguments: `f(*values)` would build a tuple, which no user of the function pays for.
        times = repeat(None, count)
        match values:
            case ():
                start = time.thread_time()
                for _ in times:
                    callable_()
            case (a,):
                start = time.thread_time()
                for _ in times:
                    callable_(a)
            case (a, b):
                start = time.thread_time()
                for _ in times:
                    callable_(a, b)
            case (a, b, c):
                start = time.thread_time()
                for _ in times:
                    callable_(a, b, c)
            case (a, b, c, d):
                start = time.thread_time()
                for _ in times:
                    callable_(a, b, c, d)
            case (a, b, c, d, e):
                start = time.thread_time()
                for _ in times:
                    callable_(a, b, c, d, e)
            case _:
                raise ValueError(f"no loop for {len(values)} arguments")
        return time.thread_time() - start

    def loop(count: int) -> float:
        elapsed = timed(count)
        times = repeat(None, count)
        start = time.thread_time()
        for _ in times:
            pass
        return elapsed - (time.thread_time() - start)

    return _repeated(loop, seconds)


def load_call(package: Package, seconds: float) -> Prepared:
    """The same with the short way: `wasmforge.load(...).add(1, 2)`, where the name is looked up each time."""
    loaded = package.load(EXPORTS, {"host": {"nop": lambda: None, "add": max, "mixed": max, "fail": lambda: None}})

    def loop(count: int) -> float:
        times = repeat(None, count)
        start = time.thread_time()
        for _ in times:
            loaded.add(1, 2)
        return time.thread_time() - start

    return _repeated(loop, seconds)


def host_call(package: Package, function: str, seconds: float) -> Prepared:
    """One call from wasm to a Python function: a loop in wasm, divided by its length."""
    store, exports = _instance(package)
    entry = exports[function]

    def loop(count: int) -> float:
        start = time.thread_time()
        entry(store, count)
        return time.thread_time() - start

    return _repeated(loop, seconds)


def trap(package: Package, function: str, arguments: list[Any], style: str, seconds: float) -> Prepared:
    """A trap (or an exception of a host function) raised in wasm and caught in Python."""
    store, exports = _instance(package)
    callable_, leading = _bind(style, store, exports[function])
    values = (*leading, *arguments)
    expected = HostFailure if function == "host_fail" else package.Trap

    def loop(count: int) -> float:
        times = repeat(None, count)
        start = time.thread_time()
        for _ in times:
            try:
                callable_(*values)
            except expected:
                continue
            raise AssertionError(f"{function} did not trap")
        return time.thread_time() - start

    return _repeated(loop, seconds)


def instantiation(package: Package, seconds: float) -> Prepared:
    """A new store and an instance of a compiled module with one page of memory, dropped at once."""
    engine = package.Engine()
    module = package.Module(engine, '(module (memory (export "m") 1) (data (i32.const 8) "data") (func (export "f")))')

    def loop(count: int) -> float:
        times = repeat(None, count)
        start = time.thread_time()
        for _ in times:
            package.Instance(package.Store(engine), module, [])
        return time.thread_time() - start

    return _repeated(loop, seconds)


def wasi(package: Package, function: str, count: int) -> Prepared:
    """One call of a WASI function: a loop of `count` in wasm."""
    from bench.wasi_cases import WasiLoop

    loop = WasiLoop(package)
    if function == "read":
        loop.seconds("write", count)
    return Prepared({"count": count}, lambda: {"seconds": loop.seconds(function, count)})


# ---- asynchronous calls ----

AWAITS: Final = """(module (import "" "f" (func $f (param i32) (result i32)))
  (func (export "sum") (param $n i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call $f (local.get $n))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum)))"""


def await_(package: Package, awaits: int, through_wasm: bool) -> Prepared:
    """Awaiting a coroutine that has its result, in a loop of wasm (only ours has that), or in one of Python."""

    async def ready(x: int) -> int:
        return x

    async def plain(n: int) -> int:
        total = 0
        while n:
            total += await ready(n)
            n -= 1
        return total

    if through_wasm:
        store = package.Store()
        i32 = package.ValType.i32()
        host = package.Func(store, package.FuncType([i32], [i32]), ready)
        module = package.Module(store.engine, AWAITS)
        call = package.Instance(store, module, [host]).exports(store)["sum"].bind_async(store)
    else:
        call = plain

    def sample() -> dict[str, Any]:
        coroutine = call(awaits)
        start = time.thread_time()
        try:
            coroutine.send(None)
        except StopIteration as end:
            elapsed = time.thread_time() - start
            if end.value != awaits * (awaits + 1) // 2:
                raise ValueError(f"wrong sum {end.value}") from None
        return {"seconds": elapsed / awaits}

    return Prepared({}, sample)


def threads(package: Package, threads: int, rounds: int) -> Prepared:
    """A parallel kernel over one shared memory."""
    from bench.thread_cases import ParallelKernel

    kernel = ParallelKernel(package, threads)
    return Prepared({}, lambda: kernel.sample(threads, rounds))


CASES: Final[dict[str, Callable[..., Prepared]]] = {
    "guest": guest,
    "compilation": compilation,
    "call": call,
    "load_call": load_call,
    "await": await_,
    "host_call": host_call,
    "trap": trap,
    "instantiation": instantiation,
    "wasi": wasi,
    "threads": threads,
}
