"""Python code called from wasm: the bodies of the host call gate and of the builtins written in Python. `exits.py`
calls them on the thread's stack, below the gate frame; they return 0, or 1 with an exception set and the GIL held.

While the GIL is released, THREAD_STATE holds the thread state; it is 0 whenever Python code may run, so that a nested
entry finds it 0 and an exception arrives at the entry with the GIL held whoever released it.
"""

from __future__ import annotations

from typing import Final

from wasmforge.compiler.environ import BUILTINS
from wasmforge.runtime.native.boxing import c_string
from wasmforge.runtime.native.emission import expand
from wasmforge.syntax.types import I32

__all__ = ["ir"]

IR: Final = """
define internal i1 @take_gil(ptr %context) alwaysinline nounwind {
  %state = load.field ptr, ptr %context, <StoreContext.THREAD_STATE>
  %released = icmp ne ptr %state, null
  br i1 %released, label %take, label %done, !prof !unlikely
take:
  call void @PyEval_RestoreThread(ptr %state)
  store.field ptr null, ptr %context, <StoreContext.THREAD_STATE>
  br label %done
done:
  ret i1 %released
}

define internal void @give_gil(ptr %context, i1 %released) alwaysinline nounwind {
  br i1 %released, label %give, label %done, !prof !unlikely
give:
  %state = call ptr @PyEval_SaveThread()
  store.field ptr %state, ptr %context, <StoreContext.THREAD_STATE>
  br label %done
done:
  ret void
}

define hidden i32 @host_call(ptr %host, ptr %caller, ptr %values, ptr %context) nounwind {
entry:
  %small = alloca [10 x ptr], align 16
  %released = call i1 @take_gil(ptr %context)
  %callable = load.field ptr, ptr %host, <HostFuncContext.CALLABLE>
  %flags = load.field i32, ptr %host, <HostFuncContext.FLAGS>
  %params.32 = load.field i32, ptr %host, <HostFuncContext.PARAM_COUNT>
  %params = zext i32 %params.32 to i64
  %types = getelementptr i8, ptr %host, i64 <HostFuncContext.TYPES>
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %is.small = icmp ule i64 %params, 8
  br i1 %is.small, label %ready, label %large, !prof !likely
large:
  %room = add i64 %params, 2
  %big = alloca ptr, i64 %room, align 16
  br label %ready
ready:
  ; Slot 0 is free for the callee (PY_VECTORCALL_ARGUMENTS_OFFSET).
  %array = phi ptr [%small, %entry], [%big, %large]
  %first = getelementptr ptr, ptr %array, i64 1
  %caller.flag = and i32 %flags, <Environ.HOST_FLAG_CALLER>
  %wants.caller = icmp ne i32 %caller.flag, 0
  br i1 %wants.caller, label %caller.box, label %box.start
caller.box:
  %caller.word = ptrtoint ptr %caller to i64
  %caller.object = call ptr @PyLong_FromUnsignedLong(i64 %caller.word)
  store ptr %caller.object, ptr %first
  %no.caller = icmp eq ptr %caller.object, null
  br i1 %no.caller, label %failed, label %box.start
box.start:
  %before = phi i64 [0, %ready], [1, %caller.box]
  %no.params = icmp eq i64 %params, 0
  br i1 %no.params, label %call, label %box.next
box.next:
  %i = phi i64 [0, %box.start], [%i.next, %box.done]
  %type.at = getelementptr i8, ptr %types, i64 %i
  %type.8 = load i8, ptr %type.at
  %type = zext i8 %type.8 to i32
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %i
  %object = call ptr @box(i32 %type, ptr %slot, i64 %store)
  %index = add i64 %before, %i
  %object.at = getelementptr ptr, ptr %first, i64 %index
  store ptr %object, ptr %object.at
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %box.failed, label %box.done
box.failed:
  call void @drop_references(ptr %first, i64 %index)
  br label %failed
box.done:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %params
  br i1 %more, label %box.next, label %call
call:
  %count = add i64 %before, %params
  %nargsf = or i64 %count, -9223372036854775808
  %result = call ptr @PyObject_Vectorcall(ptr %callable, ptr %first, i64 %nargsf, ptr null)
  %nothing = icmp eq i64 %count, 0
  br i1 %nothing, label %called, label %release.next
release.next:
  %k = phi i64 [0, %call], [%k.next, %release.next]
  %k.at = getelementptr ptr, ptr %first, i64 %k
  %k.object = load ptr, ptr %k.at
  call void @release(ptr %k.object)
  %k.next = add i64 %k, 1
  %k.more = icmp ult i64 %k.next, %count
  br i1 %k.more, label %release.next, label %called
called:
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %failed, label %results, !prof !unlikely

results:
  %result.count = load.field i32, ptr %host, <HostFuncContext.RESULT_COUNT>
  %result.types = getelementptr i8, ptr %types, i64 %params
  switch i32 %result.count, label %many [
    i32 0, label %none
    i32 1, label %one
  ]
none:
  %is.none = icmp eq ptr %result, @_Py_NoneStruct
  br i1 %is.none, label %done, label %unwanted, !prof !likely
unwanted:
  %await.none = call i32 @suspend_if_awaitable(ptr %context, ptr %result, ptr %host, ptr %values)
  %plain.none = icmp eq i32 %await.none, 0
  br i1 %plain.none, label %unwanted.plain, label %awaited
unwanted.plain:
  %name.none = load.field ptr, ptr %host, <HostFuncContext.NAME>
  call void @explain_unwanted(ptr %name.none, ptr %result)
  br label %drop
one:
  %only.8 = load i8, ptr %result.types
  %only = zext i8 %only.8 to i32
  %status = call i32 @unbox(ptr %result, i32 %only, ptr %values, i64 %store)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %one.failed, !prof !likely
one.failed:
  %await.one = call i32 @suspend_if_awaitable(ptr %context, ptr %result, ptr %host, ptr %values)
  %plain.one = icmp eq i32 %await.one, 0
  br i1 %plain.one, label %one.plain, label %awaited
one.plain:
  %name.one = load.field ptr, ptr %host, <HostFuncContext.NAME>
  call void @explain(ptr %name.one, ptr @text.result, i64 1, i32 %only, ptr %result, i32 %status)
  br label %drop
many:
  %await.flag = and i32 %result.count, <Environ.HOST_RESULTS_AWAITED>
  %asynchronous = icmp ne i32 %await.flag, 0
  br i1 %asynchronous, label %many.await, label %many.ask
many.await:
  %await.many = call i32 @suspend(ptr %context, ptr %result, ptr %host, ptr %values)
  ret i32 %await.many
many.ask:
  %is.sequence = call i32 @PySequence_Check(ptr %result)
  %not.sequence = icmp eq i32 %is.sequence, 0
  br i1 %not.sequence, label %many.other, label %many.plain
many.other:
  %await.other = call i32 @suspend_if_awaitable(ptr %context, ptr %result, ptr %host, ptr %values)
  %plain.other = icmp eq i32 %await.other, 0
  br i1 %plain.other, label %many.plain, label %awaited
many.plain:
  %many.count = zext i32 %result.count to i64
  %name.many = load.field ptr, ptr %host, <HostFuncContext.NAME>
  %many.status = call i32 @unbox_many(ptr %name.many, ptr %result, ptr %result.types, i64 %many.count, ptr %values,
      i64 %store)
  %many.good = icmp eq i32 %many.status, 0
  br i1 %many.good, label %done, label %drop
done:
  call void @release(ptr %result)
  call void @give_gil(ptr %context, i1 %released)
  ret i32 0
drop:
  call void @Py_DecRef(ptr %result)
  br label %failed
awaited:
  %awaited.status = phi i32 [%await.none, %unwanted], [%await.one, %one.failed], [%await.other, %many.other]
  ret i32 %awaited.status
failed:
  ret i32 1
}

; The GIL may have been given back already.
define hidden void @explain_out_of_order(ptr %context) cold noinline nounwind {
  %released = call i1 @take_gil(ptr %context)
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.out_of_order)
  ret void
}

define internal void @drop_references(ptr %array, i64 %count) cold noinline nounwind {
  br label %test
test:
  %i = phi i64 [0, %0], [%i.next, %item]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %item, label %done
item:
  %at = getelementptr ptr, ptr %array, i64 %i
  %object = load ptr, ptr %at
  call void @Py_DecRef(ptr %object)
  %i.next = add i64 %i, 1
  br label %test
done:
  ret void
}

; The class of what is raised when a host function returns the wrong number of values: the runtime's, or TypeError.
define internal ptr @result_error() cold noinline nounwind {
  %hook = load ptr, ptr @hook_result_error
  %none = icmp eq ptr %hook, null
  %type.error = load ptr, ptr @PyExc_TypeError
  %class = select i1 %none, ptr %type.error, ptr %hook
  ret ptr %class
}

define internal void @explain_unwanted(ptr %name, ptr %object) cold noinline nounwind {
  %has.name = icmp ne ptr %name, null
  %shown = select i1 %has.name, ptr %name, ptr @text.anonymous
  %type = call ptr @PyObject_Type(ptr %object)
  %type.name = call ptr @PyType_GetName(ptr %type)
  call void @Py_DecRef(ptr %type)
  %unknown = icmp eq ptr %type.name, null
  br i1 %unknown, label %done, label %format
format:
  %type.error = call ptr @result_error()
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr @text.unwanted, ptr %shown, ptr %type.name)
  call void @Py_DecRef(ptr %type.name)
  br label %done
done:
  ret void
}

; Several results from a sequence of exactly that many objects.
define internal i32 @unbox_many(ptr %name, ptr %sequence, ptr %types, i64 %count, ptr %values,
    i64 %store) noinline nounwind {
  %has.name = icmp ne ptr %name, null
  %shown = select i1 %has.name, ptr %name, ptr @text.anonymous
  %type.error = call ptr @result_error()
  %is.sequence = call i32 @PySequence_Check(ptr %sequence)
  %not.sequence = icmp eq i32 %is.sequence, 0
  br i1 %not.sequence, label %wrong.type, label %length
wrong.type:
  %type = call ptr @PyObject_Type(ptr %sequence)
  %type.name = call ptr @PyType_GetName(ptr %type)
  call void @Py_DecRef(ptr %type)
  %unknown = icmp eq ptr %type.name, null
  br i1 %unknown, label %failed, label %format
format:
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr @text.not_sequence, ptr %shown, i64 %count,
      ptr %type.name)
  call void @Py_DecRef(ptr %type.name)
  br label %failed
length:
  %given = call i64 @PySequence_Size(ptr %sequence)
  %raised = icmp slt i64 %given, 0
  br i1 %raised, label %failed, label %compare
compare:
  %equal = icmp eq i64 %given, %count
  br i1 %equal, label %item, label %wrong.count
wrong.count:
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr @text.wrong_count, ptr %shown, i64 %count, i64 %given)
  br label %failed
item:
  %i = phi i64 [0, %compare], [%i.next, %next]
  %object = call ptr @PySequence_GetItem(ptr %sequence, i64 %i)
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %failed, label %convert
convert:
  %type.at = getelementptr i8, ptr %types, i64 %i
  %type.8 = load i8, ptr %type.at
  %key = zext i8 %type.8 to i32
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %i
  %status = call i32 @unbox(ptr %object, i32 %key, ptr %slot, i64 %store)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %next, label %item.failed
item.failed:
  %position = add i64 %i, 1
  call void @explain(ptr %name, ptr @text.result, i64 %position, i32 %key, ptr %object, i32 %status)
  call void @Py_DecRef(ptr %object)
  br label %failed
next:
  call void @Py_DecRef(ptr %object)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %count
  br i1 %more, label %item, label %done
done:
  ret i32 0
failed:
  ret i32 1
}

; A builtin written in Python: callable(vmctx, *arguments), all unsigned; the result, if any, is an i64 into `result`.
define hidden i32 @builtin_call(i32 %index, i64 %vmctx, ptr %arguments, ptr %result, ptr %context) nounwind {
  %index.64 = zext i32 %index to i64
  %keeps.at = getelementptr i8, ptr @builtin_keeps_overflow, i64 %index.64
  %keeps = load i8, ptr %keeps.at
  %plain = icmp eq i8 %keeps, 0
  br i1 %plain, label %call, label %keep, !prof !likely
call:
  %status = call i32 @call_builtin(i32 %index, i64 %vmctx, ptr %arguments, ptr %result, ptr %context)
  ret i32 %status
keep:
  %status.kept = call i32 @call_builtin_keeping_overflow(i32 %index, i64 %vmctx, ptr %arguments, ptr %result,
      ptr %context)
  ret i32 %status.kept
}

; The caller of the callee-to-be has written the overflow area already. It is saved before anything of Python can run:
; the first bytecode of a Python function may start a collection, and that a finaliser which enters wasm of this store.
define internal i32 @call_builtin_keeping_overflow(i32 %index, i64 %vmctx, ptr %arguments, ptr %result,
    ptr %context) noinline nounwind {
  %saved = alloca [<Environ.OVERFLOW_SIZE> x i8], align 16
  %live = getelementptr i8, ptr %context, i64 <StoreContext.OVERFLOW_AREA>
  call ptr @memmove(ptr %saved, ptr %live, i64 <Environ.OVERFLOW_SIZE>)
  %status = call i32 @call_builtin(i32 %index, i64 %vmctx, ptr %arguments, ptr %result, ptr %context)
  call ptr @memmove(ptr %live, ptr %saved, i64 <Environ.OVERFLOW_SIZE>)
  ret i32 %status
}

define internal i32 @call_builtin(i32 %index, i64 %vmctx, ptr %arguments, ptr %result, ptr %context) nounwind {
  %array = alloca [8 x ptr], align 16
  %released = call i1 @take_gil(ptr %context)
  %index.64 = zext i32 %index to i64
  %callable.at = getelementptr ptr, ptr @builtin_callables, i64 %index.64
  %callable = load ptr, ptr %callable.at
  %missing = icmp eq ptr %callable, null
  br i1 %missing, label %no.callable, label %start
no.callable:
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.no_hook)
  ret i32 1
start:
  %mask.at = getelementptr i8, ptr @builtin_i32_masks, i64 %index.64
  %mask = load i8, ptr %mask.at
  %count.at = getelementptr i8, ptr @builtin_counts, i64 %index.64
  %count.8 = load i8, ptr %count.at
  %count = zext i8 %count.8 to i64
  %first = getelementptr ptr, ptr %array, i64 1
  %vmctx.object = call ptr @PyLong_FromUnsignedLong(i64 %vmctx)
  store ptr %vmctx.object, ptr %first
  %no.vmctx = icmp eq ptr %vmctx.object, null
  br i1 %no.vmctx, label %failed, label %box.test
box.test:
  %i = phi i64 [0, %start], [%i.next, %box.done]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %box, label %call
box:
  %word.at = getelementptr i64, ptr %arguments, i64 %i
  %word = load i64, ptr %word.at
  ; The upper half of an i32 argument's register is undefined.
  %i.8 = trunc i64 %i to i8
  %shifted = lshr i8 %mask, %i.8
  %narrow = trunc i8 %shifted to i1
  %low = and i64 %word, 4294967295
  %value = select i1 %narrow, i64 %low, i64 %word
  %object = call ptr @PyLong_FromUnsignedLong(i64 %value)
  %at = add i64 %i, 1
  %object.at = getelementptr ptr, ptr %first, i64 %at
  store ptr %object, ptr %object.at
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %box.failed, label %box.done
box.failed:
  call void @drop_references(ptr %first, i64 %at)
  br label %failed
box.done:
  %i.next = add i64 %i, 1
  br label %box.test
call:
  %total = add i64 %count, 1
  %nargsf = or i64 %total, -9223372036854775808
  %returned = call ptr @PyObject_Vectorcall(ptr %callable, ptr %first, i64 %nargsf, ptr null)
  call void @drop_references(ptr %first, i64 %total)
  %raised = icmp eq ptr %returned, null
  br i1 %raised, label %failed, label %convert
convert:
  %is.none = icmp eq ptr %returned, @_Py_NoneStruct
  br i1 %is.none, label %none, label %number
none:
  store i64 0, ptr %result
  call void @Py_DecRef(ptr %returned)
  br label %done
number:
  %suspends.at = getelementptr i8, ptr @builtin_suspends, i64 %index.64
  %suspends = load i8, ptr %suspends.at
  %waits = icmp ne i8 %suspends, 0
  br i1 %waits, label %await, label %convert.number, !prof !unlikely
await:
  ; It returned neither None nor a number but what the call shall wait for.
  %await.status = call i32 @suspend(ptr %context, ptr %returned, ptr null, ptr null)
  ret i32 %await.status
convert.number:
  %converted = call i64 @PyLong_AsLong(ptr %returned)
  call void @Py_DecRef(ptr %returned)
  store i64 %converted, ptr %result
  %suspect = icmp eq i64 %converted, -1
  br i1 %suspect, label %check, label %done
check:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %done, label %failed
done:
  call void @give_gil(ptr %context, i1 %released)
  ret i32 0
failed:
  ret i32 1
}
"""

