"""What the translator remembers across blocks, the values of locals and the addresses made from them, is forgotten
wherever another path could have changed it. Each function would give something else if one assignment were missed."""

from __future__ import annotations

import pytest

from tests.compiler.machine import Machine
from wasmforge.compiler.environ import Tunables

DATA = (
    '(memory 1) (data (i32.const 0) "\\01\\00\\00\\00\\02\\00\\00\\00\\03\\00\\00\\00\\04\\00\\00\\00\\05\\00\\00\\00")'
)

CASES = {
    "assigned in a loop, read at its start": (
        ("(param i32) (result i32) (local i32)"
        "(loop (local.set 1 (i32.add (local.get 1) (i32.load (local.get 0))))"
        " (local.set 0 (i32.sub (local.get 0) (i32.const 4))) (br_if 0 (i32.ge_s (local.get 0) (i32.const 0))))"
        "(local.get 1)"),
        [((16,), 15), ((8,), 6), ((0,), 1)],
    ),
    "assigned in an inner loop, read in the outer one": (
        ("(param i32) (result i32) (local i32 i32)"
        "(loop (local.set 2 (i32.add (local.get 2) (i32.load (local.get 1))))"
        " (loop (local.set 1 (i32.add (local.get 1) (i32.const 4)))"
        "  (br_if 0 (i32.and (local.get 1) (i32.const 4))))"
        " (br_if 0 (i32.lt_u (local.get 1) (local.get 0))))"
        "(local.get 2)"),
        [((16,), 4), ((17,), 9), ((8,), 1)],
    ),
    "assigned in one arm only": (
        ("(param i32) (result i32) (local i32)"
        "(local.set 1 (i32.const 4)) (drop (i32.load (local.get 1)))"
        "(if (local.get 0) (then (local.set 1 (i32.const 8))))"
        "(i32.load (local.get 1))"),
        [((0,), 2), ((1,), 3)],
    ),
    "assigned in the first arm, read in the second": (
        ("(param i32) (result i32) (local i32)"
        "(local.set 1 (i32.const 4))"
        "(if (result i32) (local.get 0)"
        " (then (local.set 1 (i32.const 8)) (i32.load (local.get 1))) (else (i32.load (local.get 1))))"),
        [((0,), 2), ((1,), 3)],
    ),
    "assigned after a branch that leaves the block": (
        ("(param i32) (result i32) (local i32)"
        "(block (br_if 0 (local.get 0)) (local.set 1 (i32.const 12)))"
        "(i32.load (local.get 1))"),
        [((0,), 4), ((1,), 1)],
    ),
    "assigned by tee inside an expression of a block": (
        ("(param i32) (result i32) (local i32)"
        "(block (drop (i32.load (local.tee 1 (i32.shl (local.get 0) (i32.const 2))))) (br_if 0 (local.get 0))"
        " (local.set 1 (i32.const 16)))"
        "(i32.load (local.get 1))"),
        [((0,), 5), ((1,), 2), ((3,), 4)],
    ),
    "an address from inside a block is not used behind it": (
        ("(param i32 i32) (result i32)"
        "(block (br_if 0 (local.get 0)) (drop (i32.load (local.get 1))))"
        "(i32.load (local.get 1))"),
        [((0, 8), 3), ((1, 12), 4)],
    ),
    "an address from one arm is not used in the other": (
        ("(param i32 i32) (result i32)"
        "(if (result i32) (local.get 0) (then (i32.load offset=4 (local.get 1))) (else (i32.load (local.get 1))))"
        "(i32.add (i32.load offset=4 (local.get 1)))"),
        [((0, 0), 3), ((1, 0), 4)],
    ),
    "more locals than are remembered": (
        f"(param i32) (result i32) (local {'i32 ' * 100})"
        + "".join(f"(local.set {k} (i32.const {k}))" for k in range(1, 101))
        + "(loop "
        + "".join(f"(local.set {k} (i32.add (local.get {k}) (i32.const 1)))" for k in range(1, 101))
        + "(br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"
        + "(local.get 1)"
        + "".join(f"(i32.add (local.get {k}))" for k in range(2, 101)),
        [((1,), 5150), ((5,), 5550)],
    ),
    "assigned in code that is not reached": (
        ("(param i32) (result i32)"
        "(block (br 0) (local.set 0 (i32.const 16)))"
        "(i32.load (local.get 0))"),
        [((4,), 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("checked", [False, True], ids=["guard pages", "explicit checks"])
def test_locals_and_addresses_across_blocks(name: str, checked: bool) -> None:
    body, expected = CASES[name]
    tunables = Tunables(signals_based_traps=not checked)
    machine = Machine(f'(module {DATA} (func (export "f") {body}))', tunables)
    for arguments, result in expected:
        assert machine.call("f", *arguments) == [result], f"f{arguments}"
