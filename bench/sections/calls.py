"""Calls from Python into wasm and from wasm into Python: nanoseconds a call, against the package's `f(store, ...)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from bench.measure import MeasurementError, Row, Settings, Worker, interleave

CALL_TARGET: Final = 1 / 300
PACKAGE_CALL_TARGET: Final = 1 / 150
HOST_CALL_TARGET: Final = 1 / 100
INSTANTIATION_TARGET: Final = 1.0
NANOSECONDS: Final = 1e9


class Case(NamedTuple):
    """A row: our case and arguments, the peer's, and the target of the ratio (None: for information)."""

    name: str
    case: str
    ours: dict[str, Any]
    peer_case: str
    peer: dict[str, Any]
    target: float | None


def _call(name: str, function: str, arguments: list[Any], style: str, target: float | None) -> Case:
    shared = {"function": function, "arguments": arguments}
    return Case(name, "call", {**shared, "style": style}, "call", {**shared, "style": "package"}, target)


def _host(name: str, function: str, target: float | None) -> Case:
    return Case(name, "host_call", {"function": function}, "host_call", {"function": function}, target)


_ADD: Final = {"function": "add", "arguments": [1, 2], "style": "package"}

TABLE: Final = (
    _call("add(i32, i32), bound", "add", [1, 2], "bound", CALL_TARGET),
    Case("add(i32, i32), load().add", "load_call", {}, "call", _ADD, CALL_TARGET),
    _call("add(i32, i32), f(store, ...)", "add", [1, 2], "package", PACKAGE_CALL_TARGET),
    _call("add(i32, i32), GIL released", "add", [1, 2], "release", None),
    _call("nop(), bound", "nop", [], "bound", None),
    _call("mixed(i32, i64, f32, f64), bound", "mixed", [1, 2, 0.5, 0.25], "bound", None),
    _call("two results, bound", "two_results", [1, 2], "bound", None),
    _host("wasm to Python, add(i32, i32)", "host_add", HOST_CALL_TARGET),
    _host("wasm to Python, nop()", "host_nop", None),
    _host("wasm to Python, four types", "host_mixed", None),
    Case("store and instance", "instantiation", {}, "instantiation", {}, INSTANTIATION_TARGET),
)


def _measure_case(section: str, settings: Settings, case: Case) -> Row:
    seconds = 0.002 if settings.quick else 0.1
    row = Row(section, case.name, unit="ns", target=case.target)
    with (
        Worker(settings.ours, case.case, {**case.ours, "seconds": seconds}) as ours,
        Worker(settings.peer, case.peer_case, {**case.peer, "seconds": seconds}) as peer,
    ):
        row.samples = interleave({"ours": ours.sample, "peer": peer.sample}, settings.rounds)
    row.ours = min(row.samples["ours"]) * NANOSECONDS
    row.peer = min(row.samples["peer"]) * NANOSECONDS
    return row


def measure_table(section: str, settings: Settings, table: tuple[Case, ...]) -> Iterator[Row]:
    """The rows of a table of cases; a case that fails is a row with its error."""
    for case in table:
        if not settings.wants(case.name):
            continue
        try:
            yield _measure_case(section, settings, case)
        except MeasurementError as error:
            yield Row(section, case.name, error=str(error))


def measure(settings: Settings) -> Iterator[Row]:
    return measure_table("calls", settings, TABLE)
