"""Python exceptions for what ended an activation: traps, which are made here, and exceptions of host functions, which
pass with a word to the hook of the runtime. `calls.py` and `async_calls.py` call `raise_outcome`, with the GIL held.

A trap is made without a line of Python: its class and the tuple of arguments of its kind are known since the first one,
and all else is the bytes of the trap record (`trap_record.py`) with the object that OWNER of the store context names.
Between them, the kernel's way to the fault handler and the evaluation of Python code evict each other's code from the
processor's caches, so that every line of Python here costs more than it takes by itself.

THREAT: a fault of an instruction that may not fault means that compiled code computed a wrong address. So the trap
table of the image is asked (hook_on_fault, which raises then) before a fault is a trap, and `known_faults` remembers
only what it has answered. Whoever unregisters code empties it, since other code may get the addresses.
"""

from __future__ import annotations

from wasmforge.runtime.native.boxing import c_string
from wasmforge.runtime.native.emission import expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["ir"]

IR: Final = """
@trap_class = hidden global ptr null       ; PyObject *, as are the next two
@trap_attribute = hidden global ptr null   ; name of the attribute that takes (owner, record)
@trap_arguments = hidden global [<Environ.TRAP_KINDS> x ptr] zeroinitializer   ; a tuple a kind
@trap_new = hidden global ptr null         ; tp_new of the class
; One place a hash of a program counter: {pc, kind}. All accesses hold the GIL.
@known_faults = hidden global [<Environ.KNOWN_FAULTS> x {i64, i64}] zeroinitializer

; 1: a trap, no exception is set. 2: an exception is set; on_exception sees it and it goes on.
define internal void @raise_outcome(ptr %context, ptr %record, i32 %outcome) cold noinline nounwind {
  %is.trap = icmp eq i32 %outcome, 1
  br i1 %is.trap, label %trap, label %exceptional
trap:
  call void @raise_trap(ptr %context, ptr %record)
  ret void
exceptional:
  call void @pass_exception(ptr %context, ptr %record)
  ret void
}

define internal void @raise_trap(ptr %context, ptr %record) noinline nounwind {
  ; The owner first: what is allocated below may start a collection that frees the store.
  %named = load.field ptr, ptr %context, <StoreContext.OWNER>
  %nobody = icmp eq ptr %named, null
  %owner = select i1 %nobody, ptr @_Py_NoneStruct, ptr %named
  call void @Py_IncRef(ptr %owner)
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  store.field i64 %store, ptr %record, <TrapRecord.STORE>
  store.field i64 0, ptr %record, <TrapRecord.BASE>
  store.field i64 0, ptr %record, <TrapRecord.LENGTH>
  %cause = load.field i64, ptr %record, <TrapRecord.KIND>
  %address = load.field i64, ptr %record, <TrapRecord.ADDRESS>
  %of.memory = icmp eq i64 %cause, <TrapKind.MEMORY_OUT_OF_BOUNDS>
  %faulted = icmp ne i64 %address, 0
  %is.fault = and i1 %of.memory, %faulted
  br i1 %is.fault, label %fault, label %known
fault:
  call void @describe_memory(ptr %record, i64 %address)
  %means = call i64 @kind_of_fault(ptr %record)
  %no.trap = icmp slt i64 %means, 0
  br i1 %no.trap, label %failed, label %known
known:
  ; The record is complete now but for the slot, which has served, and after a call is a word of the host's stack.
  %kind = phi i64 [%cause, %0], [%means, %fault]
  store.field i64 %kind, ptr %record, <TrapRecord.KIND>
  store.field i64 0, ptr %record, <TrapRecord.SLOT>
  %class = load ptr, ptr @trap_class
  %is.first = icmp eq ptr %class, null
  br i1 %is.first, label %first, label %make, !prof !unlikely
first:
  %ready = call i1 @prepare_traps()
  br i1 %ready, label %make, label %failed
make:
  %in.table = icmp ult i64 %kind, <Environ.TRAP_KINDS>
  br i1 %in.table, label %new, label %unknown, !prof !likely
unknown:
  %system.error = load ptr, ptr @PyExc_SystemError
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %system.error, ptr @text.unknown_trap, i64 %kind)
  br label %failed
new:
  %the.class = load ptr, ptr @trap_class
  %arguments.at = getelementptr ptr, ptr @trap_arguments, i64 %kind
  %arguments = load ptr, ptr %arguments.at
  %constructor = load ptr, ptr @trap_new
  %exception = call ptr %constructor(ptr %the.class, ptr %arguments, ptr null)
  %no.exception = icmp eq ptr %exception, null
  br i1 %no.exception, label %failed, label %facts
facts:
  %pair = call ptr @PyTuple_New(i64 2)
  %no.pair = icmp eq ptr %pair, null
  br i1 %no.pair, label %drop, label %bytes
bytes:
  call i32 @PyTuple_SetItem(ptr %pair, i64 0, ptr %owner)      ; takes the reference
  %stored = load.field i64, ptr %record, <TrapRecord.STORED>
  %stored.8 = shl i64 %stored, 3
  %size = add i64 %stored.8, <TrapRecord.PCS>
  %data = call ptr @PyBytes_FromStringAndSize(ptr %record, i64 %size)
  %no.data = icmp eq ptr %data, null
  br i1 %no.data, label %drop.pair, label %attach
attach:
  call i32 @PyTuple_SetItem(ptr %pair, i64 1, ptr %data)
  %attribute = load ptr, ptr @trap_attribute
  %status = call i32 @PyObject_SetAttr(ptr %exception, ptr %attribute, ptr %pair)
  call void @Py_DecRef(ptr %pair)
  %attached = icmp eq i32 %status, 0
  br i1 %attached, label %set, label %drop.exception
set:
  call void @PyErr_SetObject(ptr %the.class, ptr %exception)
  br label %drop.exception
drop.exception:
  call void @Py_DecRef(ptr %exception)
  ret void
drop.pair:
  call void @Py_DecRef(ptr %pair)
  call void @Py_DecRef(ptr %exception)
  ret void
drop:
  call void @Py_DecRef(ptr %exception)
  br label %failed
failed:
  call void @Py_DecRef(ptr %owner)
  ret void
}

; Notes base and length of the memory that was missed: now, because it may have grown when somebody looks. While the GIL
; was given up, the slot may have become another memory's.
define internal void @describe_memory(ptr %record, i64 %address) noinline nounwind {
  %slot = load.field i64, ptr %record, <TrapRecord.SLOT>
  %table = load ptr, ptr @memory_ranges
  %is.slot = icmp ult i64 %slot, <RangeTable.CAPACITY>
  br i1 %is.slot, label %look, label %done
look:
  %slot.16 = shl i64 %slot, 4
  %range.offset = add i64 %slot.16, <RangeTable.RANGES>
  %range = getelementptr i8, ptr %table, i64 %range.offset
  %start = load i64, ptr %range
  %end = load.field i64, ptr %range, 8
  %not.below = icmp uge i64 %address, %start
  %below.end = icmp ult i64 %address, %end
  %inside = and i1 %not.below, %below.end
  br i1 %inside, label %ask, label %done
ask:
  %slot.8 = shl i64 %slot, 3
  %definition.offset = add i64 %slot.8, <RangeTable.DEFINITIONS>
  %definition.at = getelementptr i8, ptr %table, i64 %definition.offset
  %definition = load ptr, ptr %definition.at
  %none = icmp eq ptr %definition, null
  br i1 %none, label %done, label %note
note:
  %base = load.field i64, ptr %definition, <VMMemoryDefinition.BASE>
  %length = load.field i64, ptr %definition, <VMMemoryDefinition.CURRENT_LENGTH>
  store.field i64 %base, ptr %record, <TrapRecord.BASE>
  store.field i64 %length, ptr %record, <TrapRecord.LENGTH>
  br label %done
done:
  ret void
}

; The trap that a fault at the record's first program counter stands for; -1 with an exception set.
define internal i64 @kind_of_fault(ptr %record) noinline nounwind {
  %pc = load.field i64, ptr %record, <TrapRecord.PCS>
  %mixed = mul i64 %pc, -7046029254386353131      ; 2**64 divided by the golden ratio: the upper bits depend on all
  %hash = lshr i64 %mixed, <Environ.KNOWN_FAULTS_SHIFT>
  %place = getelementptr {i64, i64}, ptr @known_faults, i64 %hash
  %place.kind = getelementptr i8, ptr %place, i64 8
  %known.pc = load i64, ptr %place
  %is.known = icmp eq i64 %known.pc, %pc
  br i1 %is.known, label %known, label %ask, !prof !likely
known:
  %known.kind = load i64, ptr %place.kind
  ret i64 %known.kind
ask:
  %hook = load ptr, ptr @hook_on_fault
  %no.hook = icmp eq ptr %hook, null
  br i1 %no.hook, label %missing, label %call
missing:
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.no_hook)
  ret i64 -1
call:
  %answer = call ptr @ask(ptr %hook, i64 %pc)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %failed, label %convert
convert:
  %kind = call i64 @PyLong_AsLong(ptr %answer)
  call void @Py_DecRef(ptr %answer)
  %bad = icmp slt i64 %kind, 0
  br i1 %bad, label %refuse, label %remember
remember:
  ; Code that runs now is not unregistered, so the answer still holds.
  store i64 %kind, ptr %place.kind
  store i64 %pc, ptr %place
  ret i64 %kind
refuse:
  %error = call ptr @PyErr_Occurred()
  %silent = icmp eq ptr %error, null
  br i1 %silent, label %explain, label %failed
explain:
  %system.error = load ptr, ptr @PyExc_SystemError
  call ptr (ptr, ptr, ...) @PyErr_Format(ptr %system.error, ptr @text.unknown_trap, i64 %kind)
  br label %failed
failed:
  ret i64 -1
}

; Has the runtime tell the class of traps. False with an exception set.
define internal i1 @prepare_traps() cold noinline nounwind {
  %hook = load ptr, ptr @hook_on_first_trap
  %no.hook = icmp eq ptr %hook, null
  br i1 %no.hook, label %silent, label %call
call:
  %result = call ptr @PyObject_Vectorcall(ptr %hook, ptr null, i64 0, ptr null)
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %failed, label %check
check:
  call void @Py_DecRef(ptr %result)
  %class = load ptr, ptr @trap_class
  %still.none = icmp eq ptr %class, null
  br i1 %still.none, label %silent, label %ready
ready:
  ret i1 true
silent:
  %runtime.error = load ptr, ptr @PyExc_RuntimeError
  call void @PyErr_SetString(ptr %runtime.error, ptr @text.no_hook)
  br label %failed
failed:
  ret i1 false
}
"""

