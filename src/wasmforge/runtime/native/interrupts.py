"""Ctrl-C and deadlines while wasm runs: the signal handlers, and the call that they inject at the interrupted
instruction. Loops pay nothing. `signals.py` installs the handlers; the windows that they rewind belong to `entry.py`
and `exits.py`. `on_interrupt` stands in front of CPython's handlers; `on_stop` serves `runtime/deadline.py`, on any
thread, and marks the store (STOP) instead of setting `pending`.

What the handler does on the main thread, after CPython's own handler has noted the signal and `pending` is set:
- In registered wasm code it copies the whole signal frame (all registers, with the vector state in the size the kernel
  states) to the free host stack and lets the interrupted thread continue in `inject` there. Python's handlers run; if
  none raises, rt_sigreturn on the copy resumes the instruction as if nothing had happened; else the activation
  unwinds. Nothing is written to the wasm stack, so neither the red zone nor the guard matters.
- In a window it moves the program counter back to the window's start, where `pending` is tested.
- Anywhere else a window lies ahead before wasm runs again, or CPython itself looks.

On another thread it passes the signal on, because only the main thread runs Python handlers: `kicked` tells the
main thread's handler that CPython already knows.

Limits. A Python handler waits for one builtin at a time (a memory.copy of 4 GiB takes a second), and for the GIL while
wasm on another thread keeps it. `signal.signal` and asyncio.run() replace our handler by CPython's, which cannot stop
a loop in wasm; it is put in front again whenever an instance or a callable is made. Noticing at each entry would take
a system call, which is more than the entry itself takes.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.emission import assembly, expand

__all__ = ["ir"]

ASSEMBLY: Final = """
.hidden inject
.globl inject
.p2align 4
inject:             ; rbp: a GateFrame whose RETURN_ADDRESS is the interrupted pc + 1; rsp: the copy of the ucontext
  mov rdi, [rbp + <GateFrame.CONTEXT>]
  mov rsi, rsp
  mov rdx, rbp
  call inject_body
  test eax, eax
  jne gate_unwind
.hidden inject_window
.globl inject_window
inject_window:      ; rsp and rbp do not change in here, so it can begin again
  cmp dword ptr [rip + pending], 0
  jne inject_pending
inject_test:
  mov rax, [rbp + <GateFrame.CONTEXT>]
  cmp dword ptr [rax + <StoreContext.STOP>], 0
  jne inject
  mov eax, 15       ; rt_sigreturn takes the frame at rsp
  syscall
.hidden inject_end
.globl inject_end
inject_end:
  ud2
inject_pending:     ; only the main thread runs Python's signal handlers
  mov rax, qword ptr fs:[0]
  cmp rax, [rip + main_thread]
  je inject
  jmp inject_test
"""

# Offsets into the kernel's struct ucontext (arch/x86/include/uapi/asm/sigcontext.h) and its x87/SSE area.
IR: Final = """
@pending = hidden global i32 0            ; a signal waits for its Python handler
@kicked = hidden global i64 0             ; bit n: another thread passed signal n on to the main thread
@main_thread = hidden global i64 0        ; its thread pointer
@thread_generation = hidden global i64 0  ; see calls.py
@stop_slots = hidden global ptr null      ; one word a thread: the store context to stop, see `runtime/deadline.py`
@stop_slots_size = hidden global i64 0    ; bytes
@inject = external hidden global i8
@inject_window = external hidden global i8
@inject_end = external hidden global i8

; Runs Python's signal handlers, if this is the main thread, and the hook on_stop, if the store was told to stop.
; WASM_SP and LAST_EXIT_FP are valid. 0: go on. Else an exception is set and the GIL is held.
define hidden i32 @check_signals(ptr %context) noinline nounwind {
  ; What runs here may enter wasm of this store. The interrupted code may be between writing the overflow area and the
  ; call, or between return and reading the results; and what returns through a gate may be the builtin that compiles
  ; the function whose arguments are in the area.
  %areas = alloca [<Environ.AREAS_SIZE> x i8], align 16
  %live = getelementptr i8, ptr %context, i64 <StoreContext.OVERFLOW_AREA>
  call ptr @memmove(ptr %areas, ptr %live, i64 <Environ.AREAS_SIZE>)
  %status = call i32 @run_checks(ptr %context)
  call ptr @memmove(ptr %live, ptr %areas, i64 <Environ.AREAS_SIZE>)
  ret i32 %status
}

