sum_to:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: mov r8, rdi
   9: xor r9d, r9d
   c: add r9d, r8d
   f: add r8d, -1
  13: jne 0xc
  15: mov rax, r9
  18: leave
  19: ret

parity:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: mov r8, rdi
   9: test r8d, 1
  10: je 0x20
  16: mov eax, 0xa
  1b: jmp 0x25
  20: mov eax, 0x14
  25: leave
  26: ret

quotients:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: mov esi, esi
   8: mov r8, rdi
   b: mov r9, rsi
   e: mov r11, r9
  11: mov rax, r8
  14: test r11d, r11d
  17: je 0x3d
  1d: cmp r11d, -1
  21: jne 0x2f
  23: cmp eax, 0x80000000
  29: je 0x48
  2f: cdq
  30: idiv r11d
  33: mov rsi, r8
  36: shr esi, 3
  39: add eax, esi
  3b: leave
  3c: ret
  3d: mov edi, 7
  42: mov rax, qword ptr [r13 + 0x10]
  46: call qword ptr [rax]
  48: mov edi, 6
  4d: mov rax, qword ptr [r13 + 0x10]
  51: call qword ptr [rax]

shift:
   0: push rbp
   1: mov rbp, rsp
   4: mov r8, rdi
   7: mov r9, rsi
   a: mov rcx, r9
   d: mov rsi, r8
  10: sar rsi, cl
  13: mov rax, rsi
  16: leave
  17: ret
