"""Attacks on the cache: another user's directory or file, links, writable for others, contents that were exchanged,
cut or flipped. Never may anything but the image of the module itself run, and the cache must heal itself.

What a foreign owner can do is tested as root, who can give files away; elsewhere those tests are skipped.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge.runtime.cache import TRAILER
from wasmforge.runtime.cache.trust import UntrustedError, open_directory, open_file

from .modules import answer, call, text_of

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def entry(cached: Callable[..., Any], directory: Path) -> Path:
    """The entry of module 1."""
    assert call(cached(text_of(1))) == answer(1)
    (found,) = directory.glob("*.cwasm")
    return found


@pytest.fixture
def other_entry(cached: Callable[..., Any], directory: Path, entry: Path) -> Path:
    """That of module 2, which an attacker would like to run instead."""
    assert call(cached(text_of(2))) == answer(2)
    (found,) = set(directory.glob("*.cwasm")) - {entry}
    return found


@pytest.fixture
def recompiles(cached: Callable[..., Any], compilations: list[int]) -> Callable[[], None]:
    """Checks that module 1 is compiled anew and right, whatever lies in the cache."""

    def check() -> None:
        compilations.clear()
        assert call(cached(text_of(1))) == answer(1)
        assert len(compilations) == 1

    return check


@pytest.fixture
def hits(cached: Callable[..., Any], compilations: list[int]) -> Callable[[], None]:
    def check() -> None:
        compilations.clear()
        assert call(cached(text_of(1))) == answer(1)
        assert not compilations

    return check


def test_what_we_make_is_for_us_alone(entry: Path, directory: Path, tmp_path: Path) -> None:
    assert entry.stat().st_mode & 0o777 == 0o600
    for made in (directory, directory.parent):
        assert made.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in directory.iterdir()] == [entry.name], "no temporary file is left"


# --- Damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 150_000], ids=["read", "mapped"])
def test_no_flipped_bit_is_ever_run(
    cached: Callable[..., Any], compilations: list[int], directory: Path, padding: int
) -> None:
    source = text_of(1, padding)
    cached(source)
    (entry,) = directory.glob("*.cwasm")
    good = entry.read_bytes()
    generator = random.Random(4)
    positions = [generator.randrange(len(good) * 8) for _ in range(60)]
    positions += [(len(good) - TRAILER.size + k) * 8 + 3 for k in range(TRAILER.size)]
    for bit in positions:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        entry.write_bytes(bad)
        compilations.clear()
        assert call(cached(source)) == answer(1)
        assert len(compilations) == 1, f"bit {bit} was not noticed"
        assert entry.read_bytes() == good, "the entry was not replaced"


@pytest.mark.parametrize("length", [0, 1, 51, 52, 53, 4096, -4096, -52, -1])
def test_truncated_entry(entry: Path, recompiles: Callable[[], None], hits: Callable[[], None], length: int) -> None:
    size = entry.stat().st_size
    os.truncate(entry, length if length >= 0 else size + length)
    recompiles()
    hits()


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 52, b"\0" * 4096])
def test_longer_entry(entry: Path, recompiles: Callable[[], None], hits: Callable[[], None], extra: bytes) -> None:
    with entry.open("ab") as file:
        file.write(extra)
    recompiles()
    hits()


def test_zeros_after_a_power_failure(entry: Path, recompiles: Callable[[], None], hits: Callable[[], None]) -> None:
    entry.write_bytes(bytes(entry.stat().st_size))
    recompiles()
    hits()


def test_entry_under_the_name_of_another(
    entry: Path, other_entry: Path, recompiles: Callable[[], None], hits: Callable[[], None]
) -> None:
    """Without the key inside, module 2 would answer for module 1."""
    entry.write_bytes(other_entry.read_bytes())
    recompiles()
    hits()


def test_entry_of_another_configuration(
    cached: Callable[..., Any], entry: Path, compilations: list[int], directory: Path
) -> None:
    """An image for other tunables under a key, with that key inside, still fails the check of its engine record."""
    cached(text_of(1), signals_based_traps=False)
    (other,) = set(directory.glob("*.cwasm")) - {entry}
    entry.write_bytes(other.read_bytes()[: -TRAILER.size] + entry.read_bytes()[-TRAILER.size :])
    compilations.clear()
    assert call(cached(text_of(1))) == answer(1)
    assert len(compilations) == 1


# --- Attacks on entries -----------------------------------------------------------------------------------------


def test_symbolic_link_as_entry(
    entry: Path, other_entry: Path, tmp_path: Path, recompiles: Callable[[], None], hits: Callable[[], None]
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copy(entry, copy)
    contents = copy.read_bytes()
    entry.unlink()
    entry.symlink_to(copy)
    recompiles()
    assert not entry.is_symlink() and copy.read_bytes() == contents, "the link is replaced, not followed"
    hits()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_entry_that_others_can_write(
    entry: Path, recompiles: Callable[[], None], hits: Callable[[], None], mode: int
) -> None:
    entry.chmod(mode)
    recompiles()
    assert entry.stat().st_mode & 0o777 == 0o600
    hits()


@as_root
def test_entry_of_another_user(entry: Path, recompiles: Callable[[], None], hits: Callable[[], None]) -> None:
    os.chown(entry, NOBODY, NOBODY)
    recompiles()
    assert entry.stat().st_uid == 0
    hits()


def test_entry_that_is_no_file(entry: Path, recompiles: Callable[[], None], hits: Callable[[], None]) -> None:
    """A pipe would make us wait for ever, a device or a directory is no image."""
    entry.unlink()
    os.mkfifo(entry)
    recompiles()
    hits()
    entry.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        old = os.getcwd()
        os.chdir(entry.parent)  # the path of a socket is short
        try:
            server.bind(entry.name)
        finally:
            os.chdir(old)
        recompiles()
    hits()
    entry.unlink()
    entry.mkdir()
    recompiles()
    recompiles()  # a directory is left alone, it cannot be ours


def test_temporary_file_is_not_written_through_a_link(
    cached: Callable[..., Any], entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """Even if its random name were known."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    random_bytes = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: bytes(n) if n == 8 else random_bytes(n))
    (directory / f"{entry.name}.{bytes(8).hex()}.tmp").symlink_to(victim)
    entry.unlink()
    assert call(cached(text_of(1))) == answer(1)
    assert victim.read_text() == "precious" and not entry.exists()


