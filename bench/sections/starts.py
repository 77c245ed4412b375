"""Big programs from start to exit: CPython and QuickJS for WASI, which print one number, cold (from the binary, nothing
cached) and warm (an earlier run has left what it compiled), ours and the peer's in turns.

Processor time and the peak of resident memory of whole processes; minima count. Ours runs the front end that mypyc has
compiled (`make compiled`), as an installed package does; without it the rows have no target.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bench.catalogue import BUILD
from bench.measure import ROOT, MeasurementError, Row, Settings, child_environment, run_measured

COMPILED: Final = ROOT / ".cache" / "compiled"
MEBIBYTE: Final = 1024.0  # of what VmHWM counts, KiB

# The same program for both. argv: the binary, an image of the peer's or "", the guest's arguments.
RUN: Final = """
import os, sys, {package} as package
binary, image, *arguments = sys.argv[1:]
engine = package.Engine()
module = package.Module.deserialize_file(engine, image) if image else package.Module.from_file(engine, binary)
linker = package.Linker(engine)
linker.define_wasi()
store = package.Store(engine)
wasi = package.WasiConfig()
wasi.argv = arguments
wasi.stdout_file = os.devnull
store.set_wasi(wasi)
try:
    linker.instantiate(store, module).exports(store)["_start"](store)
except package.ExitTrap as exit_trap:
    assert exit_trap.code == 0, exit_trap
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1])
"""

SERIALIZE: Final = """
import sys, wasmtime
open(sys.argv[2], "wb").write(wasmtime.Module.from_file(wasmtime.Engine(), sys.argv[1]).serialize())
"""


class Program(NamedTuple):
    file: str
    arguments: tuple[str, ...]
    cold: float
    warm: float
    memory: float | None
    """Target of the cold run's peak."""


PROGRAMS: Final = {
    "CPython": Program("python.wasm", ("python", "-c", "print(1)"), 0.20, 1.0, 0.25),
    "QuickJS": Program("quickjs.wasm", ("qjs", "-e", "console.log(1)"), 0.20, 0.8, None),
}


class _Best:
    """The least time and memory of several runs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: list[float] = []

    def run(self, package: str, words: list[str], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-c", RUN.format(package=package), *words]
        said, seconds = run_measured(command, environment, f"{package}: ")
        self.seconds.append(seconds)
        self.memory.append(int(said) / MEBIBYTE)


def _environment(cache: str | None) -> dict[str, str]:
    environment = child_environment(cache=cache is not None)
    if COMPILED.is_dir():
        environment["PYTHONPATH"] = str(COMPILED)
    if cache is not None:
        environment["WASMFORGE_CACHE"] = cache
    return environment


def _rows(settings: Settings, name: str, program: Program, folder: str) -> Iterator[Row]:
    binary = str(BUILD / program.file)
    image = str(Path(folder) / f"{name}.image")
    subprocess.run([sys.executable, "-c", SERIALIZE, binary, image], env=child_environment(), check=True)
    words = list(program.arguments)
    compiled = COMPILED.is_dir()
    note = "processor time of a process" if compiled else "processor time; uncompiled front end, no target"
    for kind, target, peer_image, cache in (
        ("cold", program.cold, "", None),
        ("warm", program.warm, image, str(Path(folder) / f"{name}.cache")),
    ):
        ours, peer = _Best(), _Best()
        environment = _environment(cache)
        if cache is not None:
            for _ in range(2):  # what the first run leaves, the second completes
                _Best().run(settings.ours, [binary, "", *words], environment)
        for _ in range(1 if settings.quick else max(3, settings.rounds)):
            ours.run(settings.ours, [binary, "", *words], environment)
            peer.run(settings.peer, [binary, peer_image, *words], environment)
        row = Row("starts", f"{name}, {kind}", unit="s", target=target if compiled else None, note=note)
        row.ours, row.peer = min(ours.seconds), min(peer.seconds)
        row.samples = {"ours": ours.seconds, "peer": peer.seconds}
        yield row
        memory = Row("starts", f"{name}, {kind}, peak memory", unit="MiB")
        memory.ours, memory.peer = min(ours.memory), min(peer.memory)
        memory.target = program.memory if kind == "cold" else None
        yield memory


def measure(settings: Settings) -> Iterator[Row]:
    for name, program in PROGRAMS.items():
        if not settings.wants(name) or (settings.quick and name != "QuickJS"):
            continue
        if not (BUILD / program.file).is_file():
            yield Row("starts", name, note="not measured: `make guests` fetches the program")
            continue
        with tempfile.TemporaryDirectory(prefix="wasmforge-bench-") as folder:
            try:
                yield from _rows(settings, name, program, folder)
            except (MeasurementError, subprocess.CalledProcessError) as error:
                yield Row("starts", name, error=str(error))
