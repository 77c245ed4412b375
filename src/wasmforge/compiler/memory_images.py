"""Initial contents of memories, computed when a module is compiled (row A3-06 of the reference).

A memory whose active data segments have constant offsets inside its minimum size gets an image: whole pages that the
runtime maps copy-on-write instead of copying bytes at every instantiation. The link step calls `memory_images`.
"""

from __future__ import annotations

from wasmforge.binary.instructions import instructions
from wasmforge.binary.leb128 import read_signed
from wasmforge.compiler.image import PAGE
from wasmforge.syntax.instructions import Opcode
from wasmforge.syntax.module import DataSegment, Expression, Module, SegmentMode
from wasmforge.syntax.record import NamedTuple
from wasmforge.syntax.types import ExternKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["StaticImage", "memory_images"]

_I32_CONST: Final = int(Opcode.I32_CONST)

DENSE_SIZE: Final = 16 << 20
"""Images up to this size are made however sparse; larger ones must have content in half of their pages
(Wasmtime's `memory_guaranteed_dense_image_size`). Threat: two bytes 4 GiB apart must not make a 4 GiB file."""

_MASK_32: Final = 0xFFFF_FFFF
_MASK_64: Final = 0xFFFF_FFFF_FFFF_FFFF
_OPERATORS: Final[dict[int, tuple[str, int]]] = {
    0x6A: ("+", _MASK_32),
    0x6B: ("-", _MASK_32),
    0x6C: ("*", _MASK_32),
    0x7C: ("+", _MASK_64),
    0x7D: ("-", _MASK_64),
    0x7E: ("*", _MASK_64),
}


class StaticImage(NamedTuple):
    """`data` belongs at address `start` of the memory; both are multiples of a page. It holds all active data segments
    of the memory."""

    start: int
    data: bytearray


def memory_images(module: Module) -> dict[int, StaticImage]:
    """The images of a module's defined memories, by index. Memories without constant content are left out."""
    imported = module.num_imported(ExternKind.MEMORY)
    found = {}
    for defined, memory in enumerate(module.memories):
        image = _image(module, imported + defined, memory.minimum_bytes)
        if image is not None:
            found[imported + defined] = image
    return found


def _image(module: Module, memory: int, size: int) -> StaticImage | None:
    placed: list[tuple[int, bytes]] = []
    active = SegmentMode.ACTIVE
    for segment in module.data:
        if segment.mode is not active or segment.memory != memory:
            continue
        address = _address(segment)
        data = segment.data
        # Out of bounds, or unknown: then the segments before it must be copied first, in order, until one traps.
        if address is None or address + len(data) > size:
            return None
        if data:
            placed.append((address, data))
    if not placed:
        return None
    start = min(address for address, _ in placed) & -PAGE
    end = max(address + len(data) for address, data in placed) + PAGE - 1 & -PAGE
    if end - start > DENSE_SIZE:
        pages = {
            page for address, data in placed for page in range(address // PAGE, (address + len(data) - 1) // PAGE + 1)
        }
        if len(pages) * 2 * PAGE < end - start:
            return None
    contents = bytearray(end - start)
    for address, data in placed:
        contents[address - start : address - start + len(data)] = data
    return StaticImage(start, contents)


def _address(segment: DataSegment) -> int | None:
    assert segment.memory_offset is not None
    return constant_address(segment.memory_offset)


def constant_address(expression: Expression) -> int | None:
    """The unsigned value of an i32 or i64 constant expression, or None if it depends on an imported global."""
    code = expression.code
    if code[0] == _I32_CONST:  # nearly always alone: a CPython has 24,000 of these
        value, end = read_signed(code, 1, 32)
        if end == len(code) - 1:
            return value & 0xFFFF_FFFF
    stack: list[int] = []
    for instruction in instructions(expression.code):
        opcode = instruction.row.opcode
        if opcode == Opcode.I32_CONST:
            stack.append(instruction.immediates[0] & _MASK_32)
        elif opcode == Opcode.I64_CONST:
            stack.append(instruction.immediates[0] & _MASK_64)
        elif opcode in _OPERATORS:
            operator, mask = _OPERATORS[opcode]
            b, a = stack.pop(), stack.pop()
            stack.append((a + b if operator == "+" else a - b if operator == "-" else a * b) & mask)
        elif opcode != Opcode.END:
            return None
    return stack[0]
