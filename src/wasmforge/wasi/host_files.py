"""Files and directories of the host as descriptors of the guest. `config.py` opens the preopened directories; all
others are opened beneath them by `HostDirectory.open_at`. Path resolution itself is in `beneath.py`.

Threat: see `beneath.py` for leaving the directory, `files.py` for the permissions.
"""

from __future__ import annotations

import _struct as struct
import errno as host
import os
import stat

from wasmforge.wasi import abi, native, waiting
from wasmforge.wasi.beneath import ParentDirectory, open_beneath
from wasmforge.wasi.descriptors import TIME_NOW, Descriptor, FileStatus, Times
from wasmforge.wasi.errno import (
    BADF,
    BUSY,
    EXIST,
    ILSEQ,
    INVAL,
    ISDIR,
    LOOP,
    NOENT,
    NOTDIR,
    PERM,
    XDEV,
    WasiError,
)
from wasmforge.wasi.files import MAX_OFFSET, READ, WRITE, Directory, File

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator
    from typing import Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["HostDirectory", "HostFile"]

_FADVISE: Final = (
    # In the order of WASI's advice.
    os.POSIX_FADV_NORMAL,
    os.POSIX_FADV_SEQUENTIAL,
    os.POSIX_FADV_RANDOM,
    os.POSIX_FADV_WILLNEED,
    os.POSIX_FADV_DONTNEED,
    os.POSIX_FADV_NOREUSE,
)
_WHENCE: Final = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)

# A fresh secret a process: guests can compare identities of files, and learn no inode numbers of the host.
_IDENTITY_KEY: Final = int.from_bytes(os.urandom(8), "little")


def _identity(device: int, inode: int) -> int:
    """A 64-bit number for a file that is the same for all its names."""
    return hash((_IDENTITY_KEY, device, inode)) & 0xFFFF_FFFF_FFFF_FFFF


def _status(result: os.stat_result) -> FileStatus:
    return FileStatus(
        type=abi.file_type_of_mode(result.st_mode),
        device=1,  # the identity already distinguishes devices
        inode=_identity(result.st_dev, result.st_ino),
        links=result.st_nlink,
        size=result.st_size,
        times=(result.st_atime_ns, result.st_mtime_ns, result.st_ctime_ns),
    )


# --- Times -----------------------------------------------------------------------------------------------------

_TIMESPECS: Final = struct.Struct("=qqqq")
_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
_AT_EMPTY_PATH: Final = 0x1000
_utimensat: Final = ctypes.CDLL(None, use_errno=True).utimensat
_utimensat.restype = ctypes.c_int
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)


def _timespec(time: int | None) -> tuple[int, int]:
    if time is None:
        return 0, _UTIME_OMIT
    if time == TIME_NOW:
        return 0, _UTIME_NOW
    return divmod(time, 1_000_000_000)


def _set_times(descriptor: int, times: Times) -> None:
    """Sets times of what `descriptor` holds, which may be an O_PATH descriptor, also of a symbolic link."""
    specs = _TIMESPECS.pack(*_timespec(times[0]), *_timespec(times[1]))
    if _utimensat(descriptor, b"", specs, _AT_EMPTY_PATH) == 0:
        return
    error = ctypes.get_errno()
    if error == host.EINVAL and not stat.S_ISLNK(os.fstat(descriptor).st_mode):  # Linux before 5.8
        if _utimensat(-100, b"/proc/self/fd/%d" % descriptor, specs, 0) == 0:
            return
        error = ctypes.get_errno()
    raise OSError(error, os.strerror(error))


# --- Files -----------------------------------------------------------------------------------------------------


