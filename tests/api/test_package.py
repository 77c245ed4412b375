"""A program written for the wasmtime package 42 works after changing its import: every public name, method, property,
parameter and default of the package is here. The intended differences are the lists below, each with its reason."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import wasmforge

wasmtime = pytest.importorskip("wasmtime", reason="needs the wasmtime package (the extra `bench`)")

NOT_HERE = {
    "StoreContext": "a handle that only the package's own callbacks make; host functions get a `Caller` here too",
    "component": "the component model is not implemented yet",
}
NO_MEMBER = {
    "ptr": "addresses of C objects: there are none",
}
NO_CONTEXT = ("Frame", "Trap", "ExitTrap", "WasmtimeError")
"""Of these the package frees C objects, by `close` and `with`; here there is nothing to free."""
OTHER_CONSTRUCTOR = ("Caller", "Frame", "Val")
"""Made by the package itself from C values, and not by programs."""


def public(thing: object) -> set[str]:
    special = ("__call__", "__len__", "__getitem__", "__iter__", "__contains__", "__enter__", "__exit__")
    return {n for n in dir(thing) if not n.startswith("_") or n in special}


def names() -> list[str]:
    found = getattr(wasmtime, "__all__", None) or public(wasmtime)
    return sorted(n for n in found if n not in NOT_HERE)


def classes() -> list[str]:
    return [n for n in names() if inspect.isclass(getattr(wasmtime, n))]


def parameters(function: Any) -> list[tuple[str, object]] | None:
    """Names and defaults, where Python can tell."""
    try:
        return [
            (p.name, p.default)
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return None


def compare_parameters(theirs: Any, ours: Any, what: str) -> None:
    wanted, found = parameters(theirs), parameters(ours)
    if wanted is None or found is None:
        return
    assert [n for n, _ in found[: len(wanted)]] == [n for n, _ in wanted], what
    for (name, default), (_, mine) in zip(wanted, found, strict=False):
        assert repr(mine) == repr(default), f"{what}: default of {name}"
    assert all(default is not inspect.Parameter.empty for _, default in found[len(wanted) :]), what


@pytest.mark.parametrize("name", names())
def test_every_name_is_here(name: str) -> None:
    assert hasattr(wasmforge, name)


@pytest.mark.parametrize("name", classes())
def test_every_member_is_here(name: str) -> None:
    theirs, ours = getattr(wasmtime, name), getattr(wasmforge, name)
    if name not in OTHER_CONSTRUCTOR and not issubclass(theirs, BaseException):
        compare_parameters(theirs, ours, name)
    for member in sorted(public(theirs) - set(NO_MEMBER)):
        if name in NO_CONTEXT and member in ("close", "__enter__", "__exit__"):
            continue
        assert hasattr(ours, member), f"{name}.{member}"
        static = inspect.getattr_static(theirs, member)
        if isinstance(static, property):
            continue
        if callable(getattr(theirs, member)) and not inspect.isclass(getattr(theirs, member)):
            compare_parameters(getattr(theirs, member), getattr(ours, member), f"{name}.{member}")


def test_functions() -> None:
    for name in names():
        theirs = getattr(wasmtime, name)
        if inspect.isfunction(theirs):
            compare_parameters(theirs, getattr(wasmforge, name), name)


def test_the_lists_of_differences_are_not_longer_than_needed() -> None:
    for name in NOT_HERE:
        assert name in public(wasmtime) or name == "component"
        assert not hasattr(wasmforge, name), f"{name} is here now: take it off the list"


WRONG = {
    "a store": lambda w, store: w.Memory(1, w.MemoryType(w.Limits(1, 2))),
    "a type": lambda w, store: w.Memory(store, 1),
    "a module": lambda w, store: w.Instance(store, 1, []),
    "an engine": lambda w, store: w.Linker(2),
    "a name": lambda w, store: w.Linker(store.engine).define(
        store, 2, "", w.Func(store, w.FuncType([], []), lambda: None)
    ),
    "bytes": lambda w, store: w.Module(store.engine, 2),
    "an import": lambda w, store: w.Instance(store, w.Module(store.engine, '(module (import "" "" (func)))'), [1]),
    "results that nobody wants": lambda w, store: w.Func(store, w.FuncType([], []), lambda: 1)(store),
    "too many results": lambda w, store: w.Func(
        store, w.FuncType([], [w.ValType.i32()] * 2), lambda: [1, 2, 3]
    )(store),
    "too few arguments": lambda w, store: w.Func(store, w.FuncType([w.ValType.i32()], []), lambda x: None)(store),
    "another type": lambda w, store: w.Func(store, w.FuncType([w.ValType.i32()], []), lambda x: None)(store, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_uses_raise_the_same_kind_of_exception(what: str) -> None:
    """Whoever catches what the package raises catches what is raised here."""
    with pytest.raises(Exception) as theirs:
        WRONG[what](wasmtime, wasmtime.Store())
    with pytest.raises(Exception) as ours:
        WRONG[what](wasmforge, wasmforge.Store())
    kind = type(theirs.value).__name__
    assert kind in [c.__name__ for c in type(ours.value).__mro__]


def test_the_caller_of_a_start_function_is_its_instance() -> None:
    for w in (wasmtime, wasmforge):
        seen: list[object] = []
        store = w.Store()

        def start(caller: Any, seen: list[object] = seen) -> None:
            seen.append(type(caller.get("m")).__name__)

        module = w.Module(store.engine, '(module (import "" "" (func)) (memory (export "m") 1) (start 0))')
        w.Instance(store, module, [w.Func(store, w.FuncType([], []), start, access_caller=True)])
        assert seen == ["Memory"]


def test_the_documentation_lists_the_differences() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "differences.md").read_text()
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| "))
    for name, reason in {**NOT_HERE, **NO_MEMBER}.items():
        assert f"`{name}`" in rows and reason in rows, name
    for name in (*NO_CONTEXT, *OTHER_CONSTRUCTOR):
        assert f"`{name}`" in rows, name
