"""Traps: what goes wrong in wasm becomes an exception with a backtrace of wasm functions.

python examples/traps.py
"""

from wasmforge import Engine, Instance, Module, Store, Trap, TrapCode, WasmtimeError

SOURCE = """
(module $demo
  (type $binary (func (param i32 i32) (result i32)))
  (memory 1)
  (table 3 funcref)
  (elem (i32.const 0) $quotient $forget)
  (func $quotient (type $binary) (i32.div_s (local.get 0) (local.get 1)))
  (func $forget (param i64))
  (func $average (export "average") (param $sum i32) (param $count i32) (result i32)
    (call $quotient (local.get $sum) (local.get $count)))
  (func $element (param $index i32) (result i32) (i32.load (i32.shl (local.get $index) (i32.const 2))))
  (func (export "read") (param $index i32) (result i32) (call $element (local.get $index)))
  (func (export "apply") (param $which i32) (result i32)
    (call_indirect (type $binary) (i32.const 7) (i32.const 2) (local.get $which)))
  (func $forever (export "forever") (call $forever))
  (func (export "round") (param f64) (result i32) (i32.trunc_f64_s (local.get 0)))
  (func (export "impossible") unreachable))
"""


def main() -> None:
    store = Store(Engine())
    exports = Instance(store, Module(store.engine, SOURCE), []).exports(store)

    # The text of a trap: the frames that were active, and the cause.
    try:
        exports["average"](store, 10, 0)
    except Trap as trap:
        print(trap)

    # The same as data.
    attempts: list[tuple[str, tuple[float, ...]]] = [
        ("average", (-(2**31), -1)),
        ("read", (16383,)),
        ("read", (16384,)),
        ("apply", (0,)),
        ("apply", (1,)),
        ("apply", (2,)),
        ("apply", (3,)),
        ("round", (1e10,)),
        ("forever", ()),
        ("impossible", ()),
    ]
    for name, arguments in attempts:
        try:
            print(f"{name}{arguments} = {exports[name](store, *arguments)}")
        except Trap as trap:
            code = trap.trap_code or TrapCode.UNREACHABLE
            frames = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:3]]
            print(f"{name}{arguments}: {code.name} in {' < '.join(frames)}")

    # After a trap the instance can be used further: memory and globals are as they were left.
    print("average(10, 4) =", exports["average"](store, 10, 4))

    # A module that is wrong does not get so far: the message says what and where.
    try:
        Module(store.engine, '(module\n  (func (export "f") (result i32)\n    (i64.const 1)))')
    except WasmtimeError as error:
        print("rejected:", str(error).splitlines()[0])


if __name__ == "__main__":
    main()
