"""`wasmforge --version`, and with `-v` what decides how fast this installation is: whether mypyc compiled the front end
(`setup.py`), whether LLVM is there, and which files a start reads.
"""

from __future__ import annotations

import os
import platform
import sys

from wasmforge.version import VERSION

__all__ = ["describe", "front_end"]

EXTENSION_MODULES = (".so",)
ROOMS = ("wasmforge.binary.decoder", "wasmforge.validation.body", "wasmforge.compiler.baseline.function")
"""One module of each room that `setup.py` compiles: it compiles all of a room, or none."""


def front_end() -> str:
    """`compiled` or `pure`; `mixed` when the rooms differ, which no installation should be."""
    from importlib import import_module

    forms = {(import_module(name).__file__ or "").endswith(EXTENSION_MODULES) for name in ROOMS}
    if len(forms) > 1:
        return "mixed"
    return "compiled" if forms.pop() else "pure"


def describe(*, verbose: bool) -> str:
    """The text for `--version`: a line, or with `verbose` a table."""
    if not verbose:
        return f"wasmforge {VERSION}"
    rows = (
        ("front end", _front_end_row()),
        ("python", f"{platform.python_implementation()} {platform.python_version()} ({sys.executable or 'embedded'})"),
        ("llvm", _llvm_row()),
        ("gates", _gates_row()),
        ("cache", _cache_row()),
        ("package", os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )
    return "\n".join([f"wasmforge {VERSION}", *(f"  {name:<10} {text}" for name, text in rows)])


def _front_end_row() -> str:
    form = front_end()
    meaning = {"compiled": "by mypyc", "pure": "Python sources"}
    return f"{form} ({meaning.get(form, 'install the package again')})"


def _llvm_row() -> str:
    from wasmforge.compiler.availability import llvm_available

    if not llvm_available():
        return "not installed: pip install 'wasmforge[llvm]'"
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"llvmlite {version('llvmlite')}"
    except PackageNotFoundError:
        return "llvmlite of unknown version"


def _gates_row() -> str:
    from wasmforge.runtime.native.loader import locate

    return locate() or "none yet: the first start builds them, with llvmlite"


def _cache_row() -> str:
    from wasmforge.runtime.cache.settings import default_settings
    from wasmforge.syntax.errors import WasmtimeError

    try:
        settings = default_settings()
    except WasmtimeError as error:
        return str(error)
    return "off" if settings is None else str(settings.directory)
