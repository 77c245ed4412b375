"""Values between CPython objects and ValRaw slots: the table of conversions that exported functions (`calls.py`) and
host functions (`host_calls.py`) share, and their error messages.

Only stable-ABI functions of CPython are called, and only ints of one digit are looked into, where `objects.py` has seen
how they look. Other integers go through PyLong_AsLongAndOverflow, which accepts bool and
`__index__` and refuses floats; floats through PyFloat_AsDouble, which accepts int and `__float__`.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.emission import expand
from wasmforge.syntax.types import VALUE_TYPES, ValType

__all__ = ["c_string", "ir"]

IR: Final = """
@int_layout = hidden global i32 0
@int_tag_positive = hidden global i64 0
@int_tag_negative = hidden global i64 0
@free_int_count = hidden global i64 0
@free_ints = hidden global [<Environ.FREE_INTS> x ptr] zeroinitializer

; Object to slot. `key` is the value type, plus RAW_KEY for bit patterns. 0 on success, else 1, with an exception set
; or, when an integer is out of range, perhaps none: `explain` finishes the message.
define internal i32 @unbox(ptr %object, i32 %key, ptr %slot, i64 %store) alwaysinline nounwind {
  %is.i32 = icmp eq i32 %key, <ValType.I32>
  br i1 %is.i32, label %i32, label %others, !prof !likely
i32:
  %status = call i32 @unbox_i32(ptr %object, ptr %slot)
  ret i32 %status
others:
  %status2 = call i32 @unbox_other(ptr %object, i32 %key, ptr %slot, i64 %store)
  ret i32 %status2
}

define internal i32 @unbox_i32(ptr %object, ptr %slot) alwaysinline nounwind {
  %known = load i32, ptr @int_layout
  %is.known = icmp ne i32 %known, 0
  br i1 %is.known, label %look, label %convert, !prof !likely
look:
  %type = load.field ptr, ptr %object, <PyObject.TYPE>
  %is.int = icmp eq ptr %type, @PyLong_Type
  br i1 %is.int, label %one.digit, label %convert, !prof !likely
one.digit:
  %tag = load.field i64, ptr %object, <PyObject.INT_TAG>
  %digit = load.field i32, ptr %object, <PyObject.INT_DIGIT>
  %positive = load i64, ptr @int_tag_positive
  %is.positive = icmp eq i64 %tag, %positive
  br i1 %is.positive, label %give, label %maybe.negative, !prof !likely
maybe.negative:
  %negative = load i64, ptr @int_tag_negative
  %is.negative = icmp eq i64 %tag, %negative
  %minus = sub i32 0, %digit
  br i1 %is.negative, label %give, label %convert
give:
  %known.word = phi i32 [%digit, %one.digit], [%minus, %maybe.negative]
  store i32 %known.word, ptr %slot
  ret i32 0
convert:
  %value = call i64 @PyLong_AsLong(ptr %object)
  %suspect = icmp eq i64 %value, -1
  br i1 %suspect, label %check, label %range, !prof !unlikely
check:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %range, label %failed
range:
  %shifted = add i64 %value, 2147483648
  %fits = icmp ult i64 %shifted, 6442450944      ; -2**31 to 2**32 - 1
  br i1 %fits, label %store, label %failed, !prof !likely
store:
  %word = trunc i64 %value to i32
  store i32 %word, ptr %slot
  ret i32 0
failed:
  ret i32 1
}

; A reference given up. An int of one digit that nobody else has a reference to is kept for the next one that is needed.
define internal void @release(ptr %object) alwaysinline nounwind {
  %known = load i32, ptr @int_layout
  %is.known = icmp ne i32 %known, 0
  br i1 %is.known, label %look, label %decrement, !prof !likely
look:
  %count = load.field i64, ptr %object, <PyObject.REFERENCES>
  %low = trunc i64 %count to i32
  %shared = icmp sgt i32 %low, 1
  br i1 %shared, label %shared.decrement, label %last
shared.decrement:
  %less = sub i64 %count, 1
  store.field i64 %less, ptr %object, <PyObject.REFERENCES>
  ret void
last:
  %is.last = icmp eq i64 %count, 1      ; immortal objects have a negative half
  %type = load.field ptr, ptr %object, <PyObject.TYPE>
  %is.int = icmp eq ptr %type, @PyLong_Type
  %free = load i64, ptr @free_int_count
  %room = icmp ult i64 %free, <Environ.FREE_INTS>
  %is.candidate = and i1 %is.last, %is.int
  %is.kept = and i1 %is.candidate, %room
  br i1 %is.kept, label %size, label %decrement
size:
  %tag = load.field i64, ptr %object, <PyObject.INT_TAG>
  %positive = load i64, ptr @int_tag_positive
  %is.positive = icmp eq i64 %tag, %positive
  %negative = load i64, ptr @int_tag_negative
  %is.negative = icmp eq i64 %tag, %negative
  %one.digit = or i1 %is.positive, %is.negative
  br i1 %one.digit, label %keep, label %decrement
keep:
  %place = getelementptr ptr, ptr @free_ints, i64 %free
  store ptr %object, ptr %place
  %more = add i64 %free, 1
  store i64 %more, ptr @free_int_count
  ret void
decrement:
  call void @Py_DecRef(ptr %object)
  ret void
}

