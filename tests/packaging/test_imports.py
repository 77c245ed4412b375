"""A cold start decodes, validates and compiles, and imports none of the standard library's expensive modules for it
(`syntax.record` has the figures); `tests.api.test_startup` holds the same for warm starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.api.test_startup import EXPENSIVE

ROOT = Path(__file__).resolve().parents[2]


def test_the_front_end_and_the_baseline_compiler_import_little() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); before = set(sys.modules)\n"
        "import wasmforge.binary, wasmforge.validation, wasmforge.compiler.baseline\n"
        "print(*set(sys.modules) - before)"
    )
    # -S: without the files of site-packages that import things on their own.
    result = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "wasmforge.compiler.baseline.function" in loaded
    assert loaded & EXPENSIVE <= {"collections.abc"}, "an import at run time of what only type checkers need"
