"""Entries of the cache for modules that are compiled while they run: from the file to a `LazyModule` that goes on where
another process has stopped. `find` in the package comes here when it has opened one.

The text is mapped from the file, read-only and executable, into the place in the new code region that it has in every
process; slots and counters are filled in one piece each; records of the code stay packed until one is wanted.
"""

from __future__ import annotations

import os

from wasmforge.compiler.compatibility import check_engine
from wasmforge.compiler.image import (
    INFO_SECTION,
    MEMORY_SECTION,
    NAME_SECTION,
    PAGE,
    RODATA_WASM_SECTION,
    Image,
)
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.runtime.cache import TRAILER, check_trailer
from wasmforge.runtime.cache.growth import keep
from wasmforge.runtime.cache.trust import UntrustedError, open_file
from wasmforge.runtime.code_memory import FileSource
from wasmforge.runtime.grown_image import (
    GROWTH_SECTION,
    IN_MEMORY_BELOW,
    ROWS_SECTION,
    Originals,
    decode_growth,
)
from wasmforge.runtime.lazy_code import LazyCode
from wasmforge.runtime.mapping import Mmap
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.runtime.cache import ImageCache
    from wasmforge.runtime.cache.known import KnownFile
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.lazy_module import LazyModule

__all__ = ["count_functions", "load"]


def load(
    cache: ImageCache,
    engine: EngineState,
    key: bytes,
    source: FileSource,
    length: int,
    identity: tuple[int, int, int, int, int],
    undamaged: bool,
    file: KnownFile | None,
) -> LazyModule:
    """The module of an open entry whose image has `length` bytes; its text grows, and is kept again, under `key`.
    Raises WasmtimeError when it is damaged or for another engine, OSError."""
    assert cache.restore is not None
    size = identity[2] - TRAILER.size
    small = size < IN_MEMORY_BELOW
    data = memoryview(os.pread(source.fd, size, 0)) if small else _map(source, length)
    image = Image(data[:length], undamaged=undamaged)
    check_engine(image, engine.tunables)
    growth = decode_growth(image.section(GROWTH_SECTION))
    behind = length + PAGE - 1 & -PAGE
    if small:
        originals = Originals(growth.source, growth.pages, bytes(data[behind:size]), None, 0)
    else:
        originals = Originals(growth.source, growth.pages, b"", source, behind)
    if behind + originals.size != size:
        raise WasmtimeError("damaged cache entry: what belongs behind the image is not there")
    # Threat: memory images and bodies are as good as code; a flipped bit must not get into either.
    if not undamaged and originals.checksum() != growth.originals_checksum:
        raise WasmtimeError("damaged cache entry: the checksum of the module's originals does not match")
    info = CompiledModuleInfo.decode(image.section(INFO_SECTION))
    sections = {name: image.section(name) for name in (RODATA_WASM_SECTION, NAME_SECTION)}
    sections[MEMORY_SECTION] = memoryview(originals.data)[originals.pages_at :]
    rows = image.section(ROWS_SECTION).cast("I")
    code = LazyCode(len(info.functions), growth.capacity, sections, originals, (growth.packed_pieces, rows))
    text = image.data[image.text_offset : image.text_offset + image.text_size]
    code.region.adopt(text, None if small else source, image.text_offset)
    module = cache.restore(engine, info, code, growth)
    keep(cache, key, module, file).came_from(identity, growth.originals_checksum, code.region.used)
    return module


def _map(source: FileSource, length: int) -> memoryview:
    return memoryview(Mmap.of_file(source.fd, length).owner).toreadonly()


def count_functions(directory: int, name: str) -> tuple[int, int, int] | None:
    """How many functions of an entry of an open directory are in baseline code, how many in optimised, and how many
    there are; None for one that is complete anyway, or cannot be read."""
    try:
        source = FileSource.adopt(open_file(directory, name))
        length, grown = check_trailer(source.fd, bytes.fromhex(name.partition(".")[0]))
        if not grown:
            return None
        growth = decode_growth(Image(_map(source, length)).section(GROWTH_SECTION))
    except (UntrustedError, OSError, WasmtimeError, ValueError):
        return None
    return growth.baseline, growth.optimised, len(growth.packed_slots) // 8
