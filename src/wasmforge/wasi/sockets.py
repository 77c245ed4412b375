"""Sockets that an embedder passes in (`WasiConfig.preopen_socket`, `--tcplisten`) as descriptors of the guest. A guest
can accept connections, receive and send; it cannot make sockets, and it learns no addresses.

The host's sockets are used without blocking (MSG_DONTWAIT; a listening one is made non-blocking), and a descriptor that
the guest wants to block waits here, where a deadline can end it.
"""

from __future__ import annotations

import socket
from functools import partial

from wasmforge.wasi import abi, waiting
from wasmforge.wasi.descriptors import FileStatus, _Stream
from wasmforge.wasi.errno import AGAIN, BADF, INVAL, NOTCONN, NOTSUP, SPIPE, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeVar

    T = TypeVar("T")

__all__ = ["Connection", "Listener", "preopened"]

_RIGHTS: Final = abi.RIGHTS_FD_READ | abi.RIGHTS_FD_WRITE | abi.RIGHTS_OF_SOCKETS
_SHUTDOWN: Final = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}


def preopened(given: socket.socket) -> Socket:
    """The descriptor of a socket that an embedder gives; a duplicate, so that its own object stays its own. Raises
    ValueError when it is neither listening nor a connected stream."""
    own = given.dup()
    try:
        if own.type != socket.SOCK_STREAM:
            raise ValueError("only stream sockets can be given to a guest")
        if own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            own.setblocking(False)
            return Listener(own)
        return Connection(own)
    except BaseException:
        own.close()
        raise


class Socket(_Stream):
    """What listening and connected sockets have in common. It owns `socket`."""

    __slots__ = ("_directories_follow", "_flags", "socket")

    file_type = abi.FILETYPE_SOCKET_STREAM

    def __init__(self, own: socket.socket, flags: int = 0) -> None:
        self.socket = own
        self._flags = flags
        self._directories_follow = False

    @property
    def directories_follow(self) -> bool:
        return self._directories_follow

    def expect_directories(self) -> None:
        """Preopened directories have the numbers behind this one."""
        self._directories_follow = True

    def _wait_for(self, operation: Callable[[], T], write: bool) -> T:
        """The result of something that does not wait, once there is one."""
        while True:
            try:
                return operation()
            except BlockingIOError:
                if self._flags & abi.FDFLAGS_NONBLOCK:
                    raise WasiError(AGAIN) from None
                waiting.ready(self.socket.fileno(), write, always=True)

    def pread(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(SPIPE)

    def pwrite(self, buffers: list[memoryview], offset: int) -> int:
        raise WasiError(SPIPE)

    def set_flags(self, flags: int) -> None:
        if flags & ~abi.FDFLAGS_NONBLOCK:
            raise WasiError(INVAL)
        self._flags = flags

    def set_rights(self) -> None:
        raise WasiError(NOTSUP)

    def status(self) -> FileStatus:
        return FileStatus(self.file_type)

    def poll_target(self, write: bool) -> int | None:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()


class Listener(Socket):
    """A listening socket."""

    __slots__ = ()

    def fdstat(self) -> tuple[int, int, int]:
        return self._flags, abi.RIGHTS_OF_SOCKETS, _RIGHTS

    def accept(self, flags: int) -> Connection:
        """The next connection, whose descriptor has these flags."""
        if flags & ~abi.FDFLAGS_NONBLOCK:
            raise WasiError(INVAL)
        connection, _ = self._wait_for(self.socket.accept, write=False)
        return Connection(connection, flags)

    def read(self, buffers: list[memoryview]) -> int:
        raise WasiError(NOTCONN)

    def write(self, buffers: list[memoryview]) -> int:
        raise WasiError(NOTCONN)

    def poll_target(self, write: bool) -> int | None:
        if write:
            raise WasiError(BADF)
        return self.socket.fileno()


class Connection(Socket):
    """A connected stream socket."""

    __slots__ = ()

    def fdstat(self) -> tuple[int, int, int]:
        return self._flags, _RIGHTS, _RIGHTS

    def read(self, buffers: list[memoryview]) -> int:
        return self.receive(buffers, 0)

    def write(self, buffers: list[memoryview]) -> int:
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        return self._wait_for(lambda: self.socket.sendmsg(buffers, [], flags), write=True)

    def receive(self, buffers: list[memoryview], flags: int) -> int:
        """Receives into the buffers; the number of bytes, 0 when the other side has ended."""
        host_flags = socket.MSG_DONTWAIT | (socket.MSG_PEEK if flags & abi.RIFLAGS_PEEK else 0)
        total = 0
        while True:
            count = self._wait_for(partial(self._receive_some, buffers, host_flags), write=False)
            total += count
            buffers = _behind(buffers, count)
            whole = flags & abi.RIFLAGS_WAITALL and not flags & abi.RIFLAGS_PEEK and buffers and count
            if not whole or self._flags & abi.FDFLAGS_NONBLOCK:
                return total

    def _receive_some(self, buffers: list[memoryview], host_flags: int) -> int:
        return self.socket.recvmsg_into(buffers, 0, host_flags)[0]

    def shutdown(self, how: int) -> None:
        try:
            self.socket.shutdown(_SHUTDOWN[how])
        except KeyError:
            raise WasiError(INVAL) from None


def _behind(buffers: list[memoryview], count: int) -> list[memoryview]:
    """What is left of the buffers behind the first `count` bytes."""
    rest = []
    for buffer in buffers:
        if count < len(buffer):
            rest.append(buffer[count:])
        count = max(count - len(buffer), 0)
    return rest
