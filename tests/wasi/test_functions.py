"""What the functions of WASI preview 1 do when nobody attacks (reference, table D2), driven call by call."""

from __future__ import annotations

import gc
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wasi.guests import BUFFER, PREOPEN, RECORDS, RESULT, RESULT2, DirectGuest
from wasmforge.syntax.types import I32
from wasmforge.wasi import abi
from wasmforge.wasi.context import WasiContext
from wasmforge.wasi.descriptors import CustomOutput, HostInput, HostOutput
from wasmforge.wasi.preview1 import FUNCTIONS


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[DirectGuest]:
    guest = DirectGuest(tmp_path)
    yield guest
    guest.close()


# --- Process


def test_arguments_and_environment() -> None:
    guest = DirectGuest(context=WasiContext(["program", "a b", "", "ä€"], [("NAME", "value"), ("EMPTY", "")]))
    for sizes, get, expected in (
        ("args_sizes_get", "args_get", [b"program", b"a b", b"", "ä€".encode()]),
        ("environ_sizes_get", "environ_get", [b"NAME=value", b"EMPTY="]),
    ):
        assert guest.call(sizes, RESULT, RESULT2) == "success"
        assert guest.u32(RESULT) == len(expected)
        size = guest.u32(RESULT2)
        assert size == sum(len(text) + 1 for text in expected)
        assert guest.call(get, RECORDS, BUFFER) == "success"
        pointers = guest.unpack(f"<{len(expected)}I", RECORDS)
        assert pointers[0] == BUFFER
        end = BUFFER + size
        assert [guest.bytes_at(p, end - p).split(b"\0")[0] for p in pointers] == expected


def test_nothing_is_given_unless_said(guest: DirectGuest) -> None:
    """No arguments, no environment, closed input, discarded output (Wasmtime's defaults)."""
    for function in ("args_sizes_get", "environ_sizes_get"):
        assert guest.call(function, RESULT, RESULT2) == "success"
        assert (guest.u32(RESULT), guest.u32(RESULT2)) == (0, 0)
    assert guest.read(0) == b""
    assert guest.write(1, b"gone") == 4
    assert guest.write(2, b"gone") == 4
    assert guest.read(1) == "badf"
    assert guest.write(0, b"x") == "badf"


def test_clocks(guest: DirectGuest) -> None:
    before = time.time_ns()
    assert guest.call("clock_time_get", 0, 1, RESULT) == "success"
    assert before <= guest.u64() <= time.time_ns()
    assert guest.call("clock_time_get", 1, 1, RESULT) == "success"
    first = guest.u64()
    assert guest.call("clock_time_get", 1, 1, RESULT) == "success"
    assert guest.u64() >= first
    assert first < 3600 * 10**9, "counts from the start of the guest, not from that of the host"
    for clock in (0, 1):
        assert guest.call("clock_res_get", clock, RESULT) == "success"
        assert guest.u64() == 1
    for clock in (2, 3):
        assert guest.call("clock_time_get", clock, 1, RESULT) == "badf"
        assert guest.call("clock_res_get", clock, RESULT) == "badf"
    assert guest.call("clock_time_get", 4, 1, RESULT) == "trap"
    assert guest.call("clock_res_get", 0xFFFF_FFFF, RESULT) == "trap"


def test_random_fills_the_buffer_and_nothing_else(guest: DirectGuest) -> None:
    guest.put(BUFFER, bytes(3000))
    assert guest.call("random_get", BUFFER + 1, 2000) == "success"
    data = guest.bytes_at(BUFFER, 3000)
    assert data[0] == 0
    assert data[2001:] == bytes(999)
    assert len(set(data[1:2001])) > 200
    assert guest.call("random_get", BUFFER, 0) == "success"


def test_random_in_chunks(guest: DirectGuest) -> None:
    """A large request is served in pieces, each with its own bytes."""
    asked = []

    def random(length: int) -> bytes:
        asked.append(length)
        return bytes([len(asked)]) * length

    guest.context.random = random
    assert guest.call("random_get", 0, 100_000) == "success"
    assert asked == [65536, 34464]
    assert guest.bytes_at(65535, 2) == b"\x01\x02"


