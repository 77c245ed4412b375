"""The compilation cache: what is found again, what is not, and that a hit compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from wasmforge.compiler import fingerprint
from wasmforge.runtime import cache as cache_room
from wasmforge.runtime.cache import ImageCache
from wasmforge.runtime.cache.settings import CacheSettings

from .modules import answer, call, child_environment, text_of

COMPILED_BY_THESE_SOURCES = fingerprint.compiled_by_these_sources


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.cwasm"))


def test_second_engine_finds_the_module(cached: Callable[..., Any], directory: Path, compilations: list[int]) -> None:
    assert call(cached(text_of(1))) == answer(1)
    assert call(cached(text_of(1))) == answer(1)
    assert len(compilations) == 1 and len(entries(directory)) == 1
    assert call(cached(text_of(2))) == answer(2)
    assert len(compilations) == 2 and len(entries(directory)) == 2


def test_binary_text_and_bytes_of_text_are_all_found(
    cached: Callable[..., Any], directory: Path, compilations: list[int]
) -> None:
    binary = wasmforge.wat2wasm(text_of(3))
    for source in (text_of(3), text_of(3).encode(), bytes(binary), bytearray(binary)) * 2:
        assert call(cached(source)) == answer(3)
    # The str, its bytes, and the binary; a bytearray has the contents of the bytes.
    assert len(compilations) == 3 and len(entries(directory)) == 3


def test_bytearray_is_never_text(cached: Callable[..., Any]) -> None:
    cached(text_of(1).encode())
    with pytest.raises(wasmforge.WasmtimeError, match="magic"):
        cached(bytearray(text_of(1).encode()))


def test_what_is_not_a_module_is_an_error_each_time(cached: Callable[..., Any], directory: Path) -> None:
    for _ in range(2):
        for wrong in ("(module", b"\0asm", "", b"", "\ud800", "(module (func (result i32)))"):
            with pytest.raises((wasmforge.WasmtimeError, TypeError)):
                cached(wrong)
    assert not entries(directory)


def test_found_module_is_the_compiled_one(
    cached: Callable[..., Any], engine_of: Callable[..., Any], tmp_path: Path
) -> None:
    source = '(module (memory (export "m") 1) (data (i32.const 9) "wasm") (func (export "trap") unreachable))'
    fresh = wasmforge.Module(engine_of(cache=False), source)
    cached(source)
    found = cached(source)
    assert found.serialize() == fresh.serialize()
    assert [e.name for e in found.exports] == ["m", "trap"]
    (tmp_path / "image").write_bytes(found.serialize())
    wasmforge.Module.deserialize_file(engine_of(), tmp_path / "image")


def test_data_of_a_mapped_module_is_copied_on_write(cached: Callable[..., Any], directory: Path) -> None:
    """Several instances, and the file, keep the initial contents when one instance writes over its own."""
    size = 200_000  # too large to be read instead of mapped
    source = f'(module (memory (export "m") 4) (data (i32.const 0) "{"w" * size}"))'
    cached(source)
    before = entries(directory)[0].read_bytes()
    assert len(before) > size
    module = cached(source)
    store = wasmforge.Store(module._engine)
    memories = [wasmforge.Instance(store, module, []).exports(store)["m"] for _ in range(2)]
    memories[0].write(store, b"x" * size, 0)
    assert memories[1].read(store, 0, size) == b"w" * size
    assert entries(directory)[0].read_bytes() == before


def test_settings_that_change_code_have_entries_of_their_own(
    engine_of: Callable[..., wasmforge.Engine], directory: Path
) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"cranelift_opt_level": "none"},
        {"memory_guard_size": 1 << 20},
        {"signals_based_traps": False},
        {"strategy": "llvm"},
    ]
    for _ in range(2):
        for change in changes:
            assert call(wasmforge.Module(engine_of(**change), text_of(4))) == answer(4)
    assert len(entries(directory)) == len(changes)


def test_key_depends_on_the_compiler(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> bytes | None:
        return ImageCache(CacheSettings(str(directory)), wasmforge.Engine()._tunables, "llvm").key(b"\0asm", "binary")

    before = key()
    assert key() == before is not None and len(before) == 32
    for name, value in (
        ("fingerprint", lambda: b"another"),
        ("host_level", lambda: "x86-64-v9"),
        ("FORMAT_VERSION", 10**6),
        ("COMPILER_VERSION", "0.0.0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(cache_room, name, value)
            assert key() != before
    assert key() == before


def test_long_and_short_contents_have_keys(directory: Path) -> None:
    cache = ImageCache(CacheSettings(str(directory)), wasmforge.Engine()._tunables, "llvm")
    long = b"\0asm" + bytes(cache_room._OPENSSL_FROM)
    keys = {cache.key(c, "binary") for c in (long, long[:-1] + b"\1", long[:-1], long[:9], long[:8])}
    assert len(keys) == 5 and None not in keys
    assert cache.key(long, "binary") in keys


def test_fingerprint_sees_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in fingerprint._ROOMS:
        (tmp_path / room / "inner").mkdir(parents=True)
        (tmp_path / room / "inner" / "source.py").write_text("x = 1\n")
    monkeypatch.setattr(fingerprint, "_PACKAGE", str(tmp_path))
    before = fingerprint.fingerprint()
    assert fingerprint.fingerprint() == before
    file = tmp_path / "compiler" / "inner" / "source.py"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert (later := fingerprint.fingerprint()) != before
    (tmp_path / "binary" / "fast.so").write_bytes(b"")
    assert fingerprint.fingerprint() != later


def test_fingerprint_sees_another_llvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint.fingerprint()
    library = tmp_path / fingerprint._LLVM
    library.parent.mkdir(parents=True)
    library.write_bytes(b"LLVM")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fingerprint.fingerprint() != before


def test_nothing_is_stored_when_the_sources_are_newer_than_the_process(
    cached: Callable[..., Any], directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor saved the compiler after this process imported it: its code does not belong to the sources' key."""
    for room in fingerprint._ROOMS:
        (tmp_path / room).mkdir()
    source = tmp_path / "compiler" / "source.py"
    source.write_text("")
    monkeypatch.setattr(fingerprint, "_PACKAGE", str(tmp_path))
    monkeypatch.setattr(fingerprint, "compiled_by_these_sources", COMPILED_BY_THESE_SOURCES)
    assert call(cached(text_of(1))) == answer(1)
    assert not entries(directory)
    os.utime(source, (0, 10**9))
    assert call(cached(text_of(1))) == answer(1)
    assert len(entries(directory)) == 1


