"""Finds the image of the gates (in the cache, in the package, or built now by a child process), maps it and fills its
slots. `gates.py` calls it once a process; a process that finds an image never imports LLVM.

THREAT: the cache may lie where others can write (XDG_CACHE_HOME=/tmp, a shared home). Code from there would run with
our rights, so a cached file is used only if it is a regular file owned by us that nobody else may write, opened
without following a symbolic link and checked on the open descriptor. The checksum is against damage, not against
attack.
"""

from __future__ import annotations

import os
import stat
import time
from _imp import source_hash

from wasmforge.compiler import environ
from wasmforge.runtime.native.image import GatesImage, decode, encode
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["PACKAGED_IMAGE", "MappedImage", "load", "locate", "source_key"]

_ROOM: Final = os.path.dirname(os.path.abspath(__file__))
PACKAGED_IMAGE: Final = os.path.join(_ROOM, "gates.bin")

_SOURCES: Final = (
    "async_calls.py",
    "boxing.py",
    "build.py",
    "calls.py",
    "emission.py",
    "entry.py",
    "exits.py",
    "frames.py",
    "host_calls.py",
    "image.py",
    "interrupts.py",
    "link.py",
    "misuse.py",
    "objects.py",
    "raising.py",
    "signals.py",
    "text.py",
    "threads.py",
    "trap_record.py",
    "wasi_calls.py",
)
"""The files that the machine code is made from."""

_YOUNG: Final = 2_000_000_000
"""Nanoseconds. Times of files are coarser than the clock."""


def source_key() -> bytes:
    """32 bytes that change when the gates' sources or the contract change: an image made from others is not used."""
    check = size = 0
    for path in _sources():
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read()
        except OSError:  # an installation without sources: the version of the package has to do
            from wasmforge.version import VERSION

            data = VERSION.encode()
        # SipHash, whose key is what came before.
        check = int.from_bytes(source_hash(check, data), "little") >> 1
        size += len(data)
    return f"{check:016x}{size:016x}".encode()


def _sources() -> tuple[str, ...]:
    return (*[os.path.join(_ROOM, name) for name in _SOURCES], environ.__file__)


