"""Measurements of Wasmforge against the wasmtime package and native code, interleaved in one run.

`python -m bench` runs them; `bench/build_guests.py` builds the programs they run, which the tests use as well.
Nothing in the product imports this package.
"""
