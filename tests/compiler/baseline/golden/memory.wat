(module
  (memory 1)
  ;; In a function that calls nothing the memory's base sits in r10. Offsets are part of the machine operand, and the second
  ;; operand of an addition comes straight from memory.
  (func $sum (param $p i32) (result i32)
    (i32.add (i32.load offset=8 (local.get $p)) (i32.load offset=12 (local.get $p))))

  ;; Constants are stored as they are; a constant address is a displacement.
  (func $store (param $p i32)
    (i32.store8 (local.get $p) (i32.const 7))
    (i64.store offset=16 (i32.const 1024) (i64.const -1)))

  ;; An offset beyond the guard region is checked.
  (func $far (param $p i32) (result f64)
    (f64.load offset=0x4000000 (local.get $p))))
