"""WASI functions that programs call often: nanoseconds a call in a loop in wasm, the same loop in either package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.measure import MeasurementError, Row, Settings, Worker, interleave

TARGET: Final = 1.5
QUICK: Final = 50

TABLE: Final = (
    # name, function of the guest, calls, target
    ("fd_write, 64 MiB to a file in 4 KiB pieces", "write", 16384, TARGET),
    ("fd_read, the same back", "read", 16384, TARGET),
    ("path_open and fd_close, 100,000 pairs", "open", 100_000, TARGET),
    ("clock_time_get, a million", "clock", 1_000_000, TARGET),
    ("fd_write to discarded output", "sink", 1_000_000, None),
    ("random_get of 8 bytes", "random", 100_000, None),
)


def measure(settings: Settings) -> Iterator[Row]:
    for name, function, count, target in TABLE:
        if not settings.wants(name):
            continue
        arguments = {"function": function, "count": QUICK if settings.quick else count}
        row = Row("wasi", name, unit="ns", target=target)
        try:
            with (
                Worker(settings.ours, "wasi", arguments) as ours,
                Worker(settings.peer, "wasi", arguments) as peer,
            ):
                row.samples = interleave({"ours": ours.sample, "peer": peer.sample}, settings.rounds)
            row.ours = min(row.samples["ours"]) * 1e9
            row.peer = min(row.samples["peer"]) * 1e9
        except MeasurementError as error:
            row = Row("wasi", name, error=str(error))
        yield row
