"""The compilation cache: images of modules on disk, found by what they were compiled from. `Module` asks it before
it decodes anything, and gives it what the compiler made; a hit is one hash, one checksum and one mapping of a file.

Here is what a hit needs; `storing` has the rest (writing, removing), `settings` the limits and Wasmtime's
configuration files, `trust` the checks of directories and files, `known` what spares files the hash and the checksum.

THREAT: what lies here is machine code that runs with our rights. Whoever can write to the directory, or make us look
into another, runs code as us; so `trust` refuses both, and the key is a cryptographic hash, so that nobody can make a
harmless module and a harmful one with the same entry. The checksum is against damage only.

Everything else may go wrong without harm: no home, no room, no permission or a damaged entry mean a compilation.
"""

from __future__ import annotations

import os
import time
from _imp import source_hash
from _struct import Struct

from wasmforge.compiler.compatibility import COMPILER_VERSION, FORMAT_VERSION
from wasmforge.compiler.fingerprint import fingerprint
from wasmforge.compiler.image import checksum
from wasmforge.compiler.target import TRIPLE, host_level
from wasmforge.runtime.cache.trust import UntrustedError, open_directory, open_file
from wasmforge.runtime.code_memory import CodeMemory, FileSource
from wasmforge.runtime.compiled_module import CompiledModule
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from wasmforge.compiler.environ import Tunables
    from wasmforge.compiler.info import CompiledModuleInfo
    from wasmforge.runtime.cache.known import KnownFile
    from wasmforge.runtime.cache.settings import CacheSettings
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.grown_image import FileRange, Growth
    from wasmforge.runtime.lazy_code import LazyCode
    from wasmforge.runtime.lazy_module import LazyModule

    Restore = Callable[[EngineState, CompiledModuleInfo, LazyCode, Growth], LazyModule]

__all__ = ["ImageCache", "check_trailer", "find", "identity_of", "report"]

SUFFIX: Final = ".cwasm"
"""Of entries; before it stands the key in hexadecimal."""

KNOWN_SUFFIX: Final = ".known"
"""Of records of files (`known`), whose name is the key of a file in hexadecimal."""

TRAILER: Final = Struct("<8sQ32sI")
"""Behind the image, outside of what is mapped: magic, bytes of the image, key, CRC-32 of these. By the key an entry
under another's name is recognised."""

TRAILER_MAGIC: Final = b"wfcache1"

GROWN_MAGIC: Final = b"wfgrown1"
"""Of modules that are compiled while they run. Behind the image, whose length the trailer says, are their originals
(`grown_image`)."""

_TOUCH_AFTER: Final = 3600.0
"""Seconds. A hit renews the modification time of its entry, by which the oldest is found, at most this often: writing
to the directory of files on every start would cost more than finding the entry."""

_COPY_BELOW: Final = 64 << 10
"""Bytes. Smaller images are read: that takes no longer than mapping them, and a program with thousands of small modules
does not need a file descriptor for each."""

_OPENSSL_FROM: Final = 3 << 20
"""Bytes. OpenSSL's SHA-256 uses the processor's instructions, 0.6 ms a MB, but takes 2 ms to load; the interpreter's
own BLAKE2b takes 1.6 ms a MB and 0.5 to load. The length alone decides which one it is, so equal modules agree."""


