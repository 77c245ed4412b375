"""Rows to text: the table on the terminal, the JSON file of a run, and the tables in docs/performance.md.

`run` hands in the rows. The document keeps its own words; only what stands between its two markers is written here.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from bench.measure import ROOT, Row
from bench.sections import TITLES

DOCUMENT: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- bench: begin (written by python -m bench) -->"
END: Final = "<!-- bench: end -->"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def environment(command: Sequence[str]) -> dict[str, str]:
    """What a reader needs to repeat the run."""
    return {
        "command": " ".join(command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} logical processors",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wasmforge": _version("wasmforge"),
        "llvmlite": _version("llvmlite"),
        "wasmtime": _version("wasmtime"),
        "ziglang": _version("ziglang"),
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def number(value: float | None) -> str:
    """Three significant digits, without exponents."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def fraction(ratio: float | None) -> str:
    """A ratio; small ones as 1/n, which is how the targets are stated."""
    if ratio is None:
        return ""
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.15 else f"{ratio:.2f}"


def _with_unit(value: float | None, unit: str) -> str:
    return f"{number(value)} {unit}".strip() if value is not None else ""


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    if row.peer is None and row.unit != "ratio":
        return f"≤ {_with_unit(row.target, row.unit)}"
    return f"≤ {fraction(row.target)}"


COLUMNS: Final = ("case", "ours", "wasmtime", "ratio", "of native", "target", "")


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row, in the order of COLUMNS."""
    name = f"{row.name} ({row.note})" if row.note else row.name
    if row.error is not None:
        return (row.name, row.error, "", "", "", "", "error")
    unit = "" if row.unit == "ratio" else row.unit
    ours = fraction(row.ours) if row.unit == "ratio" else _with_unit(row.ours, unit)
    native = fraction(row.to_native)
    return (name, ours, _with_unit(row.peer, unit), fraction(row.ratio), native, _target(row), row.verdict)


def line(row: Row) -> str:
    """A row for the terminal."""
    name, ours, peer, ratio, native, target, verdict = cells(row)
    return f"{name:46} {ours:>12} {peer:>12} {ratio:>8} {native:>8} {target:>10}  {verdict}".rstrip()


def header() -> str:
    name, ours, peer, ratio, native, target, _ = COLUMNS
    return f"{name:46} {ours:>12} {peer:>12} {ratio:>8} {native:>8} {target:>10}"


def write_json(path: Path, facts: dict[str, str], rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"environment": facts, "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def markdown(facts: dict[str, str], rows: Sequence[Row]) -> str:
    """The generated part of the document: how it was measured, then one table a section."""
    how = (
        f"Measured {facts['date']} by `{facts['command']}` at commit {facts['commit']}, on {facts['processor']}, "
        f"{facts['system']}, {facts['python']}, wasmtime {facts['wasmtime']}, llvmlite {facts['llvmlite']}, "
        f"ziglang {facts['ziglang']} (load average at the start {facts['load']})."
    )
    lines = [how]
    for section, title in TITLES.items():
        chosen = [row for row in rows if row.section == section]
        if not chosen:
            continue
        with_native = any(row.native for row in chosen)
        keep = [i for i, column in enumerate(COLUMNS) if with_native or column != "of native"]
        lines += ["", f"### {title}", ""]
        lines.append("| " + " | ".join(COLUMNS[i] for i in keep) + " |")
        lines.append("|" + "|".join("---" if i in (0, 6) else "---:" for i in keep) + "|")
        for row in chosen:
            values = cells(row)
            lines.append("| " + " | ".join(values[i].replace("|", "\\|") for i in keep) + " |")
    return "\n".join(lines)


def write_document(path: Path, text: str) -> None:
    """Replace what stands between the markers of `path`. Raises: ValueError, when the markers are not there."""
    document = path.read_text(encoding="utf-8")
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: the markers {BEGIN!r} and {END!r} are missing")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def command_line() -> list[str]:
    """The command as a user would type it."""
    return ["python", "-m", "bench", *sys.argv[1:]]
