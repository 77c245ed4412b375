"""The command `python -m bench`: chooses sections, runs them, prints rows as they come and writes the results.

A missed target is a line in the table, not a failure; the exit status is 1 only when something could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import util
from pathlib import Path

from bench import report
from bench.measure import ROOT, Row, Settings
from bench.sections import SECTIONS, TITLES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Wasmforge against the wasmtime package and native code, in turns in one run.",
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny workloads: shows that the benchmark works, nothing else"
    )
    parser.add_argument(
        "--rounds", type=int, default=None, metavar="N", help="samples of each side (default 5, quick 1)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="only cases whose name contains WORD"
    )
    parser.add_argument("--ours", default="wasmforge", metavar="PACKAGE", help="package to measure (default wasmforge)")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="where the results go (default bench/results)"
    )
    parser.add_argument(
        "--document",
        type=Path,
        default=None,
        metavar="FILE",
        help="write the tables between the markers of FILE (default, in a complete run: docs/performance.md)",
    )
    parser.add_argument("--no-document", action="store_true", help="leave the document alone")
    return parser


def run(settings: Settings, sections: Sequence[str]) -> list[Row]:
    """Measure the given sections, printing each row as soon as it is there."""
    rows: list[Row] = []
    print(report.header())
    for section in sections:
        print(f"-- {TITLES[section]}", flush=True)
        for row in SECTIONS[section](settings):
            print(report.line(row), flush=True)
            rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    for package in (options.ours, "wasmtime"):
        if util.find_spec(package) is None and not (package == "wasmforge" and (ROOT / "src" / package).is_dir()):
            parser.error(f"the package {package} is not installed: pip install 'wasmforge[bench]'")
    rounds = options.rounds or (1 if options.quick else 5)
    settings = Settings(ours=options.ours, quick=options.quick, rounds=rounds, only=tuple(options.only))
    facts = report.environment(report.command_line())
    rows = run(settings, options.sections or list(SECTIONS))
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = options.json or ROOT / "bench" / "results" / f"{stamp}{'-quick' if options.quick else ''}.json"
    report.write_json(path, facts, rows)
    print(f"results in {path}")
    complete = not (options.quick or options.sections or options.only or options.ours != "wasmforge")
    document = None if options.no_document else options.document or (report.DOCUMENT if complete else None)
    if document:
        report.write_document(document, report.markdown(facts, rows))
        print(f"tables in {document}")
    missed = [row.name for row in rows if row.verdict == "missed"]
    failed = [row.name for row in rows if row.verdict == "error"]
    print(f"{len(rows)} rows; missed: {', '.join(missed) or 'none'}; errors: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
