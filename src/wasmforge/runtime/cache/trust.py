"""Whether a directory and the files in it can only have been written by us. The compilation cache opens everything
through here, and keeps working on the descriptors that were checked, never again on the names.

THREAT: another user of the computer puts machine code where we look for our own. So a file counts only if it is a
regular file of ours that nobody else may write, opened without following a symbolic link; the directory likewise; and
nobody else may be able to exchange the directories and links on the way to it, as in OpenSSH's StrictModes. A process
with our rights, or root, could do worse than this already.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["UntrustedError", "open_directory", "open_file"]

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40
"""Symbolic links on the way to a directory, the limit of Linux itself."""


class UntrustedError(Exception):
    """Somebody else may have written there; the text says where and why."""


def open_directory(path: str, *, create: bool = False) -> int:
    """A descriptor of a directory.

    Args:
        path: its absolute path.
        create: whether to make what is missing of the path, for us alone.

    Raises:
        UntrustedError: it, or a directory on the way, can be written by others.
        OSError: it cannot be opened or made.
    """
    _check_way(path, create)
    try:
        fd = os.open(path, _OPEN | os.O_DIRECTORY)
    except NotADirectoryError:
        raise UntrustedError(f"{path} is not a directory, or a symbolic link") from None
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        os.close(fd)
        raise UntrustedError(_describe(path, status))
    return fd


def open_file(directory: int, name: str) -> int:
    """A descriptor for reading a file of a directory that `open_directory` opened.

    Raises:
        UntrustedError: it is a link or no file, belongs to somebody else, or can be written by others.
        OSError: it cannot be opened.
    """
    try:
        # Not blocking: a pipe in place of the file must not make us wait for a writer.
        fd = os.open(name, _OPEN | os.O_NONBLOCK, dir_fd=directory)
    except OSError as error:
        if os.path.islink(f"/proc/self/fd/{directory}/{name}"):
            raise UntrustedError(f"{name} is a symbolic link") from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        os.close(fd)
        raise UntrustedError(_describe(name, status))
    return fd


def _check_way(path: str, create: bool) -> None:
    """Checks every directory above `path`, and every symbolic link among them; follows the links as the system does."""
    names = os.path.dirname(os.path.normpath(path)).split("/")[:0:-1]
    at = "/"
    links = 0
    _check_step(at, os.lstat(at))
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)  # correct: `at` holds no links, they are resolved one by one
            continue
        step = os.path.join(at, name)
        status = _lstat(step, create)
        _check_step(step, status)
        if not stat.S_ISLNK(status.st_mode):
            at = step
            continue
        links += 1
        if links > _LINKS:
            raise UntrustedError(f"too many symbolic links on the way to {path}")
        target = os.readlink(step)
        names += target.split("/")[::-1]
        if target.startswith("/"):
            at = "/"
    if create:
        _lstat(path, create)


def _lstat(path: str, create: bool) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        if not create:
            raise
    from contextlib import suppress

    with suppress(FileExistsError):  # another process made it just now
        os.mkdir(path, 0o700)
    return os.lstat(path)


def _check_step(path: str, status: os.stat_result) -> None:
    """Whether others could put something else in the place of what the directory (or link) at `path` holds."""
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(_describe(path, status))
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS_WRITE or status.st_mode & stat.S_ISVTX:
        # With the sticky bit (/tmp) others can add names, but neither remove nor rename ours.
        return
    if status.st_mode & stat.S_IWOTH or not _is_private_group(status.st_gid):
        raise UntrustedError(_describe(path, status))


def _is_private_group(gid: int) -> bool:
    """Whether a group is that of one user, us. Where each user has one, the usual umask lets the group write."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _describe(path: str, status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()) or not status.st_mode & _OTHERS_WRITE:
        return (
            f"{path} is not ours alone: it belongs to user {status.st_uid}, is of type {stat.filemode(status.st_mode)}"
        )
    return f"{path} is not ours alone: others may write to it ({stat.filemode(status.st_mode)})"
