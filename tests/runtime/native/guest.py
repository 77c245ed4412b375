"""The "wasm" functions that the tests of the gates call, in LLVM IR by the calling convention, compiled once a
session.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from tests.runtime.native.fake import (
    ATTRIBUTES,
    Code,
    array_to_wasm,
    builtin_pointer,
    call_builtin,
    call_import,
    compile_ir,
    ft,
    memory_pointer,
    wasm_to_array,
)
from wasmforge.compiler.environ import StoreContext, VMContextOffsets
from wasmforge.runtime.native.image import decode, encode
from wasmforge.runtime.native.link import link

KEEP = "; ".join(
    (
        "movq %rdi, %rbx; movq %rsp, %r12; andq $$-16, %rsp",
        "movl $$1, %eax; movl $$2, %ecx; movl $$3, %edx; movl $$4, %esi",
        "movl $$5, %r8d; movl $$6, %r9d; movl $$7, %r10d",
        "callq *%r11; movq %r12, %rsp; subq %rbx, %rdi",
        *(f"imulq $${k}, %{r}, %{r}; addq %{r}, %rax"
          for k, r in zip((10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000),
                          ("rcx", "rdx", "rsi", "r8", "r9", "r10", "rdi"), strict=True)),
    )
)  # fmt: skip
KEEP_CLOBBERS = ",".join(f"~{{{r}}}" for r in ("rcx", "rdx", "rsi", "rbx", "r8", "r9", "r10", "r12", "memory", "flags"))
KEPT_SUM = 7654321

OFFSETS = VMContextOffsets(1, 0, 4, 0, 0, 0, 0)

FRAMES = (16, 100, 3000, 30_000, 40_000, 300_000, 3_000_000)
"""Frame sizes in bytes of the `recurse` functions: below, around and far above the probe size."""

MANY_PARAMS = "iIfF" * 250
MANY_RESULTS = "iIfF" * 250
MIXED = "iIfFiIfFiIfFiIfFiIfFiIfFrx"

SIGNATURES = {
    "nothing": ft("", ""),
    "add": ft("ii", "i"),
    "add64": ft("II", "I"),
    "addf": ft("ff", "f"),
    "addF": ft("FF", "F"),
    "same_r": ft("r", "r"),
    "same_x": ft("x", "x"),
    "swap": ft("iIfF", "FfIi"),
    "mixed": ft(MIXED, MIXED),
    "many": ft(MANY_PARAMS, MANY_RESULTS),
}


def _identity(name: str, params: str, results: str, picks: list[int]) -> str:
    """A function that returns its parameters, result k being parameter picks[k], by the rules for areas."""
    from tests.runtime.native.fake import LLVM, attributes, result_type
    from wasmforge.compiler.environ import VALRAW_SIZE, assign_params, assign_results

    signature = ft(params, results)
    body = [f"  %ca = getelementptr i8, ptr %vm, i64 {VMContextOffsets.STORE_CONTEXT}", "  %c = load ptr, ptr %ca"]
    head = ["ptr swiftself %vm"]
    for i, (t, at) in enumerate(zip(signature.params, assign_params(signature), strict=True)):
        if at.kind == "area":
            body.append(
                f"  %pa{i} = getelementptr i8, ptr %c, i64 {StoreContext.OVERFLOW_AREA + VALRAW_SIZE * at.index}"
            )
            body.append(f"  %p{i} = load {LLVM[t]}, ptr %pa{i}")
        else:
            head.append(f"{LLVM[t]} %p{i}")
    rt = result_type(signature)
    locations = assign_results(signature)
    in_registers = sum(at.kind != "area" for at in locations)
    value, k = "poison", 0
    for i, (t, at) in enumerate(zip(signature.results, locations, strict=True)):
        if at.kind == "area":
            body.append(
                f"  %ra{i} = getelementptr i8, ptr %c, i64 {StoreContext.RESULTS_AREA + VALRAW_SIZE * at.index}"
            )
            body.append(f"  store {LLVM[t]} %p{picks[i]}, ptr %ra{i}")
        elif in_registers == 1:
            value = f"%p{picks[i]}"
        else:
            body.append(f"  %s{i} = insertvalue {rt} {value}, {LLVM[t]} %p{picks[i]}, {k}")
            value, k = f"%s{i}", k + 1
    body.append("  ret void" if rt == "void" else f"  ret {rt} {value}")
    return (
        f"define dso_local swiftcc {rt} @{name}({', '.join(head)}) {attributes(signature)} {{\n"
        + "\n".join(body)
        + "\n}\n"
    )


def _binary(name: str, t: str, operation: str) -> str:
    return f"""
