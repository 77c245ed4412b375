"""Mutated modules: seeds that hold every section and instruction, and a fast deterministic mutator.

`python -m tests.fuzzing [COUNT [SEED]]` sends COUNT mutants (100,000 by default) through decoding and validation
and prints what became of them; anything but success or a `WasmtimeError` ends it with the mutant in hexadecimal.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from tests.building import assemble, one_function, rich_module
from wasmforge.binary import decode, encode, encode_instruction
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.features import ALL_FEATURES, Feature
from wasmforge.syntax.instructions import INSTRUCTIONS, Immediate, InstructionRow
from wasmforge.syntax.module import CustomSection, Module, NameSection
from wasmforge.syntax.types import FUNCREF, I32
from wasmforge.validation import validate

INTERESTING = (0x00, 0x01, 0x0B, 0x10, 0x20, 0x40, 0x41, 0x60, 0x6F, 0x70, 0x7F, 0x80, 0xFC, 0xFD, 0xFF)
"""Bytes that mean something in many places: ends, types, prefixes, the edges of LEB128."""

HUGE = (b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08", b"\xff\xff\xff\xff\x07", b"\x80\x80\x04", b"\xff\x7f")
"""Numbers that should make a careless reader allocate."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes of `data`: bits flipped, bytes replaced, parts cut, repeated, moved or inserted.

    The header stays most of the time, since nothing behind a damaged header is looked at. The same `rng` state gives
    the same mutant.
    """
    out = bytearray(data)
    low = 0 if rng.random() < 0.02 else min(8, len(data))
    # Sizes of sections and bodies survive half of the mutants, so that these get beyond the decoder.
    mutations = _IN_PLACE if rng.random() < 0.5 else _MUTATIONS
    for _ in range(rng.randint(1, 4)):
        if len(out) <= low:
            break
        rng.choice(mutations)(out, low, rng)
    return bytes(out)


def _part(out: bytearray, low: int, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(low, len(out))
    return start, min(len(out), start + rng.choice((1, 1, 2, 3, 4, 8, 16, 64)))


def _flip(out: bytearray, low: int, rng: random.Random) -> None:
    out[rng.randrange(low, len(out))] ^= 1 << rng.randrange(8)


def _replace(out: bytearray, low: int, rng: random.Random) -> None:
    out[rng.randrange(low, len(out))] = rng.choice(INTERESTING) if rng.random() < 0.5 else rng.randrange(256)


def _nudge(out: bytearray, low: int, rng: random.Random) -> None:
    at = rng.randrange(low, len(out))
    out[at] = (out[at] + rng.choice((-1, 1))) & 0xFF


def _swap(out: bytearray, low: int, rng: random.Random) -> None:
    a, b = rng.randrange(low, len(out)), rng.randrange(low, len(out))
    out[a], out[b] = out[b], out[a]


def _cut(out: bytearray, low: int, rng: random.Random) -> None:
    start, end = _part(out, low, rng)
    del out[start:end]


def _truncate(out: bytearray, low: int, rng: random.Random) -> None:
    del out[rng.randrange(low, len(out)) :]


def _repeat(out: bytearray, low: int, rng: random.Random) -> None:
    start, end = _part(out, low, rng)
    out[end:end] = out[start:end] * rng.choice((1, 1, 2, 30))


def _move(out: bytearray, low: int, rng: random.Random) -> None:
    start, end = _part(out, low, rng)
    part = out[start:end]
    del out[start:end]
    at = rng.randrange(low, len(out) + 1)
    out[at:at] = part


def _insert(out: bytearray, low: int, rng: random.Random) -> None:
    at = rng.randrange(low, len(out))
    out[at:at] = rng.choice(HUGE) if rng.random() < 0.3 else bytes((rng.randrange(256),))


def _overwrite_number(out: bytearray, low: int, rng: random.Random) -> None:
    at = rng.randrange(low, len(out))
    out[at : at + 1] = rng.choice(HUGE)


_Mutation = Callable[[bytearray, int, random.Random], None]
_IN_PLACE: tuple[_Mutation, ...] = (_flip, _replace, _nudge, _swap)
_MUTATIONS: tuple[_Mutation, ...] = (*_IN_PLACE, _cut, _truncate, _repeat, _move, _insert, _overwrite_number)

_SAMPLE: dict[Immediate, object] = {
    Immediate.BLOCK_TYPE: -64,
    Immediate.LABEL_TABLE: (0, 0),
    Immediate.MEMARG: (0, 0, 300),
    Immediate.I32_CONST: -1000,
    Immediate.I64_CONST: 1 << 40,
    Immediate.F32_CONST: 0x7FC00000,
    Immediate.F64_CONST: 0x3FF0000000000000,
    Immediate.REF_TYPE: FUNCREF,
    Immediate.SELECT_TYPES: (I32,),
    Immediate.LANES: bytes(range(16, 32)),
}


def sample(row: InstructionRow) -> bytes:
    """The encoding of an instruction with immediates that are valid in `rich_module`."""
    values = [_SAMPLE.get(kind, 0) for kind in row.immediates]
    if row.feature == Feature.THREADS and row.access:  # whose alignment must be written
        values[0] = (row.access.bit_length() - 1, 0, 304)
    return encode_instruction(row, tuple(values))


def every_instruction() -> bytes:
    """A body of type [] -> [] with every instruction of the table, each in unreachable code of its own."""
    out = bytearray()
    for row in INSTRUCTIONS:
        if row.mnemonic in ("block", "loop", "if"):
            out += b"\x00" + sample(row) + b"\x0b"
        elif row.mnemonic == "br_on_non_null":  # whose label takes the reference
            out += b"\x02\x70\x00" + sample(row) + b"\x00\x0b\x1a"
        elif row.mnemonic not in ("else", "end"):
            out += b"\x02\x40\x00" + sample(row) + b"\x00\x0b"
    return bytes(out) + assemble("i32.const 1; if i32; i32.const 1; else; i32.const 2; end; drop")


FACTORIAL = """
    block; local.get 0; i32.eqz; br_if 0; loop; local.get 1; local.get 0; i64.extend_i32_u; i64.mul; local.set 1;
    local.get 0; i32.const 1; i32.sub; local.tee 0; br_if 0; end; end; local.get 1
