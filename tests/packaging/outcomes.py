"""What the front end makes of many modules, as digests: `python -m tests.packaging.outcomes` prints, as JSON, by the
name of each module what decoding, validating, encoding and compiling it gave, errors with their text included.
`test_compiled.py` runs it on the sources and on what mypyc made of them, and compares.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import wasmforge.binary.decoder
from tests.fuzzing import mutants
from tests.generate import ModuleMaker
from tests.generate_memories import MemoryModuleMaker
from tests.wast.suite import scripts, suite_folder
from wasmforge.binary import decode, encode, instructions
from wasmforge.compiler.baseline import compile_module
from wasmforge.compiler.environ import Tunables
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.syntax.module import Module
from wasmforge.validation import validate
from wasmforge.wast.script import AssertBadModule, DefineModule, commands

ROOT = Path(__file__).resolve().parents[2]
GENERATED = 60
MUTANTS = 3_000

CHECKED = Tunables(signals_based_traps=False)
"""The other way to compile memory accesses."""

FETCHED = 1 << 20
"""Guests from this size on are those that `make guests` fetches: uncompiled, CPython takes a minute."""


def main() -> None:
    outcomes = {name: outcome(data) for name, data in modules()}
    json.dump({"front end": wasmforge.binary.decoder.__file__, "outcomes": outcomes}, sys.stdout)


def modules() -> Iterator[tuple[str, bytes]]:
    """Every module with a name for it. Generated ones and mutants depend on their seeds only."""
    for seed in range(GENERATED):
        yield f"generated {seed}", ModuleMaker(seed).make()
        yield f"generated with memories {seed}", MemoryModuleMaker(seed).make()
    for i, data in enumerate(mutants(MUTANTS, seed=21)):
        yield f"mutant {i}", data
    for path in sorted((ROOT / "bench" / "build").glob("*.wasm")):
        if path.stat().st_size < FETCHED:
            yield f"guest {path.stem}", path.read_bytes()
    folder = suite_folder()
    for name in scripts() if folder is not None else ():
        assert folder is not None
        for command in commands((folder / name).read_bytes(), name):
            if isinstance(command, (DefineModule, AssertBadModule)):
                try:
                    data = command.module.encoded()
                except WasmtimeError:
                    continue  # text that does not parse
                yield f"{name}:{command.line}", data


def outcome(data: bytes) -> list[str]:
    """A digest, or an error's text, for each of the steps that were reached."""
    steps: list[str] = []
    module = _step(steps, lambda: decode(data), repr)
    if not isinstance(module, Module):
        return steps
    _step(steps, lambda: encode(module), bytes)
    _step(steps, lambda: [(i.row.opcode, i) for b in module.code for i in instructions(b.code, b.offset)], repr)
    facts = _step(steps, lambda: validate(module, ALL_FEATURES), _describe)
    if facts is not None:
        _step(steps, lambda: compile_module(module, facts, Tunables()), bytes)
        _step(steps, lambda: compile_module(module, facts, CHECKED), bytes)
    return steps


def _step(steps: list[str], make: Callable[[], Any], describe: Callable[[Any], str | bytes]) -> Any:
    try:
        result = make()
    except WasmtimeError as error:
        steps.append(f"{type(error).__name__}: {error}")
        return None
    text = describe(result)
    steps.append(hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest())
    return result


def _describe(facts: object) -> str:
    """Every attribute of the validator's result, sets in order."""
    names = [name for name in dir(facts) if not name.startswith("_") and not callable(getattr(facts, name))]
    values = [(name, getattr(facts, name)) for name in names]
    return repr([(name, sorted(value) if isinstance(value, (set, frozenset)) else value) for name, value in values])


if __name__ == "__main__":
    main()
