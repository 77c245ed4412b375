"""The fault handler: SIGSEGV and SIGBUS in wasm become traps, every other fault goes to whoever handled the signal
before. Also the installation of both handlers, which the runtime repeats for every callable because
faulthandler, signal.signal or another runtime may have put theirs in front.

THREAT: a fault that is not the guest's out-of-bounds access must never be taken for a trap, or a bug of the compiler
would become silent corruption. So a memory trap needs a program counter in registered code and an address in a
registered reservation; a stack overflow needs the guard below the very stack that the faulting activation runs on; and
a signal that somebody sent (si_code <= 0) is never a trap.

The handler runs on the alternate stack, since the wasm stack may be exhausted, with SA_NODEFER, so that a fault inside
a handler is reported too. It has no state to undo: it jumps to `enter_exit`, which restores what the entry frame saved.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    import signal
    from collections.abc import Callable
    from typing import Final

    from wasmforge.runtime.native.loader import MappedImage
else:
    import _signal as signal  # the same numbers, without `enum`, which takes 4 ms

    from wasmforge.runtime import ffi as ctypes

__all__ = ["KNOWN_FAULTS_LOG2", "RangeTable", "SignalHooks", "ir"]

KNOWN_FAULTS_LOG2: Final = 8
"""Of the number of places for program counters that have faulted (`raising.py`): programs that trap do it at few
instructions."""

IR: Final = """
@code_ranges = hidden global ptr null      ; RangeTable, see there
@memory_ranges = hidden global ptr null
; signal to {i64 count, struct sigaction[count]}, oldest first
@previous_handlers = hidden global [65 x ptr] zeroinitializer
; signal to thread, frame and depth of the chain being called
@chain_states = hidden global [65 x {ptr, i64, i64}] zeroinitializer

define internal i1 @between(i64 %address, ptr %low, ptr %high) alwaysinline {
  %low.word = ptrtoint ptr %low to i64
  %high.word = ptrtoint ptr %high to i64
  %not.below = icmp uge i64 %address, %low.word
  %below.high = icmp ult i64 %address, %high.word
  %inside = and i1 %not.below, %below.high
  ret i1 %inside
}

; The slot of the range that an address lies in, or -1. The slot that was found last is looked at first, since programs
; that trap do it at few places, and may have thousands of modules and memories. Other threads may write the table now:
; a slot counts only if its end is the same before and after reading its start.
define internal i64 @find_range(ptr %table, i64 %address) noinline nounwind {
  %missing = icmp eq ptr %table, null
  br i1 %missing, label %no, label %begin
begin:
  %count = load atomic i64, ptr %table acquire, align 8
  %hint.at = getelementptr i8, ptr %table, i64 <RangeTable.HINT>
  %hint = load atomic i64, ptr %hint.at monotonic, align 8
  br label %test
test:
  %i = phi i64 [%hint, %begin], [0, %after.hint], [%i.next, %advance]
  %hinted = phi i1 [true, %begin], [false, %after.hint], [false, %advance]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %slot, label %no
slot:
  %i.16 = shl i64 %i, 4
  %offset = add i64 %i.16, <RangeTable.RANGES>
  %start.at = getelementptr i8, ptr %table, i64 %offset
  %end.at = getelementptr i8, ptr %start.at, i64 8
  %end = load atomic volatile i64, ptr %end.at acquire, align 8
  %start = load atomic volatile i64, ptr %start.at acquire, align 8
  %end.again = load atomic volatile i64, ptr %end.at monotonic, align 8
  %below = icmp ult i64 %address, %end
  %above = icmp uge i64 %address, %start
  %stable = icmp eq i64 %end, %end.again
  %both = and i1 %below, %above
  %all = and i1 %both, %stable
  br i1 %all, label %yes, label %next
next:
  br i1 %hinted, label %after.hint, label %advance
after.hint:
  br label %test
advance:
  %i.next = add i64 %i, 1
  br label %test
yes:
  store atomic i64 %i, ptr %hint.at monotonic, align 8
  ret i64 %i
no:
  ret i64 -1
}