PASSING: Final = """
; The program counters of a record as a tuple; null with an exception set.
define internal ptr @record_pcs(ptr %record) noinline nounwind {
  %count = load.field i64, ptr %record, <TrapRecord.STORED>
  %tuple = call ptr @PyTuple_New(i64 %count)
  %no.tuple = icmp eq ptr %tuple, null
  %nothing = icmp eq i64 %count, 0
  %finished = or i1 %no.tuple, %nothing
  br i1 %finished, label %done, label %item
item:
  %i = phi i64 [0, %0], [%i.next, %set]
  %i.byte = mul i64 %i, 8
  %at = add i64 %i.byte, <TrapRecord.PCS>
  %pc = load.field i64, ptr %record, %at
  %object = call ptr @PyLong_FromUnsignedLong(i64 %pc)
  %no.object = icmp eq ptr %object, null
  br i1 %no.object, label %drop, label %set
set:
  call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %object)
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %count
  br i1 %more, label %item, label %done
drop:
  call void @Py_DecRef(ptr %tuple)
  br label %done
done:
  %result = phi ptr [%tuple, %0], [%tuple, %set], [null, %drop]
  ret ptr %result
}

define internal void @pass_exception(ptr %context, ptr %record) noinline nounwind {
  %arguments = alloca [5 x ptr]
  %type = alloca ptr
  %exception = alloca ptr
  %traceback = alloca ptr
  %store = load.field i64, ptr %context, <StoreContext.STORE>
  %stored = load.field i64, ptr %record, <TrapRecord.STORED>
  %total = load.field i64, ptr %record, <TrapRecord.TOTAL>
  %omitted = sub i64 %total, %stored
  %at1 = getelementptr ptr, ptr %arguments, i64 1
  %at2 = getelementptr ptr, ptr %arguments, i64 2
  %at3 = getelementptr ptr, ptr %arguments, i64 3
  %at4 = getelementptr ptr, ptr %arguments, i64 4
  %exception.hook = load ptr, ptr @hook_on_exception
  %no.exception.hook = icmp eq ptr %exception.hook, null
  br i1 %no.exception.hook, label %leave, label %fetch
leave:
  ret void
fetch:
  call void @PyErr_Fetch(ptr %type, ptr %exception, ptr %traceback)
  call void @PyErr_NormalizeException(ptr %type, ptr %exception, ptr %traceback)
  %e = load ptr, ptr %exception
  %t = load ptr, ptr %traceback
  %no.traceback = icmp eq ptr %t, null
  br i1 %no.traceback, label %exception.arguments, label %exception.traceback
exception.traceback:
  call i32 @PyException_SetTraceback(ptr %e, ptr %t)
  br label %exception.arguments
exception.arguments:
  %x1 = call ptr @PyLong_FromUnsignedLong(i64 %store)
  store ptr %x1, ptr %at1
  store ptr %e, ptr %at2
  %x3 = call ptr @record_pcs(ptr %record)
  store ptr %x3, ptr %at3
  %x4 = call ptr @PyLong_FromUnsignedLong(i64 %omitted)
  store ptr %x4, ptr %at4
  %no.memory = call ptr @PyErr_Occurred()
  %whole = icmp eq ptr %no.memory, null
  br i1 %whole, label %exception.vectorcall, label %exception.failed
exception.vectorcall:
  %exception.result = call ptr @PyObject_Vectorcall(ptr %exception.hook, ptr %at1, i64 -9223372036854775804, ptr null)
  %hook.raised = icmp eq ptr %exception.result, null
  br i1 %hook.raised, label %exception.failed, label %exception.back
exception.back:
  call void @Py_DecRef(ptr %exception.result)
  call void @Py_DecRef(ptr %x1)
  call void @Py_DecRef(ptr %x3)
  call void @Py_DecRef(ptr %x4)
  %back.type = load ptr, ptr %type
  %back.exception = load ptr, ptr %exception
  %back.traceback = load ptr, ptr %traceback
  call void @PyErr_Restore(ptr %back.type, ptr %back.exception, ptr %back.traceback)
  ret void
exception.failed:
  ; The hook's own exception (say, a KeyboardInterrupt) wins, as in an except clause. Its context is the first one.
  call void @Py_DecRef(ptr %x1)
  call void @Py_DecRef(ptr %x3)
  call void @Py_DecRef(ptr %x4)
  %old.type = load ptr, ptr %type
  call void @Py_DecRef(ptr %old.type)
  %old.traceback = load ptr, ptr %traceback
  call void @Py_DecRef(ptr %old.traceback)
  call void @PyErr_Fetch(ptr %type, ptr %exception, ptr %traceback)
  call void @PyErr_NormalizeException(ptr %type, ptr %exception, ptr %traceback)
  %new.type = load ptr, ptr %type
  %new.exception = load ptr, ptr %exception
  %new.traceback = load ptr, ptr %traceback
  %same.exception = icmp eq ptr %new.exception, %e
  br i1 %same.exception, label %drop.old, label %link
drop.old:
  call void @Py_DecRef(ptr %e)
  br label %raise.new
link:
  call void @PyException_SetContext(ptr %new.exception, ptr %e)
  br label %raise.new
raise.new:
  call void @PyErr_Restore(ptr %new.type, ptr %new.exception, ptr %new.traceback)
  ret void
}
"""

TEXTS: Final = {
    "unknown_trap": "wasmforge: compiled code trapped with the unknown code %zd",
}


def ir() -> str:
    """What raises."""
    return expand(IR + PASSING) + "".join(c_string(f"text.{k}", v) for k, v in TEXTS.items())
