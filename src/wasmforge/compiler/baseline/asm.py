"""The assembler: x86-64 encodings as numbers with names, and the few forms of operands that the compiler uses.

An instruction is a number: `prefix << 16 | map << 8 | opcode`, where the map is 0 for one-byte opcodes, 1 for those
behind 0F, 2 for 0F 38, 3 for 0F 3A; the prefix is 66, F2, F3 or none. `avx(op, first)` of it is the same instruction in
the form with three operands that AVX brought. `Assembler` writes them, patches jumps, and keeps the constants of a
function. The emitters of this room are its only users; the tests decode every name with capstone.
"""

from __future__ import annotations

from wasmforge.compiler.baseline.buffer import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from mypy_extensions import i64

__all__ = ["Assembler", "Condition", "Op", "avx"]


class Op:
    """`reg, r/m` instructions: the destination is `reg` unless the name says STORE. Names ending in D or S for floats
    are the double and single forms; the compiler adds `FLOAT_WIDE` or `FLOAT_NARROW` to those marked *."""

    MOV: Final = 0x8B
    MOV_STORE: Final = 0x89
    MOV_STORE8: Final = 0x88
    MOV_IMMEDIATE: Final = 0xC7  # /0
    MOV_IMMEDIATE8: Final = 0xC6  # /0
    MOVZX8: Final = 0x1B6
    MOVZX16: Final = 0x1B7
    MOVSX8: Final = 0x1BE
    MOVSX16: Final = 0x1BF
    MOVSXD: Final = 0x63
    LEA: Final = 0x8D
    ADD: Final = 0x03
    OR: Final = 0x0B
    ADC: Final = 0x13
    SBB: Final = 0x1B
    AND: Final = 0x23
    SUB: Final = 0x2B
    SUB_STORE: Final = 0x29
    XOR: Final = 0x33
    CMP: Final = 0x3B
    TEST: Final = 0x85
    IMUL: Final = 0x1AF
    IMUL_IMMEDIATE: Final = 0x69
    IMUL_IMMEDIATE8: Final = 0x6B
    GROUP1: Final = 0x81  # add /0, or /1, and /4, sub /5, xor /6, cmp /7 with a 32-bit immediate
    GROUP1_8: Final = 0x83  # the same with an 8-bit immediate
    GROUP3: Final = 0xF7  # test /0, neg /3, div /6, idiv /7
    GROUP5: Final = 0xFF  # inc /0, dec /1, call /2, jmp /4
    SHIFT_IMMEDIATE: Final = 0xC1  # rol /0, ror /1, shl /4, shr /5, sar /7
    SHIFT_CL: Final = 0xD3
    BTC_IMMEDIATE: Final = 0x1BA  # /7
    XCHG: Final = 0x87  # for bytes one less
    XADD: Final = 0x1C1  # the same
    CMPXCHG: Final = 0x1B1  # the same
    LZCNT: Final = 0xF301BD
    TZCNT: Final = 0xF301BC
    POPCNT: Final = 0xF301B8
    BSR: Final = 0x1BD
    BSF: Final = 0x1BC
    SETCC: Final = 0x190  # + condition
    CMOVCC: Final = 0x140  # + condition
    MOVAPS: Final = 0x128
    MOVUPS: Final = 0x110
    MOVUPS_STORE: Final = 0x111
    MOVSD: Final = 0xF20110
    MOVSD_STORE: Final = 0xF20111
    MOVSS: Final = 0xF30110
    MOVSS_STORE: Final = 0xF30111
    MOV_TO_VECTOR: Final = 0x66016E  # movd, movq xmm, r/m
    MOV_FROM_VECTOR: Final = 0x66017E  # movd, movq r/m, xmm: the vector register is `reg`
    ADDSD: Final = 0xF20158
    MULSD: Final = 0xF20159
    SUBSD: Final = 0xF2015C
    MINSD: Final = 0xF2015D
    DIVSD: Final = 0xF2015E
    MAXSD: Final = 0xF2015F
    SQRTSD: Final = 0xF20151
    ROUNDSD: Final = 0x66030B
    ROUNDSS: Final = 0x66030A
    UCOMISD: Final = 0x66012E
    UCOMISS: Final = 0x12E
    CMPSD: Final = 0xF201C2
    CVTSI2SD: Final = 0xF2012A
    CVTTSD2SI: Final = 0xF2012C
    CVTSD2SS: Final = 0xF2015A
    CVTSS2SD: Final = 0xF3015A
    ANDPS: Final = 0x154
    ANDNPS: Final = 0x155
    ORPS: Final = 0x156
    XORPS: Final = 0x157
    PCMPEQD: Final = 0x660176
    PSHIFTD_IMMEDIATE: Final = 0x660172  # psrld /2, pslld /6
    PSHIFTQ_IMMEDIATE: Final = 0x660173  # psrlq /2, psllq /6

    SINGLE: Final = 0x10000
    """Added to a double-precision instruction with prefix F2, gives the single-precision one."""


