"""The size bound, what killed processes left, and clearing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wasmforge.runtime.cache import storing
from wasmforge.runtime.cache.settings import CacheSettings


def name(n: int) -> str:
    return f"{n:064x}.cwasm"


def write(settings: CacheSettings, n: int, size: int, age: float = 0) -> None:
    """Entry n, of `size` bytes, last used `age` seconds ago."""
    storing.write(settings, name(n), (bytes(size - 1), b"."))
    at = time.time() - age
    os.utime(Path(settings.directory) / name(n), (at, at))


def numbers(directory: Path) -> list[int]:
    return sorted(int(path.stem, 16) for path in directory.glob("*.cwasm"))


def test_oldest_are_removed_first(directory: Path) -> None:
    settings = CacheSettings(str(directory), size_limit=1000, size_percent=50)
    for n in range(10):
        write(settings, n, 100, age=100 * ((n + 5) % 10))  # 5 is the youngest, 4 the oldest
    assert numbers(directory) == list(range(10))
    write(settings, 10, 100)
    # 1,100 bytes would be too many: until at most 500 are left, with the new one.
    assert numbers(directory) == [5, 6, 7, 8, 10]


def test_count_is_limited_too(directory: Path) -> None:
    settings = CacheSettings(str(directory), count_limit=10, count_percent=50)
    for n in range(10):
        write(settings, n, 100, age=1000 - n)
    storing.sweep(settings)
    assert len(numbers(directory)) == 10
    settings.count_limit = 9
    storing.sweep(settings)
    assert numbers(directory) == [6, 7, 8, 9]


def test_large_entry_takes_the_room_of_all(directory: Path) -> None:
    settings = CacheSettings(str(directory), size_limit=1000)
    for n in range(9):
        write(settings, n, 100)
    write(settings, 9, 1000)
    assert numbers(directory) == [9]
    with pytest.raises(OSError, match="does not fit"):
        write(settings, 10, 1001)
    assert numbers(directory) == [9]


def test_limit_holds_on_average(directory: Path) -> None:
    """Sweeping is left to chance in proportion to what is written, so that it costs little for small modules."""
    limit = 200_000
    settings = CacheSettings(str(directory), size_limit=limit)
    total = largest = 0
    for n in range(1500):
        storing.write(settings, name(n), (bytes(1000),))
        total += 1000
        if n % 50 == 0:
            largest = max(largest, sum(p.stat().st_size for p in directory.iterdir()))
    assert total > 5 * limit
    # On average a 64th is written between sweeps; ten times that has a probability of e**-10 each.
    assert limit // 2 < largest < limit * 1.25


def test_leftovers_of_killed_processes_are_swept(directory: Path) -> None:
    settings = CacheSettings(str(directory))
    write(settings, 1, 100)
    old, young, foreign = (directory / f"{x}.tmp" for x in (name(2) + ".ab", name(3) + ".cd", "notes"))
    for file in (old, young, foreign):
        file.write_bytes(b"half")
    past = time.time() - 3600
    for file in (old, foreign):
        os.utime(file, (past, past))
    storing.sweep(settings)
    assert not old.exists() and young.exists() and foreign.exists()
    assert numbers(directory) == [1]


def test_leftovers_count_for_the_limit(directory: Path) -> None:
    settings = CacheSettings(str(directory), size_limit=1000, size_percent=90)
    write(settings, 1, 500, age=50)
    (directory / f"{name(2)}.ab.tmp").write_bytes(bytes(600))
    storing.sweep(settings)
    assert numbers(directory) == []


def test_only_files_of_the_cache_are_touched(directory: Path) -> None:
    """WASMFORGE_CACHE may name a directory with other things in it."""
    directory.mkdir(parents=True)
    others = ["a.cwasm", "notes.txt", "x" * 64, "0" * 63 + ".cwasm", "0" * 64 + ".wasm", "0" * 64 + ".cwasm.bak"]
    for other in others:
        (directory / other).write_bytes(bytes(1000))
    (directory / name(7)).mkdir()
    settings = CacheSettings(str(directory), size_limit=500)
    write(settings, 1, 400)
    storing.sweep(settings)
    assert numbers(directory.resolve())
    assert storing.clear(settings) == (1, 400)
    assert sorted(p.name for p in directory.iterdir()) == sorted([*others, name(7)])


def test_failed_write_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CacheSettings(str(directory))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(settings, 1, 100)
    assert list(directory.iterdir()) == []
    before = len(os.listdir("/proc/self/fd"))
    write(settings, 1, 100)
    assert len(os.listdir("/proc/self/fd")) == before


def test_umask_does_not_matter(directory: Path) -> None:
    old = os.umask(0)
    try:
        write(CacheSettings(str(directory)), 1, 100)
    finally:
        os.umask(old)
    for path, mode in ((directory, 0o700), (directory.parent, 0o700), (directory / name(1), 0o600)):
        assert path.stat().st_mode & 0o777 == mode
