"""`CodeRegion`: address space for the machine code of one module that is compiled while it runs, and for the words that
this code reaches relative to itself. `lazy_code.LazyCode` owns one and is the only user.

    [ data, readable and writable: slots, counters, one word more | text, R-X ]

A code pointer slot a defined function, then a cell of 8 bytes with a counter each, then the address of the code that
counters call (`compiler.baseline.counters` relies on the order).

Threat: memory that is writable and executable turns any stray write into code. The text is a shared mapping of a memfd
that is executable and never writable, in no mapping of this process; code arrives by pwrite(2). So functions share
pages, other threads run the code beside meanwhile, and nothing is ever unprotected. tests/runtime/test_lazy.py looks
at /proc/self/maps.

Threat: after fork, parent and child would write different functions to the same place of the file that both run from.
So the first write in a child copies the text to a file of its own.
"""

from __future__ import annotations

import errno
import gc
import os

from wasmforge.runtime.code_memory import FileSource
from wasmforge.runtime.libc import PAGE, PROT_EXEC, PROT_READ, map_fixed
from wasmforge.runtime.mapping import Mmap
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["CodeRegion"]

ALIGNMENT: Final = 16
"""Bytes; of every piece of code."""

SHARED_BELOW: Final = 4 << 20
"""Bytes of text. Smaller regions share files, so that a program with thousands of small modules does not need a file
descriptor for each."""

REGIONS_A_FILE: Final = 64
"""The code of a dead module stays until the last region of its file is gone: a few pages each."""

_MFD_NOEXEC_SEAL: Final = 0x8


class _CodeFile(FileSource):
    """A memfd that regions are mapped from; `room` is where the next one begins."""

    __slots__ = ("pid", "regions", "room")

    def __init__(self) -> None:
        super().__init__()
        self.pid = os.getpid()
        self.regions = 0
        self.room = 0

    @classmethod
    def create(cls) -> _CodeFile:
        try:
            try:
                return cls.adopt(os.memfd_create("wasmforge-code", os.MFD_CLOEXEC))
            except PermissionError:
                # With vm.memfd_noexec=2 the kernel insists on this flag, which forbids execve of the file, not mmap.
                return cls.adopt(os.memfd_create("wasmforge-code", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL))
        except OSError as error:
            raise WasmtimeError(f"no file for machine code: {error.strerror}") from error


_open_file: _CodeFile | None = None


def _file_for(length: int) -> tuple[_CodeFile, int]:
    """A file and the offset in it where a region of `length` bytes may lie. The caller holds `lock.LOCK`."""
    global _open_file
    if length > SHARED_BELOW:
        return _CodeFile.create(), 0
    file = _open_file
    if file is None or file.regions >= REGIONS_A_FILE or file.pid != os.getpid():
        file = _open_file = _CodeFile.create()
    offset = file.room
    file.room += length
    file.regions += 1
    return file, offset


