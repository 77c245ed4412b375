(module
  ;; Operands stay where they are until something wants them; results go to the pinned local that is assigned next.
  (func $sum_to (param $n i32) (result i32) (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (local.get $n)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))

  ;; A comparison and the branch that consumes it are two instructions; `and` becomes `test`.
  (func $parity (param $x i32) (result i32)
    (if (result i32) (i32.and (local.get $x) (i32.const 1)) (then (i32.const 10)) (else (i32.const 20))))

  ;; Divisions trap out of line, and by a power of two they are shifts.
  (func $quotients (param $a i32) (param $b i32) (result i32)
    (i32.add (i32.div_s (local.get $a) (local.get $b)) (i32.div_u (local.get $a) (i32.const 8))))

  ;; The count of a shift goes through rcx.
  (func $shift (param $a i64) (param $b i64) (result i64)
    (i64.shr_s (local.get $a) (local.get $b))))
