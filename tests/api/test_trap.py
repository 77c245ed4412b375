"""Traps and exceptions as the embedder sees them: codes, frames, texts, and their travel out of the process."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from wasmforge import (
    Config,
    Engine,
    ExitTrap,
    Func,
    FuncType,
    Instance,
    Limits,
    Memory,
    MemoryType,
    Module,
    SharedMemory,
    Store,
    Trap,
    TrapCode,
    WasmtimeError,
)
from wasmforge.compiler.trap import TrapKind
from wasmforge.instance import InstanceExports

Instantiate = Callable[..., InstanceExports]

RECURSE = (
    '(module $deep (func $f (export "f") (param i32) (result i32) (i32.add (i32.const 1) (call $f (local.get 0)))))'
)


def test_codes_have_wasmtimes_numbers() -> None:
    assert [(code.name, code.value) for code in TrapCode] == [(kind.name, kind.value) for kind in TrapKind]
    assert TrapCode(9) is TrapCode.UNREACHABLE


def test_an_exhausted_stack(store: Store, instantiate: Instantiate) -> None:
    """Again and again, and the store stays usable. The backtrace is cut, and says by how much."""
    f = instantiate(RECURSE)["f"]
    for _ in range(50):
        with pytest.raises(Trap, match="wasm trap: call stack exhausted") as caught:
            f(store, 1)
    assert caught.value.trap_code is TrapCode.STACK_OVERFLOW
    frames = caught.value.frames
    assert 32 <= len(frames) <= 256
    assert {frame.func_name for frame in frames} == {"f"}
    assert "more frames" in str(caught.value)
    assert instantiate('(module (func (export "g") (result i32) (i32.const 4)))')["g"](store) == 4


def test_host_traps_keep_their_own_text(store: Store) -> None:
    """What a host function raises is what arrives, the very object; WebAssembly frames come as a note."""
    module = Module(store.engine, '(module $m (import "" "" (func $h)) (func $g (export "g") (call $h)))')
    own = Trap("my own")

    def fail() -> None:
        raise own

    g = Instance(store, module, [Func(store, FuncType([], []), fail)]).exports(store)["g"]
    with pytest.raises(Trap) as caught:
        g(store)
    assert caught.value is own
    assert (str(own), own.message, own.frames, own.trap_code) == ("my own", "my own", [], None)
    assert "m!g" in own.__notes__[0]


def test_frames_are_shown(store: Store, instantiate: Instantiate) -> None:
    x = instantiate('(module $m (func $inner unreachable) (func (export "outer") (call $inner)))')
    with pytest.raises(Trap) as caught:
        x["outer"](store)
    inner, outer = caught.value.frames
    assert (inner.func_index, inner.func_name, inner.module_name) == (0, "inner", "m")
    assert (outer.func_index, outer.func_name, outer.module_name) == (1, None, "m")
    assert inner.module_offset > outer.func_offset > 0
    assert repr(inner) == f"<Frame m!inner at {inner.module_offset:#x}>"
    assert repr(outer).startswith("<Frame m!<wasm function 1> at ")


@pytest.mark.parametrize("strategy", ["llvm", "baseline"])
def test_the_place_of_a_fault_is_that_of_the_trap(strategy: str) -> None:
    """In which memory, and how long that was then: also when it has grown since, and when the store has gone."""
    config = Config()
    config.strategy = strategy
    config.shared_memory = True
    store = Store(Engine(config))
    module = Module(
        store.engine,
        """(module (import "" "shared" (memory $shared 2 4 shared)) (memory $own (export "own") 1)
             (func (export "shared") (drop (i32.load $shared (i32.const -4))))
             (func (export "own_load") (drop (i32.load $own (i32.const 0x20000)))))""",
    )
    shared = SharedMemory(store.engine, MemoryType(Limits(2, 4), shared=True))
    exports = Instance(store, module, [shared]).exports(store)
    own = exports["own"]
    assert isinstance(own, Memory)
    traps = []
    for _ in range(2):
        for name in ("own_load", "shared"):
            with pytest.raises(Trap) as caught:
                exports[name](store)
            traps.append(caught.value)
        own.grow(store, 1)
        shared.grow(1)
    del caught, exports, own, store, shared
    gc.collect()
    places = [str(trap).split("memory fault at ")[1].split("\n")[0] for trap in traps]
    assert places == [
        "wasm address 0x20000 in linear memory of size 0x10000",
        "wasm address 0xfffffffc in linear memory of size 0x20000",
        "wasm address 0x20000 in linear memory of size 0x20000",
        "wasm address 0xfffffffc in linear memory of size 0x30000",
    ]


def test_traps_are_pickled_and_copied(store: Store, instantiate: Instantiate) -> None:
    x = instantiate('(module $m (func $f (export "f") (drop (i32.load (i32.const -1)))) (memory 1))')
    with pytest.raises(Trap) as caught:
        x["f"](store)
    trap = caught.value
    for other in (pickle.loads(pickle.dumps(trap)), copy.copy(trap), pickle.loads(pickle.dumps(copy.deepcopy(trap)))):
        assert isinstance(other, Trap)
        assert str(other) == str(trap)
        assert other.trap_code is TrapCode.MEMORY_OUT_OF_BOUNDS
        assert [f.func_name for f in other.frames] == ["f"]
        assert other.frames[0].module_offset == trap.frames[0].module_offset
    plain = pickle.loads(pickle.dumps(Trap("plain")))
    assert (str(plain), plain.frames, plain.trap_code) == ("plain", [], None)


def test_exit_traps() -> None:
    trap = ExitTrap("Exited with i32 exit status 3", 3)
    assert isinstance(trap, WasmtimeError)
    assert (trap.code, str(trap)) == (3, "Exited with i32 exit status 3")
    assert not hasattr(ExitTrap("without"), "code"), "as in the wasmtime package"


def test_wrong_messages() -> None:
    with pytest.raises(TypeError):
        Trap(1)  # type: ignore[arg-type]


LOOP = """(module (import "" "ready" (func $ready)) (func (export "spin") (call $ready) (loop (br 0)))
  (func (export "fine") (result i32) (i32.const 7)))"""


def test_ctrl_c_ends_an_endless_loop(store: Store) -> None:
    """KeyboardInterrupt, at once, through the API, and the store goes on. Another process sends the signal: the loop
    holds the GIL, so no thread of this one could."""
    processes: list[subprocess.Popen[bytes]] = []

    def ready() -> None:
        processes.append(subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -INT {os.getpid()}"]))

    exports = Instance(store, Module(store.engine, LOOP), [Func(store, FuncType([], []), ready)]).exports(store)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            exports["spin"](store)
        assert exports["fine"](store) == 7
    for process in processes:
        process.wait()


def test_a_signal_handler_can_end_a_loop(store: Store) -> None:
    """A time limit, the way it is written for any Python code."""

    class TooLongError(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        ready = Func(store, FuncType([], []), lambda: signal.setitimer(signal.ITIMER_REAL, 0.05) and None)
        exports = Instance(store, Module(store.engine, LOOP), [ready]).exports(store)
        with pytest.raises(TooLongError):
            exports["spin"](store)
        assert exports["fine"](store) == 7
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_uncaught_trap_is_readable() -> None:
    code = "import wasmforge\nwasmforge.load('(module $m (func $f (export \"f\") unreachable))').f()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "wasmforge.trap.Trap: error while executing at wasm backtrace:\n    0:" in result.stderr
    assert "m!f" in result.stderr
    assert result.stderr.rstrip().endswith("wasm trap: wasm `unreachable` instruction executed")
    assert "Exception ignored" not in result.stderr
