"""The parts of a store that machine code reads and writes: its context and records, linear memories, tables, globals,
function references and instances, and the routines that compiled code calls. `runtime.store` puts them together.
"""
