"""How things are measured: samples taken in turns, rows that compare them, and child processes that hold an engine.

An engine lives in a process of its own (`Worker`, the program is worker.py), so that two runtimes never share signal
handlers, and a crash of one becomes a row that says so. The sections of the benchmark use this; report.py prints the
rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
REPLY_TIMEOUT: Final = 300.0  # seconds: more than any sample takes, so that a hang ends as a row with an error


class MeasurementError(Exception):
    """A case could not be measured; the message says why and becomes a row."""


@dataclass(frozen=True)
class Settings:
    """What the command line chose. `quick` shrinks every workload: it shows that the harness works, no more."""

    ours: str = "wasmforge"
    peer: str = "wasmtime"
    quick: bool = False
    rounds: int = 5
    only: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a case is selected: with no selection all are, else those that contain one of the words."""
        return not self.only or any(word in name for word in self.only)


@dataclass
class Row:
    """One line of a result. `ratio` is ours divided by the peer's; `target` bounds it, or `ours` where no peer is.

    A row without target is for information; `error` replaces the figures of a case that failed.
    """

    section: str
    name: str
    unit: str = ""
    ours: float | None = None
    peer: float | None = None
    target: float | None = None
    native: float | None = None
    error: str | None = None
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer

    @property
    def to_native(self) -> float | None:
        if self.ours is None or not self.native:
            return None
        return self.ours / self.native

    @property
    def verdict(self) -> str:
        """`error`, `met`, `missed`, or nothing for a row without target."""
        if self.error is not None:
            return "error"
        measured = self.ours if self.peer is None else self.ratio
        if self.target is None or measured is None:
            return ""
        return "met" if measured <= self.target else "missed"

    def as_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("section", "name", "unit", "ours", "peer", "native", "target")}
        values.update(
            ratio=self.ratio, to_native=self.to_native, verdict=self.verdict, error=self.error, note=self.note
        )
        return {**values, "samples": self.samples}


Sampler = Callable[[], float]


def interleave(samplers: Mapping[str, Sampler], rounds: int) -> dict[str, list[float]]:
    """Take `rounds` samples of each, in turns; every second round goes backwards, so that no one is always after the
    same.
    """
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    names = list(samplers)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(samplers[name]())
    return samples


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def child_environment(*, cache: bool = True) -> dict[str, str]:
    """The environment of measured processes: this checkout first, and nothing that warns or traces.

    Without `cache`, modules are compiled even when Wasmforge has them on disk; the wasmtime package has no cache unless
    a program asks for one.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONHASHSEED"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    if not cache:
        environment["WASMFORGE_CACHE"] = "0"
    return environment


def process_seconds(command: Sequence[str]) -> Sampler:
    """A sampler: the wall time of a whole process, from its start to its end, in seconds."""
    environment = child_environment()

    def sample() -> float:
        start = time.perf_counter()
        result = subprocess.run(command, env=environment, capture_output=True, check=False)
        elapsed = time.perf_counter() - start
        if result.returncode != 0:
            message = result.stderr.decode(errors="replace").strip().splitlines()
            raise MeasurementError(f"exit status {result.returncode}: {message[-1] if message else 'no message'}")
        return elapsed

    return sample


def run_measured(command: Sequence[str], environment: Mapping[str, str], what: str = "") -> tuple[bytes, float]:
    """What a process writes to standard output, and its processor time in seconds, which unlike wall time stands on a
    busy machine. Raises MeasurementError, with `what` in front, when it fails."""
    # The file takes what the process says on its way out, so that a full pipe cannot stop it before wait4.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        said = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
        if process.returncode != 0:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip().splitlines()
            raise MeasurementError(
                f"{what}exit status {process.returncode}: {message[-1] if message else 'no message'}"
            )
    return said, usage.ru_utime + usage.ru_stime


def process_cpu_seconds(command: Sequence[str]) -> Sampler:
    """A sampler: the processor time of a whole process, in seconds."""
    environment = child_environment()
    return lambda: run_measured(command, environment)[1]


class Worker:
    """A child process that holds one engine and takes samples of the case that it was opened for (see worker.py)."""

    def __init__(self, engine: str, case: str, arguments: Mapping[str, Any], *, cache: bool = True) -> None:
        """Start the child and prepare the case. `opened` is what the case reports about its preparation.

        Raises: MeasurementError, when the engine or the case cannot be used.
        """
        self.engine = engine
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", engine, case, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(cache=cache),
            cwd=ROOT,
        )
        try:
            self.opened: dict[str, Any] = self._reply()
        except BaseException:
            self.close()
            raise

    def _reply(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], REPLY_TIMEOUT)[0]:
            raise MeasurementError(f"{self.engine}: no answer in {REPLY_TIMEOUT:.0f} s")
        line = stdout.readline()
        if not line:
            raise MeasurementError(f"{self.engine}: process ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise MeasurementError(f"{self.engine}: {reply['error']}")
        return reply

    def sample(self) -> float:
        """One sample in seconds. Raises: MeasurementError, when the case fails or its process dies."""
        reply = self.sample_details()
        value: float = reply["seconds"]
        return value

    def sample_details(self) -> dict[str, Any]:
        """One sample with everything that the case reports."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"sample\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise MeasurementError(f"{self.engine}: process ended with status {self._process.wait()}") from None
        return self._reply()

    def close(self) -> None:
        """End the child: it stops by itself when its input closes; a child that hangs is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