define internal i32 @run_checks(ptr %context) noinline nounwind {
  %released = call i1 @take_gil(ptr %context)
  %me = call ptr @llvm.thread.pointer()
  %me.word = ptrtoint ptr %me to i64
  %main = load i64, ptr @main_thread
  %is.main = icmp eq i64 %me.word, %main
  br i1 %is.main, label %signals, label %stop
signals:
  store atomic i32 0, ptr @pending seq_cst, align 4
  %status = call i32 @PyErr_CheckSignals()
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %stop, label %raised
stop:
  %stop.at = getelementptr i8, ptr %context, i64 <StoreContext.STOP>
  %wanted = atomicrmw xchg ptr %stop.at, i32 0 seq_cst
  %stopped = icmp ne i32 %wanted, 0
  %hook = load ptr, ptr @hook_on_stop
  %has.hook = icmp ne ptr %hook, null
  %asked = and i1 %stopped, %has.hook
  br i1 %asked, label %ask, label %ok
ask:
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %result = call ptr @ask(ptr %hook, i64 %store)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %raised, label %answered
answered:
  call void @Py_DecRef(ptr %result)
  br label %ok
ok:
  call void @give_gil(ptr %context, i1 %released)
  ret i32 0
raised:
  ret i32 1
}

define hidden i32 @inject_body(ptr %context, ptr %uc, i64 %frame) noinline nounwind {
  %mask = alloca [128 x i8], align 16
  %stack = alloca [24 x i8], align 16
  %sp = load.field i64, ptr %uc, 160
  %below.red.zone = sub i64 %sp, 128
  %aligned = and i64 %below.red.zone, -16
  store.field i64 %aligned, ptr %context, <StoreContext.WASM_SP>
  store.field i64 %frame, ptr %context, <StoreContext.LAST_EXIT_FP>
  %status = call i32 @check_signals(ptr %context)
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %resume, label %raised
resume:
  ; rt_sigreturn restores the mask and the alternate stack of the copy; a Python handler may have changed them since.
  call i32 @pthread_sigmask(i32 0, ptr null, ptr %mask)
  %now.blocked = load i64, ptr %mask
  store.field i64 %now.blocked, ptr %uc, 296
  call i32 @sigaltstack(ptr null, ptr %stack)
  %stack.at = getelementptr i8, ptr %uc, i64 16
  call ptr @memmove(ptr %stack.at, ptr %stack, i64 24)
  ret i32 0
raised:
  ret i32 1
}

define hidden void @on_interrupt(i32 %signal, ptr %info, ptr %uc) nounwind {
  %me = call ptr @llvm.thread.pointer()
  %me.word = ptrtoint ptr %me to i64
  %main = load i64, ptr @main_thread
  %is.main = icmp eq i64 %me.word, %main
  %signal.64 = zext i32 %signal to i64
  %bit = shl i64 1, %signal.64
  br i1 %is.main, label %on.main, label %on.other
on.other:
  %ignored = call i1 @chain(i32 %signal, ptr %info, ptr %uc)
  store atomic i32 1, ptr @pending seq_cst, align 4
  %set = atomicrmw or ptr @kicked, i64 %bit seq_cst
  call i32 @pthread_kill(i64 %main, i32 %signal)
  ret void
on.main:
  %other.bits = xor i64 %bit, -1
  %kicks = atomicrmw and ptr @kicked, i64 %other.bits seq_cst
  %kick = and i64 %kicks, %bit
  %known = icmp ne i64 %kick, 0
  br i1 %known, label %noted, label %note
note:
  %ignored2 = call i1 @chain(i32 %signal, ptr %info, ptr %uc)
  br label %noted
noted:
  store atomic i32 1, ptr @pending seq_cst, align 4
  call void @divert(ptr %uc, i32 0)
  ret void
}

