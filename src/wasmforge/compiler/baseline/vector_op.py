"""Encodings of the vector instructions, as the numbers that `asm` writes; `asm.avx` gives the forms of AVX.

All exist since SSE4.2, but for the class `AVX2Op`, whose instructions have a VEX encoding only. The emitters in the
modules `vector_*` use them; the tests decode every name, in both encodings, with capstone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["AVX2Op", "VectorOp"]


class VectorOp:
    """`reg, r/m` instructions on whole registers; the names are the manuals'. A * marks an immediate byte behind, a
    register in brackets says that one operand is an integer register."""

    PADDB: Final = 0x6601FC
    PADDW: Final = 0x6601FD
    PADDD: Final = 0x6601FE
    PADDQ: Final = 0x6601D4
    PADDSB: Final = 0x6601EC
    PADDSW: Final = 0x6601ED
    PADDUSB: Final = 0x6601DC
    PADDUSW: Final = 0x6601DD
    PSUBB: Final = 0x6601F8
    PSUBW: Final = 0x6601F9
    PSUBD: Final = 0x6601FA
    PSUBQ: Final = 0x6601FB
    PSUBSB: Final = 0x6601E8
    PSUBSW: Final = 0x6601E9
    PSUBUSB: Final = 0x6601D8
    PSUBUSW: Final = 0x6601D9
    PMULLW: Final = 0x6601D5
    PMULHW: Final = 0x6601E5
    PMULHUW: Final = 0x6601E4
    PMULLD: Final = 0x660240
    PMULDQ: Final = 0x660228
    PMULUDQ: Final = 0x6601F4
    PMULHRSW: Final = 0x66020B
    PMADDWD: Final = 0x6601F5
    PMADDUBSW: Final = 0x660204
    PHADDSW: Final = 0x660203
    PAVGB: Final = 0x6601E0
    PAVGW: Final = 0x6601E3
    PMINSB: Final = 0x660238
    PMINSW: Final = 0x6601EA
    PMINSD: Final = 0x660239
    PMINUB: Final = 0x6601DA
    PMINUW: Final = 0x66023A
    PMINUD: Final = 0x66023B
    PMAXSB: Final = 0x66023C
    PMAXSW: Final = 0x6601EE
    PMAXSD: Final = 0x66023D
    PMAXUB: Final = 0x6601DE
    PMAXUW: Final = 0x66023E
    PMAXUD: Final = 0x66023F
    PABSB: Final = 0x66021C
    PABSW: Final = 0x66021D
    PABSD: Final = 0x66021E
    PCMPEQB: Final = 0x660174
    PCMPEQW: Final = 0x660175
    PCMPEQD: Final = 0x660176
    PCMPEQQ: Final = 0x660229
    PCMPGTB: Final = 0x660164
    PCMPGTW: Final = 0x660165
    PCMPGTD: Final = 0x660166
    PCMPGTQ: Final = 0x660237
    PAND: Final = 0x6601DB
    PANDN: Final = 0x6601DF
    POR: Final = 0x6601EB
    PXOR: Final = 0x6601EF
    PTEST: Final = 0x660217

    PSLLW: Final = 0x6601F1
    PSLLD: Final = 0x6601F2
    PSLLQ: Final = 0x6601F3
    PSRLW: Final = 0x6601D1
    PSRLD: Final = 0x6601D2
    PSRLQ: Final = 0x6601D3
    PSRAW: Final = 0x6601E1
    PSRAD: Final = 0x6601E2
    SHIFT_W: Final = 0x660171  # * psrlw /2, psraw /4, psllw /6
    SHIFT_D: Final = 0x660172  # * psrld /2, psrad /4, pslld /6
    SHIFT_Q: Final = 0x660173  # * psrlq /2, psllq /6

    PACKSSWB: Final = 0x660163
    PACKUSWB: Final = 0x660167
    PACKSSDW: Final = 0x66016B
    PACKUSDW: Final = 0x66022B
    PUNPCKLBW: Final = 0x660160
    PUNPCKLWD: Final = 0x660161
    PUNPCKLDQ: Final = 0x660162
    PUNPCKLQDQ: Final = 0x66016C
    PUNPCKHBW: Final = 0x660168
    PUNPCKHWD: Final = 0x660169
    PUNPCKHDQ: Final = 0x66016A
    PUNPCKHQDQ: Final = 0x66016D
    PSHUFB: Final = 0x660200
    PSHUFD: Final = 0x660170  # *
    PSHUFLW: Final = 0xF20170  # *
    PALIGNR: Final = 0x66030F  # *
    PBLENDW: Final = 0x66030E  # *
    SHUFPS: Final = 0x1C6  # *
    PMOVSXBW: Final = 0x660220
    PMOVSXWD: Final = 0x660223
    PMOVSXDQ: Final = 0x660225
    PMOVZXBW: Final = 0x660230
    PMOVZXWD: Final = 0x660233
    PMOVZXDQ: Final = 0x660235

    PINSRB: Final = 0x660320  # * (r/m)
    PINSRW: Final = 0x6601C4  # * (r/m)
    PINSRD: Final = 0x660322  # * (r/m); pinsrq if wide
    PEXTRB: Final = 0x660314  # * (r/m); the source is `reg`
    PEXTRW: Final = 0x660315  # * (r/m); the source is `reg`
    PEXTRD: Final = 0x660316  # * (r/m); the source is `reg`; pextrq if wide
    PMOVMSKB: Final = 0x6601D7  # (reg)
    MOVMSKPS: Final = 0x150  # (reg)
    MOVMSKPD: Final = 0x660150  # (reg)
    INSERTPS: Final = 0x660321  # *
    MOVDDUP: Final = 0xF20112
    UNPCKLPS: Final = 0x114
    UNPCKLPD: Final = 0x660114
    UNPCKHPD: Final = 0x660115

    ADDPS: Final = 0x158
    ADDPD: Final = 0x660158
    SUBPS: Final = 0x15C
    SUBPD: Final = 0x66015C
    MULPS: Final = 0x159
    MULPD: Final = 0x660159
    DIVPS: Final = 0x15E
    DIVPD: Final = 0x66015E
    MINPS: Final = 0x15D
    MINPD: Final = 0x66015D
    MAXPS: Final = 0x15F
    MAXPD: Final = 0x66015F
    SQRTPS: Final = 0x151
    SQRTPD: Final = 0x660151
    CMPPS: Final = 0x1C2  # *
    CMPPD: Final = 0x6601C2  # *
    ROUNDPS: Final = 0x660308  # *
    ROUNDPD: Final = 0x660309  # *
    CVTDQ2PS: Final = 0x15B
    CVTTPS2DQ: Final = 0xF3015B
    CVTDQ2PD: Final = 0xF301E6
    CVTTPD2DQ: Final = 0x6601E6
    CVTPD2PS: Final = 0x66015A
    CVTPS2PD: Final = 0x15A


class AVX2Op:
    """Only with `avx`, and only where the host has AVX2 and FMA. Fused ones are `double` if wide; the figures name the
    operands that are multiplied, the last one being added."""

    VPBROADCASTB: Final = 0x660278
    VPBROADCASTW: Final = 0x660279
    VPBROADCASTD: Final = 0x660258
    VPBROADCASTQ: Final = 0x660259
    VBROADCASTSS: Final = 0x660218
    VPBLENDVB: Final = 0x66034C  # * the mask, in the upper four bits
    VBLENDVPS: Final = 0x66034A  # *
    VBLENDVPD: Final = 0x66034B  # *
    VFMADD213PS: Final = 0x6602A8
    VFMADD231PS: Final = 0x6602B8
    VFNMADD213PS: Final = 0x6602AC
    VFNMADD231PS: Final = 0x6602BC
