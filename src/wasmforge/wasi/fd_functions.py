"""WASI preview 1: what is done with an open descriptor. Rows of the table in `preview1.py`; each takes the context,
the caller's memory, and the guest's arguments as unsigned numbers (offsets that may be negative come signed).
"""

from __future__ import annotations

from wasmforge.wasi import abi
from wasmforge.wasi.descriptors import TIME_NOW
from wasmforge.wasi.errno import BADF, INVAL, NAMETOOLONG, NOTCONN, NOTDIR, NOTSOCK, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.descriptors import Times
    from wasmforge.wasi.guest_memory import GuestMemory
    from wasmforge.wasi.sockets import Connection, Socket


def fd_read(context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, result: int) -> None:
    descriptor = context.descriptors.get(fd)
    memory.write_u32(result, descriptor.read(memory.buffers(iovs, count)))


def fd_write(context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, result: int) -> None:
    descriptor = context.descriptors.get(fd)
    memory.write_u32(result, descriptor.write(memory.buffers(iovs, count)))


def fd_pread(
    context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, offset: int, result: int
) -> None:
    descriptor = context.descriptors.get(fd)
    memory.write_u32(result, descriptor.pread(memory.buffers(iovs, count), offset))


def fd_pwrite(
    context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, offset: int, result: int
) -> None:
    descriptor = context.descriptors.get(fd)
    memory.write_u32(result, descriptor.pwrite(memory.buffers(iovs, count), offset))


def fd_seek(context: WasiContext, memory: GuestMemory, fd: int, offset: int, whence: int, result: int) -> None:
    memory.write_u64(result, context.descriptors.get(fd).seek(offset, whence))


def fd_tell(context: WasiContext, memory: GuestMemory, fd: int, result: int) -> None:
    memory.write_u64(result, context.descriptors.get(fd).seek(0, abi.WHENCE_CUR))


def fd_close(context: WasiContext, memory: GuestMemory, fd: int) -> None:
    context.descriptors.close(fd)


def fd_renumber(context: WasiContext, memory: GuestMemory, fd: int, to: int) -> None:
    context.descriptors.renumber(fd, to)


def fd_sync(context: WasiContext, memory: GuestMemory, fd: int) -> None:
    context.descriptors.get(fd).flush(data_only=False)


def fd_datasync(context: WasiContext, memory: GuestMemory, fd: int) -> None:
    context.descriptors.get(fd).flush(data_only=True)


def fd_advise(context: WasiContext, memory: GuestMemory, fd: int, offset: int, length: int, advice: int) -> None:
    context.descriptors.get(fd).advise(offset, length, advice)


def fd_allocate(context: WasiContext, memory: GuestMemory, fd: int, offset: int, length: int) -> None:
    context.descriptors.get(fd).allocate(offset, length)


def fd_fdstat_get(context: WasiContext, memory: GuestMemory, fd: int, result: int) -> None:
    descriptor = context.descriptors.get(fd)
    flags, rights, inheriting = descriptor.fdstat()
    memory.write_record(result, abi.FDSTAT.pack(descriptor.file_type, flags, rights, inheriting), 8)


def fd_fdstat_set_flags(context: WasiContext, memory: GuestMemory, fd: int, flags: int) -> None:
    context.descriptors.get(fd).set_flags(flags)


def fd_fdstat_set_rights(context: WasiContext, memory: GuestMemory, fd: int, rights: int, inheriting: int) -> None:
    context.descriptors.get(fd).set_rights()


def fd_filestat_get(context: WasiContext, memory: GuestMemory, fd: int, result: int) -> None:
    memory.write_record(result, context.descriptors.get(fd).status().encode(), 8)


def fd_filestat_set_size(context: WasiContext, memory: GuestMemory, fd: int, size: int) -> None:
    context.descriptors.get(fd).set_size(size)


def fd_filestat_set_times(
    context: WasiContext, memory: GuestMemory, fd: int, access: int, modification: int, flags: int
) -> None:
    times = times_to_set(access, modification, flags)
    context.descriptors.get(fd).set_times(times)


