"""Traps: by memory fault, by call, by an exhausted stack; what they report and what they leave behind."""

from __future__ import annotations

import ctypes
import gc
import random
import sys
import threading
from typing import Any

import pytest

from tests.runtime.native.fake import GUARD_SIZE, Code, Store, Trap, ft, set_hooks
from tests.runtime.native.guest import FRAMES, HOST, code
from wasmforge.compiler.environ import CALL_FLAG_RELEASE_GIL, StoreContext
from wasmforge.compiler.trap import TrapKind
from wasmforge.runtime.native import gates
from wasmforge.runtime.native.link import link
from wasmforge.runtime.native.signals import KNOWN_FAULTS_LOG2
from wasmforge.runtime.native.trap_record import MAX_BACKTRACE, TrapRecord
from wasmforge.syntax.errors import WasmtimeError

I_I = ft("i", "i")
II_I = ft("ii", "i")
FLAGS = pytest.mark.parametrize("flags", [0, CALL_FLAG_RELEASE_GIL])


def names(trap: Trap) -> list[str]:
    return [n for n in map(code().name, trap.pcs) if n is not None and "2" not in n]


@FLAGS
def test_memory_trap(store: Store, flags: int) -> None:
    load = store.function("load", I_I, flags)
    assert load(65532) == 0
    for index in (65533, 65536, 2**31, 2**32 - 4, 2**32 - 1):
        with pytest.raises(Trap) as caught:
            load(index)
        trap = caught.value
        assert trap.kind == TrapKind.MEMORY_OUT_OF_BOUNDS
        assert trap.store == 1
        # A straddling access faults at the first inaccessible byte.
        assert trap.address - store.reservation == max(index, 65536)
        assert names(trap) == ["load"]
        assert trap.omitted == 0
        assert store.idle()


@FLAGS
@pytest.mark.parametrize("kind", list(TrapKind))
def test_soft_traps(store: Store, kind: TrapKind, flags: int) -> None:
    with pytest.raises(Trap) as caught:
        store.function("trap", I_I, flags)(kind)
    assert caught.value.kind == kind
    assert names(caught.value) == ["trap"]
    assert store.idle()


def test_program_counters_are_inside_the_right_instruction(store: Store) -> None:
    """A return address minus one lies in the call; a fault's own program counter is the access itself."""
    with pytest.raises(Trap) as caught:
        store.function("deep", II_I)(3, 0)
    assert names(caught.value) == ["load", "deep", "deep", "deep", "deep"]
    assert len({*caught.value.pcs[2:5]}) == 1, "the same call thrice"


def instruction_at(pc: int) -> tuple[int, str]:
    """Start and mnemonic of the instruction that `pc` lies in."""
    capstone = pytest.importorskip("capstone")
    start = max(a for a in code().symbols.values() if a <= pc)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for instruction in decoder.disasm(ctypes.string_at(start, pc - start + 16), start):
        if instruction.address <= pc < instruction.address + instruction.size:
            return instruction.address, instruction.mnemonic
    raise AssertionError("not an instruction")


def test_look_up_addresses_lie_inside_instructions(store: Store) -> None:
    """What a table of instruction starts needs: a call's last byte, not its successor; a fault's own start."""
    for kind in (0, 9):
        with pytest.raises(Trap) as caught:
            store.function("deep", II_I)(3, kind)
        innermost, *outer = caught.value.pcs
        address, mnemonic = instruction_at(innermost)
        assert (address == innermost, mnemonic) == ((True, "mov") if kind == 0 else (False, "call"))
        assert all(instruction_at(pc)[1] == "call" and instruction_at(pc + 1)[0] == pc + 1 for pc in outer)


def test_backtrace_is_cut(store: Store) -> None:
    with pytest.raises(Trap) as caught:
        store.function("deep", II_I)(500, 9)
    assert len(caught.value.pcs) == MAX_BACKTRACE
    assert len(caught.value.pcs) + caught.value.omitted == 500 + 3  # deep 0 to 500, trap, trampoline


