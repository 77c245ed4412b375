"""Sockets that are passed in: sock_accept, sock_recv, sock_send, sock_shutdown, and descriptors that do not block."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wasi.guests import BUFFER, RECORDS, RESULT, RESULT2, DirectGuest
from tests.wasi.test_functions import clock, poll, ready
from wasmforge import MemoryDirectory, WasiConfig, WasmtimeError
from wasmforge.wasi import abi

NONBLOCK = abi.FDFLAGS_NONBLOCK


def guest_with(*sockets: socket.socket, directory: bool = False) -> DirectGuest:
    config = WasiConfig()
    if directory:
        config.preopen_dir(MemoryDirectory({"f": b"x"}), "/")
    for given in sockets:
        config.preopen_socket(given)
    return DirectGuest(context=config._consume())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def pair() -> Iterator[tuple[DirectGuest, socket.socket]]:
    """A guest that holds one end as descriptor 3, and the other end."""
    ours, theirs = socket.socketpair()
    guest = guest_with(theirs)
    theirs.close()
    with ours:
        yield guest, ours
    guest.close()


def receive(guest: DirectGuest, fd: int, *lengths: int, flags: int = 0) -> bytes | str:
    guest.iovecs(*lengths)
    result = guest.call("sock_recv", fd, RECORDS, len(lengths), flags, RESULT, RESULT2)
    return guest.bytes_at(BUFFER, guest.u32()) if result == "success" else result


def send(guest: DirectGuest, fd: int, data: bytes) -> int | str:
    guest.put(BUFFER, data)
    guest.iovecs(len(data))
    result = guest.call("sock_send", fd, RECORDS, 1, 0, RESULT)
    return guest.u32() if result == "success" else result


def test_a_server(listener: socket.socket) -> None:
    """Accepts, receives, answers, closes, as wasi-libc's accept(), recv(), send(), shutdown() do."""
    guest = guest_with(listener)
    with socket.create_connection(listener.getsockname()) as client:
        assert guest.call("sock_accept", 3, 0, RESULT) == "success"
        fd = guest.u32()
        assert fd == 4
        client.sendall(b"hello")
        assert receive(guest, fd, 2, 100) == b"hello"
        assert send(guest, fd, b"HELLO") == 5
        assert client.recv(100) == b"HELLO"
        client.sendall(b"more")
        assert guest.read(fd) == b"more"
        assert guest.write(fd, b"MORE") == 4
        assert client.recv(100) == b"MORE"
        assert guest.call("sock_shutdown", fd, 2) == "success"
        assert client.recv(100) == b""
        client.shutdown(socket.SHUT_WR)
        assert receive(guest, fd, 10) == b""
        assert guest.call("fd_close", fd) == "success"
    guest.close()
    with socket.create_connection(listener.getsockname()):
        pass  # the embedder's own object is still open


def test_flags_of_receiving(pair: tuple[DirectGuest, socket.socket]) -> None:
    guest, other = pair
    other.sendall(b"abc")
    assert receive(guest, 3, 2, flags=abi.RIFLAGS_PEEK) == b"ab"
    assert receive(guest, 3, 3) == b"abc"
    sender = threading.Thread(target=lambda: [other.sendall(b"12"), time.sleep(0.02), other.sendall(b"345678")])
    sender.start()
    assert receive(guest, 3, 3, 4, flags=abi.RIFLAGS_WAITALL) == b"1234567"
    sender.join()
    assert receive(guest, 3, 3, flags=4) == "trap"
    assert guest.call("sock_shutdown", 3, 4) == "trap"
    assert guest.call("sock_shutdown", 3, 0) == "inval"


def test_descriptors_that_do_not_block(pair: tuple[DirectGuest, socket.socket], listener: socket.socket) -> None:
    guest, other = pair
    assert guest.call("fd_fdstat_set_flags", 3, NONBLOCK) == "success"
    assert receive(guest, 3, 10) == "again"
    assert guest.read(3) == "again"
    other.sendall(b"x")
    assert receive(guest, 3, 10) == b"x"
    written = 0
    while (count := send(guest, 3, bytes(50000))) != "again":
        assert isinstance(count, int)
        written += count
    assert written > 0
    server = guest_with(listener)
    assert server.call("fd_fdstat_set_flags", 3, NONBLOCK) == "success"
    assert server.call("sock_accept", 3, 0, RESULT) == "again"
    with socket.create_connection(listener.getsockname()):
        poll(server, ready(1, 3))
        assert server.call("sock_accept", 3, NONBLOCK, RESULT) == "success"
        assert server.read(server.u32()) == "again"
        assert server.call("fd_fdstat_get", 4, RESULT) == "success"
        assert server.unpack(abi.FDSTAT)[:2] == (abi.FILETYPE_SOCKET_STREAM, NONBLOCK)