def test_nothing_is_stored_when_the_sources_change_meanwhile(
    cached: Callable[..., Any], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = iter(range(10**6))
    monkeypatch.setattr(cache_room, "fingerprint", lambda: str(next(prints)).encode())
    assert call(cached(text_of(1))) == answer(1)
    assert not entries(directory)


def test_hit_renews_the_entry_once_an_hour(cached: Callable[..., Any], directory: Path) -> None:
    cached(text_of(1))
    (entry,) = entries(directory)
    recent, old = time.time() - 600, time.time() - 7200
    os.utime(entry, (recent, recent))
    cached(text_of(1))
    assert abs(entry.stat().st_mtime - recent) < 1
    os.utime(entry, (old, old))
    cached(text_of(1))
    assert time.time() - entry.stat().st_mtime < 600


def test_thousand_modules_need_no_descriptors(cached: Callable[..., Any]) -> None:
    """The usual limit is 1,024 open files."""
    engine = cached(text_of(1))._engine
    before = len(os.listdir("/proc/self/fd"))
    modules = [wasmforge.Module(engine, text_of(1)) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before
    assert call(modules[-1]) == answer(1)


HIT = """
import sys
from tests.runtime.cache.modules import hold_sources_steady
hold_sources_steady()
from wasmforge import Engine, Instance, Module, Store
Engine._lazy = False
store = Store(Engine())
with open(sys.argv[1], "rb") as file:
    exports = Instance(store, Module(store.engine, file.read()), []).exports(store)
print(exports["answer"](store))
loaded = ("wasmforge.text", "wasmforge.binary", "wasmforge.validation", "wasmforge.compiler.llvm", "llvmlite",
          "wasmforge.compiler.baseline", "wasmforge.runtime.cache.storing", "logging", "tomllib", "dataclasses")
print(*(name for name in loaded if name in sys.modules))
"""


def test_warm_process_imports_no_compiler(directory: Path, tmp_path: Path) -> None:
    environment = child_environment(directory)

    def run(source: Path) -> list[str]:
        command = [sys.executable, "-c", HIT, str(source)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert child.returncode == 0, child.stderr
        return child.stdout.splitlines()

    for source, contents in ((tmp_path / "m.wat", text_of(5).encode()), (tmp_path / "m.wasm", None)):
        source.write_bytes(contents or bytes(wasmforge.wat2wasm(text_of(5))))
        assert "wasmforge.binary" in run(source)[1]
        assert run(source) == [str(answer(5)), ""]