def test_exit(guest: DirectGuest) -> None:
    assert guest.call("proc_exit", 0) == "exit 0"
    assert guest.call("proc_exit", 125) == "exit 125"
    assert guest.call("proc_exit", 126) == "trap"
    assert guest.call("proc_exit", 0xFFFF_FFFF) == "trap"
    assert guest.call("proc_raise", 6) == "notsup"
    assert guest.call("sched_yield") == "success"


# --- Pointers


def test_pointers_outside_memory_trap(guest: DirectGuest) -> None:
    """Every pointer of every function, just past the end, far past it, and wrapping around; nothing is written."""
    size = len(guest.memory)
    pristine = bytes(guest.memory)
    for bad in (size - 4, size, 0x7FFF_FFF8, 0x8000_0000, 0xFFFF_FFF8):
        guest.memory[:] = pristine
        at_end = bad == size - 4  # enough for a u32, not for more
        assert guest.call("args_sizes_get", bad + (8 if at_end else 0), RESULT) == "trap"
        assert guest.call("clock_time_get", 0, 1, bad & ~7 if not at_end else size) == "trap"
        assert guest.call("fd_fdstat_get", 1, bad) == "trap"
        assert guest.call("fd_filestat_get", 1, bad) == "trap"
        assert guest.call("fd_write", 1, bad, 1, RESULT) == "trap"
        assert guest.call("fd_read", 0, bad, 1, RESULT) == "trap"
        assert guest.call("random_get", bad, 8) == "trap"
        assert guest.call("fd_readdir", PREOPEN, bad, 8, 0, RESULT) == "trap"
        assert guest.call("poll_oneoff", bad, BUFFER, 1, RESULT) == "trap"
        assert guest.call("poll_oneoff", BUFFER, bad, 1, RESULT) == "trap"
        assert guest.call("fd_prestat_dir_name", PREOPEN, bad, 100) == "trap"
        assert guest.call("path_create_directory", PREOPEN, bad, 8) == "trap"
        assert guest.call("path_readlink", PREOPEN, RECORDS, 1, bad, 8, RESULT) == "trap"
        assert guest.call("path_open", PREOPEN, 0, RECORDS, 1, 0, 2, 2, 0, bad + (4 if at_end else 0)) == "trap"
        assert bytes(guest.memory) == pristine


def test_lengths_that_wrap_around_trap(guest: DirectGuest) -> None:
    """pointer + length past 2^32, and buffers of iovecs outside memory."""
    assert guest.call("random_get", 16, 0xFFFF_FFF8) == "trap"
    assert guest.call("path_create_directory", PREOPEN, 16, 0xFFFF_FFF8) == "trap"
    assert guest.call("fd_write", 1, 16, 0xFFFF_FFFF, RESULT) == "trap"
    assert guest.call("poll_oneoff", 16, 16, 0xFFFF_FFFF, RESULT) == "trap"
    for start, length in ((16, 0xFFFF_FFFF), (0xFFFF_FFF0, 32), (len(guest.memory), 1), (len(guest.memory) - 1, 2)):
        guest.put(RECORDS, struct.pack("<IIII", BUFFER, 4, start, length))
        assert guest.call("fd_write", 1, RECORDS, 2, RESULT) == "trap"
        guest.put(RECORDS, struct.pack("<II", start, length))
        assert guest.call("fd_write", 1, RECORDS, 1, RESULT) == "trap"
        assert guest.call("fd_read", 0, RECORDS, 1, RESULT) == "trap"


def test_misaligned_pointers_trap(guest: DirectGuest) -> None:
    assert guest.call("args_sizes_get", RESULT + 2, RESULT2) == "trap"
    assert guest.call("clock_time_get", 0, 1, RESULT + 4) == "trap"
    assert guest.call("fd_fdstat_get", 1, RESULT + 4) == "trap"
    assert guest.call("fd_write", 1, RECORDS + 1, 1, RESULT) == "trap"
    assert guest.call("poll_oneoff", RECORDS + 4, BUFFER, 1, RESULT) == "trap"
    assert guest.call("fd_prestat_get", PREOPEN, RESULT + 2) == "trap"