define internal ptr @box_i32(i32 %word) alwaysinline nounwind {
  %free = load i64, ptr @free_int_count
  %any = icmp ne i64 %free, 0
  %magnitude = call i32 @llvm.abs.i32(i32 %word, i1 false)
  %is.one.digit = icmp ult i32 %magnitude, 1073741824
  %small.index = add i32 %word, 5
  %not.small = icmp ugt i32 %small.index, 261      ; CPython has one object for each of -5 to 256
  %suits = and i1 %is.one.digit, %not.small
  %take = and i1 %any, %suits
  br i1 %take, label %reuse, label %make
reuse:
  %left = sub i64 %free, 1
  %place = getelementptr ptr, ptr @free_ints, i64 %left
  %object = load ptr, ptr %place
  store i64 %left, ptr @free_int_count
  %positive = load i64, ptr @int_tag_positive
  %negative = load i64, ptr @int_tag_negative
  %is.negative = icmp slt i32 %word, 0
  %tag = select i1 %is.negative, i64 %negative, i64 %positive
  store.field i64 %tag, ptr %object, <PyObject.INT_TAG>
  store.field i32 %magnitude, ptr %object, <PyObject.INT_DIGIT>
  ret ptr %object
make:
  %signed = sext i32 %word to i64
  %new = call ptr @PyLong_FromLong(i64 %signed)
  ret ptr %new
}
declare i32 @llvm.abs.i32(i32, i1)

define internal i32 @unbox_other(ptr %object, i32 %key, ptr %slot, i64 %store) noinline nounwind {
  %overflow = alloca i32
  switch i32 %key, label %unsupported [
    i32 <ValType.I64>, label %i64
    i32 <ValType.F64>, label %f64
    i32 <ValType.F32>, label %f32
    i32 <ValType.FUNCREF>, label %reference
    i32 <ValType.EXTERNREF>, label %reference
    i32 <ValType.V128>, label %v128
    i32 <RawType.V128>, label %v128
    i32 <RawType.I32>, label %i32
    i32 <RawType.F32>, label %i32
    i32 <RawType.EXTERNREF>, label %i32
    i32 <RawType.I64>, label %i64
    i32 <RawType.F64>, label %i64
    i32 <RawType.FUNCREF>, label %i64
  ]
i32:
  %status = call i32 @unbox_i32(ptr %object, ptr %slot)
  ret i32 %status
i64:
  %value = call i64 @PyLong_AsLongAndOverflow(ptr %object, ptr %overflow)
  store i64 %value, ptr %slot
  %suspect = icmp eq i64 %value, -1
  br i1 %suspect, label %i64.check, label %ok, !prof !unlikely
i64.check:
  %direction = load i32, ptr %overflow
  switch i32 %direction, label %failed [
    i32 0, label %error.check
    i32 1, label %i64.unsigned
  ]
i64.unsigned:
  ; 2**63 to 2**64 - 1; PyLong_AsUnsignedLong does not look for __index__ itself.
  %index = call ptr @PyNumber_Index(ptr %object)
  %no.index = icmp eq ptr %index, null
  br i1 %no.index, label %failed, label %i64.convert
i64.convert:
  %big = call i64 @PyLong_AsUnsignedLong(ptr %index)
  call void @Py_DecRef(ptr %index)
  store i64 %big, ptr %slot
  %suspect.big = icmp eq i64 %big, -1
  br i1 %suspect.big, label %error.check, label %ok
f64:
  %double = call double @PyFloat_AsDouble(ptr %object)
  store double %double, ptr %slot
  %suspect.double = fcmp oeq double %double, -1.0
  br i1 %suspect.double, label %error.check, label %ok, !prof !unlikely
f32:
  %wide = call double @PyFloat_AsDouble(ptr %object)
  %narrow = fptrunc double %wide to float
  store float %narrow, ptr %slot
  %suspect.float = fcmp oeq double %wide, -1.0
  br i1 %suspect.float, label %error.check, label %ok, !prof !unlikely
v128:
  %status4 = call i32 @unbox_v128(ptr %object, ptr %slot)
  ret i32 %status4
reference:
  %is.null = icmp eq ptr %object, @_Py_NoneStruct
  br i1 %is.null, label %null, label %hook
null:
  store i64 0, ptr %slot
  ret i32 0
hook:
  %status3 = call i32 @unbox_reference(ptr %object, i32 %key, ptr %slot, i64 %store)
  ret i32 %status3
error.check:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %ok, label %failed
ok:
  ret i32 0
unsupported:
  unreachable
failed:
  ret i32 1
}

