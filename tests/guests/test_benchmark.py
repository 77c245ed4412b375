"""The benchmark keeps working: arithmetic of its rows, failures that become rows, and one tiny run of every section.
No test looks at a time.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import build_guests, report
from bench.measure import (
    MeasurementError,
    Row,
    Worker,
    geometric_mean,
    interleave,
    process_cpu_seconds,
    process_seconds,
)
from bench.run import main
from bench.sections import SECTIONS


def test_samples_are_taken_in_turns_and_back() -> None:
    order: list[str] = []

    def sampler(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = interleave({name: lambda name=name: sampler(name) for name in ("ours", "peer")}, 3)  # type: ignore[misc]
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert samples == {"ours": [1.0, 4.0, 5.0], "peer": [2.0, 3.0, 6.0]}


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("calls", "a", ours=60.0, peer=20_000.0, target=1 / 300), "met"),
        (Row("calls", "a", ours=80.0, peer=20_000.0, target=1 / 300), "missed"),
        (Row("processes", "a", unit="ms", ours=29.0, target=30.0), "met"),
        (Row("processes", "a", unit="ms", ours=31.0, target=30.0), "missed"),
        (Row("calls", "a", ours=1.0, peer=2.0), ""),
        (Row("calls", "a", ours=1.0, peer=2.0, target=1.0, error="broken"), "error"),
    ],
)
def test_verdict(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)


def test_table_has_a_line_for_each_row() -> None:
    rows = [
        Row("guests", "json", unit="s", ours=0.8, peer=1.0, native=0.5, target=1.15),
        Row("guests", "worst", unit="ratio", ours=0.8, target=1.15),
        Row("calls", "add(i32, i32)", unit="ns", ours=60.0, peer=24_000.0, target=1 / 300),
        Row("calls", "broken", error="it | broke"),
    ]
    text = report.markdown(report.environment(["python", "-m", "bench"]), rows)
    assert "| json | 0.800 s | 1.00 s | 0.80 | 1.60 | ≤ 1.15 | met |" in text
    assert "| worst | 0.80 |  |  |  | ≤ 1.15 | met |" in text
    assert "| add(i32, i32) | 60.0 ns | 24,000 ns | 1/400 | ≤ 1/300 | met |" in text
    assert "| broken | it \\| broke |  |  |  | error |" in text


def test_document_keeps_its_words(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_document(document, "new")
    report.write_document(document, "newer")
    assert document.read_text() == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"
    document.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        report.write_document(document, "new")


def test_the_document_of_the_project_has_its_markers() -> None:
    text = report.DOCUMENT.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_failures_in_a_worker_are_reported() -> None:
    pytest.importorskip("wasmtime")
    with pytest.raises(MeasurementError, match="no_such_package"):
        Worker("no_such_package", "guest", {})
    with pytest.raises(MeasurementError, match="no_such_export"):
        arguments = {"function": "no_such_export", "arguments": [], "style": "package", "seconds": 0.001}
        Worker("wasmtime", "call", arguments)


def test_failing_process_is_not_a_fast_one() -> None:
    for sampler in (process_seconds, process_cpu_seconds):
        with pytest.raises(MeasurementError, match="exit status 3: because"):
            sampler(["sh", "-c", "echo because >&2; exit 3"])()


@pytest.mark.slow
def test_tiny_run_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench --quick` measures every row of every section, ours included, without one error."""
    pytest.importorskip("wasmtime")
    if reason := build_guests.compiler_missing():
        pytest.skip(reason)
    results = tmp_path / "results.json"
    status = main(["--quick", "--json", str(results), "--no-document"])
    rows = json.loads(results.read_text())["rows"]
    assert [row["name"] + ": " + row["error"] for row in rows if row["error"]] == []
    assert status == 0
    assert {row["section"] for row in rows} == set(SECTIONS)
    # What `make guests` fetches may be missing, and the row says so.
    assert all(row["ours"] or row["peer"] or row["note"].startswith("not measured") for row in rows)
    assert "errors: none" in capsys.readouterr().out
