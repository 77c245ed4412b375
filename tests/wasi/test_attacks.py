"""Attacks by guests, programs in WebAssembly text that run as any program does: escapes from their directory, and
attempts to exhaust the host. Each is stopped; and the same guest, with the wall taken away and everything else as it
is, shows what it would have reached. (`test_escape.py` attacks function by function, with many more cases.)
"""

from __future__ import annotations

import os
import resource
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.test_escape import ESCAPES, SECRET, full_paths, outside, resolver, root
from wasmforge.store import store_data
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi import abi
from wasmforge.wasi.context import WasiContext
from wasmforge.wasi.descriptors import CustomOutput, Descriptor, FileStatus
from wasmforge.wasi.errno import NAMES
from wasmforge.wasi.host_files import HostDirectory, HostFile, _status

__all__ = ["outside", "resolver", "root"]  # fixtures

P1 = "wasi_snapshot_preview1"

# Arguments: what to do (a letter), and a path. Exits with the errno; what it could read goes to standard output.
ATTACKER = f"""(module
  (import "{P1}" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "{P1}" "args_get" (func $args (param i32 i32) (result i32)))
  (import "{P1}" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{P1}" "path_readlink" (func $readlink (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "{P1}" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "{P1}" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{P1}" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "{P1}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{P1}" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (data (i32.const 512) "owned")
  (data (i32.const 528) "file")
  (func $try (param $errno i32) (if (local.get $errno) (then (call $exit (local.get $errno)))))
  (func $open_path (param $path i32) (param $length i32) (param $oflags i32) (param $rights i64) (result i32)
    (call $try (call $open (i32.const 3) (i32.const 1) (local.get $path) (local.get $length) (local.get $oflags)
      (local.get $rights) (local.get $rights) (i32.const 0) (i32.const 64)))
    (i32.load (i32.const 64)))
  (func $print (param $at i32) (param $length i32)
    (i32.store (i32.const 72) (local.get $at))
    (i32.store (i32.const 76) (local.get $length))
    (call $try (call $write (i32.const 1) (i32.const 72) (i32.const 1) (i32.const 80))))
  (func (export "_start") (local $op i32) (local $path i32) (local $length i32) (local $fd i32)
    (call $try (call $sizes (i32.const 0) (i32.const 4)))
    (call $try (call $args (i32.const 16) (i32.const 65536)))
    (local.set $op (i32.load8_u (i32.load (i32.const 20))))
    (local.set $path (i32.load (i32.const 24)))
    (loop $l (if (i32.load8_u (i32.add (local.get $path) (local.get $length))) (then
      (local.set $length (i32.add (local.get $length) (i32.const 1))) (br $l))))
    (if (i32.eq (local.get $op) (i32.const 0x72)) (then  ;; r: read a file
      (local.set $fd (call $open_path (local.get $path) (local.get $length) (i32.const 0) (i64.const 2)))
      (i32.store (i32.const 72) (i32.const 4096))
      (i32.store (i32.const 76) (i32.const 1000))
      (call $try (call $read (local.get $fd) (i32.const 72) (i32.const 1) (i32.const 80)))
      (call $print (i32.const 4096) (i32.load (i32.const 80)))))
    (if (i32.eq (local.get $op) (i32.const 0x77)) (then  ;; w: write one
      (local.set $fd (call $open_path (local.get $path) (local.get $length) (i32.const 1) (i64.const 64)))
      (i32.store (i32.const 72) (i32.const 512))
      (i32.store (i32.const 76) (i32.const 5))
      (call $try (call $write (local.get $fd) (i32.const 72) (i32.const 1) (i32.const 80)))))
    (if (i32.eq (local.get $op) (i32.const 0x64)) (then  ;; d: list a directory
      (local.set $fd (call $open_path (local.get $path) (local.get $length) (i32.const 2) (i64.const 0x4000)))
      (call $try (call $readdir (local.get $fd) (i32.const 4096) (i32.const 8192) (i64.const 0) (i32.const 80)))
      (call $print (i32.const 4096) (i32.load (i32.const 80)))))
    (if (i32.eq (local.get $op) (i32.const 0x73)) (then  ;; s: size and times
      (call $try (call $stat (i32.const 3) (i32.const 1) (local.get $path) (local.get $length) (i32.const 96)))
      (call $print (i32.const 128) (i32.const 8))))
    (if (i32.eq (local.get $op) (i32.const 0x6c)) (then  ;; l: where a link leads
      (call $try (call $readlink (i32.const 3) (local.get $path) (local.get $length) (i32.const 4096)
        (i32.const 1000) (i32.const 80)))
      (call $print (i32.const 4096) (i32.load (i32.const 80)))))
    (if (i32.eq (local.get $op) (i32.const 0x6d)) (then  ;; m: make a directory
      (call $try (call $mkdir (i32.const 3) (local.get $path) (local.get $length)))))
    (if (i32.eq (local.get $op) (i32.const 0x75)) (then  ;; u: remove a file
      (call $try (call $unlink (i32.const 3) (local.get $path) (local.get $length)))))
    (if (i32.eq (local.get $op) (i32.const 0x6e)) (then  ;; n: move the own file there
      (call $try (call $rename (i32.const 3) (i32.const 528) (i32.const 4) (i32.const 3) (local.get $path)
        (local.get $length)))))
    (if (i32.eq (local.get $op) (i32.const 0x66)) (then  ;; f: fetch a file by renaming it
      (call $try (call $rename (i32.const 3) (local.get $path) (local.get $length) (i32.const 3) (i32.const 512)
        (i32.const 5)))))
    (if (i32.eq (local.get $op) (i32.const 0x68)) (then  ;; h: a hard link to it
      (call $try (call $link (i32.const 3) (i32.const 0) (local.get $path) (local.get $length) (i32.const 3)
        (i32.const 512) (i32.const 5)))))))"""