; An integer, from -2**127 to 2**128 - 1, or 16 bytes of anything with a buffer; lane 0 is lowest or first. numpy's
; scalars are both, and count as integers; its arrays say that they are both, and count as bytes.
define internal i32 @unbox_v128(ptr %object, ptr %slot) noinline nounwind {
  %buffer = alloca [80 x i8], align 8             ; Py_buffer
  %overflow = alloca i32
  %upper = getelementptr i8, ptr %slot, i64 8
  %may.index = call i32 @PyIndex_Check(ptr %object)
  %is.index = icmp ne i32 %may.index, 0
  br i1 %is.index, label %index, label %bytes
index:
  %integer = call ptr @PyNumber_Index(ptr %object)
  %no.integer = icmp eq ptr %integer, null
  br i1 %no.integer, label %array, label %low
low:
  %low.bits = call i64 @PyLong_AsUnsignedLongLongMask(ptr %integer)
  store i64 %low.bits, ptr %slot, align 8
  %sixty.four = call ptr @PyLong_FromLong(i64 64)
  %no.number = icmp eq ptr %sixty.four, null
  br i1 %no.number, label %release.integer, label %shift
shift:
  %rest = call ptr @PyNumber_Rshift(ptr %integer, ptr %sixty.four)
  call void @Py_DecRef(ptr %sixty.four)
  br label %release.integer
release.integer:
  %high = phi ptr [null, %low], [%rest, %shift]
  call void @Py_DecRef(ptr %integer)
  %no.high = icmp eq ptr %high, null
  br i1 %no.high, label %failed, label %convert
convert:
  %status = call i32 @unbox_other(ptr %high, i32 <RawType.I64>, ptr %upper, i64 0)
  call void @Py_DecRef(ptr %high)
  ret i32 %status
array:
  call void @PyErr_Clear()
  br label %bytes
bytes:
  %got = call i32 @PyObject_GetBuffer(ptr %object, ptr %buffer, i32 0)
  %no.buffer = icmp ne i32 %got, 0
  br i1 %no.buffer, label %failed, label %measure
measure:
  %length = load.field i64, ptr %buffer, 16
  %is.vector = icmp eq i64 %length, 16
  br i1 %is.vector, label %copy, label %wrong.length
copy:
  %data = load ptr, ptr %buffer
  %bits = load i128, ptr %data, align 1
  store i128 %bits, ptr %slot, align 8
  call void @PyBuffer_Release(ptr %buffer)
  ret i32 0
wrong.length:
  call void @PyBuffer_Release(ptr %buffer)
  %value.error = load ptr, ptr @PyExc_ValueError
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %value.error, ptr @text.v128_length, i64 %length)
  ret i32 2
failed:
  ret i32 1
}

define internal i32 @unbox_reference(ptr %object, i32 %key, ptr %slot, i64 %store) noinline nounwind {
  %hook = load ptr, ptr @hook_unbox_ref
  %key.64 = zext i32 %key to i64
  %result = call ptr @call_hook(ptr %hook, i64 %store, i64 %key.64, ptr %object)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %error, label %convert
convert:
  %word = call i64 @PyLong_AsUnsignedLong(ptr %result)
  call void @Py_DecRef(ptr %result)
  store i64 %word, ptr %slot
  %suspect = icmp eq i64 %word, -1
  br i1 %suspect, label %check, label %ok
check:
  %occurred = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %occurred, null
  br i1 %fine, label %ok, label %error
ok:
  ret i32 0
error:
  ret i32 1
}

