"""WASI preview 1: what is done with a path, beneath an open directory. Rows of the table in `preview1.py`; each takes
the context, the caller's memory, and the guest's arguments as unsigned numbers. That no path leaves its directory
is the business of the directory (`host_files.py`, `beneath.py`).
"""

from __future__ import annotations

from wasmforge.wasi import abi
from wasmforge.wasi.fd_functions import times_to_set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.guest_memory import GuestMemory


def path_open(
    context: WasiContext,
    memory: GuestMemory,
    fd: int,
    lookup: int,
    path: int,
    length: int,
    oflags: int,
    rights: int,
    inheriting: int,
    fdflags: int,
    result: int,
) -> None:
    memory.check(result, 4, 4)  # before anything is created
    table = context.descriptors
    directory = table.get_directory(fd)
    name = memory.path(path, length)
    table.reserve()
    opened = directory.open_at(name, bool(lookup & abi.LOOKUP_SYMLINK_FOLLOW), oflags, rights, fdflags)
    memory.write_u32(result, table.add(opened))


def path_create_directory(context: WasiContext, memory: GuestMemory, fd: int, path: int, length: int) -> None:
    context.descriptors.get(fd).create_directory_at(memory.path(path, length))


def path_remove_directory(context: WasiContext, memory: GuestMemory, fd: int, path: int, length: int) -> None:
    context.descriptors.get(fd).remove_directory_at(memory.path(path, length))


def path_unlink_file(context: WasiContext, memory: GuestMemory, fd: int, path: int, length: int) -> None:
    context.descriptors.get(fd).unlink_file_at(memory.path(path, length))


def path_rename(
    context: WasiContext,
    memory: GuestMemory,
    fd: int,
    path: int,
    length: int,
    new_fd: int,
    new_path: int,
    new_length: int,
) -> None:
    directory = context.descriptors.get(fd)
    target = context.descriptors.get(new_fd)
    directory.rename_at(memory.path(path, length), target, memory.path(new_path, new_length))


def path_link(
    context: WasiContext,
    memory: GuestMemory,
    fd: int,
    lookup: int,
    path: int,
    length: int,
    new_fd: int,
    new_path: int,
    new_length: int,
) -> None:
    directory = context.descriptors.get(fd)
    target = context.descriptors.get(new_fd)
    follow = bool(lookup & abi.LOOKUP_SYMLINK_FOLLOW)
    directory.link_at(memory.path(path, length), follow, target, memory.path(new_path, new_length))


def path_symlink(
    context: WasiContext, memory: GuestMemory, contents: int, length: int, fd: int, path: int, path_length: int
) -> None:
    directory = context.descriptors.get(fd)
    directory.symlink_at(memory.path(contents, length), memory.path(path, path_length))


def path_readlink(
    context: WasiContext,
    memory: GuestMemory,
    fd: int,
    path: int,
    length: int,
    buffer: int,
    buffer_length: int,
    result: int,
) -> None:
    directory = context.descriptors.get(fd)
    memory.check(buffer, buffer_length)
    contents = directory.readlink_at(memory.path(path, length))[:buffer_length]
    memory.write(buffer, contents)
    memory.write_u32(result, len(contents))


def path_filestat_get(
    context: WasiContext, memory: GuestMemory, fd: int, lookup: int, path: int, length: int, result: int
) -> None:
    directory = context.descriptors.get(fd)
    status = directory.status_at(memory.path(path, length), bool(lookup & abi.LOOKUP_SYMLINK_FOLLOW))
    memory.write_record(result, status.encode(), 8)


def path_filestat_set_times(
    context: WasiContext,
    memory: GuestMemory,
    fd: int,
    lookup: int,
    path: int,
    length: int,
    access: int,
    modification: int,
    flags: int,
) -> None:
    times = times_to_set(access, modification, flags)
    directory = context.descriptors.get(fd)
    directory.set_times_at(memory.path(path, length), bool(lookup & abi.LOOKUP_SYMLINK_FOLLOW), times)
