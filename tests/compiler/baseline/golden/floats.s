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
   8: movaps xmm0, xmm8
   c: ucomiss xmm0, xmm1
   f: jne 0x1e
  11: jp 0x18
  13: orps xmm0, xmm1
  16: jmp 0x22
  18: addss xmm0, xmm1
  1c: jmp 0x22
  1e: minss xmm0, xmm1
  22: leave
  23: ret

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