; hook(store id, number, object), for both reference hooks; null with an exception set.
define internal ptr @call_hook(ptr %hook, i64 %store, i64 %number, ptr %object) noinline nounwind {
  %arguments = alloca [4 x ptr]
  %missing = icmp eq ptr %hook, null
  br i1 %missing, label %no.hook, label %make
no.hook:
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.no_hook)
  ret ptr null
make:
  %store.object = call ptr @PyLong_FromUnsignedLong(i64 %store)
  %number.object = call ptr @PyLong_FromUnsignedLong(i64 %number)
  %first = getelementptr ptr, ptr %arguments, i64 1
  store ptr %store.object, ptr %first
  %second = getelementptr ptr, ptr %arguments, i64 2
  store ptr %number.object, ptr %second
  %third = getelementptr ptr, ptr %arguments, i64 3
  store ptr %object, ptr %third
  %no.store = icmp eq ptr %store.object, null
  %no.number = icmp eq ptr %number.object, null
  %memory.error = or i1 %no.store, %no.number
  br i1 %memory.error, label %release, label %call
call:
  %called = call ptr @PyObject_Vectorcall(ptr %hook, ptr %first, i64 -9223372036854775805, ptr null)
  br label %release
release:
  %result = phi ptr [null, %make], [%called, %call]
  call void @Py_DecRef(ptr %store.object)
  call void @Py_DecRef(ptr %number.object)
  ret ptr %result
}

; Slot to object; null with an exception set.
define internal ptr @box(i32 %key, ptr %slot, i64 %store) alwaysinline nounwind {
  %is.i32 = icmp eq i32 %key, <ValType.I32>
  br i1 %is.i32, label %i32, label %others, !prof !likely
i32:
  %word = load i32, ptr %slot
  %object = call ptr @box_i32(i32 %word)
  ret ptr %object
others:
  %object2 = call ptr @box_other(i32 %key, ptr %slot, i64 %store)
  ret ptr %object2
}

define internal ptr @box_other(i32 %key, ptr %slot, i64 %store) noinline nounwind {
  switch i32 %key, label %unsupported [
    i32 <ValType.I64>, label %i64
    i32 <ValType.F64>, label %f64
    i32 <ValType.F32>, label %f32
    i32 <ValType.FUNCREF>, label %funcref
    i32 <ValType.EXTERNREF>, label %externref
    i32 <ValType.V128>, label %v128
    i32 <RawType.V128>, label %raw128
    i32 <RawType.I32>, label %raw32
    i32 <RawType.F32>, label %raw32
    i32 <RawType.EXTERNREF>, label %raw32
    i32 <RawType.I64>, label %raw64
    i32 <RawType.F64>, label %raw64
    i32 <RawType.FUNCREF>, label %raw64
  ]
i64:
  %long = load i64, ptr %slot
  %long.object = call ptr @PyLong_FromLong(i64 %long)
  ret ptr %long.object
f64:
  %double = load double, ptr %slot
  %double.object = call ptr @PyFloat_FromDouble(double %double)
  ret ptr %double.object
f32:
  %float = load float, ptr %slot
  %widened = fpext float %float to double
  %float.object = call ptr @PyFloat_FromDouble(double %widened)
  ret ptr %float.object
raw32:
  %word = load i32, ptr %slot
  %unsigned = zext i32 %word to i64
  %word.object = call ptr @PyLong_FromUnsignedLong(i64 %unsigned)
  ret ptr %word.object
raw64:
  %bits = load i64, ptr %slot
  %bits.object = call ptr @PyLong_FromUnsignedLong(i64 %bits)
  ret ptr %bits.object
funcref:
  %address = load i64, ptr %slot
  br label %reference
externref:
  %handle32 = load i32, ptr %slot
  %handle = zext i32 %handle32 to i64
  br label %reference
reference:
  %reference.word = phi i64 [%address, %funcref], [%handle, %externref]
  %is.null = icmp eq i64 %reference.word, 0
  br i1 %is.null, label %null, label %hook
null:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
hook:
  %number = call ptr @PyLong_FromUnsignedLong(i64 %reference.word)
  %no.number = icmp eq ptr %number, null
  br i1 %no.number, label %failed, label %call
call:
  %hook.object = load ptr, ptr @hook_box_ref
  %key.64 = zext i32 %key to i64
  %boxed = call ptr @call_hook(ptr %hook.object, i64 %store, i64 %key.64, ptr %number)
  call void @Py_DecRef(ptr %number)
  ret ptr %boxed
v128:
  %bytes = call ptr @PyBytes_FromStringAndSize(ptr %slot, i64 16)
  ret ptr %bytes
raw128:
  %integer = call ptr @box_raw_v128(ptr %slot)
  ret ptr %integer
unsupported:
  unreachable
failed:
  ret ptr null
}

