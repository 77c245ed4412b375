"""Entering wasm and leaving it: the trampoline that switches from the thread's stack to the wasm stack, and its exits
for results, traps and exceptions. `calls.py` calls it; the unwinder in `frames.py` and the handlers in `signals.py`
and `interrupts.py` continue at its labels.

Invariants
- While wasm runs, HOST_SP is the rsp of the innermost `enter`; the host stack below it is free. WASM_SP is stale.
- While the host runs inside an activation, WASM_SP is where a nested entry puts its first frame and LAST_EXIT_FP is the
  frame through which wasm left. `enter` saves these three words and every exit restores them, so a trap needs
  no undoing beyond jumping to `enter_exit` with rbp at the entry frame.
- The only instruction of the gates that writes to the wasm stack is `entry_call`. It may hit the guard when a nested
  entry begins at the very end of the stack; the fault handler knows its address and takes rbp as the entry frame.
- A signal may come at every instruction. Before `entry_window` and from `enter_ret` on, the handler only sets
  `pending`, or STOP of the store. In [entry_window, enter_ret) it also moves the program counter back to
  `entry_window`: everything there can be done again (rsp is reloaded, registers are only read), so both are always
  tested after the last signal before wasm runs.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.emission import assembly, expand

__all__ = ["DECLARATIONS", "ir"]

ASSEMBLY: Final = """
.hidden enter
.globl enter
.p2align 4
enter:              ; rdi array_call, rsi callee_vmctx, rdx values, rcx count, r8 wasm_call, r9 context, [rsp+8] record
  push rbp
  mov rbp, rsp
  push rbx
  push r12
  push r13
  push r14
  push r15
  push r9
  push qword ptr [r9 + <StoreContext.WASM_SP>]
  push qword ptr [r9 + <StoreContext.HOST_SP>]
  push qword ptr [r9 + <StoreContext.LAST_EXIT_FP>]
  push r9           ; keeps rsp at 0 mod 16
entry_begin:
  mov [r9 + <StoreContext.HOST_SP>], rsp
  mov rax, rdi
  mov rdi, rsi
  xor esi, esi      ; no caller's vmctx: the host calls
.hidden entry_window
.globl entry_window
entry_window:
  cmp dword ptr [rip + pending], 0
  jne entry_pending
entry_test:
  cmp dword ptr [r9 + <StoreContext.STOP>], 0
  jne entry_stop
  mov rsp, [r9 + <StoreContext.WASM_SP>]
.hidden entry_call
.globl entry_call
entry_call:
  call rax
.hidden enter_ret
.globl enter_ret
enter_ret:
  xor eax, eax
.hidden enter_exit
.globl enter_exit
enter_exit:         ; eax is the outcome (0 returned, 1 trapped, 2 exception), rbp the entry frame; rsp is anything
  mov rcx, [rbp + <EntryFrame.CONTEXT>]
  mov rdx, [rbp + <EntryFrame.WASM_SP>]
  mov [rcx + <StoreContext.WASM_SP>], rdx
  mov rdx, [rbp + <EntryFrame.HOST_SP>]
  mov [rcx + <StoreContext.HOST_SP>], rdx
  mov rdx, [rbp + <EntryFrame.LAST_EXIT_FP>]
  mov [rcx + <StoreContext.LAST_EXIT_FP>], rdx
  lea rsp, [rbp + <EntryFrame.SAVED_REGISTERS>]
  pop r15
  pop r14
  pop r13
  pop r12
  pop rbx
  pop rbp
  ret

entry_pending:      ; a signal waits for its Python handler; only the main thread runs those
  mov r10, qword ptr fs:[0]
  cmp r10, [rip + main_thread]
  jne entry_test
entry_stop:
  lea rsp, [rbp + <EntryFrame.LOW>]
  push rax
  push rdi
  push rdx
  push rcx
  push r8
  push r9
  mov rdi, r9
  call check_signals
  test eax, eax
  jne entry_raised
  pop r9
  pop r8
  pop rcx
  pop rdx
  pop rdi
  pop rax
  xor esi, esi
  jmp entry_window
entry_raised:       ; nothing of this activation ran: the backtrace is that of the outer ones
  lea rsp, [rbp + <EntryFrame.LOW>]
  mov rdi, rbp
  xor esi, esi
  xor edx, edx
  call record_at_entry
  mov eax, 2
  jmp enter_exit
"""

DECLARATIONS: Final = """
declare hidden i32 @enter(ptr, ptr, ptr, i64, ptr, ptr, ptr)
@entry_window = external hidden global i8
@entry_call = external hidden global i8
@enter_ret = external hidden global i8
@enter_exit = external hidden global i8
@text_start = external hidden global i8
@text_end = external hidden global i8
"""


def ir() -> str:
    """The entry trampoline."""
    return assembly(expand(ASSEMBLY)) + DECLARATIONS
