"""Instantiation (specification, section 4.5.4) and what instances share: exports, imports of other instances, segments,
the order of initialisation, host functions, the embedder's view of all that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.compiling import Workshop, image
from wasmforge.compiler.environ import Tunables
from wasmforge.runtime import CompiledModule, EngineState, VMStore
from wasmforge.runtime.vm.traps import RuntimeTrap
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import EXTERNREF, F64, FUNCREF, I32, FuncType, GlobalType, Limits, MemoryType, TableType


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


COUNTER = """(module $counter
  (memory (export "memory") 1 3) (table (export "table") 3 funcref) (global $g (export "global") (mut i32) (i32.const
  5)) (elem (i32.const 0) $add $next) (data (i32.const 10) "hello") (func $add (export "add") (param i32 i32) (result
  i32) (i32.add (local.get 0) (local.get 1))) (func $next (export "next") (result i32)
    (global.set $g (i32.add (global.get $g) (i32.const 1))) (global.get $g))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "size") (result i32) (memory.size)))"""


def test_exports(workshop: Workshop) -> None:
    instance = workshop.instance(COUNTER)
    assert instance.export_names()[:4] == ["memory", "table", "global", "add"]
    assert dict(instance.exports())["add"] == instance.export("add")
    assert instance.export("add") is instance.export("add")
    assert instance.export("memory") is instance.export("memory")
    with pytest.raises(KeyError):
        instance.export("none")
    assert instance.module.name == "counter"


def test_python_and_wasm_see_the_same_memory_table_and_global(workshop: Workshop) -> None:
    c = workshop.functions(COUNTER)
    memory, table, cell = (c.instance.export(name) for name in ("memory", "table", "global"))
    assert memory.read(10, 15) == b"hello"
    assert c.load(11) == ord("e")
    c.store(11, 65)
    assert memory.read(10, 15) == b"hAllo"
    memory.view()[12] = 66
    assert c.load(12) == 66
    assert (c.grow(1), memory.pages, c.grow(5), memory.grow(1), c.size()) == (1, 2, -1, 2, 3)
    c.store(3 * 65536 - 1, 1)
    cell.set(41)
    assert c.next() == 42
    assert cell.get() == 42
    assert table.get(0) == c.instance.export("add")
    assert table.get(0).make_callable("again")(1, 2) == 3
    assert table.get(2) is None


def test_imports_of_another_instance(workshop: Workshop) -> None:
    c = workshop.functions(COUNTER)
    user = workshop.functions(
        """(module
          (import "c" "add" (func $add (param i32 i32) (result i32)))
          (import "c" "memory" (memory 1)) (import "c" "table" (table 1 funcref)) (import "c" "global" (global $g (mut
          i32))) (type $next (func (result i32))) (func $mine (export "mine") (result i32) (i32.const 99)) (elem
          (i32.const 2) $mine) (export "add" (func $add)) (export "memory" (memory 0)) (func (export "call") (param i32)
          (result i32) (call_indirect (type $next) (local.get 0))) (func (export "sum") (result i32)
            (call $add (global.get $g) (i32.load8_u (i32.const 10)))))""",
        *(c.instance.export(name) for name in ("add", "memory", "table", "global")),
    )
    assert user.sum() == 5 + ord("h")
    assert user.call(1) == 6
    assert user.call(2) == 99
    assert c.instance.export("table").get(2) == user.instance.export("mine")
    assert user.instance.export("add") == c.instance.export("add")  # a re-export is the same function
    assert user.instance.export("memory") is c.instance.export("memory")
    with pytest.raises(RuntimeTrap, match="indirect call type mismatch"):
        user.call(0)


def test_type_indices_of_modules_agree(workshop: Workshop) -> None:
    """Signatures are compared by engine-wide index: the two modules number their types differently."""
    one = workshop.functions(
        """(module (type (func (param f64))) (type $t (func (param i32) (result i64)))
          (table (export "t") 1 funcref) (elem (i32.const 0) $f)
          (func $f (type $t) (i64.extend_i32_s (i32.mul (local.get 0) (i32.const 2)))))"""
    )
    two = workshop.functions(
        """(module (type $t (func (param i32) (result i64))) (import "" "t" (table 1 funcref))
          (func (export "f") (param i32) (result i64) (call_indirect (type $t) (local.get 0) (i32.const 0))))""",
        one.instance.export("t"),
    )
    assert two.f(-21) == -42


def test_globals_are_initialised_in_order(workshop: Workshop) -> None:
    base = workshop.store.new_global(GlobalType(I32, False), 100)
    instance = workshop.instance(
        """(module (import "" "base" (global $base i32))
          (global $a i32 (i32.add (global.get $base) (i32.const 5)))
          (global (export "b") i64 (i64.mul (i64.const -3) (i64.const 7)))
          (global (export "c") i32 (i32.sub (global.get $a) (i32.const 1)))
          (global (export "f") funcref (ref.func $f))
          (global (export "n") externref (ref.null extern))
          (func $f (export "func")))""",
        base,
    )
    values = {name: instance.export(name).get() for name in "bcn"}  # type: ignore[union-attr]
    assert values == {"b": -21, "c": 104, "n": None}
    assert instance.export("f").get() == instance.export("func")  # type: ignore[union-attr]


def test_passive_segments(workshop: Workshop) -> None:
    m = workshop.functions(
        """(module (memory (export "m") 1) (table (export "t") 4 funcref)
          (data $d "abcdef") (elem $e func $f $g) (elem declare func $f)
          (func $f (export "f") (result i32) (i32.const 1)) (func $g (export "g") (result i32) (i32.const 2))
          (func (export "data") (param i32 i32 i32) (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
          (func (export "elem") (param i32 i32 i32) (table.init $e (local.get 0) (local.get 1) (local.get 2)))
          (func (export "drop_data") (data.drop $d)) (func (export "drop_elem") (elem.drop $e))
          (func (export "fill") (param i32 i32) (table.fill (local.get 0) (ref.func $g) (local.get 1)))
          (func (export "grow") (param i32) (result i32) (table.grow (ref.func $f) (local.get 0))))"""
    )
    table, memory = m.instance.export("t"), m.instance.export("m")
    f, g = m.instance.export("f"), m.instance.export("g")
    m.data(100, 2, 3)
    assert memory.read(99, 104) == b"\0cde\0"
    m.elem(1, 0, 2)
    assert [table.get(k) for k in range(4)] == [None, f, g, None]
    for out in ((3, 0, 2), (0, 1, 2), (0, 3, 0), (5, 0, 0), (-1, 0, 1)):
        with pytest.raises(RuntimeTrap, match="out of bounds table access"):
            m.elem(*out)
    with pytest.raises(RuntimeTrap, match="out of bounds memory access"):
        m.data(0, 4, 3)
    m.elem(4, 2, 0)
    m.drop_elem()
    m.drop_data()
    m.elem(0, 0, 0)
    for call in (lambda: m.elem(0, 0, 1), lambda: m.fill(3, 2)):
        with pytest.raises(RuntimeTrap, match="out of bounds table access"):
            call()
    m.fill(0, 2)
    assert [table.get(k) for k in range(4)] == [g, g, g, None]
    assert m.grow(300) == 4
    assert table.get(303) == f


def test_active_segments_apply_in_order_and_stay_written(workshop: Workshop) -> None:
    """Section 4.5.4: what was written before a segment that does not fit stays, and the functions that came into a
    foreign table keep working although their instance failed."""
    table = workshop.store.new_table(TableType(FUNCREF, Limits(3, None)))
    memory = workshop.store.new_memory(MemoryType(Limits(1, None)))
    module = workshop.module(
        """(module (import "" "t" (table 3 funcref)) (import "" "m" (memory 1))
          (memory $own 1) (global $g (mut i32) (i32.const 6))
          (func $f (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1))) (global.get $g))
          (elem (i32.const 1) $f) (data (i32.const 8) "kept") (data (i32.const 65535) "xx") (data (i32.const 0)
          "no"))""".replace("(memory $own 1) ", "")
    )
    with pytest.raises(RuntimeTrap, match="out of bounds memory access"):
        workshop.store.instantiate(module, [table, memory])
    assert memory.read(0, 12) == b"\0" * 8 + b"kept"
    assert memory.read(65535, 65536) == b"\0"
    function: Any = table.get(1)
    assert function.make_callable()() == 7
    late = workshop.module(
        """(module (import "" "t" (table 3 funcref)) (import "" "m" (memory 1)) (func $f)
          (elem (i32.const 0) $f) (elem (i32.const 3) $f) (data (i32.const 0) "no"))"""
    )
    with pytest.raises(RuntimeTrap, match="out of bounds table access"):
        workshop.store.instantiate(late, [table, memory])
    assert table.get(0) is not None
    assert memory.read(0, 2) == b"\0\0"  # elements come before data


def test_start_function(workshop: Workshop) -> None:
    calls: list[int] = []
    log = workshop.store.new_function(FuncType((I32,), ()), calls.append)
    text = '(module (import "" "log" (func $l (param i32))) (start $s) (func $s (call $l (i32.const 3))))'
    instance = workshop.store.instantiate(workshop.module(text), [log])
    assert calls == []
    instance.run_start()
    assert calls == [3]
    failing = workshop.store.instantiate(workshop.module("(module (start $s) (func $s unreachable))"), [])
    with pytest.raises(RuntimeTrap, match="unreachable"):
        failing.run_start()


def test_an_imported_function_as_start(workshop: Workshop) -> None:
    calls: list[int] = []
    host = workshop.store.new_function(FuncType((), ()), lambda: calls.append(1))
    workshop.instance('(module (import "" "f" (func $f)) (start $f))', host)
    assert calls == [1]


def test_host_functions_in_tables_called_by_any_module(workshop: Workshop) -> None:
    """A host function gets its wasm entry when a module with its signature arrives, before or after it is created."""
    store = workshop.store
    table = store.new_table(TableType(FUNCREF, Limits(2, None)))
    early = store.new_function(FuncType((F64,), (F64,)), lambda x: x + 1)
    table.set(0, early)
    caller = """(module (import "" "t" (table 2 funcref)) (type $t (func (param f64) (result f64)))
      (func (export "call") (param i32 f64) (result f64) (call_indirect (type $t) (local.get 1) (local.get 0))))"""
    m = workshop.functions(caller, table)
    assert m.call(0, 1.5) == 2.5
    table.set(1, store.new_function(FuncType((F64,), (F64,)), lambda x: x * 2))
    assert m.call(1, 1.5) == 3.0
    with pytest.raises(RuntimeTrap, match="type mismatch"):
        table.set(1, store.new_function(FuncType((F64,), ()), lambda x: None))
        m.call(1, 1.5)


def test_caller_is_the_instance_that_calls(workshop: Workshop) -> None:
    seen: list[object] = []

    def peek(caller: Any, at: int) -> int:
        seen.append(caller)
        return -1 if caller is None else caller.export("m").read(at, at + 1)[0]

    host = workshop.store.new_function(FuncType((I32,), (I32,)), peek, caller=True)
    text = """(module (import "" "peek" (func $p (param i32) (result i32))) (memory (export "m") 1) (data (i32.const 3)
    "%s")
      (func (export "f") (param i32) (result i32) (call $p (local.get 0))))"""
    one, two = (workshop.functions(text % letter, host) for letter in "AB")
    assert (one.f(3), two.f(3), host.make_callable()(3)) == (65, 66, -1)
    assert seen == [one.instance, two.instance, None]


def test_externrefs_pass_through(workshop: Workshop) -> None:
    m = workshop.functions(
        """(module (table (export "t") 2 externref) (global (export "g") (mut externref) (ref.null extern))
          (func (export "echo") (param externref) (result externref) (local.get 0))
          (func (export "put") (param i32 externref) (table.set (local.get 0) (local.get 1)))
          (func (export "get") (param i32) (result externref) (table.get (local.get 0)))
          (func (export "keep") (param externref) (global.set 0 (local.get 0)))
          (func (export "null") (param externref) (result i32) (ref.is_null (local.get 0))))"""
    )
    thing = object()
    assert m.echo(thing) is thing and m.echo(None) is None
    assert (m.null(thing), m.null(None), m.null(0)) == (0, 1, 0)
    m.put(1, thing)
    assert m.get(1) is thing is m.instance.export("t").get(1)
    assert m.get(0) is None
    m.keep(thing)
    assert m.instance.export("g").get() is thing


def test_funcrefs_pass_through(workshop: Workshop) -> None:
    m = workshop.functions(
        """(module (func $f (export "f") (result i32) (i32.const 7)) (func (export "ref") (result funcref) (ref.func
        $f))
          (func (export "echo") (param funcref) (result funcref) (local.get 0)))"""
    )
    assert m.ref() == m.instance.export("f") == m.echo(m.ref())
    assert m.ref().make_callable()() == 7
    host = workshop.store.new_function(FuncType((), ()), lambda: None)
    assert m.echo(host) == host
    with pytest.raises(WasmtimeError, match="wrong store"):
        m.echo(Workshop().store.new_function(FuncType((), ()), lambda: None))
    with pytest.raises(TypeError, match="expected funcref, got str"):
        m.echo("f")


def test_limits_of_a_store(workshop: Workshop) -> None:
    workshop.store.limits.instances = 1
    workshop.store.limits.memories = 1
    workshop.store.limits.tables = 0
    workshop.instance("(module (memory 1))")
    with pytest.raises(WasmtimeError, match="resource limit exceeded: instance count too high at 2"):
        workshop.instance("(module)")
    workshop.store.limits.instances = None
    with pytest.raises(WasmtimeError, match="memory count too high"):
        workshop.instance("(module (memory 1))")
    with pytest.raises(WasmtimeError, match="table count too high"):
        workshop.instance("(module (table 1 funcref))")


DATA = """(module (memory (export "m") 3) (data (i32.const 5) "first") (data (i32.const 131000) "second")
  (data (i32.const 7) "RS") (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1))))"""


@pytest.mark.parametrize("source", ["bytes", "file", "no copy-on-write"])
def test_memory_images(tmp_path: Path, source: str) -> None:
    """Table A3-06: initial data are mapped from the image's file or from a shared memfd; instances do not see each
    other's writes, and the file is not changed."""
    settings = {"memory_init_cow": False} if source == "no copy-on-write" else {}
    data = image(DATA, **settings)
    engine = EngineState(Tunables(**settings))
    file = tmp_path / "module"
    file.write_bytes(data)
    module = CompiledModule.from_file(engine, file) if source == "file" else CompiledModule.from_bytes(engine, data)
    if source != "no copy-on-write":
        assert module.memory_images is not None and 0 in module.memory_images
    for _ in range(2):
        store = VMStore(engine)
        instance = store.instantiate(module, [])
        memory: Any = instance.export("m")
        assert memory.read(4, 11) == b"\0fiRSt\0"
        assert memory.read(130999, 131007) == b"\0second\0"
        assert not any(memory.read(11, 130999))
        instance.export("store").make_callable()(5, 99)  # type: ignore[union-attr]
        assert memory.read(5, 6) == b"c"
        assert instance.export("load").make_callable()(131000) == ord("s")  # type: ignore[union-attr]
        memory.grow(1)
        assert not any(memory.read(3 * 65536, 4 * 65536))
    assert file.read_bytes() == data


