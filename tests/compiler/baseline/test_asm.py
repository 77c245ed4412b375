"""The assembler: every encoding by name, every form of operands, jumps near and far. Capstone is the judge."""

from __future__ import annotations

import pytest
from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from wasmforge.compiler.baseline.asm import Assembler, Condition, Op
from wasmforge.compiler.baseline.registers import NAMES, RBP, RSP, XMM0

INTEGERS = list(range(16))
VECTORS = list(range(XMM0, XMM0 + 16))
EVERYTHING = {name: value for name, value in vars(Op).items() if name.isupper() and name != "SINGLE"}

# Mnemonic, and whether `reg` and `r/m` are vector registers; a slash gives the number of a group instead of `reg`, a
# figure behind # the bytes of an immediate.
EXPECTED = {
    "MOV": "mov ii",
    "MOV_STORE": "mov ii store",
    "MOV_STORE8": "mov ii store byte",
    "MOV_IMMEDIATE": "mov /0i #4",
    "MOV_IMMEDIATE8": "mov /0i #1 byte",
    "MOVZX8": "movzx ii byte",
    "MOVZX16": "movzx ii word",
    "MOVSX8": "movsx ii byte",
    "MOVSX16": "movsx ii word",
    "MOVSXD": "movsxd ii",
    "LEA": "lea ii memory",
    "ADD": "add ii",
    "OR": "or ii",
    "AND": "and ii",
    "SUB": "sub ii",
    "ADC": "adc ii",
    "SBB": "sbb ii",
    "SUB_STORE": "sub ii store",
    "XCHG": "xchg ii store",
    "XADD": "xadd ii store",
    "CMPXCHG": "cmpxchg ii store",
    "XOR": "xor ii",
    "CMP": "cmp ii",
    "TEST": "test ii store",
    "IMUL": "imul ii",
    "IMUL_IMMEDIATE": "imul ii #4",
    "IMUL_IMMEDIATE8": "imul ii #1",
    "GROUP1": "add /0i #4",
    "GROUP1_8": "sub /5i #1",
    "GROUP3": "idiv /7i",
    "GROUP5": "inc /0i",
    "SHIFT_IMMEDIATE": "sar /7i #1",
    "SHIFT_CL": "shl /4i",
    "BTC_IMMEDIATE": "btc /7i #1",
    "LZCNT": "lzcnt ii",
    "TZCNT": "tzcnt ii",
    "POPCNT": "popcnt ii",
    "BSR": "bsr ii",
    "BSF": "bsf ii",
    "SETCC": "seto /0i byte",
    "CMOVCC": "cmovo ii",
    "MOVAPS": "movaps vv",
    "MOVUPS": "movups vv",
    "MOVUPS_STORE": "movups vv store",
    "MOVSD": "movsd vv",
    "MOVSD_STORE": "movsd vv store",
    "MOVSS": "movss vv",
    "MOVSS_STORE": "movss vv store",
    "MOV_TO_VECTOR": "movd vi",
    "MOV_FROM_VECTOR": "movd vi store",
    "ADDSD": "addsd vv",
    "MULSD": "mulsd vv",
    "SUBSD": "subsd vv",
    "MINSD": "minsd vv",
    "DIVSD": "divsd vv",
    "MAXSD": "maxsd vv",
    "SQRTSD": "sqrtsd vv",
    "ROUNDSD": "roundsd vv #1",
    "ROUNDSS": "roundss vv #1",
    "UCOMISD": "ucomisd vv",
    "UCOMISS": "ucomiss vv",
    "CMPSD": "cmpeqsd vv #1",
    "CVTSI2SD": "cvtsi2sd vi",
    "CVTTSD2SI": "cvttsd2si iv",
    "CVTSD2SS": "cvtsd2ss vv",
    "CVTSS2SD": "cvtss2sd vv",
    "ANDPS": "andps vv",
    "ANDNPS": "andnps vv",
    "ORPS": "orps vv",
    "XORPS": "xorps vv",
    "PCMPEQD": "pcmpeqd vv",
    "PSHIFTD_IMMEDIATE": "pslld /6v #1 register",
    "PSHIFTQ_IMMEDIATE": "psrlq /2v #1 register",
}

