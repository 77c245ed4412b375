"""Asynchronous calls: starting one, suspending it when a host function returned an awaitable, resuming it with what the
awaitable gave or raised. `runtime/vm/async_call.py` awaits in between; nothing of CPython is on the wasm stack, which
is simply left as it is, so a suspended call is a few words in the store context.

What a suspended activation consists of: the frames of wasm on its own stack (with the arguments and results of the call
at the top of it), and, in the store context, wasm's callee-saved registers and the gate frame, which were the only
things on the thread's stack. To resume, `enter_resume` builds an entry frame like that of `enter`, tells the oldest
wasm frame about it, builds the gate frame again below, and goes on where a host call ends: at the return of the gate,
with its test for signals and stops, or at its way out for exceptions. It may be another thread, and stores may be
resumed in any order: nothing of a suspended call is on a thread's stack.

Invariants
- While a call is suspended HOST_SP is 1 and THREAD 0, so that every entry into the store asks `ThreadSetup.prepare`,
  which refuses it: an entry would put its frames over those of the suspended call. Calls that are not asynchronous
  pay nothing for that test.
- ASYNC_SP is HOST_SP exactly while wasm, or what it calls, runs in the asynchronous activation itself. A nested
  synchronous activation cannot be suspended, since the Python frames between the two would have to be.
- From marking the store as suspended, or as running, to the switch of stacks no Python code runs.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.boxing import c_string
from wasmforge.runtime.native.calls import ARGUMENTS
from wasmforge.runtime.native.emission import GateFrame, assembly, expand
from wasmforge.runtime.native.misuse import BUSY, IN_NESTED_CALL, IN_SYNCHRONOUS_CALL, NO_ROOM, NOT_SUSPENDED

__all__ = ["ir"]

_REGISTERS: Final = ("rbx", "r12", "r13", "r14", "r15")

ASSEMBLY: Final = """
.hidden enter_async
.globl enter_async
.p2align 4
enter_async:        ; as `enter`
{PUSH_ENTRY}
  mov [r9 + <StoreContext.ASYNC_SP>], rsp
  jmp entry_begin

.hidden enter_resume
.globl enter_resume
.p2align 4
enter_resume:       ; rdi where to go on, r9 context, [rsp+8] record; returns as `enter`
{PUSH_ENTRY}
  mov [r9 + <StoreContext.HOST_SP>], rsp
  mov [r9 + <StoreContext.ASYNC_SP>], rsp
  mov rax, [r9 + <StoreContext.SUSPENDED_BOTTOM>]
  mov [rax], rbp
  lea r10, [rsp - <GateFrame.TOP>]
{RESTORE}
  mov rbp, r10
  lea rsp, [rbp + <GateFrame.KEPT_LOW>]
  jmp rdi

.hidden gate_suspend
.globl gate_suspend
gate_suspend:       ; rbp is the gate frame, and HOST_SP is ASYNC_SP
  mov r11, [rbp + <GateFrame.CONTEXT>]
{SAVE}
  mov r10, [r11 + <StoreContext.ASYNC_SP>]
  sub r10, <EntryFrame.LOW>
  lea rax, [r11 + <StoreContext.SUSPENDED_FRAME> + {RBP}]
  cmp [rbp], r10
  je gate_suspended  ; the host function was called without any wasm: the gate frame itself is the oldest one
  mov rax, [r10 + <EntryFrame.WASM_SP>]
  sub rax, 16        ; below the return address: every trampoline begins with push rbp
gate_suspended:
  mov [r11 + <StoreContext.SUSPENDED_BOTTOM>], rax
  mov rbp, r10
  mov eax, 3
  jmp enter_exit
"""

PUSH_ENTRY: Final = """
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
  push r9
"""

CALL: Final = """
call:
  %busy.sp = load.field i64, ptr %context, <StoreContext.HOST_SP>
  %idle = icmp eq i64 %busy.sp, 0
  br i1 %idle, label %place, label %busy, !prof !likely
busy:
  call void @explain_async(ptr %context, i64 {BUSY}, ptr @_Py_NoneStruct)
  br label %failed
