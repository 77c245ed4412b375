"""Compile time of the guests and the memory of a process that runs one, for information; and what the front end takes
for an instruction, compiled by mypyc as an installation has it, with the targets of the third issue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench import build_guests
from bench.catalogue import GUESTS, Guest
from bench.front_end import front_end_rows
from bench.measure import MeasurementError, Row, Settings, Worker, interleave

NAMES: Final = ("json", "compressor", "bytecode")  # enough for a figure; compiling takes longest of all


def _compile_row(settings: Settings, guest: Guest) -> Row:
    row = Row("compilation", f"compile {guest.name}", unit="s", note=f"{guest.wasm.stat().st_size >> 10} KiB of wasm")
    arguments = {"path": str(guest.wasm)}
    with (
        Worker(settings.ours, "compilation", arguments, cache=False) as ours,
        Worker(settings.peer, "compilation", arguments) as peer,
    ):
        rounds = 1 if settings.quick else min(settings.rounds, 3)
        row.samples = interleave({"ours": ours.sample, "peer": peer.sample}, rounds)
    row.ours, row.peer = min(row.samples["ours"]), min(row.samples["peer"])
    return row


def _memory_row(settings: Settings, guest: Guest) -> Row:
    """Peak resident memory above what the process had before it made an engine; child processes are not counted."""
    row = Row("compilation", f"memory of {guest.name}", unit="MiB", note="peak; ours compiles in other processes")
    arguments = {"path": str(guest.wasm), "arguments": list(guest.small)}
    figures = []
    for engine in (settings.ours, settings.peer):
        with Worker(engine, "guest", arguments, cache=False) as worker:
            figures.append(worker.sample_details()["memory"] / 1024)
    row.ours, row.peer = figures
    return row


def _front_end(settings: Settings) -> Iterator[Row]:
    guests = GUESTS[:2] if settings.quick else GUESTS
    try:
        build_guests.build(guests)
        yield from front_end_rows([guest.wasm for guest in guests], 1 if settings.quick else settings.rounds)
    except (build_guests.BuildError, MeasurementError) as error:
        yield Row("compilation", "front end", error=str(error))


def measure(settings: Settings) -> Iterator[Row]:
    if settings.wants("front end"):
        yield from _front_end(settings)
    guests = [guest for guest in GUESTS if guest.name in NAMES and settings.wants(guest.name)]
    if settings.quick:
        guests = guests[:1]
    try:
        build_guests.build(guests)
    except build_guests.BuildError as error:
        yield Row("compilation", "all", error=str(error))
        return
    for guest in guests:
        for measure_row in (_compile_row, _memory_row):
            try:
                yield measure_row(settings, guest)
            except MeasurementError as error:
                yield Row("compilation", guest.name, error=str(error))