; Makes the interrupted thread look at `pending` and STOP before wasm goes on, if it is in wasm or about to be. `stop`
; is added to STOP of the store that runs, which may be another one than that of the deadline.
define internal void @divert(ptr %uc, i32 %stop) noinline nounwind {
  %rip.at = getelementptr i8, ptr %uc, i64 168
  %rip = load i64, ptr %rip.at
  %in.entry = call i1 @between(i64 %rip, ptr @entry_window, ptr @enter_ret)
  br i1 %in.entry, label %rewind, label %gate
gate:
  %in.gate = call i1 @between(i64 %rip, ptr @gate_return_window, ptr @gate_return_end)
  br i1 %in.gate, label %rewind, label %keeping
keeping:
  %in.keeping = call i1 @between(i64 %rip, ptr @keeping_return_window, ptr @keeping_return_end)
  br i1 %in.keeping, label %rewind, label %short
short:
  %in.short = call i1 @between(i64 %rip, ptr @short_return_window, ptr @short_return_end)
  br i1 %in.short, label %rewind, label %injected
injected:
  %in.inject = call i1 @between(i64 %rip, ptr @inject_window, ptr @inject_end)
  br i1 %in.inject, label %rewind, label %wasm
rewind:
  %target = phi ptr [@entry_window, %0], [@gate_return_window, %gate], [@keeping_return_window, %keeping],
                    [@short_return_window, %short], [@inject_window, %injected]
  %target.word = ptrtoint ptr %target to i64
  store i64 %target.word, ptr %rip.at
  ret void
wasm:
  %in.wasm = call i1 @is_code(i64 %rip)
  br i1 %in.wasm, label %divert, label %elsewhere
elsewhere:
  ret void
divert:
  %rbp.at = getelementptr i8, ptr %uc, i64 120
  %rbp = load i64, ptr %rbp.at
  %rsp.at = getelementptr i8, ptr %uc, i64 160
  %rsp = load i64, ptr %rsp.at
  %entry = call i64 @find_entry(i64 %rbp)
  %entry.pointer = inttoptr i64 %entry to ptr
  %context = load.field ptr, ptr %entry.pointer, <EntryFrame.CONTEXT>
  %host.sp = load.field i64, ptr %context, <StoreContext.HOST_SP>
  %stop.at = getelementptr i8, ptr %context, i64 <StoreContext.STOP>
  %old.stop = atomicrmw or ptr %stop.at, i32 %stop seq_cst
  ; The gate frame.
  %frame = sub i64 %host.sp, <GateFrame.TOP>
  %frame.pointer = inttoptr i64 %frame to ptr
  %after = add i64 %rip, 1
  store.field i64 %rbp, ptr %frame.pointer, 0
  store.field i64 %after, ptr %frame.pointer, <GateFrame.RETURN_ADDRESS>
  store.field i64 %rsp, ptr %frame.pointer, <GateFrame.WASM_SP>
  store.field ptr %context, ptr %frame.pointer, <GateFrame.CONTEXT>
  ; The x87/SSE/AVX state, 64-byte aligned as XRSTOR wants it; its size is in the software-reserved bytes.
  %fp.at = getelementptr i8, ptr %uc, i64 224
  %fp = load ptr, ptr %fp.at
  %magic = load.field i32, ptr %fp, 464
  %extended = icmp eq i32 %magic, 1179670611          ; FP_XSTATE_MAGIC1
  %extended.size = load.field i32, ptr %fp, 468
  %fp.size.32 = select i1 %extended, i32 %extended.size, i32 512
  %fp.size = zext i32 %fp.size.32 to i64
  %low = add i64 %frame, <GateFrame.LOW>
  %fp.low = sub i64 %low, %fp.size
  %fp.copy = and i64 %fp.low, -64
  %fp.copy.pointer = inttoptr i64 %fp.copy to ptr
  call ptr @memmove(ptr %fp.copy.pointer, ptr %fp, i64 %fp.size)
  %uc.low = sub i64 %fp.copy, 304
  %uc.copy = and i64 %uc.low, -16
  %uc.copy.pointer = inttoptr i64 %uc.copy to ptr
  call ptr @memmove(ptr %uc.copy.pointer, ptr %uc, i64 304)
  store.field i64 %fp.copy, ptr %uc.copy.pointer, 224
  store i64 ptrtoint (ptr @inject to i64), ptr %rip.at
  store i64 %uc.copy, ptr %rsp.at
  store i64 %frame, ptr %rbp.at
  ret void
}

; A timer of `runtime/deadline.py` went off on this thread (SI_TIMER; its value points to the slot that names the store
; to be stopped), or somebody who has set STOP of a store wants its thread to look (SI_TKILL).
; THREAT: a timer of somebody else, or a signal that was under way when its deadline was taken back, must not write
; anywhere: only addresses of slots are taken, and a slot is emptied, on this very thread, before its store may go.
define hidden void @on_stop(i32 %signal, ptr %info, ptr %uc) nounwind {
  %code = load.field i32, ptr %info, 8
  %is.timer = icmp eq i32 %code, -2
  br i1 %is.timer, label %timer, label %other
timer:
  %value = load.field i64, ptr %info, 24
  %slots = load ptr, ptr @stop_slots
  %slots.word = ptrtoint ptr %slots to i64
  %offset = sub i64 %value, %slots.word
  %size = load i64, ptr @stop_slots_size
  %ours = icmp ult i64 %offset, %size
  br i1 %ours, label %slot, label %foreign
slot:
  %slot.pointer = inttoptr i64 %value to ptr
  %context = load ptr, ptr %slot.pointer
  %empty = icmp eq ptr %context, null
  br i1 %empty, label %look, label %mark
mark:
  %stop.at = getelementptr i8, ptr %context, i64 <StoreContext.STOP>
  store atomic i32 1, ptr %stop.at seq_cst, align 4
  br label %look
other:
  %is.kick = icmp eq i32 %code, -6
  br i1 %is.kick, label %look, label %foreign
look:
  call void @divert(ptr %uc, i32 1)
  ret void
foreign:
  %ignored = call i1 @chain(i32 %signal, ptr %info, ptr %uc)
  ret void
}
"""


def ir() -> str:
    """The interrupt handler and the injected call."""
    return assembly(expand(ASSEMBLY)) + expand(IR)