place:
  %bytes = mul i64 %slots, <Environ.VALRAW_SIZE>
  %top = load.field i64, ptr %context, <StoreContext.WASM_SP>
  %low = load.field i64, ptr %context, <StoreContext.WASM_STACK_LOW>
  %at = sub i64 %top, %bytes
  %room = sub i64 %at, %low
  %fits = icmp sge i64 %room, 4096
  br i1 %fits, label %start, label %no.room, !prof !likely
no.room:
  call void @explain_async(ptr %context, i64 {NO_ROOM}, ptr @_Py_NoneStruct)
  br label %failed
start:
  %moved = inttoptr i64 %at to ptr
  call ptr @memmove(ptr %moved, ptr %values, i64 %bytes)
  store.field i64 %at, ptr %context, <StoreContext.WASM_SP>
  store.field i64 %top, ptr %context, <StoreContext.ASYNC_TOP>
  store.field ptr %moved, ptr %context, <StoreContext.ASYNC_VALUES>
  store.field ptr %descriptor, ptr %context, <StoreContext.ASYNC_DESCRIPTOR>
  store.field ptr %owner, ptr %context, <StoreContext.ASYNC_OWNER>
  %array.call = load.field ptr, ptr %descriptor, <CallDescriptor.ARRAY_CALL>
  %wasm.call = load.field ptr, ptr %descriptor, <CallDescriptor.WASM_CALL>
  %vmctx = load.field ptr, ptr %descriptor, <CallDescriptor.VMCTX>
  %release.flag = and i32 %flags, <Environ.CALL_FLAG_RELEASE_GIL>
  %release = icmp ne i32 %release.flag, 0
  %answer = call ptr @run_async(ptr @enter_async, ptr %array.call, ptr %vmctx, ptr %moved, i64 %slots, ptr %wasm.call,
      ptr %context, ptr %record, i1 %release)
  ret ptr %answer
failed:
  ret ptr null
}

; METH_FASTCALL: the first argument is the owner, of which only the address is kept. Without any the number of arguments
; is wrong, which is noticed before they are looked at.
define hidden ptr @async_call(ptr %self, ptr %args, i64 %given) nounwind {
  %has.owner = icmp sgt i64 %given, 0
  br i1 %has.owner, label %look, label %call, !prof !likely
look:
  %first = load ptr, ptr %args
  br label %call
call:
  %owner = phi ptr [null, %0], [%first, %look]
  %rest = getelementptr ptr, ptr %args, i64 1
  %rest.given = sub i64 %given, 1
  %answer = call ptr @start_call(ptr %self, ptr %rest, i64 %rest.given, ptr %owner)
  ret ptr %answer
}

; Enters by `entry` and says how it came out: a tuple of the result, or the awaitable of a suspended call, or null with
; an exception set. HOST_SP is 0.
define internal ptr @run_async(ptr %entry, ptr %target, ptr %vmctx, ptr %values, i64 %slots, ptr %wasm.call,
    ptr %context, ptr %record, i1 %release) noinline nounwind {
  br i1 %release, label %released, label %held, !prof !unlikely
held:
  %outcome.held = call i32 %entry(ptr %target, ptr %vmctx, ptr %values, i64 %slots, ptr %wasm.call, ptr %context,
      ptr %record)
  br label %outcome
released:
  ; As in `universal_call`.
  store.field i64 1, ptr %context, <StoreContext.HOST_SP>
  %state = call ptr @PyEval_SaveThread()
  store.field ptr %state, ptr %context, <StoreContext.THREAD_STATE>
  %outcome.released = call i32 %entry(ptr %target, ptr %vmctx, ptr %values, i64 %slots, ptr %wasm.call, ptr %context,
      ptr %record)
  %has.gil = icmp uge i32 %outcome.released, 2    ; exceptions and awaitables arrive with the GIL
  br i1 %has.gil, label %back, label %restore, !prof !unlikely
restore:
  call void @PyEval_RestoreThread(ptr %state)
  br label %back
back:
  store.field ptr null, ptr %context, <StoreContext.THREAD_STATE>
  br label %outcome
outcome:
  %code = phi i32 [%outcome.held, %held], [%outcome.released, %back]
  store.field i64 0, ptr %context, <StoreContext.ASYNC_SP>
  %suspends = icmp eq i32 %code, 3
  br i1 %suspends, label %suspended, label %ended
suspended:
  store.field i64 1, ptr %context, <StoreContext.HOST_SP>
  %thread = load.field i64, ptr %context, <StoreContext.THREAD>
  store.field i64 %thread, ptr %context, <StoreContext.SUSPENDED_THREAD>
  store.field i64 0, ptr %context, <StoreContext.THREAD>
  store.field i64 <Environ.ASYNC_SUSPENDED>, ptr %context, <StoreContext.ASYNC_STATE>
  %awaitable = load.field ptr, ptr %context, <StoreContext.SUSPENDED_AWAITABLE>
  store.field ptr null, ptr %context, <StoreContext.SUSPENDED_AWAITABLE>
  ret ptr %awaitable
ended:
  %top = load.field i64, ptr %context, <StoreContext.ASYNC_TOP>
  store.field i64 %top, ptr %context, <StoreContext.WASM_SP>
  store.field i64 0, ptr %context, <StoreContext.HOST_SP>
  store.field i64 <Environ.ASYNC_NONE>, ptr %context, <StoreContext.ASYNC_STATE>
  %returned = icmp eq i32 %code, 0
  br i1 %returned, label %results, label %abrupt, !prof !likely
abrupt:
  call void @raise_outcome(ptr %context, ptr %record, i32 %code)
  ret ptr null
results:
  %answer = call ptr @async_results(ptr %context)
  ret ptr %answer
}

