"""Where the code of a loop begins in a cache line does not depend on the length of the code before it: an interpreter
loop whose head straddles two lines took 1.6 times as long, by luck.
"""

from __future__ import annotations

from tests.compiler.test_positions import Disassembly, with_positions
from wasmforge.compiler.llvm.compile import CHUNK_INSTRUCTIONS

LINE = 64
STORE = "(i32.store (local.get 0) (local.get 1))"
LOOP = "(loop (br_if 0 (local.tee 0 (i32.sub (i32.load (local.get 0)) (i32.const 1)))))"


def loop_heads(compiled: Disassembly, functions: int) -> list[int]:
    """Where backward jumps lead to."""
    return [
        jump.operands[0].imm
        for k in range(functions)
        for jump in compiled.function(k)
        if jump.mnemonic.startswith("j") and jump.operands[0].imm <= jump.address
    ]


def test_no_loop_begins_in_the_second_half_of_a_cache_line() -> None:
    functions = [f"(func (param i32 i32) {STORE * k} {LOOP})" for k in range(80)]
    module = with_positions(f"(module (memory 1) {' '.join(functions)})")
    assert sum(len(body.code) for body in module.code) > 2 * CHUNK_INSTRUCTIONS  # more than one chunk
    heads = loop_heads(Disassembly(module), len(functions))
    assert len(heads) == len(functions)
    assert {head % LINE for head in heads if head % LINE > LINE // 2} == set()
    assert len({head % LINE for head in heads}) > 10  # no more than that: the first half is as good as its start