class ImageCache:
    """The cache of an engine. Any number of threads and processes may use the same directory, without locks: entries
    are only ever replaced and removed whole.

    `compiler` names the strategy, which decides what the machine code of a module is. `restore` makes modules of what
    images have that other processes have left of modules that are compiled while they run.
    """

    __slots__ = ("_compiler", "_identity", "_tunables", "restore", "settings")

    def __init__(
        self, settings: CacheSettings, tunables: Tunables, compiler: str, restore: Restore | None = None
    ) -> None:
        self.settings = settings
        self.restore = restore
        self._tunables = tunables
        self._compiler = compiler
        self._identity: bytes | None = None

    def key(self, source: bytes | str, kind: str) -> bytes | None:
        """32 bytes for the contents of a module and everything else that decides about its image. `kind` says what the
        contents are taken for, binary or text. None for a text that is no Unicode."""
        try:
            content = source if isinstance(source, bytes) else source.encode()
        except UnicodeEncodeError:
            return None
        identity = self._known_identity()
        if identity is None:
            return None
        return _hash(_hash(identity) + f"{kind} {type(source).__name__} ".encode() + _hash(content))

    def _known_identity(self) -> bytes | None:
        """What decides about all images of this engine."""
        if self._identity is None:
            try:
                self._identity = self._make_identity()
            except OSError as error:
                report(f"the sources of the compiler cannot be examined ({error})")
        return self._identity

    def _make_identity(self) -> bytes:
        machine = (TRIPLE, host_level())
        settings = sorted(self._tunables.as_dict().items())
        made_by = (FORMAT_VERSION, COMPILER_VERSION, self._compiler, machine, settings)
        return repr(made_by).encode() + fingerprint()

    def name_of_file(self, device: int, inode: int) -> str | None:
        """What the record of a file is called, without suffix; the compiler and the settings are part of it."""
        identity = self._known_identity()
        if identity is None:
            return None
        # SipHash, whose module is there: a start that finds its record loads no other. The key in a record is a
        # cryptographic hash; its name has to differ by chance only, since the record says which file it is about, and
        # no image is used with settings that are not its own.
        data = identity + f"file {device} {inode}".encode()
        return b"".join(source_hash(k, data) for k in range(4)).hex()

    def image_identity(self, directory: int, key: bytes) -> tuple[int, int, int, int, int] | None:
        """The identity of an entry; None when there is none."""
        try:
            status = os.stat(key.hex() + SUFFIX, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return identity_of(status)

    def load(self, engine: EngineState, key: bytes, file: KnownFile | None = None) -> CompiledModule | None:
        """The module of a key, mapped from its entry; None when there is none that can be used. `file` is where its
        binary comes from."""
        try:
            directory = open_directory(self.settings.directory)
        except (UntrustedError, OSError) as error:
            report(error)
            return None
        try:
            return find(self, engine, directory, key, file=file)
        finally:
            os.close(directory)

    def store(self, key: bytes, image: bytes) -> bool:
        """Keeps an image, in place of the present one if there is one. Returns whether that was possible."""
        return self._store(key, TRAILER_MAGIC, (image,), len(image))

    def store_grown(
        self, key: bytes, parts: Sequence[bytes | bytearray | FileRange], image_length: int
    ) -> tuple[int, int, int, int, int] | None:
        """Keeps an image and what is behind it, of a module that is compiled while it runs; see `grown_image`. Returns
        the identity of the entry, None if that was not possible."""
        if not self._store(key, GROWN_MAGIC, parts, image_length):
            return None
        directory = open_directory(self.settings.directory)
        try:
            return self.image_identity(directory, key)
        finally:
            os.close(directory)

    def grown_functions(self, key: bytes, known: tuple[int, int, int, int, int] | None) -> int | None:
        """How many functions the entry of a key has; None when there is none, or it is the one that is `known`. Raises
        UntrustedError or OSError when the directory cannot be used."""
        try:
            directory = open_directory(self.settings.directory)
        except FileNotFoundError:
            return None
        try:
            if self.image_identity(directory, key) in (None, known):
                return None
            from wasmforge.runtime.cache.grown import count_functions

            found = count_functions(directory, key.hex() + SUFFIX)
            return None if found is None else found[0] + found[1]
        finally:
            os.close(directory)

    def _store(
        self, key: bytes, magic: bytes, parts: Sequence[bytes | bytearray | FileRange], image_length: int
    ) -> bool:
        from wasmforge.compiler.fingerprint import compiled_by_these_sources
        from wasmforge.runtime.cache.storing import write

        try:
            # The second question: were the sources that the key is about exchanged since?
            if not compiled_by_these_sources() or self._make_identity() != self._identity:
                report("the compiler's sources were changed while it ran")
                return False
            trailer = TRAILER.pack(magic, image_length, key, 0)[:-4]
            write(self.settings, key.hex() + SUFFIX, (*parts, trailer, checksum(trailer).to_bytes(4, "little")))
        except (UntrustedError, OSError) as error:
            report(error)
            return False
        return True


def find(
    cache: ImageCache,
    engine: EngineState,
    directory: int,
    key: bytes,
    undamaged: tuple[int, int, int, int, int] | None = None,
    file: KnownFile | None = None,
) -> CompiledModule | None:
    """The module of a key in an open directory, None when there is none that can be used. `undamaged` is the identity
    of an entry whose checksum is known to be right, `file` is where the module's binary is."""
    name = key.hex() + SUFFIX
    try:
        source = FileSource.adopt(open_file(directory, name))
    except FileNotFoundError:
        return None
    except (UntrustedError, OSError) as error:
        report(error)
        _discard(directory, name)
        return None
    try:
        length, grown = check_trailer(source.fd, key)
        identity = identity_of(os.fstat(source.fd))
        module: CompiledModule
        if grown:
            from wasmforge.runtime.cache.grown import load

            module = load(cache, engine, key, source, length, identity, undamaged == identity, file)
        else:
            module = CompiledModule(engine, _map(engine, source, length, undamaged == identity))
    except WasmtimeError as error:
        report(error)
        _discard(directory, name)
        return None
    except OSError as error:  # no memory for the mapping: nothing is wrong with the entry
        report(error)
        return None
    _touch(source.fd)
    return module


def identity_of(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Device, inode, size, times of modification and of change (ns): the same for a file that did not change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _map(engine: EngineState, source: FileSource, length: int, undamaged: bool) -> CodeMemory:
    if length > _COPY_BELOW:
        return CodeMemory.from_source(source, length, engine.custom_code_memory, undamaged=undamaged)
    return CodeMemory.from_bytes(os.pread(source.fd, length, 0), engine.custom_code_memory)


def check_trailer(fd: int, key: bytes) -> tuple[int, bool]:
    """The length of the image in an entry, and whether it is one that has grown, with more behind it. Raises
    WasmtimeError when the entry is damaged or another's."""
    size = os.fstat(fd).st_size
    trailer = os.pread(fd, TRAILER.size, max(size - TRAILER.size, 0))
    if len(trailer) != TRAILER.size or checksum(trailer[:-4]) != int.from_bytes(trailer[-4:], "little"):
        raise WasmtimeError("damaged cache entry: its end is missing")
    magic, length, found, _ = TRAILER.unpack(trailer)
    grown = magic == GROWN_MAGIC
    behind = size - TRAILER.size - length
    if not (grown or magic == TRAILER_MAGIC) or length == 0 or behind < 0 or (behind and not grown):
        raise WasmtimeError("damaged cache entry: it does not have the length that it had")
    if found != key:
        raise WasmtimeError("damaged cache entry: it is that of another module")
    return int(length), grown


def _discard(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError as error:  # a read-only file system, or a directory of that name
        report(error)


def _touch(fd: int) -> None:
    if time.time() - os.fstat(fd).st_mtime > _TOUCH_AFTER:
        try:
            os.utime(fd)
        except OSError as error:
            report(error)


def _hash(data: bytes) -> bytes:
    if len(data) < _OPENSSL_FROM:
        from _blake2 import blake2b

        return blake2b(data, digest_size=32).digest()
    from hashlib import sha256

    return sha256(data).digest()


def report(problem: object) -> None:
    """Tells the logger `wasmforge.cache` why the cache was not used; nothing is printed unless the program set up
    logging. What a missing directory and the like mean is clear, and is not worth a warning."""
    if isinstance(problem, FileNotFoundError):
        return
    import logging

    logger = logging.getLogger("wasmforge.cache")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.warning("compilation cache: %s", problem)
