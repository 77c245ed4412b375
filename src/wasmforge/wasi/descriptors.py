"""What a guest's file descriptor number stands for: the interface `Descriptor`, the standard streams, and the table
from numbers to descriptors. `config.py` fills the table, the functions of `preview1.py` use it; files and directories
of the host are in `host_files.py`, and other file systems plug in as further subclasses.

Threat: a number of the guest is only ever a key of the table. It is never handed to the host, so that descriptors which
the host process holds (its files, sockets, terminals, inherited or its own) do not exist for the guest.
"""

from __future__ import annotations

import os

from wasmforge.wasi import abi, waiting
from wasmforge.wasi.errno import BADF, MFILE, NOTDIR, SPIPE, WasiError
from wasmforge.wasi.native import NULL, READ, WRITE, NativeGuest

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final

    from wasmforge.wasi.context import WasiContext

__all__ = [
    "ClosedInput",
    "CustomOutput",
    "Descriptor",
    "DescriptorTable",
    "FileStatus",
    "HostInput",
    "HostOutput",
    "Sink",
    "TIME_NOW",
    "Times",
]

Times = tuple[int | None, int | None]
"""Access and modification time to set, in nanoseconds; None leaves one as it is."""

TIME_NOW: Final = -1
"""In `Times`: the host's time of the call. (Not read from a clock by us, since the kernel asks for less permission when
both times are set to now.)"""


