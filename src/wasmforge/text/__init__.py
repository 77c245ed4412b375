"""The text format (specification, chapter 6): `.wat` to a `Module` and back.

`parse` and `print_module` translate between text and modules, `wat2wasm` goes from text to bytes. A text that is not
a module raises `ParseError`, with the line and the column.
"""

from wasmforge.text.errors import ParseError, UnsupportedSyntaxError
from wasmforge.text.parser import parse
from wasmforge.text.printer import print_module
from wasmforge.text.wat2wasm import wat2wasm

__all__ = ["ParseError", "UnsupportedSyntaxError", "parse", "print_module", "wat2wasm"]
