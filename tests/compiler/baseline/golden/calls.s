fib:
   0: push rbp
   1: mov rbp, rsp
   4: push rbx
   5: sub rsp, 8
   9: mov edi, edi
   b: mov rbx, rdi
   e: cmp ebx, 2
  11: jae 0x1f
  17: mov rax, rbx
  1a: jmp 0x40
  1f: lea esi, [rbx - 1]
  22: mov rdi, rsi
  25: call 0x2a
  2a: mov eax, eax
  2c: lea esi, [rbx - 2]
  2f: mov qword ptr [rbp - 0x10], rax
  33: mov rdi, rsi
  36: call 0x3b
  3b: mov eax, eax
  3d: add eax, dword ptr [rbp - 0x10]
  40: mov rbx, qword ptr [rbp - 8]
  44: leave
  45: ret

import:
   0: push rbp
   1: mov rbp, rsp
   4: push r13
   6: sub rsp, 8
   a: mov edi, edi
   c: mov qword ptr [rbp - 0x10], rdi
  10: mov rax, qword ptr [r13 + 0x48]
  14: mov r11, qword ptr [r13 + 0x58]
  18: mov r10, r13
  1b: mov r13, r11
  1e: call rax
  20: mov r13, qword ptr [rbp - 8]
  24: mov eax, eax
  26: leave
  27: ret

indirect:
   0: push rbp
   1: mov rbp, rsp
   4: push r13
   6: sub rsp, 8
   a: mov edi, edi
   c: mov qword ptr [rbp - 0x10], rdi
  10: mov r10, rdi
  13: mov r11, qword ptr [r13 + 0x40]
  17: cmp r10, qword ptr [r11 + 8]
  1b: jae 0x5f
  21: mov r11, qword ptr [r11]
  24: mov r10, qword ptr [r11 + r10*8]
  28: test r10, r10
  2b: je 0x6a
  31: mov r11, qword ptr [r13 + 0x18]
  35: mov r11d, dword ptr [r11]
  38: cmp r11d, dword ptr [r10 + 0x18]
  3c: jne 0x75
  42: mov edi, 5
  47: mov rax, qword ptr [r10 + 8]
  4b: mov r11, qword ptr [r10 + 0x10]
  4f: mov r10, r13
  52: mov r13, r11
  55: call rax
  57: mov r13, qword ptr [rbp - 8]
  5b: mov eax, eax
  5d: leave
  5e: ret
  5f: mov edi, 3
  64: mov rax, qword ptr [r13 + 0x10]
  68: call qword ptr [rax]
  6a: mov edi, 4
  6f: mov rax, qword ptr [r13 + 0x10]
  73: call qword ptr [rax]
  75: mov edi, 5
  7a: mov rax, qword ptr [r13 + 0x10]
  7e: call qword ptr [rax]
