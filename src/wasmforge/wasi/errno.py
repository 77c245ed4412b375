"""The errno values of WASI preview 1, the exception that carries one to the function table, and the map from the
host's errno. Every function of the room raises; `preview1.py` turns what was raised into the guest's result.
"""

from __future__ import annotations

import errno as host

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from typing import Final

__all__ = ["NAMES", "WasiError", "from_os_error"]

NAMES: Final[tuple[str, ...]] = (
    # In the order of the witx file: the position is the number that the guest sees.
    *("success", "2big", "acces", "addrinuse", "addrnotavail", "afnosupport", "again", "already", "badf", "badmsg"),
    *("busy", "canceled", "child", "connaborted", "connrefused", "connreset", "deadlk", "destaddrreq", "dom", "dquot"),
    *("exist", "fault", "fbig", "hostunreach", "idrm", "ilseq", "inprogress", "intr", "inval", "io"),
    *("isconn", "isdir", "loop", "mfile", "mlink", "msgsize", "multihop", "nametoolong", "netdown", "netreset"),
    *("netunreach", "nfile", "nobufs", "nodev", "noent", "noexec", "nolck", "nolink", "nomem", "nomsg"),
    *("noprotoopt", "nospc", "nosys", "notconn", "notdir", "notempty", "notrecoverable", "notsock", "notsup", "notty"),
    *("nxio", "overflow", "ownerdead", "perm", "pipe", "proto", "protonosupport", "prototype", "range", "rofs"),
    *("spipe", "srch", "stale", "timedout", "txtbsy", "xdev", "notcapable"),
)

SUCCESS: Final = 0
AGAIN: Final = 6
BADF: Final = 8
BUSY: Final = 10
EXIST: Final = 20
FBIG: Final = 22
ILSEQ: Final = 25
INVAL: Final = 28
IO: Final = 29
ISDIR: Final = 31
LOOP: Final = 32
MFILE: Final = 33
NAMETOOLONG: Final = 37
NOENT: Final = 44
NOMEM: Final = 48
NOSPC: Final = 51
NOTCONN: Final = 53
NOTDIR: Final = 54
NOTEMPTY: Final = 55
NOTSOCK: Final = 57
NOTSUP: Final = 58
OVERFLOW: Final = 61
PERM: Final = 63
PIPE: Final = 64
ROFS: Final = 69
SPIPE: Final = 70
XDEV: Final = 75


class WasiError(Exception):
    """A WASI call failed; `errno` is what the guest gets. It never leaves this room."""

    def __init__(self, errno: int) -> None:
        super().__init__(NAMES[errno])
        self.errno = errno


def _host_table() -> dict[int, int]:
    """Most names agree with POSIX's; so the table is made from the names."""
    table = {}
    for number, name in enumerate(NAMES):
        posix = getattr(host, "E" + name.upper(), None)
        if posix is not None:
            table[posix] = number
    table[host.EOPNOTSUPP] = NOTSUP  # the same number as ENOTSUP on Linux only
    return table


_FROM_HOST: Final = _host_table()


def from_os_error(error: OSError) -> int:
    """The guest's errno for a host error; only the number crosses, never the message, which may name host paths."""
    return _FROM_HOST.get(error.errno or 0, IO)