define internal i1 @is_code(i64 %pc) nounwind {
  %table = load ptr, ptr @code_ranges
  %slot = call i64 @find_range(ptr %table, i64 %pc)
  %found = icmp ne i64 %slot, -1
  ret i1 %found
}

define hidden void @on_fault(i32 %signal, ptr %info, ptr %uc) nounwind {
  %rip.at = getelementptr i8, ptr %uc, i64 168
  %rip = load i64, ptr %rip.at
  %rsp.at = getelementptr i8, ptr %uc, i64 160
  %rsp = load i64, ptr %rsp.at
  %rbp.at = getelementptr i8, ptr %uc, i64 120
  %rbp = load i64, ptr %rbp.at
  %address = load.field i64, ptr %info, 16
  %si.code = load.field i32, ptr %info, 8
  %sent = icmp sle i32 %si.code, 0
  br i1 %sent, label %foreign, label %where
where:
  %at.entry = icmp eq i64 %rip, ptrtoint (ptr @entry_call to i64)
  br i1 %at.entry, label %entry.guard, label %code
code:
  %in.code = call i1 @is_code(i64 %rip)
  br i1 %in.code, label %memory, label %foreign
memory:
  %memories = load ptr, ptr @memory_ranges
  %slot = call i64 @find_range(ptr %memories, i64 %address)
  %in.memory = icmp ne i64 %slot, -1
  br i1 %in.memory, label %trap, label %near
near:
  ; An exhausted stack faults around rsp: at most a probe below, or at a frame slot above. Anything else is a crash
  ; whose rbp may be anything, so do not walk it.
  %distance = sub i64 %address, %rsp
  %shifted = add i64 %distance, <Environ.STACK_GUARD_SIZE>
  %double.guard = shl i64 <Environ.STACK_GUARD_SIZE>, 1
  %is.near = icmp ult i64 %shifted, %double.guard
  br i1 %is.near, label %guard, label %foreign
guard:
  %entry.guess = call i64 @find_entry(i64 %rbp)
  %in.guard = call i1 @in_guard(i64 %entry.guess, i64 %address)
  br i1 %in.guard, label %trap, label %foreign
trap:
  %kind = phi i64 [<TrapKind.MEMORY_OUT_OF_BOUNDS>, %memory], [<TrapKind.STACK_OVERFLOW>, %guard]
  ; `push rbp` itself never faults: return address and saved rbp share 16 aligned bytes (rule 6), and the guard ends at
  ; a page. So the frame is complete, or the fault is in the call instruction of a complete one.
  %entry = call i64 @unwind(i64 %kind, i64 %address, i64 %rip, i64 %rbp)
  %entry.pointer = inttoptr i64 %entry to ptr
  %record = load.field ptr, ptr %entry.pointer, <EntryFrame.RECORD>
  store.field i64 %slot, ptr %record, <TrapRecord.SLOT>
  br label %leave
entry.guard:
  ; The first push of a nested entry hit the guard: rbp is the entry frame.
  %entry.hit = call i1 @in_guard(i64 %rbp, i64 %address)
  br i1 %entry.hit, label %entry.trap, label %foreign
entry.trap:
  call void @record_at_entry(i64 %rbp, i64 <TrapKind.STACK_OVERFLOW>, i64 %address)
  br label %leave
leave:
  %entry.rbp = phi i64 [%entry, %trap], [%rbp, %entry.trap]
  ; Leave by a jump: returning would cost a system call (rt_sigreturn) to restore registers that `enter_exit` restores
  ; anyway. What only the kernel would restore is put back here: the x87 control word and MXCSR, which it resets for
  ; a handler. The signal mask did not change (SA_NODEFER, empty mask), and an alternate stack counts as left once rsp
  ; is elsewhere.
  %fp.state = load.field ptr, ptr %uc, 224
  call void asm sideeffect "fldcw ($0); ldmxcsr 24($0); movq $1, %rbp; movl $$1, %eax; jmp enter_exit",
    "r,r,~{memory}"(ptr %fp.state, i64 %entry.rbp)
  unreachable
foreign:
  %default = call i1 @chain(i32 %signal, ptr %info, ptr %uc)
  br i1 %default, label %die, label %done
done:
  ret void
die:
  ; Nobody else wants it: the default action. A real fault comes again by itself when the handler returns; a signal
  ; that was sent must be sent again.
  %action = alloca [152 x i8], align 8
  call ptr @memset(ptr %action, i32 0, i64 152)
  call i32 @sigaction(i32 %signal, ptr %action, ptr null)
  br i1 %sent, label %send, label %done
send:
  call i32 @raise(i32 %signal)
  ret void
}