TEXTS: Final = {
    "out_of_order": "a host function returned to wasm while a later call into the same store was not finished; calls "
    "into a store must end in reverse order (switching greenlets inside host functions breaks that)",
    "unwanted": "%s() has no results in its type but returned an object of type %U instead of None",
    "not_sequence": "%s() must return a tuple or list of %zd results, got %U",
    "wrong_count": "%s() must return %zd results, got %zd",
}


def _tables() -> str:
    """What `builtin_call` needs to know of each builtin: the number of parameters, which of them are i32, and whether
    the overflow area must survive it."""
    counts = ", ".join(f"i8 {len(b.params)}" for b in BUILTINS)
    # Those that keep registers have no result, so what they return is an awaitable.
    suspends = ", ".join(f"i8 {int(b.keeps_registers)}" for b in BUILTINS)
    masks = ", ".join(f"i8 {sum(1 << i for i, t in enumerate(b.params) if t == I32)}" for b in BUILTINS)
    keeps = ", ".join(f"i8 {int(b.keeps_overflow)}" for b in BUILTINS)
    n = len(BUILTINS)
    return (
        f"@builtin_callables = hidden global [{n} x ptr] zeroinitializer\n"
        f"@builtin_counts = private constant [{n} x i8] [{counts}]\n"
        f"@builtin_keeps_overflow = private constant [{n} x i8] [{keeps}]\n"
        f"@builtin_suspends = private constant [{n} x i8] [{suspends}]\n"
        f"@builtin_i32_masks = private constant [{n} x i8] [{masks}]\n"
    )


def ir() -> str:
    """The bodies of host calls and Python builtins."""
    return expand(IR) + _tables() + "".join(c_string(f"text.{k}", v) for k, v in TEXTS.items())
