"""Random modules with vectors: all 256 instructions, v128 in locals, globals, blocks, calls and memory. An extension of
`generate`; `python -m tests.differential functions` makes every other module with it.

As there, nothing depends on the bits of a NaN: float vectors are computed in trees of instructions, and the root of
each replaces the lanes that are NaNs by the canonical one. Relaxed instructions are for engines whose results are those
of the deterministic profile. The wasmtime package cannot pass v128, so that no export has one in its type.
"""

from __future__ import annotations

import struct
from typing import Final

from tests.generate import FLOATS, INTERESTING, NUMBERS, Body, ModuleMaker
from wasmforge.binary.leb128 import encode_unsigned
from wasmforge.syntax.features import Feature
from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow, opcode_bytes
from wasmforge.syntax.types import F32, F64, I32, V128, FuncType, ValType

__all__ = ["VectorModuleMaker"]

DIFFERENT: Final = ("madd", "relaxed_dot_i8x16_i7x16_s", "relaxed_dot_i8x16_i7x16_add_s")
"""Wasmtime 42 fuses and wraps around in its deterministic mode, which the specification's does not (section 4.3.6)."""
_ROWS: Final = [r for r in INSTRUCTIONS if r.feature in (Feature.SIMD, Feature.RELAXED_SIMD)]
_COMPUTING: Final = [r for r in _ROWS if not r.access and r.params and not r.mnemonic.endswith(DIFFERENT)]
LOADS: Final = [r for r in _ROWS if r.access and r.results]
STORES: Final = [r for r in _ROWS if r.access and not r.results]
_MASKS: Final = ("eq", "ne", "lt", "gt", "le", "ge")


def _gives_floats(row: InstructionRow) -> bool:
    shape, _, operation = row.mnemonic.partition(".")
    return shape in ("f32x4", "f64x2") and operation not in _MASKS and row.results == (V128,)


FLOATING: Final = {s: [r for r in _COMPUTING if _gives_floats(r) and r.mnemonic[:5] == s] for s in ("f32x4", "f64x2")}
INTEGER: Final = [r for r in _COMPUTING if r.results == (V128,) and not _gives_floats(r)]
TO_SCALAR: Final = [r for r in _COMPUTING if r.results != (V128,)]


def _operand_shape(row: InstructionRow) -> str:
    """The shape of the float operands of an instruction, "" if its operands are no floats."""
    operation = row.mnemonic.partition(".")[2]
    for shape in ("f32x4", "f64x2"):
        if f"_{shape}" in operation:
            return shape
    if "_i32x4" in operation:
        return ""
    return row.mnemonic[:5] if row.mnemonic[0] == "f" else ""


