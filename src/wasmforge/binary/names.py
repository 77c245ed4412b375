"""The custom section `name` (specification, appendix A.5): its content to a `NameSection` and back.

The decoder and the encoder of modules use it. Names matter for messages, backtraces and the text format only, so
nothing in this section can make a module malformed: the damaged part of a subsection is left out, and so is whatever
exceeds the limit.
"""

from __future__ import annotations

from wasmforge.binary.leb128 import encode_name, read_unsigned, write_unsigned
from wasmforge.syntax import limits
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.module import NameSection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["decode_names", "encode_names"]

_MODULE: Final = 0
_MAPS: Final[dict[int, str]] = {
    1: "functions",
    4: "types",
    5: "tables",
    6: "memories",
    7: "globals",
    8: "elements",
    9: "data",
}
"""Subsections that map an index to a name, and the field of `NameSection` that holds each."""
_INDIRECT_MAPS: Final[dict[int, str]] = {2: "locals", 3: "labels"}
"""Subsections that map a function index and another index to a name."""


def decode_names(content: bytes) -> NameSection:
    """Decodes the content of a name section. Never raises: what cannot be read is left out."""
    return _Decoder(content).names()


def encode_names(names: NameSection) -> bytes:
    """Encodes the content of a name section, subsections in order, empty ones left out."""
    out = bytearray()
    if names.module is not None:
        _write_subsection(out, _MODULE, encode_name(names.module))
    for subsection in range(1, 10):
        content = bytearray()
        if subsection in _MAPS:
            _write_map(content, getattr(names, _MAPS[subsection]))
        else:
            _write_indirect_map(content, getattr(names, _INDIRECT_MAPS[subsection]))
        if content:
            _write_subsection(out, subsection, content)
    return bytes(out)


class _Decoder:
    def __init__(self, content: bytes) -> None:
        self.content: Final = content
        self.at = 0
        self.end = len(content)
        self.result: Final = NameSection()
        self.left = limits.NAMES

    def names(self) -> NameSection:
        try:
            while self.at < len(self.content):
                subsection = self.content[self.at]
                size, start = read_unsigned(self.content, self.at + 1)
                self.at = start
                self.end = min(start + size, len(self.content))
                self.subsection(subsection)
                self.at = start + size
        except MalformedError:
            pass
        return self.result

    def subsection(self, subsection: int) -> None:
        try:
            if subsection == _MODULE:
                self.result.module = self.name()
            elif subsection in _MAPS:
                self.map(getattr(self.result, _MAPS[subsection]))
            elif subsection in _INDIRECT_MAPS:
                self.indirect_map(getattr(self.result, _INDIRECT_MAPS[subsection]))
        except (MalformedError, UnicodeDecodeError):
            pass

    def number(self) -> int:
        value, self.at = read_unsigned(self.content, self.at)
        if self.at > self.end:
            raise MalformedError("unexpected end", self.end)
        return value

    def name(self) -> str:
        size = self.number()
        start = self.at
        self.at = start + size
        if self.at > self.end:
            raise MalformedError("length out of bounds", start)
        return self.content[start : self.at].decode()

    def map(self, names: dict[int, str]) -> None:
        # Threat: a count in the billions. The loop ends with the bytes, since every entry consumes some.
        for _ in range(self.number()):
            index = self.number()
            name = self.name()
            self.left -= 1
            if self.left < 0:
                raise MalformedError("too many names", self.at)
            names[index] = name

    def indirect_map(self, names: dict[int, dict[int, str]]) -> None:
        for _ in range(self.number()):
            index = self.number()
            inner: dict[int, str] = {}
            try:
                self.map(inner)
            finally:
                if inner:
                    names[index] = inner


def _write_map(out: bytearray, names: dict[int, str]) -> None:
    if not names:
        return
    write_unsigned(out, len(names))
    for index in sorted(names):
        write_unsigned(out, index)
        out += encode_name(names[index])


def _write_indirect_map(out: bytearray, names: dict[int, dict[int, str]]) -> None:
    present = sorted(index for index in names if names[index])
    if not present:
        return
    write_unsigned(out, len(present))
    for index in present:
        write_unsigned(out, index)
        _write_map(out, names[index])


def _write_subsection(out: bytearray, subsection: int, content: bytes | bytearray) -> None:
    out.append(subsection)
    write_unsigned(out, len(content))
    out += content
