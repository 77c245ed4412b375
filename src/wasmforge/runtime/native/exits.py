"""Leaving wasm for the host and coming back: what host calls and builtins have in common, in assembly. A gate saves the
wasm side's rsp and rbp in a frame on the host stack (`emission.GateFrame`), calls a body there, and returns through
`gate_return`, or, when Python raised, unwinds through `gate_unwind`.

Invariants
- A gate writes nothing to the wasm stack; it only reads its return address there. So it cannot fault however near the
  guard the guest has gone, and whatever is called next (libc, CPython) runs on the thread's own stack.
- The callee-saved registers are never touched: the bodies obey the C convention, which preserves all that wasm expects.
- Activations of a store end in reverse order, since they share one stack. Every nested entry restores LAST_EXIT_FP, so
  after a host call it is the gate's own frame, unless something like greenlet left an activation behind that is not
  finished: returning would then let wasm overwrite its frames, so that is an exception instead. (Asynchronous calls,
  which can stop in the middle, are at most one a store and its outermost: `async_calls.py`.)
- [gate_return_window, gate_return_end), and the same of keeping_return, can be done again from its start, because all
  it reads hangs on r11, which points to the gate frame; the fault handler moves a program counter found there back,
  so no signal slips in between test and return. The frame stays valid although rsp already left the host stack:
  nothing writes there until wasm has run on. [short_return_window, short_return_end) is the same for what never leaves
  the wasm stack: it reads through r13, and leaves by the gate only when somebody waits.
- Moving and filling up to 32 bytes takes a few instructions on the spot, as leaving and libc take ten times as many:
  programs in C copy small structures and strings by `memory.copy`, an emulator each word that it stores.
"""

from __future__ import annotations

from wasmforge.compiler.environ import BUILTINS, INTEGER_CLASS
from wasmforge.runtime.native.emission import assembly, expand
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["BUILTIN_SYMBOLS", "ir"]

BUILTIN_SYMBOLS: Final = tuple(f"builtin_{b.name}" for b in BUILTINS)
"""The entry points, in the order of `environ.BUILTINS`."""

# r11 is the store context. Builds the gate frame and switches; clobbers r10 and r11's partner only.
LEAVE: Final = """
  mov r10, [r11 + <StoreContext.HOST_SP>]
  lea r10, [r10 - <GateFrame.TOP>]
  mov [r10 + <GateFrame.WASM_SP>], rsp
  mov [r10 + <GateFrame.CONTEXT>], r11
  mov [r10], rbp
  mov rbp, r10
  mov r10, [rsp]
  mov [rbp + <GateFrame.RETURN_ADDRESS>], r10
"""

# Makes the store ready for nested entries and backtraces: rsp is 8 mod 16 at a gate's first instruction.
PUBLISH: Final = """
  lea r10, [rsp - 8]
  mov [r11 + <StoreContext.WASM_SP>], r10
  mov [r11 + <StoreContext.LAST_EXIT_FP>], rbp
"""

# {name}: rbp is the gate frame, {low} how far the host stack is in use. Between test and return no signal slips in.
RETURN: Final = """
.hidden {name}
.globl {name}
{name}:
  mov r11, rbp
.hidden {name}_window
.globl {name}_window
{name}_window:
  cmp dword ptr [rip + pending], 0
  jne {name}_pending
{name}_test:
  mov rax, [r11 + <GateFrame.CONTEXT>]
  cmp dword ptr [rax + <StoreContext.STOP>], 0
  jne {name}_stop
{restore}
  mov rax, [r11 + <GateFrame.RESULT>]
  mov rsp, [r11 + <GateFrame.WASM_SP>]
  mov rbp, [r11]
  ret
.hidden {name}_end
.globl {name}_end
{name}_end:

{name}_pending:     ; r11 is the gate frame; rsp and rbp are those of either side
  mov rax, qword ptr fs:[0]
  cmp rax, [rip + main_thread]
  jne {name}_test    ; the signal is for the main thread
{name}_stop:
  mov rbp, r11
  lea rsp, [rbp + {low}]
  mov rdi, [rbp + <GateFrame.CONTEXT>]
  mov rax, [rbp + <GateFrame.WASM_SP>]
  sub rax, 8
  mov [rdi + <StoreContext.WASM_SP>], rax
  mov [rdi + <StoreContext.LAST_EXIT_FP>], rbp
  call check_signals
  test eax, eax
  je {name}
  jmp gate_unwind
"""

KEPT: Final = ("rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10")
"""What a builtin that keeps registers saves at `GateFrame.KEPT`, downwards; rax travels in RESULT, the others are
callee-saved."""

