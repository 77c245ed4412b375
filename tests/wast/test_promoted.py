"""Scripts of the specification suite with every function in the optimising tier of a lazily compiled module: code that
was compiled in the background, calls through slots, and was swapped in."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.tiers import promote
from tests.wast.known_failures import known_failures
from tests.wast.suite import WHERE_TO_GET_IT, make_runner, suite_folder
from wasmforge import _lazy
from wasmforge.compiler.availability import llvm_available
from wasmforge.runtime import CompiledModule
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.wast import Runner

FOLDER = suite_folder()
pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason=WHERE_TO_GET_IT),
    pytest.mark.skipif(not llvm_available(), reason="needs llvmlite"),
]

SCRIPTS = (
    *("block", "br_if", "br_table", "call", "call_indirect", "conversions", "endianness", "f32_cmp", "fac", "func"),
    *("func_ptrs", "global", "if", "int_exprs", "labels", "left-to-right", "linking", "local_tee", "loop"),
    *(
        "memory_copy",
        "memory_trap",
        "nop",
        "return_call",
        "return_call_indirect",
        "select",
        "start",
        "switch",
        "table_get",
        "traps",
        "unreachable",
        "unwind",
    ),
)


@functools.cache
def runner() -> Runner:
    return make_runner("", strategy="auto", tier_up_threshold=1, cache=False)


@pytest.mark.parametrize("name", [f"{name}.wast" for name in SCRIPTS if f"{name}.wast" not in known_failures()])
def test_script(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = _lazy.load
    promoted = []

    def load_promoted(*arguments: object, **settings: object) -> CompiledModule:
        module = load(*arguments, **settings)  # type: ignore[arg-type]
        assert isinstance(module, LazyModule)
        promote(module)
        promoted.append(module)
        return module

    monkeypatch.setattr(_lazy, "load", load_promoted)
    assert isinstance(FOLDER, Path)
    result = runner().run((FOLDER / name).read_bytes(), name)
    assert result.ok, "\n".join(f"line {f.line}: {f.reason}" for f in result.failures[:20])
    assert promoted
