"""Nothing leaks: reference counts and memory are the same after many calls, traps, exceptions and errors."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.native.fake import Store, Trap, exceptions_seen, ft
from tests.runtime.native.guest import HOST, HOST_MANY, MIXED, SIGNATURES
from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL, HOST_FLAG_CALLER
from wasmforge.runtime.native import gates

I_I = ft("i", "i")


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


class Boom(Exception):
    pass


def scenarios(store: Store) -> dict[str, tuple[Callable[[], object], int]]:
    """Name to an action and how often to do it."""
    add = store.function("add", ft("ii", "i"))
    released = store.function("add", ft("ii", "i"), CALL_FLAG_RELEASE_GIL)
    swap = store.function("swap", SIGNATURES["swap"])
    load = store.function("load", I_I)
    call = store.function("call_host", I_I)
    many = store.function("call_host_many", HOST_MANY)
    mixed = store.function("mixed", SIGNATURES["mixed"])
    values = [7000 + i if c in "iI" else i + 0.5 for i, c in enumerate(MIXED[:-2])]

    def attempt(function: Callable[..., object], *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            try:
                function(*arguments)
            except (Trap, Boom, TypeError, OverflowError):
                exceptions_seen.clear()
                return
            raise AssertionError("no exception")

        return run

    def raising(*_: object) -> Any:
        raise Boom

    def host(result: object, kind: int = 0) -> Callable[[], None]:
        function = store.function("call_host" if kind == 0 else "call_host_many", (HOST, HOST_MANY)[kind])
        arguments = (70000,) if kind == 0 else (70000, 2**40, 1.5, 2.5)
        context = store.host_context(lambda *_: result, (HOST, HOST_MANY)[kind])
        run = attempt(function, *arguments)

        def switched() -> None:
            base = store.vmctx + store.offsets.imported_function(kind) + 16
            store._put(base, context)
            run()

        return switched

    store.set_import(0, lambda x: 2**30, HOST, HOST_FLAG_CALLER | 0)
    store.set_import(0, lambda x: 2**30, HOST)
    store.set_import(1, lambda *_: (2.5, 1.5, 2**50, 2**30), HOST_MANY)
    return {
        "calls": (lambda: add(2**30, 5), 1_000_000),
        "released": (lambda: released(2**30, 5), 100_000),
        "host": (lambda: call(70000), 100_000),
        "lists": (lambda: swap(1, 2**40, 1.5, 2.5), 30_000),
        "host lists": (lambda: many(1, 2**40, 1.5, 2.5), 30_000),
        "references": (lambda: mixed(*values, None, "x"), 10_000),
        "arity": (attempt(add, 1), 20_000),
        "type": (attempt(add, 70000, "x"), 20_000),
        "range": (attempt(add, 2**40, 1), 20_000),
        "bad method": (attempt(add, type("I", (), {"__index__": lambda self: "x"})(), 1), 5000),
        "trap": (attempt(load, -1), 30_000),
        "host result type": (host("x"), 20_000),
        "host result range": (host(2**40), 20_000),
        "host results type": (host(5, 1), 5000),
        "host results count": (host((1, 2), 1), 5000),
        "host results item": (host((1, 2, "x", 4), 1), 5000),
        "unwanted result": (attempt(store.host_function(lambda: 5, ft(""))), 5000),
        "exception": (attempt(store.host_function(raising, HOST), 70000), 100_000),
    }


NAMES = [
    "calls",
    "released",
    "host",
    "lists",
    "host lists",
    "references",
    "arity",
    "type",
    "range",
    "bad method",
    "trap",
    "host result type",
    "host result range",
    "host results type",
    "host results count",
    "host results item",
    "unwanted result",
    "exception",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_leak(store: Store, name: str) -> None:
    objects: list[object] = [None, "x"]
    gates().set_hooks(box_ref=lambda _, kind, word: objects[word], unbox_ref=lambda *_: 1)
    action, times = scenarios(store)[name]
    for _ in range(200):
        action()
    before, memory = blocks(), resident()
    for _ in range(times):
        action()
    assert blocks() - before < 100, "objects of CPython"
    assert resident() - memory < 1 << 20, "other memory"


def test_none_keeps_its_reference_count(store: Store) -> None:
    nothing = store.function("nothing", ft("", ""))
    before = sys.getrefcount(None)
    for _ in range(10_000):
        nothing()
    assert abs(sys.getrefcount(None) - before) < 100


def test_callables_are_freed_with_their_owner(store: Store) -> None:
    class Owner:
        pass

    add: Any = store.function("add", ft("ii", "i"))
    descriptor = int(add.__self__)
    before = blocks()
    for _ in range(10_000):
        function = gates().make_callable("add", descriptor, Owner(), "doc")
        assert function(1, 2) == 3
    del function
    assert blocks() - before < 100
