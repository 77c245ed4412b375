sum:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov r8, rdi
   d: mov esi, dword ptr [r10 + r8 + 8]
  12: add esi, dword ptr [r10 + r8 + 0xc]
  17: mov rax, rsi
  1a: leave
  1b: ret

store:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov r8, rdi
   d: mov byte ptr [r10 + r8], 7
  12: mov qword ptr [r10 + 0x410], 0xffffffffffffffff
  1d: leave
  1e: ret

far:
   0: push rbp
   1: mov rbp, rsp
   4: mov r10, qword ptr [r13 + 0x40]
   8: mov edi, edi
   a: mov r8, rdi
   d: mov rsi, qword ptr [r13 + 0x48]
  11: mov r11d, 0x4000008
  17: add r11, r8
  1a: cmp r11, qword ptr [rsi + 8]
  1e: ja 0x30
  24: movsd xmm0, qword ptr [r10 + r8 + 0x4000000]
  2e: leave
  2f: ret
  30: mov edi, 1
  35: mov rax, qword ptr [r13 + 0x10]
  39: call qword ptr [rax]
