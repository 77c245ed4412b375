"""Traps raised in wasm and caught in Python, and a Python exception that crosses wasm: nanoseconds each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bench.measure import Row, Settings
from bench.sections.calls import Case, measure_table

TRAP_TARGET: Final = 1 / 8


def _trap(name: str, function: str, arguments: list[Any], style: str, target: float | None) -> Case:
    shared = {"function": function, "arguments": arguments}
    return Case(name, "trap", {**shared, "style": style}, "trap", {**shared, "style": "package"}, target)


TABLE: Final = (
    _trap("unreachable, f(store)", "unreachable", [], "package", TRAP_TARGET),
    _trap("unreachable, bound", "unreachable", [], "bound", TRAP_TARGET),
    _trap("division by zero, bound", "divide", [0], "bound", TRAP_TARGET),
    _trap("memory out of bounds, bound", "out_of_bounds", [0], "bound", TRAP_TARGET),
    _trap("unreachable below 30 frames, bound", "deep", [30], "bound", None),
    _trap("stack exhausted, bound", "recurse", [0], "bound", None),
    _trap("Python exception through wasm, bound", "host_fail", [], "bound", None),
)


def measure(settings: Settings) -> Iterator[Row]:
    return measure_table("traps", settings, TABLE)
