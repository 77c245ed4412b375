"""Functions of WASI in machine code: the ones that programs call millions of times, for the cases that need nothing of
Python. `wasi/native.py` fills the records that they read; `exits.py`'s gates around them are the ones of host calls.

A stub looks at everything first and then does one thing. Whatever is unusual in the slightest (a pointer that does not
fit, a descriptor that Python serves, an error of the host) is not handled here: the stub has changed nothing by then,
answers "ask Python", and the same call goes the ordinary way, which knows what to answer.

THREAT: pointers, lengths and descriptor numbers are the guest's. Each is compared as an unsigned 64-bit number with the
current length of the memory, or the size of the table, here, before it is used; each word of guest memory is read once,
since another thread may change it; what the kernel gets are host addresses within the memory, and host descriptors
from a table that only Python writes. A record whose caller is another instance is not used: it would have its memory.
"""

from __future__ import annotations

from typing import Final

from wasmforge.runtime.native.emission import assembly, expand
from wasmforge.runtime.native.exits import LEAVE

__all__ = ["STUBS", "ir"]

STUBS: Final = (
    "clock_time_get",
    "random_get",
    "fd_read",
    "fd_write",
    "fd_pread",
    "fd_pwrite",
    "fd_seek",
    "fd_tell",
)
"""The functions that have a stub, by their name in WASI. The array call of one is `wasi_stub_NAME`, its body
`wasi_NAME_body`: i32 (host, caller, values), 0 when it is done, 1 for "ask Python"."""

# The frame is that of a host call; the body runs on the thread's stack and cannot raise, so nothing has to be published
# before it turns out that Python is needed.
GATE: Final = """
.hidden wasi_stub_{name}
.globl wasi_stub_{name}
.p2align 4
wasi_stub_{name}:        ; C convention: rdi HostFuncContext, rsi caller's vmctx, rdx values, rcx count
  mov r11, [rdi + <HostFuncContext.STORE_CONTEXT>]
{LEAVE}
  lea rsp, [rbp + <GateFrame.LOW>]
  push rdi
  push rsi
  push rdx
  push r11
  call wasi_{name}_body
  pop rcx
  pop rdx
  pop rsi
  pop rdi
  test eax, eax
  je gate_return
  mov r10, [rbp + <GateFrame.WASM_SP>]
  sub r10, 8
  mov [rcx + <StoreContext.WASM_SP>], r10
  mov [rcx + <StoreContext.LAST_EXIT_FP>], rbp
  call host_call
  jmp gate_check
"""

