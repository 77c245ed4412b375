(module
  (memory 1)
  ;; The inner loop of a matrix product.
  (func $product (param $a i32) (param $b i32) (param $n i32) (result v128) (local $sum v128) (local $other v128)
    (loop $next
      (local.set $sum
        (f32x4.add (local.get $sum)
          (f32x4.mul (v128.load32_splat (local.get $a)) (v128.load (local.get $b)))))
      (local.set $other
        (f32x4.relaxed_madd (v128.load32_splat offset=4 (local.get $a)) (v128.load offset=16 (local.get $b)) (local.get $other)))
      (local.set $a (i32.add (local.get $a) (i32.const 8)))
      (local.set $b (i32.add (local.get $b) (i32.const 32)))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (f32x4.add (local.get $sum) (local.get $other)))
  ;; A step of BLAKE3: additions, and rotations by shuffles and by shifts.
  (func $mix (param $a v128) (param $b v128) (param $d v128) (param $m v128) (result v128 v128)
    (local.set $a (i32x4.add (i32x4.add (local.get $a) (local.get $b)) (local.get $m)))
    (local.set $d (v128.xor (local.get $d) (local.get $a)))
    (local.set $d (i8x16.shuffle 2 3 0 1 6 7 4 5 10 11 8 9 14 15 12 13 (local.get $d) (local.get $d)))
    (local.get $a)
    (v128.or (i32x4.shr_u (local.get $d) (i32.const 12)) (i32x4.shl (local.get $d) (i32.const 20))))
  ;; A vector waits in its slot while something is called.
  (func $across (param v128) (result v128)
    (i64x2.add (v128.not (local.get 0)) (call $across (v128.const i64x2 1 0)))))
