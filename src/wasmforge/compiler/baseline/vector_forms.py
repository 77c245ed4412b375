"""How vector instructions are written: with three operands where the host has AVX, else with a copy before; and where
their operands come from and results go. `Row` is what the table of `vector_rows` has for an instruction, for the
emitters in the modules `vector_*` to read.

An emitter pops its operands into registers, which are locked then, and asks for the register of the result: with
`target`, which may give one of these, or with `fresh`. It ends with `done`. In between it may use both scratch
registers: nothing that is called there does, except `three` as it says.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Op, avx
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import FLOAT_SCRATCH, NONE
from wasmforge.compiler.baseline.values import VECTOR_CONST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_extensions import i64

__all__ = [
    "Row",
    "done",
    "fresh",
    "lanes_of",
    "memory_form",
    "ones",
    "push_literal",
    "shift",
    "target",
    "three",
    "two",
    "with_literal",
    "zero",
]


class Row:
    """An instruction: its emitter, the machine instruction, and what else the emitter wants to know of it."""

    def __init__(
        self,
        emit: Callable[[Body, Row], None],
        op: int = 0,
        number: int = 0,
        other: int = 0,
        literal: bytes = b"",
    ) -> None:
        self.emit = emit
        self.op: i64 = op
        self.number: i64 = number
        self.other: i64 = other
        self.literal = literal


# --- Instructions ------------------------------------------------------------------------------------------------


def three(s: Body, op: i64, r: i64, a: i64, b: i64) -> None:
    """`r = a op b`, where `b` may be an integer register if the instruction wants one. Without AVX this overwrites the
    scratch register if `r` is `b` and not `a`."""
    if s.context.has_avx:
        s.rr(avx(op, a), 0, r, b)
        return
    if r == b and r != a:
        assert a != FLOAT_SCRATCH and r != FLOAT_SCRATCH
        s.move(FLOAT_SCRATCH, b)
        b = FLOAT_SCRATCH
    s.move(r, a)
    s.rr(op, 0, r, b)


def two(s: Body, op: i64, r: i64, a: i64) -> None:
    """`r = op a`."""
    s.rr(avx(op, 0) if s.context.has_avx else op, 0, r, a)


def with_literal(s: Body, op: i64, r: i64, a: i64, literal: bytes, behind: i64) -> None:
    """`r = a op literal`; the caller appends `behind` bytes."""
    if s.context.has_avx:
        s.rv(avx(op, a), 0, r, literal, behind)
        return
    s.move(r, a)
    s.rv(op, 0, r, literal, behind)


def shift(s: Body, group: i64, number: i64, r: i64, a: i64, count: i64) -> None:
    """A shift of `a` into `r` by an immediate count, less than the width of a lane."""
    if s.context.has_avx:
        s.rr(avx(group, r), 0, number, a)
    else:
        s.move(r, a)
        s.rr(group, 0, number, r)
    s.byte(count)


def memory_form(s: Body, op: i64, r: i64, a: i64) -> i64:
    """The form of `r = a op memory` to write next."""
    if s.context.has_avx:
        return avx(op, a)
    s.move(r, a)
    return op


def zero(s: Body, r: i64) -> None:
    s.rr(Op.XORPS, 0, r, r)


def ones(s: Body, r: i64) -> None:
    s.rr(Op.PCMPEQD, 0, r, r)


def lanes_of(value: int, size: int) -> bytes:
    """A literal with the same number in all lanes of a size in bytes."""
    return value.to_bytes(size, "little") * (16 // size)


# --- Operands and results ------------------------------------------------------------------------------------------


def push_literal(s: Body, literal: bytes) -> None:
    s.literals.append(literal)
    s.push(VECTOR_CONST, len(s.literals) - 1)


def target(s: Body, a: i64, b: i64 = NONE, c: i64 = NONE) -> i64:
    """Releases the operands and finds the register for the result, which may be one of theirs."""
    hint = s.hint(True)
    s.hinted = hint
    s.release(a)
    if b >= 0:
        s.release(b)
    if c >= 0:
        s.release(c)
    return hint if hint >= 0 else s.alloc_float()


def fresh(s: Body, a: i64, b: i64) -> i64:
    """The register for the result, other than `a` and `b`, which must still be locked."""
    hint = s.hint(True)
    if hint in (a, b):
        hint = NONE
    s.hinted = hint
    return hint if hint >= 0 else s.alloc_float()


def done(s: Body, r: i64) -> None:
    s.finish(r, s.hinted)
