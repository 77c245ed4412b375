"""The compile-time operand stack and the registers: where every operand is while code is emitted.

An operand is not computed into a place until something wants it: it may be a constant, a local that has not been read
yet, a register, the processor's flags, or its canonical slot in the frame. `State` holds the stack, the sets of free
registers, and which registers hold copies of locals; it is the assembler too, so that an emitter needs one object. All
emitters of this room work on it.

Invariants that everything relies on:

- An i32 (and an externref) in a register or slot is zero-extended to 64 bits; the upper half of an f32 means nothing.
- An operand in a register is in one of its class, integer or vector; constants and slots have no class.
- Between two instructions a register is free, or owned by exactly one operand of the stack; a copy of a local sits in a
  free register and may be dropped at any time, for the local's home always holds the value as well.
- In a function with vectors (`frame.vectors`) slots and homes are 16 bytes, aligned, and registers of the vector class
  move there and back whole, whatever is in them: so no operand has to say whether it is a float or a vector.
- Below `floor` there are only constants and slots. So whatever searches the stack looks at no more than `WINDOW`
  entries, and a deep stack cannot make compilation quadratic.
- Moves, loads, stores and spills leave the flags alone.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.asm import Assembler, Op
from wasmforge.compiler.baseline.registers import (
    FIRST,
    FLOAT_MASK,
    FLOAT_SCRATCH,
    INTEGER_MASK,
    NONE,
    RBP,
    SCRATCH,
    XMM0,
)
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["CONST", "FLAGS", "LOCAL", "REG", "SLOT", "VECTOR_CONST", "WINDOW", "State"]

CONST: Final = 0
"""A constant; integers of 32 bits and f32 patterns as unsigned, those of 64 bits as signed numbers."""
LOCAL: Final = 1
"""A local that has not been read yet; whoever assigns it saves these first (`kill`)."""
REG: Final = 2
SLOT: Final = 3
"""The frame slot that belongs to the operand's position on the stack."""
FLAGS: Final = 4
"""A condition code that the next instruction consumes."""
VECTOR_CONST: Final = 5
"""A constant of 128 bits, by its index in `literals`; unlike a `CONST` it moves to its slot where others do."""

ZEROS: Final = bytes(16)
ONES: Final = b"\xff" * 16

WINDOW: Final = 256

BULK_LIMIT: Final = 500_000
"""Threat: two bytes of body move a thousand values, so that a body within the size limit could ask for billions of
instructions. Counted are only values that travel in groups of more than 16, which no compiler's output has many of."""


class Address:
    """A machine operand: base, index (or `NONE`) and displacement."""

    def __init__(self) -> None:
        self.base: i64 = NONE
        self.index: i64 = NONE
        self.displacement: i64 = 0