; The results of a call that has returned, in a tuple. Boxing may run Python code that enters the store, so they leave
; the wasm stack first.
define internal ptr @async_results(ptr %context) noinline nounwind {
  %descriptor = load.field ptr, ptr %context, <StoreContext.ASYNC_DESCRIPTOR>
  %on.stack = load.field ptr, ptr %context, <StoreContext.ASYNC_VALUES>
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %flags = load.field i32, ptr %descriptor, <CallDescriptor.FLAGS>
  %raw.flag = and i32 %flags, <Environ.CALL_FLAG_RAW>
  %raw.key = shl i32 %raw.flag, 7
  %params.32 = load.field i32, ptr %descriptor, <CallDescriptor.PARAM_COUNT>
  %params = zext i32 %params.32 to i64
  %count.32 = load.field i32, ptr %descriptor, <CallDescriptor.RESULT_COUNT>
  %count = zext i32 %count.32 to i64
  %types = getelementptr i8, ptr %descriptor, i64 <CallDescriptor.TYPES>
  %result.types = getelementptr i8, ptr %types, i64 %params
  %values = alloca [<Environ.VALRAW_SIZE> x i8], i64 %count, align 16
  %bytes = mul i64 %count, <Environ.VALRAW_SIZE>
  call ptr @memmove(ptr %values, ptr %on.stack, i64 %bytes)
  switch i64 %count, label %many [
    i64 0, label %none
    i64 1, label %one
  ]
none:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  br label %wrap
one:
  %only.8 = load i8, ptr %result.types
  %only = zext i8 %only.8 to i32
  %only.key = or i32 %only, %raw.key
  %boxed = call ptr @box_other_or_i32(i32 %only.key, ptr %values, i64 %store)
  br label %wrap
many:
  %list = call ptr @box_list(ptr %values, ptr %result.types, i64 %count, i32 %raw.key, i64 %store)
  br label %wrap
wrap:
  %result = phi ptr [@_Py_NoneStruct, %none], [%boxed, %one], [%list, %many]
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %no.result, label %make
make:
  %tuple = call ptr @PyTuple_New(i64 1)
  %no.tuple = icmp eq ptr %tuple, null
  br i1 %no.tuple, label %drop, label %fill
fill:
  call i32 @PyTuple_SetItem(ptr %tuple, i64 0, ptr %result)
  ret ptr %tuple
drop:
  call void @Py_DecRef(ptr %result)
  br label %no.result
no.result:
  ret ptr null
}

