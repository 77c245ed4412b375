"""Link-time checks (specification, sections 3.4.2 and 4.5.4): what fits, and for what does not the texts of wasmtime
42."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.compiling import Workshop
from wasmforge.runtime import LinkError, VMStore
from wasmforge.runtime.link import extern_type, unknown_import
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import (
    EXTERNREF,
    F32,
    FUNCREF,
    I32,
    I64,
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
)

FUNC = FuncType((I32,), ())


class Extern:
    """One entity of each kind in a store."""

    def __init__(self, workshop: Workshop) -> None:
        store = workshop.store
        self.func = store.new_function(FUNC, lambda _: None)
        self.memory = store.new_memory(MemoryType(Limits(1, 2)))
        self.open_memory = store.new_memory(MemoryType(Limits(1, None)))
        self.table = store.new_table(TableType(FUNCREF, Limits(1, 2)))
        self.open_table = store.new_table(TableType(FUNCREF, Limits(1, None)))
        self.const = store.new_global(GlobalType(I32, False), 1)
        self.var = store.new_global(GlobalType(I32, True), 1)


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture(scope="module")
def extern(workshop: Workshop) -> Extern:
    return Extern(workshop)


REFUSED = {
    ("func", "func"): "types incompatible: expected type `(func)`, found type `(func (param i32))`",
    ("func (param i32 i64 f32) (result externref funcref)", "func"): "types incompatible: expected type "
    "`(func (param i32 i64 f32) (result externref funcref))`, found type `(func (param i32))`",
    ("func", "memory"): "expected func, but found memory",
    ("func", "const"): "expected func, but found global",
    ("func", "table"): "expected func, but found table",
    ("memory 1", "func"): "expected memory, but found function",
    ("memory 3", "memory"): "memory types incompatible: expected memory limits (min: 3, max: none) doesn't match "
    "provided memory limits (min: 1, max: 2)",
    ("memory 1 1", "memory"): "memory types incompatible: expected memory limits (min: 1, max: 1) doesn't match "
    "provided memory limits (min: 1, max: 2)",
    ("memory 1 1", "open_memory"): "memory types incompatible: expected memory limits (min: 1, max: 1) doesn't match "
    "provided memory limits (min: 1, max: none)",
    ("table 1 externref", "table"): "table types incompatible: expected table of type `externref`, found table of "
    "type `funcref`",
    ("table 3 funcref", "table"): "table types incompatible: expected table limits (min: 3, max: none) doesn't match "
    "provided table limits (min: 1, max: 2)",
    ("table 1 1 funcref", "open_table"): "table types incompatible: expected table limits (min: 1, max: 1) doesn't "
    "match provided table limits (min: 1, max: none)",
    ("table 1 funcref", "memory"): "expected table, but found memory",
    ("global (mut i32)", "const"): "global types incompatible: expected mutable global, found immutable global",
    ("global i32", "var"): "global types incompatible: expected immutable global, found mutable global",
    ("global i64", "const"): "global types incompatible: expected global of type `i64`, found global of type `i32`",
    ("global i64", "memory"): "expected global, but found memory",
}
ACCEPTED = [
    ("func (param i32)", "func"),
    ("memory 1", "memory"),
    ("memory 0 2", "memory"),
    ("memory 1 65536", "memory"),
    ("memory 0", "open_memory"),
    ("table 0 2 funcref", "table"),
    ("table 1 3 funcref", "table"),
    ("table 1 funcref", "open_table"),
    ("global i32", "const"),
    ("global (mut i32)", "var"),
]


@pytest.mark.parametrize(("wanted", "given"), REFUSED)
def test_refused(workshop: Workshop, extern: Extern, wanted: str, given: str) -> None:
    module = workshop.module(f'(module (import "m" "n" ({wanted})))')
    with pytest.raises(LinkError) as caught:
        workshop.store.instantiate(module, [getattr(extern, given)])
    cause = REFUSED[wanted, given]
    assert str(caught.value) == f"incompatible import type for `m::n`\n\nCaused by:\n    {cause}\n"


@pytest.mark.parametrize(("wanted", "given"), ACCEPTED)
def test_accepted(workshop: Workshop, extern: Extern, wanted: str, given: str) -> None:
    workshop.store.instantiate(workshop.module(f'(module (import "m" "n" ({wanted})))'), [getattr(extern, given)])


def test_texts_agree_with_the_wasmtime_package() -> None:
    wasmtime = pytest.importorskip("wasmtime")
    store = wasmtime.Store()
    limits = wasmtime.Limits
    given: dict[str, Any] = {
        "func": wasmtime.Func(store, wasmtime.FuncType([wasmtime.ValType.i32()], []), lambda _: None),
        "memory": wasmtime.Memory(store, wasmtime.MemoryType(limits(1, 2))),
        "open_memory": wasmtime.Memory(store, wasmtime.MemoryType(limits(1, None))),
        "table": wasmtime.Table(store, wasmtime.TableType(wasmtime.ValType.funcref(), limits(1, 2)), None),
        "open_table": wasmtime.Table(store, wasmtime.TableType(wasmtime.ValType.funcref(), limits(1, None)), None),
        "const": wasmtime.Global(store, wasmtime.GlobalType(wasmtime.ValType.i32(), False), 1),
        "var": wasmtime.Global(store, wasmtime.GlobalType(wasmtime.ValType.i32(), True), 1),
    }
    for (wanted, name), cause in REFUSED.items():
        module = wasmtime.Module(store.engine, f'(module (import "m" "n" ({wanted})))')
        with pytest.raises(wasmtime.WasmtimeError) as caught:
            wasmtime.Instance(store, module, [given[name]])
        assert str(caught.value) == f"incompatible import type for `m::n`\n\nCaused by:\n    {cause}\n"


def test_number_of_imports(workshop: Workshop, extern: Extern) -> None:
    module = workshop.module('(module (import "m" "n" (func)))')
    with pytest.raises(LinkError, match=r"^expected 1 imports, found 0$"):
        workshop.store.instantiate(module, [])
    with pytest.raises(LinkError, match=r"^expected 1 imports, found 2$"):
        workshop.store.instantiate(module, [extern.func, extern.func])


def test_unknown_import() -> None:
    assert str(unknown_import("m", "n")) == "unknown import: `m::n` has not been defined"


@pytest.mark.parametrize("kind", ["func", "memory", "table", "const"])
def test_entities_of_another_store(workshop: Workshop, kind: str) -> None:
    """Attack: an entity that may be freed before the store that imports it."""
    wanted = {"func": "func (param i32)", "memory": "memory 1", "table": "table 1 funcref", "const": "global i32"}[kind]
    other = Workshop()
    other.engine = workshop.engine
    other.store = VMStore(workshop.engine)
    entity = getattr(Extern(other), kind)
    module = workshop.module(f'(module (import "m" "n" ({wanted})))')
    with pytest.raises(WasmtimeError, match="cross-`Store` instantiation is not currently supported"):
        workshop.store.instantiate(module, [entity])


def test_something_else_is_a_type_error(workshop: Workshop) -> None:
    module = workshop.module('(module (import "m" "n" (func)))')
    with pytest.raises(TypeError, match="`m::n`: expected an extern, got str"):
        workshop.store.instantiate(module, ["f"])  # type: ignore[list-item]


def test_imports_are_read_once(workshop: Workshop) -> None:
    """Attack: a sequence that gives a fitting function to the check and another one afterwards."""
    good = workshop.store.new_function(FuncType((), (I64,)), lambda: 7)
    bad = workshop.store.new_function(FuncType((EXTERNREF,), (EXTERNREF,)), lambda x: x)

    class Shifty(list[Any]):
        reads = 0

        def __iter__(self) -> Iterator[Any]:
            self.reads += 1
            return iter([good if self.reads == 1 else bad])

    text = '(module (import "m" "n" (func $n (result i64))) (func (export "f") (result i64) (call $n)))'
    instance = workshop.store.instantiate(workshop.module(text), Shifty([good]))
    assert instance.export("f").make_callable()() == 7  # type: ignore[union-attr]


def test_module_of_another_engine(workshop: Workshop) -> None:
    """Attack: type indices of two engines mean different things."""
    with pytest.raises(WasmtimeError, match="cross-`Engine`"):
        workshop.store.instantiate(Workshop().module("(module)"), [])


def test_size_of_a_grown_memory_counts(workshop: Workshop) -> None:
    """Section 4.5.4: an import is matched against the type of the instance, whose minimum is the present size."""
    memory = workshop.store.new_memory(MemoryType(Limits(1, 5)))
    module = workshop.module('(module (import "m" "n" (memory 2)))')
    with pytest.raises(LinkError):
        workshop.store.instantiate(module, [memory])
    memory.grow(1)
    workshop.store.instantiate(module, [memory])
    assert extern_type(memory) == MemoryType(Limits(2, 5))


def test_host_functions_of_every_type_check_by_type() -> None:
    workshop = Workshop()
    types = [FuncType(p, r) for p in [(), (I32,), (I64,), (F32, EXTERNREF)] for r in [(), (I32,), (FUNCREF, I64)]]
    names = {I32: "i32", I64: "i64", F32: "f32", FUNCREF: "funcref", EXTERNREF: "externref"}
    functions = [workshop.store.new_function(t, lambda *_: None) for t in types]
    for k, t in enumerate(types):
        params, results = (" ".join(names[v] for v in vs) for vs in (t.params, t.results))
        module = workshop.module(f'(module (import "m" "n" (func (param {params}) (result {results}))))')
        for j, function in enumerate(functions):
            if j == k:
                workshop.store.instantiate(module, [function])
            else:
                with pytest.raises(LinkError, match="types incompatible"):
                    workshop.store.instantiate(module, [function])
