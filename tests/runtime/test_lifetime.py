"""What lives how long, attacked: views that outlive the store, functions that outlive their instance, callables that
nobody else holds, finalisers that call into a dying store, and many stores that must leave nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.compiling import Workshop, image
from tests.runtime.mappings import is_mapped, maps
from wasmforge.compiler.environ import Tunables
from wasmforge.runtime import CompiledModule, EngineState, VMStore, lifetime
from wasmforge.runtime.code_registry import lookup_code
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import EXTERNREF, FUNCREF, I32, FuncType, GlobalType, Limits, MemoryType, TableType

TEXT = """(module (import "" "h" (func $h (param i32) (result i32))) (memory (export "m") 1) (data (i32.const 0) "data")
  (table (export "t") 2 funcref) (table (export "x") 2 externref) (elem (i32.const 0) func $f)
  (func $f (export "f") (param i32) (result i32) (call $h (local.get 0)))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "echo") (param externref) (result externref) (local.get 0))
  (func (export "keep") (param i32 externref) (table.set 1 (local.get 0) (local.get 1)))
  (func (export "trap") unreachable))"""


class Guest:
    """A store with an instance of TEXT; host function `h` adds 1."""

    def __init__(self) -> None:
        self.engine = EngineState(Tunables())
        self.module = CompiledModule.from_bytes(self.engine, image(TEXT))
        self.store = VMStore(self.engine)
        host = self.store.new_function(FuncType((I32,), (I32,)), lambda x: x + 1)
        self.instance = self.store.instantiate(self.module, [host])

    def function(self, name: str) -> Any:
        return self.instance.export(name).make_callable()  # type: ignore[union-attr]


def use_badly(guest: Guest) -> None:
    """A trap, a fault, an exception of a host function, and a link that fails."""

    def fail(_: int) -> int:
        raise ValueError

    host = guest.store.new_function(FuncType((I32,), (I32,)), fail)
    failing: Any = guest.store.instantiate(guest.module, [host]).export("f")
    with pytest.raises(WasmtimeError, match="unreachable"):
        guest.function("trap")()
    with pytest.raises(WasmtimeError, match="out of bounds"):
        guest.function("load")(-1)
    with pytest.raises(ValueError):
        failing.make_callable()(1)
    with pytest.raises(WasmtimeError, match="expected 1 imports"):
        guest.store.instantiate(guest.module, [])


def test_dropping_the_last_handle_frees_everything_at_once() -> None:
    """Also after traps and exceptions: none of our frames may hold them in a cycle."""

    gc.disable()
    try:
        guest = Guest()
        memory: Any = guest.instance.export("m")
        assert guest.function("f")(1) == 2
        use_badly(guest)
        addresses = [memory.base, guest.instance.vmctx, guest.store.context.address]
        text = guest.module.engine_code.text_range().start.raw()
        store = weakref.ref(guest.store)
        del memory, guest
        assert store() is None
        assert not any(map(is_mapped, addresses))
        assert lookup_code(text) is None
        assert not is_mapped(text)
    finally:
        gc.enable()


@pytest.mark.parametrize("holder", ["function", "instance", "callable", "bound view"])
def test_any_handle_that_can_run_code_keeps_the_store(holder: str) -> None:
    def make() -> Any:
        guest = Guest()
        instance: Any = guest.instance
        kept = {
            "function": instance.export("f"),
            "instance": instance,
            "callable": guest.function("f"),
            "bound view": (instance.export("m").view(), guest.function("load")),
        }[holder]
        return weakref.ref(guest.store), kept

    store, kept = make()
    gc.collect()
    assert store() is not None
    if holder == "callable":
        assert kept(5) == 6
    elif holder == "bound view":
        kept[0][9] = 77
        assert kept[1](9) == 77
    else:
        function = kept if holder == "function" else kept.export("f")
        assert function.make_callable()(7) == 8
        del function
    del kept
    assert store() is None


def test_views_outlive_the_store() -> None:
    """Attack: use after free through a view of a memory whose store is gone."""
    guest = Guest()
    memory: Any = guest.instance.export("m")
    view = memory.view()
    small = view[2:4]
    base = memory.base
    del guest, memory, view
    gc.collect()
    others = [VMStore(EngineState(Tunables())).new_memory(MemoryType(Limits(1, None))) for _ in range(20)]
    assert all(m.base != base for m in others)
    assert bytes(small) == b"ta"
    small[0] = 1
    del small
    assert not is_mapped(base)


def test_memory_handle_without_its_store() -> None:
    guest = Guest()
    memory: Any = guest.instance.export("m")
    table: Any = guest.instance.export("t")
    store_id = memory.store_id
    del guest
    gc.collect()
    assert memory.read(0, 4) == b"data"
    assert memory.grow(1) == 1
    memory.write(b"x", 2 * 65536 - 1)
    with pytest.raises(WasmtimeError, match="the store is gone"):
        table.get(0)  # would be a function of that store
    assert table.get_raw(1) == 0
    other = VMStore(EngineState(Tunables()))
    assert other.id != store_id


def test_functions_work_after_their_instance_is_dropped() -> None:
    """Attack: a funcref in a host table whose instance nobody holds."""
    workshop = Workshop()
    table = workshop.store.new_table(TableType(FUNCREF, Limits(1, None)))
    text = """(module (import "" "t" (table 1 funcref)) (memory 1) (data (i32.const 8) "\\2a")
      (func $f (result i32) (i32.load8_u (i32.const 8))) (elem (i32.const 0) $f))"""
    workshop.instance(text, table)
    gc.collect()
    for _ in range(10):
        workshop.instance("(module (memory 1))")
    function: Any = table.get(0)
    assert function.make_callable()() == 42


def test_callables_are_kept_while_wasm_can_call_them() -> None:
    """Attack: a host callable to which only the store's native record refers."""

    class Callable:
        def __call__(self, x: int) -> int:
            return x * 3

    workshop = Workshop()
    callable_ = Callable()
    alive = weakref.ref(callable_)
    host = workshop.store.new_function(FuncType((I32,), (I32,)), callable_)
    text = """(module (import "" "h" (func $h (param i32) (result i32))) (export "h" (func $h))
      (func (export "f") (result i32) (call $h (i32.const 5))))"""
    functions = workshop.functions(text, host)
    del callable_, host
    gc.collect()
    assert functions.f() == 15
    assert alive() is not None
    del functions, workshop
    gc.collect()
    assert alive() is None


