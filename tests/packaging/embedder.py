"""What users write: a program that type checkers read (`mypy`, `test_types.py`) and nobody runs. It uses settings, the
objects of the package, and the functions for Python users."""

from __future__ import annotations

import asyncio

import wasmforge
from wasmforge import (
    Caller,
    Config,
    Engine,
    Func,
    FuncType,
    Global,
    GlobalType,
    Instance,
    Limits,
    Linker,
    Memory,
    MemoryType,
    Module,
    SharedMemory,
    Store,
    Table,
    TableType,
    Trap,
    TrapCode,
    Val,
    ValType,
    WasiConfig,
    WasmtimeError,
    wat2wasm,
)


def configure() -> Engine:
    config = Config()
    config.wasm_simd = True
    config.wasm_threads = False
    config.strategy = "auto"
    config.cache = False
    config.consume_fuel = True
    config.max_wasm_stack = 1 << 20
    config.cranelift_opt_level = "speed"
    return Engine(config)


def host(caller: Caller, n: int) -> int:
    memory = caller["memory"]
    if isinstance(memory, Memory):
        data = memory.read(caller, 0, 10)
        memory.write(caller, data, n)
    return n + 1


def externs(store: Store) -> None:
    memory = Memory(store, MemoryType(Limits(1, None)))
    print(memory.data_len(store), memory.size(store), memory.grow(store, 1), memory.type(store).limits.min)
    table = Table(store, TableType(ValType.funcref(), Limits(1, 10)), None)
    print(table.size(store), table.get(store, 0))
    g = Global(store, GlobalType(ValType.i32(), True), Val.i32(3))
    g.set_value(store, 4)
    print(g.value(store), g.type(store).content)


def main() -> None:
    engine = configure()
    store = Store(engine)
    store.set_fuel(1000)
    store.set_limits(memory_size=1 << 20)
    print(store.get_fuel())
    linker = Linker(engine)
    linker.allow_shadowing = True
    linker.define_wasi()
    wasi = WasiConfig()
    wasi.argv = ["a"]
    wasi.env = [("A", "B")]
    wasi.inherit_stdout()
    wasi.preopen_dir(".", "/")
    store.set_wasi(wasi)
    func = Func(store, FuncType([ValType.i32()], [ValType.i32()]), host, access_caller=True)
    linker.define(store, "host", "f", func)
    module = Module(engine, wat2wasm("(module)"))
    for i in module.imports:
        print(i.module, i.name, i.type)
    instance = linker.instantiate(store, module)
    exports = instance.exports(store)
    run = exports["run"]
    if isinstance(run, Func):
        try:
            print(run(store, 1), run.type(store).params)
        except Trap as trap:
            if trap.trap_code == TrapCode.UNREACHABLE:
                print(trap.message, [f.func_name for f in trap.frames or []])
        except WasmtimeError as error:
            print(error)
    Module.validate(engine, b"")
    data = module.serialize()
    Module.deserialize(engine, bytes(data))
    Instance(store, module, [func])
    shared = SharedMemory(engine, MemoryType(Limits(1, 2), shared=True))
    print(shared.size())


async def later(store: Store, run: Func) -> None:
    print(await run.call_async(store, 1))


def python_user() -> None:
    app = wasmforge.load("(module)", imports={"host": {"f": host}})
    print(app.add(1, 2), add(1, 2))
    result = wasmforge.run("a.wasm", ["x"], timeout=3.0)
    print(result.returncode, result.stdout)
    asyncio.run(later(Store(), Func(Store(), FuncType([], []), print)))


@wasmforge.func("i32, i32 -> i32")
def add(a: int, b: int) -> int:
    return a + b
