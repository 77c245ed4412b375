"""The module `wasi_unstable`, the preview before `wasi_snapshot_preview1`, as far as Wasmtime has it: the same
functions except `sock_accept`, of which four have another layout or another numbering. `preview1.add_to_linker` defines
both.
"""

from __future__ import annotations

import _struct as struct

from wasmforge.wasi import abi, fd_functions, poll_function
from wasmforge.wasi.descriptors import FileStatus
from wasmforge.wasi.preview1 import FUNCTIONS as PREVIEW1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.guest_memory import GuestMemory

__all__ = ["FUNCTIONS", "MODULE_NAME"]

MODULE_NAME: Final = "wasi_unstable"

# device, inode, type, links (32 bits here), size, atim, mtim, ctim
_FILESTAT: Final = struct.Struct("<QQBxxxIQQQQ")
_WHENCE: Final = (abi.WHENCE_CUR, abi.WHENCE_END, abi.WHENCE_SET)
_SUBSCRIPTION_SIZE: Final = 56
# User data and type as later; a clock has an identifier, which nothing uses, before its number.
_IDENTIFIER_SIZE: Final = 8


def _encode(status: FileStatus) -> bytes:
    mask = (1 << 64) - 1
    return _FILESTAT.pack(
        status.device,
        status.inode,
        status.type,
        min(status.links, 0xFFFF_FFFF),
        status.size,
        status.access_time & mask,
        status.modification_time & mask,
        status.change_time & mask,
    )


def fd_seek(context: WasiContext, memory: GuestMemory, fd: int, offset: int, whence: int, result: int) -> None:
    fd_functions.fd_seek(context, memory, fd, offset, _WHENCE[whence], result)


def fd_filestat_get(context: WasiContext, memory: GuestMemory, fd: int, result: int) -> None:
    memory.write_record(result, _encode(context.descriptors.get(fd).status()), 8)


def path_filestat_get(
    context: WasiContext, memory: GuestMemory, fd: int, lookup: int, path: int, length: int, result: int
) -> None:
    directory = context.descriptors.get(fd)
    status = directory.status_at(memory.path(path, length), bool(lookup & abi.LOOKUP_SYMLINK_FOLLOW))
    memory.write_record(result, _encode(status), 8)


def poll_oneoff(
    context: WasiContext, memory: GuestMemory, subscriptions: int, events: int, count: int, result: int
) -> None:
    poll_function.poll(context, memory, subscriptions, events, count, result, _SUBSCRIPTION_SIZE, _as_preview1)


def _as_preview1(record: bytes) -> bytes:
    """A subscription in the layout of preview 1."""
    union = abi.SUBSCRIPTION_UNION
    if record[8] == abi.EVENTTYPE_CLOCK:
        return record[:union] + record[union + _IDENTIFIER_SIZE :]
    return record[: abi.SUBSCRIPTION_SIZE]


_OTHERS: Final = {f.__name__: f for f in (fd_seek, fd_filestat_get, path_filestat_get, poll_oneoff)}

FUNCTIONS: Final = tuple(
    row.replaced(_OTHERS[row.name]) if row.name in _OTHERS else row for row in PREVIEW1 if row.name != "sock_accept"
)
