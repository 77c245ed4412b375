"""The import hook: after `import wasmforge.loader`, `import name` finds `name.wasm` and `name.wat` beside Python
modules, compiles them and makes their exports attributes (the wasmtime package's `wasmtime.loader`).

What a module imports is looked up in Python: `(import "names" "f" ...)` is the attribute `f` of the Python module
`names`, which may be another WebAssembly module. Programs for WASI get a system interface with the streams of this
process and nothing else. All modules live in one store.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

from wasmforge.loading import load
from wasmforge.module import Module
from wasmforge.store import Store
from wasmforge.wasi import WasiConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

__all__ = ["store"]

store = Store()
"""The store of everything that this hook has loaded."""

_SUFFIXES = (".wasm", ".wat")
_SYSTEM = ("wasi_snapshot_preview1", "wasi_unstable")


class _WasmLoader(Loader):
    def __init__(self, path: Path) -> None:
        self.path = path

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        compiled = Module.from_file(store.engine, self.path)
        imports: dict[str, dict[str, Any]] = {}
        system = False
        for wanted in compiled.imports:
            if wanted.module in _SYSTEM:
                system = True
                continue
            source = import_module(wanted.module)
            imports.setdefault(wanted.module, {})[wanted.name or ""] = getattr(source, wanted.name or "")
        loaded = load(compiled, imports, store=store, wasi=_streams() if system else None)
        module.__dict__.update({name: getattr(loaded, name) for name in dir(loaded) if not name.startswith("_")})
        module.__dict__["__wasm__"] = loaded


def _streams() -> WasiConfig:
    config = WasiConfig()
    config.inherit_stdin()
    config.inherit_stdout()
    config.inherit_stderr()
    return config


class _WasmFinder(MetaPathFinder):
    """Asked after all other finders, so that Python's own modules come first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = fullname.rpartition(".")[2]
        for folder in sys.path if path is None else path:
            for suffix in _SUFFIXES:
                file = Path(folder or ".") / f"{name}{suffix}"
                if file.is_file():
                    return spec_from_file_location(fullname, file, loader=_WasmLoader(file))
        return None


sys.meta_path.append(_WasmFinder())
