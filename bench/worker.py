"""The child process of a measurement: `python -m bench.worker ENGINE CASE ARGUMENTS`.

ENGINE is the package to import, `wasmforge` or `wasmtime`: both have the same names, so that a case is written once.
The case is prepared, then each line on standard input asks for one sample; answers are lines of JSON. Started by
`measure.Worker`.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from bench import cases


def main() -> int:
    engine, case, arguments = sys.argv[1:4]

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), flush=True)

    def answer_error(error: Exception) -> None:
        # The cause stands last; the backtrace of an exhausted stack would be thousands of lines before it.
        answer({"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1].strip()}"})

    try:
        prepared = cases.CASES[case](importlib.import_module(engine), **json.loads(arguments))
    except Exception as error:
        answer_error(error)
        return 1
    answer(prepared.opened)
    for _ in sys.stdin:
        try:
            answer(prepared.sample())
        except Exception as error:
            answer_error(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
