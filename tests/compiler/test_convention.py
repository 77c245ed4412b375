"""The internal calling convention, from both sides: code of the LLVM compiler calls hand-written assembly and is
called by it, with random signatures, and every argument, every result and every preserved register is compared.

The assembly is generated from the rules in `compiler.environ` alone. A baseline compiler has to pass the same tests.
"""

from __future__ import annotations

import ctypes
import random

import pytest

from tests.compiler.machine import Machine, Mapping, assemble, executable
from wasmforge.compiler.baseline import compile_module as baseline_module
from wasmforge.compiler.environ import (
    INTEGER_ARGUMENTS,
    INTEGER_RESULTS,
    VALRAW_SIZE,
    Location,
    StoreContext,
    Tunables,
    VMContextOffsets,
    VMFunctionImport,
    assign_params,
    assign_results,
)
from wasmforge.compiler.llvm import compile_module as llvm_module
from wasmforge.syntax.types import VALUE_TYPES, ExternKind, FuncType, ValType

TYPES = list(VALUE_TYPES)
PRESERVED = ("rbx", "r12", "r13", "r14", "r15")
CLOBBERED = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")
SIGNATURES = 40


def random_signature(rng: random.Random) -> FuncType:
    params = tuple(rng.choice(TYPES) for _ in range(rng.choice((0, 1, 3, 7, 12, 20, 30))))
    results = tuple(rng.choice(TYPES) for _ in range(rng.choice((0, 1, 2, 3, 5, 9))))
    return FuncType(params, results)


def mask(t: ValType) -> int:
    if VALUE_TYPES[t] == "v128":
        return (1 << 128) - 1
    return 0xFFFF_FFFF if VALUE_TYPES[t] in ("i32", "f32", "externref") else (1 << 64) - 1


def move_in(location: Location, registers: tuple[str, ...], area: int, source: str) -> list[str]:
    """Assembly that loads a value from [source] to where it travels; r10 holds the store context."""
    if location.kind == "integer":
        return [f"mov {registers[location.index]}, [{source}]"]
    if location.kind == "vector":
        return [f"movdqu xmm{location.index}, [{source}]"]
    to = area + VALRAW_SIZE * location.index
    return [line for k in (0, 8) for line in (f"mov rax, [{source} + {k}]", f"mov [r10 + {to + k}], rax")]


def move_out(location: Location, registers: tuple[str, ...], area: int, target: str, scratch: str) -> list[str]:
    if location.kind == "integer":
        return [f"mov [{target}], {registers[location.index]}"]
    if location.kind == "vector":
        return [f"movdqu [{target}], xmm{location.index}"]
    at = area + VALRAW_SIZE * location.index
    return [line for k in (0, 8) for line in (f"mov {scratch}, [r10 + {at + k}]", f"mov [{target} + {k}], {scratch}")]


def caller(ft: FuncType) -> str:
    """`caller(buffer, vmctx, function)` in the C convention: calls with the arguments in the buffer, stores the results
    behind them, and returns 0, or 1 when a register that the callee preserves has changed.

    r11 and the frame survive nothing, so the buffer's address is kept on the stack.
    """
    buffer_results = VALRAW_SIZE * len(ft.params)
    lines = [".globl caller", "caller:", "push rbp", "mov rbp, rsp"]
    lines += [f"push {r}" for r in PRESERVED]
    lines += ["push rdi", "push rdx", "sub rsp, 8"]
    lines += ["mov r13, rsi", f"mov r10, [rsi + {VMContextOffsets.STORE_CONTEXT}]", "mov r11, rdi"]
    for k, location in enumerate(assign_params(ft)):
        if location.kind == "area":
            lines += move_in(location, INTEGER_ARGUMENTS, StoreContext.OVERFLOW_AREA, f"r11 + {VALRAW_SIZE * k}")
    for k, location in enumerate(assign_params(ft)):
        if location.kind != "area":
            lines += move_in(location, INTEGER_ARGUMENTS, 0, f"r11 + {VALRAW_SIZE * k}")
    lines += [f"mov {r}, {0x1111 * (k + 1)}" for k, r in enumerate(PRESERVED) if r != "r13"]
    lines += ["mov rax, [rsp + 8]", "mov [rsp], r13", "call rax", "mov r11, [rsp + 16]"]
    for k, location in enumerate(assign_results(ft)):
        if location.kind != "area":
            lines += move_out(location, INTEGER_RESULTS, 0, f"r11 + {buffer_results + VALRAW_SIZE * k}", "rax")
    lines += ["mov rdi, [rsp]", f"mov r10, [rdi + {VMContextOffsets.STORE_CONTEXT}]"]
    for k, location in enumerate(assign_results(ft)):
        if location.kind == "area":
            target = f"r11 + {buffer_results + VALRAW_SIZE * k}"
            lines += move_out(location, INTEGER_RESULTS, StoreContext.RESULTS_AREA, target, "rax")
    lines += ["mov eax, 1", "cmp r13, rdi", "jne done"]
    for k, register in enumerate(PRESERVED):
        if register != "r13":
            lines += [f"cmp {register}, {0x1111 * (k + 1)}", "jne done"]
    lines += ["lea rdi, [rbp - 64]", "cmp rdi, rsp", "jne done", "xor eax, eax", "done:", "lea rsp, [rbp - 40]"]
    lines += [f"pop {r}" for r in reversed(PRESERVED)]
    return "\n".join([*lines, "pop rbp", "ret"])


