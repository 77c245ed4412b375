"""The index spaces of a module in text: identifiers to indices, and function types with those that type uses add
(specification, section 6.6.1). The module parser fills them in a first pass, so that a body may refer to what
comes later; the parser of instructions looks things up.
"""

from __future__ import annotations

from wasmforge.syntax.types import FuncType, ValType
from wasmforge.text.reader import Reader

__all__ = ["Space", "Types", "read_type_use"]


class Space:
    """One index space. `what` is its name in messages, `duplicate` the word that the test suite has for it."""

    def __init__(self, what: str, duplicate: str) -> None:
        self.what = what
        self.duplicate = duplicate
        self.indices: dict[str, int] = {}
        self.count = 0

    def add(self, reader: Reader, at: int, identifier: str) -> int:
        """Takes the next index, for `identifier` if it is not empty; `at` is its token."""
        index = self.count
        self.count += 1
        if identifier:
            if identifier in self.indices:
                raise reader.error(f"duplicate {self.duplicate} {identifier}", at)
            self.indices[identifier] = index
        return index

    def read(self, reader: Reader) -> int:
        """An index: a number, or an identifier of this space."""
        token = reader.tokens[reader.at]
        if token[:1] == "$":
            index = self.indices.get(token)
            if index is None:
                raise reader.error(f"unknown {self.what} {token}")
            reader.at += 1
            return index
        return reader.number(32, f"a {self.what} index")

    def read_optional(self, reader: Reader) -> int:
        """An index, 0 when there is none."""
        return self.read(reader) if reader.at_index() else 0


class Types(Space):
    """The type index space. Type uses without a type index take the first type that matches, or append one."""

    def __init__(self) -> None:
        super().__init__("type", "type")
        self.types: list[FuncType] = []
        self.expected: list[FuncType] = []
        """The types of a previous pass over the same text, for numeric references to types not yet appended."""
        self.complete = False
        """Whether `expected` is what there will be."""
        self.unresolved = False
        """Whether a type was asked for that is not known yet."""
        self._first: dict[tuple[tuple[ValType, ...], tuple[ValType, ...]], int] = {}

    def define(self, ft: FuncType, alone: bool = True) -> None:
        """Appends a type definition of the text. Type uses without an index never mean one of a group of several."""
        if alone:
            self._first.setdefault((ft.params, ft.results), len(self.types))
        self.types.append(ft)

    def matching(self, params: tuple[ValType, ...], results: tuple[ValType, ...]) -> int:
        """The index of the first type like this, appended if there is none."""
        index = self._first.get((params, results))
        if index is None:
            index = len(self.types)
            self.define(FuncType(params, results))
        return index

    def look_up(self, index: int) -> FuncType | None:
        """The type at an index; None when it is out of range, which is for the validator to report."""
        if index < len(self.types):
            return self.types[index]
        if index < len(self.expected):
            return self.expected[index]
        self.unresolved = True
        return None


def read_type_use(
    reader: Reader, types: Types, names: list[str] | None, annotated: dict[int, str] | None = None
) -> tuple[int | None, tuple[ValType, ...], tuple[ValType, ...]]:
    """A type use: `(type x)? (param ...)* (result ...)*` (section 6.4.8).

    Parameters may have identifiers when `names` is given; it then receives one for each that the text spells out.
    Returns the type index if the text gives one, and the parameters and results that the text spells out or that the
    index stands for.
    """
    index: int | None = None
    start = reader.at
    tokens = reader.tokens
    if tokens[start] != "(":
        return None, (), ()
    if reader.open("type"):
        index = types.read(reader)
        reader.expect(")")
    params = tuple(reader.declarations("param", names, names is not None, annotated))
    results = tuple(reader.results())
    if tokens[reader.at] == "(" and tokens[reader.at + 1] == "param":
        raise reader.unexpected("results behind the parameters", reader.at + 1)
    if index is None:
        return None, params, results
    ft = types.look_up(index)
    if ft is None:
        if (params or results) and types.complete:
            raise reader.error(f"unknown type {index}", start + 2)
        return index, params, results
    if (params or results) and (params != ft.params or results != ft.results):
        raise reader.error(f"inline function type {FuncType(params, results)} is not that of the type, {ft}", start)
    return index, ft.params, ft.results
