"""Nothing leaks, and nothing is freed while it can be used: stores, functions, host objects, references."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest

import wasmforge
from wasmforge import (
    Engine,
    Func,
    FuncType,
    Global,
    GlobalType,
    Instance,
    Limits,
    Linker,
    Memory,
    MemoryType,
    Module,
    Store,
    Table,
    TableType,
    Trap,
    ValType,
)

EXTERNREF, FUNCREF, I32 = ValType.externref(), ValType.funcref(), ValType.i32()

GUEST = """(module (import "" "f" (func $f (param i32) (result i32)))
  (memory (export "memory") 1) (table (export "table") 4 externref)
  (func (export "run") (param i32) (result i32) (call $f (local.get 0)))
  (func (export "keep") (param i32 externref) (table.set (local.get 0) (local.get 1)))
  (func (export "boom") unreachable))"""


class Thing:
    pass


def test_a_store_is_freed_with_its_last_handle(engine: Engine) -> None:
    """At once, without the garbage collector, with everything that hangs on it."""
    module = Module(engine, GUEST)
    gc.disable()
    try:
        thing = Thing()
        watched = weakref.ref(thing)

        def host(x: int, thing: Thing = thing) -> int:
            return x + 1

        store = Store(engine, thing)
        exports = Instance(store, module, [Func(store, FuncType([I32], [I32]), host)]).exports(store)
        assert exports["run"](store, 1) == 2
        exports["keep"](store, 0, thing)
        bound = exports["run"].bind(store)
        with pytest.raises(Trap):
            exports["boom"](store)
        del exports, host, thing, store
        assert watched() is not None, "the function keeps the store"
        assert bound(5) == 6
        del bound
        assert watched() is None
    finally:
        gc.enable()


def test_cycles_through_a_store_are_collected(engine: Engine) -> None:
    """A host function that refers to its own store, which every embedder writes sooner or later."""
    module = Module(engine, GUEST)
    watched: list[weakref.ref[Thing]] = []
    for _ in range(20):
        thing = Thing()
        watched.append(weakref.ref(thing))
        store = Store(engine)
        functions: dict[str, object] = {"thing": thing}
        host = Func(store, FuncType([I32], [I32]), lambda x, f=functions, s=store: x + len(f))  # type: ignore[misc]
        exports = Instance(store, module, [host]).exports(store)
        functions["run"] = exports["run"]
        functions["store"] = store
        assert exports["run"](store, 1) == 4
        del thing, store, functions, host, exports
    gc.collect()
    gc.collect()
    assert not [w for w in watched if w() is not None]


def test_loaded_modules_are_freed(engine: Engine) -> None:
    watched = []
    for _ in range(10):
        thing = Thing()
        watched.append(weakref.ref(thing))
        app = wasmforge.load(GUEST, {"": {"f": lambda x, t=thing: x}}, engine=engine)
        assert app.run(3) == 3
        del app, thing
    gc.collect()
    assert not [w for w in watched if w() is not None]


def test_linkers_do_not_keep_stores(engine: Engine) -> None:
    linker = Linker(engine)
    linker.define_func("", "f", FuncType([I32], [I32]), lambda x: x + 1)
    module = Module(engine, GUEST)
    watched = []
    for _ in range(10):
        thing = Thing()
        watched.append(weakref.ref(thing))
        store = Store(engine, thing)
        assert linker.instantiate(store, module).exports(store)["run"](store, 1) == 2
        del thing, store
    gc.collect()
    assert not [w for w in watched if w() is not None]


def test_externrefs_live_as_long_as_wasm_can_reach_them(store: Store) -> None:
    host = Func(store, FuncType([I32], [I32]), lambda x: x)
    exports = Instance(store, Module(store.engine, GUEST), [host]).exports(store)
    thing = Thing()
    watched = weakref.ref(thing)
    exports["keep"](store, 1, thing)
    del thing
    store.gc()
    assert watched() is not None
    assert exports["table"].get(store, 1) is watched()
    exports["keep"](store, 1, None)
    store.gc()
    assert watched() is None


def test_unreachable_externrefs_are_collected_without_being_asked(store: Store) -> None:
    identity = Instance(
        store,
        Module(store.engine, '(module (func (export "f") (param externref) (result externref) (local.get 0)))'),
        [],
    ).exports(store)["f"]
    watched = []
    for _ in range(5000):
        thing = Thing()
        watched.append(weakref.ref(thing))
        assert identity(store, thing) is thing
    del thing
    assert sum(w() is not None for w in watched) < 3000


def test_results_do_not_leak(store: Store) -> None:
    """References given to a host function and taken from it are counted right."""
    import sys

    thing = Thing()
    host = Func(store, FuncType([EXTERNREF], [EXTERNREF]), lambda x: x)
    call = Instance(
        store,
        Module(
            store.engine,
            """(module (import "" "" (func $f (param externref) (result externref)))
                 (func (export "g") (param externref) (result externref) (call $f (local.get 0))))""",
        ),
        [host],
    ).exports(store)["g"]
    call(store, thing)
    store.gc()
    before = sys.getrefcount(thing)
    for _ in range(1000):
        assert call(store, thing) is thing
        with pytest.raises(TypeError):
            call(store)
    store.gc()
    assert sys.getrefcount(thing) == before


def test_traps_do_not_keep_stores(engine: Engine) -> None:
    module = Module(engine, GUEST)
    thing = Thing()
    watched = weakref.ref(thing)
    store = Store(engine, thing)
    host = Func(store, FuncType([I32], [I32]), lambda x: x)
    exports = Instance(store, module, [host]).exports(store)
    kept: list[Trap] = []
    try:
        exports["boom"](store)
    except Trap as trap:
        kept.append(trap.with_traceback(None))
    del exports, host, store, thing
    gc.collect()
    assert watched() is None
    assert kept[0].frames[0].func_index == 3, "the frames are still there"


def test_entities_outlive_their_instances(store: Store) -> None:
    """A store frees everything together, so what was exported stays usable."""

    def make() -> tuple[object, ...]:
        host = Func(store, FuncType([I32], [I32]), lambda x: x * 2)
        exports = Instance(store, Module(store.engine, GUEST), [host]).exports(store)
        return exports["run"], exports["memory"], exports["table"]

    run, memory, table = make()
    gc.collect()
    assert isinstance(run, Func) and isinstance(memory, Memory) and isinstance(table, Table)
    assert run(store, 4) == 8
    assert memory.size(store) == 1
    table.set(store, 0, "x")
    assert table.get(store, 0) == "x"


def test_many_stores_and_instances(engine: Engine) -> None:
    """Address space and stacks are given back."""
    module = Module(engine, GUEST)
    for _ in range(3000):
        store = Store(engine)
        host = Func(store, FuncType([I32], [I32]), lambda x: x)
        assert Instance(store, module, [host]).exports(store)["run"](store, 7) == 7


def test_threads_with_a_store_each(engine: Engine) -> None:
    module = Module(
        engine,
        """(module (import "" "f" (func $f (param i32) (result i32))) (memory 1)
             (func (export "run") (param i32) (result i32) (local $sum i32)
               (loop $again
                 (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (call $f (local.get 0))))
                 (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
               (i32.load (i32.const 0)))
             (func (export "boom") (param i32) (drop (i32.load (local.get 0)))))""",
    )
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for _ in range(30):
                store = Store(engine)
                host = Func(store, FuncType([I32], [I32]), lambda x: x + seed)
                exports = Instance(store, module, [host]).exports(store)
                run = exports["run"]
                assert isinstance(run, Func)
                assert run.bind(store, release_gil=True)(100) == sum(range(1, 101)) + 100 * seed
                for _ in range(10):
                    with pytest.raises(Trap):
                        exports["boom"](store, -1)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_one_store_on_two_threads_at_once_is_an_error(engine: Engine) -> None:
    """One after the other is fine."""
    store = Store(engine)
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait()

    module = Module(engine, '(module (import "" "" (func $f)) (func (export "g") (call $f)) (func (export "h")))')
    exports = Instance(store, module, [Func(store, FuncType([], []), wait)]).exports(store)
    thread = threading.Thread(target=exports["g"], args=(store,))
    thread.start()
    try:
        assert entered.wait(10)
        with pytest.raises(wasmforge.WasmtimeError, match="thread"):
            exports["h"](store)
    finally:
        leave.set()
        thread.join()
    exports["h"](store)


def test_uses_of_a_closed_store(engine: Engine) -> None:
    store = Store(engine)
    host = Func(store, FuncType([I32], [I32]), lambda x: x)
    module = Module(engine, GUEST)
    instance = Instance(store, module, [host])
    exports = instance.exports(store)
    memory = Memory(store, MemoryType(Limits(1, 1)))
    table = Table(store, TableType(FUNCREF, Limits(1, 1)), None)
    variable = Global(store, GlobalType(I32, True), 1)
    bound = exports["run"].bind(store)
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: exports["run"](store, 1),
        lambda: memory.size(store),
        lambda: table.get(store, 0),
        lambda: variable.value(store),
        lambda: Instance(store, module, [host]),
        lambda: Linker(engine).instantiate(store, module),
        lambda: instance.exports(store),
        lambda: Func(store, FuncType([], []), print),
        lambda: store.gc(),
        lambda: store.data(),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="already closed"):
            use()
    assert bound(3) == 3, "what was handed out keeps the runtime's store"
