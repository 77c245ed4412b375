"""How the gates' machine code is written down: LLVM IR and assembly as text with the offsets of `compiler/environ.py`
by name. `build.py` hands the whole text to LLVM; the other files of this room each contribute the part of one job.

Three abbreviations are expanded, so that no offset is ever a number in a source file:
    <StoreContext.HOST_SP>                              the value of that constant
    %x = load.field i64, ptr %p, <Record.FIELD>         getelementptr and load
    store.field i64 %x, ptr %p, <Record.FIELD>          getelementptr and store
"""

from __future__ import annotations

from itertools import count

from wasmforge.compiler import environ
from wasmforge.compiler.trap import TrapKind
from wasmforge.runtime.native.objects import PyObject
from wasmforge.runtime.native.signals import KNOWN_FAULTS_LOG2, RangeTable
from wasmforge.runtime.native.trap_record import MAX_BACKTRACE, TrapRecord
from wasmforge.syntax import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Final

__all__ = ["CONSTANTS", "EntryFrame", "GateFrame", "assembly", "expand"]

FREE_INTS: Final = 16
"""Ints of one digit that are kept for the next arguments of host functions: more than most calls have."""


class EntryFrame:
    """The frame of `enter`, on the thread's stack. Offsets from its rbp, which `find_entry` returns."""

    CONTEXT: Final = -48
    WASM_SP: Final = -56
    HOST_SP: Final = -64
    LAST_EXIT_FP: Final = -72
    LOW: Final = -80  # rsp while wasm runs, and the value of HOST_SP
    SAVED_REGISTERS: Final = -40  # rbx, r12-r15 from here up
    RECORD: Final = 16  # TrapRecord *, the seventh argument of `enter`


class GateFrame:
    """What a gate builds at the top of the free host stack when wasm calls it: a frame that continues the rbp chain
    into wasm, so that gates never write to the wasm stack, whose end the guest decides. Offsets from its rbp."""

    RETURN_ADDRESS: Final = 8
    WASM_SP: Final = -8  # rsp of the wasm stack; points to the return address
    CONTEXT: Final = -16
    RESULT: Final = -24
    LOW: Final = -32
    ARGUMENTS: Final = -80  # of Python builtins: six words
    KEPT: Final = -32  # of builtins that keep registers: seven words, downwards
    KEPT_LOW: Final = -96
    LOWEST: Final = -80  # the last word of KEPT; from here to TOP a frame is kept while its call is suspended
    TOP: Final = 16  # HOST_SP minus rbp


def _constants() -> dict[str, int]:
    table: dict[str, int] = {}
    records: tuple[type, ...] = (
        environ.StoreContext,
        environ.HostFuncContext,
        environ.CallDescriptor,
        environ.VMContextOffsets,
        environ.VMMemoryDefinition,
        environ.WasiCell,
        environ.WasiGuest,
        EntryFrame,
        GateFrame,
        PyObject,
        RangeTable,
        TrapRecord,
    )
    for record in records:
        for name, value in vars(record).items():
            if name.isupper():
                table[f"{record.__name__}.{name}"] = value
    for name in vars(environ):
        if name.startswith(("CALL_FLAG_", "HOST_FLAG_", "ASYNC_")):
            table[f"Environ.{name}"] = getattr(environ, name)
    for name in ("HOST_RESULTS_AWAITED", "STACK_GUARD_SIZE", "VALRAW_SIZE"):
        table[f"Environ.{name}"] = getattr(environ, name)
    for t, name in types.VALUE_TYPES.items():
        table[f"ValType.{name.upper()}"] = t
        table[f"RawType.{name.upper()}"] = t | RAW_KEY
    table["Environ.AREAS_SIZE"] = environ.StoreContext.SIZE - environ.StoreContext.OVERFLOW_AREA
    table["Environ.FREE_INTS"] = FREE_INTS
    table["Environ.OVERFLOW_SIZE"] = environ.StoreContext.RESULTS_AREA - environ.StoreContext.OVERFLOW_AREA
    table["Environ.KNOWN_FAULTS"] = 1 << KNOWN_FAULTS_LOG2
    table["Environ.KNOWN_FAULTS_SHIFT"] = 64 - KNOWN_FAULTS_LOG2
    table["Environ.MAX_BACKTRACE"] = MAX_BACKTRACE
    table["Environ.TRAP_KINDS"] = len(TrapKind)
    table["TrapKind.STACK_OVERFLOW"] = int(TrapKind.STACK_OVERFLOW)
    table["TrapKind.MEMORY_OUT_OF_BOUNDS"] = int(TrapKind.MEMORY_OUT_OF_BOUNDS)
    return table


RAW_KEY: Final = 0x100
"""Added to a value type when values travel as bit patterns, so that one switch tells all cases apart."""

CONSTANTS: Final = _constants()

_CONSTANT: Final = r"<([A-Z]\w*\.[A-Z0-9_]+)>"
_LOAD: Final = r"(%[\w.]+) = load\.field (\w+), ptr (\S+), ([^,\n]+)(.*)"
_STORE: Final = r"store\.field (\w+) (\S+), ptr (\S+), ([^,\n]+)"


def expand(text: str) -> str:
    """The text with constants and field accesses written out. Raises KeyError for a constant that does not exist."""
    import re  # only a process that builds the gates needs it: 5 ms

    text = re.sub(_CONSTANT, lambda m: str(CONSTANTS[m.group(1)]), text)
    fresh = count()

    def load(m: re.Match[str]) -> str:
        pointer = f"%field.{next(fresh)}"
        return (
            f"{pointer} = getelementptr i8, ptr {m.group(3)}, i64 {m.group(4)}\n"
            f"  {m.group(1)} = load {m.group(2)}, ptr {pointer}{m.group(5)}"
        )

    def store(m: re.Match[str]) -> str:
        pointer = f"%field.{next(fresh)}"
        return (
            f"{pointer} = getelementptr i8, ptr {m.group(3)}, i64 {m.group(4)}\n"
            f"  store {m.group(1)} {m.group(2)}, ptr {pointer}"
        )

    return re.sub(_STORE, store, re.sub(_LOAD, load, text))


def assembly(text: str) -> str:
    """Intel-syntax assembly as `module asm` lines; `;` starts a comment."""
    lines = [".intel_syntax noprefix", ".text"]
    for line in text.splitlines():
        statement = line.split(";", 1)[0].strip()
        if statement:
            lines.append(statement)
    lines.append(".att_syntax")
    return "\n".join('module asm "' + line.replace('"', "\\22") + '"' for line in lines) + "\n"
