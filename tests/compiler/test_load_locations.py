"""What consumes a load may become one machine instruction with it, which then faults in its stead. Whatever LLVM did in
between (blocks merged, locals and phis resolved, code executed speculatively), that instruction must be known to fault,
and to be the load (specification, section 4.6.8: an access that is out of bounds traps).

Every consumer behind loads of all kinds, one a function, in shapes of control flow that passes dissolve. The load has
an offset that nothing else has, which tells its machine instruction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import pytest

from tests.compiler.test_positions import FIRST_OFFSET, Disassembly, accesses, pipeline, with_positions
from tests.compiler.test_vectors import immediates
from wasmforge import Config, Engine, Func, Instance, Module, Store, Trap, TrapCode
from wasmforge.binary import decode, encode, instructions
from wasmforge.compiler.tables import trap_table
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.features import ALL_FEATURES, Feature
from wasmforge.syntax.instructions import INSTRUCTIONS, InstructionRow
from wasmforge.syntax.types import I32, I64, VALUE_TYPES

__all__ = ["pipeline"]

CONSUMERS: Final = [r for r in INSTRUCTIONS if r.params and r.results and not r.access and r.params[0] in VALUE_TYPES]
KINDS: Final = {
    t: [r for r in INSTRUCTIONS if r.access and r.results == (t,) and r.params and len(r.params) == 1]
    for t in VALUE_TYPES
}
"""The loads of a type; of vectors also those that extend, splat or fill with zeros."""

SHAPES: Final = {
    "at once": "(local.set $x {load}) {consume}",
    "behind a branch": "(if (i32.eqz (global.get 0)) (then (unreachable)))"
    " (global.set 0 (i32.sub (global.get 0) (i32.const 1))) (local.set $x {load}) {consume}",
    # The blocks become one, and the local is what was loaded.
    "merged": "(block (local.set $x {load}) (br_if 0 (i32.const 1)) (local.set $x (local.get $y))) {consume}",
    "phi": "(local.set $x (block (result {type}) (if (result {type}) (i32.const 1) (then {load})"
    " (else (local.get $y))))) {consume}",
    # The consumer runs whether it is wanted or not, as a select is cheaper than a branch.
    "speculated": "(local.set $x {load}) (if (local.get $c) (then (local.set $r {consume}))) (local.get $r)",
    "either": "(local.set $x {load})"
    " (if (result {result}) (local.get $c) (then {consume}) (else (local.get $r)))",
}  # fmt: skip


def functions() -> Iterator[tuple[str, str]]:
    """What a function holds, and its text."""
    turns = {t: itertools.cycle(kinds) for t, kinds in KINDS.items() if kinds}
    for row in CONSUMERS:
        assert row.params is not None and row.results is not None
        for which, (shape, text) in itertools.product({0, len(row.params) - 1}, SHAPES.items()):
            if len(row.results) > 1 and ("$r" in text):
                continue
            yield function(row, which, shape, text, next(turns[row.params[which]]))


def function(row: InstructionRow, which: int, shape: str, text: str, load: InstructionRow) -> tuple[str, str]:
    assert row.params is not None and row.results is not None
    types = [VALUE_TYPES[t] for t in row.params]
    operands = " ".join("(local.get $x)" if k == which else f"(local.get $p{k})" for k in range(len(types)))
    body = text.format(
        load=f"({load.mnemonic} offset={FIRST_OFFSET:#x} (local.get $a))",
        consume=f"({row.mnemonic}{immediates(row)} {operands})",
        type=types[which],
        result=VALUE_TYPES[row.results[0]],
    )
    params = " ".join(f"(param $p{k} {t})" for k, t in enumerate(types))
    results = " ".join(VALUE_TYPES[t] for t in row.results)
    result = VALUE_TYPES[row.results[0]]
    header = f"(func (param $a i32) (param $c i32) {params} (param $y {types[which]}) (param $r {result})"
    text = f"{header} (result {results}) (local $x {types[which]}) {body})"
    return f"{row.mnemonic} of {load.mnemonic} as operand {which}, {shape}", text


@pytest.mark.usefixtures("pipeline")
def test_what_consumes_a_load_has_its_position() -> None:
    names, texts = zip(*functions(), strict=True)
    module = with_positions(f"(module (memory 1) (global (mut i32) (i32.const 9)) {' '.join(texts)})")
    compiled = Disassembly(module, features=ALL_FEATURES)
    assert len(names) > 1500
    for k, (name, body) in enumerate(zip(names, module.code, strict=True)):
        (position,) = [i.offset for i in instructions(body.code, body.offset) if i.row.access]
        found = [i for i, displacement in accesses(compiled.function(k)) if displacement == FIRST_OFFSET]
        assert found, name
        for machine in found:
            what = f"{name}: {machine.mnemonic} {machine.op_str}"
            assert trap_table.lookup(compiled.traps, machine.address) == TrapKind.MEMORY_OUT_OF_BOUNDS, what
            assert compiled.position(machine.address) == position, what


def test_the_trap_itself() -> None:
    """Code that is executed speculatively, as a program meets it."""
    config = Config()
    config.strategy = "llvm"
    store = Store(Engine(config))
    text = """(module (memory 1 1) (func (export "f") (param i32 i32 i32) (result i32)
        (local.set 0 (i32.load (local.get 0)))
        (if (local.get 1) (then (local.set 2 (i32.add (local.get 2) (local.get 0)))))
        (local.get 2)))"""
    f = Instance(store, Module(store.engine, text), []).exports(store)["f"]
    assert isinstance(f, Func)
    assert f(store, 0, 1, 5) == 5
    for condition in (0, 1):
        with pytest.raises(Trap) as caught:
            f(store, 65536, condition, 5)
        assert caught.value.trap_code == TrapCode.MEMORY_OUT_OF_BOUNDS


MASKED: Final = [r.mnemonic for t in (I32, I64) for r in KINDS[t] if r.feature != Feature.THREADS and r.access < 8]


@pytest.mark.parametrize("load", MASKED)
def test_a_load_whose_bits_are_cut_and_become_an_address(load: str) -> None:
    """LLVM widens such a load, which loses its location, and the next machine instruction need not be its consumer; nor
    need any before it have a location. Wide enough masks do not matter, narrow ones do."""
    config = Config()
    config.strategy = "llvm"
    store = Store(Engine(config))
    index = "(local.get $x)" if load[:3] == "i32" else "(i32.wrap_i64 (local.get $x))"
    texts = [
        f"""(func (export "f{mask}") (param i32) (result i32) (local $x {load[:3]})
        (global.set 0 (i32.sub (global.get 0) (i32.const 1)))
        (local.set $x ({load} (local.get 0)))
        (drop (i32.atomic.rmw.xchg (i32.const 0) (i32.const 255)))
        (i32.load8_u (i32.and {index} (i32.const {mask}))))"""
        for mask in (5, 127, 32764, 65535)
    ]
    text = f"(module (memory 1 1) (global (mut i32) (i32.const 0)) {' '.join(texts)})"
    module = with_positions(text)
    exports = Instance(store, Module(store.engine, encode(module)), []).exports(store)
    for export, body in zip(module.exports, decode(encode(module)).code, strict=True):
        position = next(i.offset for i in instructions(body.code, body.offset) if i.row.mnemonic == load)
        with pytest.raises(Trap) as caught:
            exports[export.name](store, -1)
        assert caught.value.trap_code == TrapCode.MEMORY_OUT_OF_BOUNDS
        assert [frame.module_offset for frame in caught.value.frames] == [position], export.name


NARROW: Final = [r.mnemonic for t in (I32, I64) for r in KINDS[t] if r.mnemonic.endswith("_u") and r.access < 8]
STORES: Final = {"i32": ("i32.store", "i32.store16", "i32.store8"), "i64": ("i64.store", "i64.store32", "i64.store8")}


def positions_of_traps(functions: list[str], address: int) -> list[tuple[list[int], list[int]]]:
    """Of each function, where its accesses stand, and where it traps when it is called with an address."""
    config = Config()
    config.strategy = "llvm"
    store = Store(Engine(config))
    texts = [f'(func (export "f{k}") {text})' for k, text in enumerate(functions)]
    binary = encode(with_positions(f"(module (memory 1 1) {' '.join(texts)})"))
    exports = Instance(store, Module(store.engine, binary), []).exports(store)
    found = []
    for k, body in enumerate(decode(binary).code):
        with pytest.raises(Trap) as caught:
            exports[f"f{k}"](store, address, 0)
        places = [i.offset for i in instructions(body.code, body.offset) if i.row.access]
        found.append((places, [frame.module_offset for frame in caught.value.frames]))
    return found


@pytest.mark.parametrize("load", NARROW)
def test_loads_that_are_combined_bit_by_bit(load: str) -> None:
    """LLVM widens them when the result is widened, and forgets where they stood."""
    t = load[:3]
    signature = f"(param $a i32) (param $b i32) (result {t})"
    functions = [
        f"{signature} ({t}.sub ({t}.const -7) ({t}.{operator} ({load} (local.get $a)) ({load} (local.get {second}))))"
        for operator in ("and", "or", "xor")
        for second in ("$a", "$b")
    ]
    for places, trapped in positions_of_traps(functions, -1):
        assert trapped == places[:1]


@pytest.mark.parametrize("t", ["i32", "i64"])
def test_a_load_and_a_store_that_become_one_instruction(t: str) -> None:
    """It is the load that traps."""
    functions = [
        f"(param i32 i32) ({store} offset=8 (local.get 0) ({t}.{operation} ({t}.load{store[9:] and store[9:] + '_u'} "
        f"offset=8 (local.get 0)) ({t}.const 1)))"
        for store in STORES[t]
        for operation in ("add", "xor", "shr_u")
    ]
    for places, trapped in positions_of_traps(functions, -1):
        assert trapped == places[:1]


def test_a_location_stays_in_its_function() -> None:
    """Of a switch it stands behind the cases. LLVM forgets all locations of a module in which one is in the wrong
    function, and then no fault would be a trap."""
    config = Config()
    config.strategy = "llvm"
    store = Store(Engine(config))
    switch = "(block $a (block $b (block $c (br_table $a $b $c $a $c $b $c $a {})) (return (i32.const 3)))"
    switch += " (global.set 0 (i32.const 2)) (return (i32.const 2)))"
    texts = [
        f'(func (export "{name}") (param i32) (result i32) {switch.format(index)} (i32.load (local.get 0)))'
        for name, index in (("loaded", "(i32.load (i32.const 8))"), ("plain", "(local.get 0)"))
    ]
    exports = Instance(
        store, Module(store.engine, f"(module (memory 1) (global (mut i32) (i32.const 0)) {' '.join(texts)})"), []
    ).exports(store)
    assert exports["plain"](store, 1) == 2
    with pytest.raises(Trap) as caught:
        exports["loaded"](store, -1)
    assert caught.value.trap_code == TrapCode.MEMORY_OUT_OF_BOUNDS
