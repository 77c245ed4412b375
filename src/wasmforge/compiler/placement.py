"""The link step of code that joins a module while it runs: a worker's reply for a group of functions to the bytes for
one place in the module's text, and what each function's addresses mean. The counterpart of `link` for one chunk; the
embedder's layer takes the result to the runtime.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from struct import pack_into

from wasmforge.compiler.environ import CODE_ALIGNMENT
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, Final

__all__ = ["Group", "check_reply"]

_SIZE_LIMIT: Final = 64 << 20
_DISPLACEMENT: Final = 1 << 31


class Group:
    """Machine code of some functions, which belong together: `functions` are (function index, offset into the code,
    length, rows), ascending by offset; rows are triples of offset from the function, position, trap code.
    """

    def __init__(self, reply: dict[str, Any]) -> None:
        text, constants = reply["text"], reply["constants"]
        self._constants_at = len(text) + CODE_ALIGNMENT - 1 & -CODE_ALIGNMENT
        self._code = text + b"\xcc" * (self._constants_at - len(text)) + constants
        self._relocations = array("q", reply["relocations"])
        self._slots = [int(name[1:]) for name in reply["undefined"]]
        self.functions = _functions(reply)

    def __len__(self) -> int:
        """Bytes of code with its constants."""
        return len(self._code)

    def placed(self, distance: int, imported: int) -> bytes:
        """The code for a place, a multiple of `CODE_ALIGNMENT`, that is `distance` bytes before the slot of the first
        function that is not imported, of which there are `imported`."""
        out = bytearray(self._code)
        bases = (0, self._constants_at)
        rows = self._relocations
        for k in range(0, len(rows), 5):
            place_in, place, target_in, target, addend = rows[k : k + 5]
            if target_in == 2:
                value = distance + 8 * (self._slots[target] - imported)
            else:
                value = bases[target_in] + target
            at = bases[place_in] + place
            value += addend - at
            if not -_DISPLACEMENT <= value < _DISPLACEMENT:
                raise WasmtimeError("compiler bug: a group of functions refers to something too far away")
            pack_into("<i", out, at, value)
        return bytes(out)


def _functions(reply: dict[str, Any]) -> list[tuple[int, int, int, array[int]]]:
    offsets, positions, codes = array("I", reply["offsets"]), array("I", reply["positions"]), array("B", reply["codes"])
    functions = []
    k = 0
    for name, start, size in reply["functions"]:
        rows = array("I")
        while k < len(offsets) and offsets[k] < start:
            k += 1
        while k < len(offsets) and offsets[k] < start + size:
            rows.extend((offsets[k] - start, positions[k], codes[k]))
            k += 1
        functions.append((int(name[1:]), start, size, rows))
    return functions


def check_reply(reply: dict[str, Any], wanted: Collection[int], functions: range) -> Group | None:
    """The group in a worker's reply; None if it is not what was asked for: code of exactly the functions `wanted` that
    refers to nothing but itself and the slots of `functions`, the module's own.

    Threat: a worker that was hit by a fault of the machine or a bug of LLVM sends what it likes, and a relocation
    outside of the code would have us write over other memory. What the code does cannot be checked: whoever controls
    the worker is this user already.
    """
    try:
        return Group(reply) if _is_sound(reply, wanted, functions) else None
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return None


def _is_sound(reply: dict[str, Any], wanted: Collection[int], functions: range) -> bool:
    sizes = (len(reply["text"]), len(reply["constants"]))
    if sum(sizes) > _SIZE_LIMIT or not all(isinstance(reply[name], bytes) for name in ("text", "constants")):
        return False
    end = 0
    for _, start, size in reply["functions"]:
        if start < end or size <= 0 or start + size > sizes[0]:
            return False
        end = start + size
    if sorted(name for name, _, _ in reply["functions"]) != sorted(f"f{x}" for x in wanted):
        return False
    undefined = reply["undefined"]
    if not all(name[0] == "s" and int(name[1:]) in functions for name in undefined):
        return False
    rows = array("q", reply["relocations"])
    for place_in, place, target_in, target, _ in zip(*(rows[k::5] for k in range(5)), strict=True):
        limit = len(undefined) if target_in == 2 else sizes[target_in] + 1
        if not (0 <= place_in <= 1 and 0 <= target_in <= 2):
            return False
        if not (0 <= place <= sizes[place_in] - 4 and 0 <= target < limit):
            return False
    offsets = array("I", reply["offsets"])
    if len(array("I", reply["positions"])) != len(offsets) or len(reply["codes"]) != len(offsets):
        return False
    return all(before < after for before, after in pairwise(offsets))