"""


def seeds() -> list[bytes]:
    """Valid modules to mutate: every section, every instruction, names and custom sections, and loops of real code."""
    factorial = one_function(FACTORIAL, "i32 i64", "i64")
    named = rich_module(every_instruction())
    named.custom.append(CustomSection("producers", b"\x00data", 6))
    named.names = NameSection(
        "module", {0: "imported", 1: "run"}, {1: {0: "local"}}, {1: {0: "label"}}, {0: "type"}, globals={0: "global"}
    )
    switch = one_function(
        "block; block; block; local.get 0; br_table 0 1 2 1; end; i32.const 1; return; end; i32.const 2; return; end; "
        "local.get 0; i32.const 9; local.get 0; i32.const 3; i32.lt_u; select",
        "i32",
        "i32",
    )
    return [encode(module) for module in (named, factorial, switch, rich_module("call 1"), Module())]


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """`count` mutants of the seeds in turn; the same arguments give the same mutants."""
    rng = random.Random(seed)
    originals = seeds()
    for k in range(count):
        yield mutate(originals[k % len(originals)], rng)


def check(data: bytes) -> str:
    """Decodes and validates. Returns "valid" or the class of the error; other exceptions pass through."""
    try:
        validate(decode(data), ALL_FEATURES)
    except WasmtimeError as error:
        return type(error).__name__
    return "valid"


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else 100_000
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    outcomes: Counter[str] = Counter()
    for data in mutants(count, seed):
        try:
            outcomes[check(data)] += 1
        except Exception:
            print(f"mutant: {data.hex()}", file=sys.stderr)
            raise
    print(", ".join(f"{outcome}: {n}" for outcome, n in outcomes.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