def test_the_last_bytes_of_memory_can_be_used(guest: DirectGuest) -> None:
    size = len(guest.memory)
    assert guest.call("clock_time_get", 0, 1, size - 8) == "success"
    assert guest.call("random_get", size - 1, 1) == "success"
    assert guest.call("random_get", size, 0) == "success"
    guest.put(RECORDS, struct.pack("<II", size - 5, 5))
    assert guest.call("fd_write", 1, RECORDS, 1, RESULT) == "success"


def test_a_failed_open_makes_nothing(guest: DirectGuest, tmp_path: Path) -> None:
    """The result pointer is checked before the file is created."""
    guest.put(RECORDS, b"created")
    assert guest.call("path_open", PREOPEN, 0, RECORDS, 7, 1, 66, 66, 0, len(guest.memory)) == "trap"
    assert os.listdir(tmp_path) == []


# --- Files


def test_vectored_reads_and_writes(guest: DirectGuest, tmp_path: Path) -> None:
    """All buffers take part, empty ones too, without copying through one of ours."""
    fd = guest.open_or_fail("file", oflags=1, rights=66)
    guest.put(BUFFER, b"abcdefghij")
    guest.iovecs(3, 0, 7)
    assert guest.call("fd_write", fd, RECORDS, 3, RESULT) == "success"
    assert guest.u32() == 10
    assert (tmp_path / "file").read_bytes() == b"abcdefghij"
    guest.put(BUFFER, bytes(100))
    guest.iovecs(2, 1, 97)
    assert guest.call("fd_pread", fd, RECORDS, 3, 4, RESULT) == "success"
    assert guest.u32() == 6
    assert guest.bytes_at(BUFFER, 8) == b"efghij\0\0"
    guest.put(BUFFER, b"XY")
    guest.iovecs(1, 1)
    assert guest.call("fd_pwrite", fd, RECORDS, 2, 8, RESULT) == "success"
    assert (tmp_path / "file").read_bytes() == b"abcdefghXY"
    assert guest.call("fd_tell", fd, RESULT) == "success"
    assert guest.u64() == 10, "positioned calls leave the position alone"
    assert guest.call("fd_read", fd, RECORDS, 0, RESULT) == "success"
    assert guest.u32() == 0


def test_many_buffers_give_a_short_count(guest: DirectGuest) -> None:
    """More than IOV_MAX buffers are not an error: the guest sees how far it came."""
    fd = guest.open_or_fail("file", oflags=1, rights=66)
    guest.put(RECORDS, struct.pack("<II", BUFFER, 1) * 2000)
    assert guest.call("fd_write", fd, RECORDS, 2000, RESULT) == "success"
    assert guest.u32() == 1024


def test_append(guest: DirectGuest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    fd = guest.open_or_fail("file", rights=66, fdflags=abi.FDFLAGS_APPEND)
    assert guest.write(fd, b"two") == 3
    assert guest.call("fd_seek", fd, 0, abi.WHENCE_SET, RESULT) == "success"
    assert guest.write(fd, b"three") == 5
    assert (tmp_path / "file").read_bytes() == b"onetwothree"
    assert guest.call("fd_fdstat_set_flags", fd, 0) == "success"
    assert guest.call("fd_seek", fd, 0, abi.WHENCE_SET, RESULT) == "success"
    assert guest.write(fd, b"ONE") == 3
    assert (tmp_path / "file").read_bytes() == b"ONEtwothree"


def test_times(guest: DirectGuest, tmp_path: Path) -> None:
    """Each of the two can be set, be now, or stay; also of links, and without following them."""
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(1_000, 2_000))
    fd = guest.open_or_fail("file")
    assert guest.call("fd_filestat_set_times", fd, 5, 5_000_000_001, abi.FSTFLAGS_MTIM) == "success"
    status = guest.fstat(fd)
    assert isinstance(status, dict)
    assert (status["atim"], status["mtim"]) == (1_000, 5_000_000_001)
    before = time.time_ns() - 10**9
    assert guest.call("path_filestat_set_times", PREOPEN, 1, "file", 7, 7, abi.FSTFLAGS_ATIM_NOW) == "success"
    status = guest.stat("file")
    assert isinstance(status, dict)
    assert status["atim"] >= before
    assert status["mtim"] == 5_000_000_001
    os.symlink("file", tmp_path / "link")
    assert guest.call("path_filestat_set_times", PREOPEN, 0, "link", 3, 4, 5) == "success"
    assert os.lstat(tmp_path / "link").st_mtime_ns == 4
    assert os.stat(tmp_path / "file").st_mtime_ns == 5_000_000_001


