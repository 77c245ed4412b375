"""Settings: each does what it says, or says that it cannot."""

from __future__ import annotations

import pytest

import wasmforge
from wasmforge import Config, Engine, Instance, Module, Store, Trap, WasmtimeError

ALWAYS = ["wasm_bulk_memory", "wasm_multi_value"]
SWITCHES = [
    "debug_info",
    "cranelift_debug_verifier",
    "wasm_exceptions",
    "wasm_reference_types",
    "wasm_tail_call",
    "wasm_function_references",
    "wasm_wide_arithmetic",
    "wasm_extended_const",
    "wasm_threads",
    "shared_memory",
    "consume_fuel",
    "epoch_interruption",
    "parallel_compilation",
    "guard_before_linear_memory",
    "signals_based_traps",
    "memory_init_cow",
    "generate_address_map",
    "wasm_simd",
    "wasm_relaxed_simd",
    "wasm_relaxed_simd_deterministic",
    "wasm_multi_memory",
    "wasm_memory64",
    "wasm_custom_page_sizes",
    "wasm_tail_call",
    "wasm_extended_const",
    "wasm_function_references",
    "wasm_wide_arithmetic",
]


@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_always_there_can_only_be_on(name: str) -> None:
    config = Config()
    setattr(config, name, True)
    with pytest.raises(WasmtimeError, match=f"{name} cannot be disabled"):
        setattr(config, name, False)


@pytest.mark.parametrize("name", ALWAYS + SWITCHES)
def test_switches_want_a_bool_and_cannot_be_read(name: str) -> None:
    config = Config()
    for wrong in (1, 0, None, "yes"):
        with pytest.raises(TypeError, match="expected a bool"):
            setattr(config, name, wrong)
    with pytest.raises(AttributeError):
        getattr(config, name)


def test_absent_features_are_absent() -> None:
    """Nothing pretends to be there."""
    for name in ("wasm_gc", "misspelt"):
        with pytest.raises(AttributeError, match=name):
            setattr(Config(), name, True)
    for missing in ("StoreContext", "component"):
        assert not hasattr(wasmforge, missing)


def test_a_config_makes_one_engine() -> None:
    config = Config()
    Engine(config)
    for name, value in (
        ("parallel_compilation", True),
        ("memory_guard_size", 0),
        ("strategy", "auto"),
        ("wasm_simd", False),
    ):
        with pytest.raises(ValueError, match="already closed"):
            setattr(config, name, value)
    with pytest.raises(ValueError, match="already closed"):
        Engine(config)


def test_no_config_is_the_same_as_a_new_one() -> None:
    without, new = Engine(), Engine(Config())
    for name in ("_cache_setting", "_tunables", "_workers", "_strategy"):
        assert getattr(without, name) == getattr(new, name)
    assert without._state.max_wasm_stack == new._state.max_wasm_stack
    assert without._state.tunables == new._state.tunables


def test_sizes() -> None:
    for name in ("max_wasm_stack", "memory_reservation", "memory_guard_size"):
        with pytest.raises(TypeError):
            setattr(Config(), name, "1")
        with pytest.raises(WasmtimeError, match="negative"):
            setattr(Config(), name, -1)
        with pytest.raises(WasmtimeError, match="address space"):
            setattr(Config(), name, 2**70)
    with pytest.raises(WasmtimeError, match="zero"):
        Config().max_wasm_stack = 0


@pytest.mark.parametrize("name", ["max_wasm_stack", "memory_reservation", "memory_guard_size"])
@pytest.mark.parametrize("size", [1, 4095, 4097, 65537, (1 << 32) + 1, 1 << 46, 1 << 47])
def test_odd_sizes_work_or_are_refused(name: str, size: int) -> None:
    config = Config()
    setattr(config, name, size)
    engine = Engine(config)
    module = Module(
        engine,
        '(module (memory 1) (func (export "f") (param i32) (result i32) (i32.load offset=3000 (local.get 0))))',
    )
    try:
        store = Store(engine)
        f = Instance(store, module, []).exports(store)["f"]
    except WasmtimeError as error:
        assert size >= 1 << 46, error
        return
    assert f(store, 65536 - 3004) == 0
    for address in (65536 - 3003, 65536, -1):
        with pytest.raises(Trap, match="out of bounds memory access"):
            f(store, address)