class HostFile(File):
    """An open file of the host, which this object owns. Its position is the host's."""

    __slots__ = ("descriptor", "file_type")

    def __init__(
        self, descriptor: int, file_type: int, *, readable: bool, writable: bool, may_write: bool, flags: int
    ) -> None:
        self.descriptor = descriptor
        self.file_type = file_type
        super().__init__(readable=readable, writable=writable, may_write=may_write, flags=flags)

    def read(self, buffers: list[memoryview]) -> int:
        if not self._readable:
            raise WasiError(BADF)
        self._wait(write=False)
        return os.readv(self.descriptor, buffers)

    def write(self, buffers: list[memoryview]) -> int:
        if not self._writable:
            raise WasiError(BADF)
        self._wait(write=True)
        return os.writev(self.descriptor, buffers)

    def native(self) -> tuple[int, int]:
        if self.file_type != abi.FILETYPE_REGULAR_FILE:
            return 0, 0
        return (native.READ * self._readable | native.WRITE * self._writable | native.SEEK), self.descriptor

    def _wait(self, write: bool) -> None:
        """A pipe or a device may block for ever, which a deadline shall end."""
        if self.file_type != abi.FILETYPE_REGULAR_FILE and not self._flags & abi.FDFLAGS_NONBLOCK:
            waiting.ready(self.descriptor, write)

    def pread(self, buffers: list[memoryview], offset: int) -> int:
        if offset > MAX_OFFSET:
            raise WasiError(INVAL)
        if not self._readable:
            raise WasiError(BADF)
        return os.preadv(self.descriptor, buffers, offset)

    def pwrite(self, buffers: list[memoryview], offset: int) -> int:
        if offset > MAX_OFFSET:
            raise WasiError(INVAL)
        if not self._writable:
            raise WasiError(BADF)
        return os.pwritev(self.descriptor, buffers, offset)

    def seek(self, offset: int, whence: int) -> int:
        return os.lseek(self.descriptor, offset, _WHENCE[whence])

    def flush(self, data_only: bool) -> None:
        if data_only:
            os.fdatasync(self.descriptor)
        else:
            os.fsync(self.descriptor)

    def advise(self, offset: int, length: int, advice: int) -> None:
        if offset > MAX_OFFSET or length > MAX_OFFSET:
            raise WasiError(INVAL)
        os.posix_fadvise(self.descriptor, offset, length, _FADVISE[advice])

    def set_flags(self, flags: int) -> None:
        if flags & ~(abi.FDFLAGS_APPEND | abi.FDFLAGS_NONBLOCK):
            raise WasiError(INVAL)
        import fcntl

        old = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        new = old & ~(os.O_APPEND | os.O_NONBLOCK) | _host_flags(flags)
        if new != old:
            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, new)
        self._flags = flags

    def set_size(self, size: int) -> None:
        if not self._may_write:
            raise WasiError(PERM)
        if size > MAX_OFFSET:
            raise WasiError(INVAL)
        os.ftruncate(self.descriptor, size)

    def set_times(self, times: Times) -> None:
        if not self._may_write:
            raise WasiError(PERM)
        _set_times(self.descriptor, times)

    def status(self) -> FileStatus:
        return _status(os.fstat(self.descriptor))

    def poll_target(self, write: bool) -> int | None:
        if self.file_type == abi.FILETYPE_REGULAR_FILE:
            return None
        return self.descriptor

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _host_flags(fdflags: int) -> int:
    return (os.O_APPEND if fdflags & abi.FDFLAGS_APPEND else 0) | (
        os.O_NONBLOCK if fdflags & abi.FDFLAGS_NONBLOCK else 0
    )


# --- Directories -----------------------------------------------------------------------------------------------


