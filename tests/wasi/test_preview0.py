"""`wasi_unstable`, the preview before: the layouts and numbers that differ. The wasmtime package defines preview 1
only, so the witx files of both are the yardstick.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.guests import BUFFER, PREOPEN, RECORDS, RESULT, STRINGS
from wasmforge.syntax.types import I32
from wasmforge.wasi.preview0 import FUNCTIONS, MODULE_NAME

FILESTAT = struct.Struct("<QQBxxxIQQQQ")


def module_text() -> str:
    imports, exports = [], []
    for f in FUNCTIONS:
        params = "".join(f" {'i32' if t == I32 else 'i64'}" for t in f.type.params)
        signature = f"(param{params})" + (" (result i32)" if f.type.results else "")
        arguments = " ".join(f"(local.get {i})" for i in range(len(f.type.params)))
        imports.append(f'(import "{MODULE_NAME}" "{f.name}" (func ${f.name} {signature}))')
        exports.append(f'(func (export "{f.name}") {signature} (call ${f.name} {arguments}))')
    return "(module " + " ".join([*imports, '(memory (export "memory") 2)', *exports]) + ")"


class Old:
    """A guest of preview 0."""

    def __init__(self, folder: Path) -> None:
        engine = wasmforge.Engine()
        self.store = wasmforge.Store(engine)
        config = wasmforge.WasiConfig()
        config.preopen_dir(str(folder), "/")
        self.store.set_wasi(config)
        linker = wasmforge.Linker(engine)
        linker.define_wasi()
        module = wasmforge.Module(engine, module_text())
        self.exports: Any = linker.instantiate(self.store, module).exports(self.store)
        self.memory = self.exports["memory"]

    def __call__(self, name: str, *arguments: int) -> int:
        return int(self.exports[name](self.store, *arguments))

    def put(self, at: int, data: bytes) -> None:
        self.memory.write(self.store, data, at)

    def at(self, at: int, layout: str | struct.Struct) -> tuple[Any, ...]:
        record = struct.Struct(layout) if isinstance(layout, str) else layout
        return record.unpack(bytes(self.memory.read(self.store, at, at + record.size)))

    def open(self, path: bytes) -> int:
        self.put(STRINGS, path)
        assert self("path_open", PREOPEN, 1, STRINGS, len(path), 0, 66, 66, 0, RESULT) == 0
        return int(self.at(RESULT, "<I")[0])


@pytest.fixture
def old(tmp_path: Path) -> Old:
    (tmp_path / "f").write_bytes(b"0123456789")
    return Old(tmp_path)


def test_all_functions_but_one() -> None:
    """Reference, table D1-02: 45 functions, without sock_accept."""
    assert len(FUNCTIONS) == 45
    assert all(f.name != "sock_accept" for f in FUNCTIONS)


def test_whence_has_other_numbers(old: Old) -> None:
    """0 is the current position, 1 the end, 2 the start; also when the stub of preview 1 could have answered."""
    fd = old.open(b"f")
    for offset, whence, expected in ((4, 2, 4), (2, 0, 6), (-1, 1, 9), (0, 0, 9)):
        assert old("fd_seek", fd, offset, whence, RESULT) == 0
        assert old.at(RESULT, "<Q") == (expected,)
    with pytest.raises(wasmforge.WasmtimeError, match="Whence"):
        old("fd_seek", fd, 0, 3, RESULT)


def test_the_layout_of_filestat(old: Old) -> None:
    fd = old.open(b"f")
    old.put(RESULT, b"\xff" * 64)
    assert old("fd_filestat_get", fd, RESULT) == 0
    status = old.at(RESULT, FILESTAT)
    assert status[2:5] == (4, 1, 10)
    assert old.at(RESULT + 56, "<Q") == (2**64 - 1,), "56 bytes, not 64"
    old.put(STRINGS, b"f")
    assert old("path_filestat_get", PREOPEN, 1, STRINGS, 1, RESULT) == 0
    assert old.at(RESULT, FILESTAT) == status


def test_the_layout_of_subscriptions(old: Old) -> None:
    """A clock has an identifier; 56 bytes each."""
    wait = struct.pack("<QBxxxxxxxQIxxxxQQHxxxxxx", 7, 0, 99, 1, 1_000_000, 0, 0)
    assert len(wait) == 56
    fd = struct.pack("<QBxxxxxxxI", 8, 1, old.open(b"f")).ljust(56, b"\0")
    old.put(RECORDS, wait + wait)
    assert old("poll_oneoff", RECORDS, BUFFER, 2, RESULT) == 0
    assert old.at(RESULT, "<I") == (2,)
    assert old.at(BUFFER, "<QHB") == (7, 0, 0)
    old.put(RECORDS, wait + fd)
    assert old("poll_oneoff", RECORDS, BUFFER, 2, RESULT) == 0
    assert old.at(BUFFER, "<QHB") == (8, 0, 1)
    with pytest.raises(wasmforge.WasmtimeError, match="out of bounds"):
        old("poll_oneoff", 131072 - 56, BUFFER, 2, RESULT)


def test_the_rest_is_the_same(old: Old) -> None:
    fd = old.open(b"f")
    old.put(RECORDS, struct.pack("<II", BUFFER, 4))
    assert old("fd_read", fd, RECORDS, 1, RESULT) == 0
    assert old.at(BUFFER, "4s") == (b"0123",)
    assert old("clock_time_get", 0, 0, RESULT) == 0
    assert old.at(RESULT, "<Q")[0] > 10**18


def test_run_and_load(tmp_path: Path) -> None:
    text = """(module (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 3))))"""
    assert wasmforge.run(text).returncode == 3
    with pytest.raises(wasmforge.ExitTrap):
        wasmforge.load(text, wasi=wasmforge.WasiConfig())._start()
