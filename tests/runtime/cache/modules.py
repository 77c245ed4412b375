"""Modules for tests of the cache: module n answers with a number that tells it from all others. Child processes of
the tests import this too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmforge import Module

ROOT = Path(__file__).resolve().parents[3]


def answer(n: int) -> int:
    return 1000 * n + 7


def text_of(n: int, padding: int = 0) -> str:
    """Module n, with about `padding` bytes of data that make its image larger."""
    data = f'(memory {padding // 65536 + 1}) (data (i32.const 0) "{"w" * padding}")' if padding else ""
    return f'(module {data} (func (export "answer") (result i32) (i32.const {answer(n)})))'


def call(module: Module) -> Any:
    """What a module answers."""
    from wasmforge import Instance, Store

    store = Store(module._engine)
    return Instance(store, module, []).exports(store)["answer"](store)


def child_environment(directory: Path) -> dict[str, str]:
    """For a process that finds the package, these tests, and a cache."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "WASMFORGE_CACHE": str(directory)}


def hold_sources_steady() -> None:
    """For children: somebody may be editing the compiler while the tests run. test_cache.py tests what happens then."""
    from wasmforge.compiler import fingerprint
    from wasmforge.runtime import cache

    cache.fingerprint = lambda: b"steady"
    fingerprint.compiled_by_these_sources = lambda: True
