(module
  (type $t (func (param i32) (result i32)))
  (import "host" "f" (func $host (param i32) (result i32)))
  (table 4 funcref)
  ;; Recursion: arguments and results in registers, what lives across the call in a callee-saved one.
  (func $fib (param $n i32) (result i32)
    (if (i32.lt_u (local.get $n) (i32.const 2)) (then (return (local.get $n))))
    (i32.add
      (call $fib (i32.sub (local.get $n) (i32.const 1)))
      (call $fib (i32.sub (local.get $n) (i32.const 2)))))

  ;; An import runs with its own vmctx; ours is in r10 for it, and put back behind the call.
  (func $import (param $n i32) (result i32)
    (call $host (local.get $n)))

  ;; Bounds, null and signature are checked before a call through a table.
  (func $indirect (param $n i32) (result i32)
    (call_indirect (type $t) (i32.const 5) (local.get $n))))
