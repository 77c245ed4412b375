"""Record layouts, flag bits and enumerations of WASI preview 1, as its witx file fixes them. The functions pack and
unpack guest memory with these; nothing else in the package needs them.
"""

from __future__ import annotations

import _struct as struct
import stat

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from typing import Final

__all__ = ["file_type_of_mode"]

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
PAIR_U32: Final = struct.Struct("<II")
IOVEC: Final = PAIR_U32  # buffer pointer, length
FDSTAT: Final = struct.Struct("<BxHxxxxQQ")  # file type, flags, rights, inheriting rights
FILESTAT: Final = struct.Struct("<QQBxxxxxxxQQQQQ")  # device, inode, type, links, size, atim, mtim, ctim
PRESTAT: Final = struct.Struct("<BxxxI")  # tag, length of the name
DIRENT: Final = struct.Struct("<QQIBxxx")  # next cookie, inode, length of the name, type
SUBSCRIPTION_HEAD: Final = struct.Struct("<QB")  # user data, event type
SUBSCRIPTION_CLOCK: Final = struct.Struct("<IxxxxQQH")  # clock, timeout, precision, flags
EVENT: Final = struct.Struct("<QHBxxxxxQHxxxxxx")  # user data, errno, type, bytes available, flags

SUBSCRIPTION_SIZE: Final = 48
SUBSCRIPTION_UNION: Final = 16  # offset of the part that the event type decides
EVENT_SIZE: Final = 32
PREOPEN_DIRECTORY: Final = 0
PREOPEN_OTHER: Final = 1  # no value of the witx file, see `fd_prestat_get`

FILETYPE_UNKNOWN: Final = 0
FILETYPE_BLOCK_DEVICE: Final = 1
FILETYPE_CHARACTER_DEVICE: Final = 2
FILETYPE_DIRECTORY: Final = 3
FILETYPE_REGULAR_FILE: Final = 4
FILETYPE_SOCKET_STREAM: Final = 6
FILETYPE_SYMBOLIC_LINK: Final = 7

_FILETYPE_OF_FORMAT: Final = {
    stat.S_IFBLK: FILETYPE_BLOCK_DEVICE,
    stat.S_IFCHR: FILETYPE_CHARACTER_DEVICE,
    stat.S_IFDIR: FILETYPE_DIRECTORY,
    stat.S_IFREG: FILETYPE_REGULAR_FILE,
    stat.S_IFSOCK: FILETYPE_SOCKET_STREAM,
    stat.S_IFLNK: FILETYPE_SYMBOLIC_LINK,
}


def file_type_of_mode(mode: int) -> int:
    """The WASI file type of a host's `st_mode`."""
    return _FILETYPE_OF_FORMAT.get(stat.S_IFMT(mode), FILETYPE_UNKNOWN)


LOOKUP_SYMLINK_FOLLOW: Final = 1
LOOKUP_ALL: Final = 1

OFLAGS_CREAT: Final = 1
OFLAGS_DIRECTORY: Final = 2
OFLAGS_EXCL: Final = 4
OFLAGS_TRUNC: Final = 8
OFLAGS_ALL: Final = 15

FDFLAGS_APPEND: Final = 1
FDFLAGS_DSYNC: Final = 2
FDFLAGS_NONBLOCK: Final = 4
FDFLAGS_RSYNC: Final = 8
FDFLAGS_SYNC: Final = 16
FDFLAGS_ALL: Final = 31

FSTFLAGS_ATIM: Final = 1
FSTFLAGS_ATIM_NOW: Final = 2
FSTFLAGS_MTIM: Final = 4
FSTFLAGS_MTIM_NOW: Final = 8
FSTFLAGS_ALL: Final = 15

WHENCE_SET: Final = 0
WHENCE_CUR: Final = 1
WHENCE_END: Final = 2

ADVICE_LAST: Final = 5

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_PROCESS_CPUTIME: Final = 2
CLOCK_THREAD_CPUTIME: Final = 3

RIFLAGS_PEEK: Final = 1
RIFLAGS_WAITALL: Final = 2
RIFLAGS_ALL: Final = 3
SDFLAGS_ALL: Final = 3
SIFLAGS_ALL: Final = 0

EVENTTYPE_CLOCK: Final = 0
EVENTTYPE_FD_READ: Final = 1
EVENTTYPE_FD_WRITE: Final = 2
SUBCLOCKFLAGS_ABSTIME: Final = 1
EVENT_FD_READWRITE_HANGUP: Final = 1

_RIGHTS: Final = (
    # In the order of the witx file: the position is the bit.
    *("fd_datasync", "fd_read", "fd_seek", "fd_fdstat_set_flags", "fd_sync", "fd_tell", "fd_write", "fd_advise"),
    *("fd_allocate", "path_create_directory", "path_create_file", "path_link_source", "path_link_target", "path_open"),
    *("fd_readdir", "path_readlink", "path_rename_source", "path_rename_target", "path_filestat_get"),
    *("path_filestat_set_size", "path_filestat_set_times", "fd_filestat_get", "fd_filestat_set_size"),
    *("fd_filestat_set_times", "path_symlink", "path_remove_directory", "path_unlink_file", "poll_fd_readwrite"),
    *("sock_shutdown", "sock_accept"),
)


def _rights(*names: str) -> int:
    return sum(1 << _RIGHTS.index(name) for name in names)


RIGHTS_ALL: Final = (1 << len(_RIGHTS)) - 1
RIGHTS_FD_READ: Final = _rights("fd_read")
RIGHTS_FD_WRITE: Final = _rights("fd_write")

# Rights decide nothing here, as in Wasmtime: permissions of the preopened directory and the mode of the open file do.
# They are reported because userlands look at them before they try.
RIGHTS_PREOPEN: Final = _rights(
    *("path_create_directory", "path_create_file", "path_link_source", "path_link_target", "path_open", "fd_readdir"),
    *("path_readlink", "path_rename_source", "path_rename_target", "path_symlink", "path_remove_directory"),
    *("path_unlink_file", "path_filestat_get", "path_filestat_set_times", "fd_filestat_get", "fd_filestat_set_times"),
)
RIGHTS_PREOPEN_INHERITING: Final = RIGHTS_PREOPEN | _rights(
    *("fd_datasync", "fd_read", "fd_seek", "fd_fdstat_set_flags", "fd_sync", "fd_tell", "fd_write", "fd_advise"),
    *("fd_allocate", "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "poll_fd_readwrite"),
)
RIGHTS_OF_SOCKETS: Final = _rights(
    *("fd_fdstat_set_flags", "fd_filestat_get", "poll_fd_readwrite", "sock_shutdown", "sock_accept")
)
RIGHTS_NOT_OF_DIRECTORIES: Final = _rights("fd_seek", "fd_filestat_set_size", "path_filestat_set_size")
RIGHTS_TO_READ: Final = _rights("fd_read", "fd_readdir")
