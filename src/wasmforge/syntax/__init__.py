"""What a module is: value types, the instruction table and the module record (specification, chapter 2).

Every other room imports this one; this one imports nothing. The decoder and the text parser produce a
`Module`, the validator checks it, the compilers read it, the encoder and the printer write it.

Letters used for local names in all rooms: `x` an index, `t` a value type, `ft` a function type, `pc` a
byte offset into a function body, `vm` the address of a vmctx.
"""