COMMON: Final = """
.hidden host_array_call
.globl host_array_call
.p2align 4
host_array_call:    ; C convention: rdi HostFuncContext, rsi caller's vmctx, rdx values, rcx count
  mov r11, [rdi + <HostFuncContext.STORE_CONTEXT>]
{LEAVE}{PUBLISH}
  lea rsp, [rbp + <GateFrame.LOW>]
  mov rcx, r11
  call host_call
gate_check:         ; eax: 0, or 1 when Python raised, or 2 when the call shall be suspended
  test eax, eax
  jne gate_leave
  mov r11, [rbp + <GateFrame.CONTEXT>]
  cmp [r11 + <StoreContext.LAST_EXIT_FP>], rbp
  jne gate_out_of_order

{GATE_RETURN}
gate_leave:
  cmp eax, 2
  je gate_suspend
.hidden gate_unwind
.globl gate_unwind
gate_unwind:        ; a Python exception is set, the GIL is held, rbp is the gate frame, rsp in the host stack below
  xor edi, edi
  xor esi, esi
  xor edx, edx
  mov rcx, rbp
  call unwind
  mov rbp, rax
  mov eax, 2
  jmp enter_exit
gate_out_of_order:
  mov rdi, r11
  call explain_out_of_order
  jmp gate_unwind
builtin_trap:       ; edi kind. Does not return, so it needs no frame: rbp is still the trapping function's
  mov r11, [r13 + <VMContextOffsets.STORE_CONTEXT>]
  mov edi, edi
  mov rdx, [rsp]
  sub rdx, 1
  mov rsp, [r11 + <StoreContext.HOST_SP>]
  xor esi, esi
  mov rcx, rbp
  call unwind
  mov rbp, rax
  mov eax, 1
  jmp enter_exit

.p2align 4
builtin_memory_move:  ; rdi target, rsi source, rdx bytes: everything is read before anything is written, for overlaps
  cmp rdx, 32
  ja move_long
  cmp edx, 16
  ja move_17
  cmp edx, 8
  jae move_8
  cmp edx, 4
  jae move_4
  cmp edx, 2
  jae move_2
  test edx, edx
  je short_return
  movzx eax, byte ptr [rsi]
  mov byte ptr [rdi], al
  jmp short_return
move_2:
  movzx eax, word ptr [rsi]
  movzx ecx, word ptr [rsi + rdx - 2]
  mov word ptr [rdi], ax
  mov word ptr [rdi + rdx - 2], cx
  jmp short_return
move_4:
  mov eax, dword ptr [rsi]
  mov ecx, dword ptr [rsi + rdx - 4]
  mov dword ptr [rdi], eax
  mov dword ptr [rdi + rdx - 4], ecx
  jmp short_return
move_8:
  mov rax, [rsi]
  mov rcx, [rsi + rdx - 8]
  mov [rdi], rax
  mov [rdi + rdx - 8], rcx
  jmp short_return
move_17:
  mov rax, [rsi]
  mov rcx, [rsi + 8]
  mov r8, [rsi + rdx - 16]
  mov r9, [rsi + rdx - 8]
  mov [rdi], rax
  mov [rdi + 8], rcx
  mov [rdi + rdx - 16], r8
  mov [rdi + rdx - 8], r9
.hidden short_return_window
.globl short_return_window
short_return_window:
short_return:       ; rsp and r13 are wasm's
  cmp dword ptr [rip + pending], 0
  jne short_stop
  mov rax, [r13 + <VMContextOffsets.STORE_CONTEXT>]
  cmp dword ptr [rax + <StoreContext.STOP>], 0
  jne short_stop
  ret
.hidden short_return_end
.globl short_return_end
short_return_end:
short_stop:
  mov r11, [r13 + <VMContextOffsets.STORE_CONTEXT>]
{LEAVE}
  lea rsp, [rbp + <GateFrame.LOW>]
  jmp gate_return
move_long:
  mov r11, [r13 + <VMContextOffsets.STORE_CONTEXT>]
{LEAVE}
  lea rsp, [rbp + <GateFrame.LOW>]
  call qword ptr [rip + memmove@GOTPCREL]
  jmp gate_return

.p2align 4
builtin_memory_set: ; rdi target, esi byte, rdx bytes
  cmp rdx, 32
  ja set_long
  movzx eax, sil
  movabs rcx, 0x0101010101010101
  imul rax, rcx
  cmp edx, 16
  ja set_17
  cmp edx, 8
  jae set_8
  cmp edx, 4
  jae set_4
  test edx, edx
  je short_return
  mov byte ptr [rdi], al
  mov byte ptr [rdi + rdx - 1], al
  shr edx, 1
  mov byte ptr [rdi + rdx], al
  jmp short_return
set_4:
  mov dword ptr [rdi], eax
  mov dword ptr [rdi + rdx - 4], eax
  jmp short_return
set_17:
  mov [rdi + 8], rax
  mov [rdi + rdx - 16], rax
set_8:
  mov [rdi], rax
  mov [rdi + rdx - 8], rax
  jmp short_return
set_long:
  mov r11, [r13 + <VMContextOffsets.STORE_CONTEXT>]
{LEAVE}
  lea rsp, [rbp + <GateFrame.LOW>]
  call qword ptr [rip + memset@GOTPCREL]
  jmp gate_return

keeping_builtin:    ; rdi vmctx, r11 store context, whose KEPT holds the caller's r10 and the index into BUILTINS
{LEAVE}{PUBLISH}
  mov r10, [r11 + <StoreContext.KEPT>]
{SAVE_KEPT}
  mov [rbp + <GateFrame.RESULT>], rax
  lea rsp, [rbp + <GateFrame.KEPT_LOW>]
  mov rsi, rdi
  mov edi, dword ptr [r11 + <StoreContext.KEPT> + 8]
  mov rdx, rsp      ; there are no arguments
  mov rcx, rsp      ; and no result
  mov r8, r11
  call builtin_call
  test eax, eax
  jne gate_leave
  mov r11, [rbp + <GateFrame.CONTEXT>]
  cmp [r11 + <StoreContext.LAST_EXIT_FP>], rbp
  jne gate_out_of_order
{KEEPING_RETURN}
python_builtin:     ; eax index into BUILTINS; arguments by the internal convention, r13 vmctx
  mov r11, [r13 + <VMContextOffsets.STORE_CONTEXT>]
{LEAVE}{PUBLISH}
  lea rsp, [rbp + <GateFrame.ARGUMENTS>]
  mov [rsp], rdi
  mov [rsp + 8], rsi
  mov [rsp + 16], rdx
  mov [rsp + 24], rcx
  mov [rsp + 32], r8
  mov [rsp + 40], r9
  mov edi, eax
  mov rsi, r13
  mov rdx, rsp
  lea rcx, [rbp + <GateFrame.RESULT>]
  mov r8, r11
  call builtin_call
  jmp gate_check
"""