define internal i1 @in_guard(i64 %entry, i64 %address) alwaysinline nounwind {
  %entry.pointer = inttoptr i64 %entry to ptr
  %context = load.field ptr, ptr %entry.pointer, <EntryFrame.CONTEXT>
  %low = load.field i64, ptr %context, <StoreContext.WASM_STACK_LOW>
  %guard = sub i64 %low, <Environ.STACK_GUARD_SIZE>
  %offset = sub i64 %address, %guard
  %inside = icmp ult i64 %offset, <Environ.STACK_GUARD_SIZE>
  ret i1 %inside
}

; Calls the handler that was installed before ours. When it comes back to ours (it was installed with ours as its
; predecessor), the one before that, and so on; true when none is left. "Comes back" means: same thread, deeper stack.
; That needs no clearing, so handlers may also leave by longjmp.
define hidden i1 @chain(i32 %signal, ptr %info, ptr %uc) noinline nounwind {
  %me = call ptr @llvm.thread.pointer()
  %frame.pointer = call ptr @llvm.frameaddress.p0(i32 0)
  %frame = ptrtoint ptr %frame.pointer to i64
  %signal.64 = zext i32 %signal to i64
  %state = getelementptr {ptr, i64, i64}, ptr @chain_states, i64 %signal.64
  %old.thread = load.field ptr, ptr %state, 0
  %old.frame = load.field i64, ptr %state, 8
  %old.depth = load.field i64, ptr %state, 16
  %same = icmp eq ptr %me, %old.thread
  %deeper = icmp ult i64 %frame, %old.frame
  %nested = and i1 %same, %deeper
  %next.depth = add i64 %old.depth, 1
  %depth = select i1 %nested, i64 %next.depth, i64 0
  %table.at = getelementptr ptr, ptr @previous_handlers, i64 %signal.64
  %table = load ptr, ptr %table.at
  %missing = icmp eq ptr %table, null
  br i1 %missing, label %none, label %look
look:
  %count = load i64, ptr %table
  %left = icmp ult i64 %depth, %count
  br i1 %left, label %pick, label %none
pick:
  %from.end = add i64 %depth, 1
  %index = sub i64 %count, %from.end
  %bytes = mul i64 %index, 152
  %offset = add i64 %bytes, 8
  %action = getelementptr i8, ptr %table, i64 %offset
  %handler = load ptr, ptr %action
  %handler.word = ptrtoint ptr %handler to i64
  %is.default = icmp ult i64 %handler.word, 2        ; SIG_DFL, SIG_IGN
  br i1 %is.default, label %none, label %call
call:
  store.field ptr %me, ptr %state, 0
  store.field i64 %frame, ptr %state, 8
  store.field i64 %depth, ptr %state, 16
  %flags = load.field i32, ptr %action, 136
  %siginfo.flag = and i32 %flags, 4                  ; SA_SIGINFO
  %with.info = icmp ne i32 %siginfo.flag, 0
  br i1 %with.info, label %three, label %one
three:
  call void %handler(i32 %signal, ptr %info, ptr %uc)
  br label %back
one:
  call void %handler(i32 %signal)
  br label %back
back:
  %restored.thread = select i1 %nested, ptr %old.thread, ptr null
  store.field ptr %restored.thread, ptr %state, 0
  store.field i64 %old.frame, ptr %state, 8
  store.field i64 %old.depth, ptr %state, 16
  ret i1 false
none:
  ret i1 true
}
"""


FAULT_SIGNALS: Final = (signal.SIGSEGV, signal.SIGBUS)
INTERRUPT_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
"""Signals whose Python handlers shall run while wasm runs; hooked only while some handler function is installed."""
STOP_SIGNAL: Final = signal.SIGURG
"""What deadlines use. Ignored unless somebody handles it, so that one too many does no harm, also after our handler was
taken away or in a child process; whoever handles it expects to be called without need (urgent data is no queue)."""


def _hooks_lost() -> str:
    """`hooks_lost`, a METH_NOARGS function: whether somebody else's handler is in front for one of our signals. In
    machine code because the runtime asks for every callable that it makes, and five system calls through ctypes take
    6 µs.
    """
    out = [
        "define hidden ptr @hooks_lost(ptr %self, ptr %nothing) nounwind {",
        "  %action = alloca [152 x i8], align 8",
    ]
    total = "false"
    for number in (*FAULT_SIGNALS, *INTERRUPT_SIGNALS):
        out.append(f"  call i32 @sigaction(i32 {int(number)}, ptr null, ptr %action)")
        out.append(f"  %handler{number:d} = load i64, ptr %action")
        if number in FAULT_SIGNALS:
            out.append(f"  %lost{number:d} = icmp ne i64 %handler{number:d}, ptrtoint (ptr @on_fault to i64)")
        else:
            out.append(f"  %other{number:d} = icmp ne i64 %handler{number:d}, ptrtoint (ptr @on_interrupt to i64)")
            out.append(f"  %some{number:d} = icmp ugt i64 %handler{number:d}, 1")
            out.append(f"  %lost{number:d} = and i1 %other{number:d}, %some{number:d}")
        out.append(f"  %total{number:d} = or i1 {total}, %lost{number:d}")
        total = f"%total{number:d}"
    out += [
        f"  %word = zext i1 {total} to i64",
        "  %result = call ptr @PyLong_FromLong(i64 %word)",
        "  ret ptr %result",
        "}\n",
    ]
    return "\n".join(out)


def ir() -> str:
    """The fault handler."""
    from wasmforge.runtime.native.emission import expand  # only when the gates are built

    return expand(IR) + _hooks_lost()


_SIGACTION_SIZE: Final = 152  # glibc and musl on x86-64: handler, 128 bytes of mask, flags, restorer
_FLAGS_OFFSET: Final = 136
_SA_SIGINFO: Final = 0x4
_SA_ONSTACK: Final = 0x08000000
_SA_NODEFER: Final = 0x40000000
_SA_RESETHAND: Final = 0x80000000
_SA_RESTART: Final = 0x10000000


class SignalHooks:
    """Keeps our handlers in front. Made by `Gates`, which also serialises the calls.

    `lost`: the machine code `hooks_lost` as a Python function.
    """

    def __init__(self, image: MappedImage, lost: Callable[[], int]) -> None:
        self.lost = lost
        self._previous = image.address("previous_handlers")
        self._handlers = {s: image.address("on_fault") for s in FAULT_SIGNALS}
        self._handlers.update({s: image.address("on_interrupt") for s in INTERRUPT_SIGNALS})
        self._stop_handler = image.address("on_stop")
        self._chains: dict[int, list[bytes]] = {s: [] for s in (*self._handlers, STOP_SIGNAL)}
        # Old tables are kept: a handler on another thread may still read one. They change only when somebody else
        # installs a handler.
        self._tables: list[ctypes.Array[ctypes.c_char]] = []
        self._buffer = ctypes.create_string_buffer(_SIGACTION_SIZE)
        self._sigaction = ctypes.CDLL(None, use_errno=True).sigaction
        self._sigaction.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    def hook(self) -> None:
        """Puts our handlers in front of all others where they are not already. `lost` says whether that is needed."""
        buffer = self._buffer
        for number, handler in self._handlers.items():
            self._sigaction(number, None, buffer)
            current = int.from_bytes(buffer.raw[:8], "little")
            if current == handler or (current < 2 and number in INTERRUPT_SIGNALS):
                continue
            self._install(number, handler, buffer.raw)

    def hook_stop(self) -> None:
        """Puts the handler of STOP_SIGNAL in front, if it is not there."""
        buffer = self._buffer
        self._sigaction(STOP_SIGNAL, None, buffer)
        if int.from_bytes(buffer.raw[:8], "little") != self._stop_handler:
            self._install(STOP_SIGNAL, self._stop_handler, buffer.raw)

    def _install(self, number: int, handler: int, previous: bytes) -> None:
        # Somebody who disables and enables the same handler again must not make the chain longer.
        chain = [action for action in self._chains[number] if action[:8] != previous[:8]]
        chain.append(previous)
        self._chains[number] = chain
        table = ctypes.create_string_buffer(len(chain).to_bytes(8, "little") + b"".join(chain))
        self._tables.append(table)
        ctypes.c_void_p.from_address(self._previous + 8 * number).value = ctypes.addressof(table)
        # `on_fault` leaves by a jump, so the kernel must not block what only a return would unblock: an empty mask.
        mask = bytes(_FLAGS_OFFSET - 8) if number in FAULT_SIGNALS else previous[8:_FLAGS_OFFSET]
        action = ctypes.create_string_buffer(previous[:8] + mask + previous[_FLAGS_OFFSET:], _SIGACTION_SIZE)
        ctypes.c_uint64.from_buffer(action).value = handler
        flags = ctypes.c_uint32.from_buffer(action, _FLAGS_OFFSET)
        if number in FAULT_SIGNALS:
            flags.value = _SA_SIGINFO | _SA_ONSTACK | _SA_NODEFER
        else:
            flags.value = (flags.value | _SA_SIGINFO | _SA_ONSTACK) & ~_SA_RESETHAND
            if number == STOP_SIGNAL:
                flags.value &= ~_SA_RESTART  # a system call that waits shall end
        if self._sigaction(number, action, None) != 0:
            raise WasmtimeError(f"cannot install a handler for signal {number}: error {ctypes.get_errno()}")


class RangeTable:
    """Address ranges that the signal handler scans, with holes (end 0). The handler may run on any thread at any
    instant, so every intermediate state is valid: the end is 0 while a slot changes.
    """

    CAPACITY: Final = 65536
    COUNT: Final = 0  # u64, slots in use
    HINT: Final = 8  # u64, the slot that was found last
    RANGES: Final = 16  # {u64 start, u64 end} a slot
    DEFINITIONS: Final = RANGES + 16 * CAPACITY  # u64 a slot: of a memory the address of its VMMemoryDefinition, or 0
    SIZE: Final = DEFINITIONS + 8 * CAPACITY

    def __init__(self, address: int) -> None:
        table = (ctypes.c_uint64 * (self.SIZE // 8)).from_address(address)
        self._words = memoryview(table).cast("B").cast("Q")  # which is written faster than the array
        self._slots: dict[int, int] = {}
        self._free: list[int] = []

    def add(self, start: int, end: int, definition: int = 0) -> None:
        """Registers [start, end), of a memory with the address of its VMMemoryDefinition. Raises WasmtimeError when
        `start` is registered or the table is full."""
        if not 0 < start < end:
            raise WasmtimeError(f"empty address range {start:#x} to {end:#x}")
        if start in self._slots:
            raise WasmtimeError(f"address {start:#x} is already registered")
        words = self._words
        if self._free:
            slot = self._free.pop()
        else:
            slot = words[0]
            if slot == self.CAPACITY:
                raise WasmtimeError(f"too many code images or memories in this process: more than {self.CAPACITY}")
        self._slots[start] = slot  # first, so that after a KeyboardInterrupt in here `remove` still works
        words[3 + 2 * slot] = 0
        words[2 + 2 * slot] = start
        words[self.DEFINITIONS // 8 + slot] = definition
        words[3 + 2 * slot] = end
        if slot == words[0]:
            words[0] = slot + 1

    def remove(self, start: int) -> None:
        """Forgets the range that begins at `start`. Raises WasmtimeError when there is none."""
        slot = self._slots.pop(start, None)
        if slot is None:
            raise WasmtimeError(f"address {start:#x} is not registered")
        self._words[3 + 2 * slot] = 0
        self._free.append(slot)
