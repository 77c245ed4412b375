"""What decoding, validating and baseline code generation take for an instruction, over all guests of the benchmark.

`front_end_rows` measures the compiled front end of `.cache/compiled` (`make compiled`) where it is there, else the
sources, whose rows then have no target. This file is also the program that it starts. Processor time, and the minimum
of many rounds: so it stands on a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["front_end_rows"]

PASSES: Final = 4
"""Times that a process does everything, a round."""
PHASES: Final = ("decode", "validate", "baseline code", "baseline code with counters")


def front_end_rows(paths: Sequence[Path], rounds: int) -> Iterator[Any]:
    """Rows in ns an instruction. Raises: MeasurementError, when the process fails."""
    from bench.measure import ROOT, MeasurementError, Row, child_environment

    environment = child_environment(cache=False)
    compiled = ROOT / ".cache" / "compiled"
    if (compiled / ".stamp").exists():
        environment["PYTHONPATH"] = str(compiled)
    command = [sys.executable, __file__, str(PASSES * rounds), *map(str, paths)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MeasurementError(f"exit status {result.returncode}: {result.stderr.strip().splitlines()[-1:]}")
    found = json.loads(result.stdout)
    samples = found["samples"]
    samples["decode and validate"] = [sum(pair) for pair in zip(samples["decode"], samples["validate"], strict=True)]
    best = {name: min(values) for name, values in samples.items()}
    best["decode and validate"] = best["decode"] + best["validate"]
    targets = {"decode and validate": 40.0, "baseline code": 250.0, "baseline code with counters": 250.0}
    note = f"{found['instructions']} instructions of {len(paths)} guests, " + (
        "compiled by mypyc" if found["compiled"] else "NOT COMPILED (make compiled)"
    )
    for name in ("decode", "validate", "decode and validate", *PHASES[2:]):
        target = targets.get(name) if found["compiled"] else None
        row = Row("compilation", f"front end: {name}", "ns/instruction", best[name], target=target, note=note)
        row.samples = {"ours": samples[name]}
        yield row


def _best_of(passes: int, work: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Processor seconds of each, in turns."""
    seconds: list[list[float]] = [[] for _ in work]
    for _ in range(passes):
        for k, step in enumerate(work):
            start = time.thread_time()
            step()
            seconds[k].append(time.thread_time() - start)
    return seconds


def main(passes: int, paths: Sequence[str]) -> None:
    """Prints the samples as JSON."""
    from wasmforge.binary import decode
    from wasmforge.compiler.baseline import Compiler, Context, function
    from wasmforge.compiler.environ import Tunables
    from wasmforge.validation import validate

    data = [Path(path).read_bytes() for path in paths]
    modules = [decode(wasm) for wasm in data]
    facts = [validate(module) for module in modules]
    instructions = sum(sum(f.instruction_counts) for f in facts)

    def generate(counters: bool) -> None:
        for module, f in zip(modules, facts, strict=True):
            context = Context(module, sorted(f.escaping), f.tail_callers, Tunables(), True, counters)
            compiler = Compiler(context)
            first = context.imported_functions
            for index in range(first, first + len(module.code)):
                compiler.compile_function(index)

    seconds = _best_of(
        passes,
        [
            lambda: [decode(wasm) for wasm in data],
            lambda: [validate(module) for module in modules],
            lambda: generate(False),
            lambda: generate(True),
        ],
    )
    result = {
        "compiled": not (function.__file__ or "").endswith(".py"),
        "instructions": instructions,
        "samples": {
            name: [s / instructions * 1e9 for s in values] for name, values in zip(PHASES, seconds, strict=True)
        },
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    os.environ.setdefault("WASMFORGE_CACHE", "0")
    main(int(sys.argv[1]), sys.argv[2:])
