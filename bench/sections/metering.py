"""What fuel and epochs cost: CPU time of guests with and without, ours and the peer's in turns. A slowdown is the
quotient of minima; the target compares our slowdown with the peer's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench import build_guests
from bench.catalogue import GUESTS, Guest
from bench.measure import MeasurementError, Row, Settings, Worker, geometric_mean, interleave

CASES: Final = {"fuel": "consume_fuel", "epochs": "epoch_interruption"}
MEASURED: Final = ("bytecode", "calls", "digest", "json", "matrix", "regex")
"""An interpreter loop, recursion, straight-line code, small functions, tight loops, branches."""

TARGET: Final = 1.0
ROUNDS: Final = 2


def _slowdowns(settings: Settings, guest: Guest, name: str) -> Row:
    words = guest.small if settings.quick else guest.large
    arguments = {"path": str(guest.wasm), "arguments": list(words)}
    metered = {**arguments, "settings": {CASES[name]: True}}
    row = Row("metering", f"{name}: {guest.name}", unit="ratio")
    with ExitStack() as stack:
        workers = {
            f"{side} {kind}": stack.enter_context(Worker(package, "guest", given))
            for side, package in (("ours", settings.ours), ("peer", settings.peer))
            for kind, given in (("off", arguments), ("on", metered))
        }
        row.samples = interleave(
            {key: worker.sample for key, worker in workers.items()}, 1 if settings.quick else settings.rounds * ROUNDS
        )
    least = {key: min(samples) for key, samples in row.samples.items()}
    row.ours = least["ours on"] / least["ours off"]
    row.peer = least["peer on"] / least["peer off"]
    return row


def measure(settings: Settings) -> Iterator[Row]:
    guests = [guest for guest in GUESTS if guest.name in MEASURED]
    if settings.quick:
        guests = guests[:1]
    try:
        build_guests.build(guests)
    except build_guests.BuildError as error:
        yield Row("metering", "all", error=str(error))
        return
    for name in CASES:
        if not settings.wants(name):
            continue
        rows = []
        for guest in guests:
            try:
                rows.append(_slowdowns(settings, guest, name))
            except MeasurementError as error:
                yield Row("metering", f"{name}: {guest.name}", error=str(error))
                continue
            yield rows[-1]
        if rows:
            yield Row(
                "metering",
                f"{name}: geometric mean",
                unit="ratio",
                ours=geometric_mean(row.ours for row in rows if row.ours),
                peer=geometric_mean(row.peer for row in rows if row.peer),
                target=TARGET,
            )
