"""`Store.set_limiter`: Python decides what memories and tables may take (Wasmtime's ResourceLimiter); what memory.grow
and table.grow do then says section 4.4.7 and 4.4.8 of the specification."""

from __future__ import annotations

from typing import Any

import pytest

from wasmforge import Instance, Memory, Module, Store, WasmtimeError

TEXT = """(module
  (memory (export "memory") 1 10) (table (export "table") 3 20 funcref)
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "grow_table") (param i32) (result i32) (table.grow (ref.null func) (local.get 0))))"""
PAGE = 65536


class Limiter:
    def __init__(self, answer: Any = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int, int, int | None]] = []

    def memory_growing(self, current: int, desired: int, maximum: int | None) -> bool:
        return self._answer("memory", current, desired, maximum)

    def table_growing(self, current: int, desired: int, maximum: int | None) -> bool:
        return self._answer("table", current, desired, maximum)

    def _answer(self, what: str, current: int, desired: int, maximum: int | None) -> bool:
        self.asked.append((what, current, desired, maximum))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return bool(self.answer)


def exports_of(store: Store) -> Any:
    return Instance(store, Module(store.engine, TEXT), []).exports(store)


def test_it_is_asked_before_each_growth(store: Store) -> None:
    limiter = Limiter()
    store.set_limiter(limiter)
    exports = exports_of(store)
    assert limiter.asked == [("memory", 0, PAGE, 10 * PAGE), ("table", 0, 3, 20)]
    limiter.asked.clear()
    assert exports["grow"](store, 2) == 1
    assert exports["grow"](store, 0) == 3
    assert exports["grow_table"](store, 4) == 3
    assert exports["memory"].grow(store, 1) == 3
    assert limiter.asked == [
        ("memory", PAGE, 3 * PAGE, 10 * PAGE),
        ("table", 3, 7, 20),
        ("memory", 3 * PAGE, 4 * PAGE, 10 * PAGE),
    ]
    limiter.asked.clear()
    assert exports["grow"](store, 100) == -1
    assert limiter.asked == [], "beyond the maximum there is nothing to ask"


def test_it_can_refuse(store: Store) -> None:
    limiter = Limiter()
    store.set_limiter(limiter)
    exports = exports_of(store)
    limiter.answer = False
    assert exports["grow"](store, 1) == -1
    assert exports["grow_table"](store, 1) == -1
    with pytest.raises(WasmtimeError, match="failed to grow memory"):
        exports["memory"].grow(store, 1)
    with pytest.raises(WasmtimeError, match="exceeds memory limits"):
        exports_of(store)
    store.set_limiter(None)
    assert exports["grow"](store, 1) == 1


def test_its_exceptions_pass_through(store: Store) -> None:
    limiter = Limiter()
    store.set_limiter(limiter)
    exports = exports_of(store)
    limiter.answer = KeyError("no")
    for attempt in (
        lambda: exports["grow"](store, 1),
        lambda: exports["grow_table"](store, 1),
        lambda: exports_of(store),
    ):
        with pytest.raises(KeyError):
            attempt()
    assert exports["memory"].size(store) == 1


def test_numbers_come_first(store: Store) -> None:
    limiter = Limiter()
    store.set_limits(memory_size=2 * PAGE, table_elements=5)
    store.set_limiter(limiter)
    exports = exports_of(store)
    limiter.asked.clear()
    assert exports["grow"](store, 2) == -1
    assert exports["grow_table"](store, 3) == -1
    assert limiter.asked == []


def test_a_limiter_that_grows_what_it_is_asked_about(store: Store) -> None:
    """Attack: the size changes between the question and the growth."""

    class Nested(Limiter):
        memory: Memory | None = None
        table: Any = None

        def memory_growing(self, current: int, desired: int, maximum: int | None) -> bool:
            memory, self.memory = self.memory, None
            if memory is not None:
                memory.grow(store, 8)
            return True

        def table_growing(self, current: int, desired: int, maximum: int | None) -> bool:
            table, self.table = self.table, None
            if table is not None:
                table.grow(store, 16, None)
            return True

    limiter = Nested()
    store.set_limiter(limiter)
    exports = exports_of(store)
    limiter.memory, limiter.table = exports["memory"], exports["table"]
    assert exports["grow"](store, 2) == -1, "9 pages and 2 are more than 10"
    assert exports["grow_table"](store, 2) == -1
    assert exports["grow"](store, 1) == 9
    assert exports["grow_table"](store, 1) == 19


def test_what_is_no_limiter(store: Store) -> None:
    thing: Any = object()
    with pytest.raises(TypeError, match="memory_growing"):
        store.set_limiter(thing)
