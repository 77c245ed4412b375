"""Instruction sequences as objects: the iterator over an encoded body or expression, and its inverse.

The printer, the compilers' tools and tests read bodies through `instructions`; the text parser writes them through
`write_instruction`. The validator and the compilers, which care for speed, walk the bytes themselves.
"""

from __future__ import annotations

from wasmforge.binary.features import opcode_error
from wasmforge.binary.leb128 import read_signed, read_unsigned, write_signed, write_unsigned
from wasmforge.binary.types import read_heap_type, read_value_type, write_heap_type, write_value_type
from wasmforge.syntax.errors import MalformedError
from wasmforge.syntax.instructions import (
    BY_OPCODE,
    EMPTY_BLOCK,
    Immediate,
    Instruction,
    InstructionRow,
    Opcode,
    block_result,
    block_type_of,
    is_block,
    opcode_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Final

__all__ = ["encode_expression", "encode_instruction", "instructions", "skip_expression", "write_instruction"]

_MEMORY_INDEX_FOLLOWS: Final = 0x40
"""Bit of the memarg's first number that says that a memory index follows (specification, section 5.4.6)."""

_PREFIXES: Final = frozenset({0xFC, 0xFD, 0xFE})
_OPCODE_BYTES: Final[dict[int, bytes]] = {opcode: opcode_bytes(opcode) for opcode in BY_OPCODE}


def instructions(code: bytes, offset: int = 0) -> Iterator[Instruction]:
    """Decodes an instruction sequence, one object an instruction, the closing `end` included.

    `offset` is the position of `code[0]` in the module and is added to every `Instruction.offset`. The iterator
    stops where `code` ends; it does not match blocks with their ends. Raises `MalformedError` for bytes that are
    no instruction and `UnsupportedFeatureError` for those of a proposal that is not implemented.
    """
    at = 0
    end = len(code)
    while at < end:
        start = at
        opcode = code[at]
        at += 1
        if opcode in _PREFIXES:
            number, at = read_unsigned(code, at, 32, offset)
            # Numbers beyond the twelve bits of the table's key are no instructions of any proposal.
            opcode = opcode << 12 | min(number, 0xFFF)
        row = BY_OPCODE.get(opcode)
        if row is None:
            raise opcode_error(opcode, offset + start)
        if not row.immediates:
            yield Instruction(row, (), offset + start)
            continue
        values: list[Any] = []
        for kind in row.immediates:
            value, at = _read_immediate(code, at, offset, kind)
            values.append(value)
        yield Instruction(row, tuple(values), offset + start)


def encode_instruction(row: InstructionRow, immediates: tuple[Any, ...] = ()) -> bytes:
    """The encoding of one instruction, every number in its shortest form."""
    out = bytearray()
    write_instruction(out, row, immediates)
    return bytes(out)


def encode_expression(sequence: Iterable[Instruction]) -> bytes:
    """The encoding of an instruction sequence. The closing `end` must be in `sequence` to be in the result."""
    out = bytearray()
    for i in sequence:
        write_instruction(out, i.row, i.immediates)
    return bytes(out)


def write_instruction(out: bytearray, row: InstructionRow, immediates: tuple[Any, ...] = ()) -> None:
    """Appends the encoding of one instruction to `out`; the immediates are those that `Immediate` describes."""
    out += _OPCODE_BYTES[row.opcode]
    for kind, value in zip(row.immediates, immediates, strict=True):
        _write_immediate(out, kind, value)


def skip_expression(data: bytes, at: int, end: int) -> int:
    """The index after the `end` that closes the expression at `data[at]`, whose instructions must all start
    before `end`.

    Checks the encoding only: whether the instructions are constant is for the validator to say. Raises as
    `instructions` does. Blocks are counted, not recursed into.
    """
    depth = 1
    while at < end:
        start = at
        opcode = data[at]
        at += 1
        if opcode == Opcode.I32_CONST:
            _, at = read_signed(data, at, 32)
            continue
        if opcode == Opcode.END:
            depth -= 1
            if depth == 0:
                return at
            continue
        if opcode in _PREFIXES:
            number, at = read_unsigned(data, at, 32)
            opcode = opcode << 12 | min(number, 0xFFF)
        row = BY_OPCODE.get(opcode)
        if row is None:
            raise opcode_error(opcode, start)
        if is_block(opcode):
            depth += 1
        for kind in row.immediates:
            _, at = _read_immediate(data, at, 0, kind)
    raise MalformedError("unexpected end of section or function", at)


def _read_immediate(code: bytes, at: int, base: int, kind: Immediate) -> tuple[Any, int]:
    if kind < Immediate.LABEL_TABLE or Immediate.LABEL_TABLE < kind < Immediate.MEMARG:
        if kind == Immediate.BLOCK_TYPE:
            return _read_block_type(code, at, base)
        return read_unsigned(code, at, 32, base)
    if kind == Immediate.I32_CONST:
        return read_signed(code, at, 32, base)
    if kind == Immediate.I64_CONST:
        return read_signed(code, at, 64, base)
    if kind == Immediate.F32_CONST:
        return _read_bits(code, at, base, 4)
    if kind == Immediate.F64_CONST:
        return _read_bits(code, at, base, 8)
    if kind == Immediate.MEMARG:
        return _read_memarg(code, at, base)
    if kind == Immediate.LABEL_TABLE:
        return _read_labels(code, at, base)
    if kind == Immediate.REF_TYPE:
        return read_heap_type(code, at, base)
    if kind == Immediate.SELECT_TYPES:
        return _read_select_types(code, at, base)
    if kind == Immediate.V128_CONST:
        return _read_bits(code, at, base, 16)
    size = 16 if kind == Immediate.LANES else 1
    if at + size > len(code):
        raise MalformedError("unexpected end of section or function", base + len(code))
    if kind == Immediate.ORDERING and code[at]:
        raise MalformedError("malformed atomic ordering: expected a zero byte", base + at)
    # A lane is one byte, no LEB128 number (section 5.4.9); its range is for the validator.
    return (code[at] if size == 1 else code[at : at + size]), at + size


def _read_block_type(code: bytes, at: int, base: int) -> tuple[int, int]:
    value, after = read_signed(code, at, 33, base)
    if value >= 0:
        return value, after
    # A type begins with one byte; longer encodings of the same negative number are not in the grammar (5.4.1).
    if after != at + 1:
        raise MalformedError("malformed block type", base + at)
    if value == EMPTY_BLOCK:
        return value, after
    t, after = read_value_type(code, at, base, "malformed block type")
    return block_type_of(t), after


def _read_bits(code: bytes, at: int, base: int, size: int) -> tuple[int, int]:
    if at + size > len(code):
        raise MalformedError("unexpected end of section or function", base + len(code))
    return int.from_bytes(code[at : at + size], "little"), at + size


def _read_memarg(code: bytes, at: int, base: int) -> tuple[tuple[int, int, int], int]:
    align, after = read_unsigned(code, at, 32, base)
    memory = 0
    if align >= 2 * _MEMORY_INDEX_FOLLOWS:
        raise MalformedError("malformed memop flags", base + at)
    if align >= _MEMORY_INDEX_FOLLOWS:
        align -= _MEMORY_INDEX_FOLLOWS
        memory, after = read_unsigned(code, after, 32, base)
    # 64 bits wide in the grammar; that a 32-bit memory takes only 32 of them is for the validator to say.
    memory_offset, after = read_unsigned(code, after, 64, base)
    return (align, memory, memory_offset), after


def _read_labels(code: bytes, at: int, base: int) -> tuple[tuple[int, ...], int]:
    count, at = read_unsigned(code, at, 32, base)
    # Threat: a count in the billions. A label takes a byte at least, so the bytes left bound the list.
    if count >= len(code) - at:
        raise MalformedError("unexpected end of section or function", base + len(code))
    labels: list[int] = []
    while len(labels) <= count:
        label, at = read_unsigned(code, at, 32, base)
        labels.append(label)
    return tuple(labels), at


def _read_select_types(code: bytes, at: int, base: int) -> tuple[tuple[int, ...], int]:
    count, at = read_unsigned(code, at, 32, base)
    if count > len(code) - at:
        raise MalformedError("unexpected end of section or function", base + len(code))
    types: list[int] = []
    while len(types) < count:
        t, at = read_value_type(code, at, base)
        types.append(t)
    return tuple(types), at


def _write_immediate(out: bytearray, kind: Immediate, value: Any) -> None:
    if kind in (Immediate.I32_CONST, Immediate.I64_CONST):
        write_signed(out, value)
    elif kind == Immediate.BLOCK_TYPE:
        if value >= EMPTY_BLOCK:
            write_signed(out, value)
        else:
            write_value_type(out, block_result(value))
    elif kind == Immediate.MEMARG:
        align, memory, memory_offset = value
        if memory:
            out.append(align | _MEMORY_INDEX_FOLLOWS)
            write_unsigned(out, memory)
        else:
            write_unsigned(out, align)
        write_unsigned(out, memory_offset)
    elif kind == Immediate.F32_CONST:
        out += value.to_bytes(4, "little")
    elif kind == Immediate.F64_CONST:
        out += value.to_bytes(8, "little")
    elif kind == Immediate.REF_TYPE:
        write_heap_type(out, value)
    elif kind == Immediate.LABEL_TABLE:
        write_unsigned(out, len(value) - 1)
        for label in value:
            write_unsigned(out, label)
    elif kind == Immediate.SELECT_TYPES:
        write_unsigned(out, len(value))
        for t in value:
            write_value_type(out, t)
    elif kind == Immediate.V128_CONST:
        out += value.to_bytes(16, "little")
    elif kind in (Immediate.LANE, Immediate.ORDERING):
        out.append(value)
    elif kind == Immediate.LANES:
        out += value
    else:
        write_unsigned(out, value)
