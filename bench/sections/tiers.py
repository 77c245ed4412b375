"""Run time of the guests by tier: the baseline compiler against the peer, and `auto`, after some runs in which hot
functions move to LLVM, against `llvm`. All four in turns; the minimum of the rounds counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench import build_guests
from bench.catalogue import GUESTS, Guest
from bench.measure import MeasurementError, Row, Settings, Worker, geometric_mean, interleave

WARMING_RUNS: Final = 5
ROUNDS: Final = 3
BASELINE_TARGET: Final = 1.10
AUTO_TARGET: Final = 1.10


def _samples(settings: Settings, guest: Guest) -> dict[str, list[float]]:
    words = guest.small if settings.quick else guest.large
    arguments = {"path": str(guest.wasm), "arguments": list(words)}
    with ExitStack() as stack:
        workers = {
            strategy: stack.enter_context(
                Worker(settings.ours, "guest", {**arguments, "settings": {"strategy": strategy}})
            )
            for strategy in ("baseline", "auto", "llvm")
        }
        workers["peer"] = stack.enter_context(Worker(settings.peer, "guest", arguments))
        for _ in range(WARMING_RUNS):
            workers["auto"].sample_details()

        def sample(worker: Worker) -> float:
            return float(worker.sample_details()["seconds"])

        rounds = 1 if settings.quick else settings.rounds * ROUNDS
        return interleave({name: lambda w=worker: sample(w) for name, worker in workers.items()}, rounds)  # type: ignore[misc]


def measure(settings: Settings) -> Iterator[Row]:
    guests = [guest for guest in GUESTS if settings.wants(guest.name)]
    if settings.quick:
        guests = guests[:2]
    if not guests:
        return
    try:
        build_guests.build(guests)
    except build_guests.BuildError as error:
        yield Row("tiers", "all", error=str(error))
        return
    to_peer, to_llvm = [], []
    for guest in guests:
        try:
            samples = _samples(settings, guest)
        except MeasurementError as error:
            yield Row("tiers", guest.name, error=str(error))
            continue
        best = {name: min(values) for name, values in samples.items()}
        to_peer.append(best["baseline"] / best["peer"])
        to_llvm.append(best["auto"] / best["llvm"])
        yield Row("tiers", f"{guest.name}, baseline", unit="s", ours=best["baseline"], peer=best["peer"])
        note = f"{to_llvm[-1]:.2f} of llvm's {best['llvm']:.3f} s"
        yield Row("tiers", f"{guest.name}, auto", unit="s", ours=best["auto"], peer=best["peer"], note=note)
    for name, ratios, target in (
        ("geometric mean, baseline to peer", to_peer, BASELINE_TARGET),
        ("geometric mean, auto to llvm", to_llvm, AUTO_TARGET),
    ):
        if ratios:
            yield Row("tiers", name, unit="ratio", ours=geometric_mean(ratios), target=target)