@cache
def module_of(text: str) -> wasmforge.Module:
    config = wasmforge.Config()
    config.strategy = "baseline"  # no other processes, whose pipes would count as descriptors
    return wasmforge.Module(wasmforge.Engine(config), text)


class Naive(HostDirectory):
    """A directory without the wall: paths go to the host by name, as in a runtime that does not care. Everything else
    is what guests always have."""

    __slots__ = ()

    def open_at(self, path: bytes, follow: bool, oflags: int, rights: int, fdflags: int) -> Descriptor:
        flags = os.O_RDWR | os.O_CREAT if oflags & abi.OFLAGS_CREAT else os.O_RDONLY
        descriptor = os.open(path, flags, dir_fd=self.descriptor)
        if oflags & abi.OFLAGS_DIRECTORY:
            return HostDirectory(descriptor, 3, 3)
        return HostFile(
            descriptor, abi.FILETYPE_REGULAR_FILE, readable=True, writable=True, may_write=True, flags=fdflags
        )

    def status_at(self, path: bytes, follow: bool) -> FileStatus:
        return _status(os.stat(path, dir_fd=self.descriptor))

    def readlink_at(self, path: bytes) -> bytes:
        return os.readlink(path, dir_fd=self.descriptor)

    def create_directory_at(self, path: bytes) -> None:
        os.mkdir(path, dir_fd=self.descriptor)

    def unlink_file_at(self, path: bytes) -> None:
        os.unlink(path, dir_fd=self.descriptor)

    def rename_at(self, path: bytes, target: Descriptor, target_path: bytes) -> None:
        os.rename(path, target_path, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def link_at(self, path: bytes, follow: bool, target: Descriptor, target_path: bytes) -> None:
        os.link(path, target_path, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor, follow_symlinks=False)


def attack(directory: HostDirectory, operation: str, path: str) -> tuple[str, bytes]:
    """Runs the attacker: the name of its errno, and what it could print."""
    output = bytearray()
    module = module_of(ATTACKER)
    store = wasmforge.Store(module._engine)
    context = WasiContext(["attacker", operation, path], (), (None, CustomOutput(output.extend), None))
    context.preopen(directory)
    store_data(store).wasi = context
    linker = wasmforge.Linker(module._engine)
    linker.define_wasi()
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)  # type: ignore[operator]
    except wasmforge.ExitTrap as error:
        return NAMES[error.code], bytes(output)
    finally:
        context.close()
    return "success", bytes(output)


def state(place: Path) -> list[tuple[str, object]]:
    """Everything about a directory that an attack could change."""
    return [
        (str(p.relative_to(place)), p.read_bytes() if p.is_file() else "directory") for p in sorted(place.rglob("*"))
    ]