def test_a_store_in_a_cycle_through_its_host_function_is_collected() -> None:
    def make() -> tuple[Any, int]:
        guest = Guest()
        store = guest.store
        store.new_function(FuncType((), ()), lambda: store)
        memory: Any = guest.instance.export("m")
        return weakref.ref(store), memory.base

    store, base = make()
    assert store() is not None
    gc.collect()
    assert store() is None
    assert not is_mapped(base)


class Finaliser:
    """An object in the same cycle of garbage as a store, whose finaliser uses everything of it."""

    def __init__(self, guest: Guest, log: list[str]) -> None:
        self.me = self
        self.guest = guest
        self.log = log
        self.functions = {name: guest.function(name) for name in ("f", "load", "grow", "trap", "echo")}
        self.memory: Any = guest.instance.export("m")
        self.view = self.memory.view()
        self.table: Any = guest.instance.export("t")

    def __del__(self) -> None:
        log = self.log
        log.append(f"view {bytes(self.view[:4])!r}")
        self.view[100] = 1
        self.memory.grow(1)
        self.memory.write(b"y", 65536 + 5)
        for name, function in self.functions.items():
            for argument in (3, 10**6):
                try:
                    function(*(() if name == "trap" else (argument,)))
                    log.append(f"{name} returned")
                except Exception as e:
                    log.append(f"{name} {type(e).__name__}")
        for use in (lambda: self.table.get(0), lambda: self.guest.store.instantiate(self.guest.module, [])):
            try:
                use()
                log.append("used")
            except Exception as e:
                log.append(type(e).__name__)