SINGLE = ["ADDSD", "MULSD", "SUBSD", "MINSD", "DIVSD", "MAXSD", "SQRTSD", "CVTSI2SD", "CVTTSD2SI", "MOVSD", "CMPSD"]


CAPSTONE = Cs(CS_ARCH_X86, CS_MODE_64)


def decode(code: bytes | bytearray) -> list[tuple[str, str]]:
    found = list(CAPSTONE.disasm_lite(bytes(code), 0))
    assert sum(size for _, size, _, _ in found) == len(code), "bytes that are no instruction"
    return [(mnemonic, operands) for _, _, mnemonic, operands in found]


def name(r: int, size: int) -> str:
    """A register as capstone writes it, by its bytes."""
    if r >= XMM0:
        return NAMES[r]
    if size == 8:
        return NAMES[r]
    if r >= 8:
        return NAMES[r] + {4: "d", 2: "w", 1: "b"}[size]
    base = NAMES[r][1:]
    if size == 1:
        return base[0] + "l" if base[1] == "x" else base + "l"
    return base if size == 2 else "e" + base


def numbered(kind: str) -> list[int]:
    return [int(kind[1:2])] if kind[0] == "/" else (VECTORS if kind[0] == "v" else INTEGERS)


def test_every_encoding_has_an_expectation() -> None:
    assert EVERYTHING.keys() == EXPECTED.keys()


@pytest.mark.parametrize("wide", [0, 1])
@pytest.mark.parametrize("op", EXPECTED)
def test_registers(op: str, wide: int) -> None:
    """`rr` with all pairs of registers, and `rr8` where the source is a byte."""
    mnemonic, kind, *flags = EXPECTED[op].split()
    if "memory" in flags:
        pytest.skip("has no register form")
    immediate = next((int(f[1:]) for f in flags if f[0] == "#"), 0)
    size = 8 if wide else 4
    source = 1 if "byte" in flags else 2 if "word" in flags else 4 if op == "MOVSXD" else size
    target = 1 if op == "MOV_STORE8" else size
    for reg in numbered(kind):
        for rm in VECTORS if kind.endswith("v") else INTEGERS:
            a = Assembler()
            if op in ("MOVZX8", "MOVSX8", "SETCC"):
                a.rr8(EVERYTHING[op], wide, reg, rm)
            elif "byte" in flags and (4 <= rm < 8 or 4 <= reg < 8):
                continue  # only ever used on memory
            else:
                a.rr(EVERYTHING[op], wide, reg, rm)
            for _ in range(immediate):
                a.byte(0)
            ((found, operands),) = decode(a.out)
            assert found == ("movq" if wide and mnemonic == "movd" else mnemonic), (reg, rm)
            expected = [name(rm, source)]
            if kind[0] != "/":
                expected = [*expected, name(reg, target)] if "store" in flags else [name(reg, target), *expected]
            assert operands.split(", ")[: len(expected)] == expected


@pytest.mark.parametrize("op", EXPECTED)
def test_memory_operands(op: str) -> None:
    """`rm` and `rx`: every base, every index, displacements of no byte, one byte and four."""
    mnemonic, kind, *flags = EXPECTED[op].split()
    if "register" in flags:
        pytest.skip("has no memory form")
    immediate = next((int(f[1:]) for f in flags if f[0] == "#"), 0)
    reg = numbered(kind)[-1]
    for base in INTEGERS:
        for displacement in (0, 1, -128, 127, 128, -129, 0x7FFFFFFF, -0x80000000):
            a = Assembler()
            a.rm(EVERYTHING[op], 0, reg, base, displacement)
            for _ in range(immediate):
                a.byte(0)
            ((found, operands),) = decode(a.out)
            assert found == mnemonic
            assert f"[{NAMES[base]}{_signed(displacement)}]" in operands
        index, scale = (base + 5) % 16, base % 4
        if index == RSP:
            continue
        for displacement in (0, -1, 1000):
            a = Assembler()
            a.rx(EVERYTHING[op], 0, reg, base, index, scale, displacement)
            for _ in range(immediate):
                a.byte(0)
            ((found, operands),) = decode(a.out)
            factor = f"*{1 << scale}" if scale else ""
            assert f"[{NAMES[base]} + {NAMES[index]}{factor}{_signed(displacement)}]" in operands


