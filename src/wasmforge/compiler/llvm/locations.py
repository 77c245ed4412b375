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
_COMBINED: Final = re.compile(r"  (%[\w.]+) = (and|or|xor)(?: disjoint)? i\d+ (%[\w.]+), (-?\d+|%[\w.]+)")
_WIDENED: Final = re.compile(r"  (%([\w.]+)) = zext (?:nneg )?i(\d+) (%[\w.]+) to i(\d+)(.*)")
_FROM: Final = re.compile(r"  %[\w.]+ = load volatile (\w+|<[^>]*>), ptr (%[\w.]+)")
_TO: Final = re.compile(r"  store volatile (\w+|<[^>]*>) [^,]*, ptr (%[\w.]+)")
_SIZES: Final = {"i8": 1, "i16": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_ACCESS: Final = re.compile(r"  (?:%\S+ = )?(?:load|store|fence|atomicrmw|cmpxchg) ")


def with_locations_of_loads(text: str) -> str:
    """The module's `text`, in which every pure operation that lacks a location has that of the youngest guest load
    among its operands, directly or by way of other operations.

    Only code generation merges blocks from here on, of which one is the only way into the other: what was loaded is
    followed into those. Accesses other than the guest's and calls keep what they have: they may not fault.

    A store to where a load was before, of as many bytes, cannot trap by itself, but x86 may make one instruction of
    both: it has the load's location.
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
    out = _combined_when_wide(text).split("\n")
    fresh: dict[str, str] = {}  # values from memory, with the number of the load's location
    loads: dict[str, tuple[int, str]] = {}  # addresses, with the bytes and the location of the load
    places: dict[str, str] = {}  # addresses that are computed more than once, by what they are
    pending = ""  # of a switch, whose location stands behind its cases
    for k, line in enumerate(out):
        if line[:2] != "  ":
            if line[:6] == "define" or ("preds" in line and "," in line):
                fresh.clear()
                loads.clear()
                places.clear()
            continue
        if " = getelementptr " in line:
            name, _, computed = line[2:].partition(" = getelementptr ")
            places[name] = places.setdefault(computed.partition(", !")[0], name)
        at = line.rfind(_ATTACHED)
        if line[2] == "]":
            if at < 0:
                out[k] = line + pending
            pending = ""
            continue
        if at >= 0:
            number = line[at + len(_ATTACHED) :].partition(",")[0]
            if number in lines_of:
                if line[2] == "%":
                    fresh[line[2 : line.index(" ", 3)]] = number
                    load = _FROM.match(line)
                    if load is not None:
                        loads[places.get(load[2], load[2])] = _SIZES.get(load[1], 16), number
                elif loads:
                    store = _TO.match(line)
                    if store is not None:
                        size, number = loads.get(places.get(store[2], store[2]), (0, ""))
                        if _SIZES.get(store[1], 16) <= size:
                            out[k] = line[:at] + _ATTACHED + number
                continue
            if number not in unknown:
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


def _combined_when_wide(text: str) -> str:
    """The module's `text`, in which a narrow guest load that is combined bit by bit with another or a constant, and
    widened then, is widened first.

    Code generation turns the order round too, but the loads that it makes for it have no location.
    """
    out = text.split("\n")
    loaded: dict[str, str] = {}  # with what stands behind the load: its location
    combined: dict[str, tuple[str, str, str]] = {}
    for k, line in enumerate(out):
        if line[:6] == "define":
            loaded.clear()
            combined.clear()
        elif " = load volatile i" in line:
            found = _LOADED.match(line)
            if found is not None:
                loaded[found[1]] = "".join(line.partition(_ATTACHED)[1:])
        elif " = and i" in line or " = or " in line or " = xor i" in line:
            found = _COMBINED.match(line)
            if found is not None and (found[3] in loaded or found[4] in loaded):
                combined[found[1]] = found[2], found[3], found[4]
        elif combined and " = zext " in line:
            found = _WIDENED.match(line)
            if found is not None and found[4] in combined:
                name, number, narrow, operand, wide, location = found.groups()
                operation, *operands = combined[operand]
                lines = []
                for side, value in enumerate(operands):
                    if value[0] == "%":
                        operands[side] = f"%wide.{number}.{side}"
                        at = loaded.get(value, location)
                        lines.append(f"  {operands[side]} = zext i{narrow} {value} to i{wide}{at}")
                    else:
                        operands[side] = str(int(value) & (1 << int(narrow)) - 1)
                lines.append(f"  {name} = {operation} i{wide} {', '.join(operands)}{location}")
                out[k] = "\n".join(lines)
    return "\n".join(out)