def test_many_instances_of_a_module_share_its_code(workshop: Workshop) -> None:
    module = workshop.module(COUNTER)
    ones = [workshop.store.instantiate(module, []) for _ in range(50)]
    counters = [i.export("next").make_callable() for i in ones]  # type: ignore[union-attr]
    for k, next_ in enumerate(counters):
        for _ in range(k):
            next_()
    assert [next_() for next_ in counters] == [6 + k for k in range(50)]
    assert len(list(workshop.store.registry.loaded_modules())) == 1
    assert len({i.vmctx for i in ones}) == 50


def test_everything_has_the_right_alignment(workshop: Workshop) -> None:
    """Records are 16-byte aligned: machine code may use aligned moves on cells of globals."""
    text = '(module (global (export "a") (mut i64) (i64.const 1)) (func (export "f")) (table (export "t") 1 funcref))'
    for _ in range(3):
        instance = workshop.instance(text)
        assert instance.vmctx % 16 == 0
        assert instance.export("a").address % 16 == 0  # type: ignore[union-attr]
        assert instance.export("f").address % 16 == 0  # type: ignore[union-attr]
        assert instance.export("t").definition % 16 == 0  # type: ignore[union-attr]


def test_without_signals_based_traps() -> None:
    explicit = Workshop(signals_based_traps=False)
    m = explicit.functions(COUNTER)
    assert m.load(10) == ord("h")
    with pytest.raises(RuntimeTrap, match="out of bounds memory access"):
        m.load(65536)
    assert m.grow(1) == 1
    assert m.load(65536) == 0


def test_externref_elements_from_globals(workshop: Workshop) -> None:
    thing = ["thing"]
    cell = workshop.store.new_global(GlobalType(EXTERNREF, False), thing)
    m = workshop.functions(
        """(module (import "" "g" (global $g externref)) (table (export "t") 3 externref)
          (elem (i32.const 1) externref (global.get $g) (ref.null extern)) (elem $p externref (global.get $g))
          (func (export "init") (table.init $p (i32.const 0) (i32.const 0) (i32.const 1))))""",
        cell,
    )
    table = m.instance.export("t")
    assert [table.get(k) for k in range(3)] == [None, thing, None]
    m.init()
    assert table.get(0) is thing
