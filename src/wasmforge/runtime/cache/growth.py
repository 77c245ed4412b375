"""What modules that are compiled while they run have compiled goes to the cache from here, for the next process: when
the module goes, when the interpreter ends, and while a long program runs, now and then. `Module` announces each such
module with `keep`; `find` in the package reads what is written here.

An image is only ever replaced whole. Of two processes that grow the same one at the same time, one may undo what the
other has added; neither may undo more than that, so an image with more functions than ours stays.

Keeping must not cost more than it is worth: the time that a process spends here is bounded by a small part of its
processor time, largest modules first, and a program that compiles nothing new writes nothing.
"""

from __future__ import annotations

import atexit
from _weakref import ref
from time import perf_counter

from wasmforge.compiler.compatibility import encode_engine
from wasmforge.compiler.image import (
    ENGINE_SECTION,
    INFO_SECTION,
    NAME_SECTION,
    PAGE,
    RODATA_WASM_SECTION,
)
from wasmforge.compiler.target import host_level
from wasmforge.runtime.age import age
from wasmforge.runtime.cache import report
from wasmforge.runtime.cache.trust import UntrustedError
from wasmforge.runtime.grown_image import GROWTH_SECTION, ROWS_SECTION, padding
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from wasmforge.runtime.cache import ImageCache
    from wasmforge.runtime.cache.known import KnownFile
    from wasmforge.runtime.grown_image import FileRange
    from wasmforge.runtime.lazy_module import LazyModule

__all__ = ["Keeper", "keep"]

_FIRST_SECONDS: Final = 0.1
_PART: Final = 0.03
"""Seconds, and the part of the process's processor time in addition, after which no other module is kept."""

_EVERY: Final = 30.0
"""Seconds from loading until what has been compiled is kept although the module stays, and again after twice that, four
times, and so on."""

_spent = 0.0
_keepers: Final[dict[int, Keeper]] = {}


class Keeper:
    """What is known of one module: its `key`; `identity`, the entry that it came from; `checksum` of its unchanging
    parts, None before that was computed; `used`, the bytes of text that are kept."""

    __slots__ = ("cache", "checksum", "file", "identity", "key", "module", "next", "used")

    def __init__(self, cache: ImageCache, key: bytes, module: LazyModule, file: KnownFile | None) -> None:
        self.cache = cache
        self.key = key
        self.file = file
        self.module: ref[LazyModule] = ref(module)
        self.checksum: int | None = None
        self.identity: tuple[int, int, int, int, int] | None = None
        self.used = 0
        self.next = perf_counter() + _EVERY

    def came_from(self, identity: tuple[int, int, int, int, int], checksum: int, used: int) -> None:
        """Says that the module was read from an entry of the cache, with so much text."""
        self.identity = identity
        self.checksum = checksum
        self.used = used

    def grown(self) -> None:
        """New code is there."""
        now = perf_counter()
        if now >= self.next:
            started = self.next - _EVERY
            self.next = now + 2 * max(now - started, _EVERY)
            module = self.module()
            if module is not None:
                self.save(module)

    def gone(self, module: LazyModule) -> None:
        """The module is about to go."""
        _keepers.pop(id(self), None)
        self.save(module)

    def save(self, module: LazyModule) -> None:
        """Keeps what the module has compiled, if that is more than what is kept. Never raises."""
        global _spent
        region = module.code.region
        if region.used == self.used or 2 * region.used > region.text_length:
            return
        if _spent > _FIRST_SECONDS + _PART * age():
            return
        started = perf_counter()
        try:
            used = region.used
            if self._write(module):
                self.used = used
        except (UntrustedError, OSError, WasmtimeError, MemoryError) as error:
            report(error)
        finally:
            _spent += perf_counter() - started

    def _write(self, module: LazyModule) -> bool:
        growth, text, rows = module.growth()
        originals = module.code.originals
        if self.checksum is None:
            self.checksum = originals.checksum()
        growth.pages, growth.source, growth.originals_checksum = originals.pages, originals.source, self.checksum
        present = self.cache.grown_functions(self.key, self.identity)
        if present is not None and present > growth.baseline + growth.optimised:
            return False
        from wasmforge.compiler.image_builder import ImageBuilder

        builder = ImageBuilder()
        builder.add_text(text, b"", len(text) + -len(text) % 64)
        builder.add_section(ROWS_SECTION, rows, 4)
        builder.add_section(GROWTH_SECTION, growth.encode())
        builder.add_section(RODATA_WASM_SECTION, module.engine_code.wasm_data())
        builder.add_section(NAME_SECTION, module.names_section())
        builder.add_section(INFO_SECTION, module.info.encode())
        builder.add_section(ENGINE_SECTION, encode_engine(module.engine.tunables, host_level()))
        elf = builder.assemble()
        parts: Sequence[bytes | bytearray | FileRange] = (elf, padding(len(elf)), *originals.parts())
        assert (len(elf) + len(parts[1])) % PAGE == 0
        identity = self.cache.store_grown(self.key, parts, len(elf))
        if identity is None:
            return False
        self.identity = identity
        if self.file is not None:
            self.file.remember(self.key)
        return True


def keep(cache: ImageCache, key: bytes, module: LazyModule, file: KnownFile | None = None) -> Keeper:
    """From now on what the module compiles goes to the cache. `file` is where its binary comes from."""
    keeper = Keeper(cache, key, module, file)
    _keepers[id(keeper)] = keeper
    module.kept = keeper
    module.grown = keeper.grown
    if module.tier_up is not None:
        module.tier_up.grown = keeper.grown
    return keeper


def _save_all() -> None:
    """At the end of the interpreter, the largest first."""
    found = [(keeper, keeper.module()) for keeper in list(_keepers.values())]
    alive = [(keeper, module) for keeper, module in found if module is not None]
    alive.sort(key=lambda pair: -pair[1].code.region.used)
    for keeper, module in alive:
        keeper.save(module)


atexit.register(_save_all)
