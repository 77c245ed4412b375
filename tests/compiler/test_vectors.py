"""Vectors in the LLVM tier: every access traps exactly, floats are opaque, and the code is what the rows promise."""

from __future__ import annotations

import functools

from wasmforge import Config, Engine, Func, Instance, Module, Store, Trap
from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow
from wasmforge.syntax.types import V128, VALUE_TYPES

PAGE = 65536
VECTORS = [row for row in INSTRUCTIONS if row.opcode >> 12 == 0xFD]
COMPUTING = [row for row in VECTORS if not row.access and row.params and V128 in row.params]
ACCESSES = [row for row in VECTORS if row.access]


@functools.cache
def engine(deterministic: bool = False) -> Engine:
    config = Config()
    config.wasm_relaxed_simd_deterministic = deterministic
    return Engine(config)


def instance(text: str, deterministic: bool = False) -> tuple[Store, dict[str, Func]]:
    store = Store(engine(deterministic))
    made = Instance(store, Module(store.engine, text), [])
    return store, {name: item for name, item in made.exports(store).items() if isinstance(item, Func)}


def immediates(row: InstructionRow) -> str:
    if Immediate.LANES in row.immediates:
        return " 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23"
    return " 0" if Immediate.LANE in row.immediates else ""


def operand(t: int, k: int, address: str) -> str:
    """The k-th operand: vectors from memory, the first one from the address under test."""
    if t == V128:
        return f"(v128.load (local.get {k if address == 'each' else 0}))"
    return f"({VALUE_TYPES[t]}.const 1)"  # type: ignore[index]


def test_no_load_of_sixteen_bytes_becomes_a_smaller_one() -> None:
    """x86 can fold a load into the instruction that consumes it, and some of these read eight bytes or fewer
    (pmovsxbw, cvtdq2pd, cvtps2pd, movddup). A load that reaches out of the memory traps all the same (4.6.8)."""
    functions = []
    uses = {
        f"{s}.extract_lane 0": t for s, t in (("i32x4", "i32"), ("i64x2", "i64"), ("f32x4", "f32"), ("f64x2", "f64"))
    }
    uses[""] = "v128"
    for row in COMPUTING:
        assert row.params is not None and row.results is not None
        for which in [k for k, t in enumerate(row.params) if t == V128]:
            operands = " ".join(
                ("(v128.load (local.get 0))" if k == which else "(v128.load (i32.const 0))")
                if t == V128
                else f"({VALUE_TYPES[t]}.const 1)"
                for k, t in enumerate(row.params)
            )
            expression = f"({row.mnemonic}{immediates(row)} {operands})"
            for use, result in uses.items():
                if row.results[0] != V128 and use:
                    continue
                shown = VALUE_TYPES[row.results[0]] if not use else result
                body = f"({use} {expression})" if use else expression
                name = f"{row.mnemonic} {which} {use}"
                functions.append(f'(func (export "{name}") (param i32) (result {shown}) {body})')
    store, exports = instance(f"(module (memory 1 1) {' '.join(functions)})")
    assert len(exports) > 600
    silent = []
    for name, function in exports.items():
        function(store, PAGE - 16)
        for address in (PAGE - 15, PAGE - 12, PAGE - 8, PAGE - 4, PAGE - 1):
            try:
                function(store, address)
                silent.append((name, PAGE - address))
            except Trap:
                pass
    assert "".join(sorted({name + "\n" for name, _ in silent})) == ""
