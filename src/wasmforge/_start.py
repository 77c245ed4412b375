"""Bundles: the bytecode of modules that are needed together, in one file a group beside their own `.pyc` files. The
groups are in `_start_groups`; whoever is about to need one calls `import_together`. Importing is most of the work of a
process that maps an image and calls it, and a third of that of one that runs a program from the cache.

For each of a hundred modules the import system looks into directories, asks for the state of five files and opens one,
which takes more time than running the modules does. Here they are loaded one after the other in the order in which
they need each other, by the import system's own function for a module that was found, under its lock. A finder stands
in front of the others meanwhile, for what is imported out of this order.

A bundle is used when size and time of each source are those it was made of, which is the rule of `.pyc` files. It
lies in `__pycache__`: whoever can write there can replace the modules anyway. Where that directory cannot be written,
or the interpreter was told to write no bytecode, none is made.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec, _load_unlocked, _ModuleLockManager  # type: ignore[attr-defined]
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import source_hash
from mmap import MAP_POPULATE, MAP_PRIVATE, PROT_READ, mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, Final

    Entry = tuple[str, str, str | None, int, int, CodeType | None]
    """Name of the module, path of the source and of its bytecode, size and time of the source, code. The first entry
    is that of the groups, without code."""

__all__ = ["import_together"]

_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))
_GROUPS: Final = os.path.join(_FOLDER, "_start_groups.py")
_CHECK_SIZE: Final = 8
_PACKAGE_FILE: Final = "/__init__.py"

_done: Final[set[str]] = set()


class _Loader(SourceFileLoader):
    """A source file whose code is there already."""

    def __init__(self, name: str, path: str, code: CodeType | None) -> None:
        self.name = name
        self.path = path
        self._code = code

    def get_code(self, fullname: str) -> CodeType | None:
        code, self._code = self._code, None
        return code or super().get_code(fullname)


class _Finder:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry[0]: entry for entry in entries}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        entry = self._entries.get(name)
        return None if entry is None else _spec(entry)


def _spec(entry: Entry) -> ModuleSpec:
    name, path, cached, _, _, code = entry
    package = path.endswith(_PACKAGE_FILE)
    spec = ModuleSpec(name, _Loader(name, path, code), origin=path, is_package=package)
    spec.has_location = True
    spec.cached = cached
    if package:
        spec.submodule_search_locations = [path[: -len(_PACKAGE_FILE)]]
    return spec


def import_together(*groups: str) -> None:
    """Imports groups of modules and all that these import, from bundles where there are some; others are made for the
    next process.

    Meanwhile the garbage collector rests: what an import makes stays, so it would find nothing, for 2 ms.
    """
    for group in groups:
        if group in _done:
            continue
        collects = gc.isenabled()
        gc.disable()
        try:
            entries = _read(group)
            if entries is None:
                from wasmforge._start_groups import GROUPS

                for name in GROUPS[group]:
                    __import__(name)
            else:
                _import_entries(entries)
            _done.add(group)
        finally:
            if collects:
                # All objects become old without being looked at, which would take as long as it was put off for.
                if not gc.get_freeze_count():
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
        if entries is None and not sys.dont_write_bytecode:
            _write(group, GROUPS[group])


def _import_entries(entries: Sequence[Entry]) -> None:
    modules = sys.modules
    finder: Any = _Finder(entries)
    sys.meta_path.insert(0, finder)
    try:
        for entry in entries:
            name = entry[0]
            if name in modules or entry[5] is None:
                continue
            parent, _, child = name.rpartition(".")
            if parent not in modules:
                __import__(name)
                continue
            with _ModuleLockManager(name):
                if name not in modules:  # still: another thread may have loaded it while this one waited
                    setattr(modules[parent], child, _load_unlocked(_spec(entry)))
    finally:
        sys.meta_path.remove(finder)


def _path(group: str) -> str:
    optimised = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
    return os.path.join(_FOLDER, "__pycache__", f"_start.{sys.implementation.cache_tag}{optimised}.{group}.bundle")


def _read(group: str) -> Sequence[Entry] | None:
    """What the bundle holds. None when it is missing or outdated."""
    if sys.pycache_prefix is not None:
        return None
    try:
        fd = os.open(_path(group), os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Mapped, since each page of a copy would be a fault. Bundles are replaced, never written to.
            data = mmap(fd, 0, flags=MAP_PRIVATE | MAP_POPULATE, prot=PROT_READ)
        finally:
            os.close(fd)
        with data, memoryview(data)[_CHECK_SIZE:] as body:
            # Against damage: what is no marshalled value can crash the interpreter.
            if data[:_CHECK_SIZE] != source_hash(0, body):
                return None
            magic, folder, entries = marshal.loads(body)
        if magic != MAGIC_NUMBER or folder != _FOLDER:
            return None
        stat = os.stat
        for _, path, _, size, time, _ in entries:
            status = stat(path)
            if status.st_size != size or status.st_mtime_ns != time:
                return None
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return entries  # type: ignore[no-any-return]


def _write(group: str, names: Sequence[str]) -> None:
    """Makes the bundle of modules that are loaded."""
    target = _path(group)
    if sys.pycache_prefix is not None or not os.access(os.path.dirname(target), os.W_OK):
        return
    temporary = f"{target}.{os.getpid()}"
    try:
        status = os.stat(_GROUPS)
        entries: list[Entry] = [("", _GROUPS, None, status.st_size, status.st_mtime_ns, None)]
        for name in names:
            spec = sys.modules[name].__spec__
            if spec is None or type(spec.loader) not in (SourceFileLoader, _Loader) or spec.origin is None:
                continue  # compiled by mypyc, or from an archive
            path = spec.origin
            before = os.stat(path)
            code = SourceFileLoader(name, path).get_code(name)
            after = os.stat(path)
            # A source that changes now may not be what runs here.
            if before.st_mtime_ns != after.st_mtime_ns or path[: len(_FOLDER)] != _FOLDER:
                return
            entries.append((name, path, spec.cached, before.st_size, before.st_mtime_ns, code))
        data = marshal.dumps((MAGIC_NUMBER, _FOLDER, entries))
        with open(temporary, "xb") as file:
            file.write(source_hash(0, data) + data)
        os.replace(temporary, target)
    except (OSError, SyntaxError, ValueError):
        try:  # noqa: SIM105  # contextlib would take longer than all of this
            os.unlink(temporary)
        except OSError:
            pass