define internal ptr @box_raw_v128(ptr %slot) noinline nounwind {
  %low = load i64, ptr %slot, align 8
  %high = load.field i64, ptr %slot, 8
  %low.object = call ptr @PyLong_FromUnsignedLong(i64 %low)
  %no.low = icmp eq ptr %low.object, null
  %is.small = icmp eq i64 %high, 0
  %done = or i1 %no.low, %is.small
  br i1 %done, label %return.low, label %make.high
return.low:
  ret ptr %low.object
make.high:
  %high.object = call ptr @PyLong_FromUnsignedLong(i64 %high)
  %sixty.four = call ptr @PyLong_FromLong(i64 64)
  %no.high = icmp eq ptr %high.object, null
  %no.number = icmp eq ptr %sixty.four, null
  %missing = or i1 %no.high, %no.number
  br i1 %missing, label %release, label %shift
shift:
  %shifted = call ptr @PyNumber_Lshift(ptr %high.object, ptr %sixty.four)
  %no.shifted = icmp eq ptr %shifted, null
  br i1 %no.shifted, label %release, label %join
join:
  %whole = call ptr @PyNumber_Or(ptr %shifted, ptr %low.object)
  call void @Py_DecRef(ptr %shifted)
  br label %release
release:
  %result = phi ptr [null, %make.high], [null, %shift], [%whole, %join]
  call void @Py_DecRef(ptr %low.object)
  call void @Py_DecRef(ptr %high.object)
  call void @Py_DecRef(ptr %sixty.four)
  ret ptr %result
}

; After a failed unbox: an OverflowError or TypeError that names function, position and type. An exception that user
; code raised (from __index__, __float__ or a hook), other than those kinds, stays as it is.
define internal void @explain(ptr %name, ptr %what, i64 %position, i32 %key, ptr %object,
    i32 %status) cold noinline nounwind {
  %old.type = alloca ptr
  %old.exception = alloca ptr
  %old.traceback = alloca ptr
  %has.name = icmp ne ptr %name, null
  %shown.name = select i1 %has.name, ptr %name, ptr @text.anonymous
  %type.name = call ptr @type_name(i32 %key)
  %overflow.error = load ptr, ptr @PyExc_OverflowError
  %type.error = load ptr, ptr @PyExc_TypeError
  %final = icmp eq i32 %status, 2
  br i1 %final, label %keep, label %look
look:
  %occurred = call ptr @PyErr_Occurred()
  %nothing = icmp eq ptr %occurred, null
  br i1 %nothing, label %range, label %set
set:
  %is.overflow = call i32 @PyErr_ExceptionMatches(ptr %overflow.error)
  %overflowed = icmp ne i32 %is.overflow, 0
  br i1 %overflowed, label %range, label %maybe.type
maybe.type:
  %is.type = call i32 @PyErr_ExceptionMatches(ptr %type.error)
  %mismatch = icmp ne i32 %is.type, 0
  br i1 %mismatch, label %convertible, label %keep
convertible:
  ; An object that has the conversion raised the TypeError itself, which becomes the cause. References have none.
  %is.f32 = icmp eq i32 %key, <ValType.F32>
  %is.f64 = icmp eq i32 %key, <ValType.F64>
  %is.float = or i1 %is.f32, %is.f64
  %is.funcref = icmp eq i32 %key, <ValType.FUNCREF>
  %is.externref = icmp eq i32 %key, <ValType.EXTERNREF>
  %is.reference = or i1 %is.funcref, %is.externref
  %number.method = select i1 %is.float, ptr @text.float_method, ptr @text.index_method
  %method = select i1 %is.reference, ptr @text.no_method, ptr %number.method
  call void @PyErr_Fetch(ptr %old.type, ptr %old.exception, ptr %old.traceback)
  call void @PyErr_NormalizeException(ptr %old.type, ptr %old.exception, ptr %old.traceback)
  %cause.type = load ptr, ptr %old.type
  call void @Py_DecRef(ptr %cause.type)
  %cause = load ptr, ptr %old.exception
  %cause.traceback = load ptr, ptr %old.traceback
  %raised.in.c = icmp eq ptr %cause.traceback, null
  br i1 %raised.in.c, label %look.for.method, label %keep.traceback
keep.traceback:
  call i32 @PyException_SetTraceback(ptr %cause, ptr %cause.traceback)
  call void @Py_DecRef(ptr %cause.traceback)
  br label %look.for.method
look.for.method:
  %found = call i32 @PyObject_HasAttrString(ptr %object, ptr %method)
  %has.method = icmp ne i32 %found, 0
  br i1 %has.method, label %bad.method, label %not.convertible
bad.method:
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr @text.bad_method, ptr %shown.name, ptr %what,
      i64 %position, ptr %method, ptr %type.name)
  call void @PyErr_Fetch(ptr %old.type, ptr %old.exception, ptr %old.traceback)
  call void @PyErr_NormalizeException(ptr %old.type, ptr %old.exception, ptr %old.traceback)
  %new.type = load ptr, ptr %old.type
  %new.exception = load ptr, ptr %old.exception
  %new.traceback = load ptr, ptr %old.traceback
  call void @PyException_SetCause(ptr %new.exception, ptr %cause)
  call void @PyErr_Restore(ptr %new.type, ptr %new.exception, ptr %new.traceback)
  ret void
