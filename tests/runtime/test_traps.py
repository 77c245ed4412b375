"""Traps (table C20), their backtraces, and exceptions of host functions that cross wasm frames."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.compiling import Workshop
from tests.runtime.mappings import is_mapped
from wasmforge.compiler.trap import TRAP_MESSAGES, TrapKind
from wasmforge.runtime.code_registry import lookup_code
from wasmforge.runtime.module_registry import MAX_NOTES
from wasmforge.runtime.vm import traps
from wasmforge.runtime.vm.traps import RuntimeTrap
from wasmforge.syntax.types import I32, FuncType

TEXT = """(module $mod
  (import "" "host" (func $host (param i32)))
  (memory (export "m") 1) (table 4 funcref) (elem (i32.const 1) $odd $outer)
  (type $void (func)) (type $odd (func (param i32 i64)))
  (func $odd (type $odd))
  (func $unreachable (export "unreachable") unreachable)
  (func $outer (export "outer") (drop (i32.const 7)) (call $unreachable) (drop (i32.const 8)))
  (func (export "load") (param i32) (result i32) (i32.load offset=4 (local.get 0)))
  (func (export "store") (param i32) (i64.store (local.get 0) (i64.const 1)))
  (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "rem") (param i64 i64) (result i64) (i64.rem_u (local.get 0) (local.get 1)))
  (func (export "trunc") (param f64) (result i32) (i32.trunc_f64_s (local.get 0)))
  (func (export "indirect") (param i32) (call_indirect (type $void) (local.get 0)))
  (func (export "get") (param i32) (result funcref) (table.get (local.get 0)))
  (func (export "fill") (param i32) (table.fill (local.get 0) (ref.null func) (i32.const 2)))
  (func (export "copy") (param i32) (memory.copy (local.get 0) (i32.const 0) (i32.const 10)))
  (func $recurse (export "recurse") (param i32) (result i32)
    (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
  (func $host_caller (export "call_host") (param i32) (call $host (local.get 0)))
  (func $deep (export "deep") (param i32) (if (local.get 0)
    (then (call $deep (i32.sub (local.get 0) (i32.const 1)))) (else (call $host_caller (i32.const 5))))))"""


class Guest:
    def __init__(self, lazy: bool = False) -> None:
        self.workshop = Workshop(lazy=lazy)
        self.on_host: Any = lambda _: None
        host = self.workshop.store.new_function(FuncType((I32,), ()), lambda x: self.on_host(x), name="host")
        self.exports = self.workshop.functions(TEXT, host)


@pytest.fixture(params=["ahead", "lazy"])
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(lazy=request.param == "lazy")


KINDS: list[tuple[str, tuple[Any, ...], TrapKind]] = [
    ("unreachable", (), TrapKind.UNREACHABLE),
    ("load", (65536 - 7,), TrapKind.MEMORY_OUT_OF_BOUNDS),
    ("load", (-1,), TrapKind.MEMORY_OUT_OF_BOUNDS),
    ("store", (65529,), TrapKind.MEMORY_OUT_OF_BOUNDS),
    ("copy", (65530,), TrapKind.MEMORY_OUT_OF_BOUNDS),
    ("div", (1, 0), TrapKind.INTEGER_DIVISION_BY_ZERO),
    ("div", (-(2**31), -1), TrapKind.INTEGER_OVERFLOW),
    ("rem", (1, 0), TrapKind.INTEGER_DIVISION_BY_ZERO),
    ("trunc", (float("nan"),), TrapKind.BAD_CONVERSION_TO_INTEGER),
    ("trunc", (3e9,), TrapKind.INTEGER_OVERFLOW),
    ("indirect", (0,), TrapKind.INDIRECT_CALL_TO_NULL),
    ("indirect", (1,), TrapKind.BAD_SIGNATURE),
    ("indirect", (4,), TrapKind.TABLE_OUT_OF_BOUNDS),
    ("get", (4,), TrapKind.TABLE_OUT_OF_BOUNDS),
    ("fill", (3,), TrapKind.TABLE_OUT_OF_BOUNDS),
    ("recurse", (0,), TrapKind.STACK_OVERFLOW),
]


@pytest.mark.parametrize(("name", "arguments", "kind"), KINDS)
def test_kinds_and_texts(guest: Guest, name: str, arguments: tuple[Any, ...], kind: TrapKind) -> None:
    function = getattr(guest.exports, name)
    for _ in range(3):  # the store stays usable
        with pytest.raises(RuntimeTrap) as caught:
            function(*arguments)
        assert caught.value.kind is kind
        assert str(caught.value).splitlines()[-1] == TRAP_MESSAGES[kind]
        exported = {e.index: e.name for e in guest.exports.instance.module.info.exports if e.kind == 0}
        assert exported[caught.value.backtrace.frames[0].func_index] == name
    assert guest.exports.load(0) == 0


def test_frames_have_names_and_offsets(guest: Guest) -> None:
    with pytest.raises(RuntimeTrap) as caught:
        guest.exports.outer()
    inner, outer = caught.value.backtrace.frames
    assert (inner.func_name, inner.module_name) == ("unreachable", "mod")
    assert (outer.func_name, outer.func_index) == ("outer", inner.func_index + 1)
    info = guest.exports.instance.module.info
    # The first instruction of one, and the call behind `i32.const 7; drop` of the other. Functions start at the count
    # of their locals, one byte here.
    assert inner.module_offset == info.function_offset(inner.func_index - 1) + 1
    assert (inner.func_offset, outer.func_offset) == (1, 4)
    assert str(caught.value.backtrace).splitlines()[1:] == [
        f"    0: {inner.module_offset:#8x} - mod!unreachable",
        f"    1: {outer.module_offset:#8x} - mod!outer",
    ]


def test_backtraces_agree_with_the_wasmtime_package() -> None:
    wasmtime = pytest.importorskip("wasmtime")
    guest = Guest()
    from wasmforge.binary import encode
    from wasmforge.text import parse

    binary = encode(parse(TEXT))
    store = wasmtime.Store()
    theirs = wasmtime.Instance(
        store,
        wasmtime.Module(store.engine, binary),
        [wasmtime.Func(store, wasmtime.FuncType([wasmtime.ValType.i32()], []), lambda _: None)],
    ).exports(store)
    for name, arguments, kind in KINDS:
        if kind is TrapKind.STACK_OVERFLOW:
            continue  # depth and cut differ
        with pytest.raises(wasmtime.Trap) as expected:
            theirs[name](store, *arguments)
        with pytest.raises(RuntimeTrap) as found:
            getattr(guest.exports, name)(*arguments)
        assert [(f.func_index, f.func_name, f.module_name, f.module_offset) for f in found.value.backtrace.frames] == [
            (f.func_index, f.func_name, f.module_name, f.module_offset) for f in expected.value.frames
        ], name
        assert str(found.value.backtrace) in str(expected.value)
        assert all(line in str(expected.value) for line in str(found.value).splitlines())


def test_backtrace_of_an_exhausted_stack_is_cut(guest: Guest) -> None:
    with pytest.raises(RuntimeTrap) as caught:
        guest.exports.recurse(0)
    backtrace = caught.value.backtrace
    assert {f.func_name for f in backtrace.frames} == {"recurse"}
    assert backtrace.omitted > 1000
    assert len(backtrace.frames) < 200
    assert str(backtrace).endswith(f"  ... {backtrace.omitted} more frames")


def test_backtrace_outlives_the_store_without_its_memory() -> None:
    guest = Guest()
    with pytest.raises(RuntimeTrap) as caught:
        guest.exports.outer()
    base = guest.exports.instance.export("m").base
    backtrace = caught.value.backtrace
    del caught, guest
    gc.collect()  # the host function refers to its store
    assert not is_mapped(base)
    assert [f.func_name for f in backtrace.frames] == ["unreachable", "outer"]


class HostError(Exception):
    pass


def test_exception_of_a_host_function_passes_with_its_traceback_and_a_note(guest: Guest) -> None:
    def fail(x: int) -> None:
        raise HostError(x)

    guest.on_host = fail
    with pytest.raises(HostError) as caught:
        guest.exports.deep(2)
    assert caught.value.args == (5,)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"
    (note,) = caught.value.__notes__
    names = [line.split("!")[1] for line in note.splitlines()[1:]]
    assert note.startswith("wasm backtrace:")
    assert names == ["host_caller", "deep", "deep", "deep"]


def test_nested_activations(guest: Guest) -> None:
    """wasm, Python, wasm, Python: one backtrace through all, and one note even though it passes two gates."""
    depth = 0

    def again(_: int) -> None:
        nonlocal depth
        depth += 1
        if depth == 3:
            guest.exports.unreachable()
        guest.exports.deep(1)

    guest.on_host = again
    with pytest.raises(RuntimeTrap) as caught:
        guest.exports.deep(0)
    names = [f.func_name for f in caught.value.backtrace.frames]
    assert names == ["unreachable"] + ["host_caller", "deep", "deep"] * 2 + ["host_caller", "deep"]
    assert not hasattr(caught.value, "__notes__")

    def fail(_: int) -> None:
        nonlocal depth
        depth += 1
        if depth == 3:
            raise HostError
        guest.exports.deep(0)

    depth = 0
    guest.on_host = fail
    with pytest.raises(HostError) as failed:
        guest.exports.deep(0)
    (note,) = failed.value.__notes__
    assert note.count("host_caller") == 3


def test_each_way_through_wasm_has_its_note(guest: Guest) -> None:
    """The texts are remembered by program counters; here are more ways than are remembered."""

    def fail(_: int) -> None:
        raise HostError

    guest.on_host = fail
    first: list[str] = []
    for _ in range(2):
        for depth in range(MAX_NOTES + 10):
            with pytest.raises(HostError) as caught:
                guest.exports.deep(depth)
            (note,) = caught.value.__notes__
            first.append(note)
            assert "more frames" in note or note.count("!deep") == depth + 1
    half = len(first) // 2
    assert first[:half] == first[half:]
    assert len(set(first)) == half


def test_two_stores_add_a_note_each() -> None:
    one, two = Guest(), Guest()

    def fail(_: int) -> None:
        raise HostError

    one.on_host = lambda _: two.exports.deep(0)
    two.on_host = fail
    with pytest.raises(HostError) as caught:
        one.exports.deep(1)
    assert [n.count("deep") for n in caught.value.__notes__] == [1, 2]


def test_an_exception_object_that_is_raised_for_ever_keeps_few_notes() -> None:
    error = HostError("the same each time")

    def fail(_: int) -> None:
        raise error

    for _ in range(40):
        guest = Guest()
        guest.on_host = fail
        for _ in range(2):
            with pytest.raises(HostError):
                guest.exports.deep(0)
    assert 10 < len(error.__notes__) < 20


def test_a_caught_exception_leaves_no_trace(guest: Guest) -> None:
    def fail(_: int) -> None:
        raise HostError

    def swallow(_: int) -> None:
        guest.on_host = fail
        with pytest.raises(HostError):
            guest.exports.deep(0)
        guest.on_host = swallow

    guest.on_host = swallow
    for _ in range(100):
        guest.exports.deep(1)


def test_exceptions_that_take_no_notes(guest: Guest) -> None:
    class Closed(BaseException):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    def fail(_: int) -> None:
        raise Closed

    guest.on_host = fail
    with pytest.raises(Closed):
        guest.exports.deep(0)


def test_trap_in_python_code_called_by_wasm_gets_the_frames(guest: Guest) -> None:
    guest.on_host = lambda _: guest.exports.instance.module and table.get(99)
    from wasmforge.syntax.types import FUNCREF, Limits, TableType

    table = guest.workshop.store.new_table(TableType(FUNCREF, Limits(1, None)))
    with pytest.raises(RuntimeTrap, match="table access") as direct:
        table.get(99)
    assert direct.value.backtrace.frames == []
    with pytest.raises(RuntimeTrap, match="table access") as caught:
        guest.exports.deep(0)
    assert [f.func_name for f in caught.value.backtrace.frames] == ["host_caller", "deep"]


@pytest.fixture
def another_trap_class() -> Iterator[type[Exception]]:
    class Trap(Exception):
        backtrace = property(traps.backtrace_of)

    before = traps._trap_class
    traps.set_trap_class(lambda: Trap)
    yield Trap
    traps.set_trap_class(before)


def test_the_embedders_class(guest: Guest, another_trap_class: type[Any]) -> None:
    with pytest.raises(another_trap_class, match="unreachable") as caught:
        guest.exports.outer()
    assert [f.func_name for f in caught.value.backtrace.frames] == ["unreachable", "outer"]
    with pytest.raises(another_trap_class, match="table access") as caught:
        guest.exports.fill(3)
    assert [f.func_index for f in caught.value.backtrace.frames] == [11]


def test_traps_in_threads_with_a_store_each() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            guest = Guest()
            for round_ in range(40):
                for name, arguments, kind in KINDS[:-1] + (KINDS[-1:] if round_ % 10 == 0 else []):
                    with pytest.raises(RuntimeTrap) as caught:
                        getattr(guest.exports, name)(*arguments)
                    assert caught.value.kind is kind
                assert guest.exports.div(12, 4) == 3
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_a_fault_where_nothing_may_fault_is_no_trap(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: a bug in a compiler. The trap table says which instructions may fault; here it is emptied."""
    assert guest.exports.load(0) == 0
    monkeypatch.setattr("wasmforge.compiler.tables.trap_table.lookup", lambda section, offset: None)
    monkeypatch.setattr("wasmforge.runtime.lazy_code.Piece.row_at", lambda self, offset: None)
    with pytest.raises(SystemError, match="where nothing may fault"):
        guest.exports.load(-1)
    monkeypatch.undo()
    with pytest.raises(RuntimeTrap, match="out of bounds memory access"):
        guest.exports.load(-1)


def test_the_trap_table_knows_every_access(guest: Guest) -> None:
    """A2-12: the look-up of a program counter through the process-wide registry, as for a fault."""
    module = guest.exports.instance.module
    start = module.engine_code.text_range().start.raw()
    kinds = set()
    guest.exports.load(0)
    guest.exports.store(0)
    for k, name in ((3, "load"), (4, "store")):
        text, length = module.function_range(k)
        assert module.func_by_text_offset(text) == k
        found = {module.lookup_trap_code(offset) for offset in range(text, text + length)}
        assert TrapKind.MEMORY_OUT_OF_BOUNDS in found, name
        kinds |= found
    assert kinds <= {None, TrapKind.MEMORY_OUT_OF_BOUNDS}
    assert lookup_code(start + text) == (module.engine_code.module_memory_image_source(), text)
