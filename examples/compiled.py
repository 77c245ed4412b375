"""Compile once, run often: a compiled image is mapped from its file, and the process that runs it needs no compiler.

python examples/compiled.py
"""

import tempfile
from pathlib import Path

from wasmforge import Engine, Instance, Module, Store, WasmtimeError

SOURCE = """
(module
  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else
        (i32.add
          (call $fib (i32.sub (local.get 0) (i32.const 1)))
          (call $fib (i32.sub (local.get 0) (i32.const 2))))))))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "fib.image"
        image.write_bytes(Module(Engine(), SOURCE).serialize())
        print("the image is an ELF file:", image.read_bytes()[1:4] == b"ELF")

        # Usually in another process. Only load images that you made yourself: they are machine code.
        store = Store(Engine())
        module = Module.deserialize_file(store.engine, str(image))
        fib = Instance(store, module, []).exports(store)["fib"]
        print("fib(25) =", fib(store, 25))

        # A damaged image is refused.
        damaged = bytearray(image.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        try:
            Module.deserialize(store.engine, bytes(damaged))
        except WasmtimeError as error:
            print("damaged:", type(error).__name__)


if __name__ == "__main__":
    main()
