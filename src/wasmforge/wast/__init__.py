"""Scripts of the specification's test suites (`.wast`): their parser, and the runner that `wasmforge wast` uses.

`run_script` runs one against this package, or against any module with the API of the `wasmtime` package; it returns
a `FileResult`, which prints as one line.
"""

from wasmforge.wast.runner import Failure, FileResult, Runner, run_script

__all__ = ["Failure", "FileResult", "Runner", "run_script"]
