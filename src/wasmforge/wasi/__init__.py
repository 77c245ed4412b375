"""WASI: the system interface of guest programs. `preview1` defines the functions of `wasi_snapshot_preview1` in a
linker; `WasiConfig` says what a guest may see; the rest is internal.

The names are imported when they are first used: the command line needs the functions and not the configuration class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.wasi.config import DirPerms, FilePerms, WasiConfig

__all__ = ["DirPerms", "FilePerms", "WasiConfig"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'wasmforge.wasi' has no attribute {name!r}")
    from wasmforge.wasi import config

    return getattr(config, name)