@pytest.mark.parametrize("order", ["before", "after", "between"])
def test_finalisers_in_the_garbage_of_a_store_cannot_crash(order: str) -> None:
    """Attack: `__del__` methods run before anything of the cycle is freed, in the order of creation; whatever they call
    must work or raise. Objects are created before, after and between engine, module and store, to be finalised in all
    orders."""
    for _ in range(10):
        log: list[str] = []
        early = [Finaliser.__new__(Finaliser) for _ in range(2)] if order != "after" else []
        guest = Guest()
        between = [Finaliser.__new__(Finaliser)] if order == "between" else []
        finalisers = early + between + [Finaliser.__new__(Finaliser)]
        for finaliser in finalisers:
            finaliser.__init__(guest, log)  # type: ignore[misc]
        # The store refers to a finaliser, so that all of them are garbage only together.
        guest.store.keep_alive(finalisers)
        base = finalisers[0].memory.base
        count = len(finalisers)
        del guest, finalisers, finaliser, early, between
        gc.collect()
        gc.collect()  # what the finalisers made holds some of it until now
        assert log.count("view b'data'") == count
        assert len(log) == 13 * count
        assert not is_mapped(base)


def test_a_resurrected_store_refuses_to_run() -> None:
    """Attack: a finaliser that hands the store out again after its stack went back to the pool."""
    saved: list[Any] = []

    class Resurrector:
        def __init__(self, guest: Guest) -> None:
            self.me, self.guest, self.f, self.view = self, guest, guest.function("f"), guest.instance.export("m").view()  # type: ignore[union-attr]

        def __del__(self) -> None:
            saved.append((self.guest, self.f, self.view))

    guest = Guest()
    guest.store.keep_alive(Resurrector(guest))
    del guest
    gc.collect()
    ((guest, f, view),) = saved
    saved.clear()
    for _ in range(5):
        with pytest.raises(WasmtimeError):
            f(1)
        with pytest.raises(WasmtimeError):
            guest.store.instantiate(guest.module, [])
        with pytest.raises(WasmtimeError):
            VMStore(guest.engine).instantiate(guest.module, [])
        Guest().function("f")(1)
    assert bytes(view[:4]) == b"data"


def test_deep_recursion_after_many_stores_uses_the_right_stacks() -> None:
    engine = EngineState(Tunables())
    module = CompiledModule.from_bytes(
        engine,
        image(
            '(module (func $r (export "r") (param i32) (result i32) (if (result i32) (local.get 0) (then '
            "(i32.add (i32.const 1) (call $r (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 0)))))"
        ),
    )
    kept = []
    for k in range(100):
        store = VMStore(engine)
        run = store.instantiate(module, []).export("r").make_callable()  # type: ignore[union-attr]
        assert run(2000) == 2000
        if k % 3 == 0:
            kept.append(run)
    assert all(run(2000) == 2000 for run in kept)


