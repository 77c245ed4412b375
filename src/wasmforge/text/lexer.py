"""From characters to tokens (specification, section 6.3).

A token is a plain string and a text a list of them: one `findall` of one regular expression makes the list at
several megabytes a second. Positions are not kept; an error, which is rare, counts again from the start. What a
regular expression cannot do (nested comments, annotations, quoted identifiers, telling the user what is wrong)
is done by `_Tail` from the first such place on. The parser and the script parser of the test suites consume this.

The forms that reach the parser: `(`, `)`, a string with its quotes, `$name` with quoted identifiers already
decoded, `(@custom`, `(@name` and `(@metadata.code.branch_hint` for the annotations that mean something here, and
everything else as it is spelled. The list ends with empty strings.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from wasmforge.text.errors import ParseError, UnsupportedSyntaxError

__all__ = ["KNOWN_ANNOTATIONS", "Source", "is_string", "string_bytes"]

KNOWN_ANNOTATIONS: Final = frozenset({"custom", "name", "metadata.code.branch_hint"})
"""Annotations that become tokens. All others are checked for their form and skipped (section 6.3.6)."""

_LOOKAHEAD: Final = 4
"""Empty strings at the end of a token list, so that the parser may look ahead without a bounds check."""

# Every repetition is possessive: the lexer never backtracks into a token, so its time is linear in its input
# whatever the input is.
_IDCHAR: Final = r"[0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]"
_STRING: Final = r'"(?:[^"\\\x00-\x1f\x7f]++|\\[^\x00-\x1f\x7f])*+"'
_SPACE: Final = r"(?:[ \t\n\r]++|;;[^\n\r]*+|\(;(?:[^(;]++|;(?!\))|\((?!;))*+;\))*+"
_ORDINARY: Final = rf"\((?![;@])|\)|\${_IDCHAR}++(?!\")|(?!\$)(?:{_IDCHAR}++|{_STRING})++"

_TOKENS: Final = re.compile(rf"{_SPACE}({_ORDINARY}|\Z|[\s\S]++)")
_TOKEN: Final = re.compile(rf"{_SPACE}({_ORDINARY}|\Z)")
_ORDINARY_TOKEN: Final = re.compile(_ORDINARY)
_SKIP_SPACE: Final = re.compile(_SPACE)
_RESERVED: Final = re.compile(rf"(?:{_IDCHAR}++|{_STRING})*+")
_QUOTED: Final = re.compile(_STRING)
_UNQUOTED: Final = re.compile(rf"{_IDCHAR}++")
_COMMENT_EDGE: Final = re.compile(r"\(;|;\)")
_ANNOTATION_TOKEN: Final = re.compile(rf"[ \t\n\r]++|;;[^\n\r]*+|\((?!;)|\)|(?:{_IDCHAR}++|{_STRING})++|[,;\[\]{{}}]")

_ESCAPE: Final = re.compile(r"\\(?:([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]++(?:_[0-9A-Fa-f]++)*+)\}|([tnr\"'\\]))")
_SIMPLE_ESCAPES: Final = {"t": b"\t", "n": b"\n", "r": b"\r", '"': b'"', "'": b"'", "\\": b"\\"}


class _EscapeError(ValueError):
    """What is wrong with a string literal. The caller knows the place."""


def is_string(token: str) -> bool:
    """Whether the token is one string literal, and not a reserved token that begins with one."""
    return _QUOTED.fullmatch(token) is not None


def string_bytes(token: str) -> bytes:
    """The bytes that a string token stands for. Raises `ValueError` for a malformed escape (section 6.3.3)."""
    if "\\" not in token:
        return _utf8(token[1:-1])
    out = bytearray()
    at = 1
    end = len(token) - 1
    while at < end:
        backslash = token.find("\\", at, end)
        if backslash < 0:
            backslash = end
        out += _utf8(token[at:backslash])
        at = backslash
        if at < end:
            match = _ESCAPE.match(token, at, end)
            if match is None:
                raise _EscapeError(f"malformed string escape {token[at : at + 2]}")
            byte, character, simple = match.groups()
            if byte is not None:
                out.append(int(byte, 16))
            elif simple is not None:
                out += _SIMPLE_ESCAPES[simple]
            else:
                out += _utf8(_character(character))
            at = match.end()
    return bytes(out)


def _character(digits: str) -> str:
    code = int(digits.replace("_", ""), 16)
    if code >= 0x110000 or 0xD800 <= code < 0xE000:
        raise _EscapeError("malformed string escape: not a Unicode scalar value")
    return chr(code)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _EscapeError("malformed UTF-8 encoding: a lone surrogate in the text") from None


class Source:
    """A text and its tokens.

    `tokens` is the list described at the top of this module. Everything that reports an error does it by token
    index, through `error`.
    """

    def __init__(self, source: str | bytes | bytearray, filename: str | None = None) -> None:
        """Splits `source` into tokens; bytes must be UTF-8. Raises `ParseError` for what is no token."""
        if not isinstance(source, (str, bytes, bytearray)):
            raise TypeError(f"expected the text of a module as str or bytes, got {type(source).__name__}")
        self.filename = "<text>" if filename is None else filename
        self._newlines: list[int] | None = None
        self._starts: list[int] | None = None
        self.text = source if isinstance(source, str) else self._decoded(bytes(source))
        tokens: list[str] = _TOKENS.findall(self.text)
        while tokens and not tokens[-1]:
            tokens.pop()
        self._plain = len(tokens)  # tokens that a second pass of the regular expression finds again
        self._tail_starts: list[int] = []
        if tokens and not _ORDINARY_TOKEN.fullmatch(tokens[-1]):
            rest = tokens.pop()
            self._plain -= 1
            tail = _Tail(self, len(self.text) - len(rest))
            tail.run()
            tokens += tail.tokens
            self._tail_starts = tail.starts
        tokens.extend([""] * _LOOKAHEAD)
        self.tokens = tokens

    def _decoded(self, source: bytes) -> str:
        try:
            return source.decode()
        except UnicodeDecodeError as e:
            self.text = source.decode(errors="replace")
            before = source[: e.start].decode()
            raise self.error_at("malformed UTF-8 encoding", len(before)) from None

    def offset(self, index: int) -> int:
        """The position, in characters, of token `index`."""
        if self._starts is None:
            starts: list[int] = []
            for match in _TOKENS.finditer(self.text):
                if len(starts) == self._plain:
                    break
                starts.append(match.start(1))
            self._starts = starts + self._tail_starts
        return self._starts[index] if index < len(self._starts) else len(self.text)

    def line(self, index: int) -> int:
        """The line, from 1, of token `index`."""
        return self._line_at(self.offset(index))

    def _line_at(self, offset: int) -> int:
        if self._newlines is None:
            self._newlines = [m.start() for m in re.finditer("\n", self.text)]
        return bisect_right(self._newlines, offset - 1) + 1

    def _place(self, offset: int) -> tuple[str, int, int, str]:
        line = self._line_at(offset)
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        if end < 0:
            end = len(self.text)
        return self.filename, line, offset - start + 1, self.text[start:end]

    def error_at(self, reason: str, offset: int) -> ParseError:
        """The error for a position in characters."""
        return ParseError(reason, *self._place(offset))

    def error(self, reason: str, index: int) -> ParseError:
        """The error for token `index`."""
        return self.error_at(reason, self.offset(index))

    def unsupported(self, reason: str, feature: str, index: int) -> UnsupportedSyntaxError:
        """The error for token `index`, which belongs to a proposal that is not implemented."""
        return UnsupportedSyntaxError(reason, feature, *self._place(self.offset(index)))


class _Tail:
    """The careful lexer: one step a token, from a given position to the end of the text."""

    def __init__(self, source: Source, at: int) -> None:
        self.source = source
        self.text = source.text
        self.at = at
        self.tokens: list[str] = []
        self.starts: list[int] = []

    def run(self) -> None:
        text = self.text
        match_token = _TOKEN.match
        tokens = self.tokens
        starts = self.starts
        while True:
            match = match_token(text, self.at)
            if match is not None:
                token = match[1]
                if not token:
                    return
                tokens.append(token)
                starts.append(match.start(1))
                self.at = match.end()
            else:
                self._unusual()

    def _unusual(self) -> None:
        """Handles what the regular expression does not take: a comment, an annotation, an identifier, an error."""
        self._skip_space()
        text = self.text
        at = self.at
        if text.startswith("(;", at):
            self._comment()
        elif text.startswith("(@", at):
            self._annotation()
        elif text.startswith("$", at):
            self._identifier()
        else:
            raise self._not_a_token()

    def _skip_space(self) -> None:
        match = _SKIP_SPACE.match(self.text, self.at)
        assert match is not None  # the expression matches the empty string
        self.at = match.end()

    def _comment(self) -> None:
        """Skips a block comment with comments inside (section 6.3.4), counting instead of recursing."""
        start = self.at
        depth = 0
        while True:
            edge = _COMMENT_EDGE.search(self.text, self.at)
            if edge is None:
                raise self.source.error_at("unclosed comment", start)
            self.at = edge.end()
            depth += 1 if edge[0] == "(;" else -1
            if depth == 0:
                return

    def _identifier(self) -> None:
        """A quoted identifier, `$"..."`. The same name unquoted is the same identifier (section 6.3.5)."""
        start = self.at
        quoted = _QUOTED.match(self.text, start + 1)
        reserved = _RESERVED.match(self.text, start)
        assert reserved is not None  # the expression matches the empty string
        if reserved.end() > (start + 1 if quoted is None else quoted.end()):
            raise self.source.error_at(f"unknown operator {reserved[0]}", start)
        if quoted is None:
            raise self.source.error_at("empty identifier", start)
        name = self._name(quoted[0], start)
        if not name:
            raise self.source.error_at("empty identifier", start)
        self.tokens.append("$" + name)
        self.starts.append(start)
        self.at = quoted.end()

    def _name(self, literal: str, at: int) -> str:
        try:
            return string_bytes(literal).decode()
        except UnicodeDecodeError:
            raise self.source.error_at("malformed UTF-8 encoding", at) from None
        except ValueError as e:
            raise self.source.error_at(str(e), at) from None

    def _annotation(self) -> None:
        start = self.at
        unquoted = _UNQUOTED.match(self.text, start + 2)
        quoted = _QUOTED.match(self.text, start + 2)
        if unquoted is not None:
            name = unquoted[0]
            self.at = unquoted.end()
        elif quoted is not None:
            name = self._name(quoted[0], start)
            self.at = quoted.end()
        else:
            name = ""
        if not name:
            raise self.source.error_at("empty annotation id", start)
        if name in KNOWN_ANNOTATIONS:
            self.tokens.append("(@" + name)
            self.starts.append(start)
        else:
            self._skip_annotation(start)

    def _skip_annotation(self, start: int) -> None:
        """Skips the rest of an annotation: any tokens, as long as parentheses match."""
        text = self.text
        depth = 1
        while depth:
            match = _ANNOTATION_TOKEN.match(text, self.at)
            if match is None:
                if text.startswith("(;", self.at):
                    self._comment()
                    continue
                if self.at == len(text):
                    raise self.source.error_at("unclosed annotation", start)
                raise self._not_a_token()
            self.at = match.end()
            if match[0] == "(":
                depth += 1
            elif match[0] == ")":
                depth -= 1
            elif match[0][0] == '"':
                self._check_escapes(match[0], match.start())

    def _check_escapes(self, token: str, at: int) -> None:
        literal = _QUOTED.match(token)
        if literal is not None:
            try:
                string_bytes(literal[0])
            except ValueError as e:
                raise self.source.error_at(str(e), at) from None

    def _not_a_token(self) -> ParseError:
        reserved = _RESERVED.match(self.text, self.at)
        at = self.at if reserved is None else reserved.end()
        character = self.text[at]
        if character == '"':
            return self._bad_string(at)
        if character in ",;[]{}":
            return self.source.error_at(f"unknown operator {character}", at)
        return self.source.error_at(f"illegal character {character!a}", at)

    def _bad_string(self, start: int) -> ParseError:
        at = start + 1
        text = self.text
        while at < len(text) and text[at] not in '"\n\r':
            if text[at] < " " or text[at] == "\x7f":
                return self.source.error_at(f"illegal character {text[at]!a} in a string", at)
            at += 2 if text[at] == "\\" else 1
        return self.source.error_at("unclosed string", start)
