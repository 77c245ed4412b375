sum:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov esi, dword ptr [r10 + rdi + 8]
   f: add esi, dword ptr [r10 + rdi + 0xc]
  14: mov rax, rsi
  17: leave
  18: ret

store:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov byte ptr [r10 + rdi], 7
   f: mov qword ptr [r10 + 0x410], 0xffffffffffffffff
  1a: leave
  1b: ret

far:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov rsi, qword ptr [r13 + 0x48]
   e: mov r11d, 0x4000008
  14: add r11, rdi
  17: cmp r11, qword ptr [rsi + 8]
  1b: ja 0x2d
  21: movsd xmm0, qword ptr [r10 + rdi + 0x4000000]
  2b: leave
  2c: ret
  2d: mov edi, 1
  32: mov rax, qword ptr [r13 + 0x10]
  36: call qword ptr [rax]
