"""Writing to the compilation cache: new entries, the size bound, what killed processes left, clearing. Used after a
compilation and by `wasmforge cache`; a process that finds its module never imports this.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from wasmforge.runtime.cache.trust import open_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from wasmforge.runtime.cache.settings import CacheSettings
    from wasmforge.runtime.grown_image import FileRange

__all__ = ["Entry", "clear", "entries", "sweep", "write", "write_file"]

_KEY_DIGITS: Final = 64
_KINDS: Final = ("cwasm", "known")  # images, and records of files whose image is known
_TEMPORARY: Final = ".tmp"

_LEFTOVER_AFTER: Final = 600.0
"""Seconds after which a temporary file belongs to a process that was killed: writing one takes a fraction of one. If
its writer is only slow, it loses an entry, and nothing else happens."""

_SWEEPS: Final = 64
"""A process that is about to write n bytes first sweeps with probability n * this / limit: so all processes together
exceed the limit by a 64th on average, without a lock or a count that they would have to share, and a test suite with
thousands of small modules does not list the directory for each."""


class Entry:
    """A file of the cache. `used` is when (seconds since the epoch) it was last found or written, at most an hour off;
    `temporary` whether it is still being written, or was when its writer was killed; `is_image` whether it is one."""

    __slots__ = ("is_image", "name", "size", "temporary", "used")

    def __init__(self, name: str, status: os.stat_result) -> None:
        self.name = name
        self.size = status.st_size
        self.used = status.st_mtime
        self.temporary = name.endswith(_TEMPORARY)
        self.is_image = name.endswith(_KINDS[0])


def write(settings: CacheSettings, name: str, parts: Sequence[bytes | bytearray | FileRange]) -> None:
    """Writes an entry; whoever opens it sees all of it or the one before. There is no fsync: after a power failure an
    entry may have lost its end, which its checksum shows.

    Raises:
        UntrustedError: the directory is not ours alone.
        OSError: it cannot be written, or the entry is larger than the cache may be.
    """
    size = sum(map(len, parts))
    if size > settings.size_limit or settings.count_limit == 0:
        raise OSError(f"an entry of {size} bytes does not fit into a cache of {settings.size_limit}")
    directory = open_directory(settings.directory, create=True)
    try:
        if int.from_bytes(os.urandom(4), "little") * settings.size_limit < size * _SWEEPS << 32:
            _sweep(settings, directory, size)
        write_file(directory, name, parts)
    finally:
        os.close(directory)


def write_file(directory: int, name: str, parts: Sequence[bytes | bytearray | FileRange]) -> None:
    """Writes a file of an open directory whole, or raises OSError and leaves what was there."""
    temporary = f"{name}.{os.urandom(8).hex()}{_TEMPORARY}"
    # Exclusive, so that nothing that already stands there, link or file, is written to.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            for part in parts:
                if isinstance(part, (bytes, bytearray)):
                    _write_all(fd, part)
                else:
                    part.copy_to(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _remove(directory, temporary)
        raise


def _write_all(fd: int, data: bytes | bytearray) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def entries(directory: int) -> Iterator[Entry]:
    """The files of the cache in an open directory. Others, which somebody else put there, are not the cache's."""
    for name in os.listdir(directory):
        key, _, rest = name.partition(".")
        kind, _, temporary = rest.partition(".")
        if len(key) != _KEY_DIGITS or kind not in _KINDS or not (not temporary or name.endswith(_TEMPORARY)):
            continue
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:  # gone since it was listed
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield Entry(name, status)


def sweep(settings: CacheSettings) -> None:
    """Removes what killed processes left, and the oldest entries if there are too many. Raises as `write`."""
    directory = open_directory(settings.directory)
    try:
        _sweep(settings, directory, 0)
    finally:
        os.close(directory)


def _sweep(settings: CacheSettings, directory: int, coming: int) -> None:
    """Makes room for `coming` more bytes. Others may sweep at the same time; then a little more is removed."""
    now = time.time()
    present = []
    size = coming
    for entry in entries(directory):
        if entry.temporary and abs(now - entry.used) > _LEFTOVER_AFTER:
            _remove(directory, entry.name)
            continue
        size += entry.size
        if not entry.temporary:
            present.append(entry)
    count = len(present) + (1 if coming else 0)
    if size <= settings.size_limit and count <= settings.count_limit:
        return
    size_target = max(settings.size_limit * settings.size_percent // 100, coming)
    count_target = max(settings.count_limit * settings.count_percent // 100, 1 if coming else 0)
    if size <= settings.size_limit:
        size_target = size
    if count <= settings.count_limit:
        count_target = count
    present.sort(key=lambda entry: entry.used)
    for entry in present:
        if size <= size_target and count <= count_target:
            break
        _remove(directory, entry.name)
        size -= entry.size
        count -= 1


def clear(settings: CacheSettings) -> tuple[int, int]:
    """Removes all entries. Programs that use one keep it until they end. Raises as `write`.

    Returns:
        How many there were, and their bytes.
    """
    directory = open_directory(settings.directory)
    try:
        found = list(entries(directory))
        for entry in found:
            os.unlink(entry.name, dir_fd=directory)
        return sum(entry.is_image for entry in found), sum(entry.size for entry in found)
    finally:
        os.close(directory)


def _remove(directory: int, name: str) -> None:
    with suppress(OSError):  # somebody else was faster, or the file system became read-only
        os.unlink(name, dir_fd=directory)