class HostDirectory(Directory):
    """An open directory of the host, which this object owns: preopened, or opened beneath one."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int, dir_perms: int, file_perms: int, preopen_name: bytes | None = None) -> None:
        self.descriptor = descriptor
        super().__init__(dir_perms, file_perms, preopen_name)

    @classmethod
    def preopen(
        cls, path: str | bytes | os.PathLike[str], name: bytes, dir_perms: int, file_perms: int
    ) -> HostDirectory:
        """Opens directory `path` of the host, which the guest will see as `name`. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return cls(descriptor, dir_perms, file_perms, name)

    def set_times(self, times: Times) -> None:
        self._need(WRITE)
        _set_times(self.descriptor, times)

    def status(self) -> FileStatus:
        return _status(os.fstat(self.descriptor))

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _list(self) -> Iterator[tuple[int, int, int, bytes]]:
        own = os.fstat(self.descriptor)
        identity = _identity(own.st_dev, own.st_ino)
        yield 1, identity, abi.FILETYPE_DIRECTORY, b"."
        yield 2, identity, abi.FILETYPE_DIRECTORY, b".."  # its own: what is above the start does not exist
        with os.scandir(self.descriptor) as entries:
            for next_cookie, entry in enumerate(entries, 3):
                try:
                    name = entry.name.encode()
                except UnicodeEncodeError:  # not UTF-8 on the host; WASI has no way to say it
                    raise WasiError(ILSEQ) from None
                yield next_cookie, _identity(own.st_dev, entry.inode()), _entry_type(entry), name

    def open_at(self, path: bytes, follow: bool, oflags: int, rights: int, fdflags: int) -> Descriptor:
        read, write = self._access(oflags, rights, fdflags)
        flags = (os.O_RDWR if read else os.O_WRONLY) if write else os.O_RDONLY
        flags |= os.O_NOCTTY | os.O_CLOEXEC | _host_flags(fdflags)
        if oflags & abi.OFLAGS_CREAT:
            flags |= os.O_CREAT | (os.O_EXCL if oflags & abi.OFLAGS_EXCL else 0)
        if oflags & abi.OFLAGS_TRUNC:
            flags |= os.O_TRUNC
        if oflags & abi.OFLAGS_DIRECTORY:
            flags |= os.O_DIRECTORY
        if not follow:
            flags |= os.O_NOFOLLOW
        try:
            descriptor = open_beneath(self.descriptor, path, flags)
        except NotADirectoryError:
            # Linux says so too for a link that was not to be followed; guests expect ELOOP, as without O_DIRECTORY.
            if not follow and self._is_link(path):
                raise WasiError(LOOP) from None
            raise
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            os.close(descriptor)
            raise
        if stat.S_ISDIR(mode):
            return HostDirectory(descriptor, self.dir_perms, self.file_perms)
        return HostFile(
            descriptor,
            abi.file_type_of_mode(mode),
            readable=read and bool(self.file_perms & READ),
            writable=write,
            may_write=bool(self.file_perms & WRITE),
            flags=fdflags,
        )

    def _is_link(self, path: bytes) -> bool:
        return self.status_at(path, follow=False).type == abi.FILETYPE_SYMBOLIC_LINK

    def create_directory_at(self, path: bytes) -> None:
        self._need(WRITE)
        with ParentDirectory(self.descriptor, path, EXIST) as parent:
            os.mkdir(parent.name, dir_fd=parent.descriptor)

    def remove_directory_at(self, path: bytes) -> None:
        self._need(WRITE)
        with ParentDirectory(self.descriptor, path, INVAL) as parent:
            os.rmdir(parent.name, dir_fd=parent.descriptor)

    def unlink_file_at(self, path: bytes) -> None:
        self._need(WRITE)
        with ParentDirectory(self.descriptor, path, ISDIR) as parent:
            if parent.slash:
                raise WasiError(ISDIR if _is_directory(parent) else NOTDIR)
            os.unlink(parent.name, dir_fd=parent.descriptor)

    def rename_at(self, path: bytes, target: Descriptor, target_path: bytes) -> None:
        target = self._need_two(target)
        with (
            ParentDirectory(self.descriptor, path, BUSY) as source_parent,
            ParentDirectory(target.descriptor, target_path, BUSY) as target_parent,
        ):
            # POSIX: a slash at the end, of either, is for directories.
            if (source_parent.slash or target_parent.slash) and not _is_directory(source_parent):
                raise WasiError(NOTDIR)
            os.rename(
                source_parent.name,
                target_parent.name,
                src_dir_fd=source_parent.descriptor,
                dst_dir_fd=target_parent.descriptor,
            )

    def link_at(self, path: bytes, follow: bool, target: Descriptor, target_path: bytes) -> None:
        target = self._need_two(target)
        if follow:
            raise WasiError(INVAL)  # as in Wasmtime: linkat would follow the link wherever it leads
        with (
            ParentDirectory(self.descriptor, path, PERM) as source_parent,
            ParentDirectory(target.descriptor, target_path, EXIST) as target_parent,
        ):
            if source_parent.slash and not _is_directory(source_parent):
                raise WasiError(NOTDIR)
            _refuse_slash(target_parent)
            os.link(
                source_parent.name,
                target_parent.name,
                src_dir_fd=source_parent.descriptor,
                dst_dir_fd=target_parent.descriptor,
                follow_symlinks=False,
            )

    def symlink_at(self, contents: bytes, path: bytes) -> None:
        self._need(WRITE)
        if contents.startswith(b"/"):
            raise WasiError(PERM)  # it could never be followed here, and could mislead the host's own programs
        with ParentDirectory(self.descriptor, path, EXIST) as parent:
            _refuse_slash(parent)
            os.symlink(contents, parent.name, dir_fd=parent.descriptor)

    def readlink_at(self, path: bytes) -> bytes:
        self._need(READ)
        descriptor = open_beneath(self.descriptor, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise WasiError(INVAL)
            contents = os.readlink(b"", dir_fd=descriptor)
        finally:
            os.close(descriptor)
        if contents.startswith(b"/"):
            raise WasiError(PERM)  # names a place on the host
        return contents

    def status_at(self, path: bytes, follow: bool) -> FileStatus:
        self._need(READ)
        descriptor = open_beneath(self.descriptor, path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW)
        try:
            return _status(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def set_times_at(self, path: bytes, follow: bool, times: Times) -> None:
        self._need(WRITE)
        descriptor = open_beneath(self.descriptor, path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW)
        try:
            _set_times(descriptor, times)
        finally:
            os.close(descriptor)

    def _need_two(self, target: Descriptor) -> HostDirectory:
        if target.file_type != abi.FILETYPE_DIRECTORY:
            raise WasiError(BADF)
        self._need(WRITE)
        if not isinstance(target, HostDirectory):
            raise WasiError(XDEV)  # a file system in memory: programs copy then
        target._need(WRITE)
        return target


def _entry_type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return abi.FILETYPE_SYMBOLIC_LINK
    if entry.is_file(follow_symlinks=False):
        return abi.FILETYPE_REGULAR_FILE
    if entry.is_dir(follow_symlinks=False):
        return abi.FILETYPE_DIRECTORY
    try:
        return abi.file_type_of_mode(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:  # removed meanwhile
        return abi.FILETYPE_UNKNOWN


def _is_directory(parent: ParentDirectory) -> bool:
    return stat.S_ISDIR(os.stat(parent.name, dir_fd=parent.descriptor, follow_symlinks=False).st_mode)


def _refuse_slash(parent: ParentDirectory) -> None:
    """Links are not directories, so their new names end in no slash."""
    if not parent.slash:
        return
    try:
        mode = os.stat(parent.name, dir_fd=parent.descriptor, follow_symlinks=False).st_mode
    except FileNotFoundError:
        raise WasiError(NOENT) from None
    raise WasiError(NOTDIR if stat.S_ISREG(mode) else EXIST)