# Paths to what lies beside the guest's directory, and what is done with them.
TO_SECRET = ESCAPES
TO_DIRECTORY = ("..", "../outside", "sub/../../outside", "absolute-directory", "relative-directory", "parent", "root")
INTO_OUTSIDE = (
    *("../outside/made", "sub/deep/../../../outside/made", "absolute-directory/made", "relative-directory/made"),
    *("parent/outside/made", "sub/../relative-directory/directory/made"),
)
ATTACKS = (
    *(("r", path) for path in TO_SECRET),
    *(("s", path) for path in TO_SECRET),
    *(("d", path) for path in TO_DIRECTORY),
    *(("w", path) for path in (*INTO_OUTSIDE, *TO_SECRET[:4], "absolute", "relative", "chain")),
    *((operation, path) for operation in "mn" for path in INTO_OUTSIDE),
    *((operation, path) for operation in "ufh" for path in ("../outside/secret", "absolute-directory/secret")),
    *((operation, path) for operation in "ufh" for path in ("relative-directory/secret", "parent/outside/secret")),
    *(("l", path) for path in ("absolute", "absolute-directory", "proc-root", "root")),
)


def test_there_are_enough_attacks() -> None:
    assert len(set(ATTACKS)) == len(ATTACKS) > 90


@pytest.mark.parametrize(("operation", "path"), ATTACKS)
def test_escape(root: Path, outside: Path, resolver: str, operation: str, path: str) -> None:
    """The guest learns nothing and changes nothing. Without the wall, the same guest learns the secret or changes the
    host, so that this attack is a real one."""
    before = state(outside)
    errno, learnt = attack(HostDirectory.preopen(root, b"/", 3, 3), operation, path)
    assert errno in ("perm", "loop", "exist", "busy"), errno
    assert learnt == b""
    assert state(outside) == before
    assert (root / "file").read_text() == "inside"

    errno, learnt = attack(Naive.preopen(root, b"/", 3, 3), operation, path)
    assert errno == "success", f"no attack at all: {errno}"
    if operation == "r":
        assert learnt == SECRET
    elif operation in "sdl":
        assert learnt
    elif operation == "h":
        assert (root / "owned").read_bytes() == SECRET
    else:
        assert state(outside) != before


def test_absolute_paths(root: Path, outside: Path, resolver: str) -> None:
    for path in full_paths(root, outside):
        assert attack(HostDirectory.preopen(root, b"/", 3, 3), "r", path) == ("perm", b"")
        assert attack(Naive.preopen(root, b"/", 3, 3), "r", path) == ("success", SECRET)


# --- Exhaustion: what a program does again and again, or with the largest numbers, until it is stopped

IMPORTS = f"""
  (import "{P1}" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "{P1}" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "{P1}" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "path_link" (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "{P1}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{P1}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{P1}" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (import "{P1}" "fd_filestat_set_size" (func $truncate (param i32 i64) (result i32)))
  (import "{P1}" "fd_allocate" (func $allocate (param i32 i64 i64) (result i32)))
  (import "{P1}" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "{P1}" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (import "{P1}" "random_get" (func $random (param i32 i32) (result i32)))
  (import "{P1}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "{P1}" "proc_exit" (func $exit (param i32)))
  (import "{P1}" "proc_raise" (func $raise (param i32) (result i32)))
  (memory (export "memory") 64)
  (data (i32.const 64) "abcdefgh")
  (func $try (param $errno i32) (if (local.get $errno) (then (call $exit (local.get $errno)))))
  (func $file (result i32)
    (call $try (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 1) (i64.const 66)
      (i64.const 66) (i32.const 0) (i32.const 16)))
    (i32.load (i32.const 16)))
  ;; A name that is another one each time, at 256, of 8 letters.
  (global $n (mut i64) (i64.const 0))
  (func $name (global.set $n (i64.add (global.get $n) (i64.const 1)))
    (i64.store (i32.const 256) (i64.add (i64.const 0x6161616161616161)
      (i64.or (i64.and (global.get $n) (i64.const 0xf))
      (i64.or (i64.and (i64.shl (global.get $n) (i64.const 4)) (i64.const 0xf00))
      (i64.or (i64.and (i64.shl (global.get $n) (i64.const 8)) (i64.const 0xf0000))
              (i64.and (i64.shl (global.get $n) (i64.const 12)) (i64.const 0xf000000))))))))
"""

