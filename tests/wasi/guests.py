"""A guest for tests, driven from Python: it calls WASI functions one by one and looks at the results in its memory.

`DirectGuest` calls the functions of the table on a memory of its own, without any WebAssembly, so that the tests of the
sandbox are fast and independent of the compilers. `PackageGuest` calls those of the wasmtime package, to compare.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import I32
from wasmforge.wasi import abi
from wasmforge.wasi.context import WasiContext
from wasmforge.wasi.errno import NAMES
from wasmforge.wasi.guest_memory import GuestMemory
from wasmforge.wasi.host_files import HostDirectory
from wasmforge.wasi.preview1 import FUNCTIONS, MODULE_NAME, host_function

MEMORY_SIZE = 2 * 65536
RESULT = 256  # where calls put their results
RESULT2 = 512
RECORDS = 1024  # iovecs, subscriptions
STRINGS = 8192  # paths
BUFFER = 32768

RIGHTS_READ = abi.RIGHTS_FD_READ
RIGHTS_WRITE = abi.RIGHTS_FD_WRITE
PREOPEN = 3


class Guest:
    """What both kinds have in common. Calls return the name of an errno, "trap" for a WasmtimeError, or "exit N"."""

    memory: Any

    def raw(self, name: str, *values: int) -> Any:
        raise NotImplementedError

    def put(self, at: int, data: bytes) -> None:
        raise NotImplementedError

    def bytes_at(self, at: int, length: int) -> bytes:
        raise NotImplementedError

    def call(self, name: str, *arguments: int | str | bytes) -> str:
        """Calls a function; a string stands for a pointer to it in memory and its length."""
        values: list[int] = []
        at = STRINGS
        for argument in arguments:
            if isinstance(argument, int):
                values.append(argument)
                continue
            data = argument.encode() if isinstance(argument, str) else argument
            self.put(at, data)
            values += [at, len(data)]
            at += len(data) + 16
        row = next(f for f in FUNCTIONS if f.name == name)
        assert len(values) == len(row.type.params), f"{name} takes {row.type}"
        signed = [_signed(value, 32 if ty == I32 else 64) for value, ty in zip(values, row.type.params, strict=True)]
        result = self.raw(name, *signed)
        return NAMES[result] if isinstance(result, int) else str(result)

    def unpack(self, layout: str | struct.Struct, at: int = RESULT) -> tuple[Any, ...]:
        record = struct.Struct(layout) if isinstance(layout, str) else layout
        return record.unpack(self.bytes_at(at, record.size))

    def u32(self, at: int = RESULT) -> int:
        return int(self.unpack("<I", at)[0])

    def u64(self, at: int = RESULT) -> int:
        return int(self.unpack("<Q", at)[0])

    # --- shorter forms of what nearly every test does
    def open(
        self,
        path: str | bytes,
        *,
        oflags: int = 0,
        rights: int = RIGHTS_READ,
        follow: bool = True,
        fdflags: int = 0,
        directory: int = PREOPEN,
    ) -> int | str:
        """The new descriptor, or the name of the errno."""
        result = self.call("path_open", directory, int(follow), path, oflags, rights, rights, fdflags, RESULT)
        return self.u32() if result == "success" else result

    def open_or_fail(self, path: str | bytes, **options: Any) -> int:
        fd = self.open(path, **options)
        assert isinstance(fd, int), f"path_open of {path!r}: {fd}"
        return fd

    def iovecs(self, *lengths: int) -> None:
        """Makes iovecs at RECORDS for consecutive buffers from BUFFER on."""
        records = b""
        at = BUFFER
        for length in lengths:
            records += struct.pack("<II", at, length)
            at += length
        self.put(RECORDS, records)

    def write(self, fd: int, data: bytes) -> int | str:
        self.put(BUFFER, data)
        self.iovecs(len(data))
        result = self.call("fd_write", fd, RECORDS, 1, RESULT)
        return self.u32() if result == "success" else result

    def read(self, fd: int, length: int = 1000) -> bytes | str:
        self.iovecs(length)
        result = self.call("fd_read", fd, RECORDS, 1, RESULT)
        return self.bytes_at(BUFFER, self.u32()) if result == "success" else result

    def stat(self, path: str | bytes, follow: bool = True, directory: int = PREOPEN) -> dict[str, int] | str:
        result = self.call("path_filestat_get", directory, int(follow), path, RESULT)
        return self._filestat() if result == "success" else result

    def fstat(self, fd: int) -> dict[str, int] | str:
        result = self.call("fd_filestat_get", fd, RESULT)
        return self._filestat() if result == "success" else result

    def _filestat(self) -> dict[str, int]:
        fields = ("dev", "ino", "type", "nlink", "size", "atim", "mtim", "ctim")
        return dict(zip(fields, self.unpack(abi.FILESTAT), strict=True))

    def listdir(self, fd: int = PREOPEN, buffer: int = 4096) -> list[tuple[str, int]] | str:
        """Names and types, read as wasi-libc does: from the cookie of the last whole entry on."""
        entries = []
        cookie = 0
        while True:
            result = self.call("fd_readdir", fd, BUFFER, buffer, cookie, RESULT)
            if result != "success":
                return result
            used = self.u32()
            data = self.bytes_at(BUFFER, used)
            at = 0
            while at + abi.DIRENT.size <= used:
                next_cookie, _, length, file_type = abi.DIRENT.unpack_from(data, at)
                name = data[at + abi.DIRENT.size : at + abi.DIRENT.size + length]
                if len(name) < length:
                    break
                entries.append((name.decode(), file_type))
                cookie = next_cookie
                at += abi.DIRENT.size + length
            if used < buffer:
                return entries


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


class DirectGuest(Guest):
    """The functions of the table, called as compiled code calls them, on a bytearray."""

    def __init__(self, *directories: object, context: WasiContext | None = None, size: int = MEMORY_SIZE) -> None:
        self.context = context if context is not None else WasiContext()
        for directory in directories:
            self.context.preopen(HostDirectory.preopen(str(directory), b"/guest", 3, 3))
        self.memory = bytearray(size)
        memory = GuestMemory(memoryview(self.memory))
        self._functions = {f.name: host_function(f, lambda _: (self.context, memory)) for f in FUNCTIONS}

    def raw(self, name: str, *values: int) -> int | str:
        try:
            return self._functions[name](None, *values)
        except WasmtimeError as error:
            return f"exit {error.code}" if hasattr(error, "code") else "trap"

    def put(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def bytes_at(self, at: int, length: int) -> bytes:
        return bytes(self.memory[at : at + length])

    def close(self) -> None:
        self.context.close()


def reexporting_module(functions: Iterable[str] | None = None) -> str:
    """WAT of a module that exports every function of the table under its own name, through a wasm function."""
    chosen = [f for f in FUNCTIONS if functions is None or f.name in functions]
    imports, exports = [], []
    for f in chosen:
        params = "".join(f" {'i32' if t == I32 else 'i64'}" for t in f.type.params)
        signature = f"(param{params})" + (" (result i32)" if f.type.results else "")
        arguments = " ".join(f"(local.get {i})" for i in range(len(f.type.params)))
        imports.append(f'(import "{MODULE_NAME}" "{f.name}" (func ${f.name} {signature}))')
        exports.append(f'(func (export "{f.name}") {signature} (call ${f.name} {arguments}))')
    lines = [*imports, f'(memory (export "memory") {MEMORY_SIZE // 65536})', *exports]
    return "(module\n  " + "\n  ".join(lines) + ")"


class PackageGuest(Guest):
    """The WASI of the wasmtime package, called through a module that re-exports it."""

    _compiled: Any = None

    def __init__(self, *directories: object, perms: tuple[str, str] = ("READ_WRITE", "READ_WRITE")) -> None:
        import wasmtime

        self._wasmtime = wasmtime
        if PackageGuest._compiled is None:
            engine = wasmtime.Engine()
            PackageGuest._compiled = engine, wasmtime.Module(engine, reexporting_module())
        engine, module = PackageGuest._compiled
        self._store = wasmtime.Store(engine)
        config = wasmtime.WasiConfig()
        for directory in directories:
            config.preopen_dir(
                str(directory), "/guest", getattr(wasmtime.DirPerms, perms[0]), getattr(wasmtime.FilePerms, perms[1])
            )
        self._store.set_wasi(config)
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        self._exports = linker.instantiate(self._store, module).exports(self._store)
        self.memory = self._exports["memory"]

    def raw(self, name: str, *values: int) -> int | str:
        try:
            result: int = self._exports[name](self._store, *values)
        except self._wasmtime.ExitTrap as error:
            return f"exit {error.code}"
        except (self._wasmtime.WasmtimeError, self._wasmtime.Trap):
            return "trap"
        return result

    def put(self, at: int, data: bytes) -> None:
        self.memory.write(self._store, data, at)

    def bytes_at(self, at: int, length: int) -> bytes:
        return bytes(self.memory.read(self._store, at, at + length))

    def close(self) -> None:
        self._store.close()
