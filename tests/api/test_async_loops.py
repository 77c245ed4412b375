"""Asynchronous calls under real event loops: uvloop, Ctrl-C under `asyncio.run`; nothing is left of many calls."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

import wasmforge
from tests.api.test_async import I32, TEXT, guest, later
from wasmforge import Engine, Func, FuncType, Instance, Module, Store


def test_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed: pip install uvloop")

    async def main() -> list[Any]:
        app = await wasmforge.load_async(TEXT, {"": {"f": later}})
        first = await app.sum(50)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await (await wasmforge.load_async(TEXT, {"": {"f": lambda x: asyncio.sleep(60)}})).deep(5)
        engine = Engine()
        stores = [Store(engine) for _ in range(5)]
        calls = [guest(store, later)["sum"].call_async(store, 10) for store in stores]
        return [first, *await asyncio.gather(*calls)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [2550] + [110] * 5


def test_interrupt_of_a_guest_under_asyncio_run() -> None:
    """asyncio's handler cancels the main task at the first Ctrl-C and raises at the second, also out of an endless loop
    in wasm, although it was installed after the module was loaded."""
    script = """
import asyncio, wasmforge
app = wasmforge.load('''(module (func (export "forever") (loop $l (br $l)))
  (func (export "one") (result i32) i32.const 1))''')
async def main():
    print("running", flush=True)
    try:
        await wasmforge.call_async(app.forever)
    except KeyboardInterrupt:
        print("interrupted", app.one(), flush=True)
        raise
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    lines: list[str] = []
    deadline = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < deadline:
        os.kill(child.pid, signal.SIGINT)
        try:
            child.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    lines = child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    assert lines[0] == "interrupted 1"


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_nothing_is_left_of_calls_that_end_in_any_way(engine: Engine) -> None:
    """Rounds of suspended calls that return, raise, are thrown at, closed and dropped, stores included."""
    module = Module(engine, TEXT)
    thing = object()

    class Suspend:
        def __await__(self) -> Any:
            return (yield thing)

    async def host(x: int) -> int:
        return int(await Suspend())

    def one_round() -> None:
        for how in ("return", "raise", "close", "drop", "wrong"):
            store = Store(engine)
            f = Func(store, FuncType([I32], [I32]), host)
            exports: Any = Instance(store, module, [f]).exports(store)
            call = exports["deep"].call_async(store, 20)
            assert call.send(None) is thing
            if how == "return":
                with pytest.raises(StopIteration):
                    call.send(5)
            elif how == "raise":
                with pytest.raises(KeyError):
                    call.throw(KeyError())
            elif how == "wrong":
                with pytest.raises(ValueError):
                    call.send("text")
            elif how == "close":
                call.close()
            del call

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    for _ in range(20):
        one_round()
    before, references, memory = blocks(), sys.getrefcount(thing), resident()
    for _ in range(100):
        one_round()
    assert blocks() - before < 200
    assert sys.getrefcount(thing) == references
    assert resident() - memory < 8 << 20
