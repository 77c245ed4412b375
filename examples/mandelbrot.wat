;; The Mandelbrot set as text: a complete WASI program, written by hand.
;;
;;   wasmforge run examples/mandelbrot.wat             fits a terminal of 80 columns
;;   wasmforge run examples/mandelbrot.wat 200         200 columns
;;
;; On a terminal it draws in colour, two points to a character (the upper half block with a foreground and a background
;; colour). Into a file or a pipe it writes plain letters. Time and iterations go to standard error.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 1)

  ;; Addresses. 0: one iovec, 8: bytes written, 16: a fdstat, 48: argument count and size, 56: a time stamp.
  (global $palette i32 (i32.const 128))      ;; colours of three bytes, read in a circle
  (global $colours i32 (i32.const 8))
  (global $ramp i32 (i32.const 192))         ;; letters from dark to light
  (global $text i32 (i32.const 256))         ;; strings, each ended by a zero byte
  (global $arguments i32 (i32.const 1024))   ;; pointers, then the strings that they point to
  (global $arguments_end i32 (i32.const 4096))
  (global $buffer i32 (i32.const 4096))
  (global $buffer_end i32 (i32.const 12288))

  (data (i32.const 128)
    "\07\0a\22" "\14\2a\6e" "\2b\73\b8" "\8f\d3\e8" "\fb\f4\dc" "\f6\b2\3c" "\b3\3b\2e" "\3c\0d\3a")
  (data (i32.const 192) " .,:;-=+*oxOX#%@")
  (data (i32.const 256) "\1b[38;2;\00")       ;; 256: foreground
  (data (i32.const 272) "\1b[48;2;\00")       ;; 272: background
  (data (i32.const 288) "m\e2\96\80\00")      ;; 288: end of a colour, then the upper half block
  (data (i32.const 304) "\1b[0m\0a\00")       ;; 304: end of a coloured line
  (data (i32.const 320) " points, \00")
  (data (i32.const 336) " iterations, \00")
  (data (i32.const 352) " ms\0a\00")
  (data (i32.const 368) "usage: mandelbrot [columns from 8 to 1000]\0a\00")

  (global $limit i32 (i32.const 1000))       ;; iterations after which a point counts as inside
  (global $side i32 (i32.const 4))           ;; a point is the mean of side * side samples
  (global $fd (mut i32) (i32.const 1))
  (global $end (mut i32) (i32.const 4096))   ;; one past the last byte in the buffer
  (global $iterations (mut i64) (i64.const 0))
  (global $red (mut i32) (i32.const 0))      ;; the colour that $sample has added up
  (global $green (mut i32) (i32.const 0))
  (global $blue (mut i32) (i32.const 0))

  ;; ---- output ----

  (func $flush (local $from i32)
    (local.set $from (global.get $buffer))
    (block $done
      (loop $again                           ;; a pipe may take less than everything
        (br_if $done (i32.ge_u (local.get $from) (global.get $end)))
        (i32.store (i32.const 0) (local.get $from))
        (i32.store (i32.const 4) (i32.sub (global.get $end) (local.get $from)))
        (if (call $fd_write (global.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
          (then (call $proc_exit (i32.const 1))))
        (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
        (br $again)))
    (global.set $end (global.get $buffer)))

  (func $put (param $byte i32)
    (if (i32.eq (global.get $end) (global.get $buffer_end)) (then (call $flush)))
    (i32.store8 (global.get $end) (local.get $byte))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))

  (func $put_text (param $from i32) (local $byte i32)
    (loop $again
      (if (local.tee $byte (i32.load8_u (local.get $from)))
        (then
          (call $put (local.get $byte))
          (local.set $from (i32.add (local.get $from) (i32.const 1)))
          (br $again)))))

  (func $put_number (param $n i64)
    (if (i64.ge_u (local.get $n) (i64.const 10))
      (then (call $put_number (i64.div_u (local.get $n) (i64.const 10)))))
    (call $put (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10))))))

  ;; A colour as `red;green;blue` after an escape sequence.
  (func $put_colour (param $escape i32) (param $colour i32)
    (call $put_text (local.get $escape))
    (call $put_number (i64.extend_i32_u (i32.shr_u (local.get $colour) (i32.const 16))))
    (call $put (i32.const 59))
    (call $put_number (i64.extend_i32_u (i32.and (i32.shr_u (local.get $colour) (i32.const 8)) (i32.const 255))))
    (call $put (i32.const 59))
    (call $put_number (i64.extend_i32_u (i32.and (local.get $colour) (i32.const 255)))))

  ;; ---- mathematics ----

  ;; Base-2 logarithm of a positive normal number: the exponent, plus the series of log((1+t)/(1-t)) for the mantissa.
  (func $log2 (param $x f64) (result f64) (local $bits i64) (local $m f64) (local $t f64) (local $tt f64)
    (local.set $bits (i64.reinterpret_f64 (local.get $x)))
    (local.set $m
      (f64.reinterpret_i64
        (i64.or (i64.and (local.get $bits) (i64.const 0x000fffffffffffff)) (i64.const 0x3ff0000000000000))))
    (local.set $t (f64.div (f64.sub (local.get $m) (f64.const 1)) (f64.add (local.get $m) (f64.const 1))))
    (local.set $tt (f64.mul (local.get $t) (local.get $t)))
    (f64.add
      (f64.convert_i64_s (i64.sub (i64.shr_u (local.get $bits) (i64.const 52)) (i64.const 1023)))
      (f64.mul
        (f64.mul (f64.const 2.8853900817779268) (local.get $t))      ;; 2 / ln 2
        (f64.add (f64.const 1)
          (f64.mul (local.get $tt)
            (f64.add (f64.const 0.3333333333333333)
              (f64.mul (local.get $tt)
                (f64.add (f64.const 0.2) (f64.mul (local.get $tt) (f64.const 0.14285714285714285))))))))))

  ;; How long z := z*z + c takes to leave a circle of radius 100, without steps between neighbours; negative: never.
  (func $escape_time (param $cx f64) (param $cy f64) (result f64)
    (local $x f64) (local $y f64) (local $xx f64) (local $yy f64) (local $n i32)
    (block $escaped
      (loop $again
        (local.set $y
          (f64.add (f64.mul (f64.mul (f64.const 2) (local.get $x)) (local.get $y)) (local.get $cy)))
        (local.set $x (f64.add (f64.sub (local.get $xx) (local.get $yy)) (local.get $cx)))
        (local.set $xx (f64.mul (local.get $x) (local.get $x)))
        (local.set $yy (f64.mul (local.get $y) (local.get $y)))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $escaped (f64.gt (f64.add (local.get $xx) (local.get $yy)) (f64.const 10000)))
        (br_if $again (i32.lt_u (local.get $n) (global.get $limit))))
      (global.set $iterations (i64.add (global.get $iterations) (i64.extend_i32_u (local.get $n))))
      (return (f64.const -1)))
    (global.set $iterations (i64.add (global.get $iterations) (i64.extend_i32_u (local.get $n))))
    (f64.max
      (f64.const 0)
      (f64.sub
        (f64.convert_i32_u (i32.add (local.get $n) (i32.const 3)))
        (call $log2 (call $log2 (f64.add (local.get $xx) (local.get $yy)))))))

  ;; The colour between entries `at` and `at + 1` of the palette: red, green and blue, as three results.
  (func $blend (param $at i32) (param $part f64) (result i32 i32 i32) (local $a i32) (local $b i32)
    (local.set $a
      (i32.add (global.get $palette)
        (i32.mul (i32.const 3) (i32.rem_u (local.get $at) (global.get $colours)))))
    (local.set $b
      (i32.add (global.get $palette)
        (i32.mul (i32.const 3) (i32.rem_u (i32.add (local.get $at) (i32.const 1)) (global.get $colours)))))
    (call $between (i32.load8_u (local.get $a)) (i32.load8_u (local.get $b)) (local.get $part))
    (call $between (i32.load8_u offset=1 (local.get $a)) (i32.load8_u offset=1 (local.get $b)) (local.get $part))
    (call $between (i32.load8_u offset=2 (local.get $a)) (i32.load8_u offset=2 (local.get $b)) (local.get $part)))

  (func $between (param $a i32) (param $b i32) (param $part f64) (result i32)
    (i32.add (local.get $a)
      (i32.trunc_sat_f64_s
        (f64.mul (local.get $part) (f64.convert_i32_s (i32.sub (local.get $b) (local.get $a)))))))

  ;; Adds the colour of one sample to $red, $green and $blue. Points inside are black.
  (func $sample (param $cx f64) (param $cy f64) (local $time f64) (local $whole f64)
    (local.set $time (call $escape_time (local.get $cx) (local.get $cy)))
    (if (f64.lt (local.get $time) (f64.const 0)) (then (return)))
    ;; Root of the time: wide bands far outside, and still some near the border.
    (local.set $time (f64.mul (f64.const 0.85) (f64.sqrt (local.get $time))))
    (local.set $whole (f64.floor (local.get $time)))
    (call $blend (i32.trunc_f64_u (local.get $whole)) (f64.sub (local.get $time) (local.get $whole)))
    (global.set $blue (i32.add (global.get $blue)))
    (global.set $green (i32.add (global.get $green)))
    (global.set $red (i32.add (global.get $red))))

  ;; Mean colour of the square of the given size whose corner is (cx, cy), as 0xrrggbb.
  (func $point (param $cx f64) (param $cy f64) (param $size f64) (result i32)
    (local $i i32) (local $j i32) (local $step f64) (local $samples i32)
    (local.set $step (f64.div (local.get $size) (f64.convert_i32_s (global.get $side))))
    (local.set $samples (i32.mul (global.get $side) (global.get $side)))
    (global.set $red (i32.const 0))
    (global.set $green (i32.const 0))
    (global.set $blue (i32.const 0))
    (loop $rows
      (local.set $j (i32.const 0))
      (loop $columns
        (call $sample
          (f64.add (local.get $cx) (f64.mul (local.get $step) (f64.convert_i32_s (local.get $j))))
          (f64.add (local.get $cy) (f64.mul (local.get $step) (f64.convert_i32_s (local.get $i)))))
        (local.set $j (i32.add (local.get $j) (i32.const 1)))
        (br_if $columns (i32.lt_s (local.get $j) (global.get $side))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $rows (i32.lt_s (local.get $i) (global.get $side))))
    (i32.or
      (i32.or
        (i32.shl (i32.div_u (global.get $red) (local.get $samples)) (i32.const 16))
        (i32.shl (i32.div_u (global.get $green) (local.get $samples)) (i32.const 8)))
      (i32.div_u (global.get $blue) (local.get $samples))))

  ;; The letter for a colour, by its lightness.
  (func $letter (param $colour i32) (result i32)
    (i32.load8_u
      (i32.add (global.get $ramp)
        (i32.div_u
          (i32.add
            (i32.add
              (i32.mul (i32.const 3) (i32.shr_u (local.get $colour) (i32.const 16)))
              (i32.mul (i32.const 6) (i32.and (i32.shr_u (local.get $colour) (i32.const 8)) (i32.const 255))))
            (i32.and (local.get $colour) (i32.const 255)))
          (i32.const 160)))))

  ;; ---- program ----

  ;; The first argument as a number: 79 without one, 0 when it is not a number or there is too much of it.
  (func $columns (result i32) (local $at i32) (local $digit i32) (local $n i32)
    (if (call $args_sizes_get (i32.const 48) (i32.const 52)) (then (return (i32.const 0))))
    (if (i32.lt_u (i32.load (i32.const 48)) (i32.const 2)) (then (return (i32.const 79))))
    (local.set $at (i32.add (global.get $arguments) (i32.shl (i32.load (i32.const 48)) (i32.const 2))))
    (if (i32.gt_u (i32.load (i32.const 48)) (i32.const 64)) (then (return (i32.const 0))))
    (if (i32.gt_u (i32.load (i32.const 52)) (i32.sub (global.get $arguments_end) (local.get $at)))
      (then (return (i32.const 0))))
    (if (call $args_get (global.get $arguments) (local.get $at)) (then (return (i32.const 0))))
    (local.set $at (i32.load offset=4 (global.get $arguments)))
    (loop $again
      (if (local.tee $digit (i32.load8_u (local.get $at)))
        (then
          (local.set $digit (i32.sub (local.get $digit) (i32.const 48)))
          (if (i32.gt_u (local.get $digit) (i32.const 9)) (then (return (i32.const 0))))
          (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10)) (local.get $digit)))
          (if (i32.gt_u (local.get $n) (i32.const 1000)) (then (return (i32.const 0))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $again))))
    (local.get $n))

  ;; Is standard output a terminal? File type 2 is a character device.
  (func $in_colour (result i32)
    (if (call $fd_fdstat_get (i32.const 1) (i32.const 16)) (then (return (i32.const 0))))
    (i32.eq (i32.load8_u (i32.const 16)) (i32.const 2)))

  (func $now (result i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1000) (i32.const 56)))
    (i64.load (i32.const 56)))

  (func (export "_start")
    (local $columns i32) (local $rows i32) (local $colour i32) (local $row i32) (local $column i32)
    (local $size f64) (local $x f64) (local $y f64) (local $started i64)
    (local.set $columns (call $columns))
    (if (i32.lt_u (local.get $columns) (i32.const 8))
      (then
        (global.set $fd (i32.const 2))
        (call $put_text (i32.const 368))
        (call $flush)
        (call $proc_exit (i32.const 2))))
    (local.set $started (call $now))
    (local.set $colour (call $in_colour))
    ;; From -2.15 to 0.75 across, and as much down as square points allow: a letter is two points high.
    (local.set $size (f64.div (f64.const 2.9) (f64.convert_i32_s (local.get $columns))))
    (local.set $rows (i32.div_s (i32.mul (local.get $columns) (i32.const 2)) (i32.const 5)))
    (loop $down
      (local.set $column (i32.const 0))
      (local.set $y
        (f64.mul (local.get $size)
          (f64.convert_i32_s (i32.sub (i32.shl (local.get $row) (i32.const 1)) (local.get $rows)))))
      (loop $across
        (local.set $x
          (f64.add (f64.const -2.15) (f64.mul (local.get $size) (f64.convert_i32_s (local.get $column)))))
        (if (local.get $colour)
          (then
            (call $put_colour (i32.const 256) (call $point (local.get $x) (local.get $y) (local.get $size)))
            (call $put (i32.const 109))
            (call $put_colour (i32.const 272)
              (call $point (local.get $x) (f64.add (local.get $y) (local.get $size)) (local.get $size)))
            (call $put_text (i32.const 288)))
          (else
            (call $put
              (call $letter
                (call $point (local.get $x) (f64.add (local.get $y) (f64.mul (local.get $size) (f64.const 0.5)))
                  (local.get $size))))))
        (local.set $column (i32.add (local.get $column) (i32.const 1)))
        (br_if $across (i32.lt_s (local.get $column) (local.get $columns))))
      (call $put_text (select (i32.const 304) (i32.const 308) (local.get $colour)))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br_if $down (i32.lt_s (local.get $row) (local.get $rows))))
    (call $flush)
    (global.set $fd (i32.const 2))
    (call $put_number
      (i64.extend_i32_u
        (i32.mul (i32.mul (local.get $columns) (local.get $rows))
          (i32.shl (i32.mul (global.get $side) (global.get $side)) (local.get $colour)))))
    (call $put_text (i32.const 320))
    (call $put_number (global.get $iterations))
    (call $put_text (i32.const 336))
    (call $put_number (i64.div_u (i64.sub (call $now) (local.get $started)) (i64.const 1000000)))
    (call $put_text (i32.const 352))
    (call $flush)))
