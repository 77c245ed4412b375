"""`wasmforge run --profile STRATEGY`: tells Linux perf what the machine code of modules is. All is written when the
program has ended, however it did, so that running costs nothing; one that a signal ends leaves nothing behind.

    perf record -k 1 wasmforge run --profile jitdump app.wasm
    perf inject --jit -i perf.data -o jit.data; perf report -i jit.data

`jitdump` writes jit-PID.dump in the current directory. `perfmap` writes /tmp/perf-PID.map, which perf reads by itself,
but for code in anonymous memory only: that of `-C compiler=llvm`, not what is compiled function by function.

Code that was replaced stays where it was, and has its own records.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.printable import printable
from wasmforge.cli.tiers import NAMES
from wasmforge.runtime.lazy_code import NO_FUNCTION
from wasmforge.runtime.lazy_module import LazyModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

    from wasmforge.module import Module

    _Code = tuple[int, str, memoryview]

__all__ = ["Profile"]

NOT_HERE: Final = ("vtune", "pulley", "guest")


class Profile:
    """What one run is to write. `jitdump` must be there before the program runs: perf finds it by its mapping.

    Raises UsageError for a strategy that does not work here, and CommandError when the file cannot be made."""

    def __init__(self, strategy: str) -> None:
        pid = os.getpid()
        if strategy == "perfmap":
            self._path = f"/tmp/perf-{pid}.map"
            self._format = _perf_map
        elif strategy == "jitdump":
            self._path = f"jit-{pid}.dump"
            self._format = _jit_dump
        elif strategy.partition(",")[0] in NOT_HERE:
            raise UsageError(f"`--profile {strategy}` does not work in wasmforge: only jitdump and perfmap do")
        else:
            raise UsageError(f"unknown profiling strategy `{strategy}`, only jitdump,perfmap accepted")
        self._start = time.monotonic_ns()
        try:
            # Threat: everybody knows the name beforehand, and may have made a link of that name in /tmp.
            if os.path.lexists(self._path):
                os.unlink(self._path)
            self._file = open(self._path, "xb+")  # noqa: SIM115 - until `write`
            if strategy == "jitdump":
                self._file.truncate(mmap.PAGESIZE)
                self._marker = mmap.mmap(
                    self._file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
                )
        except OSError as error:
            raise CommandError(f"failed to write `{self._path}`", [str(error.strerror)]) from None

    def write(self, named: Sequence[tuple[str, Module]]) -> None:
        """Writes what is known of some modules of this process."""
        pieces = [piece for number, (_, module) in enumerate(named) for piece in _pieces(number, module)]
        try:
            with self._file as file:
                file.truncate(0)
                file.write(self._format(pieces, self._start))
        except OSError as error:
            raise CommandError(f"failed to write `{self._path}`", [str(error.strerror)]) from None


def _perf_map(pieces: list[_Code], start: int) -> bytes:
    return "".join(f"{address:x} {len(code):x} {name}\n" for address, name, code in pieces).encode(errors="replace")


def _jit_dump(pieces: list[_Code], start: int) -> bytes:
    """The format of tools/perf/Documentation/jitdump-specification.txt in Linux, version 1. `start` stands as the time
    of everything: perf takes code to be where it is from then on."""
    pid = os.getpid()
    out = bytearray(struct.pack("<6I2Q", 0x4A695444, 1, 40, 62, 0, pid, start, 0))  # 62: x86-64
    for index, (address, name, code) in enumerate(pieces):
        text = name.encode(errors="replace") + b"\0"
        out += struct.pack("<2IQ", 0, 56 + len(text) + len(code), start)
        out += struct.pack("<2I4Q", pid, pid, address, address, len(code), index)
        out += text
        out += code
    return bytes(out)


def _pieces(number: int, module: Module) -> Iterator[_Code]:
    """Address, name and bytes of each piece of code."""
    compiled = module._open()
    imported = compiled.num_imported_functions
    if isinstance(compiled, LazyModule):
        base = compiled.code.text_address
        text = compiled.code.region.text()
        for start, piece in sorted(compiled.code.pieces.items()):
            name = f"wasm[{number}]::trampoline"
            if piece.function != NO_FUNCTION:
                index = imported + piece.function
                name = f"{_name(number, index, compiled.func_name(index))} [{NAMES[piece.tier]}]"
            yield base + start, name, text[start : start + piece.length]
        return
    base = compiled.engine_code.text_range().start.raw()
    text = compiled.engine_code.text()
    for defined in range(len(compiled.info.functions)):
        found = compiled.function_range(defined)
        if found is not None:
            index = imported + defined
            name = _name(number, index, compiled.func_name(index))
            yield base + found.start, name, text[found.start : found.start + found.length]


def _name(number: int, index: int, name: str | None) -> str:
    """As `objdump` names functions."""
    text = printable(name or "")
    return f"wasm[{number}]::function[{index}]" + (f"::{text[:200]}" if text else "")