def _signed(displacement: int) -> str:
    if displacement == 0:
        return ""
    sign, n = ("+", displacement) if displacement > 0 else ("-", -displacement)
    return f" {sign} {n:#x}" if n > 9 else f" {sign} {n}"


@pytest.mark.parametrize("op", SINGLE)
def test_single_precision(op: str) -> None:
    a = Assembler()
    a.rr(EVERYTHING[op] + Op.SINGLE, 0, XMM0 if op != "CVTTSD2SI" else 0, XMM0 + 9 if op != "CVTSI2SD" else 9)
    if op == "CMPSD":
        a.byte(0)
    ((found, _),) = decode(a.out)
    assert found == EXPECTED[op].split()[0].replace("sd", "ss")


def test_conditions() -> None:
    """The sixteen codes, as setcc, cmov and jump."""
    names = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]
    assert [v for k, v in vars(Condition).items() if k.isupper()] == list(range(16))
    for code, suffix in enumerate(names):
        a = Assembler()
        a.rr8(Op.SETCC | code, 0, 0, 6)
        a.rr(Op.CMOVCC | code, 1, 3, 9)
        a.patch(a.jump_if(code))
        found = [m for m, _ in decode(a.out)]
        assert found == [f"set{suffix}", f"cmov{suffix}", f"j{suffix}"]


@pytest.mark.parametrize(
    "value", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, -1, -0x80000000, -0x80000001, -(1 << 63)]
)
@pytest.mark.parametrize("reg", [0, 7, 8, 15])
def test_immediates(reg: int, value: int) -> None:
    """The shortest form; a 32-bit one where zero extension gives the value."""
    a = Assembler()
    a.immediate(reg, value)
    ((mnemonic, operands),) = decode(a.out)
    register, _, number = operands.partition(", ")
    assert mnemonic in ("mov", "movabs")
    assert int(number, 0) % (1 << 64) == value % (1 << 64)
    assert register == name(reg, 4 if 0 <= value < 1 << 32 else 8)
    assert len(a.out) <= (6 if 0 <= value < 1 << 32 else 7 if value >= -0x80000000 and value < 0 else 10)


@pytest.mark.parametrize("distance", [0, 100, 120, 126, 127, 128, 200, 70000])
def test_jumps_back(distance: int) -> None:
    for condition in (-1, Condition.LESS):
        a = Assembler()
        a.out.write(b"\x90" * distance)
        a.jump_back(condition, 0)
        *_, (mnemonic, operands) = decode(a.out)
        assert (mnemonic, int(operands, 0)) == ("jmp" if condition < 0 else "jl", 0)


def test_jumps_forward() -> None:
    a = Assembler()
    places = [a.jump(), a.jump_if(Condition.ABOVE)]
    short = [a.skip(), a.skip_if(Condition.PARITY)]
    a.out.write(b"\x90" * 50)
    for place in short:
        a.skip_end(place)
    a.out.write(b"\x90" * 1000)
    for place in places:
        a.patch(place)
    found = [(m, int(o, 0)) for m, o in decode(a.out) if m != "nop"]
    end = len(a.out)
    assert found == [("jmp", end), ("ja", end), ("jmp", end - 1000), ("jp", end - 1000)]


def test_pushes_and_groups() -> None:
    a = Assembler()
    for r in INTEGERS:
        a.push_register(r)
    assert [o for _, o in decode(a.out)] == [NAMES[r] for r in INTEGERS]
    for number, mnemonic in enumerate(["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]):
        a = Assembler()
        a.group1(number, 1, RBP, -128)
        a.group1(number, 0, 9, 0x1234567)
        a.group1_memory(number, 1, RBP, -8, 5)
        assert decode(a.out) == [
            (mnemonic, "rbp, -0x80" if mnemonic not in ("and", "or", "xor") else "rbp, 0xffffffffffffff80"),
            (mnemonic, "r9d, 0x1234567"),
            (mnemonic, "qword ptr [rbp - 8], 5"),
        ]
