"""Emitters of integer instructions: arithmetic, comparisons, shifts, divisions, bit counts, extensions.

`function` calls them with the opcode; everything else they take from the rows. A comparison whose result is consumed as
a condition by the next instruction stays in the flags.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Condition, Op
from wasmforge.compiler.baseline.body import Body
from wasmforge.compiler.baseline.registers import NONE, RAX, RBP, RCX, RDX, SCRATCH
from wasmforge.compiler.baseline.rows import CLASS, ENCODING, MULTIPLY, NUMBER, SWAPPED, WIDE
from wasmforge.compiler.baseline.values import CONST, FLAGS, LOCAL, REG, SLOT
from wasmforge.compiler.trap import TrapKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["arithmetic", "compare", "count_bits", "divide", "eqz", "extend", "push_condition", "shift"]

_BR_IF: Final = 0x0D
_IF: Final = 0x04
_SELECT: Final = 0x1B
_SELECT_TYPED: Final = 0x1C
_I32_EQZ: Final = 0x45
_I32_AND: Final = 0x71
_LEAST: Final = -0x8000000000000000


def consumes_condition(s: Body) -> bool:
    """Whether the next instruction takes the flags. `eqz` only turns them around, so what counts is what follows."""
    code = s.code
    op: i64 = code[s.pc]
    if op == _I32_EQZ:
        op = code[s.pc + 1]
    return op in (_BR_IF, _IF, _SELECT, _SELECT_TYPED)


def push_condition(s: Body, condition: i64) -> None:
    """Pushes the outcome of a comparison: as flags if the next instruction consumes those, else as 0 or 1."""
    if consumes_condition(s):
        s.push(FLAGS, condition)
        return
    hint = s.hint(False)
    r = hint if hint >= 0 else s.alloc()
    s.rr8(Op.SETCC | condition, 0, 0, r)
    s.rr8(Op.MOVZX8, 0, r, r)
    s.finish(r, hint)


def _as_immediate(v: i64, wide: i64) -> i64:
    """A constant operand as the sign-extended immediate of an instruction of its width."""
    if not wide and v >= 0x80000000:
        return v - 0x100000000
    return v


def _fits(v: i64) -> bool:
    return -0x80000000 <= v < 0x80000000


def arithmetic(s: Body, op: i64) -> None:
    """add, sub, and, or, xor, mul."""
    encoding: i64 = ENCODING[op]
    wide: i64 = WIDE[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.drop()
    j = s.depth
    k2: i64 = s.kinds[j]
    v2: i64 = s.values[j]
    if k == CONST and k2 == CONST and not wide and encoding != Op.IMUL:
        s.push(CONST, _fold(encoding, v2, v))
        return
    # (k2, v2) is the first operand, (k, v) the second. Of a commutative pair the first is better a register that
    # may be changed, the second a constant.
    if encoding != Op.SUB and ((k == REG and k2 != REG) or k2 == CONST):
        k, k2 = k2, k
        v, v2 = v2, v
        i, j = j, i
    if k == CONST:
        v = _as_immediate(v, wide)
        if encoding == Op.SUB and _fits(-v):  # addition can be an lea
            encoding = Op.ADD
            v = -v
    if op == _I32_AND and consumes_condition(s):
        _test(s, k, v, i, k2, v2, j)
        return
    hint = s.hint(False)
    if hint >= 0 and s.where(k, v) == hint:
        if encoding == Op.SUB or k2 == CONST:
            hint = NONE
        else:
            k, k2 = k2, k
            v, v2 = v2, v
            i, j = j, i
    if CLASS[op] == MULTIPLY:
        if k == CONST and _fits(v):
            _multiply(s, wide, k2, v2, j, v, hint)
            return
    elif encoding == Op.ADD and (hint >= 0 or k2 != REG) and _add_by_lea(s, wide, k2, v2, k, v, hint):
        return
    if hint >= 0:
        r = hint
    elif k2 == REG:
        r = v2
    else:
        r = s.alloc()
    if s.where(k2, v2) != r:
        s.load(r, k2, v2, j)
        s.discard(k2, v2)
    if k == CONST and encoding != Op.IMUL and _fits(v):
        s.group1(0 if encoding == Op.ADD else NUMBER[op], wide, r, v)
    else:
        s.use(encoding, wide, r, k, v, i)
        s.discard(k, v)
    if encoding != Op.IMUL:
        s.tested = r
        s.tested_wide = wide
        s.tested_at = len(s.out)
    s.finish(r, hint)


def is_tested(s: Body, r: i64, wide: i64) -> bool:
    """Whether the instruction just emitted has compared a register with zero by the way. (Only the zero flag says so:
    after an overflow the others do not.)"""
    return s.tested_at == len(s.out) and s.tested == r and s.tested_wide == wide and s.bound != len(s.out)


def _fold(encoding: i64, a: i64, b: i64) -> i64:
    value: i64
    if encoding == Op.ADD:
        value = a + b
    elif encoding == Op.SUB:
        value = a - b
    elif encoding == Op.AND:
        value = a & b
    elif encoding == Op.OR:
        value = a | b
    else:
        value = a ^ b
    return value & 0xFFFFFFFF


def _test(s: Body, k: i64, v: i64, i: i64, k2: i64, v2: i64, j: i64) -> None:
    """`and` whose result is only a condition."""
    r = s.where(k2, v2)
    if r < 0:
        r = s.alloc()
        s.load(r, k2, v2, j)
    if k == CONST:
        s.rr(Op.GROUP3, 0, 0, r)
        s.dword(v)
    else:
        s.use(Op.TEST, 0, r, k, v, i)
        s.discard(k, v)
    s.discard(k2, v2)
    s.release(r)
    s.push(FLAGS, Condition.NOT_EQUAL)


def _multiply(s: Body, wide: i64, k: i64, v: i64, i: i64, factor: i64, hint: i64) -> None:
    """By a constant."""
    if hint >= 0:
        r = hint
    elif k == REG:
        r = v
    else:
        r = s.alloc()
    short = -128 <= factor < 128
    s.use(Op.IMUL_IMMEDIATE8 if short else Op.IMUL_IMMEDIATE, wide, r, k, v, i)
    if short:
        s.byte(factor & 0xFF)
    else:
        s.dword(factor)
    if r != v:
        s.discard(k, v)
    s.finish(r, hint)


def _add_by_lea(s: Body, wide: i64, k2: i64, v2: i64, k: i64, v: i64, hint: i64) -> bool:
    """Adds into a third register, when both operands are at hand. Returns whether it did."""
    first = s.where(k2, v2)
    if first < 0 or first == hint:
        return False
    if k == CONST:
        if not _fits(v):
            return False
        r = hint if hint >= 0 else s.alloc()
        s.rm(Op.LEA, wide, r, first, v)
        s.discard(k2, v2)
        s.finish(r, hint)
        return True
    second = s.where(k, v)
    if second < 0:
        return False
    if hint >= 0:
        r = hint
    elif k == REG:
        r = v
    else:
        # The copies must survive until the sum is there.
        s.lock(first)
        s.lock(second)
        r = s.alloc()
        s.release(first)
        s.release(second)
    s.rx(Op.LEA, wide, r, first, second, 0, 0)
    s.discard(k2, v2)
    if r != second:
        s.discard(k, v)
    s.finish(r, hint)
    return True


def compare(s: Body, op: i64) -> None:
    wide: i64 = WIDE[op]
    condition: i64 = NUMBER[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.drop()
    j = s.depth
    k2: i64 = s.kinds[j]
    v2: i64 = s.values[j]
    if k2 == CONST and k != CONST:
        k, k2 = k2, k
        v, v2 = v2, v
        i, j = j, i
        condition = SWAPPED[condition]
    if k == CONST:
        v = _as_immediate(v, wide)
    r = s.where(k2, v2)
    if k == CONST and _fits(v):
        if r >= 0:
            if v == 0:
                if condition >> 1 != Condition.EQUAL >> 1 or not is_tested(s, r, wide):
                    s.rr(Op.TEST, wide, r, r)
            else:
                s.group1(7, wide, r, v)
            s.discard(k2, v2)
            push_condition(s, condition)
            return
        if k2 != CONST:
            s.group1_memory(7, wide, RBP, s.slot(j) if k2 == SLOT else s.homes[v2], v)
            push_condition(s, condition)
            return
    owned = NONE
    if r < 0:
        if k2 == LOCAL:
            other = s.where(k, v)
            if other >= 0:
                s.lock(other)
            r = s.read_local(v2)
            if other >= 0 and k != REG:
                s.release(other)
        else:
            r = s.alloc()
            s.load(r, k2, v2, j)
        owned = r
    s.use(Op.CMP, wide, r, k, v, i)
    s.discard(k, v)
    s.discard(k2, v2)
    if owned >= 0:
        s.release(owned)
    push_condition(s, condition)


def eqz(s: Body, op: i64) -> None:
    wide: i64 = WIDE[op]
    d = s.depth - 1
    k: i64 = s.kinds[d]
    v: i64 = s.values[d]
    if k == FLAGS:
        s.drop()
        push_condition(s, v ^ 1)
        return
    test_zero(s, wide)
    push_condition(s, Condition.EQUAL)


def test_zero(s: Body, wide: i64) -> None:
    """Pops an integer and compares it with zero."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    r = s.where(k, v)
    if r >= 0:
        if not is_tested(s, r, wide):
            s.rr(Op.TEST, wide, r, r)
        s.discard(k, v)
    elif k == CONST:
        s.immediate(SCRATCH, v)
        s.rr(Op.TEST, wide, SCRATCH, SCRATCH)
    else:
        s.group1_memory(7, wide, RBP, s.slot(i) if k == SLOT else s.homes[v], 0)