class FileStatus:
    """What `filestat` holds: sizes in bytes, times in nanoseconds since the epoch."""

    __slots__ = ("access_time", "change_time", "device", "inode", "links", "modification_time", "size", "type")

    def __init__(
        self,
        type: int,  # noqa: A002 - the field's name in the specification
        device: int = 0,
        inode: int = 0,
        links: int = 0,
        size: int = 0,
        times: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        self.type = type
        self.device = device
        self.inode = inode
        self.links = links
        self.size = size
        self.access_time, self.modification_time, self.change_time = times

    def encode(self) -> bytes:
        mask = (1 << 64) - 1  # a time before 1970 wraps, as it does in C
        return abi.FILESTAT.pack(
            self.device,
            self.inode,
            self.type,
            self.links,
            self.size,
            self.access_time & mask,
            self.modification_time & mask,
            self.change_time & mask,
        )


class Descriptor:
    """The interface. Every operation that a kind of descriptor has no use for fails as Wasmtime's does, here.

    Reads and writes take writable views of guest memory and return the number of bytes moved. They raise `WasiError`
    with the guest's errno, or `OSError`, which the function table translates.
    """

    __slots__ = ()

    file_type: int = abi.FILETYPE_UNKNOWN
    preopen_name: bytes | None = None
    """The guest's name of a preopened directory."""

    @property
    def directories_follow(self) -> bool:
        """Whether it is a preopened socket whose number comes before those of preopened directories."""
        return False

    # --- streams and files
    def read(self, buffers: list[memoryview]) -> int:
        raise WasiError(BADF)

    def write(self, buffers: list[memoryview]) -> int:
        raise WasiError(BADF)

    def pread(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(BADF)

    def pwrite(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(BADF)

    def seek(self, offset: int, whence: int) -> int:
        raise WasiError(BADF)

    def flush(self, data_only: bool) -> None:
        """fd_sync, fd_datasync"""
        raise WasiError(BADF)

    def advise(self, offset: int, length: int, advice: int) -> None:
        raise WasiError(BADF)

    def allocate(self, offset: int, length: int) -> None:
        raise WasiError(BADF)

    def set_flags(self, flags: int) -> None:
        raise WasiError(BADF)

    def set_rights(self) -> None:
        raise WasiError(BADF)

    def set_size(self, size: int) -> None:
        raise WasiError(BADF)

    def set_times(self, times: Times) -> None:
        raise WasiError(BADF)

    def status(self) -> FileStatus:
        raise WasiError(BADF)

    def fdstat(self) -> tuple[int, int, int]:
        """fdflags, rights, inheriting rights"""
        raise WasiError(BADF)

    def poll_target(self, write: bool) -> int | None:
        """The host descriptor to wait for before a read or write, or None when it never waits."""
        raise WasiError(BADF)

    def close(self) -> None:
        """Releases what the host holds. The table calls it once."""

    def native(self) -> tuple[int, int]:
        """What compiled stubs may do with it (flags of `native.py`), and the host's descriptor; asked once, when it
        gets a number. Only what never waits for anybody: a stub cannot be interrupted."""
        return 0, 0

    def attach(self, context: WasiContext, number: int) -> None:
        """The context that this descriptor was preopened in, and under which number."""

    # --- directories; all paths are relative to the directory and cannot leave it
    def entries(self, cookie: int) -> Iterable[tuple[int, int, int, bytes]]:
        """Directory entries from `cookie` on: next cookie, inode, type, name."""
        raise WasiError(BADF)

    def open_at(self, path: bytes, follow: bool, oflags: int, rights: int, fdflags: int) -> Descriptor:
        raise WasiError(BADF)

    def create_directory_at(self, path: bytes) -> None:
        raise WasiError(BADF)

    def remove_directory_at(self, path: bytes) -> None:
        raise WasiError(BADF)

    def unlink_file_at(self, path: bytes) -> None:
        raise WasiError(BADF)

    def rename_at(self, path: bytes, target: Descriptor, target_path: bytes) -> None:
        raise WasiError(BADF)

    def link_at(self, path: bytes, follow: bool, target: Descriptor, target_path: bytes) -> None:
        raise WasiError(BADF)

    def symlink_at(self, contents: bytes, path: bytes) -> None:
        raise WasiError(BADF)

    def readlink_at(self, path: bytes) -> bytes:
        raise WasiError(BADF)

    def status_at(self, path: bytes, follow: bool) -> FileStatus:
        raise WasiError(BADF)

    def set_times_at(self, path: bytes, follow: bool, times: Times) -> None:
        raise WasiError(BADF)


class _Stream(Descriptor):
    """What the standard streams have in common."""

    __slots__ = ()

    def seek(self, offset: int, whence: int) -> int:
        raise WasiError(SPIPE)

    def status(self) -> FileStatus:
        return FileStatus(self.file_type)


class _Input(_Stream):
    __slots__ = ()

    def pread(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(SPIPE)

    def fdstat(self) -> tuple[int, int, int]:
        return 0, abi.RIGHTS_FD_READ, abi.RIGHTS_FD_READ


class _Output(_Stream):
    __slots__ = ()

    def pwrite(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(SPIPE)

    def fdstat(self) -> tuple[int, int, int]:
        return 0, abi.RIGHTS_FD_WRITE, abi.RIGHTS_FD_WRITE


class ClosedInput(_Input):
    """Standard input when none is given: at its end from the start."""

    __slots__ = ()

    def read(self, buffers: list[memoryview]) -> int:
        return 0

    def native(self) -> tuple[int, int]:
        return READ | NULL, 0

    def poll_target(self, write: bool) -> int | None:
        if write:
            raise WasiError(BADF)
        return None


class Sink(_Output):
    """Standard output and error when none are given: takes everything, keeps nothing."""

    __slots__ = ()

    def write(self, buffers: list[memoryview]) -> int:
        return sum(map(len, buffers))

    def native(self) -> tuple[int, int]:
        return WRITE | NULL, 0

    def poll_target(self, write: bool) -> int | None:
        if not write:
            raise WasiError(BADF)
        return None


MAX_CUSTOM_OUTPUT: Final = 1 << 20
"""Bytes that a callable gets at once."""


def _first_bytes(buffers: list[memoryview], limit: int) -> Iterator[memoryview]:
    for buffer in buffers:
        yield buffer[:limit]
        limit -= len(buffer)
        if limit <= 0:
            return


class CustomOutput(_Output):
    """Output that a Python callable takes: bytes to the number of bytes taken, or None for all of them.

    An exception of the callable leaves the guest, through the call that entered it. (The wasmtime package prints it and
    gives the guest an I/O error, since nothing can cross its C frames.)
    """

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[bytes], int | None]) -> None:
        self.callback = callback

    def write(self, buffers: list[memoryview]) -> int:
        # Threat: iovecs may name the same bytes again and again, so that a guest with a page of memory could have the
        # host build gigabytes. What is more than the limit gives a short count, and the guest writes the rest.
        data = b"".join(_first_bytes(buffers, MAX_CUSTOM_OUTPUT))
        taken = self.callback(data)
        if taken is None:
            return len(data)
        if not 0 <= taken <= len(data):
            raise ValueError(f"output callback returned {taken} for {len(data)} bytes")
        return taken

    def poll_target(self, write: bool) -> int | None:
        if not write:
            raise WasiError(BADF)
        return None


class HostInput(_Input):
    """A host descriptor that the embedder chose as standard input."""

    __slots__ = ("_owned", "descriptor", "file_type")

    def __init__(self, descriptor: int, owned: bool) -> None:
        self.descriptor = descriptor
        self._owned = owned
        self.file_type = abi.FILETYPE_CHARACTER_DEVICE if _is_terminal(descriptor) else abi.FILETYPE_UNKNOWN

    def native(self) -> tuple[int, int]:
        return (READ, self.descriptor) if _never_waits(self.descriptor) else (0, 0)

    def read(self, buffers: list[memoryview]) -> int:
        waiting.ready(self.descriptor, write=False)
        while True:
            try:
                return os.readv(self.descriptor, buffers)
            except BlockingIOError:
                # Another process may have made a stream that we share non-blocking; guests expect it to wait.
                waiting.ready(self.descriptor, write=False, always=True)

    def poll_target(self, write: bool) -> int | None:
        if write:
            raise WasiError(BADF)
        return self.descriptor

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self.descriptor)

    def __del__(self) -> None:
        self.close()


class HostOutput(_Output):
    """A host descriptor that the embedder chose as standard output or error."""

    __slots__ = ("_owned", "descriptor", "file_type")

    def __init__(self, descriptor: int, owned: bool) -> None:
        self.descriptor = descriptor
        self._owned = owned
        self.file_type = abi.FILETYPE_CHARACTER_DEVICE if _is_terminal(descriptor) else abi.FILETYPE_UNKNOWN

    def native(self) -> tuple[int, int]:
        return (WRITE, self.descriptor) if _never_waits(self.descriptor) else (0, 0)

    def write(self, buffers: list[memoryview]) -> int:
        waiting.ready(self.descriptor, write=True)
        while True:
            try:
                return os.writev(self.descriptor, buffers)
            except BlockingIOError:
                waiting.ready(self.descriptor, write=True, always=True)

    def poll_target(self, write: bool) -> int | None:
        if not write:
            raise WasiError(BADF)
        return self.descriptor

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self.descriptor)

    def __del__(self) -> None:
        self.close()


def _never_waits(descriptor: int) -> bool:
    """Whether it is a file, or /dev/null."""
    import stat

    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3))


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:  # the process was started with this stream closed
        return False


