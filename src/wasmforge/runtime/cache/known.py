"""Files whose modules the cache knows without reading them. Hashing a CPython of 26 MB and checking its image take
30 ms of a start that takes 100; so after doing both, a record says for which file, as it was then, the answer holds.

A file is the same when its device, inode, size and both times are: writing to it changes the time of its last change
(ctime), which nobody but the clock can set. Files that changed within the last two seconds are not recorded, since
their times may be too coarse to show the next change. The image's checksum is left out only until the next start of
the computer: a power failure can take contents of a file and leave its times.

THREAT: a record decides what code runs, so it is opened like an image, and names the image by key. Whoever can change
the module's file while keeping its times (root, or its file system) gets the module that was there before run again.
"""

from __future__ import annotations

import os
import stat
import time
from _struct import Struct

from wasmforge.compiler.image import checksum
from wasmforge.runtime.cache import KNOWN_SUFFIX, find, identity_of, report
from wasmforge.runtime.cache.trust import UntrustedError, open_directory, open_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.runtime.cache import ImageCache
    from wasmforge.runtime.compiled_module import CompiledModule
    from wasmforge.runtime.engine_state import EngineState

__all__ = ["KnownFile"]

_RECORD: Final = Struct("<8s5Q32s5Q36s")
"""Magic; the file's identity; the key of its image; the image's identity, 0 if it changed lately; when the computer
was started. A CRC-32 follows."""

_MAGIC: Final = b"wfknown1"
_SETTLED: Final = 2_000_000_000
"""Nanoseconds that must have passed since the last change: FAT counts in two seconds, the kernel in 4 ms."""

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


class KnownFile:
    """An open file that may hold a module. Ask `load`; if it does not know, read the file, call `confirm` while it is
    still open, find or compile its module, and call `remember` with its key."""

    __slots__ = ("_cache", "_confirmed", "_fd", "_identity", "_image", "_key", "_name")

    def __init__(self, cache: ImageCache, fd: int) -> None:
        self._cache = cache
        self._fd = fd
        self._confirmed = False
        self._identity = _file_identity(fd)
        self._key: bytes | None = None  # what the record says
        self._image = _UNKNOWN
        place = None if self._identity is None else cache.name_of_file(self._identity[0], self._identity[1])
        self._name = None if place is None else place + KNOWN_SUFFIX

    def load(self, engine: EngineState) -> CompiledModule | None:
        """The module of the file; None when the file is not known or the image is gone."""
        if self._name is None:
            return None
        self.confirm()
        try:
            directory = open_directory(self._cache.settings.directory)
            try:
                self._read(directory)
                if self._key is None:
                    return None
                found = find(self._cache, engine, directory, self._key, self._image, self)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return None
        except (UntrustedError, OSError) as error:
            report(error)
            return None
        if found is not None:
            self.remember(self._key)
        return found

    def _read(self, directory: int) -> None:
        assert self._name is not None
        fd = open_file(directory, self._name)
        try:
            data = os.read(fd, _RECORD.size + 4)
        finally:
            os.close(fd)
        if len(data) != _RECORD.size + 4 or checksum(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return
        fields = _RECORD.unpack_from(data)
        if fields[0] != _MAGIC or fields[1:6] != self._identity:
            return
        self._key = fields[6]
        if fields[12] == _boot_id():
            self._image = fields[7:12]

    def confirm(self) -> None:
        """Finds out whether the file is still what it was when it was opened, and has been for long enough that a
        change would show. If not, nothing is ever recorded about it."""
        self._confirmed = (
            self._identity is not None
            and _file_identity(self._fd) == self._identity
            and _is_settled(self._identity, time.time_ns())
        )

    def remember(self, key: bytes) -> None:
        """Records that the image of `key` is that of the file, and, if it has not changed lately, undamaged. Called
        after both have been found out; writes nothing when the record says so already."""
        if self._name is None or self._identity is None or not self._confirmed:
            return
        now = time.time_ns()
        try:
            directory = open_directory(self._cache.settings.directory)
            try:
                image = self._cache.image_identity(directory, key)
                if image is None:
                    return
                if not _is_settled(image, now):
                    image = _UNKNOWN
                if key == self._key and image in (self._image, _UNKNOWN):
                    return
                from wasmforge.runtime.cache.storing import write_file

                data = _RECORD.pack(_MAGIC, *self._identity, key, *image, _boot_id())
                write_file(directory, self._name, (data, checksum(data).to_bytes(4, "little")))
            finally:
                os.close(directory)
        except (UntrustedError, OSError) as error:
            report(error)


_UNKNOWN: Final = (0, 0, 0, 0, 0)


def _file_identity(fd: int) -> tuple[int, int, int, int, int] | None:
    status = os.fstat(fd)
    return identity_of(status) if stat.S_ISREG(status.st_mode) else None


def _is_settled(identity: tuple[int, int, int, int, int], now: int) -> bool:
    return max(identity[3], identity[4]) < now - _SETTLED


def _boot_id() -> bytes:
    with open(_BOOT_ID, "rb") as file:
        return file.read(36)