def times_to_set(access: int, modification: int, flags: int) -> Times:
    """What fstflags mean. Raises INVAL when a time is both given and now."""
    if flags & 3 == 3 or flags & 12 == 12:
        raise WasiError(INVAL)
    return (
        TIME_NOW if flags & abi.FSTFLAGS_ATIM_NOW else access if flags & abi.FSTFLAGS_ATIM else None,
        TIME_NOW if flags & abi.FSTFLAGS_MTIM_NOW else modification if flags & abi.FSTFLAGS_MTIM else None,
    )


def fd_prestat_get(context: WasiContext, memory: GuestMemory, fd: int, result: int) -> None:
    descriptor = context.descriptors.get(fd)
    name = descriptor.preopen_name
    if name is None:
        if descriptor.directories_follow:
            # A preopened socket that directories follow: EBADF would make wasi-libc stop looking, any other errno
            # makes it give up. A kind that it does not know it passes over.
            memory.write_record(result, abi.PRESTAT.pack(abi.PREOPEN_OTHER, 0), 4)
            return
        raise WasiError(BADF)  # what makes wasi-libc stop looking for more
    memory.write_record(result, abi.PRESTAT.pack(abi.PREOPEN_DIRECTORY, len(name)), 4)


def fd_prestat_dir_name(context: WasiContext, memory: GuestMemory, fd: int, path: int, length: int) -> None:
    name = context.descriptors.get(fd).preopen_name
    if name is None:
        raise WasiError(NOTDIR)
    if length < len(name):
        raise WasiError(NAMETOOLONG)
    memory.write(path, name)


def fd_readdir(
    context: WasiContext, memory: GuestMemory, fd: int, buffer: int, length: int, cookie: int, result: int
) -> None:
    memory.check(buffer, length)
    records = []
    used = 0
    for next_cookie, inode, file_type, name in context.descriptors.get(fd).entries(cookie):
        record = abi.DIRENT.pack(next_cookie, inode, len(name), file_type) + name
        records.append(record)
        used += len(record)
        if used >= length:  # the last record may be cut off: that tells the guest that there is more
            break
    memory.write(buffer, b"".join(records)[:length])
    memory.write_u32(result, min(used, length))


# --- Sockets


def _socket(context: WasiContext, fd: int) -> Socket:
    descriptor = context.descriptors.get(fd)
    if descriptor.file_type != abi.FILETYPE_SOCKET_STREAM:
        raise WasiError(NOTSOCK)  # before the module of sockets is imported, and with it that of Python
    from wasmforge.wasi.sockets import Socket

    if not isinstance(descriptor, Socket):
        raise WasiError(NOTSOCK)  # a socket of the host that lies in a directory
    return descriptor


def _connection(context: WasiContext, fd: int) -> Connection:
    from wasmforge.wasi.sockets import Connection

    descriptor = _socket(context, fd)
    if not isinstance(descriptor, Connection):
        raise WasiError(NOTCONN)
    return descriptor


def sock_accept(context: WasiContext, memory: GuestMemory, fd: int, flags: int, result: int) -> None:
    listener = _socket(context, fd)
    from wasmforge.wasi.sockets import Listener

    if not isinstance(listener, Listener):
        raise WasiError(INVAL)
    memory.check(result, 4, 4)  # before a connection is accepted that nobody could use
    context.descriptors.reserve()
    memory.write_u32(result, context.descriptors.add(listener.accept(flags)))


def sock_recv(
    context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, flags: int, size: int, out_flags: int
) -> None:
    _socket(context, fd)
    memory.check(size, 4, 4)
    memory.check(out_flags, 2, 2)
    received = _connection(context, fd).receive(memory.buffers(iovs, count), flags)
    memory.write_u32(size, received)
    memory.write_record(out_flags, bytes(2), 2)  # nothing of a stream is ever truncated


def sock_send(
    context: WasiContext, memory: GuestMemory, fd: int, iovs: int, count: int, flags: int, result: int
) -> None:
    _socket(context, fd)
    memory.check(result, 4, 4)
    memory.write_u32(result, _connection(context, fd).write(memory.buffers(iovs, count)))


def sock_shutdown(context: WasiContext, memory: GuestMemory, fd: int, how: int) -> None:
    _socket(context, fd)
    _connection(context, fd).shutdown(how)
