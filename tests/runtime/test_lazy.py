"""Lazy compilation (issue 3, point 2): `Module` compiles nothing, and whichever way a function is reached first, by
whichever thread, it runs as if it had always been there. Also what machine code in memory must never be: writable."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.numbered import numbered, sum_of
from tests.runtime.compiling import Workshop, lazy_module
from wasmforge.runtime.compiled_module import CompiledModule
from wasmforge.runtime.lazy_module import LazyModule
from wasmforge.runtime.vm.traps import RuntimeTrap
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import F32, F64, I32, I64, FuncType, ValType


@pytest.fixture
def workshop() -> Workshop:
    return Workshop(lazy=True)


def code_of(instance: Any) -> LazyModule:
    module = instance.module
    assert isinstance(module, LazyModule)
    return module


def compiled(instance: Any) -> set[int]:
    """The functions that are compiled, as indices of the index space."""
    module = code_of(instance)
    return {module.num_imported_functions + k for k in module.code.current}


# --- Every way to a function that is not compiled ----------------------------------------------------------------

WAYS = """(module
  (import "" "host" (func $host (param i32) (result i32)))
  (type $unary (func (param i32) (result i32)))
  (table (export "table") 4 funcref)
  (elem (i32.const 1) $double)
  (elem declare func $negate)
  (func $square (export "square") (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))
  (func $double (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1)))
  (func $negate (param i32) (result i32) (i32.sub (i32.const 0) (local.get 0)))
  (func (export "direct") (param i32) (result i32) (call $square (local.get 0)))
  (func (export "indirect") (param i32) (result i32) (call_indirect (type $unary) (local.get 0) (i32.const 1)))
  (func (export "reference") (result funcref) (ref.func $negate))
  (func (export "through_host") (param i32) (result i32) (call $host (local.get 0))))"""

SQUARE, DOUBLE, NEGATE, DIRECT, INDIRECT, REFERENCE, THROUGH_HOST = range(1, 8)


@pytest.fixture
def ways(workshop: Workshop) -> Any:
    exports: Any
    host = workshop.store.new_function(FuncType((I32,), (I32,)), lambda x: exports.square(x), name="host")
    exports = workshop.functions(WAYS, host)
    return exports


def test_nothing_is_compiled_before_it_is_called(ways: Any) -> None:
    assert compiled(ways.instance) == set()
    assert list(ways.instance.module.code.pieces)  # the linkage and trampolines, which are no functions


@pytest.mark.parametrize(
    ("call", "result", "functions"),
    [
        (lambda e: e.square(5), 25, {SQUARE}),
        (lambda e: e.direct(6), 36, {DIRECT, SQUARE}),
        (lambda e: e.indirect(7), 14, {INDIRECT, DOUBLE}),
        (lambda e: e.reference().make_callable()(8), -8, {REFERENCE, NEGATE}),
        (lambda e: e.through_host(9), 81, {THROUGH_HOST, SQUARE}),
        (lambda e: e.instance.export("table").get(1).make_callable()(3), 6, {DOUBLE}),
    ],
)
def test_first_call(ways: Any, call: Callable[[Any], int], result: int, functions: set[int]) -> None:
    for _ in range(3):
        assert call(ways) == result
        assert compiled(ways.instance) == functions


def test_start_function(workshop: Workshop) -> None:
    made = workshop.instance("""(module (global $g (mut i32) (i32.const 0)) (func $start (global.set $g (i32.const 9)))
        (func (export "g") (result i32) (global.get $g)) (start $start))""")
    assert compiled(made) == {0}
    assert made.export("g").make_callable()() == 9  # type: ignore[union-attr]


@pytest.mark.parametrize("lazy", [True, False])
def test_imported_by_another_module(workshop: Workshop, ways: Any, lazy: bool) -> None:
    """Also by one that is compiled ahead of time: its calls go to the linkage."""
    importer = workshop.module(
        '(module (import "" "f" (func $f (param i32) (result i32))) (func (export "g") (param i32) (result i32) '
        "(i32.add (call $f (local.get 0)) (call $f (i32.const 2)))))",
        lazy=lazy,
    )
    instance = workshop.store.instantiate(importer, [ways.instance.export("square")])
    assert compiled(ways.instance) == set()
    assert instance.export("g").make_callable()(3) == 13  # type: ignore[union-attr]
    assert compiled(ways.instance) == {SQUARE}


def test_two_instances_share_what_is_compiled(workshop: Workshop) -> None:
    module = workshop.module("""(module (global $g (mut i32) (i32.const 0))
        (func (export "next") (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1))) (global.get $g)))""")
    first, second = (workshop.store.instantiate(module, ()) for _ in range(2))
    other_store = Workshop()
    assert first.export("next").make_callable()() == 1  # type: ignore[union-attr]
    assert compiled(second) == {0}
    assert second.export("next").make_callable()() == 1  # type: ignore[union-attr]
    assert first.export("next").make_callable()() == 2  # type: ignore[union-attr]
    with pytest.raises(WasmtimeError, match="cross-`Engine`"):
        other_store.store.instantiate(module, ())


# --- Arguments and results ---------------------------------------------------------------------------------------

PARAMS: tuple[ValType, ...] = (I32, F32, I64, F64) * 6 + (F64,) * 3 + (I64,) * 3


def hash_module(count: int) -> str:
    """Functions `f0`, ... that return a hash of all their parameters and several of them, and a caller of each."""
    names = {I32: "i32", I64: "i64", F32: "f32", F64: "f64"}
    params = " ".join(names[t] for t in PARAMS)
    to_i64 = {
        I32: "(i64.extend_i32_u (local.get {}))",
        I64: "(local.get {})",
        F32: "(i64.extend_i32_u (i32.reinterpret_f32 (local.get {})))",
        F64: "(i64.reinterpret_f64 (local.get {}))",
    }
    mixed = "(i64.const 1469598103934665603)"
    for k, t in enumerate(PARAMS):
        mixed = f"(i64.mul (i64.xor {mixed} {to_i64[t].format(k)}) (i64.const 1099511628211))"
    results = " ".join(f"(local.get {k})" for k in range(12))
    kinds = " ".join(names[t] for t in PARAMS[:12])
    body = f"(param {params}) (result i64 {kinds})"
    forward = " ".join(f"(local.get {k})" for k in range(len(PARAMS)))
    return (
        "(module"
        + "".join(
            f'(func $f{n} (export "f{n}") {body} (i64.add {mixed} (i64.const {n})) {results})'
            f'(func (export "via{n}") {body} (call $f{n} {forward}))'
            for n in range(count)
        )
        + ")"
    )


ARGUMENTS = [{I32: 1000 + k, I64: (1 << 40) + k, F32: k + 0.5, F64: k * 1e10 + 0.25}[t] for k, t in enumerate(PARAMS)]


@pytest.mark.parametrize("name", ["f0", "via0"])
def test_all_arguments_and_results_survive_the_first_call(workshop: Workshop, name: str) -> None:
    exports = workshop.functions(hash_module(1))
    expected = getattr(Workshop().functions(hash_module(1)), name)(*ARGUMENTS)
    assert expected[1:] == ARGUMENTS[:12]
    for _ in range(2):
        assert getattr(exports, name)(*ARGUMENTS) == expected


def test_vectors_survive_the_first_call_whole(workshop: Workshop) -> None:
    """Ten of them: eight in registers, two in the overflow area, and results in registers and in the area."""
    params = " ".join(["v128"] * 10)
    forward = " ".join(f"(local.get {k})" for k in range(10))
    body = f"(param {params}) (result {params})"
    exports = workshop.functions(f"""(module (func $f {body} {forward})
      (func (export "via") {body} (call $f {forward})))""")
    vectors = [bytes(range(16 * k, 16 * k + 16)) for k in range(10)]
    for _ in range(2):
        assert exports.via(*vectors) == vectors


def test_wasm_that_runs_while_a_function_is_compiled(workshop: Workshop) -> None:
    """A finaliser may call wasm of the same store, with arguments in the same overflow area, and reach functions
    that are not compiled either."""
    exports = workshop.functions(hash_module(3))
    ahead = Workshop().functions(hash_module(3))
    other = [x + 1 for x in ARGUMENTS]
    seen = []

    def meanwhile(defined: int) -> None:
        if defined < 2 and not seen:  # while f0 is compiled, whose arguments via0 has written
            seen.append(exports.via1(*other))

    on_compile(exports.instance, meanwhile)
    compiled_first = exports.via0(*ARGUMENTS)
    assert compiled_first == ahead.via0(*ARGUMENTS)
    assert seen == [ahead.via1(*other)]


class Watched:
    """A function compiler that calls something before each function."""

    def __init__(self, inner: Any, before: Callable[[int], object]) -> None:
        self._inner = inner
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def compile(self, defined: int) -> Any:
        self._before(defined)
        return self._inner.compile(defined)


def on_compile(instance: Any, before: Callable[[int], object]) -> None:
    module: Any = code_of(instance)
    module._compiler = Watched(module._compiler, before)


def test_a_collection_while_a_function_is_compiled(workshop: Workshop) -> None:
    """The same by way of the collector: the finaliser of a cycle enters the store from wherever it happens to run."""
    exports = workshop.functions(hash_module(40))
    ahead = Workshop().functions(hash_module(1))
    other = [x + 1 for x in ARGUMENTS]
    finalised = []

    class Cycle:
        def __init__(self, n: int) -> None:
            self.n = n
            self.me = self

        def __del__(self) -> None:
            finalised.append(getattr(exports, f"f{self.n}")(*other)[1:])

    first = ahead.f0(*ARGUMENTS)
    threshold = gc.get_threshold()
    gc.set_threshold(7)
    try:
        for n in range(0, 40, 2):
            Cycle(n + 1)
            found = getattr(exports, f"via{n}")(*ARGUMENTS)
            assert (found[0] - n - first[0]) % 2**64 == 0
            assert found[1:] == first[1:]
    finally:
        gc.set_threshold(*threshold)
    assert finalised
    assert all(x == other[:12] for x in finalised)


# --- Traps and backtraces ----------------------------------------------------------------------------------------

CHAIN = """(module $mod (import "" "h" (func $host))
  (memory 1) (table 1 funcref) (type $void (func))
  (func $d (param i32) (result i32) (i32.load offset=8 (local.get 0)))
  (func $c (param i32) (result i32) (i32.add (i32.const 1) (call $d (local.get 0))))
  (func $b (param i32) (result i32) (call $host) (i32.div_s (call $c (local.get 0)) (local.get 0)))
  (func $a (export "a") (param i32) (result i32) (drop (i32.const 1)) (call $b (local.get 0)))
  (func $null (export "null") (call_indirect (type $void) (i32.const 0))))"""


def frames_of(exports: Any, name: str, *arguments: int) -> list[tuple[Any, ...]]:
    with pytest.raises((RuntimeTrap, KeyError)) as caught:
        getattr(exports, name)(*arguments)
    if isinstance(caught.value, KeyError):
        return list(caught.value.__notes__)
    frames = caught.value.backtrace.frames
    return [(f.func_index, f.func_name, f.module_name, f.module_offset, f.func_offset) for f in frames]


@pytest.mark.parametrize(("name", "arguments"), [("a", (65529,)), ("a", (-1,)), ("a", (0,)), ("null", ())])
def test_backtraces_are_those_of_code_compiled_ahead(workshop: Workshop, name: str, arguments: tuple[int, ...]) -> None:
    def exports(shop: Workshop) -> Any:
        return shop.functions(CHAIN, shop.store.new_function(FuncType((), ()), lambda: None))

    mine = exports(workshop)
    expected = frames_of(exports(Workshop()), name, *arguments)
    assert len(expected) > 1 or name == "null"
    for _ in range(2):
        assert frames_of(mine, name, *arguments) == expected


def test_a_host_function_sees_frames_of_functions_on_their_first_call(workshop: Workshop) -> None:
    def fail() -> None:
        raise KeyError("host")

    def exports(shop: Workshop) -> Any:
        return shop.functions(CHAIN, shop.store.new_function(FuncType((), ()), fail))

    assert frames_of(exports(workshop), "a", 1) == frames_of(exports(Workshop()), "a", 1)


def test_frames_below_a_compilation_that_fails(workshop: Workshop) -> None:
    exports = workshop.functions(CHAIN, workshop.store.new_function(FuncType((), ()), lambda: None))

    def too_complex(defined: int) -> None:
        if defined == 0:
            raise WasmtimeError("function 1 is too large to compile")

    on_compile(exports.instance, too_complex)
    for _ in range(2):
        with pytest.raises(WasmtimeError, match="too large to compile") as caught:
            exports.a(5)
        note = caught.value.__notes__[0]
        assert [line.rsplit("!")[-1] for line in note.splitlines()[1:]] == ["c", "b", "a"]
        assert compiled(exports.instance) == {2, 3, 4}


def test_stack_overflow_in_the_stub(workshop: Workshop) -> None:
    """The stub needs more stack than what calls it, so at some depths it is the one that reaches the guard."""
    leaves = 24
    text = '(module (global $bottom (export "bottom") (mut i32) (i32.const 0)) (type $leaf (func (result i32)))'
    text += f"(table {leaves} funcref) (elem (i32.const 0) {' '.join(f'$leaf{k}' for k in range(leaves))})"
    text += "".join(f"(func $leaf{k} (result i32) (i32.const {k}))" for k in range(leaves))
    text += """(func $down (export "down") (param $n i32) (param $leaf i32) (result i32)
      (if (result i32) (local.get $n)
        (then (call $down (i32.sub (local.get $n) (i32.const 1)) (local.get $leaf)))
        (else (global.set $bottom (i32.add (global.get $bottom) (i32.const 1)))
              (call_indirect (type $leaf) (local.get $leaf))))))"""
    exports = workshop.functions(text)
    exports.down(0, 0)

    def deepest() -> int:
        low, high = 0, 1 << 20
        while high - low > 1:
            middle = (low + high) // 2
            try:
                exports.down(middle, 0)
            except RuntimeTrap:
                high = middle
            else:
                low = middle
        return low

    depth = deepest()
    bottom = exports.instance.export("bottom")
    in_stub = 0
    for k in range(1, leaves):
        before = bottom.get()
        try:
            assert exports.down(depth - 12 + k, k) == k
        except RuntimeTrap as trap:
            assert trap.kind.name == "STACK_OVERFLOW"
            if bottom.get() > before and k not in compiled(exports.instance):
                in_stub += 1
                assert trap.backtrace.frames[0].func_name == "down"
        assert exports.down(10, 0) == 0
    assert in_stub


# --- Interrupts, threads, processes ------------------------------------------------------------------------------


def test_interrupt_while_a_function_is_compiled(workshop: Workshop) -> None:
    exports = workshop.functions(hash_module(1))
    expected = Workshop().functions(hash_module(1)).via0(*ARGUMENTS)
    left = [1, 1]

    def interrupt(_: int) -> None:
        if left:
            left.pop()
            signal.raise_signal(signal.SIGINT)

    on_compile(exports.instance, interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            exports.via0(*ARGUMENTS)
    assert exports.via0(*ARGUMENTS) == expected


@pytest.mark.parametrize("release_gil", [False, True])
def test_threads_call_functions_first(release_gil: bool) -> None:
    """Eight threads, a store each, one module: 2,000 functions in random order."""
    shop = Workshop(lazy=True)
    module = shop.module(numbered(2000))
    wrong: list[object] = []
    barrier = threading.Barrier(8)

    def work(seed: int) -> None:
        try:
            instance = wasmforge.runtime.VMStore(shop.engine).instantiate(module, ())
            order = list(range(2000))
            random.Random(seed).shuffle(order)
            barrier.wait()
            for n in order:
                function: Any = instance.export(f"f{n}")
                if function.make_callable(release_gil=release_gil)(seed) != sum_of(n, seed):
                    wrong.append(n)
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(module.code.current) == 2000  # type: ignore[attr-defined]


def test_parent_and_child_compile_different_functions(workshop: Workshop) -> None:
    """Both run from the same file of machine code; the child forks inside a host function, with wasm frames open."""
    children: list[int] = []

    def fork(x: int) -> int:
        children.append(os.fork())
        return x

    text = numbered(64)[:-1].replace("(module", '(module (import "" "fork" (func $fork (param i32) (result i32)))')
    text += '(func (export "both") (param i32) (result i32) (call $f40 (call $fork (call $f7 (local.get 0))))))'
    exports = workshop.functions(text, workshop.store.new_function(FuncType((I32,), (I32,)), fork, name="fork"))
    result = exports.both(5)
    right = result == sum_of(40, sum_of(7, 5))
    child = not children[0]
    for n in range(63, 0, -1) if child else range(1, 64):
        right = right and getattr(exports, f"f{n}")(n) == sum_of(n, n)
    if child:
        os._exit(0 if right else 1)
    assert os.waitpid(children[0], 0)[1] == 0
    assert right


# --- Memory ------------------------------------------------------------------------------------------------------


def mappings() -> Iterator[tuple[int, int, str, str]]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, *rest = line.split(maxsplit=5)
        start, end = (int(x, 16) for x in addresses.split("-"))
        yield start, end, permissions, rest[-1] if len(rest) == 4 else ""


def test_no_page_of_code_can_be_written(ways: Any) -> None:
    """Neither where it runs, nor through another mapping of the same file."""
    ways.direct(3)
    text = code_of(ways.instance).code.text_address
    (mine,) = [m for m in mappings() if m[0] <= text < m[1]]
    assert mine[2] == "r-xs"
    for _, _, permissions, path in mappings():
        assert not ("w" in permissions and "wasmforge-code" in path)


ALONE = """
import sys
from tests import tiers
from wasmforge import Engine, Func, FuncType, Instance, Module, Store
from wasmforge.compiler.availability import llvm_available
kept = []
for strategy in ("baseline", "auto", "llvm") if llvm_available() else ("baseline",):
    config = tiers.eager_config()
    config.strategy = strategy
    store = Store(Engine(config))
    text = '(module (import "" "f" (func $f)) (func (export "g") call $f call $own) (func $own))'
    module = Module(store.engine, text)
    host = Func(store, FuncType([], []), lambda: None)
    call = Instance(store, module, [host]).exports(store)["g"]
    call(store)
    if strategy == "auto":
        tiers.promote(module)
        call(store)
    kept.append(module)
