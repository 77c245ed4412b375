"""The bundle: the bytecode of all modules that an engine needs, in one file beside their own `.pyc` files. The
package's `__getattr__` imports those modules through `import_together`, which is most of the work of a process that
maps an image and calls it.

For each of fifty modules the import system looks into directories, asks for the state of five files and opens one: 3 ms
in all, more than running the modules takes. Here a finder stands in front of the others while they are imported, and
hands out code from the bundle; everything else (locks, specs, sources for tracebacks) stays the import system's.

The bundle is used when size and time of each source are those it was made of, which is the rule of `.pyc` files. It
lies in `__pycache__`: whoever can write there can replace the modules anyway. Where that directory cannot be written,
or the interpreter was told to write no bytecode, none is made.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import source_hash

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Final

__all__ = ["import_together"]

_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))
_CHECK_SIZE: Final = 8


class _Loader(SourceFileLoader):
    """A source file whose code is there already."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code: CodeType | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        code, self._code = self._code, None
        return code or super().get_code(fullname)


class _Finder:
    def __init__(self, entries: list[tuple[str, str, int, int, CodeType]]) -> None:
        self._entries = {name: (path, code) for name, path, _, _, code in entries}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        file, code = entry
        package = file.endswith("__init__.py")
        spec = ModuleSpec(name, _Loader(name, file, code), origin=file, is_package=package)
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [file[: -len("/__init__.py")]]
        return spec


def import_together(names: Sequence[str]) -> None:
    """Imports modules and all that these import, from the bundle if there is one; else makes it for the next process.

    Meanwhile the garbage collector rests: what an import makes stays, so it would find nothing, for 2 ms.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        entries = _read()
        if entries is None:
            for name in names:
                __import__(name)
        else:
            finder = _Finder(entries)
            sys.meta_path.insert(0, finder)
            try:
                for name in names:
                    __import__(name)
            finally:
                sys.meta_path.remove(finder)
    finally:
        if collects:
            gc.enable()
    if entries is None and not sys.dont_write_bytecode:
        _write()


def _path() -> str:
    optimised = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
    return os.path.join(_FOLDER, "__pycache__", f"_start.{sys.implementation.cache_tag}{optimised}.bundle")


def _read() -> list[tuple[str, str, int, int, CodeType]] | None:
    """What the bundle holds: name, path, size and time of the source, code. None when it is missing or outdated."""
    if sys.pycache_prefix is not None:
        return None
    try:
        with open(_path(), "rb", buffering=0) as file:
            data = file.read()
        # Against damage: what is no marshalled value can crash the interpreter.
        if data[:_CHECK_SIZE] != source_hash(0, memoryview(data)[_CHECK_SIZE:]):
            return None
        magic, folder, entries = marshal.loads(memoryview(data)[_CHECK_SIZE:])
        if magic != MAGIC_NUMBER or folder != _FOLDER:
            return None
        for _, path, size, time, _ in entries:
            status = os.stat(path)
            if status.st_size != size or status.st_mtime_ns != time:
                return None
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return entries  # type: ignore[no-any-return]


def _write() -> None:
    """Makes the bundle of the modules of this package that are loaded now."""
    target = _path()
    if sys.pycache_prefix is not None or not os.access(os.path.dirname(target), os.W_OK):
        return
    entries = []
    temporary = f"{target}.{os.getpid()}"
    try:
        for name, module in list(sys.modules.items()):
            loader = getattr(module, "__loader__", None)
            if name.startswith("wasmforge.") and type(loader) is SourceFileLoader and name != __name__:
                path = loader.get_filename(name)
                before = os.stat(path)
                code = loader.get_code(name)
                after = os.stat(path)
                # A source that changes now may not be what runs here.
                if before.st_mtime_ns != after.st_mtime_ns or path[: len(_FOLDER)] != _FOLDER:
                    return
                entries.append((name, path, before.st_size, before.st_mtime_ns, code))
        data = marshal.dumps((MAGIC_NUMBER, _FOLDER, entries))
        with open(temporary, "xb") as file:
            file.write(source_hash(0, data) + data)
        os.replace(temporary, target)
    except (OSError, SyntaxError, ValueError):
        try:  # noqa: SIM105  # contextlib would take longer than all of this
            os.unlink(temporary)
        except OSError:
            pass
