"""Run time of the guests: CPU time of `_start`, ours, the peer's and native, in turns; the minimum of the rounds
counts.

Each engine keeps the compiled guest in a process of its own. The printed bytes must be equal in every round.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any, Final

from bench import build_guests
from bench.catalogue import GUESTS, VECTOR_GUESTS, Guest
from bench.measure import MeasurementError, Row, Settings, Worker, geometric_mean, interleave, run_measured

ROUNDS: Final = 3  # times the rounds that were asked for: samples of a third of a second, of which one is undisturbed
GEOMEAN_TARGET: Final = 0.80
WORST_TARGET: Final = 1.15
VECTOR_TARGETS: Final = {"llvm": 0.90, "baseline": 1.30}


def _native_sample(guest: Guest, words: tuple[str, ...], digests: set[str]) -> float:
    """CPU time of a whole native process: its start is below a millisecond."""
    said, seconds = run_measured([guest.native, *words], os.environ, "native: ")
    digests.add(hashlib.sha256(said).hexdigest())
    return seconds


def _measure_guest(settings: Settings, guest: Guest, strategy: str | None = None) -> Row:
    words = guest.small if settings.quick else guest.large
    arguments = {"path": str(guest.wasm), "arguments": list(words)}
    # The targets are those of the optimising compiler; the section "tiers" measures the others.
    own = {**arguments, "settings": {"strategy": strategy or "llvm"}}
    digests: set[str] = set()
    name = guest.name if strategy is None else f"{guest.name}, {strategy}"
    row = Row("guests" if strategy is None else "vectors", name, unit="s", target=None if strategy else WORST_TARGET)
    with Worker(settings.ours, "guest", own) as ours, Worker(settings.peer, "guest", arguments) as peer:

        def in_worker(worker: Worker) -> float:
            details: dict[str, Any] = worker.sample_details()
            digests.add(details["digest"])
            return float(details["seconds"])

        row.samples = interleave(
            {
                "ours": lambda: in_worker(ours),
                "peer": lambda: in_worker(peer),
                "native": lambda: _native_sample(guest, words, digests),
            },
            1 if settings.quick else settings.rounds * ROUNDS,
        )
    if len(digests) != 1:
        raise MeasurementError("the engines and native code print different bytes")
    row.ours, row.peer, row.native = (min(row.samples[name]) for name in ("ours", "peer", "native"))
    return row


def measure(settings: Settings) -> Iterator[Row]:
    guests = [guest for guest in GUESTS if settings.wants(guest.name)]
    if settings.quick:
        guests = guests[:3]
    if not guests:
        return
    try:
        build_guests.build(guests)
    except build_guests.BuildError as error:
        yield Row("guests", "all", error=str(error))
        return
    rows = []
    for guest in guests:
        try:
            row = _measure_guest(settings, guest)
        except MeasurementError as error:
            yield Row("guests", guest.name, error=str(error))
            continue
        yield row
        rows.append(row)
    ratios = [row.ratio for row in rows if row.ratio]
    natives = [row.to_native for row in rows if row.to_native]
    if not ratios:
        return
    yield Row(
        "guests",
        "geometric mean",
        unit="ratio",
        ours=geometric_mean(ratios),
        target=GEOMEAN_TARGET,
        note=f"{geometric_mean(natives):.2f} of native" if natives else "",
    )
    yield Row("guests", "worst", unit="ratio", ours=max(ratios), target=WORST_TARGET)


def measure_vectors(settings: Settings) -> Iterator[Row]:
    """The programs with vectors, through both compilers."""
    guests = [guest for guest in VECTOR_GUESTS if settings.wants(guest.name)]
    if not guests:
        return
    try:
        build_guests.build(guests)
    except build_guests.BuildError as error:
        yield Row("vectors", "all", error=str(error))
        return
    for strategy, target in VECTOR_TARGETS.items():
        ratios = []
        for guest in guests:
            try:
                row = _measure_guest(settings, guest, strategy)
            except MeasurementError as error:
                yield Row("vectors", f"{guest.name}, {strategy}", error=str(error))
                continue
            yield row
            if row.ratio:
                ratios.append(row.ratio)
        if ratios:
            mean = geometric_mean(ratios)
            yield Row("vectors", f"geometric mean, {strategy}", unit="ratio", ours=mean, target=target)
