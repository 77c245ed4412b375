"""The exceptions of the text format: what is wrong, and where, with the line of text.

The lexer, the parser and the script parser of the test suites raise them through `lexer.Source.error`.
"""

from __future__ import annotations

from typing import Final

from wasmforge.syntax.errors import UnsupportedFeatureError, WasmtimeError

__all__ = ["ParseError", "UnsupportedSyntaxError"]

_WINDOW: Final = 100
"""Characters of a line that an error shows: generated text can have its megabytes on one line."""


class ParseError(WasmtimeError):
    """The text is not a WebAssembly module (specification, chapter 6).

    `reason` is the message without the place; `filename` the name given to the parser; `line` and `column` count
    from 1, columns in characters.
    """

    def __init__(self, reason: str, filename: str, line: int, column: int, text: str) -> None:
        WasmtimeError.__init__(self, _with_place(reason, filename, line, column, text))
        self.reason = reason
        self.filename = filename
        self.line = line
        self.column = column


class UnsupportedSyntaxError(ParseError, UnsupportedFeatureError):
    """The text uses a WebAssembly proposal that this version does not implement.

    `feature` is the proposal as the message names it. `offset` is 0: a text has lines and columns instead.
    """

    def __init__(self, reason: str, feature: str, filename: str, line: int, column: int, text: str) -> None:
        ParseError.__init__(self, reason, filename, line, column, text)
        self.feature = feature
        self.offset = 0


def _with_place(reason: str, filename: str, line: int, column: int, text: str) -> str:
    """The message: reason, place, the line and a caret under the place."""
    start = 0
    if len(text) > _WINDOW:
        start = max(0, min(column - 1 - _WINDOW // 2, len(text) - _WINDOW))
    shown = "".join(c if c.isprintable() else " " for c in text[start : start + _WINDOW])
    margin = " " * len(str(line))
    caret = " " * (column - 1 - start) + "^"
    return f"{reason}\n{margin}--> {filename}:{line}:{column}\n{margin} |\n{line} | {shown}\n{margin} | {caret}"