; For a host function that returned something to wait for. 2: the call shall be suspended, and the context has the
; reference. 1: that is not possible, an exception is set and the reference dropped.
define internal i32 @suspend(ptr %context, ptr %awaitable, ptr %host, ptr %values) noinline nounwind {
  %host.sp = load.field i64, ptr %context, <StoreContext.HOST_SP>
  %async.sp = load.field i64, ptr %context, <StoreContext.ASYNC_SP>
  %possible = icmp eq i64 %host.sp, %async.sp
  br i1 %possible, label %yes, label %no, !prof !likely
yes:
  store.field ptr %awaitable, ptr %context, <StoreContext.SUSPENDED_AWAITABLE>
  store.field ptr %host, ptr %context, <StoreContext.SUSPENDED_HOST>
  store.field ptr %values, ptr %context, <StoreContext.SUSPENDED_VALUES>
  ret i32 2
no:
  %nested = icmp ne i64 %async.sp, 0
  %kind = select i1 %nested, i64 {IN_NESTED_CALL}, i64 {IN_SYNCHRONOUS_CALL}
  call void @explain_async(ptr %context, i64 %kind, ptr %awaitable)
  call void @Py_DecRef(ptr %awaitable)
  ret i32 1
}

; The same where only the object itself tells; 0: it is no awaitable, still the caller's, and the exception that may be
; set, since it is no result either, stays.
define internal i32 @suspend_if_awaitable(ptr %context, ptr %object, ptr %host, ptr %values) noinline nounwind {
  %type = alloca ptr
  %exception = alloca ptr
  %traceback = alloca ptr
  call void @PyErr_Fetch(ptr %type, ptr %exception, ptr %traceback)
  %has = call i32 @PyObject_HasAttrString(ptr %object, ptr @text.await)
  %old.type = load ptr, ptr %type
  %old.exception = load ptr, ptr %exception
  %old.traceback = load ptr, ptr %traceback
  call void @PyErr_Restore(ptr %old.type, ptr %old.exception, ptr %old.traceback)
  %is = icmp ne i32 %has, 0
  br i1 %is, label %yes, label %no
yes:
  call void @PyErr_Clear()
  %status = call i32 @suspend(ptr %context, ptr %object, ptr %host, ptr %values)
  ret i32 %status
no:
  ret i32 0
}

; The hook raises.
define internal void @explain_async(ptr %context, i64 %kind, ptr %object) cold noinline nounwind {
  %arguments = alloca [4 x ptr]
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %at1 = getelementptr ptr, ptr %arguments, i64 1
  %at2 = getelementptr ptr, ptr %arguments, i64 2
  %at3 = getelementptr ptr, ptr %arguments, i64 3
  %o1 = call ptr @PyLong_FromUnsignedLong(i64 %store)
  store ptr %o1, ptr %at1
  %o2 = call ptr @PyLong_FromUnsignedLong(i64 %kind)
  store ptr %o2, ptr %at2
  store ptr %object, ptr %at3
  %hook = load ptr, ptr @hook_on_async_misuse
  %no.hook = icmp eq ptr %hook, null
  br i1 %no.hook, label %plain, label %ask
ask:
  %result = call ptr @PyObject_Vectorcall(ptr %hook, ptr %at1, i64 -9223372036854775805, ptr null)
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %done, label %silent
silent:
  call void @Py_DecRef(ptr %result)
  br label %plain
plain:
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.misuse)
  br label %done
done:
  call void @Py_DecRef(ptr %o1)
  call void @Py_DecRef(ptr %o2)
  ret void
}

; Claims the suspended call for this thread. False with an exception set when none is suspended.
define internal i1 @claim(ptr %context) nounwind {
  %state = load.field i64, ptr %context, <StoreContext.ASYNC_STATE>
  %suspended = icmp eq i64 %state, <Environ.ASYNC_SUSPENDED>
  br i1 %suspended, label %yes, label %no, !prof !likely
yes:
  store.field i64 <Environ.ASYNC_RESUMING>, ptr %context, <StoreContext.ASYNC_STATE>
  ret i1 true
no:
  call void @explain_async(ptr %context, i64 {NOT_SUSPENDED}, ptr @_Py_NoneStruct)
  ret i1 false
}

; Prepares this thread for wasm when it is not the one that ran the call before. False with an exception set.
define internal i1 @prepare_thread(ptr %context) nounwind {
  %token = call i64 @thread_token()
  %known = load.field i64, ptr %context, <StoreContext.SUSPENDED_THREAD>
  %same = icmp eq i64 %token, %known
  br i1 %same, label %yes, label %ask, !prof !likely
ask:
  %hook = load ptr, ptr @hook_new_thread
  %result = call ptr @ask(ptr %hook, i64 0)
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %no, label %prepared
prepared:
  %limit = call i64 @PyLong_AsUnsignedLong(ptr %result)
  call void @Py_DecRef(ptr %result)
  store.field i64 %limit, ptr %context, <StoreContext.HOST_STACK_LIMIT>
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}

