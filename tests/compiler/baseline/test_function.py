"""What `compile_function` returns besides code: calls to resolve, in both forms, and rows of the tables."""

from __future__ import annotations

from tests.compiler.baseline.compiling import compiler, disassemble, functions
from wasmforge.binary import decode, encode
from wasmforge.compiler.baseline import CompiledFunction, Compiler, Context
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.tables import address_map, trap_table
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.instructions import BY_OPCODE
from wasmforge.text import parse
from wasmforge.validation import validate

CALLS = """(module
  (import "host" "f" (func $host))
  (func $a (call $b) (call $host) (call $c) (call $b))
  (func $b) (func $c (call $c)))"""


def rows(function: CompiledFunction) -> list[tuple[int, int, int]]:
    return list(zip(function.rows[::3], function.rows[1::3], function.rows[2::3], strict=True))


def test_direct_calls_name_their_targets() -> None:
    a, b, c = functions(CALLS)
    assert (a.call_targets, b.call_targets, c.call_targets) == ([2, 3, 2], [], [3])
    for function in (a, c):
        for place in function.call_places:
            assert function.code[place - 1] == 0xE8
            assert function.code[place : place + 4] == bytes(4)


def test_calls_through_slots() -> None:
    """The form for code that is compiled lazily: `call [rip + slot]`, so that the slot can change while it runs."""
    module = decode(encode(parse(CALLS)))
    escaping = sorted(validate(module).escaping)
    made = Compiler(Context(module, escaping, frozenset(), Tunables(), slots=True))
    a = made.compile_function(1)
    assert a.call_targets == [2, 3, 2]
    assert [a.code[place - 2 : place] for place in a.call_places] == [b"\xff\x15"] * 3
    assert sum("call qword ptr [rip]" in line for line in disassemble(a.code)) == 3


def test_rows_ascend_and_tell_positions() -> None:
    """Loads and stores carry the code of their trap and nothing else does; calls and soft traps have their position."""
    text = """(module (memory 1)
      (func $f (param i32) (result i32)
        (i32.store (i32.const 8) (i32.div_s (i32.const 1) (local.get 0)))
        (call $g)
        (i32.load8_u offset=1 (local.get 0)))
      (func $g unreachable))"""
    module = decode(encode(parse(text)))
    f = compiler(module).compile_function(0)
    body = module.code[0]
    found = rows(f)
    offsets = [at for at, _, _ in found]
    assert offsets == sorted(set(offsets))
    assert found[0] == (0, body.offset, 0)
    assert offsets[-1] < len(f.code)

    def mnemonics(code: int) -> list[str]:
        return [
            BY_OPCODE[body.code[position - body.offset]].mnemonic for _, position, kind in found[1:] if kind == code
        ]

    assert mnemonics(1 + TrapKind.MEMORY_OUT_OF_BOUNDS) == ["i32.store", "i32.load8_u"]
    # The two ways in which a division traps stand behind everything else.
    assert mnemonics(0)[-2:] == ["i32.div_s", "i32.div_s"]
    assert "call" in mnemonics(0)


def test_tables_agree_with_the_code() -> None:
    """Exactly the instructions that touch guest memory are in the trap table."""
    from array import array

    text = """(module (memory 1) (global $g (mut i64) (i64.const 0))
      (func (param $p i32) (param $x f64) (result i64) (local $s i64)
        (loop $l
          (local.set $s (i64.add (local.get $s) (i64.load (local.get $p))))
          (f64.store offset=8 (local.get $p) (local.get $x))
          (i32.store16 offset=3 (local.get $p) (i32.const 77))
          (global.set $g (local.get $s))
          (br_if $l (i32.lt_u (i32.load (local.get $p)) (i32.const 9))))
        (local.get $s)))"""
    (function,) = functions(text)
    found = rows(function)
    traps = trap_table.encode(array("I", [r[0] for r in found]), array("B", [r[2] for r in found]))
    positions = address_map.encode(array("I", [r[0] for r in found]), array("I", [r[1] for r in found]))
    touched = 0
    for line in disassemble(function.code):
        at = int(line.partition(":")[0], 16)
        if "ret" in line:
            break
        guest = "[r10 + " in line  # the memory's base in a function that calls nothing
        assert (trap_table.lookup(traps, at) is not None) == guest, line
        touched += guest
        assert address_map.lookup(positions, at) is not None
    assert touched == 4


def test_several_compilers_at_once() -> None:
    """Nothing is shared between compilers: threads that switch within functions get the bytes of one alone."""
    import sys
    from concurrent.futures import ThreadPoolExecutor

    from tests.generate import ModuleMaker

    module = decode(ModuleMaker(3, 20).make())

    def compile_all(_: int) -> list[bytes]:
        made = compiler(module)
        return [made.compile_function(k).code for k in range(1, 21)]

    expected = compile_all(0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(found == expected for found in pool.map(compile_all, range(8)))
    finally:
        sys.setswitchinterval(interval)
