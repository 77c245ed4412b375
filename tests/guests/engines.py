"""Running a WASI program to its end in either package: what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def printed(package: Any, program: Path, arguments: Sequence[str], folder: Path) -> bytes:
    """What `program` prints with these arguments under `package` (wasmforge or wasmtime: the same names).

    `folder` receives the file that stands for standard output. Raises AssertionError for an exit status other than 0.
    """
    engine = package.Engine()
    module = package.Module.from_file(engine, str(program))
    linker = package.Linker(engine)
    linker.define_wasi()
    store = package.Store(engine)
    wasi = package.WasiConfig()
    wasi.argv = [program.stem, *arguments]
    output = folder / f"{package.__name__}.out"
    wasi.stdout_file = str(output)
    store.set_wasi(wasi)
    entry = linker.instantiate(store, module).exports(store)["_start"]
    try:
        entry(store)
    except package.ExitTrap as exit_trap:
        assert exit_trap.code == 0, f"{program.stem} ended with status {exit_trap.code}"
    return output.read_bytes()
