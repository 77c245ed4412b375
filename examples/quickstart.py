"""The short way: load a module, call its functions, share its memory.

python examples/quickstart.py
"""

import wasmforge

SOURCE = """
(module
  (memory (export "memory") 1)
  (global (export "calls") (mut i32) (i32.const 0))
  (func $gcd (export "gcd") (param $a i32) (param $b i32) (result i32)
    (global.set 0 (i32.add (global.get 0) (i32.const 1)))
    (if (result i32) (local.get $b)
      (then (call $gcd (local.get $b) (i32.rem_u (local.get $a) (local.get $b))))
      (else (local.get $a))))
  (func (export "divide") (param $a i64) (param $b i64) (result i64 i64)  ;; two results
    (i64.div_s (local.get $a) (local.get $b))
    (i64.rem_s (local.get $a) (local.get $b)))
  (func (export "sum") (param $from i32) (param $count i32) (result f64) (local $total f64)
    (loop $again
      (if (local.get $count)
        (then
          (local.set $total (f64.add (local.get $total) (f64.load (local.get $from))))
          (local.set $from (i32.add (local.get $from) (i32.const 8)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $again))))
    (local.get $total)))
"""


def main() -> None:
    app = wasmforge.load(SOURCE)  # a path, the bytes of a .wasm file, or text
    print(app)

    # Exports are attributes, and functions are built-in function objects: a call costs well under 100 ns.
    print("gcd(3528, 3780) =", app.gcd(3528, 3780))
    print("divide(-17, 5) =", app.divide(-17, 5))
    print("calls of gcd:", app.calls.value)

    # Memory is shared, not copied; numpy.asarray(app.memory) is a view of the same bytes.
    doubles = app.memory.view().cast("d")
    doubles[0], doubles[1], doubles[2] = 0.5, 1.25, 2.0
    print("sum =", app.sum(0, 3))

    # Wrong arguments are Python exceptions that name the parameter.
    for wrong in ((1,), (1, "2"), (1, 2**32)):
        try:
            app.gcd(*wrong)
        except (TypeError, OverflowError) as error:
            print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
