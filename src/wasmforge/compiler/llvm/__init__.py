"""The optimising compiler: a validated module to one image, by way of LLVM in worker processes."""

from wasmforge.compiler.llvm.compile import compile_module

__all__ = ["compile_module"]
