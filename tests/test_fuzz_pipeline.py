"""A sample of the mutants that `python -m tests.fuzz_pipeline` sends through the whole pipeline (untrusted modules
cause a result or an exception of this package, nothing else), and whether it would notice anything else."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fuzz_pipeline
from tests.fuzz_pipeline import Corpus as ModuleCorpus
from tests.fuzz_pipeline import DifferenceError, Parent, Pipeline, mutant
from wasmforge import wat2wasm

ABORTING = """
import os, sys
from tests import fuzz_pipeline
execute = fuzz_pipeline.Pipeline.execute
def broken(self, data, number, llvm):
    if number == 3:
        os.kill(os.getpid(), {signal})
    if number == 5:
        raise SystemError("five")
    execute(self, data, number, False)
fuzz_pipeline.Pipeline.execute = broken
sys.exit(fuzz_pipeline.child(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def corpus() -> ModuleCorpus:
    return ModuleCorpus.make(files=40)


def test_mutants_cause_results_or_exceptions_of_the_package(corpus: ModuleCorpus, tmp_path: Path) -> None:
    parent = Parent(corpus, seed=20, kept=tmp_path)
    parent.run(300)
    assert not parent.findings, parent.findings
    assert parent.done == 300
    # A fuzzer whose modules do not get anywhere holds nothing.
    assert parent.counts["valid"] > 60
    assert parent.counts["call: result"] > 100
    assert parent.counts["compared"] > 5


def test_a_mutant_depends_on_seed_and_number_alone(corpus: ModuleCorpus) -> None:
    assert [mutant(corpus, 7, k) for k in range(30)] == [mutant(corpus, 7, k) for k in range(30)]
    assert len({mutant(corpus, 7, k) for k in range(30)} | {mutant(corpus, 8, k) for k in range(30)}) > 50


def test_a_crash_and_a_stray_exception_are_found_and_the_rest_runs(corpus: ModuleCorpus, tmp_path: Path) -> None:
    command = (sys.executable, "-c", ABORTING.format(signal=int(signal.SIGSEGV)))
    parent = Parent(corpus, seed=20, kept=tmp_path, command=command)
    parent.run(8)
    found = {finding.number: finding for finding in parent.findings}
    assert sorted(found) == [3, 5]
    assert found[3].what == f"crash, exit code {-signal.SIGSEGV}"
    assert "broken" in found[3].detail  # faulthandler says where
    assert found[5].what == "SystemError('five')"
    assert found[3].path.read_bytes() == mutant(corpus, 20, 3)
    assert parent.done == 8


def test_a_hang_is_found(corpus: ModuleCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_pipeline, "HANG_SECONDS", 4.0)
    command = (sys.executable, "-c", ABORTING.format(signal=int(signal.SIGSTOP)))
    parent = Parent(corpus, seed=20, kept=tmp_path, command=command)
    parent.run(1, first=3)
    assert [finding.what for finding in parent.findings] == ["hang"]


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    previous = signal.getsignal(signal.SIGALRM)
    fuzz_pipeline.Limit.install()
    made = Pipeline()
    yield made
    signal.signal(signal.SIGALRM, previous)


def test_an_endless_loop_reaches_the_limit(pipeline: Pipeline) -> None:
    pipeline.execute(bytes(wat2wasm('(module (func (export "f") (loop (br 0))))')), 0, True)
    assert pipeline.counts["call: limit"] == 1


def test_a_difference_between_the_compilers_is_found(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = fuzz_pipeline.run
    seen: list[object] = []

    def one_wrong(engine: object, *rest: object) -> list[object]:
        log = genuine(engine, *rest)
        seen.append(engine)
        return [*log[:-1], (log[-1][0], 43)] if len(seen) == 2 else log

    monkeypatch.setattr(fuzz_pipeline, "run", one_wrong)
    with pytest.raises(DifferenceError, match=r"with llvm.*42.*43"):
        pipeline.execute(bytes(wat2wasm('(module (func (export "f") (result i32) i32.const 42))')), 0, True)


def test_what_is_too_large_is_made_but_not_run(pipeline: Pipeline) -> None:
    pipeline.execute(bytes(wat2wasm('(module (memory 65536) (func (export "f")))')), 0, False)
    assert pipeline.counts["call: result"] == 1


def test_no_mutant_is_begun_after_the_deadline(corpus: ModuleCorpus, tmp_path: Path) -> None:
    parent = Parent(corpus, seed=20, kept=tmp_path)
    parent.run(300, deadline=-math.inf)
    assert parent.done == 0
    assert not os.listdir(tmp_path)
