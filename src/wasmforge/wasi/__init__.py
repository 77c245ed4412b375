"""WASI: the system interface of guest programs. `preview1` defines the functions of `wasi_snapshot_preview1` in a
linker; `WasiConfig` says what a guest may see; the rest is internal.
"""

from __future__ import annotations

from wasmforge.wasi.config import DirPerms, FilePerms, WasiConfig

__all__ = ["DirPerms", "FilePerms", "WasiConfig"]
