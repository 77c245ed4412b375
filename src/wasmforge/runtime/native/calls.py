"""The universal call wrapper: one METH_FASTCALL function behind every callable export. Its `self` is an int whose
value is the address of a CallDescriptor, which lists types and targets, so that no code is compiled for a signature.
What left wasm otherwise than by returning becomes a Python exception in `raising.py`.

Order matters: arguments are unboxed first, because `__index__` and the like may run any Python code; from the thread
check to `enter` the GIL is held without a gap, so no other thread can take the store between check and use.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.boxing import c_string
from wasmforge.runtime.native.emission import expand

__all__ = ["ARGUMENTS", "ir"]

ARGUMENTS: Final = """
define hidden ptr @universal_call(ptr %self, ptr %args, i64 %given) nounwind {
entry:
  %small = alloca [16 x [<Environ.VALRAW_SIZE> x i8]], align 16
  %record = alloca [<TrapRecord.SIZE> x i8], align 16
  %descriptor = call ptr @PyLong_AsVoidPtr(ptr %self)
  %params.32 = load.field i32, ptr %descriptor, <CallDescriptor.PARAM_COUNT>
  %params = zext i32 %params.32 to i64
  %slots.32 = load.field i32, ptr %descriptor, <CallDescriptor.SLOTS>
  %slots = zext i32 %slots.32 to i64
  %context = load.field ptr, ptr %descriptor, <CallDescriptor.STORE_CONTEXT>
  %flags = load.field i32, ptr %descriptor, <CallDescriptor.FLAGS>
  %raw.flag = and i32 %flags, <Environ.CALL_FLAG_RAW>
  %raw.key = shl i32 %raw.flag, 7
  %types = getelementptr i8, ptr %descriptor, i64 <CallDescriptor.TYPES>
  %arity.ok = icmp eq i64 %given, %params
  br i1 %arity.ok, label %size, label %arity, !prof !likely
arity:
  %name.arity = load.field ptr, ptr %descriptor, <CallDescriptor.NAME>
  call void @explain_arity(ptr %name.arity, i64 %params, i64 %given)
  ret ptr null
size:
  %is.small = icmp ule i64 %slots, 16
  br i1 %is.small, label %unbox.start, label %large, !prof !likely
large:
  ; At most 1,000 slots (16 KB); HOST_STACK_LIMIT leaves more than that below it.
  %big = alloca [<Environ.VALRAW_SIZE> x i8], i64 %slots, align 16
  br label %unbox.start
unbox.start:
  %values = phi ptr [%small, %size], [%big, %large]
  %no.params = icmp eq i64 %params, 0
  br i1 %no.params, label %check.thread, label %unbox.next
unbox.next:
  %i = phi i64 [0, %unbox.start], [%i.next, %unbox.done]
  %object.at = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %object.at
  %type.at = getelementptr i8, ptr %types, i64 %i
  %type.8 = load i8, ptr %type.at
  %type = zext i8 %type.8 to i32
  %key = or i32 %type, %raw.key
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %i
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %status = call i32 @unbox(ptr %object, i32 %key, ptr %slot, i64 %store)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %unbox.done, label %unbox.failed, !prof !likely
unbox.failed:
  %name.unbox = load.field ptr, ptr %descriptor, <CallDescriptor.NAME>
  %position = add i64 %i, 1
  call void @explain(ptr %name.unbox, ptr @text.argument, i64 %position, i32 %key, ptr %object, i32 %status)
  ret ptr null
unbox.done:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %params
  br i1 %more, label %unbox.next, label %check.thread

check.thread:
  ; The generation changes whenever a thread that was set up ends, so a new thread with an old thread pointer is
  ; noticed.
  %thread = call ptr @llvm.thread.pointer()
  %thread.word = ptrtoint ptr %thread to i64
  %generation = load atomic i64, ptr @thread_generation monotonic, align 8
  %token = add i64 %thread.word, %generation
  %known = load.field i64, ptr %context, <StoreContext.THREAD>
  %same = icmp eq i64 %token, %known
  br i1 %same, label %check.stack, label %new.thread, !prof !likely
new.thread:
  ; Runs Python code, so look again afterwards.
  %accepted = call i32 @new_thread(ptr %context, i64 %token)
  %taken = icmp eq i32 %accepted, 0
  br i1 %taken, label %check.thread, label %failed
check.stack:
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %frame.word = ptrtoint ptr %frame to i64
  %limit = load.field i64, ptr %context, <StoreContext.HOST_STACK_LIMIT>
  %deep = icmp ult i64 %frame.word, %limit
  br i1 %deep, label %recursion, label %call, !prof !unlikely
recursion:
  %recursion.error = load ptr, ptr @PyExc_RecursionError
  call void @PyErr_SetString(ptr %recursion.error, ptr @text.recursion)
  ret ptr null

"""
"""From the definition of a METH_FASTCALL function to the label `call`: `%values` are the arguments, and the store is
this thread's. Errors go to the label `failed`, or return. Also the beginning of asynchronous calls."""

IR: Final = """
call:
  %array.call = load.field ptr, ptr %descriptor, <CallDescriptor.ARRAY_CALL>
  %wasm.call = load.field ptr, ptr %descriptor, <CallDescriptor.WASM_CALL>
  %vmctx = load.field ptr, ptr %descriptor, <CallDescriptor.VMCTX>
  %release.flag = and i32 %flags, <Environ.CALL_FLAG_RELEASE_GIL>
  %release = icmp ne i32 %release.flag, 0
  br i1 %release, label %call.released, label %call.held, !prof !unlikely
call.held:
  %outcome.held = call i32 @enter(ptr %array.call, ptr %vmctx, ptr %values, i64 %slots, ptr %wasm.call, ptr %context,
      ptr %record)
  br label %outcome
call.released:
  ; HOST_SP is what tells other threads that the store is active, so it must be non-zero from before the GIL is given
  ; up until after it is back, and THREAD_STATE belongs to whoever is active. Nothing uses the 1 as an address: no wasm
  ; runs on it.
  %old.sp = load.field i64, ptr %context, <StoreContext.HOST_SP>
  %was.active = icmp ne i64 %old.sp, 0
  %marked.sp = select i1 %was.active, i64 %old.sp, i64 1
  store.field i64 %marked.sp, ptr %context, <StoreContext.HOST_SP>
  %state = call ptr @PyEval_SaveThread()
  store.field ptr %state, ptr %context, <StoreContext.THREAD_STATE>
  %outcome.released = call i32 @enter(ptr %array.call, ptr %vmctx, ptr %values, i64 %slots, ptr %wasm.call,
      ptr %context, ptr %record)
  %has.gil = icmp eq i32 %outcome.released, 2    ; exceptions arrive with the GIL, and THREAD_STATE 0
  br i1 %has.gil, label %call.back, label %call.restore, !prof !unlikely
call.restore:
  call void @PyEval_RestoreThread(ptr %state)
  br label %call.back
call.back:
  store.field ptr null, ptr %context, <StoreContext.THREAD_STATE>
  store.field i64 %old.sp, ptr %context, <StoreContext.HOST_SP>
  br label %outcome
outcome:
  %outcome.code = phi i32 [%outcome.held, %call.held], [%outcome.released, %call.back]
  %returned = icmp eq i32 %outcome.code, 0
  br i1 %returned, label %results, label %abrupt, !prof !likely
abrupt:
  call void @raise_outcome(ptr %context, ptr %record, i32 %outcome.code)
  ret ptr null

results:
  %count = load.field i32, ptr %descriptor, <CallDescriptor.RESULT_COUNT>
  %result.types = getelementptr i8, ptr %types, i64 %params
  switch i32 %count, label %many [
    i32 0, label %none
    i32 1, label %one
  ]
none:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
one:
  %only.8 = load i8, ptr %result.types
  %only = zext i8 %only.8 to i32
  %only.key = or i32 %only, %raw.key
  %store.one = load.field i64, ptr %context, <StoreContext.STORE>
  %boxed = call ptr @box(i32 %only.key, ptr %values, i64 %store.one)
  ret ptr %boxed
many:
  %count.64 = zext i32 %count to i64
  %store.many = load.field i64, ptr %context, <StoreContext.STORE>
  %list = call ptr @box_list(ptr %values, ptr %result.types, i64 %count.64, i32 %raw.key, i64 %store.many)
  ret ptr %list
failed:
  ret ptr null
}
declare ptr @llvm.thread.pointer()
declare ptr @llvm.frameaddress.p0(i32 immarg)

define internal ptr @box_list(ptr %values, ptr %types, i64 %count, i32 %raw.key, i64 %store) noinline nounwind {
  %list = call ptr @PyList_New(i64 %count)
  %no.list = icmp eq ptr %list, null
  br i1 %no.list, label %failed, label %item
item:
  %i = phi i64 [0, %0], [%i.next, %set]
  %type.at = getelementptr i8, ptr %types, i64 %i
  %type.8 = load i8, ptr %type.at
  %type = zext i8 %type.8 to i32
  %key = or i32 %type, %raw.key
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %i
  %object = call ptr @box_other_or_i32(i32 %key, ptr %slot, i64 %store)
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %drop, label %set
set:
  call i32 @PyList_SetItem(ptr %list, i64 %i, ptr %object)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %count
  br i1 %more, label %item, label %done
done:
  ret ptr %list
drop:
  call void @Py_DecRef(ptr %list)
  br label %failed
failed:
  ret ptr null
}

define internal ptr @box_other_or_i32(i32 %key, ptr %slot, i64 %store) noinline nounwind {
  %object = call ptr @box(i32 %key, ptr %slot, i64 %store)
  ret ptr %object
}

define internal void @explain_arity(ptr %name, i64 %params, i64 %given) cold noinline nounwind {
  %type.error = load ptr, ptr @PyExc_TypeError
  %has.name = icmp ne ptr %name, null
  %shown.name = select i1 %has.name, ptr %name, ptr @text.anonymous
  %one = icmp eq i64 %params, 1
  %text = select i1 %one, ptr @text.arity.one, ptr @text.arity
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr %text, ptr %shown.name, i64 %params, i64 %given)
  ret void
}

; Calls a hook of the runtime with a number: what it returns, or null with an exception set.
define internal ptr @ask(ptr %hook, i64 %number) noinline nounwind {
  %arguments = alloca [2 x ptr]
  %object = call ptr @PyLong_FromUnsignedLong(i64 %number)
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %failed, label %call
call:
  %first = getelementptr ptr, ptr %arguments, i64 1
  store ptr %object, ptr %first
  ; One argument, with room in front of it: PY_VECTORCALL_ARGUMENTS_OFFSET.
  %result = call ptr @PyObject_Vectorcall(ptr %hook, ptr %first, i64 -9223372036854775807, ptr null)
  call void @Py_DecRef(ptr %object)
  ret ptr %result
failed:
  ret ptr null
}

; Makes the store belong to this thread, or raises if it is active on another one. 0, or 1 with an exception set. The
; hook prepares the thread and returns its stack limit; being Python code, it may lose the GIL at any point. So the
; decision is made here, between reading HOST_SP and writing THREAD without a gap; when the store was taken meanwhile,
; the hook is asked again, which then raises.
define internal i32 @new_thread(ptr %context, i64 %token) cold noinline nounwind {
  %word = ptrtoint ptr %context to i64
  br label %ask
ask:
  %hook = load ptr, ptr @hook_new_thread
  %result = call ptr @ask(ptr %hook, i64 %word)
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %failed, label %prepared
prepared:
  %limit = call i64 @PyLong_AsUnsignedLong(ptr %result)
  call void @Py_DecRef(ptr %result)
  %host.sp = load.field i64, ptr %context, <StoreContext.HOST_SP>
  %idle = icmp eq i64 %host.sp, 0
  br i1 %idle, label %take, label %active
active:
  ; Ours all the same if only the generation changed.
  %owner = load.field i64, ptr %context, <StoreContext.THREAD>
  %difference = xor i64 %owner, %token
  %other = and i64 %difference, 281474976710655      ; the bits of a thread pointer
  %mine = icmp eq i64 %other, 0
  br i1 %mine, label %take, label %ask
take:
  store.field i64 %limit, ptr %context, <StoreContext.HOST_STACK_LIMIT>
  store.field i64 %token, ptr %context, <StoreContext.THREAD>
  ret i32 0
failed:
  ret i32 1
}
"""

TEXTS: Final = {
    "arity": "%s() takes %zd arguments (%zd given)",
    "arity.one": "%s() takes %zd argument (%zd given)",
    "recursion": "maximum recursion depth exceeded: too many calls between Python and wasm are open on this thread",
}


def ir() -> str:
    """The universal call wrapper."""
    return expand(ARGUMENTS + IR) + "".join(c_string(f"text.{k}", v) for k, v in TEXTS.items())