define dso_local swiftcc {t} @{name}(ptr swiftself %vm, {t} %a, {t} %b) {ATTRIBUTES} {{
  %r = {operation} {t} %a, %b
  ret {t} %r
}}
"""


def _recurse(size: int) -> str:
    """Endless recursion with a frame of `size` bytes."""
    return f"""
define dso_local swiftcc i32 @recurse{size}(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %frame = alloca [{size} x i8]
  %i = urem i32 %x, {size}
  %at = getelementptr i8, ptr %frame, i32 %i
  store volatile i8 1, ptr %at
  %next = add i32 %x, 1
  %r = call swiftcc i32 @recurse{size}(ptr swiftself %vm, i32 %next)
  %back = load volatile i8, ptr %at
  %wide = zext i8 %back to i32
  %sum = add i32 %r, %wide
  ret i32 %sum
}}
"""


SENTINELS = "\n".join(f"  %k{i} = mul i32 %n, {2 * i + 3}" for i in range(6))
SENTINEL_SUM = "\n".join(f"  %t{i} = xor i32 %t{i - 1}, %k{i}" for i in range(1, 6))

HOST = ft("i", "i")
HOST_MANY = ft("iIfF", "FfIi")


def _wide() -> str:
    flags = Path("/proc/cpuinfo").read_text()
    if " avx512f" in flags:
        return '"target-features"="+avx512f" "prefer-vector-width"="512" "min-legal-vector-width"="512"'
    return '"target-features"="+avx2"' if " avx2" in flags else ""


WIDE = _wide()

# Import 0 is an i32 -> i32 function, import 1 has four parameters and four results.
IR = f"""
define dso_local swiftcc void @nothing(ptr swiftself %vm) {ATTRIBUTES} {{
  ret void
}}
define dso_local swiftcc i32 @load(ptr swiftself %vm, i32 %a) {ATTRIBUTES} {{
{memory_pointer("%p", "%a")}
  %r = load volatile i32, ptr %p, align 1
  ret i32 %r
}}
define dso_local swiftcc i32 @trap(ptr swiftself %vm, i32 %kind) {ATTRIBUTES} {{
{call_builtin("trap", "", "i32 %kind", "t")}
  unreachable
}}
define dso_local swiftcc i32 @outside(ptr swiftself %vm, i32 %a) {ATTRIBUTES} {{
  %r = load volatile i32, ptr inttoptr (i64 64 to ptr), align 1
  ret i32 %r
}}
; Frames with values in callee-saved registers, then a trap of kind %kind (0: by memory, 99: none) at the bottom.
define dso_local swiftcc i32 @deep(ptr swiftself %vm, i32 %n, i32 %kind) {ATTRIBUTES} {{
  %bottom = icmp eq i32 %n, 0
  br i1 %bottom, label %stop, label %down
stop:
  switch i32 %kind, label %soft [ i32 0, label %hard
                                  i32 99, label %out
                                  i32 98, label %host ]
hard:
  %h = call swiftcc i32 @load(ptr swiftself %vm, i32 1048576)
  ret i32 %h
soft:
  %s = call swiftcc i32 @trap(ptr swiftself %vm, i32 %kind)
  ret i32 %s
host:
{call_import(HOST, 0, "%hr", ["%kind"], "hc", OFFSETS)}
  ret i32 %hr
out:
  ret i32 1
down:
{SENTINELS}
  %m = sub i32 %n, 1
  %r = call swiftcc i32 @deep(ptr swiftself %vm, i32 %m, i32 %kind)
  %t0 = add i32 %r, %k0
{SENTINEL_SUM}
  ret i32 %t5
}}
define dso_local swiftcc i32 @call_host(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{call_import(HOST, 0, "%r", ["%x"], "h", OFFSETS)}
  ret i32 %r
}}
define dso_local swiftcc i32 @host_loop(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
  br label %loop
loop:
  %i = phi i32 [%n, %0], [%i.next, %loop]
  %a = phi i32 [0, %0], [%r, %loop]
{call_import(HOST, 0, "%r", ["%a"], "h", OFFSETS)}
  %i.next = sub i32 %i, 1
  %done = icmp eq i32 %i.next, 0
  br i1 %done, label %out, label %loop
out:
  ret i32 %r
}}
; The same with values kept in registers and vector registers across the host call.
define dso_local swiftcc i32 @host_keep(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
{SENTINELS}
{call_import(HOST, 0, "%r", ["%n"], "h", OFFSETS)}
  %t0 = add i32 %r, %k0
{SENTINEL_SUM}
  ret i32 %t5
}}
define dso_local swiftcc i32 @host_then_trap(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{call_import(HOST, 0, "%r", ["%x"], "h", OFFSETS)}
  %v = call swiftcc i32 @load(ptr swiftself %vm, i32 %r)
  ret i32 %v
}}
define dso_local swiftcc {{double, float, i64, i32}} @call_host_many(ptr swiftself %vm, i32 %a, i64 %b, float %c,
    double %d)
    {ATTRIBUTES} {{
{call_import(HOST_MANY, 1, "%r", ["%a", "%b", "%c", "%d"], "h", OFFSETS)}
  ret {{double, float, i64, i32}} %r
}}
define dso_local swiftcc void @move(ptr swiftself %vm, i32 %to, i32 %from, i32 %n) {ATTRIBUTES} {{
{memory_pointer("%p", "%to")}
{memory_pointer("%q", "%from")}
  %pi = ptrtoint ptr %p to i64
  %qi = ptrtoint ptr %q to i64
  %z = zext i32 %n to i64
{call_builtin("memory_move", "", "i64 %pi, i64 %qi, i64 %z", "m")}
  ret void
}}
define dso_local swiftcc void @fill(ptr swiftself %vm, i32 %to, i32 %byte, i32 %n) {ATTRIBUTES} {{
{memory_pointer("%p", "%to")}
  %pi = ptrtoint ptr %p to i64
  %z = zext i32 %n to i64
{call_builtin("memory_set", "", "i64 %pi, i32 %byte, i64 %z", "m")}
  ret void
}}
define dso_local swiftcc i64 @grow(ptr swiftself %vm, i64 %pages) {ATTRIBUTES} {{
{call_builtin("memory_grow", "%r", "i64 %pages, i32 7", "m")}
  ret i64 %r
}}
define dso_local swiftcc void @table_init(ptr swiftself %vm, i32 %a, i32 %b, i64 %c, i64 %d, i64 %e) {ATTRIBUTES} {{
{call_builtin("table_init", "", "i32 %a, i32 %b, i64 %c, i64 %d, i64 %e", "m")}
  ret void
}}
; Recursion with small frames that makes a gate call at every depth, so that one of them is at the very end of the
; stack.
define dso_local swiftcc i32 @recurse_host(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{call_import(HOST, 0, "%h", ["%x"], "h", OFFSETS)}
  %n = add i32 %h, 1
  %r = call swiftcc i32 @recurse_host(ptr swiftself %vm, i32 %n)
  %s = add i32 %r, %x
  ret i32 %s
}}
define dso_local swiftcc i32 @recurse_move(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  call swiftcc void @move(ptr swiftself %vm, i32 512, i32 0, i32 100)
  %n = add i32 %x, 1
  %r = call swiftcc i32 @recurse_move(ptr swiftself %vm, i32 %n)
  %s = add i32 %r, %x
  ret i32 %s
}}
define dso_local swiftcc i32 @recurse_grow(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %g = call swiftcc i64 @grow(ptr swiftself %vm, i64 0)
  %n = add i32 %x, 1
  %r = call swiftcc i32 @recurse_grow(ptr swiftself %vm, i32 %n)
  %s = add i32 %r, %x
  ret i32 %s
}}
; Goes down to the depth %n with frames of about %pad bytes, then does what %what says at the end of the stack.
define dso_local swiftcc i32 @edge(ptr swiftself %vm, i32 %n, i32 %what) {ATTRIBUTES} {{
  %bottom = icmp eq i32 %n, 0
  br i1 %bottom, label %stop, label %down
stop:
  switch i32 %what, label %host [ i32 1, label %copy
                                  i32 2, label %bad
                                  i32 3, label %grown
                                  i32 4, label %memory ]
host:
{call_import(HOST, 0, "%h", ["%what"], "h", OFFSETS)}
  ret i32 %h
copy:
  call swiftcc void @move(ptr swiftself %vm, i32 512, i32 0, i32 100)
  ret i32 0
bad:
  %t = call swiftcc i32 @trap(ptr swiftself %vm, i32 9)
  ret i32 %t
grown:
  %g = call swiftcc i64 @grow(ptr swiftself %vm, i64 0)
  ret i32 0
memory:
  %l = call swiftcc i32 @load(ptr swiftself %vm, i32 1048576)
  ret i32 %l
down:
  %m = sub i32 %n, 1
  %r = call swiftcc i32 @edge(ptr swiftself %vm, i32 %m, i32 %what)
  %s = add i32 %r, 1
  ret i32 %s
}}
; Endless loops to interrupt.
define dso_local swiftcc i32 @leaf(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %a = xor i32 %x, 9
  ret i32 %a
}}
define dso_local swiftcc i32 @step(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %a = mul i32 %x, 31
  %b = or i32 %a, 1
  %c = call swiftcc i32 @leaf(ptr swiftself %vm, i32 %b)
  %d = or i32 %c, 1
  ret i32 %d
}}
define dso_local swiftcc i32 @endless_calls(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  br label %loop
loop:
  %i = phi i32 [%x, %0], [%j, %loop]
  %j = call swiftcc i32 @step(ptr swiftself %vm, i32 %i)
  %z = icmp eq i32 %j, -7778
  br i1 %z, label %out, label %loop
out:
  ret i32 %j
}}
define dso_local swiftcc i32 @endless(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  br label %loop
loop:
  br label %loop
}}
define dso_local swiftcc i32 @endless_host(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  br label %loop
loop:
  %i = phi i32 [%x, %0], [%k, %loop]
{call_import(HOST, 0, "%j", ["%i"], "h", OFFSETS)}
  %k = or i32 %j, 1
  %z = icmp eq i32 %k, -7778
  br i1 %z, label %out, label %loop
out:
  ret i32 %k
}}
define dso_local swiftcc i32 @host_then_endless(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{call_import(HOST, 0, "%j", ["%x"], "h", OFFSETS)}
  br label %loop
loop:
  br label %loop
}}
define dso_local swiftcc i32 @move_then_endless(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  call swiftcc void @move(ptr swiftself %vm, i32 512, i32 0, i32 %x)
  br label %loop
loop:
  br label %loop
}}
define dso_local swiftcc i32 @grow_then_endless(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %g = call swiftcc i64 @grow(ptr swiftself %vm, i64 0)
  br label %loop
loop:
  br label %loop
}}
; Calls a builtin that keeps registers, and gives a sum that tells whether it has: KEPT_SUM, whatever happens meanwhile.
define dso_local swiftcc i32 @keep(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{builtin_pointer("new_epoch", "m")}
  %s = call i64 asm sideeffect "{KEEP}", "={{rax}},{{rdi}},{{r11}},{KEEP_CLOBBERS}"(ptr %vm, ptr %m.f)
  %t = trunc i64 %s to i32
  ret i32 %t
}}
define dso_local swiftcc i32 @keep_then_endless(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
  %g = call swiftcc i32 @keep(ptr swiftself %vm, i32 0)
  br label %loop
loop:
  br label %loop
}}
define dso_local swiftcc i32 @recurse_keep(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{
{builtin_pointer("new_epoch", "m")}
  call preserve_mostcc void %m.f(ptr %vm)
  %n = add i32 %x, 1
  %r = call swiftcc i32 @recurse_keep(ptr swiftself %vm, i32 %n)
  %s = add i32 %r, %x
  ret i32 %s
}}
define dso_local swiftcc i32 @endless_move(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
  br label %loop
loop:
  call swiftcc void @move(ptr swiftself %vm, i32 1, i32 0, i32 %n)
  br label %loop
}}
; Work whose result depends on every integer register, the flags and the vector registers; %n rounds.
define dso_local swiftcc i32 @work(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
  br label %loop
loop:
  %i = phi i32 [%n, %0], [%i.next, %loop]
  %a = phi i64 [1, %0], [%a5, %loop]
  %b = phi i64 [2, %0], [%b5, %loop]
  %c = phi i64 [3, %0], [%c5, %loop]
  %d = phi i64 [4, %0], [%d5, %loop]
  %x = phi double [1.5, %0], [%x5, %loop]
  %v = phi <4 x i32> [<i32 1, i32 2, i32 3, i32 4>, %0], [%v5, %loop]
  %a1 = mul i64 %a, 6364136223846793005
  %a5 = add i64 %a1, %d
  %b1 = xor i64 %b, %a5
  %b5 = call i64 @llvm.fshl.i64(i64 %b1, i64 %b1, i64 13)
  %c1 = add i64 %c, %b5
  %c2 = icmp slt i64 %c1, %a5
  %c5 = select i1 %c2, i64 %c1, i64 %b5
  %d5 = sub i64 %d, %c5
  %x1 = fmul double %x, 1.0000001
  %x2 = fadd double %x1, 0.25
  %x5 = fdiv double %x2, 1.01
  %v1 = mul <4 x i32> %v, <i32 31, i32 37, i32 41, i32 43>
  %s = call swiftcc i32 @leaf(ptr swiftself %vm, i32 %i)
  %v2 = insertelement <4 x i32> poison, i32 %s, i32 0
  %v3 = shufflevector <4 x i32> %v2, <4 x i32> poison, <4 x i32> zeroinitializer
  %v5 = add <4 x i32> %v1, %v3
  %i.next = sub i32 %i, 1
  %done = icmp eq i32 %i.next, 0
  br i1 %done, label %out, label %loop
out:
  %sum1 = xor i64 %a5, %b5
  %sum2 = xor i64 %sum1, %c5
  %sum3 = xor i64 %sum2, %d5
  %xb = bitcast double %x5 to i64
  %sum4 = xor i64 %sum3, %xb
  %vb = bitcast <4 x i32> %v5 to <2 x i64>
  %v0 = extractelement <2 x i64> %vb, i32 0
  %v9 = extractelement <2 x i64> %vb, i32 1
  %sum5 = xor i64 %sum4, %v0
  %sum6 = xor i64 %sum5, %v9
  %r = trunc i64 %sum6 to i32
  ret i32 %r
}}
declare i64 @llvm.fshl.i64(i64, i64, i64)
; Values in the widest vector registers of this machine.
define dso_local swiftcc i32 @wide(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {WIDE} {{
  br label %loop
loop:
  %i = phi i32 [%n, %0], [%i.next, %loop]
  %a = phi <16 x i32> [<i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8,
      i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15, i32 16>, %0], [%a3, %loop]
  %v1 = insertelement <16 x i32> poison, i32 %i, i32 0
  %v2 = shufflevector <16 x i32> %v1, <16 x i32> poison, <16 x i32> zeroinitializer
  %a1 = mul <16 x i32> %a, %a
  %a2 = add <16 x i32> %a1, %v2
  %m = icmp slt <16 x i32> %a2, zeroinitializer
  %a3 = select <16 x i1> %m, <16 x i32> %a2, <16 x i32> %a1
  %i.next = sub i32 %i, 1
  %done = icmp eq i32 %i.next, 0
  br i1 %done, label %out, label %loop
out:
  %r = call i32 @llvm.vector.reduce.xor.v16i32(<16 x i32> %a3)
  ret i32 %r
}}
declare i32 @llvm.vector.reduce.xor.v16i32(<16 x i32>)
; A leaf function with its locals in the red zone, below rsp.
define dso_local swiftcc i32 @red_zone(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
  %cells = alloca [8 x i64]
  %last = getelementptr i64, ptr %cells, i64 7
  store volatile i64 0, ptr %cells
  store volatile i64 0, ptr %last
  br label %loop
loop:
  %i = phi i32 [%n, %0], [%i.next, %loop]
  %z = zext i32 %i to i64
  %a = load volatile i64, ptr %cells
  %b = mul i64 %a, 31
  %c = add i64 %b, %z
  store volatile i64 %c, ptr %cells
  %d = load volatile i64, ptr %last
  %e = xor i64 %d, %c
  store volatile i64 %e, ptr %last
  %i.next = sub i32 %i, 1
  %done = icmp eq i32 %i.next, 0
  br i1 %done, label %out, label %loop
out:
  %r = load volatile i64, ptr %last
  %t = trunc i64 %r to i32
  ret i32 %t
}}
; A loop of calls whose arguments and results travel in the areas of the store context.
define dso_local swiftcc i32 @area_loop(ptr swiftself %vm, i32 %n) {ATTRIBUTES} {{
  %ca = getelementptr i8, ptr %vm, i64 {VMContextOffsets.STORE_CONTEXT}
  %c = load ptr, ptr %ca
  %oa = getelementptr i8, ptr %c, i64 {StoreContext.OVERFLOW_AREA}
  %ra = getelementptr i8, ptr %c, i64 {StoreContext.RESULTS_AREA}
  br label %loop
loop:
  %i = phi i32 [%n, %0], [%i.next, %loop]
  %a = phi i32 [0, %0], [%r, %loop]
  store volatile i32 %a, ptr %oa
  call swiftcc void @area_step(ptr swiftself %vm, i32 %i)
  %r = load volatile i32, ptr %ra
  %i.next = sub i32 %i, 1
  %done = icmp eq i32 %i.next, 0
  br i1 %done, label %out, label %loop
out:
  ret i32 %r
}}
define dso_local swiftcc void @area_step(ptr swiftself %vm, i32 %i) {ATTRIBUTES} {{
  %ca = getelementptr i8, ptr %vm, i64 {VMContextOffsets.STORE_CONTEXT}
  %c = load ptr, ptr %ca
  %oa = getelementptr i8, ptr %c, i64 {StoreContext.OVERFLOW_AREA}
  %ra = getelementptr i8, ptr %c, i64 {StoreContext.RESULTS_AREA}
  %a = load volatile i32, ptr %oa
  %m = mul i32 %a, 1103515245
  %s = add i32 %m, %i
  store volatile i32 %s, ptr %ra
  ret void
}}
"""

VOID_III = ft("iii", "")
TABLE_INIT = ft("iiIII", "")


GUEST_FILE = "WASMFORGE_TEST_GUEST"
"""Environment variable: a file with the compiled functions, so that processes started by tests need no LLVM."""


@cache
def code() -> Code:
    """All of it, compiled, mapped and registered."""
    file = os.environ.get(GUEST_FILE)
    if file is not None:
        return Code(decode(Path(file).read_bytes())[0])
    return Code(decode(compiled())[0])


@cache
def compiled() -> bytes:
    """The functions as the file that GUEST_FILE names."""
    return encode(link(compile_ir(text()), bytes(32)))


def text() -> str:
    parts = [IR, *map(_recurse, FRAMES)]
    parts.append(_binary("add", "i32", "add"))
    parts.append(_binary("add64", "i64", "add"))
    parts.append(_binary("addf", "float", "fadd"))
    parts.append(_binary("addF", "double", "fadd"))
    parts.append(_identity("same_r", "r", "r", [0]))
    parts.append(_identity("same_x", "x", "x", [0]))
    parts.append(_identity("swap", "iIfF", "FfIi", [3, 2, 1, 0]))
    parts.append(_identity("mixed", MIXED, MIXED, list(range(len(MIXED)))))
    parts.append(_identity("many", MANY_PARAMS, MANY_RESULTS, list(range(len(MANY_PARAMS)))))
    signatures = {*SIGNATURES.values(), HOST, HOST_MANY, VOID_III, TABLE_INIT, ft("I", "I")}
    parts.extend(map(array_to_wasm, signatures))
    parts.extend(map(wasm_to_array, (HOST, HOST_MANY, SIGNATURES["mixed"], SIGNATURES["many"])))
    return "\n".join(parts)
