"""Files that are known are neither read nor hashed, and are never taken for what they were before."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge import Module
from wasmforge.compiler import image as image_room
from wasmforge.runtime import cache as cache_room
from wasmforge.runtime.cache import known

from .modules import answer, call, text_of

PADDING = 100_000  # so that the image is mapped, and its checksum counts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.wasm"
    path.write_bytes(bytes(wasmforge.wat2wasm(text_of(1, PADDING))))
    return path


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, compilations: list[int]) -> Callable[[], tuple[int, int, int]]:
    """How many modules were compiled, how many contents hashed and images checked since the last call."""
    hashed: list[int] = []
    checked: list[int] = []
    hash_, checksum = cache_room._hash, image_room.file_checksum

    def counted_hash(data: bytes) -> bytes:
        if data.startswith(b"\0asm"):
            hashed.append(1)
        return hash_(data)

    def counted_checksum(data: Any) -> int:
        checked.append(1)
        return checksum(data)

    monkeypatch.setattr(cache_room, "_hash", counted_hash)
    monkeypatch.setattr(image_room, "file_checksum", counted_checksum)

    def since() -> tuple[int, int, int]:
        counts = len(compilations), len(hashed), len(checked)
        for counted in (compilations, hashed, checked):
            counted.clear()
        return counts

    return since


@pytest.fixture
def load(engine_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    monkeypatch.setattr(known, "_SETTLED", -(10**12))  # these files are new
    return lambda path: call(Module.from_file(engine_of(), path))


def test_known_file_is_not_read(load: Callable[[Path], Any], work: Callable[..., Any], file: Path) -> None:
    assert load(file) == answer(1)
    assert work()[:2] == (1, 1)
    for _ in range(2):
        assert load(file) == answer(1)
        assert work() == (0, 0, 0)


def test_without_time_to_settle_nothing_is_left_out(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """Two changes within one tick of the clock look like one."""
    monkeypatch.setattr(known, "_SETTLED", 10**13)
    for _ in range(3):
        assert load(file) == answer(1)
    assert work()[:2] == (1, 3)
    assert not list(directory.glob("*.known"))
    old = time.time() - 100_000
    os.utime(file, (old, old))  # the time of the change is still now
    assert load(file) == answer(1)
    assert not list(directory.glob("*.known"))


def test_image_must_settle_too(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = known._is_settled
    monkeypatch.setattr(known, "_is_settled", lambda identity, now: identity[1] == file.stat().st_ino)
    load(file)
    work()
    load(file)
    assert work() == (0, 0, 1)
    monkeypatch.setattr(known, "_is_settled", settled)
    load(file)
    assert work() == (0, 0, 1)
    load(file)
    assert work() == (0, 0, 0)


def change_in_place(file: Path) -> None:
    """With all that a program can do to hide it: the size and the time of modification stay."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.write(bytes(wasmforge.wat2wasm(text_of(2, PADDING))))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(bytes(wasmforge.wat2wasm(text_of(2, PADDING))))
    before = file.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [change_in_place, replace])
def test_changed_file_is_read(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, change: Callable[[Path], None]
) -> None:
    for _ in range(2):
        load(file)
    work()
    change(file)
    assert load(file) == answer(2)
    assert work()[:2] == (1, 1)
    assert load(file) == answer(2)
    assert work() == (0, 0, 0)


def test_change_while_it_is_read(
    load: Callable[[Path], Any], file: Path, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    compile_ = wasmforge.Engine._compile

    def changed_meanwhile(*arguments: Any) -> bytes:
        change_in_place(file)
        return compile_(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(wasmforge.Engine, "_compile", changed_meanwhile)
        assert load(file) == answer(1)
    assert not list(directory.glob("*.known"))
    assert load(file) == answer(2)


def test_damaged_image_of_a_known_file(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, directory: Path
) -> None:
    for _ in range(2):
        load(file)
    (entry,) = directory.glob("*.cwasm")
    with entry.open("r+b") as opened:
        opened.seek(5000)
        opened.write(b"damage")
    work()
    assert load(file) == answer(1)
    assert work()[0] == 1
    assert load(file) == answer(1)
    assert work() == (0, 0, 0)


def test_image_is_checked_again_after_a_start_of_the_computer(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        load(file)
    work()
    monkeypatch.setattr(known, "_boot_id", lambda: b"x" * 36)
    load(file)
    assert work() == (0, 0, 1)
    load(file)
    assert work() == (0, 0, 0)


@pytest.mark.parametrize("what", ["flip", "cut", "empty", "mode", "link", "owner"])
def test_record_that_cannot_be_trusted(
    load: Callable[[Path], Any], work: Callable[..., Any], file: Path, directory: Path, what: str, tmp_path: Path
) -> None:
    load(file)
    work()
    (record,) = directory.glob("*.known")
    data = bytearray(record.read_bytes())
    if what == "flip":
        data[60] ^= 1  # in the key
        record.write_bytes(data)
    elif what == "cut":
        record.write_bytes(data[:-1])
    elif what == "empty":
        record.write_bytes(b"")
    elif what == "mode":
        record.chmod(0o666)
    elif what == "link":
        record.rename(tmp_path / "record")
        record.symlink_to(tmp_path / "record")
    elif os.geteuid() == 0:
        os.chown(record, 65534, 65534)
    else:
        pytest.skip("only root can give files to others")
    assert load(file) == answer(1)
    assert work()[:2] == (0, 1)
    assert load(file) == answer(1)
    assert work()[:2] == (0, 0)


def test_other_settings_do_not_know_the_file(
    load: Callable[[Path], Any], engine_of: Callable[..., Any], work: Callable[..., Any], file: Path
) -> None:
    load(file)
    work()
    assert call(Module.from_file(engine_of(signals_based_traps=False), file)) == answer(1)
    assert work()[:2] == (1, 1)


def test_image_that_is_gone(load: Callable[[Path], Any], work: Callable[..., Any], file: Path, directory: Path) -> None:
    load(file)
    for entry in directory.glob("*.cwasm"):
        entry.unlink()
    work()
    assert load(file) == answer(1)
    assert work()[:2] == (1, 1)


def test_pipes_are_read(load: Callable[[Path], Any], file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        reading, writing = os.pipe()
        contents = file.read_bytes()  # more than a pipe takes at once

        def write(fd: int, data: bytes) -> None:
            with os.fdopen(fd, "wb") as pipe:
                pipe.write(data)

        writer = threading.Thread(target=write, args=(writing, contents))
        writer.start()
        assert load(Path(f"/dev/fd/{reading}")) == answer(1)
        writer.join()
        os.close(reading)


def test_load_and_image_files(load: Callable[[Path], Any], file: Path, tmp_path: Path) -> None:
    """`wasmforge.load` goes the same way, and refuses images still."""
    for _ in range(2):
        assert wasmforge.load(file).answer() == answer(1)
    file.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(wasmforge.WasmtimeError, match="compiled image"):
        wasmforge.load(file)