def test_waiting_for_sockets(pair: tuple[DirectGuest, socket.socket]) -> None:
    guest, other = pair
    assert poll(guest, ready(1, 3), clock(2, 10_000_000)) == [(2, 0, 0)]
    assert poll(guest, ready(1, 3, write=True)) == [(1, 0, 2)]
    other.sendall(b"x")
    assert poll(guest, ready(1, 3), clock(2, 10**12)) == [(1, 0, 1)]
    assert guest.read(3) == b"x"
    other.close()
    assert poll(guest, ready(1, 3)) == [(1, 0, 1)]
    assert guest.read(3) == b""
    assert guest.write(3, b"x") == "pipe"


def test_what_sockets_are_not(pair: tuple[DirectGuest, socket.socket], listener: socket.socket) -> None:
    guest, _ = pair
    assert guest.call("fd_seek", 3, 0, 0, RESULT) == "spipe"
    assert guest.call("fd_filestat_set_size", 3, 0) == "badf"
    assert guest.call("path_open", 3, 0, "x", 0, 2, 2, 0, RESULT) == "badf"
    assert guest.call("sock_accept", 3, 0, RESULT) == "inval"
    assert guest.fstat(3) == dict.fromkeys(("dev", "ino", "nlink", "size", "atim", "mtim", "ctim"), 0) | {"type": 6}
    server = guest_with(listener)
    assert server.read(3) == "notconn"
    assert receive(server, 3, 5) == "notconn"
    assert send(server, 3, b"x") == "notconn"
    assert server.call("sock_accept", 3, 1, RESULT) == "inval"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sock_accept", (3, 0, 2**32 - 4)),
        ("sock_recv", (3, RECORDS, 1, 0, 2**32 - 4, RESULT)),
        ("sock_recv", (3, RECORDS, 1, 0, RESULT, 2**32 - 2)),
        ("sock_recv", (3, 2**32 - 8, 1, 0, RESULT, RESULT2)),
        ("sock_recv", (3, RECORDS, 2**29, 0, RESULT, RESULT2)),
        ("sock_send", (3, 2**32 - 8, 1, 0, RESULT)),
        ("sock_send", (3, RECORDS, 1, 0, 2**32 - 4)),
    ],
)
def test_pointers_outside_memory_trap(
    listener: socket.socket, pair: tuple[DirectGuest, socket.socket], name: str, arguments: tuple[int, ...]
) -> None:
    """And no connection or data is lost for it."""
    with socket.create_connection(listener.getsockname()) as client:
        guest, other = pair
        if name == "sock_accept":
            guest = guest_with(listener)
        other.sendall(b"x")
        guest.put(RECORDS, struct.pack("<II", BUFFER, 5))
        assert guest.call(name, *arguments) == "trap"
        if name == "sock_accept":
            assert guest.call("sock_accept", 3, 0, RESULT) == "success"
        else:
            assert receive(guest, 3, 5) == b"x"
        assert client.fileno() >= 0


def test_the_number_of_connections_is_limited(listener: socket.socket) -> None:
    guest = guest_with(listener)
    guest.context.descriptors.limit = 5
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
    assert guest.call("sock_accept", 3, 0, RESULT) == "success"
    assert guest.call("sock_accept", 3, 0, RESULT) == "mfile"
    assert guest.call("fd_close", guest.u32()) == "success"
    assert guest.call("sock_accept", 3, 0, RESULT) == "success"
    for client in clients:
        client.close()


def test_sockets_come_before_directories(listener: socket.socket) -> None:
    """As in Wasmtime; and wasi-libc, which looks from 3 on until EBADF, finds the directories all the same."""
    guest = guest_with(listener, directory=True)
    assert guest.call("fd_prestat_get", 3, RESULT) == "success"
    assert guest.unpack(abi.PRESTAT)[0] != abi.PREOPEN_DIRECTORY
    assert guest.call("fd_prestat_get", 4, RESULT) == "success"
    assert guest.unpack(abi.PRESTAT) == (abi.PREOPEN_DIRECTORY, 1)
    assert guest.call("fd_prestat_get", 5, RESULT) == "badf"
    assert guest_with(listener).call("fd_prestat_get", 3, RESULT) == "badf"


def test_what_cannot_be_given() -> None:
    config: Any = WasiConfig()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(WasmtimeError, match="stream"):
        config.preopen_socket(datagrams)


def test_a_socket_in_a_directory_is_none(tmp_path: Path) -> None:
    """The name of a listening socket gives a guest nothing."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        guest = DirectGuest(tmp_path)
        assert guest.open("s", rights=66) in ("nxio", "io")