define internal i64 @thread_token() alwaysinline nounwind {
  %thread = call ptr @llvm.thread.pointer()
  %thread.word = ptrtoint ptr %thread to i64
  %generation = load atomic i64, ptr @thread_generation monotonic, align 8
  %token = add i64 %thread.word, %generation
  ret i64 %token
}

; From here to the switch of stacks no Python code may run.
define internal void @take_back(ptr %context) alwaysinline nounwind {
  %token = call i64 @thread_token()
  store.field i64 %token, ptr %context, <StoreContext.THREAD>
  store.field i64 0, ptr %context, <StoreContext.HOST_SP>
  store.field i64 <Environ.ASYNC_NONE>, ptr %context, <StoreContext.ASYNC_STATE>
  ret void
}

; METH_O: the awaitable gave `value`.
define hidden ptr @async_resume(ptr %self, ptr %value) nounwind {
  %record = alloca [<TrapRecord.SIZE> x i8], align 16
  %context = call ptr @PyLong_AsVoidPtr(ptr %self)
  %claimed = call i1 @claim(ptr %context)
  br i1 %claimed, label %thread, label %failed
thread:
  %ready = call i1 @prepare_thread(ptr %context)
  br i1 %ready, label %stack, label %throw
stack:
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %frame.word = ptrtoint ptr %frame to i64
  %limit = load.field i64, ptr %context, <StoreContext.HOST_STACK_LIMIT>
  %deep = icmp ult i64 %frame.word, %limit
  br i1 %deep, label %recursion, label %deliver, !prof !unlikely
recursion:
  %recursion.error = load ptr, ptr @PyExc_RecursionError
  call void @PyErr_SetString(ptr %recursion.error, ptr @text.recursion)
  br label %throw
deliver:
  %host = load.field ptr, ptr %context, <StoreContext.SUSPENDED_HOST>
  %is.builtin = icmp eq ptr %host, null
  br i1 %is.builtin, label %go, label %results
results:
  %status = call i32 @deliver_results(ptr %context, ptr %host, ptr %value)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %go, label %throw, !prof !likely
go:
  %target = phi ptr [@keeping_return, %deliver], [@gate_return, %results]
  call void @take_back(ptr %context)
  %descriptor = load.field ptr, ptr %context, <StoreContext.ASYNC_DESCRIPTOR>
  %flags = load.field i32, ptr %descriptor, <CallDescriptor.FLAGS>
  %release.flag = and i32 %flags, <Environ.CALL_FLAG_RELEASE_GIL>
  %release = icmp ne i32 %release.flag, 0
  %answer = call ptr @run_async(ptr @enter_resume, ptr %target, ptr null, ptr null, i64 0, ptr null, ptr %context,
      ptr %record, i1 %release)
  ret ptr %answer
throw:
  call void @take_back(ptr %context)
  %raised = call ptr @run_async(ptr @enter_resume, ptr @gate_unwind, ptr null, ptr null, i64 0, ptr null, ptr %context,
      ptr %record, i1 false)
  ret ptr %raised
failed:
  ret ptr null
}

; METH_O: the awaitable raised `exception`. The gate unwinds with the GIL held.
define hidden ptr @async_throw(ptr %self, ptr %exception) nounwind {
  %record = alloca [<TrapRecord.SIZE> x i8], align 16
  %context = call ptr @PyLong_AsVoidPtr(ptr %self)
  %claimed = call i1 @claim(ptr %context)
  br i1 %claimed, label %thread, label %failed
thread:
  %ready = call i1 @prepare_thread(ptr %context)
  br i1 %ready, label %raise, label %unwind
raise:
  %type = call ptr @PyObject_Type(ptr %exception)
  call void @PyErr_SetObject(ptr %type, ptr %exception)
  call void @Py_DecRef(ptr %type)
  br label %unwind
unwind:
  call void @take_back(ptr %context)
  %raised = call ptr @run_async(ptr @enter_resume, ptr @gate_unwind, ptr null, ptr null, i64 0, ptr null, ptr %context,
      ptr %record, i1 false)
  ret ptr %raised
failed:
  ret ptr null
}

