"""Wasmforge: a WebAssembly runtime for Python, written in Python."""