def test_backtrace_through_activations(store: Store) -> None:
    """wasm, Python, wasm: all activations of the store on this thread, innermost first."""
    inner = store.function("load", I_I)
    store.set_import(0, lambda x: inner(-1), HOST)
    with pytest.raises(Trap) as caught:
        store.function("deep", II_I)(2, 98)
    assert names(caught.value) == ["load", "deep", "deep", "deep"]


def test_activations_of_other_stores_are_not_in_the_backtrace(store: Store) -> None:
    other = Store(code(), identity=2)
    trap = other.function("load", I_I)
    store.set_import(0, lambda x: trap(-1), HOST)
    with pytest.raises(Trap) as caught:
        store.function("deep", II_I)(2, 98)
    assert caught.value.store == 2
    assert names(caught.value) == ["load"]
    other.close()


@pytest.mark.parametrize("size", FRAMES)
def test_stack_overflow_with_any_frame_size(store: Store, size: int) -> None:
    """Frames below and far above the probe size never jump over the guard (rule 7)."""
    recurse = store.function(f"recurse{size}", I_I)
    for _ in range(5):
        with pytest.raises(Trap) as caught:
            recurse(1)
        trap = caught.value
        assert trap.kind == TrapKind.STACK_OVERFLOW
        assert store.stack.low - GUARD_SIZE <= trap.address < store.stack.low
        assert set(names(trap)) == {f"recurse{size}"}
        depth = len(trap.pcs) + trap.omitted
        assert depth <= store.stack.size // size + 3
        assert depth >= min(store.stack.size // (size + 64), 2)
        assert store.idle()


@pytest.mark.parametrize("name", ["recurse_host", "recurse_move", "recurse_grow", "recurse_keep"])
@FLAGS
def test_recursion_that_ends_in_a_gate(store: Store, name: str, flags: int) -> None:
    """Attack: exhaust the stack with a gate call at every depth, so that gates run with as little stack as a guest can
    arrange.
    """
    store.set_import(0, lambda x: x, HOST)
    gates().set_builtin("memory_grow", lambda *_: 1)
    gates().set_builtin("new_epoch", lambda vmctx: None)
    function = store.function(name, I_I, flags)
    for _ in range(5):
        with pytest.raises(Trap) as caught:
            function(0)
        assert caught.value.kind == TrapKind.STACK_OVERFLOW
        assert store.idle()


@pytest.mark.parametrize("what", range(5))
def test_gates_at_every_distance_from_the_guard(what: int) -> None:
    """Attack: a gate called with 0, 8, 16, ... bytes left. Each outcome is the gate's own or a stack overflow, and
    nested entries at the end of the stack are overflows, too.
    """
    small = Store(code(), stack_size=16384)
    set_hooks()
    gates().set_builtin("memory_grow", lambda *_: 1)
    edge = small.function("edge", II_I)
    add = small.function("add", II_I)
    nested: list[str] = []

    def host(x: int) -> int:
        try:
            assert add(2, 3) == 5
            nested.append("ok")
        except Trap as trap:
            assert trap.kind == TrapKind.STACK_OVERFLOW
            nested.append("overflow")
        return x

    small.set_import(0, host, HOST)
    outcomes = set()
    size = small.stack.high
    for shift in range(0, 64, 16):  # moves all frames, so that the end is met at every alignment
        small.words[0] = size - shift
        for depth in range(16384 // 48 - 30, 16384 // 16 + 1):
            try:
                edge(depth, what)
                outcome = "ok"
            except Trap as trap:
                outcome = TrapKind(trap.kind).name
            outcomes.add(outcome)
            if outcome == "STACK_OVERFLOW" and depth > 16384 // 32 + 8:
                break
        small.words[0] = size
    wanted = {0: "ok", 1: "ok", 2: "UNREACHABLE", 3: "ok", 4: "MEMORY_OUT_OF_BOUNDS"}[what]
    assert outcomes == {wanted, "STACK_OVERFLOW"}
    if what == 0:
        assert set(nested) == {"ok", "overflow"}, "the first push of a nested entry met the guard"
    assert small.idle()
    small.close()


def test_overflow_loses_no_frame() -> None:
    """Wherever the end of the stack is met, in a call instruction or in a frame, every function is in the backtrace."""
    small = Store(code(), stack_size=16384)
    set_hooks()
    edge = small.function("edge", II_I)
    bottom = []
    for depth in range(16384 // 64 - 40, 16384 // 16):
        with pytest.raises(Trap) as caught:
            edge(depth, 4)
        trap = caught.value
        total = len(trap.pcs) + trap.omitted
        if trap.kind == TrapKind.MEMORY_OUT_OF_BOUNDS:
            assert total == depth + 3  # load, edge 0 to depth, trampoline
            bottom.append(depth)
        else:
            assert total <= max(bottom) + 3
            assert total >= max(bottom) + 2
    assert bottom
    small.close()


def test_ten_thousand_traps_in_four_threads(store: Store) -> None:
    """Every kind, at random depth, with values in callee-saved registers above; the GIL released. No corruption."""
    errors: list[Any] = []
    expected = {n: store.function("deep", II_I)(n, 99) for n in range(40)}

    def run(identity: int) -> None:
        rng = random.Random(identity)
        mine = Store(code(), identity=identity)
        deep = mine.function("deep", II_I, CALL_FLAG_RELEASE_GIL)
        recurse = mine.function("recurse100", I_I, CALL_FLAG_RELEASE_GIL)
        mine.set_import(0, lambda x: 1 // 0, HOST)
        for i in range(2500):
            depth, kind = rng.randrange(40), rng.choice([0, 0, *range(2, 17), 98])
            try:
                deep(depth, kind)
                errors.append("no trap")
            except Trap as trap:
                good = trap.kind == (kind or TrapKind.MEMORY_OUT_OF_BOUNDS) and trap.store == identity
                good = good and len(trap.pcs) == depth + 3
                if kind == 0:
                    good = good and trap.address == mine.reservation + (1 << 20)
                if not good:
                    errors.append((depth, kind, trap.kind, len(trap.pcs)))
            except ZeroDivisionError:
                if kind != 98:
                    errors.append(kind)
            if i % 50 == 0:
                try:
                    recurse(1)
                except Trap as trap:
                    if trap.kind != TrapKind.STACK_OVERFLOW:
                        errors.append(trap.kind)
            if deep(depth, 99) != expected[depth]:
                errors.append(depth)
        if not mine.idle():
            errors.append("not idle")
        mine.close()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(10, 14)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:5]


def test_nested_activations_with_random_ends(store: Store) -> None:
    """wasm, Python, wasm to random depth; a trap, an overflow, an exception or a return at the bottom; caught half way
    or not.
    """
    rng = random.Random(5)
    call = store.function("host_keep", I_I)
    load, recurse = store.function("load", I_I), store.function("recurse3000", I_I)
    outcomes: dict[str, int] = {}
    depth = 0

    def host(x: int) -> int:
        nonlocal depth
        depth += 1
        try:
            if depth > limit:
                match rng.randrange(4):
                    case 0:
                        return int(load(-1))
                    case 1:
                        return int(recurse(1))
                    case 2:
                        raise KeyError("bottom")
                    case _:
                        return 1
            if rng.random() < 0.1:
                try:
                    return int(call(x)) & 0xFF
                except Trap:
                    return 2
            return int(call(x)) & 0xFF
        finally:
            depth -= 1

    store.set_import(0, host, HOST)
    for _ in range(3000):
        limit = rng.randrange(25)
        try:
            call(1)
            outcome = "returned"
        except Trap as trap:
            outcome = TrapKind(trap.kind).name
        except KeyError:
            outcome = "exception"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert store.idle()
        assert depth == 0
    assert set(outcomes) == {"returned", "exception", "MEMORY_OUT_OF_BOUNDS", "STACK_OVERFLOW"}


def test_the_first_trap_asks_for_the_class(store: Store) -> None:
    g = gates()
    trap = store.function("trap", I_I)
    g.set_trap_class(None)
    g.set_hooks(on_first_trap=lambda: None)
    with pytest.raises(RuntimeError, match="has set no hook"):
        trap(9)
    g.set_hooks(on_first_trap=lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        trap(9)
    asked = []

    def tell() -> None:
        asked.append(1)
        set_hooks()

    g.set_hooks(on_first_trap=tell)
    for _ in range(3):
        with pytest.raises(Trap, match="UNREACHABLE"):
            trap(9)
    assert asked == [1]


def test_a_kind_that_no_trap_has(store: Store) -> None:
    """Attack: a compiler's bug calls the builtin with anything; the table of kinds must not be read past its end."""
    trap = store.function("trap", I_I)
    for kind in (len(TrapKind), 1000, -1):
        with pytest.raises(SystemError, match="unknown code"):
            trap(kind)


def test_each_instruction_that_faults_is_asked_about_once(store: Store) -> None:
    asked: list[int] = []
    answers: list[Any] = [TrapKind.HEAP_MISALIGNED]

    def on_fault(pc: int) -> int:
        asked.append(pc)
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return int(answers[0])

    gates().set_hooks(on_fault=on_fault)
    load = store.function("load", I_I)
    for _ in range(3):
        with pytest.raises(Trap) as caught:
            load(-1)
        assert caught.value.kind == TrapKind.HEAP_MISALIGNED
    assert asked == [caught.value.pcs[0]]
    # Code has gone, and other code may be there: only what was answered since counts.
    gates().forget_faults()
    for answer, expected in ((SystemError("no"), "no"), (-1, "unknown code"), (99, "unknown code")):
        answers[0] = answer
        with pytest.raises(SystemError, match=expected):
            load(-1)
        gates().forget_faults()
    assert len(asked) == 4


def test_instructions_that_share_a_place_in_the_table_of_known_ones() -> None:
    """More instructions that fault than the table has places: none is taken for another."""
    from tests.runtime.native.fake import ATTRIBUTES, array_to_wasm, compile_ir, libc, memory_pointer

    count = 2 << KNOWN_FAULTS_LOG2
    functions = [
        f"define dso_local swiftcc i32 @f{k}(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{\n{memory_pointer('%p', '%x')}"
        f"  %v = load volatile i32, ptr %p\n  %w = add i32 %v, {k}\n  ret i32 %w\n}}\n"
        for k in range(count)
    ]
    fresh = Code(link(compile_ir("".join([array_to_wasm(I_I), *functions])), bytes(32)))
    mine = Store(fresh)
    asked = 0

    def on_fault(pc: int) -> int:
        nonlocal asked
        asked += 1
        return int((fresh.name(pc) or "")[1:]) % len(TrapKind)

    set_hooks()
    gates().set_hooks(on_fault=on_fault)
    calls = [mine.function(f"f{k}", I_I) for k in range(count)]
    for _ in range(2):
        for k, call in enumerate(calls):
            for _ in range(2):
                with pytest.raises(Trap) as caught:
                    call(-1)
                assert caught.value.kind == k % len(TrapKind)
    assert count < asked <= 2 * count
    mine.close()
    gates().unregister_code(fresh.start)
    libc.munmap(fresh.start, fresh.size)


def test_a_trap_tells_the_memory_as_it_was(store: Store) -> None:
    """Base and length are read when the trap is raised, by the definition that the memory was registered with."""
    g = gates()
    definition = (ctypes.c_uint64 * 2)(store.reservation, 65536)
    g.unregister_memory(store.reservation)
    g.register_memory(store.reservation, store.reservation + (4 << 30), ctypes.addressof(definition))
    load = store.function("load", I_I)
    with pytest.raises(Trap) as first:
        load(-8)
    definition[1] = 131072
    with pytest.raises(Trap) as second:
        load(-8)
    assert first.value.facts.memory == (store.reservation, 65536)
    assert second.value.facts.memory == (store.reservation, 131072)
    with pytest.raises(Trap) as soft:
        store.function("trap", I_I)(TrapKind.MEMORY_OUT_OF_BOUNDS)
    assert soft.value.facts.memory is None
    # Its slot is another's now: what was found last must not be believed.
    g.unregister_memory(store.reservation)
    g.register_memory(1 << 50, (1 << 50) + 65536)
    g.register_memory(store.reservation, store.reservation + (4 << 30))
    with pytest.raises(Trap) as third:
        load(-8)
    assert third.value.facts.memory is None
    g.unregister_memory(1 << 50)


def test_a_trap_keeps_the_owner_of_its_store(store: Store) -> None:
    """A counted reference: what the context names may be gone before the trap is."""

    class Owner:
        pass

    owner = Owner()
    trap, load = store.function("trap", I_I), store.function("load", I_I)
    with pytest.raises(Trap) as caught:
        trap(9)
    assert caught.value.owner is None
    assert caught.value._wasmforge_backtrace[1][TrapRecord.SLOT :][:24] == bytes(24), "no words of the host's stack"
    before = sys.getrefcount(owner)
    address = store.context + StoreContext.OWNER
    ctypes.c_uint64.from_address(address).value = id(owner)
    caught_traps = []
    for call in (trap, load):
        with pytest.raises(Trap) as caught:
            call(-8 if call is load else 9)
        caught_traps.append(caught.value)
    with pytest.raises(SystemError):
        trap(-1)
    ctypes.c_uint64.from_address(address).value = 0
    assert all(t.owner is owner for t in caught_traps)
    assert sys.getrefcount(owner) == before + 2
    del caught, caught_traps[:]
    gc.collect()
    assert sys.getrefcount(owner) == before


def test_registration_is_checked(store: Store) -> None:
    g = gates()
    with pytest.raises(WasmtimeError, match="already registered"):
        g.register_code(store.code.start, store.code.start + 1)
    with pytest.raises(WasmtimeError, match="not registered"):
        g.unregister_code(64)
    with pytest.raises(WasmtimeError, match="not registered"):
        g.unregister_memory(64)
    with pytest.raises(WasmtimeError, match="empty"):
        g.register_memory(4096, 4096)


def test_registrations_under_fire(store: Store) -> None:
    """Other threads register and unregister code and memories while this one traps."""
    stop = threading.Event()

    def hammer(base: int) -> None:
        g, rng, known = gates(), random.Random(base), [0]
        while not stop.is_set():
            start = base + rng.randrange(1000) * 65536
            if start not in known:
                g.register_memory(start, start + 65536)
                g.register_code(start, start + 65536)
                known.append(start)
            if len(known) > 100:
                start = known.pop(rng.randrange(1, 100))
                g.unregister_memory(start)
                g.unregister_code(start)
        for start in known[1:]:
            g.unregister_memory(start)
            g.unregister_code(start)

    threads = [threading.Thread(target=hammer, args=(k << 40,)) for k in (1, 2)]
    for t in threads:
        t.start()
    try:
        load = store.function("load", I_I, CALL_FLAG_RELEASE_GIL)
        for _ in range(3000):
            with pytest.raises(Trap) as caught:
                load(-1)
            assert caught.value.kind == TrapKind.MEMORY_OUT_OF_BOUNDS
    finally:
        stop.set()
        for t in threads:
            t.join()


def test_many_memories(store: Store) -> None:
    """The table takes as many reservations as fit into the address space, and reuses slots."""
    g = gates()
    for _ in range(3):
        for k in range(20_000):
            g.register_memory((1 << 50) + k * 65536, (1 << 50) + (k + 1) * 65536)
        with pytest.raises(Trap):
            store.function("load", I_I)(-1)
        for k in range(20_000):
            g.unregister_memory((1 << 50) + k * 65536)


def test_code_can_go_and_come(store: Store) -> None:
    from tests.runtime.native.fake import ATTRIBUTES, array_to_wasm, call_builtin, compile_ir, libc

    for _ in range(10):
        ir = (
            array_to_wasm(I_I)
            + f"define dso_local swiftcc i32 @f(ptr swiftself %vm, i32 %x) {ATTRIBUTES} {{\n"
            + call_builtin("trap", "", "i32 %x", "t")
            + "  unreachable\n}\n"
        )
        fresh = Code(link(compile_ir(ir), bytes(32)))
        mine = Store(fresh)
        with pytest.raises(Trap):
            mine.function("f", I_I)(9)
        mine.close()
        gates().unregister_code(fresh.start)
        libc.munmap(fresh.start, fresh.size)
