"""The binary format (specification, chapter 5): bytes to a `Module` and back.

`decode` and `encode` translate whole modules; `instructions` and `encode_expression` the encoded bodies and
constant expressions inside them. Malformed bytes raise `MalformedError`.
"""

from wasmforge.binary.decoder import decode
from wasmforge.binary.encoder import encode
from wasmforge.binary.instructions import encode_expression, encode_instruction, instructions, write_instruction

__all__ = ["decode", "encode", "encode_expression", "encode_instruction", "instructions", "write_instruction"]
