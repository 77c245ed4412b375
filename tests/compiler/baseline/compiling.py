"""From text to machine code of single functions, for tests of the baseline compiler, and back to assembly."""

from __future__ import annotations

from functools import cache
from typing import Any

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from wasmforge.binary import decode, encode
from wasmforge.compiler.baseline import CompiledFunction, Compiler, Context
from wasmforge.compiler.environ import Tunables
from wasmforge.syntax.module import Module
from wasmforge.text import parse
from wasmforge.validation import validate


@cache
def _disassembler() -> Any:
    return Cs(CS_ARCH_X86, CS_MODE_64)


def disassemble(code: bytes) -> list[str]:
    """One line an instruction, `offset: mnemonic operands`; ends where the bytes stop being instructions."""
    return [f"{i.address:4x}: {i.mnemonic} {i.op_str}".rstrip() for i in _disassembler().disasm(code, 0)]


def compiler(module: Module, **tunables: Any) -> Compiler:
    """A compiler for a module, which is validated first, with every proposal allowed."""
    settings = Tunables(**{"features": -1, **tunables})
    facts = validate(module, settings.features)
    context = Context(module, sorted(facts.escaping), facts.tail_callers, settings)
    context.has_bmi = context.has_avx = True  # the same code on every computer
    return Compiler(context)


def functions(text: str, **tunables: Any) -> list[CompiledFunction]:
    """The functions that a module in the text format defines."""
    module = decode(encode(parse(text)))
    made = compiler(module, **tunables)
    first = made.context.imported_functions
    return [made.compile_function(first + k) for k in range(len(module.code))]


def instructions(code: bytes) -> list[str]:
    """The code up to the last `ret`, `jmp` or trap call: without constants and tables."""
    lines = disassemble(code)
    ends = [k for k, line in enumerate(lines) if " ret" in line or "call qword ptr [rax]" in line]
    return lines[: ends[-1] + 1]
