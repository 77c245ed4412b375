"""Python called from wasm: plain callables, memory of the caller, Python objects as values, and exceptions.

python examples/host_functions.py
"""

import traceback

from wasmforge import Caller, Engine, Func, FuncType, Instance, Linker, Module, Store, ValType

SOURCE = """
(module $inventory
  (import "host" "print" (func $print (param i32 i32)))
  (import "host" "price" (func $price (param externref i32) (result f64)))
  (memory (export "memory") 1)
  (data (i32.const 16) "apples, 3 of them")

  (func (export "greet") (call $print (i32.const 16) (i32.const 17)))

  ;; The catalogue is a Python object: wasm hands it on without looking inside.
  (func $total (export "total") (param $catalogue externref) (param $items i32) (result f64) (local $sum f64)
    (loop $again
      (if (local.get $items)
        (then
          (local.set $items (i32.sub (local.get $items) (i32.const 1)))
          (local.set $sum (f64.add (local.get $sum) (call $price (local.get $catalogue) (local.get $items))))
          (br $again))))
    (local.get $sum)))
"""


def print_text(caller: Caller, address: int, size: int) -> None:
    """A host function that asks for its caller (`access_caller`) reads the memory of whoever calls it."""
    memory = caller["memory"]
    print("wasm says:", bytes(memory.read(caller, address, address + size)).decode())


def price(catalogue: dict[int, float], item: int) -> float:
    return catalogue[item]


def main() -> None:
    engine = Engine()
    linker = Linker(engine)
    i32, f64 = ValType.i32(), ValType.f64()
    linker.define_func("host", "print", FuncType([i32, i32], []), print_text, access_caller=True)
    linker.define_func("host", "price", FuncType([ValType.externref(), i32], [f64]), price)

    store = Store(engine)
    instance = linker.instantiate(store, Module(engine, SOURCE))
    exports = instance.exports(store)
    exports["greet"](store)

    catalogue = {0: 0.5, 1: 1.25, 2: 4.0}
    print("total:", exports["total"](store, catalogue, 3))

    # The exception of a host function comes out of the call that entered wasm, with its traceback.
    try:
        exports["total"](store, catalogue, 5)
    except KeyError as error:
        print("".join(traceback.format_exception_only(error)).rstrip())
        print("raised in", traceback.extract_tb(error.__traceback__)[-1].name)

    # Python and wasm can call each other to any depth.
    module = Module(
        engine,
        """(module
          (import "" "half" (func $half (param i32) (result i32)))
          (func (export "halvings") (param i32) (result i32)
            (if (result i32) (i32.eqz (local.get 0))
              (then (i32.const 0))
              (else (i32.add (i32.const 1) (call $half (local.get 0)))))))""",
    )

    def halve(n: int) -> object:
        return halvings(store, n // 2)

    half = Func(store, FuncType([i32], [i32]), halve)
    halvings = Instance(store, module, [half]).exports(store)["halvings"]
    print("halvings of 1000:", halvings(store, 1000))


if __name__ == "__main__":
    main()