; The results of the host function that was waited for, as `host_call` takes them. 1 with an exception set.
define internal i32 @deliver_results(ptr %context, ptr %host, ptr %result) noinline nounwind {
  %values = load.field ptr, ptr %context, <StoreContext.SUSPENDED_VALUES>
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %name = load.field ptr, ptr %host, <HostFuncContext.NAME>
  %params.32 = load.field i32, ptr %host, <HostFuncContext.PARAM_COUNT>
  %params = zext i32 %params.32 to i64
  %types = getelementptr i8, ptr %host, i64 <HostFuncContext.TYPES>
  %result.types = getelementptr i8, ptr %types, i64 %params
  %count.flagged = load.field i32, ptr %host, <HostFuncContext.RESULT_COUNT>
  %count = and i32 %count.flagged, {COUNT_MASK}
  switch i32 %count, label %many [
    i32 0, label %none
    i32 1, label %one
  ]
none:
  %is.none = icmp eq ptr %result, @_Py_NoneStruct
  br i1 %is.none, label %done, label %unwanted, !prof !likely
unwanted:
  call void @explain_unwanted(ptr %name, ptr %result)
  br label %failed
one:
  %only.8 = load i8, ptr %result.types
  %only = zext i8 %only.8 to i32
  %status = call i32 @unbox(ptr %result, i32 %only, ptr %values, i64 %store)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %one.failed, !prof !likely
one.failed:
  call void @explain(ptr %name, ptr @text.result, i64 1, i32 %only, ptr %result, i32 %status)
  br label %failed
many:
  %many.count = zext i32 %count to i64
  %many.status = call i32 @unbox_many(ptr %name, ptr %result, ptr %result.types, i64 %many.count, ptr %values,
      i64 %store)
  %many.good = icmp eq i32 %many.status, 0
  br i1 %many.good, label %done, label %failed
done:
  ret i32 0
failed:
  ret i32 1
}

declare hidden i32 @enter_async(ptr, ptr, ptr, i64, ptr, ptr, ptr)
declare hidden i32 @enter_resume(ptr, ptr, ptr, i64, ptr, ptr, ptr)
@gate_return = external hidden global i8
@keeping_return = external hidden global i8
"""

TEXTS: Final = {
    "await": "__await__",
    "misuse": "a host function returned an awaitable where none is possible",
}


def _assembly() -> str:
    words = (GateFrame.TOP - GateFrame.LOWEST) // 16
    move = [(16 * k, GateFrame.LOWEST + 16 * k) for k in range(words)]
    save = [
        f"  movups xmm0, [rbp + {at}]\n  movups [r11 + <StoreContext.SUSPENDED_FRAME> + {k}], xmm0" for k, at in move
    ]
    restore = [
        f"  movups xmm0, [r9 + <StoreContext.SUSPENDED_FRAME> + {k}]\n  movups [r10 + {at}], xmm0" for k, at in move
    ]
    for k, register in enumerate(_REGISTERS):
        save.append(f"  mov [r11 + <StoreContext.SUSPENDED_REGISTERS> + {8 * k}], {register}")
        restore.append(f"  mov {register}, [r9 + <StoreContext.SUSPENDED_REGISTERS> + {8 * k}]")
    pieces = {
        "RBP": -GateFrame.LOWEST,
        "PUSH_ENTRY": PUSH_ENTRY,
        "SAVE": "\n".join(save),
        "RESTORE": "\n".join(restore),
    }
    return ASSEMBLY.format_map(pieces)


def ir() -> str:
    """The gates of asynchronous calls."""
    numbers = {
        "BUSY": BUSY,
        "NO_ROOM": NO_ROOM,
        "NOT_SUSPENDED": NOT_SUSPENDED,
        "IN_NESTED_CALL": IN_NESTED_CALL,
        "IN_SYNCHRONOUS_CALL": IN_SYNCHRONOUS_CALL,
        "COUNT_MASK": (1 << 31) - 1,
    }
    given = "ptr %args, i64 %given"
    text = (
        ARGUMENTS.replace(f"@universal_call(ptr %self, {given})", f"@start_call(ptr %self, {given}, ptr %owner)") + CALL
    )
    for name, number in numbers.items():
        text = text.replace("{" + name + "}", str(number))
    return assembly(expand(_assembly())) + expand(text) + "".join(c_string(f"text.{k}", v) for k, v in TEXTS.items())