assert "wasmforge-code" in open("/proc/self/maps").read()
for line in open("/proc/self/maps"):
    permissions = line.split()[1]
    if "w" in permissions and "x" in permissions:
        sys.exit(f"writable and executable: {line}")
"""


def test_no_page_of_a_process_is_writable_and_executable() -> None:
    """Of none, whatever it belongs to: a bug that writes anywhere must not become code. In a process of its own, as
    callbacks of ctypes, which other tests make and we never do, lie in such pages of libffi."""
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=120)


def open_things() -> tuple[int, int]:
    gc.collect()
    return len(os.listdir("/proc/self/fd")), sum("wasmforge-code" in path for *_, path in mappings())


def test_modules_leave_nothing_behind() -> None:
    def use() -> weakref.ref[CompiledModule]:
        shop = Workshop(lazy=True)
        module = shop.module(numbered(10))
        instance: Any = shop.store.instantiate(module, ())
        call = instance.export("f9").make_callable()
        module_alone = weakref.ref(module)
        del module, instance, shop
        assert module_alone() is not None  # the callable keeps what it runs
        assert call(1) == sum_of(9, 1)
        return module_alone

    use()
    before = open_things()
    # Regions share files, so that more modules than one file holds must come and go.
    gone = [use() for _ in range(70)]
    fds, maps = open_things()
    assert all(r() is None for r in gone)
    assert maps <= before[1]
    assert fds <= before[0] + 1


def test_many_modules_need_few_descriptors() -> None:
    shop = Workshop(lazy=True)
    before = open_things()[0]
    modules = [shop.module(f'(module (func (export "f") (result i32) (i32.const {k})))') for k in range(200)]
    for k, module in enumerate(modules):
        function: Any = shop.store.instantiate(module, ()).export("f")
        assert function.make_callable()() == k
    assert open_things()[0] - before <= 5


def test_a_module_whose_code_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from wasmforge import _lazy

    monkeypatch.setattr(_lazy, "_capacity", lambda _: 4096)
    exports = Workshop(lazy=True).functions(hash_module(8))
    with pytest.raises(WasmtimeError, match="more than the 8192 bytes that were reserved"):
        for n in range(8):
            getattr(exports, f"f{n}")(*ARGUMENTS)
    assert exports.f0(*ARGUMENTS)[1:] == ARGUMENTS[:12]


# --- Through the embedder's objects ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "baseline"])
def test_what_is_invalid_is_refused_at_once(strategy: str) -> None:
    config = wasmforge.Config()
    config.strategy = strategy
    engine = wasmforge.Engine(config)
    with pytest.raises(WasmtimeError, match="type mismatch"):
        wasmforge.Module(engine, "(module (func (result i32) (i64.const 1)))")
    module = wasmforge.Module(engine, WAYS)
    assert isinstance(module._compiled, LazyModule)
    assert not module._compiled.code.current


def test_serialize_compiles_ahead_of_time() -> None:
    config = wasmforge.Config()
    config.strategy = "baseline"
    engine = wasmforge.Engine(config)
    module = wasmforge.Module(engine, numbered(10))
    image = module.serialize()
    assert not module._compiled.code.current  # type: ignore[attr-defined]
    loaded = wasmforge.Module.deserialize(engine, image)
    assert not isinstance(loaded._compiled, LazyModule)
    store = wasmforge.Store(engine)
    f9: Any = wasmforge.Instance(store, loaded, []).exports(store)["f9"]
    assert f9(store, 1) == sum_of(9, 1)


def test_data_is_mapped_as_that_of_an_image(workshop: Workshop) -> None:
    """Memory images and passive segments work without an image of the module."""
    fill = "x" * 60000
    text = f"""(module (memory (export "m") 2) (data (i32.const 4096) "{fill}") (data $late "later")
      (func (export "init") (memory.init $late (i32.const 0) (i32.const 1) (i32.const 4))))"""
    instances = [workshop.instance(text) for _ in range(2)]
    first: Any = instances[0]
    memory = first.export("m")
    assert first.module.memory_images is not None
    assert memory.read(4090, 4100) == b"\0" * 6 + b"xxxx"
    memory.write(b"changed", 4096)
    first.export("init").make_callable()()
    assert memory.read(0, 5) == b"ater\0"
    second: Any = instances[1]
    assert second.export("m").read(4096, 4100) == b"xxxx"


def test_lazy_module_of_a_test_is_one(workshop: Workshop) -> None:
    assert isinstance(lazy_module(workshop.engine, "(module)"), LazyModule)
