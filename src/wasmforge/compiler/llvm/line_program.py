"""A reader of DWARF line number programs (DWARF 4, section 6.2), for objects of our own compiler.

The worker turns the rows into the address map and the trap table. pyelftools would do, but takes ten times as
long for the 70,000 rows of a large module.
"""

from __future__ import annotations

from array import array
from typing import Final

from wasmforge.syntax.errors import WasmtimeError

__all__ = ["read_rows"]

_DW_LNS_COPY: Final = 1
_DW_LNS_ADVANCE_PC: Final = 2
_DW_LNS_ADVANCE_LINE: Final = 3
_DW_LNS_SET_COLUMN: Final = 5
_DW_LNS_CONST_ADD_PC: Final = 8
_DW_LNS_FIXED_ADVANCE_PC: Final = 9
_DW_LNE_END_SEQUENCE: Final = 1
_DW_LNE_SET_ADDRESS: Final = 2


def read_rows(data: bytes, addresses: dict[int, int]) -> tuple[array[int], array[int], array[int]]:
    """The rows of `.debug_line` as three arrays: text offsets, lines, columns (the latter two 0 for "none").

    `addresses` gives the values of relocated 8-byte addresses by their position in `data`. Rows ascend by
    text offset; of several at one offset only the last, which is the one in force, is kept.
    """
    offsets, lines, columns = array("I"), array("I"), array("I")
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        _read_unit(data, at + 4, at + 4 + length, addresses, offsets, lines, columns)
        at += 4 + length
    return offsets, lines, columns


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    start = at
    value, at = _unsigned(data, at)
    if data[at - 1] & 0x40:
        value -= 1 << 7 * (at - start)
    return value, at


def _read_unit(
    data: bytes,
    at: int,
    end: int,
    addresses: dict[int, int],
    offsets: array[int],
    lines: array[int],
    columns: array[int],
) -> None:
    version = int.from_bytes(data[at : at + 2], "little")
    if version != 4:
        raise WasmtimeError(f"compiler bug: DWARF line program of version {version}, not 4")
    program = at + 6 + int.from_bytes(data[at + 2 : at + 6], "little")
    minimum_length, _, _, line_base, line_range, opcode_base = data[at + 6 : at + 12]
    if minimum_length != 1:
        raise WasmtimeError("compiler bug: DWARF line program for instructions longer than a byte")
    line_base -= 256 if line_base >= 128 else 0
    operand_counts = data[at + 12 : at + 11 + opcode_base]
    constant_advance = (255 - opcode_base) // line_range
    at = program
    address, line, column = 0, 1, 0
    while at < end:
        opcode = data[at]
        at += 1
        if opcode >= opcode_base:
            adjusted = opcode - opcode_base
            address += adjusted // line_range
            line += line_base + adjusted % line_range
        elif opcode == _DW_LNS_COPY:
            pass
        elif opcode == _DW_LNS_ADVANCE_PC:
            advance, at = _unsigned(data, at)
            address += advance
            continue
        elif opcode == _DW_LNS_ADVANCE_LINE:
            advance, at = _signed(data, at)
            line += advance
            continue
        elif opcode == _DW_LNS_SET_COLUMN:
            column, at = _unsigned(data, at)
            continue
        elif opcode == _DW_LNS_CONST_ADD_PC:
            address += constant_advance
            continue
        elif opcode == _DW_LNS_FIXED_ADVANCE_PC:
            address += int.from_bytes(data[at : at + 2], "little")
            at += 2
            continue
        elif opcode == 0:
            size, at = _unsigned(data, at)
            extended = data[at]
            if extended == _DW_LNE_SET_ADDRESS:
                address = addresses.get(at + 1, 0)
            at += size
            if extended != _DW_LNE_END_SEQUENCE:
                continue
            _append(offsets, lines, columns, address, 0, 0)
            address, line, column = 0, 1, 0
            continue
        else:
            for _ in range(operand_counts[opcode - 1]):
                _, at = _unsigned(data, at)
            continue
        _append(offsets, lines, columns, address, line, column)


def _append(offsets: array[int], lines: array[int], columns: array[int], address: int, line: int, column: int) -> None:
    if offsets and offsets[-1] == address:
        lines[-1] = line
        columns[-1] = column
        return
    if offsets and offsets[-1] > address:
        raise WasmtimeError("compiler bug: DWARF line program goes backwards")
    offsets.append(address)
    lines.append(line)
    columns.append(column)
