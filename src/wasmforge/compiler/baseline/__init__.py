"""The baseline compiler: a single pass from a validated body to x86-64 code, in this process, with an assembler of its
own. `compile_module` makes a whole image ahead of time; `Context` and `Compiler` compile one function at a time.
"""

from wasmforge.compiler.baseline.compile import compile_module
from wasmforge.compiler.baseline.context import Context
from wasmforge.compiler.baseline.function import CompiledFunction, Compiler

__all__ = ["CompiledFunction", "Compiler", "Context", "compile_module"]
