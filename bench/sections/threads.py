"""Two threads over one shared memory against one that does the same work alone, by the wall clock. Both in turns, in a
process each; the minimum of the rounds counts, which finds the moments in which two cores were free, if there were any.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from bench.measure import MeasurementError, Row, Settings, Worker

ROUNDS: Final = 20_000_000
TARGET: Final = 1 / 1.6
SAMPLES: Final = 8
FREE: Final = 1.9
"""Processors that two threads have when two cores are free."""


def measure(settings: Settings) -> Iterator[Row]:
    name = "two threads to one, the same work"
    if not settings.wants(name):
        return
    rounds = 200_000 if settings.quick else ROUNDS
    taken: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    try:
        with ExitStack() as stack:
            workers = {
                n: stack.enter_context(Worker(settings.ours, "threads", {"threads": n, "rounds": rounds}))
                for n in taken
            }
            for _ in range(1 if settings.quick else settings.rounds * SAMPLES):
                for n, worker in workers.items():
                    taken[n].append(worker.sample_details())
    except MeasurementError as error:
        yield Row("threads", name, error=str(error))
        return
    one, two = (min(samples, key=lambda sample: float(sample["seconds"])) for samples in taken.values())
    ratio = two["seconds"] / one["seconds"]
    busy = two["processors"] < FREE
    note = f"{1 / ratio:.2f} times the throughput"
    if busy:
        note += f"; no verdict: cores were busy, two threads had {two['processors']:.2f} processors"
    row = Row("threads", name, unit="ratio", ours=ratio, target=None if busy else TARGET, note=note)
    row.samples = {f"{n}": [float(sample["seconds"]) for sample in samples] for n, samples in taken.items()}
    yield row