MAX_DESCRIPTORS: Final = 1 << 20


class DescriptorTable:
    """Numbers to descriptors, the lowest free number first.

    Threat: a guest that opens without closing must not use up the descriptors of the host process, which needs some
    for itself. `limit` bounds the table; beyond it the guest gets EMFILE.
    """

    __slots__ = ("_entries", "_free", "_native", "_next", "exceeded", "limit")

    def __init__(self, limit: int = MAX_DESCRIPTORS, native: NativeGuest | None = None) -> None:
        self._native = NativeGuest() if native is None else native
        self.exceeded: Callable[[], BaseException] | None = None  # what to raise instead of EMFILE
        self._entries: dict[int, Descriptor] = {}
        self._free: list[int] = []
        self._next = 0
        self.limit = limit

    def get(self, number: int) -> Descriptor:
        try:
            return self._entries[number]
        except KeyError:
            raise WasiError(BADF) from None

    def _dispose(self, descriptor: Descriptor) -> None:
        """No number stands for it any more."""
        descriptor.close()

    def get_directory(self, number: int) -> Descriptor:
        """The directory to open something beneath. ENOTDIR for open files, EBADF for anything else."""
        descriptor = self.get(number)
        if descriptor.file_type != abi.FILETYPE_DIRECTORY:
            raise WasiError(BADF if isinstance(descriptor, _Stream) else NOTDIR)
        return descriptor

    def reserve(self) -> None:
        """Raises MFILE when `add` would; to be asked before a file is made or truncated for nothing."""
        if len(self._entries) >= self.limit:
            raise WasiError(MFILE) if self.exceeded is None else self.exceeded()

    def add(self, descriptor: Descriptor) -> int:
        self.reserve()
        number = self._take_number()
        self[number] = descriptor
        return number

    def _take_number(self) -> int:
        """The lowest that is free."""
        free = self._free
        if not free:
            self._next += 1
            return self._next - 1
        if len(free) == 1:
            return free.pop()
        from heapq import heappop

        return heappop(free)

    def _give_back(self, number: int) -> None:
        # One element is a heap: most programs have no more, and are spared the module.
        if not self._free:
            self._free.append(number)
            return
        from heapq import heappush

        heappush(self._free, number)

    def __setitem__(self, number: int, descriptor: Descriptor) -> None:
        self._entries[number] = descriptor
        self._native.set_descriptor(number, descriptor)

    def __delitem__(self, number: int) -> None:
        self._native.set_descriptor(number, None)
        del self._entries[number]

    def close(self, number: int) -> None:
        descriptor = DescriptorTable.get(self, number)  # not for use, of which a derived table keeps account
        del self[number]
        self._give_back(number)
        self._dispose(descriptor)

    def renumber(self, number: int, target: int) -> None:
        """fd_renumber: both numbers are open; what `target` held is closed."""
        moved = DescriptorTable.get(self, number)
        replaced = DescriptorTable.get(self, target)
        if number == target:
            return
        self[target] = moved
        del self[number]
        self._give_back(number)
        self._dispose(replaced)

    def close_all(self) -> None:
        while self._entries:
            number, descriptor = next(iter(self._entries.items()))
            del self[number]
            descriptor.close()
