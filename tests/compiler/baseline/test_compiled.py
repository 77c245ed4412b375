"""The compiler compiled by mypyc and the compiler as it stands emit the same bytes: native integers wrap where Python's
grow, and a literal shifted by a variable is 32 bits wide."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wasmforge

PACKAGE = Path(wasmforge.__file__).parent
ROOT = Path(__file__).parents[3]

SETUP = """
from pathlib import Path
from mypyc.build import mypycify
from setuptools import setup

room = Path("wasmforge/compiler/baseline")
files = [str(p) for p in sorted(room.glob("*.py")) if p.stem not in ("__init__", "buffer", "compile", "trampolines")]
setup(name="compiled", packages=[], ext_modules=mypycify(files, opt_level="0", debug_level="0"))
"""

DIGEST = """
import hashlib, sys
sys.path[:0] = sys.argv[1:3]
import wasmforge.compiler.baseline.function as function
from tests.compiler.baseline.atomic_modules import every_atomic_instruction
from tests.compiler.baseline.vector_modules import every_vector_instruction
from tests.generate import ModuleMaker
from tests.generate_memories import MemoryModuleMaker
from tests.generate_vectors import VectorModuleMaker
from wasmforge.binary import decode, encode
from wasmforge.compiler.baseline import Compiler, Context
from wasmforge.compiler.environ import Tunables
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.text import parse
from wasmforge.validation import validate

SETTINGS = [(Tunables(), False, False), (Tunables(), True, False), (Tunables(), True, True)]
SETTINGS += [(Tunables(signals_based_traps=False), slots, slots) for slots in (False, True)]
SETTINGS += [(Tunables(consume_fuel=True), True, True), (Tunables(epoch_interruption=True), True, False)]
SETTINGS += [(Tunables(consume_fuel=True, epoch_interruption=True, relaxed_simd_deterministic=True), False, False)]
digest = hashlib.sha256()
modules = [decode(ModuleMaker(seed).make()) for seed in range(60)]
modules += [decode(maker(seed).make()) for maker in (MemoryModuleMaker, VectorModuleMaker) for seed in range(20)]
modules += [decode(encode(parse(every_vector_instruction())))]
modules += [decode(encode(parse(every_atomic_instruction(memory)))) for memory in ("", "i64 ")]
for module in modules:
    facts = validate(module, ALL_FEATURES)
    escaping = sorted(facts.escaping)
    for tunables, slots, counters in SETTINGS:
        compiler = Compiler(Context(module, escaping, facts.tail_callers, tunables, slots, counters))
        first = compiler.context.imported_functions
        for index in range(first, first + len(module.code)):
            made = compiler.compile_function(index)
            digest.update(made.code)
            digest.update(repr((made.rows, made.call_places, made.call_targets)).encode())
print(function.__file__)
print(digest.hexdigest())
"""
"""Typed references and tail calls are in the modules of `ModuleMaker`, 64-bit and several memories in the others."""


def digest(source: Path) -> tuple[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", DIGEST, str(source), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    file, found = run.stdout.split()
    return file, found


@pytest.mark.slow
def test_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("mypyc", reason="mypyc is a part of mypy: pip install '.[lint]'")
    if shutil.which("cc") is None:
        pytest.skip("mypyc needs a C compiler")
    shutil.copytree(PACKAGE, tmp_path / "wasmforge", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "setup.py").write_text(SETUP)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    build = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stdout[-2000:] + build.stderr[-2000:]
    compiled, found = digest(tmp_path)
    assert compiled.endswith(".so")
    plain, expected = digest(PACKAGE.parent)
    assert plain.endswith(".py")
    assert found == expected