def callee(ft: FuncType) -> str:
    """A function of the type in assembly: stores its arguments in a buffer (its address stands where the vmctx's
    builtins would be), takes its results from behind them, and ruins every register that it may.

    Returns to nowhere if the stack is not aligned, the direction flag set or the caller's vmctx not in r10.
    """
    lines = [".globl callee", "callee:", "push rbp", "mov rbp, rsp", f"mov r11, [r13 + {VMContextOffsets.BUILTINS}]"]
    lines += ["mov rax, rsp", "and eax, 15", "jne bad", f"cmp r10, [r13 + {VMContextOffsets.GC_HEAP}]", "jne bad"]
    lines += ["pushfq", "pop rax", "test eax, 0x400", "jne bad", f"mov r10, [r13 + {VMContextOffsets.STORE_CONTEXT}]"]
    for k, location in enumerate(assign_params(ft)):
        lines += move_out(location, INTEGER_ARGUMENTS, StoreContext.OVERFLOW_AREA, f"r11 + {VALRAW_SIZE * k}", "rax")
    results = assign_results(ft)
    base = VALRAW_SIZE * len(ft.params)
    for k, location in enumerate(results):
        if location.kind == "area":
            lines += move_in(location, INTEGER_RESULTS, StoreContext.RESULTS_AREA, f"r11 + {base + VALRAW_SIZE * k}")
    # The upper halves of the vector registers and all that carries no result is undefined for the caller.
    lines += [f"pcmpeqd xmm{k}, xmm{k}" for k in range(16)]
    lines += [f"mov {r}, -1" for r in CLOBBERED if r not in ("r11", "r10")]
    for k, location in enumerate(results):
        if location.kind != "area":
            lines += move_in(location, INTEGER_RESULTS, 0, f"r11 + {base + VALRAW_SIZE * k}")
    return "\n".join([*lines, "mov r10, -1", "mov r11, -1", "pop rbp", "ret", "bad:", "ud2"])


def peek(machine: Machine, address: int) -> int:
    """A whole slot."""
    return machine.peek(address) | machine.peek(address + 8) << 64


def text_types(types: tuple[ValType, ...]) -> str:
    return " ".join(VALUE_TYPES[t] for t in types)


def rotated(ft: FuncType) -> FuncType:
    """The type with its first parameter last."""
    return FuncType(ft.params[1:] + ft.params[:1], ft.results)


class Shuffled:
    """A function type, and another one with its parameters and results in another order."""

    def __init__(self, rng: random.Random) -> None:
        self.outer = random_signature(rng)
        self.params = list(range(len(self.outer.params)))
        self.results = list(range(len(self.outer.results)))
        rng.shuffle(self.params)
        rng.shuffle(self.results)
        self.inner = FuncType(
            tuple(self.outer.params[k] for k in self.params), tuple(self.outer.results[k] for k in self.results)
        )


def module_text(signature: Shuffled, how: str) -> str:
    """`pass` hands its parameters to the import in another order, and returns in another order what that returns: the
    compiled code is callee and caller at once. It keeps values alive across the call. Without the shuffling, code
    that reads and writes an area with the same mistake would leave every value where it belongs."""
    outer, inner = signature.outer, signature.inner
    arguments = " ".join(f"local.get {k}" for k in signature.params)
    spare = " ".join(f"(local.set $a{k} (i64.add (local.get $a{k}) (global.get $g)))" for k in range(6))
    kept = " ".join(f"(global.set $g (i64.add (global.get $g) (local.get $a{k})))" for k in range(6))
    results = " ".join(f"(local $r{k} {VALUE_TYPES[t]})" for k, t in enumerate(outer.results))
    take = " ".join(f"local.set $r{k}" for k in reversed(signature.results))
    give = " ".join(f"local.get $r{k}" for k in range(len(outer.results)))
    call = "call $imported" if how == "import" else "call $middle"
    last = rotated(inner) if how == "tail" else inner
    middle = " ".join(f"local.get {k}" for k in range(len(inner.params)))
    if how == "tail":
        order = [(k + 1) % len(inner.params) for k in range(len(inner.params))]
        middle = " ".join(f"local.get {k}" for k in order)
    return f"""(module
      (type $outer (func (param {text_types(outer.params)}) (result {text_types(outer.results)})))
      (type $inner (func (param {text_types(inner.params)}) (result {text_types(inner.results)})))
      (type $last (func (param {text_types(last.params)}) (result {text_types(last.results)})))
      (import "" "f" (func $imported (type $last)))
      (global $g (mut i64) (i64.const 0))
      (func $middle (export "middle") (type $inner)
        {middle} {"return_call" if how == "tail" else "call"} $imported)
      (func (export "pass") (type $outer) {results} {" ".join(f"(local $a{k} i64)" for k in range(6))}
        {spare} {arguments} {call} {take} {kept} {give}))"""


