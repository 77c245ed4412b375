;; Prints a file of the preopened directory, or says which error the system gave: `cat NAME`.
;; examples/sandbox.py runs it to show what a guest can reach. WASI preview 1; descriptor 3 is the first directory.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 1)

  ;; 0: an iovec, 8: number of bytes, 12: a descriptor, 16: argument count and size, 64: argument pointers,
  ;; 1024: arguments, 8192: file contents.
  (data (i32.const 24) "error \00\00 of the system\0a")

  (func $length (param $text i32) (result i32) (local $end i32)
    (local.set $end (local.get $text))
    (loop $again
      (if (i32.load8_u (local.get $end))
        (then
          (local.set $end (i32.add (local.get $end) (i32.const 1)))
          (br $again))))
    (i32.sub (local.get $end) (local.get $text)))

  (func $write (param $fd i32) (param $from i32) (param $size i32)
    (loop $again
      (i32.store (i32.const 0) (local.get $from))
      (i32.store (i32.const 4) (local.get $size))
      (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
      (br_if $again (local.tee $size (i32.sub (local.get $size) (i32.load (i32.const 8)))))))

  ;; Ends the program with the error as its status, unless it is 0.
  (func $check (param $error i32)
    (if (local.get $error)
      (then
        (i32.store8 (i32.const 30) (i32.add (i32.const 48) (i32.div_u (local.get $error) (i32.const 10))))
        (i32.store8 (i32.const 31) (i32.add (i32.const 48) (i32.rem_u (local.get $error) (i32.const 10))))
        (call $write (i32.const 2) (i32.const 24) (i32.const 23))
        (call $proc_exit (local.get $error)))))

  (func (export "_start") (local $path i32)
    (call $check (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (if (i32.or
          (i32.ne (i32.load (i32.const 16)) (i32.const 2))
          (i32.gt_u (i32.load (i32.const 20)) (i32.const 4096)))
      (then (call $check (i32.const 28))))                      ;; 28: invalid argument
    (call $check (call $args_get (i32.const 64) (i32.const 1024)))
    (local.set $path (i32.load (i32.const 68)))
    (call $check
      (call $path_open
        (i32.const 3) (i32.const 1)                             ;; the directory; follow symbolic links
        (local.get $path) (call $length (local.get $path))
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) ;; an existing file; right 2 is fd_read
        (i32.const 12)))
    (loop $again
      (i32.store (i32.const 0) (i32.const 8192))
      (i32.store (i32.const 4) (i32.const 32768))
      (call $check (call $fd_read (i32.load (i32.const 12)) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8))
        (then
          (call $write (i32.const 1) (i32.const 8192) (i32.load (i32.const 8)))
          (br $again))))))