IR: Final = """
; The record of the guest, or null when it is not that of the calling instance.
define internal ptr @wasi_guest(ptr %host, ptr %caller) alwaysinline nounwind {
  %cell = load.field ptr, ptr %host, <HostFuncContext.NATIVE>
  %known = load.field ptr, ptr %cell, <WasiCell.CALLER>
  %same = icmp eq ptr %known, %caller
  %guest = load.field ptr, ptr %cell, <WasiCell.GUEST>
  %result = select i1 %same, ptr %guest, ptr null
  ret ptr %result
}

; The host address of `size` bytes at guest address `at`, aligned to `mask` + 1; null when they are not all in memory.
define internal ptr @wasi_address(ptr %host, i64 %at, i64 %size, i64 %mask) alwaysinline nounwind {
  %cell = load.field ptr, ptr %host, <HostFuncContext.NATIVE>
  %definition = load.field ptr, ptr %cell, <WasiCell.MEMORY>
  %base = load.field ptr, ptr %definition, <VMMemoryDefinition.BASE>
  %length.at = getelementptr i8, ptr %definition, i64 <VMMemoryDefinition.CURRENT_LENGTH>
  %length = load atomic i64, ptr %length.at monotonic, align 8
  ; `at` and `size` are below 2**33, so the sum does not wrap.
  %end = add i64 %at, %size
  %inside = icmp ule i64 %end, %length
  %low = and i64 %at, %mask
  %aligned = icmp eq i64 %low, 0
  %good = and i1 %inside, %aligned
  %address = getelementptr i8, ptr %base, i64 %at
  %result = select i1 %good, ptr %address, ptr null
  ret ptr %result
}

define internal i64 @wasi_u32(ptr %values, i64 %index) alwaysinline nounwind {
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %index
  %word = load i32, ptr %slot
  %wide = zext i32 %word to i64
  ret i64 %wide
}

define internal i64 @wasi_u64(ptr %values, i64 %index) alwaysinline nounwind {
  %slot = getelementptr [<Environ.VALRAW_SIZE> x i8], ptr %values, i64 %index
  %word = load i64, ptr %slot
  ret i64 %word
}

; What may be done with a descriptor: the flags of WasiGuest and the host's descriptor above them; 0 for all that Python
; serves.
define internal i64 @wasi_descriptor(ptr %guest, i64 %number) alwaysinline nounwind {
  %within = icmp ult i64 %number, <WasiGuest.DESCRIPTORS>
  %index = select i1 %within, i64 %number, i64 0
  %table = getelementptr i8, ptr %guest, i64 <WasiGuest.TABLE>
  %at = getelementptr i64, ptr %table, i64 %index
  %entry = load i64, ptr %at
  %result = select i1 %within, i64 %entry, i64 0
  ret i64 %result
}

; The GIL is given up around every system call that may wait for a disk: 0 when it was not held.
define internal ptr @wasi_leave_python(ptr %host) alwaysinline nounwind {
  %context = load.field ptr, ptr %host, <HostFuncContext.STORE_CONTEXT>
  %given = load.field ptr, ptr %context, <StoreContext.THREAD_STATE>
  %held = icmp eq ptr %given, null
  br i1 %held, label %give, label %done, !prof !likely
give:
  %state = call ptr @PyEval_SaveThread()
  br label %done
done:
  %result = phi ptr [%state, %give], [null, %0]
  ret ptr %result
}

define internal void @wasi_enter_python(ptr %state) alwaysinline nounwind {
  %gave = icmp ne ptr %state, null
  br i1 %gave, label %take, label %done, !prof !likely
take:
  call void @PyEval_RestoreThread(ptr %state)
  br label %done
done:
  ret void
}

define hidden i32 @wasi_clock_time_get_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %time = alloca [16 x i8], align 8
  %guest = call ptr @wasi_guest(ptr %host, ptr %caller)
  %unknown = icmp eq ptr %guest, null
  br i1 %unknown, label %python, label %look
look:
  %native = load.field i64, ptr %guest, <WasiGuest.CLOCKS>
  %own = icmp eq i64 %native, 0
  br i1 %own, label %python, label %which
which:
  %clock = call i64 @wasi_u32(ptr %values, i64 0)
  %exists = icmp ule i64 %clock, 1                   ; CLOCK_REALTIME and CLOCK_MONOTONIC are Linux's numbers too
  br i1 %exists, label %where, label %python
where:
  %at = call i64 @wasi_u32(ptr %values, i64 2)
  %target = call ptr @wasi_address(ptr %host, i64 %at, i64 8, i64 7)
  %outside = icmp eq ptr %target, null
  br i1 %outside, label %python, label %ask
ask:
  %clock.32 = trunc i64 %clock to i32
  %failed = call i32 @clock_gettime(i32 %clock.32, ptr %time)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %answer, label %python
answer:
  %seconds = load.field i64, ptr %time, 0
  %nanoseconds = load.field i64, ptr %time, 8
  %scaled = mul i64 %seconds, 1000000000
  %now = add i64 %scaled, %nanoseconds
  %start = load.field i64, ptr %guest, <WasiGuest.MONOTONIC_START>
  %since = sub i64 %now, %start
  %monotonic = icmp eq i64 %clock, 1
  %shown = select i1 %monotonic, i64 %since, i64 %now
  store i64 %shown, ptr %target
  store i32 0, ptr %values
  ret i32 0
python:
  ret i32 1
}

define hidden i32 @wasi_random_get_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %guest = call ptr @wasi_guest(ptr %host, ptr %caller)
  %unknown = icmp eq ptr %guest, null
  br i1 %unknown, label %python, label %look
look:
  %native = load.field i64, ptr %guest, <WasiGuest.RANDOM>
  %own = icmp eq i64 %native, 0
  br i1 %own, label %python, label %size
size:
  ; The kernel gives 256 bytes whole, and at once.
  %length = call i64 @wasi_u32(ptr %values, i64 1)
  %small = icmp ule i64 %length, 256
  br i1 %small, label %where, label %python
where:
  %at = call i64 @wasi_u32(ptr %values, i64 0)
  %target = call ptr @wasi_address(ptr %host, i64 %at, i64 %length, i64 0)
  %outside = icmp eq ptr %target, null
  br i1 %outside, label %python, label %ask
ask:
  %got = call i64 @getrandom(ptr %target, i64 %length, i32 0)
  %whole = icmp eq i64 %got, %length
  br i1 %whole, label %done, label %python
done:
  store i32 0, ptr %values
  ret i32 0
python:
  ret i32 1
}

; Checks `count` iovecs at guest address `at` and writes those of the host to `out`. The sum of their lengths, or -1.
define internal i64 @wasi_iovecs(ptr %host, i64 %at, i64 %count, ptr %out) noinline nounwind {
  %few = icmp ule i64 %count, <WasiGuest.MAX_IOVECS>
  br i1 %few, label %records, label %refuse
records:
  %size = shl i64 %count, 3
  %source = call ptr @wasi_address(ptr %host, i64 %at, i64 %size, i64 3)
  %outside = icmp eq ptr %source, null
  br i1 %outside, label %refuse, label %test
test:
  %i = phi i64 [0, %records], [%i.next, %next]
  %total = phi i64 [0, %records], [%total.next, %next]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %done
one:
  %record = getelementptr [8 x i8], ptr %source, i64 %i
  %start.32 = load volatile i32, ptr %record, align 4
  %length.at = getelementptr i8, ptr %record, i64 4
  %length.32 = load volatile i32, ptr %length.at, align 4
  %start = zext i32 %start.32 to i64
  %length = zext i32 %length.32 to i64
  %buffer = call ptr @wasi_address(ptr %host, i64 %start, i64 %length, i64 0)
  %bad = icmp eq ptr %buffer, null
  br i1 %bad, label %refuse, label %next
next:
  %target = getelementptr [16 x i8], ptr %out, i64 %i
  store ptr %buffer, ptr %target
  %target.length = getelementptr i8, ptr %target, i64 8
  store i64 %length, ptr %target.length
  %total.next = add i64 %total, %length
  %i.next = add i64 %i, 1
  br label %test
done:
  ; The result is 32 bits, and the kernel moves no more than this at once.
  %fits = icmp ule i64 %total, 2147479552
  br i1 %fits, label %good, label %refuse
good:
  ret i64 %total
refuse:
  ret i64 -1
}

; fd_read, fd_write, fd_pread, fd_pwrite: `kind` is the flag that the descriptor must have. An offset below 0 as a
; signed number is for Python.
define internal i32 @wasi_transfer(ptr %host, ptr %caller, ptr %values, i64 %kind,
    i1 %positioned) alwaysinline nounwind {
  %iovecs = alloca [<WasiGuest.MAX_IOVECS> x [16 x i8]], align 16
  %guest = call ptr @wasi_guest(ptr %host, ptr %caller)
  %unknown = icmp eq ptr %guest, null
  br i1 %unknown, label %python, label %look
look:
  %number = call i64 @wasi_u32(ptr %values, i64 0)
  %entry = call i64 @wasi_descriptor(ptr %guest, i64 %number)
  %flag = and i64 %entry, %kind
  %refused = icmp eq i64 %flag, 0
  br i1 %refused, label %python, label %buffers
buffers:
  %at = call i64 @wasi_u32(ptr %values, i64 1)
  %count = call i64 @wasi_u32(ptr %values, i64 2)
  %total = call i64 @wasi_iovecs(ptr %host, i64 %at, i64 %count, ptr %iovecs)
  %bad = icmp slt i64 %total, 0
  br i1 %bad, label %python, label %where
where:
  %last = select i1 %positioned, i64 4, i64 3
  %result.at = call i64 @wasi_u32(ptr %values, i64 %last)
  %target = call ptr @wasi_address(ptr %host, i64 %result.at, i64 4, i64 3)
  %outside = icmp eq ptr %target, null
  br i1 %outside, label %python, label %offset
offset:
  %offset.word = call i64 @wasi_u64(ptr %values, i64 3)
  %position = select i1 %positioned, i64 %offset.word, i64 0
  %far = icmp slt i64 %position, 0
  br i1 %far, label %python, label %where.to
where.to:
  %null.flag = and i64 %entry, <WasiGuest.NULL>
  %is.null = icmp ne i64 %null.flag, 0
  br i1 %is.null, label %nowhere, label %call
nowhere:
  ; A sink takes everything, a closed input gives nothing.
  %reads = icmp eq i64 %kind, <WasiGuest.READ>
  %taken = select i1 %reads, i64 0, i64 %total
  br label %done
call:
  %fd.64 = lshr i64 %entry, 32
  %fd = trunc i64 %fd.64 to i32
  %count.32 = trunc i64 %count to i32
  %state = call ptr @wasi_leave_python(ptr %host)
  %reading = icmp eq i64 %kind, <WasiGuest.READ>
  br i1 %reading, label %read, label %write
read:
  br i1 %positioned, label %read.at, label %read.on
read.at:
  %n1 = call i64 @preadv(i32 %fd, ptr %iovecs, i32 %count.32, i64 %position)
  br label %back
read.on:
  %n2 = call i64 @readv(i32 %fd, ptr %iovecs, i32 %count.32)
  br label %back
write:
  br i1 %positioned, label %write.at, label %write.on
write.at:
  %n3 = call i64 @pwritev(i32 %fd, ptr %iovecs, i32 %count.32, i64 %position)
  br label %back
write.on:
  %n4 = call i64 @writev(i32 %fd, ptr %iovecs, i32 %count.32)
  br label %back
back:
  %moved = phi i64 [%n1, %read.at], [%n2, %read.on], [%n3, %write.at], [%n4, %write.on]
  call void @wasi_enter_python(ptr %state)
  ; Nothing was moved: Python tries again and knows the errno.
  %failed = icmp slt i64 %moved, 0
  br i1 %failed, label %python, label %done
done:
  %n = phi i64 [%taken, %nowhere], [%moved, %back]
  %n.32 = trunc i64 %n to i32
  store i32 %n.32, ptr %target
  store i32 0, ptr %values
  ret i32 0
python:
  ret i32 1
}

define hidden i32 @wasi_fd_read_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %status = call i32 @wasi_transfer(ptr %host, ptr %caller, ptr %values, i64 <WasiGuest.READ>, i1 false)
  ret i32 %status
}
define hidden i32 @wasi_fd_write_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %status = call i32 @wasi_transfer(ptr %host, ptr %caller, ptr %values, i64 <WasiGuest.WRITE>, i1 false)
  ret i32 %status
}
define hidden i32 @wasi_fd_pread_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %seeks = call i1 @wasi_seekable(ptr %host, ptr %caller, ptr %values)
  br i1 %seeks, label %go, label %python
go:
  %status = call i32 @wasi_transfer(ptr %host, ptr %caller, ptr %values, i64 <WasiGuest.READ>, i1 true)
  ret i32 %status
python:
  ret i32 1
}
define hidden i32 @wasi_fd_pwrite_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %seeks = call i1 @wasi_seekable(ptr %host, ptr %caller, ptr %values)
  br i1 %seeks, label %go, label %python
go:
  %status = call i32 @wasi_transfer(ptr %host, ptr %caller, ptr %values, i64 <WasiGuest.WRITE>, i1 true)
  ret i32 %status
python:
  ret i32 1
}

define internal i1 @wasi_seekable(ptr %host, ptr %caller, ptr %values) alwaysinline nounwind {
  %guest = call ptr @wasi_guest(ptr %host, ptr %caller)
  %unknown = icmp eq ptr %guest, null
  br i1 %unknown, label %no, label %look
look:
  %number = call i64 @wasi_u32(ptr %values, i64 0)
  %entry = call i64 @wasi_descriptor(ptr %guest, i64 %number)
  %flag = and i64 %entry, <WasiGuest.SEEK>
  %seeks = icmp ne i64 %flag, 0
  ret i1 %seeks
no:
  ret i1 false
}

define internal i32 @wasi_position(ptr %host, ptr %caller, ptr %values, i64 %offset, i64 %whence,
    i64 %at) noinline nounwind {
  %seeks = call i1 @wasi_seekable(ptr %host, ptr %caller, ptr %values)
  %known = icmp ule i64 %whence, 2                   ; SEEK_SET, SEEK_CUR, SEEK_END are Linux's numbers too
  %possible = and i1 %seeks, %known
  br i1 %possible, label %where, label %python
where:
  %target = call ptr @wasi_address(ptr %host, i64 %at, i64 8, i64 7)
  %outside = icmp eq ptr %target, null
  br i1 %outside, label %python, label %call
call:
  %guest = call ptr @wasi_guest(ptr %host, ptr %caller)
  %number = call i64 @wasi_u32(ptr %values, i64 0)
  %entry = call i64 @wasi_descriptor(ptr %guest, i64 %number)
  %fd.64 = lshr i64 %entry, 32
  %fd = trunc i64 %fd.64 to i32
  %whence.32 = trunc i64 %whence to i32
  %position = call i64 @lseek(i32 %fd, i64 %offset, i32 %whence.32)
  %failed = icmp slt i64 %position, 0
  br i1 %failed, label %python, label %done
done:
  store i64 %position, ptr %target
  store i32 0, ptr %values
  ret i32 0
python:
  ret i32 1
}

define hidden i32 @wasi_fd_seek_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %offset = call i64 @wasi_u64(ptr %values, i64 1)
  %whence = call i64 @wasi_u32(ptr %values, i64 2)
  %at = call i64 @wasi_u32(ptr %values, i64 3)
  %status = call i32 @wasi_position(ptr %host, ptr %caller, ptr %values, i64 %offset, i64 %whence, i64 %at)
  ret i32 %status
}
define hidden i32 @wasi_fd_tell_body(ptr %host, ptr %caller, ptr %values) nounwind {
  %at = call i64 @wasi_u32(ptr %values, i64 1)
  %status = call i32 @wasi_position(ptr %host, ptr %caller, ptr %values, i64 0, i64 1, i64 %at)
  ret i32 %status
}
"""


def ir() -> str:
    """The stubs."""
    gates = "".join(GATE.replace("{LEAVE}", LEAVE).replace("{name}", name) for name in STUBS)
    return assembly(expand(gates)) + expand(IR)
