product:
   0: push rbp
   1: mov rbp, rsp
   4: push rbx
   5: sub rsp, 8
   9: mov r10, qword ptr [r13 + 0x40]
   d: mov edi, edi
   f: mov esi, esi
  11: mov edx, edx
  13: mov rbx, rdx
  16: xorps xmm8, xmm8
  1a: xorps xmm9, xmm9
  1e: vbroadcastss xmm0, dword ptr [r10 + rdi]
  24: vmovups xmm1, xmmword ptr [r10 + rsi]
  2a: vmulps xmm0, xmm0, xmm1
  2e: vaddps xmm8, xmm8, xmm0
  32: vbroadcastss xmm0, dword ptr [r10 + rdi + 4]
  39: vmovups xmm1, xmmword ptr [r10 + rsi + 0x10]
  40: vfmadd231ps xmm9, xmm0, xmm1
  45: add edi, 8
  48: add esi, 0x20
  4b: add ebx, -1
  4e: jne 0x1e
  50: vaddps xmm0, xmm8, xmm9
  55: mov rbx, qword ptr [rbp - 8]
  59: leave
  5a: ret

mix:
   0: push rbp
   1: mov rbp, rsp
   4: sub rsp, 0x20
   8: movaps xmm9, xmm0
   c: vpaddd xmm0, xmm9, xmm1
  10: vpaddd xmm9, xmm0, xmm3
  14: vpxor xmm2, xmm2, xmm9
  19: vpshufb xmm2, xmm2, xmmword ptr [rip + 0x2e]
  22: vpsrld xmm0, xmm2, 0xc
  27: vpslld xmm4, xmm2, 0x14
  2c: vpor xmm0, xmm0, xmm4
  30: movups xmmword ptr [rbp - 0x10], xmm9
  35: movups xmmword ptr [rbp - 0x20], xmm0
  39: movups xmm0, xmmword ptr [rbp - 0x10]
  3d: movups xmm1, xmmword ptr [rbp - 0x20]
  41: leave
  42: ret

across:
   0: push rbp
   1: mov rbp, rsp
   4: sub rsp, 0x20
   8: movups xmmword ptr [rbp - 0x10], xmm0
   c: vpxor xmm1, xmm0, xmmword ptr [rip + 0x1c]
  14: movups xmmword ptr [rbp - 0x20], xmm1
  18: movaps xmm0, xmmword ptr [rip + 0x21]
  1f: call 0x24
  24: vpaddq xmm0, xmm0, xmmword ptr [rbp - 0x20]
  29: leave
  2a: ret
