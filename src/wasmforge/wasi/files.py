"""What open files and open directories have in common, wherever they live: the permissions that a guest has for them,
what it is told of them, and the listing that a directory keeps. `host_files.py` and `tree.py` derive theirs from it.

Threat: a guest might use more permission than the embedder gave. The permissions of the preopened directory travel to
everything opened beneath it, and are asked here before anything is looked up or opened.
"""

from __future__ import annotations

from wasmforge.wasi import abi
from wasmforge.wasi.descriptors import Descriptor
from wasmforge.wasi.errno import INVAL, NOTSUP, PERM, WasiError

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

__all__ = ["MAX_OFFSET", "READ", "WRITE", "Directory", "File"]

READ: Final = 1
WRITE: Final = 2
"""Permissions of a preopened directory, as bits: what may be done with its names, and with the contents of files."""

MAX_OFFSET: Final = (1 << 63) - 1
"""Of a position in a file, and of its size: what the host's calls take."""

MAX_KEPT_ENTRIES: Final = 4096
"""Entries of a directory that a descriptor remembers between calls of fd_readdir: about half a megabyte."""


class File(Descriptor):
    """An open file: what it was opened for (`readable`, `writable`), and whether the permissions let its contents be
    changed at all (`may_write`)."""

    __slots__ = ("_flags", "_may_write", "_readable", "_writable")

    def __init__(self, *, readable: bool, writable: bool, may_write: bool, flags: int) -> None:
        self._readable = readable
        self._writable = writable
        self._may_write = may_write
        self._flags = flags

    def allocate(self, offset: int, length: int) -> None:
        raise WasiError(NOTSUP)  # as in Wasmtime: one call could fill the host's disk

    def set_rights(self) -> None:
        raise WasiError(NOTSUP)

    def fdstat(self) -> tuple[int, int, int]:
        rights = abi.RIGHTS_ALL
        if not self._readable:
            rights &= ~abi.RIGHTS_TO_READ
        if not self._writable:
            rights &= ~abi.RIGHTS_FD_WRITE
        return self._flags, rights, rights


class Directory(Descriptor):
    """An open directory: preopened, or opened beneath one. A kind of it says how to list it (`_list`)."""

    __slots__ = ("_listing", "dir_perms", "file_perms", "preopen_name")

    file_type = abi.FILETYPE_DIRECTORY

    def __init__(self, dir_perms: int, file_perms: int, preopen_name: bytes | None) -> None:
        self.dir_perms = dir_perms
        self.file_perms = file_perms
        self.preopen_name = preopen_name
        self._listing: list[tuple[int, int, int, bytes]] | None = None

    def set_rights(self) -> None:
        raise WasiError(NOTSUP)

    def fdstat(self) -> tuple[int, int, int]:
        if self.preopen_name is not None:
            return 0, abi.RIGHTS_PREOPEN, abi.RIGHTS_PREOPEN_INHERITING
        rights = abi.RIGHTS_ALL & ~abi.RIGHTS_NOT_OF_DIRECTORIES & ~abi.RIGHTS_FD_WRITE
        return 0, rights, rights

    def entries(self, cookie: int) -> Iterable[tuple[int, int, int, bytes]]:
        # A guest reads a directory in several calls and may change it in between (rm -r does). So the entries are those
        # at the time of the first call, and a cookie is an index into them.
        self._need(READ)
        listing = self._listing
        if cookie == 0 or listing is None:
            listing = list(self._list())
            # Threat: a guest with many descriptors of one large directory would have the host keep as many listings. A
            # large one is made again for each call, as Wasmtime does with all.
            self._listing = listing if len(listing) <= MAX_KEPT_ENTRIES else None
        return listing[cookie:]

    def _list(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The entries as they are now, with "." and ".." first; each cookie is one more than the last, from 1."""
        raise NotImplementedError

    def _need(self, permission: int) -> None:
        if not self.dir_perms & permission:
            raise WasiError(PERM)

    def _access(self, oflags: int, rights: int, fdflags: int) -> tuple[bool, bool]:
        """Whether `open_at` with these flags opens for reading, and for writing. Raises WasiError when the permissions
        do not allow it or the flags make no sense together."""
        change = oflags & (abi.OFLAGS_CREAT | abi.OFLAGS_TRUNC)
        write = bool(change or rights & abi.RIGHTS_FD_WRITE)
        read = bool(rights & abi.RIGHTS_FD_READ) or not rights & abi.RIGHTS_FD_WRITE
        if fdflags & ~(abi.FDFLAGS_APPEND | abi.FDFLAGS_NONBLOCK):
            raise WasiError(NOTSUP)
        if oflags & abi.OFLAGS_DIRECTORY and oflags & ~abi.OFLAGS_DIRECTORY:
            raise WasiError(INVAL)
        self._need(READ)
        if change:
            self._need(WRITE)
        # Wasmtime lets a file be truncated that may only be read; here truncation needs the permission to write.
        if write and not self.file_perms & WRITE:
            raise WasiError(PERM)
        if rights & abi.RIGHTS_FD_READ and not self.file_perms & READ and not oflags & abi.OFLAGS_DIRECTORY:
            raise WasiError(PERM)
        return read, write