class CodeRegion:
    """Room for `length` bytes of text, rounded up to pages, behind slots and counters for `functions` functions.

    `slots` are the code pointer slots as 64-bit words, `slots_address` is where the first lies, `counters_address`
    where the first of as many 8-byte counters lies. `used` bytes of the text are taken. Not for several threads at
    once: the owner holds `lock.LOCK` when it makes one, reserves and writes.

    Raises WasmtimeError when the system gives no address space, no file, or forbids executable memory.
    """

    __slots__ = (
        "_file",
        "_mapping",
        "_offset",
        "_pid",
        "counters",
        "slots",
        "slots_address",
        "stub",
        "text_address",
        "text_length",
        "used",
    )

    def __init__(self, functions: int, length: int) -> None:
        data = _pages(16 * functions + 8)
        self.text_length = _pages(length)
        self._mapping = Mmap.zeroed(data + self.text_length)
        self.slots = memoryview(self._mapping.owner)[: 8 * functions].cast("Q")
        self.slots_address = self._mapping.address
        self.counters = memoryview(self._mapping.owner)[8 * functions : 16 * functions].cast("i")
        self.stub = memoryview(self._mapping.owner)[16 * functions : 16 * functions + 8].cast("Q")
        self.text_address = self._mapping.address + data
        self.used = 0
        self._pid = os.getpid()
        self._file, self._offset = _file_for(self.text_length)
        self._map()

    def _map(self) -> None:
        # Text that is reserved and not written yet must read as zeros: beyond the end of a file, reading is a fault.
        # The file is sparse, this takes no memory; under a limit for the size of files it stays as it is.
        try:
            if os.fstat(self._file.fd).st_size < self._offset + self.text_length:
                os.ftruncate(self._file.fd, self._offset + self.text_length)
        except OSError:
            pass
        try:
            map_fixed(
                self.text_address, self.text_length, PROT_READ | PROT_EXEC, self._file.fd, self._offset, shared=True
            )
        except OSError as error:
            raise WasmtimeError(
                f"the system does not let this process make memory executable: {error.strerror}"
            ) from error

    def reserve(self, length: int) -> int:
        """Takes `length` bytes of the text for the caller, who fills them with `write`. Returns the offset, a multiple
        of `ALIGNMENT`. Raises WasmtimeError when the region is full."""
        # A collection at any call may run a finaliser that has a function compiled: nothing is called in between.
        start = self.used
        end = start + length + ALIGNMENT - 1 & -ALIGNMENT
        if end > self.text_length:
            raise WasmtimeError(
                f"the module's machine code takes more than the {self.text_length} bytes that were reserved for it"
            )
        self.used = end
        return start

    def adopt(self, text: memoryview, file: FileSource | None, offset: int) -> None:
        """Begins with text that another process has left in an image; what is added comes behind it, on pages of its
        own. It is mapped from `offset` of `file`, or copied where that has to be."""
        length = _pages(len(text))
        if self.used or length > self.text_length:
            raise WasmtimeError("damaged compiled module: its code does not fit into the room reserved for it")
        self.used = length
        if file is not None and text:
            try:
                map_fixed(self.text_address, length, PROT_READ | PROT_EXEC, file.fd, offset)
                return
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM):
                    raise WasmtimeError(f"the module's code cannot be mapped: {error.strerror}") from error
                self._map()  # a file system mounted noexec; the attempt has left nothing, or a hole
        _write(self._file.fd, text, self._offset)

    def write(self, start: int, code: bytes) -> None:
        """Fills reserved bytes. They can be executed as soon as this returns, by any thread that learns the address
        afterwards. Raises WasmtimeError when the system has no memory left."""
        if self._pid != os.getpid():
            self._leave_parent()
        _write(self._file.fd, code + b"\xcc" * (-len(code) % ALIGNMENT), self._offset + start)

    def _leave_parent(self) -> None:
        """Moves what this child of fork has inherited to a file of its own, at the same addresses."""
        # A finaliser that has a function compiled between the copy and the mapping would write to the old file.
        collecting = gc.isenabled()
        gc.disable()
        try:
            file = _CodeFile.create()
            _write(file.fd, self.text(), 0)
            self._file, self._offset = file, 0
            self._map()
            self._pid = os.getpid()
        finally:
            if collecting:
                gc.enable()

    def text(self) -> memoryview:
        """The part of the text that is in use, read-only."""
        start = self.text_address - self._mapping.address
        return memoryview(self._mapping.owner)[start : start + self.used].toreadonly()


def _write(fd: int, data: bytes | memoryview, at: int) -> None:
    rest = memoryview(data)
    try:
        while rest:
            written = os.pwrite(fd, rest, at)
            rest = rest[written:]
            at += written
    except OSError as error:
        raise WasmtimeError(f"no memory for machine code: {error.strerror}") from error


def _pages(size: int) -> int:
    return size + PAGE - 1 & -PAGE