class State(Assembler):
    """Everything that changes while a function is compiled; reset for each by `locals.begin`."""

    def __init__(self) -> None:
        super().__init__()
        self.code: bytes = b""
        self.pc: i64 = 0
        self.start: i64 = 0
        """The position of the instruction being compiled."""
        self.kinds: list[int] = [CONST] * 64
        self.values: list[int] = [0] * 64
        self.capacity: i64 = 64
        self.depth: i64 = 0
        self.floor: i64 = 0
        self.deepest: i64 = 0
        """The number of slots that the frame needs."""
        self.slots_at: i64 = 0
        """Displacement of slot 0 from rbp; the others follow downwards."""
        self.stride: i64 = 8
        """Bytes of a slot and of a local's home: 8, or 16 in a function with vectors."""
        self.load_op: i64 = Op.MOVSD
        self.store_op: i64 = Op.MOVSD_STORE
        """How a vector register moves from and to a slot or home."""
        self.literals: list[bytes] = []
        self.pool: i64 = 0
        self.free: i64 = 0
        self.base: i64 = NONE
        """The register that holds the base of a memory, or `NONE`, ..."""
        self.base_memory: i64 = NONE
        """... and of which: the one that the function uses most."""
        self.memory: i64 = 0
        """The memory that the current instruction names (`access.memory_argument`)."""
        # Locals, indexed by local; entries are set for those that the function uses, and reset after it.
        self.pins: list[int] = []
        self.homes: list[int] = []
        self.floats: list[bool] = []
        self.weights: list[int] = []
        self.copies: list[int] = []
        # The other direction: which local a register holds a copy of, for the registers in `cached`.
        self.cached: i64 = 0
        self.cached_local: list[int] = [0] * 32
        self.evicted: i64 = 0
        self.hinted: i64 = NONE
        """What `hint` said to the emitter of a vector instruction."""
        # The register that the instruction ending at `tested_at` has compared with zero, and in which width.
        self.tested: i64 = NONE
        self.tested_wide: i64 = 0
        self.tested_at: i64 = -1
        self.found = Address()
        """What `access` found for the current instruction."""
        # Rows of the address map and the trap table: offset, position, code.
        self.rows: list[int] = []
        self.bulk: i64 = 0
        self.fuel: i64 = 0
        """What the instructions since the last addition to the count of fuel cost."""
        self.index = 0
        """The function, for errors."""

    # --- Positions ------------------------------------------------------------------------------------------

    def mark(self, code: i64) -> None:
        """Starts a row: from here on, machine code belongs to the current instruction, and if it faults, that is trap
        `code - 1` (0: it must not)."""
        rows = self.rows
        at = len(self.out)
        if rows and rows[-3] == at:
            rows[-2] = self.start
            rows[-1] = code
            return
        rows.append(at)
        rows.append(self.start)
        rows.append(code)

    def count_bulk(self, values: i64) -> None:
        """Accounts for `values` operands that move together (see `BULK_LIMIT`)."""
        if values > 16:
            self.bulk += values
            if self.bulk > BULK_LIMIT:
                raise WasmtimeError(
                    f"function {self.index} is too complex to compile: too often it passes more than 16 values at once"
                )

    # --- The stack ------------------------------------------------------------------------------------------

    def push(self, kind: i64, value: i64) -> None:
        d = self.depth
        if d >= self.capacity:
            self.grow()
        self.kinds[d] = kind
        self.values[d] = value
        self.depth = d + 1

    def grow(self) -> None:
        self.kinds.extend([CONST] * self.capacity)
        self.values.extend([0] * self.capacity)
        self.capacity += self.capacity

    def drop(self) -> None:
        """Removes the topmost entry without releasing its register: the caller has read it."""
        self.depth -= 1
        if self.depth < self.floor:
            self.floor = self.depth

    def replace_top(self, r: i64) -> None:
        """Makes register `r`, which the caller owns, the place of the topmost operand."""
        d = self.depth - 1
        self.kinds[d] = REG
        self.values[d] = r
        if d < self.floor:
            self.floor = d

    def cut(self, height: i64) -> None:
        """Forgets everything above `height`, registers included."""
        self.depth = height
        if height < self.floor:
            self.floor = height

    def slot(self, i: i64) -> i64:
        """The displacement of the slot of entry `i`."""
        if i >= self.deepest:
            self.deepest = i + 1
        return self.slots_at - self.stride * i

    def spill(self, i: i64) -> None:
        """Moves entry `i` to its slot."""
        k: i64 = self.kinds[i]
        v: i64 = self.values[i]
        at = self.slot(i)
        if k == REG:
            self.store_slot(v, at)
            self.release(v)
        elif k == LOCAL:
            r: i64 = self.pins[v]
            if r < 0:
                r = self.copies[v]
            if r < 0:
                # Through the vector scratch: the integer one may hold an address.
                self.rm(self.load_op if self.floats[v] else Op.MOVSD, 0, FLOAT_SCRATCH, RBP, self.homes[v])
                r = FLOAT_SCRATCH
            self.store_slot(r, at)
        elif k == CONST:
            if -0x80000000 <= v < 0x80000000:
                self.rm(Op.MOV_IMMEDIATE, 1, 0, RBP, at)
                self.dword(v)
            else:
                self.rc(Op.MOVSD, 0, FLOAT_SCRATCH, v)
                self.store_slot(FLOAT_SCRATCH, at)
        elif k == VECTOR_CONST:
            self.load_literal(FLOAT_SCRATCH, v)
            self.store_slot(FLOAT_SCRATCH, at)
        self.kinds[i] = SLOT

    def store_slot(self, r: i64, displacement: i64) -> None:
        if r >= XMM0:
            self.rm(self.store_op, 0, r, RBP, displacement)
        else:
            self.rm(Op.MOV_STORE, 1, r, RBP, displacement)

    def load_slot(self, r: i64, displacement: i64) -> None:
        if r >= XMM0:
            self.rm(self.load_op, 0, r, RBP, displacement)
        else:
            self.rm(Op.MOV, 1, r, RBP, displacement)

    def load_literal(self, r: i64, x: i64) -> None:
        """Loads a constant of 128 bits."""
        literal = self.literals[x]
        if literal == ZEROS:
            self.rr(Op.XORPS, 0, r, r)
        elif literal == ONES:
            self.rr(Op.PCMPEQD, 0, r, r)
        else:
            self.rv(Op.MOVAPS, 0, r, literal, 0)

    def flush(self) -> None:
        """Moves everything but constants to slots."""
        kinds = self.kinds
        i = self.floor
        n = self.depth
        while i < n:
            if kinds[i] != CONST and kinds[i] != SLOT:
                self.spill(i)
            i += 1
        self.floor = n

    def spill_top(self, n: i64) -> None:
        """Moves the topmost `n` entries to slots, constants too."""
        self.count_bulk(n)
        i = self.depth - n
        while i < self.depth:
            if self.kinds[i] != SLOT:
                self.spill(i)
            i += 1

    # --- Registers ------------------------------------------------------------------------------------------

    def alloc(self) -> i64:
        """An integer register for the caller to own."""
        one: i64 = 1
        f = self.free & INTEGER_MASK
        g = f & ~self.cached
        if g == 0:
            if f == 0:
                self.spill_deepest(False)
                f = self.free & INTEGER_MASK
            g = self.victims(f)
        r: i64 = FIRST[g]
        self.free &= ~(one << r)
        if self.cached >> r & 1:
            self.evict(r)
        return r

    def alloc_float(self) -> i64:
        """A vector register for the caller to own."""
        one: i64 = 1
        f = self.free & FLOAT_MASK
        g = f & ~self.cached
        if g == 0:
            if f == 0:
                self.spill_deepest(True)
                f = self.free & FLOAT_MASK
            g = self.victims(f)
        r: i64 = XMM0
        while not g >> r & 1:
            r += 1
        self.free &= ~(one << r)
        if self.cached >> r & 1:
            self.evict(r)
        return r

    def victims(self, free: i64) -> i64:
        """Of registers that hold copies of locals those to evict from: each has its turn."""
        g = free & ~self.evicted
        if g == 0:
            self.evicted &= ~free
            g = free
        return g

    def alloc_class(self, is_float: bool) -> i64:
        return self.alloc_float() if is_float else self.alloc()

    def spill_deepest(self, is_float: bool) -> None:
        """Frees a register of a class: that of the deepest operand, which will be wanted last."""
        i = self.floor
        while i < self.depth:
            if self.kinds[i] == REG and (self.values[i] >= XMM0) == is_float:
                self.spill(i)
                return
            i += 1
        raise WasmtimeError(f"compiler bug: out of registers in function {self.index} at {self.start}")

    def release(self, r: i64) -> None:
        """Gives back a register; pinned and scratch registers are none of the pool and stay what they are."""
        one: i64 = 1
        self.free |= (one << r) & self.pool

    def lock(self, r: i64) -> None:
        """Keeps a register from being allocated, without dropping the copy of a local in it."""
        one: i64 = 1
        self.free &= ~(one << r)

    def discard(self, k: i64, v: i64) -> None:
        """Releases what an operand that is no longer on the stack owns."""
        if k == REG:
            self.release(v)

    def take(self, r: i64) -> None:
        """Reserves one given pool register; what is in it moves elsewhere. The operands being worked on, which are
        off the stack, must not be in it."""
        one: i64 = 1
        if self.cached >> r & 1:
            self.evict(r)
        if not self.free >> r & 1:
            i = self.depth - 1
            while i >= self.floor and not (self.kinds[i] == REG and self.values[i] == r):
                i -= 1
            if i < self.floor:
                raise WasmtimeError(f"compiler bug: register {r} is lost in function {self.index} at {self.start}")
            if self.free & (FLOAT_MASK if r >= XMM0 else INTEGER_MASK):
                other = self.alloc_class(r >= XMM0)
                self.move(other, r)
                self.values[i] = other
            else:
                self.spill(i)
        self.free &= ~(one << r)

    # --- Copies of locals -----------------------------------------------------------------------------------

    def evict(self, r: i64) -> None:
        """Forgets the copy of a local in a register."""
        one: i64 = 1
        self.copies[self.cached_local[r]] = NONE
        self.cached &= ~(one << r)
        self.evicted |= one << r

    def forget(self, x: i64) -> None:
        """Forgets the copy of a local."""
        one: i64 = 1
        r: i64 = self.copies[x]
        if r >= 0:
            self.copies[x] = NONE
            self.cached &= ~(one << r)

    def forget_all(self) -> None:
        m = self.cached
        r: i64 = 0
        while m:
            if m & 1:
                self.copies[self.cached_local[r]] = NONE
            m >>= 1
            r += 1
        self.cached = 0

    def remember(self, x: i64, r: i64) -> None:
        """Notes that pool register `r`, which no operand owns, holds local `x`."""
        one: i64 = 1
        if self.pool >> r & 1:
            self.forget(x)
            if self.cached >> r & 1:
                self.evict(r)
            self.copies[x] = r
            self.cached_local[r] = x
            self.cached |= one << r

    def kill(self, x: i64) -> None:
        """Local `x` is about to change: operands that still want to read it do so now."""
        i = self.depth - 1
        while i >= self.floor:
            if self.kinds[i] == LOCAL and self.values[i] == x:
                r: i64 = self.copies[x]
                if r >= 0 and self.free >> r & 1:
                    self.lock(r)
                    self.evict(r)
                else:
                    r = self.alloc_class(self.floats[x])
                    self.load(r, LOCAL, x, i)
                self.kinds[i] = REG
                self.values[i] = r
            i -= 1

    # --- Reading operands -----------------------------------------------------------------------------------

    def move(self, to: i64, origin: i64) -> None:
        """Register to register, the same or the other class."""
        if to == origin:
            return
        if to >= XMM0:
            if origin >= XMM0:
                self.rr(Op.MOVAPS, 0, to, origin)
            else:
                self.rr(Op.MOV_TO_VECTOR, 1, to, origin)
        elif origin >= XMM0:
            self.rr(Op.MOV_FROM_VECTOR, 1, origin, to)
        else:
            self.rr(Op.MOV, 1, to, origin)

    def where(self, k: i64, v: i64) -> i64:
        """The register that holds an operand already, or `NONE`."""
        if k == REG:
            return v
        if k == LOCAL:
            r: i64 = self.pins[v]
            return r if r >= 0 else self.copies[v]
        return NONE

    def load(self, r: i64, k: i64, v: i64, i: i64) -> None:
        """Copies operand `(k, v)`, entry `i` of the stack, to a register of either class."""
        origin = self.where(k, v)
        if origin >= 0:
            self.move(r, origin)
        elif k == CONST:
            if r < XMM0:
                self.immediate(r, v)
            elif v == 0:
                self.rr(Op.XORPS, 0, r, r)
            else:
                self.rc(Op.MOVSD, 0, r, v)
        elif k == SLOT:
            self.load_slot(r, self.slot(i))
        elif k == LOCAL:
            if r >= XMM0 and not self.floats[v]:
                self.rm(Op.MOVSD, 0, r, RBP, self.homes[v])
            else:
                self.load_slot(r, self.homes[v])
        else:
            self.load_literal(r, v)

    def use(self, op: i64, wide: i64, reg: i64, k: i64, v: i64, i: i64) -> None:
        """`op reg, operand` for an integer operand, which stays what it is. A constant goes through the scratch
        register, so `reg` must be another."""
        r = self.where(k, v)
        if r < 0 and k == CONST:
            self.immediate(SCRATCH, v)
            r = SCRATCH
        if r >= 0:
            self.rr(op, wide, reg, r)
        else:
            self.rm(op, wide, reg, RBP, self.slot(i) if k == SLOT else self.homes[v])

    def use_float(self, op: i64, reg: i64, k: i64, v: i64, i: i64) -> None:
        """`op reg, operand` for a float operand, which stays what it is."""
        r = self.where(k, v)
        if r >= 0:
            self.rr(op, 0, reg, r)
        elif k == CONST:
            self.rc(op, 0, reg, v)
        else:
            self.rm(op, 0, reg, RBP, self.slot(i) if k == SLOT else self.homes[v])

    def use_vector(self, op: i64, reg: i64, k: i64, v: i64, i: i64, behind: i64) -> None:
        """`op reg, operand` for an operand of 16 bytes, which stays what it is. The caller appends `behind` bytes."""
        r = self.where(k, v)
        if r >= 0:
            self.rr(op, 0, reg, r)
        elif k == VECTOR_CONST:
            self.rv(op, 0, reg, self.literals[v], behind)
        else:
            self.rm(op, 0, reg, RBP, self.slot(i) if k == SLOT else self.homes[v])

    def pop_owned(self, is_float: bool) -> i64:
        """Pops an operand into a register of its class that the caller may change."""
        self.drop()
        i = self.depth
        k: i64 = self.kinds[i]
        v: i64 = self.values[i]
        if k == REG:
            return v
        r = self.alloc_class(is_float)
        self.load(r, k, v, i)
        return r

    def pop_read(self, is_float: bool) -> i64:
        """Pops an operand into a register that the caller only reads, and releases afterwards."""
        self.drop()
        i = self.depth
        k: i64 = self.kinds[i]
        v: i64 = self.values[i]
        if k == REG:
            return v
        if k == LOCAL:
            return self.read_local(v)
        r = self.alloc_class(is_float)
        self.load(r, k, v, i)
        return r

    def read_local(self, x: i64) -> i64:
        """A register that holds a local, locked if it is one of the pool."""
        r: i64 = self.pins[x]
        if r >= 0:
            return r
        r = self.copies[x]
        if r >= 0:
            self.lock(r)
            return r
        r = self.alloc_class(self.floats[x])
        self.load(r, LOCAL, x, 0)
        self.remember(x, r)
        return r

    # --- Results --------------------------------------------------------------------------------------------

    def hint(self, is_float: bool) -> i64:
        """The register of a pinned local that the next instruction assigns, or `NONE`.

        The caller computes its result there and calls `finish`, which then counts the next instruction as done. It must
        not write the register while an operand is still to be read from it.
        """
        op: i64 = self.code[self.pc]
        if op != 0x21 and op != 0x22:
            return NONE
        x: i64 = self.code[self.pc + 1]
        if x >= 0x80:
            return NONE
        r: i64 = self.pins[x]
        if r < 0 or (r >= XMM0) != is_float:
            return NONE
        self.kill(x)
        return r

    def finish(self, r: i64, hint: i64) -> None:
        """Pushes the result in register `r`, or completes the assignment that `hint` announced."""
        if hint >= 0:
            if self.code[self.pc] == 0x22:
                self.push(LOCAL, self.code[self.pc + 1])
            self.pc += 2
            self.fuel += 1
        else:
            self.push(REG, r)

    # --- Immediates -----------------------------------------------------------------------------------------

    def unsigned(self) -> i64:
        """Reads an unsigned LEB128 number (validation has checked it)."""
        code = self.code
        pc = self.pc
        value: i64 = code[pc]
        pc += 1
        if value >= 0x80:
            value &= 0x7F
            shift: i64 = 7
            while True:
                b: i64 = code[pc]
                pc += 1
                value |= (b & 0x7F) << shift
                if b < 0x80:
                    break
                shift += 7
        self.pc = pc
        return value

    def signed(self) -> i64:
        """Reads a signed LEB128 number of up to 64 bits."""
        code = self.code
        pc = self.pc
        value: i64 = 0
        shift: i64 = 0
        b: i64 = code[pc]
        pc += 1
        while b >= 0x80:
            value |= (b & 0x7F) << shift
            shift += 7
            b = code[pc]
            pc += 1
        if shift == 63:  # the tenth byte holds the sign only
            if b & 1:
                value -= 0x4000000000000000
                value -= 0x4000000000000000
        else:
            value |= b << shift
            if b & 0x40:
                # In two steps: a literal shifted by a variable is 32 bits wide when this is compiled by mypyc.
                sign: i64 = 0x40
                sign <<= shift
                value -= sign
                value -= sign
        self.pc = pc
        return value
