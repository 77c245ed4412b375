"""`wasmforge run -D coredump=PATH`: what a program was when it trapped, as a WebAssembly core dump (tool
conventions, Coredump.md): a module that holds the memories and globals of all instances, and custom sections with the
instances and the frames. As in Wasmtime's, frames have no locals and operands: compiled code does not keep them.
"""

from __future__ import annotations

import os

from wasmforge.binary import encode
from wasmforge.binary.leb128 import encode_name, encode_signed, encode_unsigned
from wasmforge.syntax.module import CustomSection, DataSegment, Expression, Global, Module, SegmentMode
from wasmforge.syntax.types import F32, F64, FUNCREF, I32, I64, V128, GlobalType, representation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.backtrace import Backtrace
    from wasmforge.runtime.vm.globals import VMGlobal
    from wasmforge.runtime.vm.instance import InstanceRecord
    from wasmforge.runtime.vm.memory import LinearMemory

__all__ = ["core_dump", "write"]

_LAST_SECTION: Final = 11
_PIECE: Final = 4096
"""Bytes of memory in a data segment; those of zeros are left out."""


def write(path: str, program: str, store: VMStore, backtrace: Backtrace | None) -> str:
    """Writes the dump; `%p` in the path is the process. Returns the path. Raises OSError."""
    path = path.replace("%p", str(os.getpid()))
    with open(path, "wb") as file:
        file.write(core_dump(program, store, backtrace))
    return path


def core_dump(program: str, store: VMStore, backtrace: Backtrace | None) -> bytes:
    """The bytes of the dump of a store that runs nothing any more."""
    records = list(store.instances.values())
    memories: dict[int, tuple[int, LinearMemory]] = {}
    cells: dict[int, tuple[int, VMGlobal]] = {}
    for record in records:
        for memory in record.memories:
            memories.setdefault(id(memory), (len(memories), memory))
        for cell in record.globals:
            cells.setdefault(cell.address, (len(cells), cell))
    modules = list(dict.fromkeys(record.module for record in records))
    instances = [
        b"\0"
        + encode_unsigned(modules.index(record.module))
        + _vector(encode_unsigned(memories[id(memory)][0]) for memory in record.memories)
        + _vector(encode_unsigned(cells[cell.address][0]) for cell in record.globals)
        for record in records
    ]
    names = [b"\0" + encode_name(module.info.name or "", "replace") for module in modules]
    sections = {
        "core": b"\0" + encode_name(program, "replace"),
        "coremodules": _vector(iter(names)),
        "coreinstances": _vector(iter(instances)),
        "corestack": b"\0" + encode_name("main") + _vector(_frames(records, backtrace)),
    }
    module = Module(
        memories=[memory.type for _, memory in memories.values()],
        globals=[_global(cell) for _, cell in cells.values()],
        data=[segment for number, memory in memories.values() for segment in _data(number, memory)],
    )
    module.custom = [CustomSection(name, data, _LAST_SECTION) for name, data in sections.items()]
    return encode(module)


def _vector(items: Iterator[bytes]) -> bytes:
    found = list(items)
    return encode_unsigned(len(found)) + b"".join(found)


def _frames(records: list[InstanceRecord], backtrace: Backtrace | None) -> Iterator[bytes]:
    """Instance, function, offset in it, no locals, no operands. Of several instances of one module the first stands for
    all: a frame does not say which it is."""
    if backtrace is None:
        return
    for frame, module in backtrace.frames_with_modules():
        at = next((k for k, record in enumerate(records) if record.module is module), 0)
        offset = frame.func_offset or 0
        yield b"\0" + encode_unsigned(at) + encode_unsigned(frame.func_index) + encode_unsigned(offset) + b"\0\0"


def _data(number: int, memory: LinearMemory) -> Iterator[DataSegment]:
    const = b"\x42" if memory.declared_type.is_64 else b"\x41"
    half = 1 << (63 if memory.declared_type.is_64 else 31)
    contents = memory.view()
    for start in range(0, len(contents), _PIECE):
        piece = bytes(contents[start : start + _PIECE]).rstrip(b"\0")
        if piece:
            offset = (start + half) % (2 * half) - half
            yield DataSegment(SegmentMode.ACTIVE, number, Expression(const + encode_signed(offset) + b"\x0b"), piece)


def _global(cell: VMGlobal) -> Global:
    """A global with its value; a reference means nothing outside of the process, and is null."""
    t = representation(cell.type.content)
    bits = cell.get_raw()
    numbers = {I32: (b"\x41", 4), I64: (b"\x42", 8), F32: (b"\x43", 4), F64: (b"\x44", 8), V128: (b"\xfd\x0c", 16)}
    if t in (I32, I64):
        opcode, size = numbers[t]
        half = 1 << 8 * size - 1
        code = opcode + encode_signed((bits + half) % (2 * half) - half)
    elif t in numbers:
        opcode, size = numbers[t]
        code = opcode + bits.to_bytes(size, "little")
    else:
        code = b"\xd0" + (b"\x70" if t == FUNCREF else b"\x6f")
    return Global(GlobalType(t, cell.type.mutable), Expression(code + b"\x0b"))