def test_identities(guest: DirectGuest, tmp_path: Path) -> None:
    """Two names of a file agree, two files differ, and the host's inode numbers stay the host's."""
    (tmp_path / "a").touch()
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").touch()
    a, b, c = (guest.stat(name) for name in "abc")
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    assert isinstance(c, dict)
    assert a["ino"] == b["ino"] != c["ino"]
    assert a["nlink"] == 2
    assert a["ino"] != (tmp_path / "a").stat().st_ino


def test_prestat(guest: DirectGuest) -> None:
    assert guest.call("fd_prestat_get", PREOPEN, RESULT) == "success"
    assert guest.unpack(abi.PRESTAT) == (0, 6)
    assert guest.call("fd_prestat_dir_name", PREOPEN, BUFFER, 6) == "success"
    assert guest.bytes_at(BUFFER, 6) == b"/guest"
    assert guest.call("fd_prestat_get", PREOPEN + 1, RESULT) == "badf"


# --- Directories


@pytest.mark.parametrize("buffer", [40, 64, 300, 4096])
def test_listing_in_pieces(guest: DirectGuest, tmp_path: Path, buffer: int) -> None:
    """D2-22: every entry once, whatever the buffer holds, "." and ".." first."""
    names = [f"name-{'x' * (i % 12)}-{i}" for i in range(30)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "directory").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    if buffer == 40:  # room for a record and a name of 16 bytes: longer ones never fit, as with any small buffer
        for name in names:
            os.unlink(tmp_path / name)
        names = []
    listed = guest.listdir(buffer=buffer)
    assert isinstance(listed, list)
    assert [name for name, _ in listed[:2]] == [".", ".."]
    kinds = dict(listed)
    assert sorted(kinds) == sorted([".", "..", "directory", "link", "fifo", *names])
    assert len(listed) == len(kinds)
    assert kinds["directory"] == kinds["."] == kinds[".."] == abi.FILETYPE_DIRECTORY
    assert kinds["link"] == abi.FILETYPE_SYMBOLIC_LINK
    assert kinds["fifo"] == abi.FILETYPE_UNKNOWN


def test_listing_while_removing(guest: DirectGuest, tmp_path: Path) -> None:
    """`rm -r` removes what it has read before it reads on; no entry is skipped for that."""
    for i in range(50):
        (tmp_path / f"{i}").touch()
    cookie, seen = 0, []
    while True:
        assert guest.call("fd_readdir", PREOPEN, BUFFER, 100, cookie, RESULT) == "success"
        used = guest.u32()
        data, at = guest.bytes_at(BUFFER, used), 0
        while at + 24 <= used:
            next_cookie, _, length, _ = abi.DIRENT.unpack_from(data, at)
            if at + 24 + length > used:
                break
            name = data[at + 24 : at + 24 + length].decode()
            at, cookie = at + 24 + length, next_cookie
            if name not in (".", ".."):
                seen.append(name)
                assert guest.call("path_unlink_file", PREOPEN, name) == "success"
        if used < 100:
            break
    assert sorted(seen, key=int) == [str(i) for i in range(50)]
    assert os.listdir(tmp_path) == []


def test_rewinding_sees_new_entries(guest: DirectGuest, tmp_path: Path) -> None:
    assert guest.listdir() == [(".", 3), ("..", 3)]
    (tmp_path / "new").touch()
    listed = guest.listdir()
    assert isinstance(listed, list)
    assert ("new", 4) in listed
    assert guest.call("fd_readdir", PREOPEN, BUFFER, 100, 1 << 63, RESULT) == "success"
    assert guest.u32() == 0, "a cookie from nowhere is the end"