def test_stores_dropped_at_the_recursion_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: at the recursion limit no `__del__` can run. What the stores leave registered must not get into the way
    of others at the same addresses, and is found later."""
    failed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: failed.append(info.exc_type))
    guests = [Guest() for _ in range(40)]
    drop = guests.pop

    def dive() -> None:
        try:
            dive()
        except RecursionError:
            if guests:
                drop()
            raise

    while guests:
        with pytest.raises(RecursionError):
            dive()
    assert RecursionError in failed
    left = len(lifetime._undo)
    assert left > 20
    kept = [Guest() for _ in range(40)]
    assert all(guest.function("f")(3) == 4 for guest in kept)
    del kept
    gc.collect()
    lifetime.undo_left_behind()
    assert len(lifetime._undo) < left
    before = len(maps())
    for _ in range(600):  # found without asking, too
        Guest()
    assert len(lifetime._undo) < 300
    assert len(maps()) < before + 50


# --- Externrefs ----------------------------------------------------------------------------------------------------


class Thing:
    pass


def test_externrefs_are_collected_without_the_host_asking() -> None:
    guest = Guest()
    echo = guest.function("echo")
    alive = []
    for _ in range(20_000):
        thing = Thing()
        if len(alive) < 5000:
            alive.append(weakref.ref(thing))
        assert echo(thing) is thing
    del thing
    assert len(guest.store.externrefs) < 5000
    guest.store.gc()
    assert len(guest.store.externrefs) == 0
    assert not any(ref() for ref in alive)


def test_externrefs_that_wasm_holds_stay() -> None:
    """Attack: a handle that is freed although a table, a global or a segment has it would name another object."""
    guest = Guest()
    keep, echo = guest.function("keep"), guest.function("echo")
    cell = guest.store.new_global(GlobalType(EXTERNREF, True), Thing())
    host_table = guest.store.new_table(TableType(EXTERNREF, Limits(1, None)), Thing())
    in_cell = weakref.ref(cell.get())
    things = []
    for _ in range(2):
        thing = Thing()
        keep(0, thing)
        things.append(weakref.ref(thing))
        del thing
    for _ in range(5000):
        echo(Thing())
    guest.store.gc()
    table: Any = guest.instance.export("x")
    assert things[0]() is None
    assert things[1]() is table.get(0) is not None
    assert in_cell() is cell.get() is not None
    assert isinstance(host_table.get(0), Thing)
    assert len(guest.store.externrefs) == 3
    keep(0, None)
    cell.set(None)
    guest.store.gc()
    assert things[1]() is in_cell() is None


def test_arguments_survive_a_sweep_between_them() -> None:
    """Attack: converting the second argument starts a sweep while nothing but the caller holds the first."""
    workshop = Workshop()
    m = workshop.functions(
        '(module (func (export "pair") (param externref externref) (result externref externref)'
        " (local.get 0) (local.get 1)))"
    )
    for k in range(4000):
        a, b = m.pair([k], [k + 1])
        assert (a, b) == ([k], [k + 1])


def test_no_sweep_while_wasm_is_active() -> None:
    """Attack: the host, called by wasm, makes so many references that a sweep is due; wasm still holds one in a
    local."""
    workshop = Workshop()
    store = workshop.store
    others: Any = None

    def churn() -> None:
        for _ in range(3000):
            others(Thing())
        store.gc()

    host = store.new_function(FuncType((), ()), churn)
    m = workshop.functions(
        """(module (import "" "churn" (func $churn))
          (func (export "echo") (param externref) (result externref) (local.get 0))
          (func (export "hold") (param externref) (result externref) (call $churn) (local.get 0)))""",
        host,
    )
    others = m.echo
    assert isinstance(m.hold(Thing()), Thing)


def test_an_externref_finaliser_that_calls_the_store() -> None:
    """Attack: freeing handles runs `__del__`, which makes and frees references in the middle of the sweep."""
    guest = Guest()
    echo = guest.function("echo")
    runs = []

    class Evil:
        def __del__(self) -> None:
            fresh = Thing()
            assert echo(fresh) is fresh
            runs.append(1)
            if len(runs) % 100 == 0:
                guest.store.gc()

    for _ in range(3000):
        echo(Evil())
    guest.store.gc()
    assert len(runs) > 2000
    kept = [Thing() for _ in range(10)]
    assert [echo(t) for t in kept] == kept


# --- Many ----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Pages of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_many_stores_leave_nothing_behind() -> None:
    engine = EngineState(Tunables())
    module = CompiledModule.from_bytes(engine, image(TEXT))

    def run(n: int) -> None:
        for _ in range(n):
            store = VMStore(engine)
            host = store.new_function(FuncType((I32,), (I32,)), lambda x: x)
            instance = store.instantiate(module, [host])
            instance.export("f").make_callable()(3)  # type: ignore[union-attr]
            instance.export("m").view()[5] = 1  # type: ignore[union-attr]

    run(500)
    gc.collect()
    mappings, pages, objects, files = len(maps()), resident(), len(gc.get_objects()), len(os.listdir("/proc/self/fd"))
    run(3000)
    gc.collect()
    assert len(maps()) <= mappings + 5
    assert resident() <= pages + 500  # 2 MB
    assert len(gc.get_objects()) <= objects + 100
    assert len(os.listdir("/proc/self/fd")) <= files


def test_many_modules_leave_nothing_behind() -> None:
    data = image('(module (memory 2) (data (i32.const 0) "a") (data (i32.const 100000) "b") (func (export "f")))')
    engine = EngineState(Tunables())

    def run(n: int) -> None:
        for _ in range(n):
            module = CompiledModule.from_bytes(engine, data)
            VMStore(engine).instantiate(module, []).export("f").make_callable()()  # type: ignore[union-attr]

    run(50)
    mappings, files = len(maps()), len(os.listdir("/proc/self/fd"))
    run(500)
    assert len(maps()) <= mappings + 5
    assert len(os.listdir("/proc/self/fd")) <= files
    assert len(engine.types) == 0


def test_stores_come_and_go_in_threads() -> None:
    engine = EngineState(Tunables())
    module = CompiledModule.from_bytes(engine, image(TEXT))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for k in range(150):
                store = VMStore(engine)
                host = store.new_function(FuncType((I32,), (I32,)), lambda x, k=k: x + k)
                instance = store.instantiate(module, [host])
                if k % 7 == seed:
                    store.keep_alive(instance)  # a cycle, for the garbage collector
                assert instance.export("f").make_callable(release_gil=k % 2 == 0)(seed) == seed + k  # type: ignore[union-attr]
                with pytest.raises(WasmtimeError):
                    instance.export("load").make_callable()(-1)  # type: ignore[union-attr]
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
    assert not failures


def test_a_store_that_another_thread_runs_is_not_changed() -> None:
    """Attack: wasm without the GIL reads a table while another thread grows it, or enters, or instantiates."""
    workshop = Workshop()
    store = workshop.store
    m = workshop.instance(
        """(module (memory (export "m") 1) (table (export "t") 1 externref)
          (func (export "wait") (result i32) (loop $l (br_if $l (i32.eqz (i32.load8_u (i32.const 0))))) (i32.const 7))
          (func (export "f")))"""
    )
    wait = m.export("wait").make_callable(release_gil=True)  # type: ignore[union-attr]
    memory: Any = m.export("m")
    table: Any = m.export("t")
    view = memory.view()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(wait()))
    thread.start()
    while not store.context.is_active():
        pass
    try:
        for use in (
            lambda: table.grow(1, None),
            m.export("f").make_callable(),  # type: ignore[union-attr]
            lambda: workshop.instance("(module)"),
        ):
            with pytest.raises(WasmtimeError, match="running on another thread"):
                use()
        assert memory.grow(1) == 1
    finally:
        view[0] = 1
        thread.join()
    assert results == [7]
    assert table.grow(1, None) == 1
    m.export("f").make_callable()()  # type: ignore[union-attr]


def test_a_process_that_ends_with_everything_alive() -> None:
    """Finalisers at interpreter shutdown, when modules are already being taken apart."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.runtime.test_lifetime import Guest, Finaliser
guest = Guest()
guest.store.keep_alive(Finaliser(guest, []))
other = Guest()
f = other.function("f")
view = other.instance.export("m").view()
print(f(4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "5\n", "")


EXHAUST = """
import gc, resource, sys
sys.path.insert(0, {root!r})
from tests.runtime.test_lifetime import *

engine = EngineState(Tunables())
module = CompiledModule.from_bytes(engine, image("(module (memory 1) (func (export \\"f\\")))"))
VMStore(engine).instantiate(module, []).export("f").make_callable()()
resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))
gc.disable()
for _ in range(3):
    kept = []
    try:
        for _ in range(100):
            kept.append(VMStore(engine).instantiate(module, []))
    except WasmtimeError as e:
        assert "no room for" in str(e) and "Drop stores" in str(e), e
        print(10 < len(kept) < 16)
    del kept
for _ in range(100):  # in cycles: only the collector finds them, and is asked when room is short
    store = VMStore(engine)
    store.keep_alive(store.instantiate(module, []))
print("end")
"""


def test_exhausted_address_space() -> None:
    """Attack: memories until no reservation fits any more."""
    code = EXHAUST.format(root=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("True\nTrue\nTrue\nend\n", "")
