"""A place in a token list, and what every part of the grammar is made of: indices, strings, types, limits
(specification, sections 6.3 and 6.4). The module parser, the parser of instructions and the script parser of the
test suites build on it.
"""

from __future__ import annotations

from typing import Final

from wasmforge.syntax.types import NON_NULL, FuncType, GlobalType, Limits, MemoryType, TableType, ValType, concrete_type
from wasmforge.text import keywords
from wasmforge.text.errors import ParseError
from wasmforge.text.lexer import Source, is_string, string_bytes
from wasmforge.text.literals import is_number, natural

__all__ = ["Reader"]

_NUMBER_STARTS: Final = frozenset("0123456789")


class Reader:
    """`at` is the index of the next token. Methods that read advance it, and raise `ParseError` when what they read
    is not there."""

    def __init__(self, source: Source, at: int = 0) -> None:
        self.source = source
        self.tokens = source.tokens
        self.at = at

    # Errors

    def error(self, reason: str, at: int | None = None) -> ParseError:
        """The error for a token, by default the next one."""
        return self.source.error(reason, self.at if at is None else at)

    def unsupported(self, feature: str, at: int | None = None) -> ParseError:
        """The error for the first token of something that belongs to a proposal that is not implemented."""
        at = self.at if at is None else at
        return self.source.unsupported(f"{feature} are not supported yet: {self.tokens[at]}", feature, at)

    def unexpected(self, expected: str, at: int | None = None) -> ParseError:
        """The error for a token that the grammar does not allow where it stands. A token that no grammar allows
        anywhere is an "unknown operator" in the words of the specification's test suite."""
        at = self.at if at is None else at
        token = self.tokens[at]
        if not token:
            return self.error(f"unexpected token: the text ends where {expected} should be", at)
        if token.startswith("(@"):
            return self.error(_misplaced(token), at)
        if token == "(" and keywords.unsupported_type(self.tokens[at + 1]) is not None:
            return self.unexpected(expected, at + 1)
        if token in ("(", ")") or token[0] == "$" or is_string(token) or is_number(token):
            return self.error(f"unexpected token {token}: expected {expected}", at)
        if keywords.is_keyword(token):
            feature = keywords.unsupported_operator(token) or keywords.unsupported_type(token)
            if feature is not None:
                return self.unsupported(feature, at)
            return self.error(f"unexpected token {token}: expected {expected}", at)
        return self.error(f"unknown operator {token}: expected {expected}", at)

    # Punctuation

    def expect(self, token: str) -> None:
        if self.tokens[self.at] != token:
            raise self.unexpected(f"`{token}`")
        self.at += 1

    def take(self, token: str) -> bool:
        """Steps over the token if it is the next one."""
        if self.tokens[self.at] != token:
            return False
        self.at += 1
        return True

    def open(self, keyword: str) -> bool:
        """Steps over `(` and the keyword if they are next."""
        if self.tokens[self.at] != "(" or self.tokens[self.at + 1] != keyword:
            return False
        self.at += 2
        return True

    def skip(self) -> None:
        """Steps over a parenthesised expression whatever it holds, by counting."""
        tokens = self.tokens
        start = at = self.at
        depth = 0
        while True:
            token = tokens[at]
            if token == "(":
                depth += 1
            elif token == ")":
                depth -= 1
                if depth == 0:
                    self.at = at + 1
                    return
            elif token[:2] == "(@":
                depth += 1
            elif not token:
                raise self.error("unexpected token: the text ends inside this parenthesis", start)
            at += 1

    # Literals

    def identifier(self) -> str:
        """An optional identifier with its `$`, empty when there is none."""
        token = self.tokens[self.at]
        if token[:1] != "$":
            return ""
        self.at += 1
        return token

    def name_annotation(self) -> str | None:
        """An optional annotation `(@name "...")` (specification, appendix A.6)."""
        if self.tokens[self.at] != "(@name":
            return None
        self.at += 1
        name = self.name()
        self.expect(")")
        return name

    def string(self) -> bytes:
        token = self.tokens[self.at]
        if token[:1] != '"' or not is_string(token):
            raise self.unexpected("a string")
        try:
            value = string_bytes(token)
        except ValueError as e:
            raise self.error(str(e)) from None
        self.at += 1
        return value

    def strings(self) -> bytes:
        """Any number of strings, concatenated."""
        parts: list[bytes] = []
        while self.tokens[self.at][:1] == '"':
            parts.append(self.string())
        return b"".join(parts)

    def name(self) -> str:
        """A string that is UTF-8."""
        value = self.string()
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise self.error("malformed UTF-8 encoding", self.at - 1) from None

    def number(self, bits: int, what: str) -> int:
        """An unsigned integer of at most `bits` bits."""
        value = natural(self.tokens[self.at])
        if value is None:
            raise self.unexpected(what)
        if value >> bits:
            raise self.error(f"constant out of range: {what} must be below 2^{bits}")
        self.at += 1
        return value

    def at_number(self) -> bool:
        return self.tokens[self.at][:1] in _NUMBER_STARTS

    def at_index(self) -> bool:
        """Whether the next token is an index: a number or an identifier."""
        first = self.tokens[self.at][:1]
        return first == "$" or first in _NUMBER_STARTS

    # Types

    def value_type(self) -> ValType:
        t = keywords.VALUE_TYPE_WORDS.get(self.tokens[self.at])
        if t is not None:
            self.at += 1
            return t
        if self.open("ref"):
            return self._reference()
        raise self.unexpected("a value type")

    def reference_type(self) -> ValType:
        token = self.tokens[self.at]
        if token in keywords.REFERENCE_WORDS:
            self.at += 1
            return keywords.VALUE_TYPE_WORDS[token]
        if self.open("ref"):
            return self._reference()
        raise self.unexpected("a reference type")

    def at_reference_type(self) -> bool:
        token = self.tokens[self.at]
        if token == "(":
            return self.tokens[self.at + 1] == "ref"
        return token in keywords.REFERENCE_WORDS or keywords.unsupported_type(token) is not None

    def _reference(self) -> ValType:
        """The rest of `(ref null? heaptype)`."""
        null = self.take("null")
        t = self.heap_type()
        self.expect(")")
        return t if null else ValType(t | NON_NULL)

    def heap_type(self) -> ValType:
        """A heap type, as the type of nullable references to it."""
        token = self.tokens[self.at]
        t = keywords.HEAP_TYPES.get(token)
        if t is None:
            if self.at_index():
                return concrete_type(self.type_index(), True)
            if token == "(" and self.tokens[self.at + 1] == "exact":
                raise self.unsupported(keywords.CUSTOM_DESCRIPTORS, self.at + 1)
            raise self.unexpected("a heap type")
        self.at += 1
        return t

    def type_index(self) -> int:
        """A type index; by identifier only in a module, whose parser knows them."""
        return self.number(32, "a type index")

    def function_type(self) -> FuncType:
        """The rest of `(func (param ...)* (result ...)*)`, its closing parenthesis included."""
        params = self.parameters(None)
        results = self.results()
        self.expect(")")
        return FuncType(tuple(params), tuple(results))

    def parameters(self, names: list[str] | None, allow_names: bool = True) -> list[ValType]:
        """`(param ...)*`. Identifiers go to `names`, an empty one for a parameter without."""
        return self.declarations("param", names, allow_names)

    def results(self) -> list[ValType]:
        return self.declarations("result", None, False)

    def declarations(
        self, keyword: str, names: list[str] | None, allow_names: bool, annotated: dict[int, str] | None = None
    ) -> list[ValType]:
        """`(keyword id? type)` or `(keyword type*)`, any number of times. `annotated` receives the names that
        annotations give, by position."""
        types: list[ValType] = []
        while self.tokens[self.at] == "(" and self.tokens[self.at + 1] == keyword:
            self.at += 2
            name = self.identifier() if allow_names else ""
            annotation = self.name_annotation() if allow_names else None
            if annotation is not None and annotated is not None:
                annotated[len(types)] = annotation
            if name or annotation is not None:
                types.append(self.value_type())
                if names is not None:
                    names.append(name)
                self.expect(")")
                continue
            while self.tokens[self.at] != ")":
                types.append(self.value_type())
                if names is not None:
                    names.append("")
            self.at += 1
        return types

    def address_type(self) -> bool:
        """An optional address type, `i32` or `i64`: whether it is `i64`."""
        is_64 = self.tokens[self.at] == "i64"
        if is_64 or self.tokens[self.at] == "i32":
            self.at += 1
        return is_64

    def limits(self, what: str) -> Limits:
        minimum = self._size(what)
        return Limits(minimum, self._size(what) if self.at_number() else None)

    def _size(self, what: str) -> int:
        value = natural(self.tokens[self.at])
        if value is None:
            raise self.unexpected(what)
        if value >> 64:
            raise self.error(f"i64 constant out of range: {what} must be below 2^64")
        self.at += 1
        return value

    def table_type(self) -> TableType:
        is_64 = self.address_type()
        limits = self.limits("a table size")
        return TableType(self.reference_type(), limits, is_64)

    def memory_type(self) -> MemoryType:
        is_64 = self.address_type()
        limits = self.limits("a memory size")
        shared = self.tokens[self.at] == "shared"
        if shared:
            self.at += 1
        return MemoryType(limits, is_64, shared, self.page_size())

    def page_size(self) -> int:
        """An optional `(pagesize n)`, as a power of two (custom-page-sizes proposal)."""
        if not self.open("pagesize"):
            return 16
        size = self.number(64, "a page size")
        if size == 0 or size & (size - 1):
            raise self.error("invalid custom page size: it must be a power of two", self.at - 1)
        self.expect(")")
        return size.bit_length() - 1

    def global_type(self) -> GlobalType:
        if self.open("mut"):
            content = self.value_type()
            self.expect(")")
            return GlobalType(content, True)
        return GlobalType(self.value_type(), False)


def _misplaced(token: str) -> str:
    name = token[1:]
    if name == "@metadata.code.branch_hint":
        return f"{name} annotation: not in a function"
    return f"misplaced {name} annotation"
