"""Whole processes, in turns: importing the package, and mapping a compiled image from its file and calling it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.measure import (
    MeasurementError,
    Row,
    Settings,
    child_environment,
    interleave,
    process_cpu_seconds,
    process_seconds,
)

IMAGE_TARGET: Final = 0.45
IMPORT_TARGET: Final = 30.0  # milliseconds
MILLISECONDS: Final = 1e3

ADD: Final = '(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'

COMPILE: Final = """
import sys, {package} as package
module = package.Module(package.Engine(), sys.argv[1])
open(sys.argv[2], "wb").write(module.serialize())
"""

# The same program for both: only the name of the package differs.
RUN: Final = """
import sys, {package} as package
engine = package.Engine()
store = package.Store(engine)
module = package.Module.deserialize_file(engine, sys.argv[1])
assert package.Instance(store, module, []).exports(store)["add"](store, 20, 22) == 42
"""


def _python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def _run(code: str, *arguments: str) -> str:
    result = subprocess.run(
        _python(code, *arguments), env=child_environment(), capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise MeasurementError((result.stderr.strip().splitlines() or ["no message"])[-1])
    return result.stdout


def _processes(settings: Settings) -> int:
    """Rounds: start-up of a process varies more than a loop does, and one takes a hundredth of a second."""
    return 2 if settings.quick else max(20, settings.rounds * 4)


def _import_rows(settings: Settings) -> Iterator[Row]:
    row = Row("processes", "import", unit="ms", target=IMPORT_TARGET, note="above the bare interpreter")
    _run(f"import {settings.ours}")  # writes the bytecode files
    samples = interleave(
        {
            "bare": process_seconds(_python("pass")),
            "ours": process_seconds(_python(f"import {settings.ours}")),
            "peer": process_seconds(_python(f"import {settings.peer}")),
        },
        _processes(settings),
    )
    bare = min(samples["bare"])
    row.samples = samples
    row.ours = (min(samples["ours"]) - bare) * MILLISECONDS
    yield row
    peer = (min(samples["peer"]) - bare) * MILLISECONDS
    yield Row("processes", f"import {settings.peer}", unit="ms", peer=peer, note="above the bare interpreter")
    yield Row("processes", "bare interpreter", unit="ms", ours=bare * MILLISECONDS, note="whole process")
    loaded = _run(f"import sys, {settings.ours}; print(sorted(m for m in sys.modules if m.startswith('llvmlite')))")
    if loaded.strip() != "[]":
        yield Row("processes", "import without llvmlite", error=f"the import loads {loaded.strip()}")


def _image_rows(settings: Settings) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="wasmforge-bench-") as folder:
        images = {name: str(Path(folder) / name) for name in ("ours", "peer")}
        _run(COMPILE.format(package=settings.ours), ADD, images["ours"])
        _run(COMPILE.format(package=settings.peer), ADD, images["peer"])
        ours, peer = RUN.format(package=settings.ours), RUN.format(package=settings.peer)
        samplers = {
            "ours": process_seconds(_python(ours, images["ours"])),
            "peer": process_seconds(_python(peer, images["peer"])),
        }
        samples = interleave(samplers, _processes(settings))
        processor = interleave(
            {
                "ours": process_cpu_seconds(_python(ours, images["ours"])),
                "peer": process_cpu_seconds(_python(peer, images["peer"])),
            },
            _processes(settings),
        )
    for name, summary in (("minimum", min), ("median", statistics.median)):
        row = Row("processes", f"image mapped and called, {name}", unit="ms", target=IMAGE_TARGET, note="whole process")
        row.ours = summary(samples["ours"]) * MILLISECONDS
        row.peer = summary(samples["peer"]) * MILLISECONDS
        row.samples = samples
        yield row
    row = Row("processes", "image mapped and called, processor time", unit="ms", note="minimum", samples=processor)
    row.ours, row.peer = min(processor["ours"]) * MILLISECONDS, min(processor["peer"]) * MILLISECONDS
    yield row


def measure(settings: Settings) -> Iterator[Row]:
    for name, rows in (("import", _import_rows), ("image", _image_rows)):
        if not settings.wants(name):
            continue
        try:
            yield from rows(settings)
        except MeasurementError as error:
            yield Row("processes", name, error=str(error))