@pytest.mark.parametrize("how", ["import", "direct", "tail"])
@pytest.mark.parametrize("compiler", ["speed", "none", "baseline"])
def test_random_signatures_against_assembly(how: str, compiler: str) -> None:
    """With `tail`, the function between the two pieces of assembly leaves by a tail call of another instance, whose
    vmctx stays in r13 (rule 1), with its arguments in other places than it got them."""
    rng = random.Random({"import": 7, "direct": 8, "tail": 9}[how])
    optimization = "speed" if compiler == "baseline" else compiler
    compile_module = baseline_module if compiler == "baseline" else llvm_module
    for _ in range(SIGNATURES // 4):
        signature = Shuffled(rng)
        outer, inner = signature.outer, signature.inner
        tunables = Tunables(optimization=optimization)
        machine = Machine(module_text(signature, how), tunables, compiler=compile_module)
        last = rotated(inner) if how == "tail" else inner
        code, symbols = assemble(caller(outer) + "\n" + callee(last))
        mapping = executable(code)
        received = Mapping(VALRAW_SIZE * (len(inner.params) + len(inner.results)) + 16)
        # The import's record: the function, and a "vmctx" of its own, whose fields tell it what to expect.
        other = Mapping(VMContextOffsets.HEADER_SIZE)
        vm = machine.vmctx.address
        machine.poke(other.address + VMContextOffsets.STORE_CONTEXT, machine.store.address)
        machine.poke(other.address + VMContextOffsets.BUILTINS, received.address)
        machine.poke(other.address + VMContextOffsets.GC_HEAP, vm)
        record = vm + machine.offsets.imported_function(0)
        machine.poke(record + VMFunctionImport.WASM_CALL, mapping.address + symbols["callee"])
        machine.poke(record + VMFunctionImport.VMCTX, other.address)
        index = next(e.index for e in machine.info.exports if e.name == "pass" and e.kind == ExternKind.FUNC)
        target = machine.code.address + machine.info.function_range(index - 1).start
        call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)(mapping.address + symbols["caller"])
        for _ in range(3):
            sent = [rng.getrandbits(128) for _ in outer.params]
            returned = [rng.getrandbits(128) for _ in inner.results]
            buffer = Mapping(VALRAW_SIZE * (len(sent) + len(returned)) + 16)
            for k, value in enumerate(sent):
                buffer.write(VALRAW_SIZE * k, value.to_bytes(16, "little"))
            for k, value in enumerate(returned):
                received.write(VALRAW_SIZE * (len(sent) + k), value.to_bytes(16, "little"))
            assert call(buffer.address, vm, target) == 0, f"{outer}: a preserved register changed"
            origins = signature.params[1:] + signature.params[:1] if how == "tail" else signature.params
            for k, (origin, t) in enumerate(zip(origins, last.params, strict=True)):
                got = peek(machine, received.address + VALRAW_SIZE * k)
                assert got & mask(t) == sent[origin] & mask(t), f"{inner}: parameter {k}"
            for k, (target_index, t) in enumerate(zip(signature.results, inner.results, strict=True)):
                got = peek(machine, buffer.address + VALRAW_SIZE * (len(sent) + target_index))
                assert got & mask(t) == returned[k] & mask(t), f"{outer}: result {target_index}"
            buffer.close()


def test_array_calls_carry_every_signature() -> None:
    """The array-to-wasm trampolines: arguments and results of a function that returns what it got."""
    rng = random.Random(11)
    for _ in range(SIGNATURES // 4):
        types = tuple(rng.choice(TYPES) for _ in range(rng.choice((1, 2, 3, 6, 9, 30))))
        order = list(range(len(types)))
        rng.shuffle(order)
        results = " ".join(VALUE_TYPES[types[k]] for k in order)
        body = " ".join(f"local.get {k}" for k in order)
        machine = Machine(f'(module (func (export "f") (param {text_types(types)}) (result {results}) {body}))')
        values = [rng.getrandbits(128) & mask(t) for t in types]
        assert machine.call("f", *values) == [values[k] for k in order]


def test_a_thousand_parameters_and_results() -> None:
    """The validator's limits, and the size of the areas in the store context."""
    kinds = " ".join(["i64"] * 1000)
    body = " ".join(f"local.get {k}" for k in range(1000))
    machine = Machine(
        f"""(module (func $f (param {kinds}) (result {kinds}) {body})
          (func (export "f") (param {kinds}) (result {kinds}) {body} call $f))"""
    )
    values = [k * 0x0123_4567_89AB for k in range(1000)]
    assert machine.call("f", *values) == values
