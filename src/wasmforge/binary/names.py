"""The custom section `name` (specification, appendix A.5): its content to a `NameSection` and back.

The decoder and the encoder of modules use it. Names matter for messages, backtraces and the text format only, so
nothing in this section can make a module malformed: a damaged subsection is left out.
"""

from __future__ import annotations

from typing import Final

from wasmforge.binary.leb128 import read_unsigned, write_unsigned
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.module import NameSection

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
    names = NameSection()
    at = 0
    try:
        while at < len(content):
            subsection = content[at]
            size, at = read_unsigned(content, at + 1)
            _decode_subsection(names, subsection, content[at : at + size])
            at += size
    except MalformedError:
        pass
    return names


def encode_names(names: NameSection) -> bytes:
    """Encodes the content of a name section, subsections in order, empty ones left out."""
    out = bytearray()
    if names.module is not None:
        _write_subsection(out, _MODULE, _encode_name(names.module))
    for subsection in range(1, 10):
        content = bytearray()
        if subsection in _MAPS:
            _write_map(content, getattr(names, _MAPS[subsection]))
        else:
            _write_indirect_map(content, getattr(names, _INDIRECT_MAPS[subsection]))
        if content:
            _write_subsection(out, subsection, content)
    return bytes(out)


def _decode_subsection(names: NameSection, subsection: int, content: bytes) -> None:
    try:
        if subsection == _MODULE:
            names.module, _ = _read_name(content, 0)
        elif subsection in _MAPS:
            _read_map(content, 0, getattr(names, _MAPS[subsection]))
        elif subsection in _INDIRECT_MAPS:
            _read_indirect_map(content, getattr(names, _INDIRECT_MAPS[subsection]))
    except (MalformedError, UnicodeDecodeError):
        pass


def _read_name(content: bytes, at: int) -> tuple[str, int]:
    size, at = read_unsigned(content, at)
    if size > len(content) - at:
        raise MalformedError("length out of bounds", at)
    return content[at : at + size].decode(), at + size


def _read_map(content: bytes, at: int, names: dict[int, str]) -> int:
    count, at = read_unsigned(content, at)
    # Threat: a count in the billions. The loop ends with the bytes, since every entry consumes some.
    while count > 0:
        index, at = read_unsigned(content, at)
        names[index], at = _read_name(content, at)
        count -= 1
    return at


def _read_indirect_map(content: bytes, names: dict[int, dict[int, str]]) -> None:
    count, at = read_unsigned(content, 0)
    while count > 0:
        index, at = read_unsigned(content, at)
        at = _read_map(content, at, names.setdefault(index, {}))
        count -= 1


def _encode_name(name: str) -> bytearray:
    out = bytearray()
    raw = name.encode()
    write_unsigned(out, len(raw))
    out += raw
    return out


def _write_map(out: bytearray, names: dict[int, str]) -> None:
    if not names:
        return
    write_unsigned(out, len(names))
    for index in sorted(names):
        write_unsigned(out, index)
        out += _encode_name(names[index])


def _write_indirect_map(out: bytearray, names: dict[int, dict[int, str]]) -> None:
    present = sorted(index for index in names if names[index])
    if not present:
        return
    write_unsigned(out, len(present))
    for index in present:
        write_unsigned(out, index)
        _write_map(out, names[index])


def _write_subsection(out: bytearray, subsection: int, content: bytearray) -> None:
    out.append(subsection)
    write_unsigned(out, len(content))
    out += content
