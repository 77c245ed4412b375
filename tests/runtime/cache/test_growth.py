"""The cache grows with use: what a process compiled while it ran is there for the next, which decodes, validates and
compiles nothing that was compiled before; damaged entries are refused, and nobody's entry is undone by less."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge import Engine, Instance, Module, Store
from wasmforge.runtime.cache import grown, growth
from wasmforge.runtime.grown_image import Originals
from wasmforge.runtime.lazy_code import OPTIMISED
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.runtime.vm import traps
from wasmforge.store import _trap_class

from ...conftest import open_cache
from ...tiers import promote, tiers
from .modules import ROOT, child_environment

COUNT = 40


def text_of(seed: int = 0, padding: int = 0) -> str:
    """Functions f0.. that call the one before; one traps; memory, table and globals are there to be restored."""
    functions = "".join(
        f"""(func $f{k} (export "f{k}") (param i32) (result i32)
              (i32.add (i32.const {k + seed}) {f"(call $f{k - 1} (local.get 0))" if k else "(local.get 0)"}))"""
        for k in range(COUNT)
    )
    return f"""(module $grown
      (type $pair (func (param i64 f64) (result f64 i64)))
      (import "env" "host" (func $host (param i32) (result i32)))
      (memory (export "memory") {padding // 65536 + 1} 40) (data (i32.const 16) "growth{"w" * padding}")
      (data $passive "later")
      (table (export "table") 4 funcref) (elem (i32.const 1) $f0 $f1)
      (global $g (export "g") (mut i32) (i32.const {seed + 5}))
      {functions}
      (func (export "swap") (type $pair) (local v128 f32) (local.get 1) (local.get 0))
      (func (export "host") (param i32) (result i32) (call $host (local.get 0)))
      (func (export "indirect") (param i32) (result i32)
        (call_indirect (param i32) (result i32) (i32.const 7) (local.get 0)))
      (func (export "init") (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 5)))
      (func $divide (export "divide") (param i32) (result i32) (i32.div_s (i32.const 12) (local.get 0)))
      (func (export "sum") (param i32) (result i32) (local i32)
        (loop $l (local.set 1 (i32.add (local.get 1) (local.get 0)))
          (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (local.get 1)))"""


def expected(k: int, x: int, seed: int = 0) -> int:
    return sum(n + seed for n in range(k + 1)) + x


@pytest.fixture(autouse=True)
def ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not here: in place of the room's fixture."""
    monkeypatch.setattr(Engine, "_open_cache", open_cache)
    traps.set_trap_class(_trap_class)  # the room's tests look at what is below it
    monkeypatch.setattr(growth, "_spent", 0.0)
    monkeypatch.setattr(growth, "_FIRST_SECONDS", 1e9)


@pytest.fixture(params=["auto", "baseline"])
def make(request: pytest.FixtureRequest, engine_of: Callable[..., Engine]) -> Callable[..., Engine]:
    return lambda **settings: engine_of(**{"strategy": request.param, **settings})


class Run:
    """A module in a store of its own."""

    def __init__(self, engine: Engine, source: str | bytes) -> None:
        self.module = Module(engine, source)
        self.store = Store(engine)
        host = wasmforge.Func(
            self.store, wasmforge.FuncType([wasmforge.ValType.i32()], [wasmforge.ValType.i32()]), lambda x: 2 * x
        )
        self.exports = Instance(self.store, self.module, [host]).exports(self.store)

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self.exports[name](self.store, *arguments)

    @property
    def lazy(self) -> LazyModule:
        found = self.module._compiled
        assert isinstance(found, LazyModule)
        return found


def forget(run: Run) -> None:
    """The module goes, and what it compiled is kept."""
    run.__dict__.clear()
    gc.collect()


@pytest.fixture
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was decoded, validated or compiled."""
    from wasmforge import _lazy

    done: list[str] = []
    compile_ = _lazy.LazyFunctions.compile

    def compile_function(self: Any, defined: int) -> Any:
        done.append(f"compile {defined}")
        return compile_(self, defined)

    def parse(*arguments: Any) -> Any:
        done.append("parse")
        return parse_(*arguments)

    parse_ = _lazy.parse
    monkeypatch.setattr(_lazy.LazyFunctions, "compile", compile_function)
    monkeypatch.setattr(_lazy, "parse", parse)
    yield done


@pytest.mark.parametrize("padding", [0, 300_000], ids=["in memory", "mapped"])
def test_second_run(make: Callable[..., Engine], nothing_is_compiled: list[str], padding: int) -> None:
    """What one has compiled the next finds; what is new it compiles, and the third finds both."""
    done = nothing_is_compiled
    run = Run(make(), text_of(padding=padding))
    assert run("f10", 5) == expected(10, 5)
    assert run("host", 4) == 8 and run("swap", 3, 2.5) == [2.5, 3]
    assert len(done) == 1 + 11 + 2
    forget(run)
    done.clear()

    run = Run(make(), text_of(padding=padding))
    assert run("f10", 5) == expected(10, 5) and run("host", 4) == 8 and run("swap", 3, 2.5) == [2.5, 3]
    assert run.exports["memory"].read(run.store, 16, 22) == b"growth"
    assert run.exports["g"].value(run.store) == 5
    assert done == []
    assert run("f12", 5) == expected(12, 5) and run("indirect", 2) == expected(1, 7)
    with pytest.raises(wasmforge.Trap, match="divide by zero"):
        run("divide", 0)
    run("init")
    assert run.exports["memory"].read(run.store, 0, 5) == b"later"
    assert sorted(done) == sorted(f"compile {k}" for k in (11, 12, COUNT + 2, COUNT + 3, COUNT + 4))
    forget(run)
    done.clear()

    run = Run(make(), text_of(padding=padding))
    assert run("f12", 1) == expected(12, 1) and run("indirect", 1) == 7
    with pytest.raises(wasmforge.Trap, match="divide by zero") as trapped:
        run("divide", 0)
    assert [frame.func_name for frame in trapped.value.frames] == ["divide"]
    assert done == []


def test_positions_survive(make: Callable[..., Engine]) -> None:
    """A backtrace from kept code says what it said when the code was new."""

    def trap(run: Run) -> list[tuple[int, int]]:
        with pytest.raises(wasmforge.Trap) as trapped:
            run("divide", 0)
        frames: Any = trapped.value.frames
        return [(frame.func_index, frame.module_offset) for frame in frames]

    run = Run(make(), text_of())
    first = trap(run)
    assert first[0][1]
    forget(run)
    assert trap(Run(make(), text_of())) == first


def test_serialize(make: Callable[..., Engine]) -> None:
    """A module that came from the cache can be compiled ahead of time, though its binary is gone."""
    run = Run(make(), text_of())
    run("f3", 1)
    forget(run)
    engine = make()
    run = Run(engine, text_of())
    image = run.module.serialize()
    store = Store(engine)
    module = Module.deserialize(engine, image)
    host = wasmforge.Func(store, wasmforge.FuncType([wasmforge.ValType.i32()], [wasmforge.ValType.i32()]), lambda x: x)
    exports = Instance(store, module, [host]).exports(store)
    assert exports["f9"](store, 2) == expected(9, 2)
    exports["init"](store)
    assert exports["memory"].read(store, 0, 5) == b"later"
    assert exports["memory"].read(store, 16, 22) == b"growth"


def test_both_tiers(engine_of: Callable[..., Engine]) -> None:
    """Optimised code is kept like the other; functions that are not hot yet can become it later, in groups with kept
    callees."""
    settings = {"strategy": "auto", "tier_up_threshold": 1}
    run = Run(engine_of(**settings), text_of())
    assert run("f2", 1) == expected(2, 1)
    promote(run.module, [1])
    assert run("f2", 1) == expected(2, 1)
    forget(run)

    run = Run(engine_of(**settings), text_of())
    assert tiers(run.module)[1] == OPTIMISED
    assert run("f2", 1) == expected(2, 1)
    promote(run.module, [0, 1, 2, 3])
    assert run("f3", 1) == expected(3, 1) and run("sum", 100) == 5050
    forget(run)

    run = Run(engine_of(**settings), text_of())
    assert {x for x, tier in tiers(run.module).items() if tier == OPTIMISED} >= {0, 1, 2, 3}
    assert run("f3", 1) == expected(3, 1) and run("sum", 100) == 5050


def test_settings_do_not_mix(engine_of: Callable[..., Engine], nothing_is_compiled: list[str]) -> None:
    """Code with counters, without, and for other tunables is other code."""
    for settings in (
        {"strategy": "baseline"},
        {"strategy": "auto"},
        {"strategy": "auto", "tier_up_threshold": 77},
        {"strategy": "baseline", "consume_fuel": True},
    ):
        nothing_is_compiled.clear()
        engine = engine_of(**settings)
        module = Module(engine, text_of())
        assert nothing_is_compiled == ["parse"]
        assert isinstance(module._compiled, LazyModule)
        module._compiled.compiled_function(0)
        del module
        gc.collect()


def _entry(directory: Path) -> Path:
    (found,) = directory.glob("*.cwasm")
    return found


@pytest.mark.parametrize("padding", [0, 300_000], ids=["in memory", "mapped"])
def test_damage(make: Callable[..., Engine], directory: Path, padding: int) -> None:
    """Threat: a bit that flipped on disk becomes part of machine code, of a memory, or of a body that is compiled.
    Wherever it is, the entry is refused."""
    run = Run(make(), text_of(padding=padding))
    run("f5", 1)
    forget(run)
    path = _entry(directory)
    good = path.read_bytes()
    places = {*range(0, 64, 9), *range(64, len(good), max(len(good) // 60, 1)), *range(len(good) - 60, len(good), 7)}
    for place in sorted(places):
        bad = bytearray(good)
        bad[place] ^= 0x10
        path.write_bytes(bad)
        path.chmod(0o600)
        module = Module(make(), text_of(padding=padding))
        assert isinstance(module._compiled, LazyModule)
        kept: Any = module._compiled.kept
        # Padding between the parts says nothing; everything else is covered.
        assert kept.identity is None or not any(good[place : place + 1]), f"byte {place} of {len(good)}"
    for length in (0, 10, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        path.chmod(0o600)
        run = Run(make(), text_of(padding=padding))
        assert run("f5", 1) == expected(5, 1)
        assert run.module._compiled.kept.identity is None  # type: ignore[union-attr]
        run.lazy.kept = None


def test_less_does_not_replace_more(make: Callable[..., Engine], directory: Path) -> None:
    """Two processes that started without an entry: the one that ends later, with less, leaves the other's."""
    long, short = Run(make(), text_of()), Run(make(), text_of())
    long("f20", 1)
    short("f2", 1)
    forget(long)
    before = _entry(directory).stat().st_ino
    forget(short)
    assert _entry(directory).stat().st_ino == before
    found = grown.count_functions(os.open(directory, os.O_RDONLY), _entry(directory).name)
    assert found == (21, 0, COUNT + 6)


def test_nothing_new_writes_nothing(make: Callable[..., Engine], directory: Path) -> None:
    run = Run(make(), text_of())
    run("f2", 1)
    forget(run)
    before = _entry(directory).stat().st_ino
    run = Run(make(), text_of())
    run("f2", 1)
    forget(run)
    assert _entry(directory).stat().st_ino == before


def test_kept_while_it_runs(make: Callable[..., Engine], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never ends leaves what it has compiled too."""
    monkeypatch.setattr(growth, "_EVERY", 0.0)
    run = Run(make(), text_of())
    run("f2", 1)
    assert _entry(directory)
    assert run("f3", 1) == expected(3, 1)


def test_bounded_time(make: Callable[..., Engine], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping stops when it has taken its part of the process's time."""
    monkeypatch.setattr(growth, "_spent", 1e10)
    run = Run(make(), text_of())
    run("f2", 1)
    forget(run)
    assert not list(directory.glob("*.cwasm"))


def test_noexec(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system refuses to map code, its bytes are copied."""
    from wasmforge.runtime import code_region

    run = Run(make(), text_of(padding=300_000))
    run("f5", 1)
    forget(run)
    map_fixed = code_region.map_fixed

    def refused(*arguments: Any, shared: bool = False) -> None:
        if not shared:
            raise PermissionError(1, "Operation not permitted")
        map_fixed(*arguments, shared=shared)

    monkeypatch.setattr(code_region, "map_fixed", refused)
    run = Run(make(), text_of(padding=300_000))
    assert run.lazy.kept.identity is not None  # type: ignore[union-attr]
    assert run("f5", 1) == expected(5, 1) and run("f6", 1) == expected(6, 1)


def test_after_fork(make: Callable[..., Engine]) -> None:
    """A child goes on with the code that its parent has from the file, and the parent does not see what it adds."""
    run = Run(make(), text_of(padding=300_000))
    run("f5", 1)
    forget(run)
    run = Run(make(), text_of(padding=300_000))
    child = os.fork()
    if not child:
        try:
            os._exit(0 if run("f8", 1) == expected(8, 1) and run("f5", 2) == expected(5, 2) else 1)
        finally:
            os._exit(2)  # whatever was raised: nobody else may go on in this process
    assert run("f9", 1) == expected(9, 1)
    assert os.waitpid(child, 0)[1] == 0
    assert run("f8", 1) == expected(8, 1)


def test_threads(make: Callable[..., Engine]) -> None:
    """Several threads use a restored module first at the same time."""
    run = Run(make(), text_of())
    run("f5", 1)
    forget(run)
    engine = make()
    module = Module(engine, text_of())
    wrong: list[object] = []

    def work(k: int) -> None:
        store = Store(engine)
        host = wasmforge.Func(
            store, wasmforge.FuncType([wasmforge.ValType.i32()], [wasmforge.ValType.i32()]), lambda x: x
        )
        exports = Instance(store, module, [host]).exports(store)
        wrong.extend((k, x) for x in range(k, COUNT, 2) if exports[f"f{x}"](store, k) != expected(x, k))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


SCRIPT = """
import sys
before = set(sys.modules)
import wasmforge
engine = wasmforge.Engine()
store = wasmforge.Store(engine)
module = wasmforge.Module.from_file(engine, sys.argv[1])
assert wasmforge.Instance(store, module, []).exports(store)["twice"](store, 21) == 42
print(*(name for name in set(sys.modules) - before))
"""

PHASES = ("wasmforge.text", "wasmforge.binary", "wasmforge.validation", "wasmforge.compiler.llvm",
          "wasmforge.compiler.baseline", "wasmforge._lazy", "wasmforge._tier_up", "llvmlite")  # fmt: skip

LIBRARIES = {"subprocess", "logging", "dataclasses", "typing", "re", "enum", "contextlib", "pathlib", "tempfile"}


def test_a_warm_process_loads_no_compiler(directory: Path, tmp_path: Path) -> None:
    """The second process that runs a program with the default settings decodes, validates and compiles nothing, and
    loads nothing that could."""
    path = tmp_path / "twice.wasm"
    path.write_bytes(
        wasmforge.wat2wasm(
            """(module (func (export "twice") (param i32) (result i32) (call $d (local.get 0)))
                 (func $d (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2))))"""
        )
    )
    os.utime(path, (1e9, 1e9))

    def loaded() -> set[str]:
        result = subprocess.run(
            [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + SCRIPT, str(path)],
            env=child_environment(directory),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return set(result.stdout.split())

    assert "wasmforge.compiler.baseline.function" in loaded(), "the first compiles"
    warm = loaded()
    assert not {name for name in warm if name in LIBRARIES or name.startswith(PHASES)}


def test_killed_while_writing(directory: Path) -> None:
    """Threat: a process that is killed at any moment of its end leaves half an entry under the name of a whole one."""
    script = f"""
import os, signal
from wasmforge.runtime.cache import storing
def stop(fd, data):
    os.write(fd, memoryview(data)[:100])
    os.kill(os.getpid(), signal.SIGKILL)
storing._write_all = stop
from wasmforge import *
engine = Engine()
store = Store(engine)
assert Instance(store, Module(engine, {text_of_answer()!r}), []).exports(store)["answer"](store) == 42
"""
    result = subprocess.run([sys.executable, "-c", script], env=child_environment(directory), cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    assert not list(directory.glob("*.cwasm")) and len(list(directory.glob("*.tmp"))) == 1


def text_of_answer() -> str:
    return '(module (func (export "answer") (result i32) (i32.const 42)))'


def test_the_checksum_of_originals_is_over_every_part_of_a_file() -> None:
    """They are read in parts, into one buffer."""
    data = bytearray(os.urandom(5 << 19))
    sound = Originals.of(data).checksum()
    assert sound == Originals.of(data).checksum()
    for place in (0, (1 << 20) - 1, 1 << 20, (2 << 20) + 5, len(data) - 1):
        data[place] ^= 1
        assert Originals.of(data).checksum() != sound, f"byte {place}"
        data[place] ^= 1
    assert Originals.of(data[:-1]).checksum() != sound
