"""What a module record says besides where the machine code is: the part that is the same whether functions are compiled
ahead of time (`link`) or at their first calls (`wasmforge._lazy`).
"""

from __future__ import annotations

from array import array

from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.info import CompiledModuleInfo, DataInfo, ElementInfo, GlobalInfo, MemoryImage
from wasmforge.compiler.memory_images import memory_images
from wasmforge.syntax.module import ElementSegment, Expression, Module, SegmentMode

__all__ = ["describe", "lay_out_data"]


def describe(module: Module, func_refs: list[int]) -> CompiledModuleInfo:
    """The record of a module, without its data and without any code. `func_refs`: the escaping functions, ascending."""
    info = CompiledModuleInfo()
    info.name = module.names.module if module.names else None
    info.types = module.types
    info.imports = module.imports
    info.functions = module.functions
    info.rec_groups = module.rec_groups
    info.tables = [t.type for t in module.tables]
    info.table_inits = {x: t.init.code for x, t in enumerate(module.tables) if t.init is not None}
    info.memories = module.memories
    info.globals = [GlobalInfo(g.type, g.init.code) for g in module.globals]
    info.exports = module.exports
    info.start = module.start
    info.elements = [_element(e) for e in module.elements]
    info.func_refs = func_refs
    info.packed_function_offsets = array("I", (b.start for b in module.code)).tobytes()
    return info


def lay_out_data(module: Module, info: CompiledModuleInfo, tunables: Tunables) -> tuple[bytearray, bytearray]:
    """Fills in what the record says about data: segments, and the memory images that some of them are part of. Returns
    the contents of both, to which the record's offsets are relative."""
    images = memory_images(module) if tunables.memory_init_cow else {}
    contents = bytearray()
    info.num_data = len(module.data)
    for x, segment in enumerate(module.data):
        if segment.mode == SegmentMode.ACTIVE and segment.memory in images:
            continue  # it is part of the image
        offset = _expression(segment.memory_offset)
        info.data[x] = DataInfo(segment.mode, segment.memory, offset, len(contents), len(segment.data))
        contents += segment.data
    pages = bytearray()
    for memory, image in images.items():
        info.memory_images[memory] = MemoryImage(image.start, len(pages), len(image.data))
        if pages:
            pages += image.data
        else:
            pages = image.data  # nearly always the only one, of megabytes
    return contents, pages


def _expression(e: Expression | None) -> bytes | None:
    return None if e is None else e.code


def _element(e: ElementSegment) -> ElementInfo:
    items: tuple[int, ...] | tuple[bytes, ...]
    if e.uses_expressions:
        items = tuple(i.code for i in e.items if isinstance(i, Expression))
    else:
        items = tuple(i for i in e.items if isinstance(i, int))
    return ElementInfo(e.mode, e.type, e.table, _expression(e.table_offset), items, e.uses_expressions)