RECURSION = """(module (func $f (export "f") (param i32) (result i32)
  (if (result i32) (local.get 0) (then (i32.add (i32.const 1) (call $f (i32.sub (local.get 0) (i32.const 1)))))
  (else (i32.const 0)))))"""


def test_max_wasm_stack() -> None:
    def depth_fits(size: int, depth: int) -> bool:
        config = Config()
        config.max_wasm_stack = size
        store = Store(Engine(config))
        f = Instance(store, Module(store.engine, RECURSION), []).exports(store)["f"]
        try:
            return bool(f(store, depth) == depth)
        except Trap as trap:
            assert trap.trap_code is wasmforge.TrapCode.STACK_OVERFLOW
            return False

    assert depth_fits(64 << 10, 500)
    assert not depth_fits(64 << 10, 20_000)
    assert depth_fits(4 << 20, 20_000)
    assert not depth_fits(4 << 20, 2_000_000)


def test_without_an_address_map_there_are_no_offsets() -> None:
    config = Config()
    config.generate_address_map = False
    store = Store(Engine(config))
    boom = Instance(store, Module(store.engine, '(module (func $boom (export "boom") unreachable))'), []).exports(store)
    with pytest.raises(Trap) as caught:
        boom["boom"](store)
    assert caught.value.frames[0].func_name == "boom"
    assert caught.value.frames[0].module_offset == 0xFFFFFFFF
    assert "boom" in str(caught.value)


@pytest.mark.parametrize("level", ["none", "speed", "speed_and_size"])
@pytest.mark.parametrize("guard", [0, 65536, 32 << 20])
@pytest.mark.parametrize("signals", [True, False])
def test_combinations_run(level: str, guard: int, signals: bool) -> None:
    config = Config()
    config.cranelift_opt_level = level
    config.memory_guard_size = guard
    config.signals_based_traps = signals
    config.guard_before_linear_memory = not signals
    store = Store(Engine(config))
    module = Module(
        store.engine,
        """(module (memory 1) (data (i32.const 0) "\\05\\06") (func (export "sum") (result i32)
             (i32.add (i32.load8_u (i32.const 0)) (i32.load8_u offset=1 (i32.const 0))))
             (func (export "far") (param i32) (result i32) (i32.load offset=0x7fffffff (local.get 0))))""",
    )
    x = Instance(store, module, []).exports(store)
    assert x["sum"](store) == 11
    for address in (0, 1, -1, 0x7FFFFFFF):
        with pytest.raises(Trap, match="out of bounds memory access"):
            x["far"](store, address)


@pytest.mark.parametrize("size", [0, 65536, 1 << 20, 8 << 30])
@pytest.mark.parametrize("signals", [True, False])
def test_reservations(size: int, signals: bool) -> None:
    """A memory whose reservation is small cannot grow beyond it, but is as safe."""
    config = Config()
    config.memory_reservation = size
    config.signals_based_traps = signals
    store = Store(Engine(config))
    module = Module(
        store.engine,
        """(module (memory (export "m") 1) (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
             (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))""",
    )
    x = Instance(store, module, []).exports(store)
    assert x["load"](store, 65532) == 0
    for address in (65533, 65536, 1 << 20, 0x7FFFFFFF, -1, -65536):
        with pytest.raises(Trap):
            x["load"](store, address)
    before = x["grow"](store, 1)
    assert before in (1, -1)
    with pytest.raises(Trap):
        x["load"](store, 2 * 65536)


def test_strategies() -> None:
    for strategy in ("auto", "llvm", "cranelift"):
        config = Config()
        config.strategy = strategy
        Engine(config)
    with pytest.raises(WasmtimeError, match="unknown strategy: interpreter"):
        Config().strategy = "interpreter"