# --- Attacks on directories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_directory_that_others_can_write(
    entry: Path, directory: Path, recompiles: Callable[[], None], hits: Callable[[], None], mode: int
) -> None:
    directory.chmod(mode)
    recompiles()
    recompiles()
    directory.chmod(0o755)
    hits()


@as_root
def test_directory_of_another_user(entry: Path, directory: Path, recompiles: Callable[[], None]) -> None:
    os.chown(directory, NOBODY, NOBODY)
    recompiles()
    recompiles()


def test_directory_that_is_a_link(
    entry: Path, directory: Path, recompiles: Callable[[], None], hits: Callable[[], None]
) -> None:
    real = directory.with_name("real")
    directory.rename(real)
    directory.symlink_to(real)
    recompiles()
    recompiles()
    directory.unlink()
    real.rename(directory)
    hits()


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_parent_that_others_can_write(
    entry: Path, directory: Path, recompiles: Callable[[], None], hits: Callable[[], None], mode: int
) -> None:
    """They could put another directory of ours in the place of the cache, one whose contents come from them."""
    directory.parent.chmod(mode)
    recompiles()
    directory.parent.chmod(mode | 0o1000)  # as /tmp: names of ours stay ours
    hits()


@as_root
def test_parent_of_another_user(
    entry: Path, directory: Path, recompiles: Callable[[], None], hits: Callable[[], None]
) -> None:
    os.chown(directory.parent, NOBODY, NOBODY)
    recompiles()
    os.chown(directory.parent, 0, 0)
    hits()


@as_root
def test_parent_with_a_group(
    entry: Path, directory: Path, recompiles: Callable[[], None], hits: Callable[[], None]
) -> None:
    """Where each user has a group, the usual umask lets it write; any other group are others."""
    directory.parent.chmod(0o770)
    hits()
    os.chown(directory.parent, 0, NOBODY)
    recompiles()


@as_root
def test_nothing_is_made_in_the_home_of_another(
    tmp_path: Path, cached: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo` with the user's HOME: a directory of root there would take the cache from its owner."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    engine = cached(text_of(9))._engine
    monkeypatch.delenv("WASMFORGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert call(wasmforge.Module(wasmforge.Engine(), text_of(1))) == answer(1)
    assert list(home.iterdir()) == []
    assert engine is not None


def test_links_on_the_way(entry: Path, directory: Path, tmp_path: Path) -> None:
    """Links of ours are followed, as a home on another disk needs; each step is checked."""
    link = tmp_path / "link"
    link.symlink_to(directory.parent)
    os.close(open_directory(str(link / "modules")))
    relative = tmp_path / "relative"
    relative.symlink_to("./link/../cache/.")
    os.close(open_directory(str(relative / "modules")))
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(UntrustedError, match="too many"):
        open_directory(str(loop / "modules"))
    if os.geteuid() == 0:
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        for path in (link, relative):
            with pytest.raises(UntrustedError, match="belongs to user 65534"):
                open_directory(str(path / "modules"))


def test_reasons_name_the_culprit(entry: Path, directory: Path) -> None:
    directory.parent.chmod(0o777)
    with pytest.raises(UntrustedError, match=f"{directory.parent} .*others may write.*drwxrwxrwx"):
        open_directory(str(directory))
    directory.parent.chmod(0o700)
    entry.chmod(0o646)
    fd = open_directory(str(directory))
    try:
        with pytest.raises(UntrustedError, match=f"{entry.name} .*others may write.*-rw-r--rw-"):
            open_file(fd, entry.name)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_refusal_is_logged_and_not_printed(
    entry: Path, cached: Callable[..., Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    entry.chmod(0o666)
    with caplog.at_level(logging.WARNING, "wasmforge.cache"):
        cached(text_of(1))
    assert "others may write" in caplog.text
    assert capfd.readouterr() == ("", "")


# --- No cache is no error -----------------------------------------------------------------------------------------


def test_no_place_for_a_cache(cached: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("/proc/nowhere", "/dev/null", str(tmp_path / "file" / "x"), str(tmp_path / ("n" * 300))):
        monkeypatch.setenv("WASMFORGE_CACHE", place)
        assert call(cached(text_of(1))) == answer(1)


def test_no_home(cached: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("WASMFORGE_CACHE", "1")
    assert call(wasmforge.Module(wasmforge.Engine(), text_of(1))) == answer(1)


def test_full_disk(
    cached: Callable[..., Any], directory: Path, compilations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(text_of(2))
    before = sorted(directory.iterdir())
    write = os.write

    def full(fd: int, data: Any) -> int:
        if str(directory) in os.readlink(f"/proc/self/fd/{fd}"):
            if len(data) < 4096:
                raise OSError(28, "No space left on device")
            return write(fd, data[:4096])
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    assert call(cached(text_of(1))) == answer(1)
    assert sorted(directory.iterdir()) == before


def test_slow_disk_writes_in_pieces(
    cached: Callable[..., Any], compilations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    for _ in range(2):
        assert call(cached(text_of(1))) == answer(1)
    assert len(compilations) == 1
