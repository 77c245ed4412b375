(module
  ;; Float locals in vector registers; constants in a pool behind the code.
  (func $horner (param $x f64) (result f64)
    (f64.add (f64.mul (f64.add (f64.mul (local.get $x) (f64.const 2)) (f64.const 3)) (local.get $x)) (f64.const 4)))

  ;; min: NaN and the sign of zero need more than the machine's instruction.
  (func $min (param $x f32) (param $y f32) (result f32)
    (f32.min (local.get $x) (local.get $y)))

  ;; A truncation that traps for what does not fit, with NaN told apart out of line.
  (func $trunc (param $x f64) (result i32)
    (i32.trunc_f64_s (local.get $x))))
