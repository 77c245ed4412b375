"""The encodings of vector instructions, in the SSE form and in the form of AVX. Capstone is the judge."""

from __future__ import annotations

import pytest

from tests.compiler.baseline.test_asm import decode, name
from wasmforge.compiler.baseline.asm import Assembler, Op, avx
from wasmforge.compiler.baseline.registers import NAMES, RBP, RSP, XMM0
from wasmforge.compiler.baseline.vector_op import AVX2Op, VectorOp

VECTORS = list(range(XMM0, XMM0 + 16))
INTEGERS = list(range(16))
OPS = {n: v for n, v in vars(VectorOp).items() if n.isupper()}
AVX2_OPS = {n: v for n, v in vars(AVX2Op).items() if n.isupper()}
SHARED = {n: vars(Op)[n] for n in ("MOVUPS", "MOVUPS_STORE", "MOVAPS", "MOVSS", "MOVSD", "MOVSD_STORE", "MOVSS_STORE")}

IMMEDIATE = {
    *("PSHUFD", "PSHUFLW", "PALIGNR", "PBLENDW", "SHUFPS", "PINSRB", "PINSRW", "PINSRD", "PEXTRB", "PEXTRW", "PEXTRD"),
    *("INSERTPS", "CMPPS", "CMPPD", "ROUNDPS", "ROUNDPD", "VPBLENDVB", "VBLENDVPS", "VBLENDVPD"),
}
# One source: with `avx` they want no first operand.
UNARY = {
    *("PABSB", "PABSW", "PABSD", "PTEST", "PSHUFD", "PSHUFLW", "MOVDDUP", "SQRTPS", "SQRTPD", "ROUNDPS", "ROUNDPD"),
    *("PMOVSXBW", "PMOVSXWD", "PMOVSXDQ", "PMOVZXBW", "PMOVZXWD", "PMOVZXDQ", "PMOVMSKB", "MOVMSKPS", "MOVMSKPD"),
    *("CVTDQ2PS", "CVTTPS2DQ", "CVTDQ2PD", "CVTTPD2DQ", "CVTPD2PS", "CVTPS2PD", "PEXTRB", "PEXTRW", "PEXTRD"),
    *("VPBROADCASTB", "VPBROADCASTW", "VPBROADCASTD", "VPBROADCASTQ", "VBROADCASTSS"),
}
INTEGER_RM = {"PINSRB", "PINSRW", "PINSRD", "PEXTRB", "PEXTRW", "PEXTRD"}
REVERSED = {"PEXTRB", "PEXTRW", "PEXTRD"}  # `reg` is the source
INTEGER_REG = {"PMOVMSKB", "MOVMSKPS", "MOVMSKPD"}
GROUPS = {
    "SHIFT_W": ("psrlw", "psraw", "psllw"),
    "SHIFT_D": ("psrld", "psrad", "pslld"),
    "SHIFT_Q": ("psrlq", "", "psllq"),
}


def mnemonic(op: str, immediate: bool) -> str:
    lowered = op.lower()
    if immediate and op in ("CMPPS", "CMPPD"):
        return f"cmpeq{op[-2:].lower()}"
    return lowered


def one(a: Assembler) -> tuple[str, list[str]]:
    ((found, operands),) = decode(a.out)
    return found, operands.split(", ")


def pairs() -> list[tuple[int, int, int]]:
    """Registers that reach every bit of the prefixes: each low and high as result, first and second operand."""
    return [(r, a, b) for r in (0, 7, 8, 15) for a in (0, 5, 9, 15) for b in (0, 3, 8, 14)]


@pytest.mark.parametrize("op", [n for n in OPS if n not in GROUPS])
@pytest.mark.parametrize("form", ["sse", "avx"])
def test_registers(op: str, form: str) -> None:
    number = OPS[op]
    for reg, first, rm in pairs():
        if op in INTEGER_RM and rm == RSP:
            continue
        a = Assembler()
        encoded = number if form == "sse" else avx(number, 0 if op in UNARY else first)
        a.rr(encoded, 0, reg if op in INTEGER_REG else XMM0 + reg, rm if op in INTEGER_RM else XMM0 + rm)
        if op in IMMEDIATE:
            a.byte(0)
        found, operands = one(a)
        assert found == ("v" if form == "avx" else "") + mnemonic(op, True)
        target = name(reg, 4) if op in INTEGER_REG else f"xmm{reg}"
        source = name(rm, 4) if op in INTEGER_RM else f"xmm{rm}"
        expected = [source, target] if op in REVERSED else [target, source]
        if form == "avx" and op not in UNARY:
            expected = [target, f"xmm{first}", source]
        assert operands[: len(expected)] == expected, (reg, first, rm)


