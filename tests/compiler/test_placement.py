"""Groups of functions that join a module while it runs: what a worker's reply must be like, and where its addresses
lead."""

from __future__ import annotations

import random
from array import array
from struct import unpack_from
from typing import Any

import pytest

from wasmforge.binary import decode, encode
from wasmforge.compiler.availability import llvm_available
from wasmforge.compiler.environ import CODE_ALIGNMENT, Tunables
from wasmforge.compiler.placement import check_reply
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.text import parse
from wasmforge.validation import validate

pytestmark = pytest.mark.skipif(not llvm_available(), reason="needs llvmlite")

SOURCE = """(module
  (import "" "f" (func $imported))
  (memory 1)
  (func $outside (param i32) (result i32) (local.get 0))
  (func $a (param i32) (result i32)
    (block $x (block $y (block $z (block $u (br_table $x $y $z $u $x (local.get 0)))
      (return (call $outside (i32.load (local.get 0))))) (return (i32.const 5))) (return (call $b (f64.const 1.5))))
    (i32.const 9))
  (func $b (param f64) (result i32) (i32.trunc_f64_s (f64.mul (local.get 0) (f64.const 3.14159)))))"""
WANTED = (2, 3)
OWN = range(1, 4)


@pytest.fixture(scope="module")
def reply() -> dict[str, Any]:
    """Made here and not in a worker, by the same code."""
    from wasmforge.compiler.llvm.compile import hot_chunk
    from wasmforge.compiler.llvm.context import ModuleContext
    from wasmforge.compiler.llvm.worker import compile_chunk

    module = decode(encode(parse(SOURCE)))
    facts = validate(module)
    context = ModuleContext.of(module, sorted(facts.escaping), facts.tail_callers, facts.changed_tables, Tunables())
    chunk = hot_chunk(module, WANTED, 30)
    request = {
        "functions": chunk.functions,
        "trampolines": [],
        "pipeline": chunk.pipeline,
        "slots": True,
        "ir": chunk.ir,
    }
    return compile_chunk(context, request)


def test_a_reply_becomes_a_group(reply: dict[str, Any]) -> None:
    group = check_reply(reply, WANTED, OWN)
    assert group is not None
    assert [x for x, _, _, _ in group.functions] == list(WANTED)
    assert reply["undefined"] == ["s1"] and len(reply["constants"]) > 0
    for _, start, size, rows in group.functions:
        assert rows[0] == 0 and max(rows[::3]) < size and start + size <= len(group)


def test_calls_of_others_go_through_their_slots(reply: dict[str, Any]) -> None:
    group = check_reply(reply, WANTED, OWN)
    assert group is not None
    rows = array("q", reply["relocations"])
    [place] = [rows[k + 1] for k in range(0, len(rows), 5) if rows[k + 2] == 2]
    for distance in (-(1 << 20), -4096):
        code = group.placed(distance, 1)
        assert len(code) == len(group)
        # Function 1 is the first that is not imported: its slot is the one at `distance`.
        assert unpack_from("<i", code, place)[0] + place + 4 == distance


def test_constants_lie_behind_the_text_and_are_aligned(reply: dict[str, Any]) -> None:
    group = check_reply(reply, WANTED, OWN)
    assert group is not None
    constants = -(-len(reply["text"]) // CODE_ALIGNMENT) * CODE_ALIGNMENT
    assert len(group) == constants + len(reply["constants"])


def test_a_place_that_is_too_far_away_is_refused(reply: dict[str, Any]) -> None:
    group = check_reply(reply, WANTED, OWN)
    assert group is not None
    with pytest.raises(WasmtimeError, match="too far away"):
        group.placed(1 << 32, 1)


def _changed(reply: dict[str, Any], k: int, value: int) -> bytes:
    rows = array("q", reply["relocations"])
    rows[k] = value
    return rows.tobytes()


@pytest.mark.parametrize("wrong", ["missing", "types", "relocations", "undefined", "functions", "rows"])
def test_what_is_not_a_group_is_refused(reply: dict[str, Any], wrong: str) -> None:
    """Each of these would have us write, or jump, to where nothing of the group is."""
    first = reply["functions"][0]
    variants: dict[str, list[dict[str, Any]]] = {
        "missing": [{k: v for k, v in reply.items() if k != name} for name in reply if name != "seconds"],
        "types": [{**reply, name: value} for name in reply if name != "seconds" for value in (None, 7, "x", [1], -1)],
        "relocations": [
            {**reply, "relocations": _changed(reply, k, value)}
            for k, value in [(0, 2), (0, -1), (1, -1), (1, 1 << 40), (2, 3), (2, -1), (3, 1 << 40), (3, -1)]
        ]
        + [{**reply, "relocations": reply["relocations"] + bytes(8)}, {**reply, "relocations": b"123"}],
        "undefined": [{**reply, "undefined": [name]} for name in ("s0", "s4", "f1", "s-1", "", "memcpy", "s1x")],
        "functions": [
            {**reply, "functions": functions}
            for functions in (
                [],
                [first],
                [first, first],
                reply["functions"][::-1],
                [(first[0], first[1], 1 << 40), reply["functions"][1]],
                [(first[0], -16, first[2]), reply["functions"][1]],
                [("f1", *first[1:]), reply["functions"][1]],
            )
        ],
        "rows": [
            {**reply, "codes": reply["codes"][1:]},
            {**reply, "positions": reply["positions"] + bytes(4)},
            {**reply, "offsets": array("I", reversed(array("I", reply["offsets"]))).tobytes()},
        ],
    }
    for variant in variants[wrong]:
        assert check_reply(variant, WANTED, OWN) is None, variant


def test_random_damage_is_refused_or_harmless(reply: dict[str, Any]) -> None:
    rng = random.Random(7)
    for _ in range(300):
        name = rng.choice([k for k, v in reply.items() if isinstance(v, bytes) and v])
        data = bytearray(reply[name])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        group = check_reply({**reply, name: bytes(data)}, WANTED, OWN)
        if group is not None:
            try:
                assert len(group.placed(-4096, 1)) == len(group)
            except WasmtimeError as error:
                assert "too far away" in str(error)
