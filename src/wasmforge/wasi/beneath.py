"""Opening paths that must stay beneath a directory: the wall of the file system sandbox. `host_files.py` sends every
path of a guest through `open_beneath` or `parent_beneath`, and hands the host nothing but the descriptors and the
single names that come out.

Threat: the path is the guest's, and so are the symbolic links that it meets on the way; other processes may exchange
directories and links while we look. Escapes that must fail: `..` above the start, an absolute path, a link to
either, a magic link of /proc, and all of these swapped in between a check and a use. Therefore nothing is ever
checked first and used later by name. The kernel resolves and opens in one step (openat2 with RESOLVE_BENEATH), or,
where it cannot, we hold a descriptor of every directory passed, open each component with O_NOFOLLOW, and
go up by dropping descriptors, never by opening "..".
"""

from __future__ import annotations

import _struct as struct
import errno as host
import os
import stat

from wasmforge.wasi import waiting
from wasmforge.wasi.errno import LOOP, NOENT, NOTDIR, PERM, WasiError

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    import ctypes
    from typing import Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["ParentDirectory", "open_beneath", "split_path", "walk_beneath"]

_SYS_OPENAT2: Final = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
_OPEN_HOW: Final = struct.Struct("=QQQ")  # flags, mode, resolve
_O_PATH: Final = os.O_PATH
_DIRECTORY_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_MAX_LINKS: Final = 40  # symbolic links followed in one resolution, as in Linux
_MAX_RACES: Final = 128  # openat2 says EAGAIN when a rename anywhere raced with a ".."; then it wants to be asked again

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def _openat2(directory: int, path: bytes, flags: int, mode: int) -> int:
    """Raises BlockingIOError when other processes rename directories faster than the kernel can look."""
    # openat2 refuses a mode without O_CREAT.
    how = _OPEN_HOW.pack(
        flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
    )
    for _ in range(_MAX_RACES):
        result: int = waiting.aside(_syscall, _SYS_OPENAT2, directory, path, how, _OPEN_HOW.size)
        if result >= 0:
            return result
        error = ctypes.get_errno()
        if error == host.EXDEV:  # "the path would lead out"; Wasmtime calls it a refusal too
            raise WasiError(PERM)
        if error not in (host.EAGAIN, host.EINTR):
            raise OSError(error, os.strerror(error))
        waiting.check()  # opening a named pipe waits for its other end
    raise OSError(host.EAGAIN, os.strerror(host.EAGAIN))


def _kernel_resolves_beneath() -> bool:
    """Whether openat2 exists (Linux 5.6) and no seccomp filter forbids it (older container runtimes say EPERM)."""
    try:
        os.close(_openat2(-100, b".", _DIRECTORY_FLAGS, 0))  # -100 is AT_FDCWD
    except (OSError, WasiError):
        return False
    return True


_has_openat2: bool | None = None


def open_beneath(directory: int, path: bytes, flags: int, mode: int = 0o666) -> int:
    """Opens `path`, resolved from the directory descriptor `directory`, which it cannot leave.

    Args:
        directory: a host descriptor of a directory.
        path: what the guest said; without NUL bytes.
        flags: those of open(2); O_NOFOLLOW means that the last component must not be a symbolic link.
        mode: permissions of a file that O_CREAT makes, before the umask.

    Returns:
        A new host descriptor, closed on exec.

    Raises:
        WasiError: PERM when the path leads out of the directory.
        OSError: what the host said.
    """
    global _has_openat2
    if _has_openat2 is None:
        _has_openat2 = _kernel_resolves_beneath()
    if _has_openat2:
        try:
            return _openat2(directory, path, flags, mode)
        except BlockingIOError:  # somebody renames directories without end; the walk does not mind
            pass
    return walk_beneath(directory, path, flags, mode)


