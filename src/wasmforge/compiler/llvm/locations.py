"""Gives what consumes a guest load the load's location, in the text of an optimised module.

`codegen` calls this between LLVM's passes and its code generation. x86 folds a load into the instruction that consumes
it, and the machine instruction, which then faults in the load's stead, has the consumer's location. The translator
gives consumers their loads' locations where it sees both; but passes make more pairs: blocks that merge, locals and
phis that turn out to be the loaded value, conditional code that becomes a select. And they take locations away, from
whatever they execute speculatively.
"""

from __future__ import annotations

import re
from typing import Final

from wasmforge.compiler.trap import TrapKind

__all__ = ["with_locations_of_loads"]

_MAY_FAULT: Final = 1 + TrapKind.MEMORY_OUT_OF_BOUNDS
_LOCATION: Final = re.compile(r"^!(\d+) = !DILocation\(line: (\d+)(?:, column: (\d+))?", re.MULTILINE)
_ATTACHED: Final = ", !dbg !"
_OPERAND: Final = re.compile(r"%[\w.]+")
_LOADED: Final = re.compile(r"  (%[\w.]+) = load volatile i(\d+), ")
_MASKED: Final = re.compile(r"  (%[\w.]+) = and i\d+ (%[\w.]+), (-?\d+)")
_WIDENED: Final = re.compile(r"  (%([\w.]+)) = zext (?:nneg )?i(\d+) (%[\w.]+) to i(\d+)(.*)")
_ACCESS: Final = re.compile(r"  (?:%\S+ = )?(?:load|store|fence|atomicrmw|cmpxchg) ")


def with_locations_of_loads(text: str) -> str:
    """The module's `text`, in which every pure operation that lacks a location has that of the youngest guest load
    among its operands, directly or by way of other operations.

    Only code generation merges blocks from here on, of which one is the only way into the other: what was loaded is
    followed into those. Accesses other than the guest's and calls keep what they have: they may not fault.
    """
    lines_of = {}
    unknown = set()
    for number, line, column in _LOCATION.findall(text):
        if line == "0":
            unknown.add(number)
        elif column == str(_MAY_FAULT):
            lines_of[number] = int(line)
    if not lines_of:
        return text
    out = _masked_when_wide(text).split("\n")
    fresh: dict[str, str] = {}  # values from memory, with the number of the load's location
    pending = ""  # of a switch, whose location stands behind its cases
    for k, line in enumerate(out):
        if line[:2] != "  ":
            if line[:6] == "define" or ("preds" in line and "," in line):
                fresh.clear()
            continue
        at = line.rfind(_ATTACHED)
        if at >= 0:
            number = line[at + len(_ATTACHED) :].partition(",")[0]
            if number in lines_of:
                if line[2] == "%":
                    fresh[line[2 : line.index(" ", 3)]] = number
                continue
            if number not in unknown:
                continue
        if pending and line == "  ]":
            out[k] = line + pending
            pending = ""
            continue
        if not fresh:
            continue
        names = _OPERAND.findall(line)
        found = ""
        for name in names:
            number = fresh.get(name, "")
            if number and (not found or lines_of[number] > lines_of[found]):
                found = number
        if not found or _ACCESS.match(line) or ("call " in line and "@llvm." not in line):
            continue
        location = _ATTACHED + found
        if line[-1] == "[":
            pending = location
            continue
        if at >= 0:
            rest = line[at + len(_ATTACHED) :].partition(",")
            line = line[:at] + rest[1] + rest[2]
        out[k] = line + location
        if line[2] == "%":
            fresh[names[0]] = found
    return "\n".join(out)


def _masked_when_wide(text: str) -> str:
    """The module's `text`, in which a guest load that is masked by a constant and widened then is widened first.

    Code generation turns the order round too, but the load that it makes for it has no location.
    """
    out = text.split("\n")
    loaded: set[str] = set()
    masked: dict[str, tuple[str, int]] = {}
    for k, line in enumerate(out):
        if line[:6] == "define":
            loaded.clear()
            masked.clear()
        elif " = load volatile i" in line:
            found = _LOADED.match(line)
            if found is not None:
                loaded.add(found[1])
        elif " = and i" in line:
            found = _MASKED.match(line)
            if found is not None and found[2] in loaded:
                masked[found[1]] = found[2], int(found[3])
        elif masked and " = zext " in line:
            found = _WIDENED.match(line)
            if found is not None and found[4] in masked:
                name, number, narrow, operand, wide, location = found.groups()
                load, mask = masked[operand]
                out[k] = (
                    f"  %wide.{number} = zext i{narrow} {load} to i{wide}{location}\n"
                    f"  {name} = and i{wide} %wide.{number}, {mask & (1 << int(narrow)) - 1}{location}"
                )
    return "\n".join(out)
