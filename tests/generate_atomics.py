"""Random modules with atomic instructions on a memory of one thread: every access, notify, wait and fence, among
everything that `generate` makes. `python -m tests.differential atomics` compares.

Most addresses are aligned as they must be; some are not, or lie outside. Waiting traps, since the memory is not shared.
"""

from __future__ import annotations

from typing import Final

from tests.generate import Body, ModuleMaker
from wasmforge.binary.leb128 import encode_signed
from wasmforge.syntax.atomics import ATOMIC_INSTRUCTIONS, FENCE
from wasmforge.syntax.instructions import INSTRUCTIONS, opcode_bytes
from wasmforge.syntax.types import I32

__all__ = ["AtomicModuleMaker"]

_OPCODES: Final = {row.mnemonic: row.opcode for row in INSTRUCTIONS}
_ACCESSES: Final = [row for row in ATOMIC_INSTRUCTIONS if row[0] > FENCE]
_OTHERS: Final = [row for row in ATOMIC_INSTRUCTIONS if row[0] <= FENCE]
_PLACES: Final = (0xF8, 0xFF8, 0x7FF8, 0xFFF8)


class AtomicBody(Body):
    def statement(self, depth: int) -> bool:
        if self.r.random() < 0.4:
            self.budget -= 1
            self.atomic()
            return True
        return super().statement(depth)

    def atomic(self) -> None:
        r = self.r
        number, mnemonic, params, results, size = r.choice(_ACCESSES if r.random() < 0.96 else _OTHERS)
        if number == FENCE:
            self.out += opcode_bytes(_OPCODES[mnemonic]) + b"\0"
            return
        self.value(I32, 2)
        mask = r.choice(_PLACES) | (-size & 7)
        self.op("i32.const", encode_signed(mask if r.random() < 0.98 else mask | 7))
        self.op("i32.and")
        for t in params[1:]:
            self.value(t)
        offset = r.choice((0, 0, 0, 8, 64, 1000, 65000 if r.random() < 0.1 else 16))
        if r.random() < 0.01:
            offset = r.choice((1, 3, 1 << 26, 0xFFFFFFF8, 0xFFFFFFFF))
        self.out += opcode_bytes(_OPCODES[mnemonic]) + bytes((size.bit_length() - 1,)) + self.u(offset)
        self.take(len(params))
        self.stack += results


class AtomicModuleMaker(ModuleMaker):
    body = AtomicBody
