"""Compilers: a validated module to one image (`image`) of machine code, tables and module record.

`environ` is the contract between the compilers and the runtime; `llvm` the optimising compiler; `tables` the
side tables.
"""