@pytest.mark.parametrize("op", AVX2_OPS)
def test_instructions_of_avx2(op: str) -> None:
    for reg, first, rm in pairs():
        a = Assembler()
        a.rr(avx(AVX2_OPS[op], 0 if op in UNARY else first), 0, XMM0 + reg, XMM0 + rm)
        if op in IMMEDIATE:
            a.byte(0x90)
        found, operands = one(a)
        assert found == op.lower()
        expected = [f"xmm{reg}", f"xmm{rm}"] if op in UNARY else [f"xmm{reg}", f"xmm{first}", f"xmm{rm}"]
        assert operands == expected + (["xmm9"] if op in IMMEDIATE else [])


@pytest.mark.parametrize("op", ["VFMADD213PS", "VFMADD231PS", "VFNMADD213PS", "VFNMADD231PS"])
def test_fused_ones_of_doubles(op: str) -> None:
    a = Assembler()
    a.rr(avx(AVX2_OPS[op], XMM0 + 9), 1, XMM0 + 1, XMM0 + 12)
    assert one(a) == (op.lower()[:-1] + "d", ["xmm1", "xmm9", "xmm12"])


@pytest.mark.parametrize("op", GROUPS)
def test_shifts_by_an_immediate(op: str) -> None:
    """With AVX the result is where others have their first operand."""
    for number, expected in zip((2, 4, 6), GROUPS[op], strict=True):
        if not expected:
            continue
        for r in VECTORS:
            a = Assembler()
            a.rr(OPS[op], 0, number, r)
            a.byte(5)
            a.rr(avx(OPS[op], r), 0, number, XMM0 + 10)
            a.byte(6)
            assert decode(a.out) == [(expected, f"{NAMES[r]}, 5"), ("v" + expected, f"{NAMES[r]}, xmm10, 6")]


@pytest.mark.parametrize("op", ["PINSRD", "PEXTRD"])
def test_quadwords(op: str) -> None:
    for form in (OPS[op], avx(OPS[op], 0)):
        a = Assembler()
        a.rr(form, 1, XMM0 + 9, 12)
        a.byte(1)
        found, operands = one(a)
        assert found.removeprefix("v") == op.lower().replace("d", "q")
        assert "r12" in operands


@pytest.mark.parametrize("op", [*SHARED, "PADDB", "PSHUFB", "ROUNDPS", "PINSRB", "PEXTRW", "PMOVSXBW", "SHUFPS"])
@pytest.mark.parametrize("form", ["sse", "avx"])
def test_memory_operands(op: str, form: str) -> None:
    """`rm`, `rx` and `rv`: every base and index, displacements of no byte, one byte and four."""
    number = {**OPS, **SHARED}[op]
    if form == "avx":
        number = avx(number, 0)
    behind = 1 if op in IMMEDIATE else 0
    for base in INTEGERS:
        for displacement in (0, 1, -128, 128, 0x7FFFFFFF):
            a = Assembler()
            a.rm(number, 0, XMM0 + 9, base, displacement)
            if behind:
                a.byte(0)
            _, operands = decode(a.out)[0]
            assert f"[{NAMES[base]}" in operands and "xmm9" in operands
        index = (base + 5) % 16
        if index == RSP:
            continue
        a = Assembler()
        a.rx(number, 0, XMM0 + 1, base, index, base % 4, 1000)
        if behind:
            a.byte(0)
        _, operands = decode(a.out)[0]
        factor = f"*{1 << base % 4}" if base % 4 else ""
        assert f"[{NAMES[base]} + {NAMES[index]}{factor} + 0x3e8]" in operands


def test_constants_of_128_bits() -> None:
    """Each is kept once; the place of every use remembers how far the end of its instruction is."""
    a = Assembler()
    a.rv(OPS["PADDB"], 0, XMM0 + 3, b"\1" * 16, 0)
    a.rv(avx(OPS["ROUNDPS"], 0), 0, XMM0 + 12, b"\1" * 16, 1)
    a.byte(3)
    a.rv(OPS["PXOR"], 0, XMM0, b"\2" * 16, 0)
    (places, others) = a.vector_constants.values()
    assert places[1::2] == [0, 1] and others[1::2] == [0]
    assert len(a.out) == others[0] + 4
    assert [m for m, _ in decode(a.out)] == ["paddb", "vroundps", "pxor"]
    assert all("[rip]" in operands for _, operands in decode(a.out))


def test_the_short_prefix_is_used_where_it_can_be() -> None:
    """Two bytes for map 0F without a high register in `r/m`, else three."""
    for rm, length in ((XMM0 + 7, 4), (XMM0 + 8, 5)):
        a = Assembler()
        a.rr(avx(OPS["PADDB"], XMM0 + 15), 0, XMM0 + 15, rm)
        assert len(a.out) == length
    a = Assembler()
    a.rm(avx(Op.MOVUPS, 0), 0, XMM0 + 15, RBP, -16)
    assert decode(a.out) == [("vmovups", "xmm15, xmmword ptr [rbp - 0x10]")]
    assert len(a.out) == 5