not.convertible:
  call void @Py_DecRef(ptr %cause)
  br label %wrong.type
wrong.type:
  %type = call ptr @PyObject_Type(ptr %object)
  %object.type.name = call ptr @PyType_GetName(ptr %type)
  call void @Py_DecRef(ptr %type)
  %unknown = icmp eq ptr %object.type.name, null
  br i1 %unknown, label %keep, label %format
format:
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %type.error, ptr @text.expected, ptr %shown.name, ptr %what,
      i64 %position, ptr %type.name, ptr %object.type.name)
  call void @Py_DecRef(ptr %object.type.name)
  ret void
range:
  call void @PyErr_Clear()
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %overflow.error, ptr @text.range, ptr %shown.name, ptr %what,
      i64 %position, ptr %type.name)
  ret void
keep:
  ret void
}
"""

TEXTS: Final = {
    "anonymous": "function",
    "argument": "argument",
    "result": "result",
    "expected": "%s() %s %zd: expected %s, got %U",
    "range": "%s() %s %zd: out of range for %s",
    "bad_method": "%s() %s %zd: %s of the object does not give a number for %s",
    "float_method": "__float__",
    "index_method": "__index__",
    "no_method": "",
    "v128_length": "a v128 has 16 bytes, got %zd",
    "no_hook": "the runtime has set no hook for this event",
}


def c_string(symbol: str, text: str) -> str:
    """A private constant holding `text` and a null byte."""
    data = text.encode() + b"\0"
    escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02x}" for b in data)
    return f'@{symbol} = private unnamed_addr constant [{len(data)} x i8] c"{escaped}"\n'


def _type_names() -> str:
    """`type_name`: value type to text, a switch over the one table in `syntax/types.py`."""
    out = ["define internal ptr @type_name(i32 %key) cold noinline nounwind {", "  %type = and i32 %key, 255"]
    out.append("  switch i32 %type, label %unknown [")
    out.extend(f"    i32 {t}, label %t{t}" for t in VALUE_TYPES)
    out.append("  ]")
    out.extend(f"t{t}:\n  ret ptr @text.type.{t}" for t in VALUE_TYPES)
    out.append("unknown:\n  ret ptr @text.type.unknown\n}\n")
    strings = [c_string(f"text.type.{t}", VALUE_TYPES[ValType(t)]) for t in VALUE_TYPES]
    return "".join(strings) + c_string("text.type.unknown", "an unknown type") + "\n".join(out)


def ir() -> str:
    """The conversions and their texts."""
    return expand(IR) + _type_names() + "".join(c_string(f"text.{k}", v) for k, v in TEXTS.items())
