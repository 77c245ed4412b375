"""`ZipDirectory`: the contents of a zip file as a read-only directory for guests. A file is unpacked when it is first
opened, and forgotten when no descriptor holds it.
"""

from __future__ import annotations

import stat
import zipfile
import zlib

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.errno import IO, NOMEM, WasiError
from wasmforge.wasi.files import READ
from wasmforge.wasi.nodes import DirectoryNode, FileNode, LinkNode, Volume
from wasmforge.wasi.tree import TreeDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any, BinaryIO, Final

__all__ = ["ZipDirectory"]

MAX_UNPACKED: Final = 1 << 30
"""Bytes of one file. Threat: a guest picks what is opened, and a small archive can hold a file that fills the host."""

_EPOCH_OF_ZIP: Final = (1980, 1, 1, 0, 0, 0)


class ZipDirectory:
    """A zip file as a directory that guests can read.

        config.preopen_dir(wasmforge.ZipDirectory("stdlib.zip"), "/usr/lib")

    Args:
        file: a path, a binary file object, or an open `zipfile.ZipFile`.

    Raises:
        OSError: the file cannot be read.
        WasmtimeError: it is not a zip file.
    """

    def __init__(self, file: str | PathLike[str] | BinaryIO | zipfile.ZipFile) -> None:
        if isinstance(file, zipfile.ZipFile):
            self._archive = file
        else:
            try:
                self._archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise WasmtimeError(f"not a zip file: {error}") from error
        self._volume = Volume(0)
        self._root = DirectoryNode(self._volume)
        for info in self._archive.infolist():
            self._add(info)

    def _add(self, info: zipfile.ZipInfo) -> None:
        names = [part.encode("utf-8", "replace") for part in info.filename.split("/") if part]
        # A name that climbs could only be reached by nobody, or by everybody: leave it out, as unpackers do.
        if not names or any(name in (b".", b"..") or len(name) > 255 or b"\0" in name for name in names):
            return
        directory = self._root
        for name in names[:-1]:
            inner = directory.children.get(name)
            if inner is None:
                inner = DirectoryNode(self._volume, directory)
                directory.put(name, inner)
            if not isinstance(inner, DirectoryNode):
                return
            directory = inner
        name = names[-1]
        if info.is_dir():
            if name not in directory.children:
                directory.put(name, DirectoryNode(self._volume, directory))
            return
        if isinstance(directory.children.get(name), DirectoryNode):
            return
        node: FileNode | LinkNode
        if stat.S_ISLNK(info.external_attr >> 16) and info.file_size <= 4095:
            node = LinkNode(self._volume, self._archive.read(info))
        else:
            node = _ZippedFile(self._volume, self._archive, info)
        node.access_time = node.modification_time = node.change_time = _time(info)
        directory.children[name] = node  # the last entry of a name counts, as for unpackers
        node.links = 1

    def _open(self, name: bytes, dir_perms: int, file_perms: int) -> TreeDirectory:
        return TreeDirectory(self._root, dir_perms & READ, file_perms & READ, name)


def _time(info: zipfile.ZipInfo) -> int:
    """Nanoseconds since the epoch. An archive has local time without a zone: taken as UTC, so that a guest sees the
    same everywhere."""
    import calendar

    try:
        return calendar.timegm((*info.date_time, 0, 0, 0)) * 1_000_000_000
    except ValueError:
        return calendar.timegm((*_EPOCH_OF_ZIP, 0, 0, 0)) * 1_000_000_000


class _ZippedFile(FileNode):
    __slots__ = ("_archive", "_info")

    def __init__(self, volume: Volume, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        super().__init__(volume, None)
        self._archive = archive
        self._info = info

    @property
    def size(self) -> int:
        return self._info.file_size

    def _fetch(self) -> bytes:
        if self._info.file_size > MAX_UNPACKED:
            raise WasiError(NOMEM)
        try:
            with self._archive.open(self._info) as file:
                data = file.read(self._info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise WasiError(IO) from error  # damaged, encrypted, or of an unknown method
        if len(data) != self._info.file_size:
            raise WasiError(IO)
        return data

    def read(self, buffers: list[memoryview], offset: int) -> int:
        before: Any = self.access_time
        count = super().read(buffers, offset)
        self.access_time = before
        return count

    def closed(self) -> None:
        super().closed()
        if self.opens <= 0:
            self._data = None