def shift(s: Body, op: i64) -> None:
    """shl, shr_s, shr_u, rotl, rotr. The count is taken modulo the width, as the machine does."""
    wide: i64 = WIDE[op]
    number: i64 = NUMBER[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    if k == CONST:
        hint = s.hint(False)
        r = _shifted(s, hint)
        v &= 63 if wide else 31
        if v:
            s.rr(Op.SHIFT_IMMEDIATE, wide, number, r)
            s.byte(v)
        s.finish(r, hint)
        return
    # The first operand is still on the stack, so that `take` finds it if it is in rcx.
    if k == REG and v == RCX:
        pass
    elif s.where(k, v) == RCX:
        s.lock(RCX)
    else:
        s.take(RCX)
        s.load(RCX, k, v, i)
        s.discard(k, v)
    hint = s.hint(False)
    r = _shifted(s, hint)
    s.rr(Op.SHIFT_CL, wide, number, r)
    s.release(RCX)
    s.finish(r, hint)


def _shifted(s: Body, hint: i64) -> i64:
    """Pops the operand to shift into the register for the result."""
    if hint < 0:
        return s.pop_owned(False)
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.load(hint, k, v, i)
    s.discard(k, v)
    return hint


def wide_add(s: Body, subtract: bool) -> None:
    """i64.add128 and i64.sub128: the lower halves, and the upper ones with the carry."""
    b_high = s.pop_read(False)
    b_low = s.pop_read(False)
    a_high = s.pop_owned(False)
    a_low = s.pop_owned(False)
    s.rr(Op.SUB if subtract else Op.ADD, 1, a_low, b_low)
    s.rr(Op.SBB if subtract else Op.ADC, 1, a_high, b_high)
    s.release(b_low)
    s.release(b_high)
    s.push(REG, a_low)
    s.push(REG, a_high)


def wide_multiply(s: Body, signed: bool) -> None:
    """i64.mul_wide_s and i64.mul_wide_u: the product is in rdx and rax."""
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    s.load(SCRATCH, k, v, i)
    s.discard(k, v)
    _into_rax(s)
    s.rr(Op.GROUP3, 1, 5 if signed else 4, SCRATCH)
    s.push(REG, RAX)
    s.push(REG, RDX)


def _into_rax(s: Body) -> None:
    """Pops an operand into rax, and reserves rdx."""
    # The operand is still on the stack, so that `take` finds it where it is in the way.
    s.take(RDX)
    d = s.depth - 1
    if s.kinds[d] != REG or s.values[d] != RAX:
        s.take(RAX)
        k: i64 = s.kinds[d]
        v: i64 = s.values[d]
        s.load(RAX, k, v, d)
        s.discard(k, v)
    s.drop()


def divide(s: Body, op: i64) -> None:
    """div and rem (specification, section 4.3.2: idiv and irem trap for a zero divisor, idiv_s for the quotient that
    does not exist)."""
    wide: i64 = WIDE[op]
    number: i64 = NUMBER[op]
    unsigned = number & 1 != 0
    remainder = number & 2 != 0
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    if k == CONST and unsigned and 0 < v <= 0x80000000 and v & (v - 1) == 0:
        _divide_by_power(s, wide, v, remainder)
        return
    s.load(SCRATCH, k, v, i)
    s.discard(k, v)
    _into_rax(s)
    if k != CONST or v == 0:
        s.rr(Op.TEST, wide, SCRATCH, SCRATCH)
        s.trap_if(Condition.EQUAL, TrapKind.INTEGER_DIVISION_BY_ZERO)
    if unsigned:
        s.rr(Op.XOR, 0, RDX, RDX)
        s.rr(Op.GROUP3, wide, 6, SCRATCH)
    else:
        _divide_signed(s, wide, remainder, k != CONST or _as_immediate(v, wide) == -1)
    r: i64 = RDX if remainder else RAX
    s.release(RAX if remainder else RDX)
    hint = s.hint(False)
    if hint >= 0:
        s.move(hint, r)
        s.release(r)
        r = hint
    s.finish(r, hint)


def _divide_signed(s: Body, wide: i64, remainder: bool, check: bool) -> None:
    """Divides rax by the scratch register. `check`: the divisor may be -1, by which the machine cannot divide the least
    number; as a remainder that is 0."""
    done: i64 = NONE
    if check:
        s.group1(7, wide, SCRATCH, -1)
        proceed = s.skip_if(Condition.NOT_EQUAL)
        if remainder:
            s.rr(Op.XOR, 0, RDX, RDX)
            done = s.skip()
        elif wide:
            s.immediate(RDX, _LEAST)
            s.rr(Op.CMP, 1, RAX, RDX)
            s.trap_if(Condition.EQUAL, TrapKind.INTEGER_OVERFLOW)
        else:
            s.group1(7, 0, RAX, -0x80000000)
            s.trap_if(Condition.EQUAL, TrapKind.INTEGER_OVERFLOW)
        s.skip_end(proceed)
    if wide:
        s.byte(0x48)
    s.byte(0x99)  # cdq, cqo
    s.rr(Op.GROUP3, wide, 7, SCRATCH)
    if done >= 0:
        s.skip_end(done)


def _divide_by_power(s: Body, wide: i64, divisor: i64, remainder: bool) -> None:
    """Unsigned, by a power of two."""
    hint = s.hint(False)
    r = _shifted(s, hint)
    if remainder:
        s.group1(4, wide, r, divisor - 1)
    else:
        exponent: i64 = 0
        while divisor > 1:
            divisor >>= 1
            exponent += 1
        if exponent:
            s.rr(Op.SHIFT_IMMEDIATE, wide, 5, r)
            s.byte(exponent)
    s.finish(r, hint)


def count_bits(s: Body, op: i64) -> None:
    """clz, ctz, popcnt. Processors without LZCNT and TZCNT search for a bit, and say by a flag when there is none."""
    wide: i64 = WIDE[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    hint = s.hint(False)
    r = hint
    if NUMBER[op] == 2 or s.context.has_bmi:
        if r < 0:
            r = v if k == REG else s.alloc()
        s.use(ENCODING[op], wide, r, k, v, i)
        if k == REG and r != v:
            s.release(v)
        s.finish(r, hint)
        return
    leading = NUMBER[op] == 0
    width: i64 = 64 if wide else 32
    s.use(Op.BSR if leading else Op.BSF, wide, SCRATCH, k, v, i)
    s.discard(k, v)
    if r < 0:
        r = s.alloc()
    s.immediate(r, 2 * width - 1 if leading else width)
    s.rr(Op.CMOVCC | Condition.NOT_EQUAL, 1, r, SCRATCH)
    if leading:
        s.group1(6, 0, r, width - 1)
    s.finish(r, hint)


def extend(s: Body, op: i64) -> None:
    """Sign extensions and wrap. Zero extension needs nothing, by the invariant of `values`."""
    wide: i64 = WIDE[op]
    encoding: i64 = ENCODING[op]
    s.drop()
    i = s.depth
    k: i64 = s.kinds[i]
    v: i64 = s.values[i]
    if k == CONST and NUMBER[op] == 4:
        v &= 0xFFFFFFFF
        s.push(CONST, _as_immediate(v, 0) if wide else v)
        return
    hint = s.hint(False)
    if hint >= 0:
        r = hint
    elif k == REG:
        r = v
    else:
        r = s.alloc()
    origin = s.where(k, v)
    if origin >= 0 and NUMBER[op] == 1:
        s.rr8(encoding, wide, r, origin)
    else:
        s.use(encoding, wide, r, k, v, i)
    if k == REG and r != v:
        s.release(v)
    s.finish(r, hint)
