"""Walking the rbp chain: from a fault, a trap or a failed host call to the entry frame of the innermost activation, and
on through the outer activations of the store for the backtrace. Called by the gates on the host stack and by the
signal handler on its own; it calls nothing and writes only to the trap record.

The chain is sound at every program counter where a walk may begin (rule 7 of `compiler/environ.py`): wasm functions and
trampolines begin with `push rbp; mov rbp, rsp`, and a guest cannot write to its stack. Before those two
instructions ran (only an interrupt can come there), rbp still belongs to the caller, so one frame of the backtrace is
missing and nothing else. The caller may be `enter` itself, whose frame is recognised by its return address,
the only one inside the gates' text besides `enter_ret`.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.emission import expand

__all__ = ["ir"]

IR: Final = """
define internal i1 @in_gates(i64 %address) alwaysinline {
  %from.start = sub i64 %address, ptrtoint (ptr @text_start to i64)
  %size = sub i64 ptrtoint (ptr @text_end to i64), ptrtoint (ptr @text_start to i64)
  %inside = icmp ult i64 %from.start, %size
  ret i1 %inside
}

; The rbp of the entry frame below which the frame `fp` runs.
define hidden i64 @find_entry(i64 %start) noinline nounwind {
  br label %frame
frame:
  %fp = phi i64 [%start, %0], [%next, %further]
  %pointer = inttoptr i64 %fp to ptr
  %next = load i64, ptr %pointer
  %return = load.field i64, ptr %pointer, 8
  %first = icmp eq i64 %return, ptrtoint (ptr @enter_ret to i64)
  br i1 %first, label %found, label %other
other:
  %itself = call i1 @in_gates(i64 %return)
  br i1 %itself, label %is.entry, label %further
further:
  br label %frame
found:
  ret i64 %next
is.entry:
  ret i64 %fp
}

; Writes look-up addresses from the frame `start` outwards into `record`. `pc`, if not 0, comes first.
define hidden void @collect(ptr %record, i64 %pc, i64 %start) noinline nounwind {
  %pcs = getelementptr i8, ptr %record, i64 <TrapRecord.PCS>
  store i64 %pc, ptr %pcs
  %has.pc = icmp ne i64 %pc, 0
  %n0 = zext i1 %has.pc to i64
  br label %frame
frame:
  %fp = phi i64 [%start, %0], [%next, %stored], [%outer, %entry]
  %n = phi i64 [%n0, %0], [%n.next, %stored], [%n, %entry]
  %none = icmp eq i64 %fp, 0
  br i1 %none, label %done, label %look
look:
  %pointer = inttoptr i64 %fp to ptr
  %next = load i64, ptr %pointer
  %return = load.field i64, ptr %pointer, 8
  %first = icmp eq i64 %return, ptrtoint (ptr @enter_ret to i64)
  br i1 %first, label %entry, label %other
other:
  %itself = call i1 @in_gates(i64 %return)
  br i1 %itself, label %entry, label %wasm
wasm:
  %n.next = add i64 %n, 1
  %room = icmp ult i64 %n, <Environ.MAX_BACKTRACE>
  br i1 %room, label %keep, label %stored
keep:
  %slot = getelementptr i64, ptr %pcs, i64 %n
  %inside.call = sub i64 %return, 1
  store i64 %inside.call, ptr %slot
  br label %stored
stored:
  br label %frame
entry:
  %entry.fp = phi i64 [%next, %look], [%fp, %other]
  %entry.pointer = inttoptr i64 %entry.fp to ptr
  %outer = load.field i64, ptr %entry.pointer, <EntryFrame.LAST_EXIT_FP>
  br label %frame
done:
  %stored.count = call i64 @llvm.umin.i64(i64 %n, i64 <Environ.MAX_BACKTRACE>)
  store.field i64 %stored.count, ptr %record, <TrapRecord.STORED>
  store.field i64 %n, ptr %record, <TrapRecord.TOTAL>
  ret void
}
declare i64 @llvm.umin.i64(i64, i64)

; Fills the record of the activation to which the frame `fp` belongs and returns its entry frame.
define hidden i64 @unwind(i64 %kind, i64 %address, i64 %pc, i64 %fp) nounwind {
  %entry = call i64 @find_entry(i64 %fp)
  %entry.pointer = inttoptr i64 %entry to ptr
  %record = load.field ptr, ptr %entry.pointer, <EntryFrame.RECORD>
  store.field i64 %kind, ptr %record, <TrapRecord.KIND>
  store.field i64 %address, ptr %record, <TrapRecord.ADDRESS>
  call void @collect(ptr %record, i64 %pc, i64 %fp)
  ret i64 %entry
}

; The same where no frame of the activation exists yet.
define hidden void @record_at_entry(i64 %entry, i64 %kind, i64 %address) nounwind {
  %entry.pointer = inttoptr i64 %entry to ptr
  %record = load.field ptr, ptr %entry.pointer, <EntryFrame.RECORD>
  store.field i64 %kind, ptr %record, <TrapRecord.KIND>
  store.field i64 %address, ptr %record, <TrapRecord.ADDRESS>
  %outer = load.field i64, ptr %entry.pointer, <EntryFrame.LAST_EXIT_FP>
  call void @collect(ptr %record, i64 0, i64 %outer)
  ret void
}
"""


def ir() -> str:
    """The frame walkers."""
    return expand(IR)
