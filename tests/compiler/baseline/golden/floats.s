horner:
   0: push rbp
   1: mov rbp, rsp
   4: movaps xmm8, xmm0
   8: movaps xmm0, xmm8
   c: mulsd xmm0, qword ptr [rip + 0x1c]
  14: addsd xmm0, qword ptr [rip + 0x1c]
  1c: mulsd xmm0, xmm8
  21: addsd xmm0, qword ptr [rip + 0x17]
  29: leave
  2a: ret

min:
   0: push rbp
   1: mov rbp, rsp
   4: movaps xmm8, xmm0
   8: movaps xmm9, xmm1
   c: movaps xmm0, xmm8
  10: ucomiss xmm0, xmm9
  14: jne 0x25
  16: jp 0x1e
  18: orps xmm0, xmm9
  1c: jmp 0x2a
  1e: addss xmm0, xmm9
  23: jmp 0x2a
  25: minss xmm0, xmm9
  2a: leave
  2b: ret

trunc:
   0: push rbp
   1: mov rbp, rsp
   4: movaps xmm8, xmm0
   8: movaps xmm15, xmm8
   c: cvttsd2si rsi, xmm15
  11: movsxd r11, esi
  14: cmp r11, rsi
  17: jne 0x24
  1d: mov esi, esi
  1f: mov rax, rsi
  22: leave
  23: ret
  24: ucomisd xmm15, xmm15
  29: jp 0x3a
  2f: mov edi, 6
  34: mov rax, qword ptr [r13 + 0x10]
  38: call qword ptr [rax]
  3a: mov edi, 8
  3f: mov rax, qword ptr [r13 + 0x10]
  43: call qword ptr [rax]