def _signature() -> bytes | None:
    """32 bytes that change when a source may have: by inode, size and times, which take a tenth of the time of reading
    them. None when a source is missing, or so young that it may change again without changing its times."""
    facts = []
    now = time.time_ns()
    for path in _sources():
        try:
            status = os.stat(path)
        except OSError:
            return None
        if abs(now - status.st_ctime_ns) < _YOUNG:
            return None
        facts.append((path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    text = repr(facts).encode()
    return b"".join(source_hash(key, text).hex().encode() for key in (1, 2))


class MappedImage:
    """The gates in memory, for the rest of the process's life: frames and thread destructors refer to them."""

    def __init__(self, image: GatesImage, base: int) -> None:
        self._base = base
        self._symbols = image.symbols

    def address(self, symbol: str) -> int:
        """Where a function or variable of the gates lies."""
        return self._base + self._symbols[symbol]

    def symbols(self, prefix: str) -> list[str]:
        """The names that begin with `prefix`."""
        return [name for name in self._symbols if name.startswith(prefix)]


def load() -> MappedImage:
    """Maps the gates. Raises WasmtimeError when there is no image and none can be built."""
    signature = _signature()
    remembered = None if signature is None else _cache_file(signature, "known-gates")
    if remembered is not None and signature is not None:
        mapped = _try_file(remembered, signature, (os.geteuid(),))
        if mapped is not None:
            return mapped
    key = source_key()
    for path, owners, writable in _places(key):
        found = _open_file(path, key, owners, writable)
        if found is not None:
            fd, image, text_offset = found
            try:
                mapped = _map(image, fd, text_offset)
            finally:
                os.close(fd)
            break
    else:
        from wasmforge.runtime.native.first_use import build, store

        data = build()
        cache = _cache_file(key)
        image, _ = decode(data)
        if cache is not None:
            store(cache, data)
        mapped = _map(image, None, 0)
    if remembered is not None and signature is not None:
        from wasmforge.runtime.native.first_use import store

        store(remembered, encode(GatesImage(signature, image.text, image.writable_size, image.imports, image.symbols)))
    return mapped


def locate() -> str | None:
    """The file that `load` would map, or None when it would have to build one."""
    key = source_key()
    for path, owners, writable in _places(key):
        found = _open_file(path, key, owners, writable)
        if found is not None:
            os.close(found[0])
            return path
    return None


def _places(key: bytes) -> list[tuple[str, tuple[int, ...], int]]:
    """Where an image may lie, with who may own it and which permissions to write do no harm."""
    # Whoever owns or may write this file, which we run, is trusted already: an installer whose umask lets the group
    # write makes both so.
    ours = os.stat(__file__)
    places: list[tuple[str, tuple[int, ...], int]] = [(PACKAGED_IMAGE, (ours.st_uid, os.geteuid()), ours.st_mode)]
    cache = _cache_file(key)
    if cache is not None:
        places.append((cache, (os.geteuid(),), 0))
    return places


def _cache_file(key: bytes, kind: str = "gates") -> str | None:
    """Where the cache keeps the image with a key: by contents of the sources, or (`known-gates`) by their state."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # the XDG specification: relative paths are ignored
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            return None
        root = os.path.join(home, ".cache")
    return os.path.join(root, "wasmforge", f"{kind}-{key.decode()}.bin")


def _try_file(path: str, key: bytes, owners: tuple[int, ...], writable: int = 0) -> MappedImage | None:
    """The image in a file, or None when it is missing, untrusted, outdated or damaged."""
    found = _open_file(path, key, owners, writable)
    if found is None:
        return None
    fd, image, text_offset = found
    try:
        return _map(image, fd, text_offset)
    finally:
        os.close(fd)


def _open_file(path: str, key: bytes, owners: tuple[int, ...], writable: int) -> tuple[int, GatesImage, int] | None:
    """The open file of an image, the image, and where its text starts; None when it cannot be used."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(fd)
    trusted = stat.S_ISREG(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o022 & ~writable
    if trusted and status.st_size <= 1 << 20:
        try:
            image, text_offset = decode(os.read(fd, status.st_size))
            if image.key == key:
                return fd, image, text_offset
        except (WasmtimeError, EOFError, TypeError, ValueError, OSError):
            pass
    os.close(fd)
    return None


_PROT_READ_WRITE: Final = 3
_PROT_READ_EXEC: Final = 5
_MAP_PRIVATE: Final = 0x2
_MAP_FIXED: Final = 0x10
_MAP_ANONYMOUS: Final = 0x20


def _map(image: GatesImage, fd: int | None, text_offset: int) -> MappedImage:
    """Maps text from the file, or copies it where that is forbidden (noexec mount), and fills the slots."""
    libc = ctypes.CDLL(None, use_errno=True)
    mmap = libc.mmap
    mmap.restype = ctypes.c_void_p
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    text_size = len(image.text)
    base = mmap(None, text_size + image.writable_size, _PROT_READ_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0)
    if base is None or base == 2**64 - 1:
        raise WasmtimeError(f"cannot map the gates: error {ctypes.get_errno()}")
    mapped = (
        fd is not None and mmap(base, text_size, _PROT_READ_EXEC, _MAP_PRIVATE | _MAP_FIXED, fd, text_offset) == base
    )
    if not mapped:
        ctypes.memmove(base, image.text, text_size)
        if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(text_size), _PROT_READ_EXEC) != 0:
            raise WasmtimeError(
                f"the system does not allow new executable memory (error {ctypes.get_errno()}); wasm cannot run here"
            )
    python = ctypes.pythonapi
    word = ctypes.c_uint64
    for name, offset in image.imports.items():
        try:
            target = ctypes.addressof(ctypes.c_char.in_dll(python, name))
        except ValueError:
            raise WasmtimeError(f"this Python does not export {name}, which the gates call") from None
        word.from_address(base + offset).value = target
    return MappedImage(image, base)
