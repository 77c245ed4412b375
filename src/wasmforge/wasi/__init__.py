"""WASI: the system interface of guest programs. `preview1` defines the functions of `wasi_snapshot_preview1` in a
linker; `WasiConfig` says what a guest may see; the rest is internal.

The names are imported when they are first used: the command line needs the functions and not the configuration class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.wasi.clocks import Clocks, FixedClocks
    from wasmforge.wasi.config import DirPerms, FilePerms, WasiConfig
    from wasmforge.wasi.memory_directory import MemoryDirectory, Symlink
    from wasmforge.wasi.remote_directory import FsspecDirectory
    from wasmforge.wasi.zip_directory import ZipDirectory

__all__ = [
    "Clocks",
    "DirPerms",
    "FilePerms",
    "FixedClocks",
    "FsspecDirectory",
    "MemoryDirectory",
    "Symlink",
    "WasiConfig",
    "ZipDirectory",
]

_MODULES = {
    "Clocks": "clocks",
    "DirPerms": "config",
    "FilePerms": "config",
    "FixedClocks": "clocks",
    "FsspecDirectory": "remote_directory",
    "MemoryDirectory": "memory_directory",
    "Symlink": "memory_directory",
    "WasiConfig": "config",
    "ZipDirectory": "zip_directory",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'wasmforge.wasi' has no attribute {name!r}")
    return getattr(__import__(f"wasmforge.wasi.{module}", fromlist=(name,)), name)