DECLARATIONS: Final = """
@host_array_call = external hidden global i8
@gate_return_window = external hidden global i8
@gate_return_end = external hidden global i8
@keeping_return_window = external hidden global i8
@keeping_return_end = external hidden global i8
@short_return_window = external hidden global i8
@short_return_end = external hidden global i8
@gate_unwind = external hidden global i8
"""


def ir() -> str:
    """The gates out of wasm and one stub a builtin."""
    saves = "\n".join(f"  mov [rbp + <GateFrame.KEPT> - {8 * k}], {r}" for k, r in enumerate(KEPT))
    restores = "\n".join(f"  mov {r}, [r11 + <GateFrame.KEPT> - {8 * k}]" for k, r in enumerate(KEPT))
    pieces = {
        "LEAVE": LEAVE,
        "PUBLISH": PUBLISH,
        "SAVE_KEPT": saves,
        "GATE_RETURN": RETURN.format(name="gate_return", low="<GateFrame.LOW>", restore=""),
        "KEEPING_RETURN": RETURN.format(name="keeping_return", low="<GateFrame.KEPT_LOW>", restore=restores),
    }
    parts = [COMMON.format_map(pieces)]
    for index, builtin in enumerate(BUILTINS):
        symbol = BUILTIN_SYMBOLS[index]
        parts.append(f".hidden {symbol}\n.globl {symbol}\n")
        if builtin.keeps_registers:
            parts.append(
                f"{symbol}:\n  mov r11, [rdi + <VMContextOffsets.STORE_CONTEXT>]\n"
                f"  mov [r11 + <StoreContext.KEPT>], r10\n"
                f"  mov dword ptr [r11 + <StoreContext.KEPT> + 8], {index}\n  jmp keeping_builtin\n"
            )
        elif not builtin.native:
            if len(builtin.params) > 6 or not INTEGER_CLASS.issuperset(builtin.params):
                raise WasmtimeError(
                    f"the gate of the builtin {builtin.name} passes at most six integers and references"
                )
            parts.append(f"{symbol}:\n  mov eax, {index}\n  jmp python_builtin\n")
    return assembly(expand("".join(parts))) + DECLARATIONS