class Condition:
    """Condition codes; the lowest bit negates."""

    OVERFLOW: Final = 0
    NO_OVERFLOW: Final = 1
    BELOW: Final = 2
    ABOVE_EQUAL: Final = 3
    EQUAL: Final = 4
    NOT_EQUAL: Final = 5
    BELOW_EQUAL: Final = 6
    ABOVE: Final = 7
    SIGN: Final = 8
    NO_SIGN: Final = 9
    PARITY: Final = 10
    NO_PARITY: Final = 11
    LESS: Final = 12
    GREATER_EQUAL: Final = 13
    LESS_EQUAL: Final = 14
    GREATER: Final = 15


def avx(op: i64, first: i64) -> i64:
    """The AVX form of a vector instruction, which reads register `first`, and `r/m`, and writes `reg`. Those that have
    one source only want 0. Bit 24 marks it, and the four bits from 28 on are the register."""
    return op | 0x1000000 | (first & 15) << 28


class Assembler:
    """Writes machine code into `out`. Registers are numbers of `registers`; `wide` is 1 for 64-bit operands."""

    # Bytes pass through variables of type int: given an i64, mypyc would call `append` as any method of any object,
    # which takes as long as everything else in here.

    def __init__(self) -> None:
        self.out = Buffer()
        self.constants: dict[int, list[int]] = {}
        """64-bit constants with the places of the displacements that want their distance."""
        self.vector_constants: dict[bytes, list[int]] = {}
        """128-bit constants, and for each displacement its place and how many bytes of the instruction follow it."""
        self.bound: i64 = -1
        """The last position that something jumps to."""

    # --- Encodings ------------------------------------------------------------------------------------------

    def head(self, op: i64, rex: i64) -> None:
        """Prefix, REX if it says anything, escape, opcode."""
        byte: int
        out = self.out
        if op >= 0x10000:
            if op >= 0x1000000:
                self.vex(op, rex)
                return
            byte = op >> 16
            out.append(byte)
            op &= 0xFFFF
        if rex != 0x40:
            byte = rex
            out.append(byte)
        if op >= 0x100:
            out.append(0x0F)
            if op >= 0x200:
                out.append(0x38 if op < 0x300 else 0x3A)
        byte = op & 0xFF
        out.append(byte)

    def vex(self, op: i64, rex: i64) -> None:
        """The head of an AVX instruction: prefix, REX and escape become two or three bytes, with some bits inverted."""
        byte: int
        out = self.out
        prefix: i64 = op >> 16 & 0xFF
        last: i64 = (op >> 28 ^ 15) << 3
        if prefix == 0x66:
            last |= 1
        elif prefix != 0:
            last |= 2 if prefix == 0xF3 else 3
        opcodes: i64 = op >> 8 & 0xFF
        if opcodes == 1 and rex & 11 == 0:
            out.append(0xC5)
            last |= (rex & 4 ^ 4) << 5
        else:
            out.append(0xC4)
            byte = (rex & 7 ^ 7) << 5 | opcodes
            out.append(byte)
            last |= (rex & 8) << 4
        byte = last
        out.append(byte)
        byte = op & 0xFF
        out.append(byte)

    def rr(self, op: i64, wide: i64, reg: i64, rm: i64) -> None:
        """`op reg, rm`, both registers."""
        byte: int
        self.head(op, 0x40 | wide << 3 | (reg & 8) >> 1 | (rm & 8) >> 3)
        byte = 0xC0 | (reg & 7) << 3 | rm & 7
        self.out.append(byte)

    def rr8(self, op: i64, wide: i64, reg: i64, rm: i64) -> None:
        """As `rr` where `rm` is a byte register: those of rsi and rdi need a REX prefix."""
        byte: int
        if 4 <= rm < 8 and not wide and reg & 8 == 0:
            out = self.out
            out.append(0x40)
            self.head(op, 0x40)
            byte = 0xC0 | (reg & 7) << 3 | rm & 7
            out.append(byte)
        else:
            self.rr(op, wide, reg, rm)

    def rm(self, op: i64, wide: i64, reg: i64, base: i64, displacement: i64) -> None:
        """`op reg, [base + displacement]`."""
        byte: int
        self.head(op, 0x40 | wide << 3 | (reg & 8) >> 1 | (base & 8) >> 3)
        out = self.out
        mod_rm: i64 = (reg & 7) << 3 | base & 7
        if displacement == 0 and base & 7 != 5:
            byte = mod_rm
            out.append(byte)
            if base & 7 == 4:
                out.append(0x24)
        elif -128 <= displacement < 128:
            byte = 0x40 | mod_rm
            out.append(byte)
            if base & 7 == 4:
                out.append(0x24)
            byte = displacement & 0xFF
            out.append(byte)
        else:
            byte = 0x80 | mod_rm
            out.append(byte)
            if base & 7 == 4:
                out.append(0x24)
            self.dword(displacement)

    def rx(self, op: i64, wide: i64, reg: i64, base: i64, index: i64, scale: i64, displacement: i64) -> None:
        """`op reg, [base + index << scale + displacement]`; the index is not rsp."""
        byte: int
        self.head(op, 0x40 | wide << 3 | (reg & 8) >> 1 | (index & 8) >> 2 | (base & 8) >> 3)
        out = self.out
        mod_rm: i64 = (reg & 7) << 3 | 4
        sib: i64 = scale << 6 | (index & 7) << 3 | base & 7
        if displacement == 0 and base & 7 != 5:
            byte = mod_rm
            out.append(byte)
            byte = sib
            out.append(byte)
        elif -128 <= displacement < 128:
            byte = 0x40 | mod_rm
            out.append(byte)
            byte = sib
            out.append(byte)
            byte = displacement & 0xFF
            out.append(byte)
        else:
            byte = 0x80 | mod_rm
            out.append(byte)
            byte = sib
            out.append(byte)
            self.dword(displacement)

    def rc(self, op: i64, wide: i64, reg: i64, constant: int) -> None:
        """`op reg, [rip + constant]`, from the function's pool of 64-bit constants."""
        byte: int
        self.head(op, 0x40 | wide << 3 | (reg & 8) >> 1)
        byte = 5 | (reg & 7) << 3
        self.out.append(byte)
        places = self.constants.get(constant)
        if places is None:
            places = []
            self.constants[constant] = places
        places.append(len(self.out))
        self.dword(0)

    def rv(self, op: i64, wide: i64, reg: i64, constant: bytes, behind: i64) -> None:
        """`op reg, [rip + constant]`, from the function's pool of 128-bit constants. The caller appends `behind` more
        bytes, the immediate of the instruction."""
        byte: int
        self.head(op, 0x40 | wide << 3 | (reg & 8) >> 1)
        byte = 5 | (reg & 7) << 3
        self.out.append(byte)
        places = self.vector_constants.get(constant)
        if places is None:
            places = []
            self.vector_constants[constant] = places
        places.append(len(self.out))
        places.append(behind)
        self.dword(0)

    def dword(self, value: i64) -> None:
        """Four bytes; the value may be signed or unsigned."""
        byte: int
        out = self.out
        byte = value & 0xFF
        out.append(byte)
        byte = value >> 8 & 0xFF
        out.append(byte)
        byte = value >> 16 & 0xFF
        out.append(byte)
        byte = value >> 24 & 0xFF
        out.append(byte)

    def qword(self, value: i64) -> None:
        """Eight bytes of a signed value."""
        self.dword(value)
        self.dword(value >> 32)

    def byte(self, value: i64) -> None:
        byte: int = value
        self.out.append(byte)

    # --- Instructions of their own shape --------------------------------------------------------------------

    def immediate(self, reg: i64, value: i64) -> None:
        """`mov reg, value`, the shortest form that leaves the flags alone."""
        byte: int
        out = self.out
        if 0 <= value <= 0xFFFFFFFF:
            if reg >= 8:
                out.append(0x41)
            byte = 0xB8 | reg & 7
            out.append(byte)
            self.dword(value)
        elif -0x80000000 <= value < 0:
            self.rr(Op.MOV_IMMEDIATE, 1, 0, reg)
            self.dword(value)
        else:
            byte = 0x48 | (reg & 8) >> 3
            out.append(byte)
            byte = 0xB8 | reg & 7
            out.append(byte)
            self.qword(value)

    def group1(self, number: i64, wide: i64, reg: i64, value: i64) -> None:
        """An instruction of group 1 (`Op.GROUP1`) with a 32-bit signed immediate."""
        byte: int
        if -128 <= value < 128:
            self.rr(Op.GROUP1_8, wide, number, reg)
            byte = value & 0xFF
            self.out.append(byte)
        else:
            self.rr(Op.GROUP1, wide, number, reg)
            self.dword(value)

    def group1_memory(self, number: i64, wide: i64, base: i64, displacement: i64, value: i64) -> None:
        """The same on `[base + displacement]`."""
        byte: int
        if -128 <= value < 128:
            self.rm(Op.GROUP1_8, wide, number, base, displacement)
            byte = value & 0xFF
            self.out.append(byte)
        else:
            self.rm(Op.GROUP1, wide, number, base, displacement)
            self.dword(value)

    def push_register(self, reg: i64) -> None:
        byte: int
        if reg >= 8:
            self.out.append(0x41)
        byte = 0x50 | reg & 7
        self.out.append(byte)

    # --- Jumps ----------------------------------------------------------------------------------------------

    def jump(self) -> i64:
        """A jump forwards; returns the place for `patch`."""
        self.out.append(0xE9)
        self.dword(0)
        return len(self.out) - 4

    def jump_if(self, condition: i64) -> i64:
        """A conditional jump forwards; returns the place for `patch`."""
        byte: int
        self.out.append(0x0F)
        byte = 0x80 | condition
        self.out.append(byte)
        self.dword(0)
        return len(self.out) - 4

    def jump_back(self, condition: i64, target: i64) -> None:
        """A jump to an earlier position, conditional unless the condition is negative."""
        byte: int
        out = self.out
        distance: i64 = target - len(out) - 2
        if distance >= -128:
            byte = 0xEB if condition < 0 else 0x70 | condition
            out.append(byte)
            byte = distance & 0xFF
            out.append(byte)
        elif condition < 0:
            out.append(0xE9)
            self.dword(distance - 3)
        else:
            out.append(0x0F)
            byte = 0x80 | condition
            out.append(byte)
            self.dword(distance - 4)

    def skip_if(self, condition: i64) -> i64:
        """A short conditional jump forwards, over less than 128 bytes; returns the place for `skip_end`."""
        byte: int
        byte = 0x70 | condition
        self.out.append(byte)
        self.out.append(0)
        return len(self.out)

    def skip(self) -> i64:
        """The same, unconditional."""
        self.out.append(0xEB)
        self.out.append(0)
        return len(self.out)

    def skip_end(self, place: i64) -> None:
        """Lets a short jump arrive here."""
        distance: i64 = len(self.out) - place
        assert distance < 128
        byte: int = distance
        self.out[place - 1] = byte
        self.bound = len(self.out)

    def patch(self, place: i64) -> None:
        """Lets a jump, or what else holds a distance from its own end, arrive here."""
        self.patch_to(place, len(self.out))
        self.bound = len(self.out)

    def patch_to(self, place: i64, target: i64) -> None:
        """Lets a jump arrive at `target`."""
        out = self.out
        distance: i64 = target - place - 4
        n: i64 = 0
        while n < 4:
            byte: int = distance & 0xFF
            out[place + n] = byte
            distance >>= 8
            n += 1
