"""What a WASI call costs: loops in wasm around the functions that programs call most, on a directory of the host."""

from __future__ import annotations

import tempfile
import time
from typing import Any, Final

GUEST: Final = """(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "\\00\\10\\00\\00\\00\\10\\00\\00")
  (data (i32.const 64) "file")
  (global $file (mut i32) (i32.const 0))
  (func $path_open (param $oflags i32) (param $rights i64) (result i32)
    (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 4) (local.get $oflags)
      (local.get $rights) (local.get $rights) (i32.const 0) (i32.const 128)))
  (func (export "prepare") (result i32) (local i32)
    (local.set 0 (call $path_open (i32.const 9) (i64.const 66)))
    (global.set $file (i32.load (i32.const 128)))
    (local.get 0))
  (func $rewind (result i32) (call $seek (global.get $file) (i64.const 0) (i32.const 0) (i32.const 128)))
  LOOPS)"""

# The name of a loop, what comes before it, and the calls in it, whose errno values are or-ed together.
LOOPS: Final = (
    ("clock", "", ["$clock (i32.const 1) (i64.const 0) (i32.const 128)"]),
    ("random", "", ["$random (i32.const 128) (i32.const 8)"]),
    ("sink", "", ["$write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 128)"]),
    ("write", "$rewind", ["$write (global.get $file) (i32.const 0) (i32.const 1) (i32.const 128)"]),
    ("read", "$rewind", ["$read (global.get $file) (i32.const 0) (i32.const 1) (i32.const 128)"]),
    ("open", "", ["$path_open (i32.const 0) (i64.const 2)", "$close (i32.load (i32.const 128))"]),
)


def guest() -> str:
    """The text of the module: a function a loop, which takes the number of rounds and returns the errno values."""

    def calls(texts: list[str]) -> str:
        return "".join(f"(local.set $bad (i32.or (local.get $bad) (call {text})))" for text in texts)

    functions = [
        f"""(func (export "{name}") (param $n i32) (result i32) (local $bad i32)
              {calls([before] if before else [])}
              (loop $l {calls(body)} (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
              (local.get $bad))"""
        for name, before, body in LOOPS
    ]
    return GUEST.replace("LOOPS", "".join(functions))


class WasiLoop:
    """A store with the guest and a directory that is removed at the end."""

    def __init__(self, package: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="wasmforge-bench-")
        engine = package.Engine()
        self.store = package.Store(engine)
        wasi = package.WasiConfig()
        wasi.preopen_dir(self._folder.name, "/")
        self.store.set_wasi(wasi)
        linker = package.Linker(engine)
        linker.define_wasi()
        self._exports = linker.instantiate(self.store, package.Module(engine, guest())).exports(self.store)
        assert self._exports["prepare"](self.store) == 0

    def seconds(self, function: str, count: int) -> float:
        """CPU time of the process a call, threads of the runtime included; `read` needs what `write` has written."""
        entry = self._exports[function]
        start = time.process_time()
        failed = entry(self.store, count)
        elapsed = time.process_time() - start
        assert failed == 0, f"{function}: errno {failed}"
        return elapsed / count