EXHAUSTION: dict[str, tuple[str, str]] = {
    # what the guest does in an endless loop or once, and how it ends: an errno, or the exception
    "opens files without end": ("(loop $l (drop (call $file)) (br $l))", "OpenFilesLimitExceeded"),
    "opens directories without end": (
        (
            "(loop $l (call $try (call $open (i32.const 3) (i32.const 0) (i32.const 67) (i32.const 1) (i32.const 2)"
            " (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16))) (br $l))"
        ),
        "OpenFilesLimitExceeded",
    ),
    "makes files without end": (
        (
            "(loop $l (call $name) (call $try (call $open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const 8)"
            " (i32.const 1) (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 16)))"
            " (call $try (call $renumber (i32.load (i32.const 16)) (i32.const 1))) (br $l))"
        ),
        "nospc",
    ),
    "makes directories without end": (
        "(loop $l (call $name) (call $try (call $mkdir (i32.const 3) (i32.const 256) (i32.const 8))) (br $l))",
        "nospc",
    ),
    "makes links without end": (
        (
            "(loop $l (call $name) (call $try (call $symlink (i32.const 64) (i32.const 8) (i32.const 3) (i32.const 256)"
            " (i32.const 8))) (br $l))"
        ),
        "nospc",
    ),
    "makes hard links without end": (
        (
            "(drop (call $file)) (loop $l (call $name)"
            " (call $try (call $link (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1)"
            " (i32.const 3) (i32.const 256) (i32.const 8))) (br $l))"
        ),
        "nospc",
    ),
    "writes a file without end": (
        (
            "(local i32) (local.set 0 (call $file)) (i32.store (i32.const 4) (i32.const 65536))"
            " (loop $l (call $try (call $write (local.get 0) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))"
        ),
        "nospc",
    ),
    "makes a file of an exabyte": ("(call $try (call $truncate (call $file) (i64.const 0x1000000000000000)))", "nospc"),
    "makes a file of all bytes": ("(call $try (call $truncate (call $file) (i64.const -1)))", "inval"),
    "allocates an exabyte": (
        "(call $try (call $allocate (call $file) (i64.const 0) (i64.const 0x1000000000000000)))",
        "notsup",
    ),
    "writes at an exabyte": (
        (
            "(i32.store (i32.const 4) (i32.const 1)) (call $try (call $pwrite (call $file) (i32.const 0) (i32.const 1)"
            " (i64.const 0x1000000000000000) (i32.const 8)))"
        ),
        "nospc",
    ),
    "writes at the end of all": (
        (
            "(i32.store (i32.const 4) (i32.const 1)) (call $try (call $pwrite (call $file) (i32.const 0) (i32.const 1)"
            " (i64.const 0x7fffffffffffffff) (i32.const 8)))"
        ),
        "fbig",
    ),
    "prints without end": (
        (
            "(i32.store (i32.const 4) (i32.const 65536))"
            " (loop $l (call $try (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))"
        ),
        "OutputLimitExceeded",
    ),
    "prints the same megabyte through many buffers": (
        (
            "(local i32) (loop $l"
            " (i32.store (i32.add (i32.const 65536) (i32.mul (local.get 0) (i32.const 8))) (i32.const 0))"
            " (i32.store (i32.add (i32.const 65540) (i32.mul (local.get 0) (i32.const 8))) (i32.const 1048576))"
            " (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100000))))"
            " (loop $m (call $try (call $write (i32.const 2) (i32.const 65536) (i32.const 100000) (i32.const 8)))"
            " (br $m))"
        ),
        "OutputLimitExceeded",
    ),
    "has a list of buffers of four gigabytes": (
        "(call $try (call $write (i32.const 1) (i32.const 0) (i32.const 0x1fffffff) (i32.const 8)))",
        "out of bounds",
    ),
    "has a count of buffers that wraps": (
        "(call $try (call $write (i32.const 1) (i32.const 0) (i32.const 0x20000001) (i32.const 8)))",
        "out of bounds",
    ),
    "has a path of four gigabytes": (
        "(call $try (call $mkdir (i32.const 3) (i32.const 64) (i32.const -64)))",
        "out of bounds",
    ),
    "has a path of a megabyte": (
        (
            "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))"
            " (call $try (call $mkdir (i32.const 3) (i32.const 65536) (i32.const 1048576)))"
        ),
        "nametoolong",
    ),
    "has a path of empty components": (
        (
            "(memory.fill (i32.const 65536) (i32.const 47) (i32.const 4095))"
            " (i32.store8 (i32.const 65536) (i32.const 97))"
            " (loop $l (drop (call $mkdir (i32.const 3) (i32.const 65536) (i32.const 4095))) (br $l))"
        ),
        "TimeoutExpired",
    ),
    "follows a link to itself without end": (
        (
            "(call $try (call $symlink (i32.const 64) (i32.const 1) (i32.const 3) (i32.const 64) (i32.const 1)))"
            " (loop $l (drop (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0)"
            " (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16))) (br $l))"
        ),
        "TimeoutExpired",
    ),
    "waits for four gigabytes of events": (
        "(call $try (call $poll (i32.const 0) (i32.const 0) (i32.const 0x10000000) (i32.const 8)))",
        "out of bounds",
    ),
    "waits for more events than there may be": (
        "(call $try (call $poll (i32.const 65536) (i32.const 65536) (i32.const 5000) (i32.const 8)))",
        "inval",
    ),
    "waits for 584 years": (
        (
            "(i64.store (i32.const 144) (i64.const 1)) (i64.store (i32.const 152) (i64.const -1))"
            " (call $try (call $poll (i32.const 128) (i32.const 512) (i32.const 1) (i32.const 8)))"
        ),
        "TimeoutExpired",
    ),
    "wants four gigabytes of random numbers": (
        "(call $try (call $random (i32.const 64) (i32.const -64)))",
        "out of bounds",
    ),
    "wants random numbers without end": (
        "(loop $l (call $try (call $random (i32.const 0) (i32.const 4194304))) (br $l))",
        "TimeoutExpired",
    ),
    "lists a directory into four gigabytes": (
        "(call $try (call $readdir (i32.const 3) (i32.const 64) (i32.const -64) (i64.const 0) (i32.const 8)))",
        "out of bounds",
    ),
    "lists a directory from a cookie that nobody gave": (
        (
            "(call $try (call $readdir (i32.const 3) (i32.const 4096) (i32.const 4096) (i64.const -1) (i32.const 8)))"
            " (call $exit (i32.load (i32.const 8)))"
        ),
        "success",
    ),
    "moves a descriptor to the largest number": ("(call $try (call $renumber (i32.const 0) (i32.const -1)))", "badf"),
    "raises a signal": ("(call $try (call $raise (i32.const 9)))", "notsup"),
    "grows its memory without end": (
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
        "MemoryLimitExceeded",
    ),
    "grows its memory at once": ("(drop (memory.grow (i32.const 65000))) (unreachable)", "MemoryLimitExceeded"),
    "calls itself without end": ("(call $recursion)", "call stack exhausted"),
    "computes without end": ("(loop $l (br $l))", "TimeoutExpired"),
    "copies memory without end": (
        "(loop $l (memory.copy (i32.const 0) (i32.const 1) (i32.const 4000000)) (br $l))",
        "TimeoutExpired",
    ),
    "reads standard input without end": (
        (
            "(i32.store (i32.const 4) (i32.const 65536))"
            " (loop $l (call $try (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))"
        ),
        "TimeoutExpired",
    ),
}


@pytest.mark.parametrize("what", EXHAUSTION)
def test_exhaustion(what: str) -> None:
    """How it ends; that the host has grown by little; and that its descriptors are closed."""
    body, expected = EXHAUSTION[what]
    module = module_of(f'(module {IMPORTS} (func $recursion (call $recursion)) (func (export "_start") {body}))')
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    descriptors = len(os.listdir("/proc/self/fd"))
    limits: dict[str, Any] = {"timeout": 0.3 if expected == "TimeoutExpired" else 60, "max_memory": 16 << 20}
    files = wasmforge.MemoryDirectory({"d": {}}, max_size=4 << 20)
    try:
        result = wasmforge.run(module, files=files, max_output=1 << 20, max_open_files=50, **limits)
    except (wasmforge.Trap, WasmtimeError) as error:
        assert expected in (type(error).__name__, "out of bounds", "call stack exhausted"), repr(error)
        if expected in ("out of bounds", "call stack exhausted"):
            assert expected in str(error)
    else:
        assert NAMES[result.returncode] == expected
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 << 10, "KiB"
