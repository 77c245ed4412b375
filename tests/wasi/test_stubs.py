"""The compiled stubs of WASI functions (`runtime/native/wasi_calls.py`) answer as the Python functions do, whatever the
guest passes, and touch nothing that Python has taken away or replaced. `DirectGuest` is Python alone; `CompiledGuest`
calls the same functions from compiled code.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.guests import (
    BUFFER,
    MEMORY_SIZE,
    PREOPEN,
    RECORDS,
    RESULT,
    DirectGuest,
    Guest,
    reexporting_module,
)
from wasmforge import Clocks, FixedClocks, WasiConfig
from wasmforge.compiler.environ import WasiGuest
from wasmforge.runtime.native.wasi_calls import STUBS
from wasmforge.store import store_data
from wasmforge.wasi.descriptors import CustomOutput
from wasmforge.wasi.host_files import HostDirectory


@cache
def _module() -> wasmforge.Module:
    return wasmforge.Module(wasmforge.Engine(), reexporting_module())


class CompiledGuest(Guest):
    """The functions of the table, called by compiled code of a store; several instances may share the store."""

    def __init__(self, *directories: object, config: WasiConfig | None = None, store: Any = None) -> None:
        module = _module()
        if store is None:
            config = WasiConfig() if config is None else config
            for directory in directories:
                config.preopen_dir(str(directory), "/guest")
            store = wasmforge.Store(module._engine)
            store.set_wasi(config)
        self.store = store
        linker = wasmforge.Linker(module._engine)
        linker.define_wasi()
        self._exports = linker.instantiate(store, module).exports(store)
        self.memory = self._exports["memory"]

    @property
    def context(self) -> Any:
        return store_data(self.store).wasi

    def raw(self, name: str, *values: int) -> int | str:
        try:
            return int(self._exports[name](self.store, *values))
        except wasmforge.WasmtimeError:
            return "trap"

    def put(self, at: int, data: bytes) -> None:
        self.memory.write(self.store, data, at)

    def bytes_at(self, at: int, length: int) -> bytes:
        return bytes(self.memory.read(self.store, at, at + length))

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[CompiledGuest]:
    guest = CompiledGuest(tmp_path)
    yield guest
    guest.close()


def natively(guest: CompiledGuest, fd: int) -> int:
    """The word of the record that the stubs read for a descriptor."""
    return int(guest.context.native._words[WasiGuest.TABLE // 8 + fd])


def test_the_stubs_exist() -> None:
    assert set(_module()._engine._state.gates.wasi_calls) == set(STUBS)


# --- The same answers


EDGE = MEMORY_SIZE
POINTERS = (
    RESULT,
    RESULT + 1,
    RESULT + 4,
    EDGE - 8,
    EDGE - 4,
    EDGE - 3,
    EDGE,
    EDGE + 4,
    0x7FFF_FFF8,
    0xFFFF_FFF8,
    2**32 - 1,
)
IOVECS: tuple[tuple[tuple[int, int], ...], ...] = (
    ((BUFFER, 10),),
    ((BUFFER, 0),),
    ((BUFFER, 3), (BUFFER + 1, 4), (BUFFER, 0), (EDGE - 5, 5)),
    ((EDGE - 4, 4),),
    ((EDGE - 4, 5),),
    ((EDGE, 0),),
    ((EDGE + 1, 0),),
    ((2**32 - 1, 1),),
    ((2**32 - 8, 2**32 - 8),),
    ((BUFFER, 2**32 - 1),),
    ((0, EDGE), (0, EDGE), (0, EDGE)),
    ((BUFFER, 5), (EDGE - 1, 2)),
    tuple((BUFFER + i, 1) for i in range(16)),
    tuple((BUFFER + i, 1) for i in range(17)),
    tuple((BUFFER, 1) for i in range(40)),
)


def calls() -> Iterator[tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """Function, arguments, iovecs at RECORDS."""
    descriptors = (0, 1, 2, PREOPEN, 4, 5, 6, 7, 255, 256, 300, 2**31, 2**32 - 1)
    for clock, pointer in itertools.product((0, 1, 2, 3, 4, 2**32 - 1), POINTERS):
        yield "clock_time_get", (clock, 0, pointer), ()
    for pointer, length in itertools.product(POINTERS, (0, 1, 4, 256, 257, 70000, 2**32 - 1)):
        yield "random_get", (pointer, length), ()
    for fd, iovecs in itertools.product(descriptors, IOVECS):
        for name in ("fd_write", "fd_read"):
            yield name, (fd, RECORDS, len(iovecs), RESULT), iovecs
        for name, offset in itertools.product(("fd_pwrite", "fd_pread"), (0, 3, 10**6, 2**63 - 1, 2**63, 2**64 - 1)):
            yield name, (fd, RECORDS, len(iovecs), offset, RESULT), iovecs
    for pointer in POINTERS:
        yield "fd_write", (5, RECORDS, 1, pointer), IOVECS[0]
        yield "fd_read", (4, pointer, 1, RESULT), IOVECS[0]
        yield "fd_read", (4, pointer, 2**32 - 1, RESULT), IOVECS[0]
        yield "fd_write", (5, RECORDS, 0, pointer), ()
    for fd, offset, whence in itertools.product(
        descriptors, (0, 1, 2**64 - 1, 2**63, 2**63 - 1), (0, 1, 2, 3, 2**32 - 1)
    ):
        yield "fd_seek", (fd, offset, whence, RESULT), ()
    for fd, pointer in itertools.product((1, 4, 5), POINTERS):
        yield "fd_tell", (fd, pointer), ()
        yield "fd_seek", (fd, 0, 1, pointer), ()


def prepare(guest: Any, folder: Path) -> Any:
    """Descriptors 4 to 7: to read, to write, both, to append."""
    folder.mkdir()
    (folder / "f").write_bytes(bytes(range(100)))
    guest.context.preopen(HostDirectory.preopen(folder, b"/", 3, 3))
    for name, rights, fdflags in (("f", 2, 0), ("g", 64, 0), ("h", 66, 0), ("i", 64, 1)):
        guest.open_or_fail(name, oflags=0 if name == "f" else 1, rights=rights, fdflags=fdflags)
    return guest


def test_the_same_answers_as_python(tmp_path: Path) -> None:
    """errno, results, memory and files, over the edges of everything; and in random order, so that no call depends on
    what came before."""
    python: Any = prepare(DirectGuest(), tmp_path / "python")
    compiled: Any = prepare(CompiledGuest(), tmp_path / "compiled")
    for name in ("fd_read", "fd_write"):  # both contexts are known to the stubs from here on
        compiled.call(name, 77, RECORDS, 0, RESULT)
    everything = list(calls())
    random.Random(5).shuffle(everything)
    for name, arguments, iovecs in everything:
        records = b"".join(struct.pack("<II", *iovec) for iovec in iovecs)
        answers = []
        for guest in (python, compiled):
            guest.put(0, bytes(EDGE))
            guest.put(BUFFER, b"0123456789" * 10)
            guest.put(RECORDS, records)
            answer = guest.call(name, *arguments)
            memory = guest.bytes_at(0, EDGE) if name not in ("clock_time_get", "random_get") else b""
            answers.append((answer, memory))
        assert answers[0] == answers[1], (name, arguments, iovecs, answers[0][0], answers[1][0])
    for fd in range(4, 8):
        assert python.call("fd_close", fd) == compiled.call("fd_close", fd) == "success"
    for file in "fghi":
        # (Sparse files of exabytes are not compared by reading them.)
        ours, theirs = (tmp_path / side / file for side in ("compiled", "python"))
        assert ours.stat().st_size == theirs.stat().st_size
        with ours.open("rb") as a, theirs.open("rb") as b:
            assert a.read(1 << 20) == b.read(1 << 20)


def test_random_bytes_stay_in_their_buffer(guest: CompiledGuest) -> None:
    guest.call("random_get", BUFFER, 1)
    for length in (0, 1, 7, 256, 257):
        guest.put(0, bytes(EDGE))
        assert guest.call("random_get", EDGE - length, length) == "success"
        assert guest.bytes_at(0, EDGE - length) == bytes(EDGE - length)
        assert length < 7 or len(set(guest.bytes_at(EDGE - length, length))) > 2


def test_clocks_go_on(guest: CompiledGuest) -> None:
    for clock in (0, 1):
        seen = []
        for _ in range(100):
            assert guest.call("clock_time_get", clock, 0, RESULT) == "success"
            seen.append(guest.u64())
        assert seen == sorted(seen)
    assert guest.call("clock_time_get", 1, 0, RESULT) == "success"
    assert guest.u64() < 10**12, "the monotonic clock does not show how long the host has been up"


# --- What Python has replaced


def test_replaced_clocks_and_random_numbers(guest: CompiledGuest) -> None:
    """Also after the stubs have answered."""
    for _ in range(2):
        assert guest.call("clock_time_get", 0, 0, RESULT) == "success"
        assert guest.call("random_get", BUFFER, 4) == "success"
    guest.context.clocks = FixedClocks(realtime=5, step=0)
    guest.context.random = lambda size: b"x" * size
    assert guest.call("clock_time_get", 0, 0, RESULT) == "success"
    assert guest.u64() == 5
    assert guest.call("random_get", BUFFER, 4) == "success"
    assert guest.bytes_at(BUFFER, 4) == b"xxxx"

    class Late(Clocks):
        def realtime(self) -> int:
            return 7

    for clocks, expected in ((Late(), 7), (Clocks(lambda: 8), 8)):
        guest.context.clocks = clocks
        assert guest.call("clock_time_get", 0, 0, RESULT) == "success"
        assert guest.u64() == expected


def test_replaced_streams(guest: CompiledGuest) -> None:
    assert guest.write(1, b"lost") == 4
    taken: list[bytes] = []
    guest.context.descriptors[1] = CustomOutput(taken.append)
    assert guest.write(1, b"kept") == 4
    assert taken == [b"kept"]


def test_another_context_in_the_store(guest: CompiledGuest) -> None:
    """set_wasi again: nothing of the old context is reachable."""
    fd = guest.open_or_fail("f", oflags=1, rights=66)
    assert guest.write(fd, b"x") == 1
    old = guest.context
    output = bytearray()
    config = WasiConfig()
    config.stdout = output
    guest.store.set_wasi(config)
    del old
    assert guest.write(fd, b"x") == "badf"
    assert guest.write(1, b"y") == 1
    assert output == b"y"


def test_two_instances_have_two_memories(tmp_path: Path) -> None:
    first = CompiledGuest(tmp_path)
    second = CompiledGuest(store=first.store)
    fd = first.open_or_fail("f", oflags=1, rights=66)
    for i, guest in enumerate((first, second, second, first, second)):
        text = f"{i}{'ab'[guest is second]}".encode()
        assert guest.write(fd, text) == 2
        for clock_guest in (first, second):
            clock_guest.put(RESULT, bytes(8))
        assert guest.call("clock_time_get", 0, 0, RESULT) == "success"
        other = second if guest is first else first
        assert (guest.u64() > 0, other.u64()) == (True, 0)
    assert (tmp_path / "f").read_bytes() == b"0a1b2b3a4b"


def test_memory_that_grows(guest: CompiledGuest) -> None:
    """The length is asked at each call."""
    guest.call("clock_time_get", 1, 0, RESULT)
    assert guest.call("clock_time_get", 1, 0, EDGE) == "trap"
    guest.memory.grow(guest.store, 1)
    assert guest.call("clock_time_get", 1, 0, EDGE) == "success"
    assert guest.call("clock_time_get", 1, 0, EDGE + 65536) == "trap"


# --- What is closed is gone


def test_a_closed_descriptor_is_not_the_hosts(guest: CompiledGuest, tmp_path: Path) -> None:
    """THREAT: the host uses the number of a closed descriptor again; a stale entry would let the guest write there."""
    fd = guest.open_or_fail("f", oflags=1, rights=66)
    assert guest.write(fd, b"x") == 1
    number = natively(guest, fd) >> 32
    assert guest.call("fd_close", fd) == "success"
    assert natively(guest, fd) == 0
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
    try:
        assert secret == number, "the host has reused it"
        assert guest.write(fd, b"attack") == "badf"
        assert guest.read(fd) == "badf"
        assert (tmp_path / "secret").read_bytes() == b""
    finally:
        os.close(secret)


def test_renumbering(guest: CompiledGuest, tmp_path: Path) -> None:
    a = guest.open_or_fail("a", oflags=1, rights=66)
    b = guest.open_or_fail("b", oflags=1, rights=66)
    assert guest.write(a, b"a") == guest.write(b, b"b") == 1
    assert guest.call("fd_renumber", a, b) == "success"
    assert guest.write(a, b"x") == "badf"
    assert guest.write(b, b"a") == 1
    assert guest.call("fd_renumber", b, 1) == "success"
    assert guest.write(1, b"a") == 1
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"aaa", b"b")


def test_a_closed_context(guest: CompiledGuest) -> None:
    fd = guest.open_or_fail("f", oflags=1, rights=66)
    assert guest.write(fd, b"x") == guest.write(1, b"x") == 1
    guest.context.close()
    assert guest.write(fd, b"x") == guest.write(1, b"x") == "badf"
    assert not any(guest.context.native._words[WasiGuest.TABLE // 8 :])


def test_permissions(tmp_path: Path) -> None:
    """What may only be read is not written natively either, and the other way round."""
    (tmp_path / "f").write_bytes(b"contents")
    config = WasiConfig()
    config.preopen_dir(str(tmp_path), "/", wasmforge.DirPerms.READ_ONLY, wasmforge.FilePerms.READ_ONLY)
    guest = CompiledGuest(config=config)
    fd = guest.open_or_fail("f", rights=2)
    assert guest.read(fd) == b"contents"
    assert guest.write(fd, b"x") == "badf"
    other = CompiledGuest(tmp_path)
    written = other.open_or_fail("f", rights=64)
    assert other.write(written, b"C") == 1
    assert other.read(written) == "badf"
    assert (tmp_path / "f").read_bytes() == b"Contents"


def test_what_may_wait_is_left_to_python(guest: CompiledGuest, tmp_path: Path) -> None:
    """Pipes, terminals, sockets: there a deadline must be able to end the wait."""
    read, write = os.pipe()
    for number, descriptor in ((0, read), (1, write)):
        from wasmforge.wasi.descriptors import HostInput, HostOutput

        guest.context.descriptors[number] = (HostOutput if number else HostInput)(descriptor, owned=True)
        assert natively(guest, number) == 0
    os.mkfifo(tmp_path / "fifo")
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    fd = guest.open_or_fail("fifo", rights=66)
    assert natively(guest, fd) == 0
    directory = guest.open_or_fail(".", oflags=2)
    assert natively(guest, directory) == 0
    os.close(keep)


def test_many_descriptors(guest: CompiledGuest, tmp_path: Path) -> None:
    """Numbers beyond the table are served all the same."""
    (tmp_path / "f").write_bytes(b"x")
    fds = [guest.open_or_fail("f") for _ in range(300)]
    assert fds[-1] > WasiGuest.DESCRIPTORS
    assert all(guest.read(fd) == b"x" for fd in fds)


def test_the_gil_may_be_given_up(tmp_path: Path) -> None:
    """Calls that run without the GIL use the stubs too, and come back without it."""
    guest = CompiledGuest(tmp_path)
    fd = guest.open_or_fail("f", oflags=1, rights=66)
    guest.put(BUFFER, b"data")
    guest.iovecs(4)
    write = guest._exports["fd_write"].bind(guest.store, release_gil=True)
    clock = guest._exports["clock_time_get"].bind(guest.store, release_gil=True)
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    for _ in range(500):
        assert write(fd, RECORDS, 1, RESULT) == 0
        assert clock(0, 0, RESULT) == 0
        assert write(99, RECORDS, 1, RESULT) == 8  # Python answers this one
    stop.set()
    thread.join()
    assert counted
    assert (tmp_path / "f").read_bytes() == b"data" * 500