def walk_beneath(directory: int, path: bytes, flags: int, mode: int = 0o666) -> int:
    """`open_beneath` for kernels without openat2: component by component."""
    if not path:
        raise WasiError(NOENT)
    if path.startswith(b"/"):
        raise WasiError(PERM)
    passed: list[int] = []  # descriptors of the directories between the start and where we are
    pending = _components(path)
    links = 0
    try:
        while pending:
            name = pending.pop()
            here = passed[-1] if passed else directory
            if name == b"..":
                if not passed:
                    raise WasiError(PERM)
                os.close(passed.pop())
                continue
            if name == b".":
                continue
            if not pending:
                last, target = _open_last(here, name, flags, mode)
                if last is not None:
                    return last
            else:
                target = _enter(here, name, passed)
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise WasiError(LOOP)
                if target.startswith(b"/"):
                    raise WasiError(PERM)
                pending.extend(_components(target))
        # The path ended in "." or "..", so it names the directory where we are.
        here = passed[-1] if passed else directory
        return os.open(b".", flags & ~os.O_NOFOLLOW, mode, dir_fd=here)
    finally:
        for descriptor in passed:
            os.close(descriptor)


def _components(path: bytes) -> list[bytes]:
    """The components of `path`, last first. A trailing slash asks for a directory, as "." does."""
    components = [part for part in path.split(b"/") if part]
    if path.endswith(b"/"):
        components.append(b".")
    components.reverse()
    return components


def _enter(here: int, name: bytes, passed: list[int]) -> bytes | None:
    """Steps into directory `name`, or returns the text of the symbolic link that it is."""
    descriptor = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    # From here on the name no longer matters: what the descriptor holds cannot be exchanged.
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink(b"", dir_fd=descriptor)
        if not stat.S_ISDIR(mode):
            raise WasiError(NOTDIR)
        passed.append(descriptor)
        descriptor = -1
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_last(here: int, name: bytes, flags: int, mode: int) -> tuple[int | None, bytes | None]:
    """Opens the last component, or returns the text of the symbolic link that it is."""
    follow = not flags & os.O_NOFOLLOW
    if flags & _O_PATH:
        descriptor = os.open(name, (flags & ~os.O_DIRECTORY) | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
        try:
            found = os.fstat(descriptor).st_mode
            if follow and stat.S_ISLNK(found):
                return None, os.readlink(b"", dir_fd=descriptor)
            if flags & os.O_DIRECTORY and not stat.S_ISDIR(found):
                raise WasiError(NOTDIR)
            result, descriptor = descriptor, -1
            return result, None
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here), None
    except OSError as error:
        # O_NOFOLLOW on a symbolic link says ELOOP, with O_DIRECTORY also ENOTDIR.
        if not follow or error.errno not in (host.ELOOP, host.ENOTDIR):
            raise
        try:
            return None, os.readlink(name, dir_fd=here)
        except OSError:
            raise error from None


def split_path(path: bytes) -> tuple[bytes, bytes, bool]:
    """Splits a path into what leads to its directory, its last component (never empty), and whether a slash follows.

    Raises WasiError: NOENT for an empty path, PERM for an absolute one.
    """
    if not path:
        raise WasiError(NOENT)
    if path.startswith(b"/"):
        raise WasiError(PERM)
    stripped = path.rstrip(b"/")
    head, _, name = stripped.rpartition(b"/")
    return head, name, len(stripped) != len(path)


class ParentDirectory:
    """The directory that holds a path's last component, and that component: what the *at calls of the host take.

    Context manager; `descriptor` is open inside. `name` is one component without slashes, never ".", ".." or empty, so
    that the host call cannot leave the directory with it. Calls that use it must not follow links.
    `slash` tells whether the path ended in a slash.
    """

    __slots__ = ("_directory", "_owned", "_path", "descriptor", "name", "slash")

    def __init__(self, directory: int, path: bytes, dots: int) -> None:
        """`dots`: the errno for a path that ends in "." or "..", which no operation may touch by name."""
        head, self.name, self.slash = split_path(path)
        self._directory = directory
        self._path = head
        self._owned = -1
        if self.name in (b".", b".."):
            # Resolve it all the same: an escape shall say so, and a missing directory too.
            os.close(open_beneath(directory, path, _DIRECTORY_FLAGS))
            raise WasiError(dots)

    def __enter__(self) -> ParentDirectory:
        if self._path:
            self._owned = self.descriptor = open_beneath(self._directory, self._path, _DIRECTORY_FLAGS)
        else:
            self.descriptor = self._directory
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned >= 0:
            os.close(self._owned)
            self._owned = -1