class VectorBody(Body):
    made: VectorModuleMaker

    def reserved(self) -> list[ValType]:
        return [F32, F64, V128]

    def const(self, t: ValType) -> None:
        if t != V128:
            super().const(t)
            return
        r = self.r
        kind = r.randrange(5)
        if kind == 0:
            data = r.randbytes(16)
        elif kind == 1:
            data = struct.pack("<4f", *(self.small() for _ in range(4)))
        elif kind == 2:
            data = struct.pack("<2d", *(r.choice(FLOATS) for _ in range(2)))
        elif kind == 3:
            size = r.choice((1, 2, 4, 8))
            lanes = [r.choice(INTERESTING) & (1 << 8 * size) - 1 for _ in range(16 // size)]
            data = b"".join(lane.to_bytes(size, "little") for lane in lanes)
        else:
            data = r.randbytes(4) * 4 if r.random() < 0.5 else bytes([r.choice((0, 255, 128, 127))]) * 16
        self.op("v128.const", data)
        self.stack.append(V128)

    def value(self, t: ValType, depth: int = 0) -> None:
        r = self.r
        if depth <= 3 and r.random() < 0.35:
            if t == V128:
                kind = r.random()
                if kind < 0.6:
                    self.vector_row(r.choice(INTEGER), depth + 1)
                    return
                if kind < 0.9:
                    self.floats(r.choice(("f32x4", "f64x2")), depth + 1)
                    return
                self.load(depth + 1)
                return
            rows = self.made.from_vectors.get(t)
            if rows and r.random() < 0.5:
                self.vector_row(r.choice(rows), depth + 1)
                return
        super().value(t, depth)

    def immediates(self, row: InstructionRow) -> bytes:
        r = self.r
        if Immediate.LANE in row.immediates:
            return bytes((r.randrange(row.lanes),))
        if Immediate.LANES in row.immediates:
            start = r.randrange(17)
            kind = r.random()
            if kind < 0.3:
                return bytes(range(start, start + 16))
            if kind < 0.5:
                size = r.choice((2, 4, 8))
                groups = [r.randrange(32 // size) * size for _ in range(16 // size)]
                return bytes(g + k for g in groups for k in range(size))
            return bytes(r.randrange(32) for _ in range(16))
        return b""

    def vector_row(self, row: InstructionRow, depth: int) -> None:
        """An instruction whose result has no lane that may be a NaN of unknown bits."""
        assert row.params is not None and row.results is not None
        shape = _operand_shape(row)
        for t in row.params:
            if t == V128 and shape and "lane" not in row.mnemonic:
                self.tree(shape, depth + 1)
            else:
                self.value(t, depth + 1)
        self.out += opcode_bytes(row.opcode) + self.immediates(row)
        self.take(len(row.params))
        self.stack += row.results

    def floats(self, shape: str, depth: int) -> None:
        """A tree of float instructions, and its NaNs made canonical."""
        self.tree(shape, depth, root=True)
        x = self.u(len(self.locals) - 1)
        canonical = struct.pack("<I", 0x7FC00000) * 4 if shape == "f32x4" else struct.pack("<Q", 0x7FF8 << 48) * 2
        self.op("local.tee", x)
        self.op("v128.const", canonical)
        self.op("local.get", x)
        self.op("local.get", x)
        self.op(f"{shape}.eq")
        self.op("v128.bitselect")

    def tree(self, shape: str, depth: int, root: bool = False) -> None:
        """An operand of float type, which may hold any NaN."""
        if not root and (depth > 5 or self.r.random() < 0.45):
            self.value(V128, depth + 1)
            return
        row = self.r.choice(FLOATING[shape])
        assert row.params is not None
        source = _operand_shape(row)
        for t in row.params:
            if t == V128 and source:
                self.tree(source, depth + 1)
            else:
                self.value(t, depth + 1)
        self.out += opcode_bytes(row.opcode) + self.immediates(row)
        self.take(len(row.params))
        self.stack.append(V128)

    def load(self, depth: int) -> None:
        row = self.r.choice(LOADS)
        assert row.params is not None
        self.address()
        if len(row.params) > 1:
            self.value(V128, depth + 1)
        self.out += opcode_bytes(row.opcode) + self.memarg() + self.immediates(row)
        self.take(len(row.params))
        self.stack.append(V128)

    def statement(self, depth: int) -> bool:
        r = self.r
        kind = r.random()
        if kind < 0.25:
            self.budget -= 1
            self.vector_row(r.choice((*INTEGER, *TO_SCALAR)), 0)
        elif kind < 0.35:
            self.budget -= 1
            self.floats(r.choice(("f32x4", "f64x2")), 0)
        elif kind < 0.42:
            self.load(1)
        elif kind < 0.50:
            row = r.choice(STORES)
            self.address()
            self.value(V128, 1)
            self.out += opcode_bytes(row.opcode) + self.memarg() + self.immediates(row)
            self.take(2)
        elif kind < 0.53:
            self.value(V128)
            self.op("global.set", encode_unsigned(self.made.global_of[V128]))
            self.take(1)
        else:
            return super().statement(depth)
        return True


class VectorModuleMaker(ModuleMaker):
    numbers = (*NUMBERS, V128)
    body = VectorBody

    def __init__(self, seed: int, functions: int = 8, references: bool = True) -> None:
        super().__init__(seed, functions, references)
        self.by_result[V128] = [row for row in INTEGER if not row.immediates and not _operand_shape(row)]
        self.from_vectors: dict[ValType, list[InstructionRow]] = {
            t: [row for row in TO_SCALAR if row.results == (t,)] for t in NUMBERS
        }
        self.from_vectors[F32] = self.from_vectors[F64] = []
        assert self.from_vectors[I32]

    def signature(self) -> FuncType:
        ft = super().signature()
        # Most are such that the wasmtime package can call them.
        if self.r.random() < 0.7:
            return FuncType(tuple(t for t in ft.params if t != V128), tuple(t for t in ft.results if t != V128))
        return ft
