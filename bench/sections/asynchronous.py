"""Asynchronous calls: what it costs that a coroutine is awaited by a host function and not by Python itself, in
nanoseconds an await of a coroutine that is ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.measure import MeasurementError, Row, Settings, Worker, interleave

AWAIT_TARGET: Final = 400.0  # nanoseconds above Python's own
NANOSECONDS: Final = 1e9


def measure(settings: Settings) -> Iterator[Row]:
    name = "await of a ready coroutine, above Python's own"
    if not settings.wants(name):
        return
    row = Row("asynchronous", name, unit="ns", target=AWAIT_TARGET)
    arguments = {"awaits": 1_000 if settings.quick else 20_000}
    try:
        with (
            Worker(settings.ours, "await", {**arguments, "through_wasm": True}) as ours,
            Worker(settings.ours, "await", {**arguments, "through_wasm": False}) as python,
        ):
            row.samples = interleave({"ours": ours.sample, "python": python.sample}, 4 * settings.rounds)
    except MeasurementError as error:
        yield Row("asynchronous", name, error=str(error))
        return
    through_wasm, plain = (min(row.samples[who]) * NANOSECONDS for who in ("ours", "python"))
    row.ours = through_wasm - plain
    row.note = f"{through_wasm:.0f} ns through wasm, {plain:.0f} ns in Python"
    yield row
