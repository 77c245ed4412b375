sum_to:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: xor r9d, r9d
   9: add r9d, edi
   c: add edi, -1
   f: jne 9
  11: mov rax, r9
  14: leave
  15: ret

parity:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: test edi, 1
   c: je 0x1c
  12: mov eax, 0xa
  17: jmp 0x21
  1c: mov eax, 0x14
  21: leave
  22: ret

quotients:
   0: push rbp
   1: mov rbp, rsp
   4: mov edi, edi
   6: mov esi, esi
   8: mov r11, rsi
   b: mov rax, rdi
   e: test r11d, r11d
  11: je 0x39
  17: cmp r11d, -1
  1b: jne 0x29
  1d: cmp eax, 0x80000000
  23: je 0x44
  29: cdq
  2a: idiv r11d
  2d: mov r8, rdi
  30: shr r8d, 3
  34: add eax, r8d
  37: leave
  38: ret
  39: mov edi, 7
  3e: mov rax, qword ptr [r13 + 0x10]
  42: call qword ptr [rax]
  44: mov edi, 6
  49: mov rax, qword ptr [r13 + 0x10]
  4d: call qword ptr [rax]

shift:
   0: push rbp
   1: mov rbp, rsp
   4: mov rcx, rsi
   7: mov r8, rdi
   a: sar r8, cl
   d: mov rax, r8
  10: leave
  11: ret
