"""The one list of scripts of the specification suite that do not pass, with the proposals that each waits for.

`python -m tests.wast.known_failures` runs every script and prints the list as it should be; a list that grows needs
a very good reason. The numbers of failures keep the parts of a listed script that do pass from breaking unnoticed.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("known_failures.toml")

HEADER = """\
# Scripts of the specification suite that do not pass yet: the proposals that each waits for, and how many of its
# commands fail. This list can only shrink: a listed script that passes, or fails less often, fails its test.
# Made by `python -m tests.wast.known_failures`.
"""


class KnownFailure(NamedTuple):
    waits: list[str]
    failures: int


def known_failures() -> dict[str, KnownFailure]:
    """The list, by path relative to the suite's folder."""
    with LIST.open("rb") as file:
        return {name: KnownFailure(**entry) for name, entry in tomllib.load(file).items()}


def main() -> None:
    from tests.wast.suite import make_runner, scripts, suite_folder

    folder = suite_folder()
    assert folder is not None
    out = [HEADER]
    for name in scripts():
        result = make_runner(name).run((folder / name).read_bytes(), name)
        if not result.ok:
            waits = json.dumps(result.features)
            out.append(f"{json.dumps(name)} = {{ waits = {waits}, failures = {len(result.failures)} }}\n")
            if not result.features:
                sys.stderr.write(f"{result}: {result.failures[0]}\n")
    sys.stdout.write("".join(out))


if __name__ == "__main__":
    main()
