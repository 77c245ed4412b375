"""Python objects as standard streams, clocks and random numbers of a guest: what `WasiConfig` adds to the package."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.guests import BUFFER, PREOPEN, RESULT, DirectGuest
from tests.wasi.test_functions import clock, poll
from wasmforge import FixedClocks, MemoryDirectory, WasiConfig


def guest_with(**settings: Any) -> DirectGuest:
    config = WasiConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    return DirectGuest(context=config._consume())


def read_all(guest: DirectGuest, size: int = 7) -> bytes:
    data = b""
    while piece := guest.read(0, size):
        assert isinstance(piece, bytes), piece
        data += piece
    return data


TEXT = "first line\nzweite Zeile äöü\n" * 20


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("kind", ["bytes", "str", "BytesIO", "StringIO", "raw", "text file", "callable", "only read"])
def test_stdin(tmp_path: Path, kind: str, size: int) -> None:
    """Everything arrives, in whatever pieces it is read."""
    data = TEXT.encode()
    path = tmp_path / "input"
    path.write_bytes(data)
    pieces = [data[i : i + 13] for i in range(0, len(data), 13)]

    class OnlyRead:
        def read(self, size: int) -> bytes:
            return pieces.pop(0)[:size] if pieces and size >= 13 else data[:0] if not pieces else pieces.pop(0)

    sources: dict[str, Any] = {
        "bytes": data,
        "str": TEXT,
        "BytesIO": io.BytesIO(data),
        "StringIO": io.StringIO(TEXT),
        "raw": path.open("rb", buffering=0),
        "text file": path.open(encoding="utf-8"),
        "callable": lambda size: pieces.pop(0) if pieces else b"",
        "only read": OnlyRead(),
    }
    guest = guest_with(stdin=sources[kind])
    assert read_all(guest, size) == data
    assert guest.read(0) == b""


def test_a_pipe_gives_what_is_there() -> None:
    """A guest that asks for more than there is does not wait for the rest."""
    read, write = os.pipe()
    with open(read, "rb") as file, open(write, "wb", buffering=0) as other:
        guest = guest_with(stdin=file)
        other.write(b"abc")
        assert guest.read(0, 1000) == b"abc"


@pytest.mark.parametrize("kind", ["bytearray", "BytesIO", "StringIO", "callable", "only write"])
def test_stdout_and_stderr(kind: str) -> None:
    array = bytearray()
    binary = io.BytesIO()
    text = io.StringIO()
    pieces: list[bytes] = []

    class OnlyWrite:
        def write(self, data: bytes) -> None:
            pieces.append(data)

    targets: dict[str, Any] = {
        "bytearray": array,
        "BytesIO": binary,
        "StringIO": text,
        "callable": pieces.append,
        "only write": OnlyWrite(),
    }
    guest = guest_with(stdout=targets[kind], stderr=targets[kind])
    data = "héllo".encode()
    assert guest.write(1, data[:2]) == 2  # cut within a character
    assert guest.write(1, data[2:]) == 4
    assert guest.write(2, b"!") == 1
    got = bytes(array) or binary.getvalue() or b"".join(pieces)
    assert (got, text.getvalue()) == ((b"", "héllo!") if kind == "StringIO" else (data + b"!", ""))


def test_bytes_that_are_no_text_are_replaced() -> None:
    text = io.StringIO()
    guest = guest_with(stdout=text)
    assert guest.write(1, b"a\xffb") == 3
    assert text.getvalue() == "a\ufffdb"
    assert guest.write(1, b"\xc3") == 1
    guest.close()
    assert text.getvalue() == "a\ufffdb\ufffd"


@pytest.mark.parametrize(("name", "value"), [("stdin", 3), ("stdout", 3), ("stderr", b"x"), ("random", 1)])
def test_what_is_no_stream(name: str, value: object) -> None:
    with pytest.raises(TypeError):
        setattr(WasiConfig(), name, value)


def test_exceptions_of_streams() -> None:
    """OSError is the guest's, all others are the embedder's."""

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    assert guest_with(stdout=Full()).write(1, b"x") == "nospc"

    def broken(size: int) -> bytes:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        guest_with(stdin=broken).read(0)
    with pytest.raises(TypeError, match="instead of bytes"):
        guest_with(stdin=lambda size: "text").read(0)


def test_a_huge_read_is_short() -> None:
    """A guest that asks for everything makes nobody allocate it."""
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return b"x"

    guest = guest_with(stdin=source)
    records = (BUFFER).to_bytes(4, "little") + (60000).to_bytes(4, "little")
    guest.put(1024, records * 1000)
    assert guest.call("fd_read", 0, 1024, 1000, RESULT) == "success"
    assert asked == [1 << 20]


# --- Clocks and random numbers


def run_of(guest: DirectGuest) -> list[object]:
    """What a guest can see of time and chance."""
    seen: list[object] = []
    for clock_id in (0, 1, 0):
        assert guest.call("clock_time_get", clock_id, 0, RESULT) == "success"
        seen.append(guest.u64())
    assert guest.call("random_get", BUFFER, 32) == "success"
    seen.append(guest.bytes_at(BUFFER, 32))
    seen.append(poll(guest, clock(1, 10**12), clock(2, 10**15)))
    guest.call("clock_time_get", 1, 0, RESULT)
    seen.append(guest.u64())
    fd = guest.open_or_fail("f", oflags=1, rights=66)
    guest.write(fd, b"x")
    seen.append(guest.stat("f"))
    return seen


def test_runs_repeat_exactly() -> None:
    """With fixed clocks, a seed and a directory in memory. A sleep of 1,000 s takes no time."""
    runs = []
    for _ in range(2):
        config = WasiConfig()
        config.clocks = FixedClocks(realtime=1_600_000_000_000_000_000)
        config.random_seed = 42
        config.preopen_dir(MemoryDirectory(), "/")
        runs.append(run_of(DirectGuest(context=config._consume())))
    assert runs[0] == runs[1]
    assert runs[0][0] == 1_600_000_000_000_000_000
    assert runs[0][4] == [(1, 0, 0)]
    late = runs[0][5]
    assert isinstance(late, int)
    assert late >= 10**12


def test_other_seeds_give_other_numbers() -> None:
    numbers = set()
    for seed in range(3):
        guest = guest_with(random_seed=seed)
        assert guest.call("random_get", BUFFER, 16) == "success"
        numbers.add(guest.bytes_at(BUFFER, 16))
    assert len(numbers) == 3


def test_own_clocks() -> None:
    class Stopped(wasmforge.Clocks):
        def realtime(self) -> int:
            return 5

        def monotonic(self) -> int:
            return 6

    guest = guest_with(clocks=Stopped())
    for clock_id, expected in ((0, 5), (1, 6)):
        assert guest.call("clock_time_get", clock_id, 0, RESULT) == "success"
        assert guest.u64() == expected
    with pytest.raises(TypeError, match="expected Clocks"):
        WasiConfig().clocks = 3


def test_open_files_are_limited() -> None:
    config = WasiConfig()
    config.max_open_files = 2
    config.preopen_dir({"f": b""}, "/")
    guest = DirectGuest(context=config._consume())
    assert guest.open("f") == PREOPEN + 1
    assert guest.open("f") == PREOPEN + 2
    assert guest.open("f") == "mfile"