def test_a_large_directory_is_not_kept_in_memory(
    guest: DirectGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing works beyond the number of entries that a descriptor remembers, and it remembers none of them."""
    from wasmforge.wasi import files, host_files

    monkeypatch.setattr(files, "MAX_KEPT_ENTRIES", 50)
    for i in range(100):
        (tmp_path / f"{i}").touch()
    directory = guest.context.descriptors.get(PREOPEN)
    listed = guest.listdir(buffer=200)
    assert isinstance(listed, list)
    assert sorted(name for name, _ in listed) == sorted([".", "..", *(str(i) for i in range(100))])
    assert isinstance(directory, host_files.HostDirectory)
    assert directory._listing is None


def test_a_name_that_is_no_utf_8_is_an_error(guest: DirectGuest, tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert guest.listdir() == "ilseq"


# --- Descriptors


def test_numbers_are_the_lowest_free(guest: DirectGuest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [guest.open("file") for _ in range(4)] == [4, 5, 6, 7]
    for fd in (6, 4):
        assert guest.call("fd_close", fd) == "success"
    assert [guest.open("file") for _ in range(3)] == [4, 6, 8]


def test_renumber(guest: DirectGuest, tmp_path: Path) -> None:
    """D2-23: the target is closed and replaced, the old number is free."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    a, b = guest.open_or_fail("a"), guest.open_or_fail("b")
    open_before = len(os.listdir("/proc/self/fd"))
    assert guest.call("fd_renumber", a, b) == "success"
    assert len(os.listdir("/proc/self/fd")) == open_before - 1
    assert guest.read(b) == b"a"
    assert guest.read(a) == "badf"
    assert guest.call("fd_renumber", a, b) == "badf"
    assert guest.call("fd_renumber", b, a) == "badf"
    assert guest.call("fd_renumber", b, b) == "success"
    assert guest.call("fd_renumber", b, 1) == "success", "standard output can be redirected to a file"
    assert guest.read(1) == b""


def test_closing_the_context_closes_everything(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    guest = DirectGuest(tmp_path)
    guest.open_or_fail("file", oflags=1, rights=66)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    guest.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert guest.write(1, b"x") == "badf"


def test_a_dropped_context_leaks_no_descriptor(tmp_path: Path) -> None:
    gc.collect()  # what tests before this one have dropped
    before = len(os.listdir("/proc/self/fd"))
    guest = DirectGuest(tmp_path)
    guest.open_or_fail("file", oflags=1, rights=66)
    del guest
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


# --- Streams


def test_custom_output() -> None:
    written: list[bytes] = []

    def half(data: bytes) -> int:
        written.append(data)
        return len(data) // 2

    guest = DirectGuest(context=WasiContext(streams=(None, CustomOutput(written.append), CustomOutput(half))))
    assert guest.write(1, b"whole") == 5
    assert guest.write(2, b"four") == 2
    assert written == [b"whole", b"four"]


def test_an_exception_of_a_callback_leaves_the_guest() -> None:
    def broken(data: bytes) -> None:
        raise LookupError("from the embedder")

    guest = DirectGuest(context=WasiContext(streams=(None, CustomOutput(broken), None)))
    with pytest.raises(LookupError, match="from the embedder"):
        guest.write(1, b"x")


def test_pipes() -> None:
    read_end, write_end = os.pipe()
    out_read, out_write = os.pipe()
    context = WasiContext(streams=(HostInput(read_end, owned=True), HostOutput(out_write, owned=True), None))
    guest = DirectGuest(context=context)
    os.write(write_end, b"hello")
    assert guest.read(0) == b"hello"
    assert guest.write(1, b"world") == 5
    assert os.read(out_read, 100) == b"world"
    os.close(write_end)
    assert guest.read(0) == b""
    os.close(out_read)
    assert guest.write(1, b"nobody reads") == "pipe", "EPIPE for the guest, no signal for the host"
    guest.close()


def test_a_stream_that_somebody_made_non_blocking_still_waits() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    guest = DirectGuest(context=WasiContext(streams=(HostInput(read_end, owned=True), None, None)))
    threading.Timer(0.05, os.write, (write_end, b"late")).start()
    assert guest.read(0) == b"late"
    os.close(write_end)
    out_read, out_write = os.pipe()
    os.set_blocking(out_write, False)
    guest = DirectGuest(context=WasiContext(streams=(None, HostOutput(out_write, owned=True), None)))
    while select.select([], [out_write], [], 0)[1]:
        os.write(out_write, bytes(4096))
    threading.Timer(0.05, os.read, (out_read, 1 << 20)).start()
    assert guest.write(1, b"after it drained") == 16
    os.close(out_read)


def test_overlapping_buffers_cannot_blow_up(guest: DirectGuest) -> None:
    """1024 times the whole memory: a short count that fits 32 bits, and little memory of the host."""
    size = len(guest.memory)
    taken: list[int] = []
    guest.context.descriptors[2] = CustomOutput(lambda data: taken.append(len(data)))
    guest.put(RECORDS, struct.pack("<II", 0, size) * 1024)
    assert guest.call("fd_write", 1, RECORDS, 1024, RESULT) == "success"
    assert guest.u32() == 1024 * size
    guest.put(RECORDS, struct.pack("<II", 0, size) * 1024)
    assert guest.call("fd_write", 2, RECORDS, 1024, RESULT) == "success"
    assert taken == [guest.u32()] == [1 << 20]


def test_transfers_are_bounded(monkeypatch: pytest.MonkeyPatch, guest: DirectGuest) -> None:
    from wasmforge.wasi import guest_memory

    monkeypatch.setattr(guest_memory, "MAX_TRANSFER", 100)
    guest.iovecs(60, 60, 60)
    assert guest.call("fd_write", 1, RECORDS, 3, RESULT) == "success"
    assert guest.u32() == 100


def test_a_terminal_says_so() -> None:
    """wasi-libc's isatty: a character device that cannot seek or tell."""
    leader, follower = os.openpty()
    streams = (HostInput(follower, owned=False), HostOutput(follower, owned=False), None)
    guest = DirectGuest(context=WasiContext(streams=streams))
    for fd in (0, 1):
        assert guest.call("fd_fdstat_get", fd, RESULT) == "success"
        file_type, _, rights, _ = guest.unpack(abi.FDSTAT)
        assert file_type == abi.FILETYPE_CHARACTER_DEVICE
        assert not rights & 0b100100, "no right to seek or tell"
    assert guest.call("fd_fdstat_get", 2, RESULT) == "success"
    assert guest.unpack(abi.FDSTAT)[0] == abi.FILETYPE_UNKNOWN
    os.close(leader)
    os.close(follower)


# --- poll_oneoff


def clock(user_data: int, nanoseconds: int, clock_id: int = 1, flags: int = 0) -> bytes:
    return struct.pack("<QBxxxxxxxIxxxxQQHxxxxxx", user_data, 0, clock_id, nanoseconds, 0, flags)


def ready(user_data: int, fd: int, write: bool = False) -> bytes:
    return struct.pack("<QBxxxxxxxI", user_data, 2 if write else 1, fd) + bytes(28)


def poll(guest: DirectGuest, *subscriptions: bytes) -> list[tuple[int, int, int]] | str:
    """User data, errno and type of each event."""
    guest.put(RECORDS, b"".join(subscriptions))
    result = guest.call("poll_oneoff", RECORDS, BUFFER, len(subscriptions), RESULT)
    if result != "success":
        return result
    events = [abi.EVENT.unpack(guest.bytes_at(BUFFER + 32 * i, 32)) for i in range(guest.u32())]
    return [event[:3] for event in events]


def test_poll_waits_for_clocks(guest: DirectGuest) -> None:
    start = time.monotonic()
    assert poll(guest, clock(7, 50_000_000)) == [(7, 0, 0)]
    assert time.monotonic() - start >= 0.05
    guest.call("clock_time_get", 1, 1, RESULT)
    assert poll(guest, clock(1, guest.u64() + 20_000_000, flags=1), clock(2, 10**15)) == [(1, 0, 0)]
    assert poll(guest, clock(3, time.time_ns() - 5, clock_id=0, flags=1)) == [(3, 0, 0)]
    assert poll(guest, clock(4, 0), clock(5, 0), clock(6, 10**18)) == [(4, 0, 0), (5, 0, 0)]


def test_poll_refuses(guest: DirectGuest) -> None:
    assert poll(guest) == "inval"
    assert poll(guest, clock(1, 1, clock_id=2)) == "inval"
    assert poll(guest, clock(1, 1, flags=2)) == "inval"
    assert poll(guest, ready(1, 99)) == "badf"
    assert poll(guest, ready(1, 1)) == "badf", "reading from standard output"
    assert poll(guest, ready(1, 0, write=True)) == "badf"
    assert poll(guest, ready(1, PREOPEN)) == "badf"
    assert poll(guest, struct.pack("<QB", 1, 3) + bytes(39)) == "inval"


def test_poll_has_a_limit() -> None:
    guest = DirectGuest(size=65536 * 8)
    assert guest.call("poll_oneoff", 0, 65536 * 4, 4097, 65536 * 7) == "inval"


def test_poll_for_descriptors(guest: DirectGuest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = guest.open_or_fail("file", rights=66)
    assert poll(guest, ready(1, fd), ready(2, fd, write=True), clock(3, 10**15)) == [(1, 0, 1), (2, 0, 2)]
    assert poll(guest, ready(1, 0), ready(2, 1, write=True)) == [(1, 0, 1), (2, 0, 2)]
    read_end, write_end = os.pipe()
    waiting = DirectGuest(context=WasiContext(streams=(HostInput(read_end, owned=True), None, None)))
    assert poll(waiting, ready(1, 0), clock(2, 20_000_000)) == [(2, 0, 0)]
    os.write(write_end, b"x")
    assert poll(waiting, ready(1, 0), clock(2, 10**15)) == [(1, 0, 1)]
    os.close(write_end)
    assert waiting.read(0) == b"x"
    assert poll(waiting, ready(1, 0)) == [(1, 0, 1)]
    waiting.close()


def test_every_function_of_the_specification_exists() -> None:
    """D2: 46 functions, each once."""
    assert len({f.name for f in FUNCTIONS}) == len(FUNCTIONS) == 46


def test_hangup_is_reported() -> None:
    read_end, write_end = os.pipe()
    guest = DirectGuest(context=WasiContext(streams=(HostInput(read_end, owned=True), None, None)))
    os.close(write_end)
    guest.put(RECORDS, ready(1, 0))
    assert guest.call("poll_oneoff", RECORDS, BUFFER, 1, RESULT) == "success"
    assert abi.EVENT.unpack(guest.bytes_at(BUFFER, 32))[4] == abi.EVENT_FD_READWRITE_HANGUP
    guest.close()


# --- Anything at all

INTERESTING = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 16, 100, RESULT, RECORDS, BUFFER, 65535, 65536, 131071, 131072, 131073, 4096, 1 << 20),
    *(0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF),
)
WIDE = (*INTERESTING, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


@pytest.mark.parametrize("seed", range(4))
def test_any_call_gives_an_errno_or_traps(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of calls of all functions with values from everywhere: an errno, a trap or an exit, no other
    exception; and nothing appears beside the guest's directory."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "monotonic_ns", iter(range(0, 1 << 62, 1 << 50)).__next__)  # waits end at once
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "f").write_text("content")
    os.symlink("../..", root / "a" / "out")
    guest = DirectGuest(root)
    rng = random.Random(seed)
    names = (b"a", b"a/b", b"f", b"a/out", b"a/out/x", b"..", b"n\xff", b"new", b"a/new/", b".")
    paths = {2048 + 64 * i: name for i, name in enumerate(names)}
    results: set[str] = set()
    for _ in range(5000):
        row = rng.choice(FUNCTIONS)
        for at, name in paths.items():
            guest.put(at, name)
        guest.put(RECORDS, rng.randbytes(64) if rng.random() < 0.3 else struct.pack("<IIII", BUFFER, 8, 64, 4096))
        values: list[int] = []
        for ty in row.type.params:
            if values and values[-1] in paths and rng.random() < 0.8:
                values.append(len(paths[values[-1]]))
            elif rng.random() < 0.7:
                values.append(rng.choice((*paths, 1, 2, 3, 3, 3, 4, 5, 6)))
            else:
                values.append(rng.choice(INTERESTING if ty == I32 else WIDE))
        if row.name in ("fd_close", "fd_renumber") and PREOPEN in values:
            continue
        results.add(guest.call(row.name, *values))
    assert {"success", "badf", "trap", "noent", "perm", "inval"} <= results
    assert sorted(os.listdir(tmp_path)) == ["root"]
    guest.close()
