;; Strings between components of different encodings, and strings that are none.

(component
  ;; Inside of this one, text is UTF-16.
  (component $wide
    (core module $m
      (memory (export "memory") 1)
      (global $free (mut i32) (i32.const 1024))
      (func (export "realloc") (param $old i32) (param $had i32) (param i32) (param $wanted i32) (result i32)
        (local $at i32)
        (if (i32.le_u (local.get $wanted) (local.get $had)) (then (return (local.get $old))))
        (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.set $free (i32.add (local.get $at) (local.get $wanted)))
        (memory.copy (local.get $at) (local.get $old) (local.get $had))
        (local.get $at))
      (func (export "echo") (param i32 i32) (result i32)
        (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16)))
    (core instance $i (instantiate $m))
    (func (export "echo") (param "text" string) (result string)
      (canon lift (core func $i "echo") string-encoding=utf16
        (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
  (component $narrow
    (import "echo" (func $echo (param "text" string) (result string)))
    (core module $libc
      (memory (export "memory") 1)
      (global $free (mut i32) (i32.const 1024))
      (func (export "realloc") (param $old i32) (param $had i32) (param i32) (param $wanted i32) (result i32)
        (local $at i32)
        (if (i32.le_u (local.get $wanted) (local.get $had)) (then (return (local.get $old))))
        (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.set $free (i32.add (local.get $at) (local.get $wanted)))
        (memory.copy (local.get $at) (local.get $old) (local.get $had))
        (local.get $at)))
    (core instance $libc (instantiate $libc))
    (core func $echo' (canon lower (func $echo)
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
    (core module $m
      (import "libc" "memory" (memory 1))
      (import "wide" "echo" (func $echo (param i32 i32 i32)))
      (data (i32.const 64) "\ff\fe")
      (func (export "through") (param i32 i32) (result i32)
        (call $echo (local.get 0) (local.get 1) (i32.const 16)) (i32.const 16))
      (func (export "no-text") (result i32)
        (call $echo (i32.const 64) (i32.const 2) (i32.const 16)) (i32.const 16)))
    (core instance $i (instantiate $m
      (with "libc" (instance $libc)) (with "wide" (instance (export "echo" (func $echo'))))))
    (func (export "through") (param "text" string) (result string)
      (canon lift (core func $i "through") (memory (core memory $libc "memory"))
        (realloc (core func $libc "realloc"))))
    (func (export "no-text") (result string)
      (canon lift (core func $i "no-text") (memory (core memory $libc "memory")))))
  (instance $wide (instantiate $wide))
  (instance $narrow (instantiate $narrow (with "echo" (func $wide "echo"))))
  (export "through" (func $narrow "through"))
  (export "no-text" (func $narrow "no-text")))

(assert_return (invoke "through" (str.const "")) (str.const ""))
(assert_return (invoke "through" (str.const "plain")) (str.const "plain"))
(assert_return (invoke "through" (str.const "naïve Ωmega 🦀")) (str.const "naïve Ωmega 🦀"))
(assert_trap (invoke "no-text") "utf")

(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "outside") (result i32)
      (i32.store (i32.const 16) (i32.const 65530)) (i32.store (i32.const 20) (i32.const 100)) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func (export "outside") (result string)
    (canon lift (core func $i "outside") (memory (core memory $i "memory")))))
(assert_trap (invoke "outside") "out of bounds")
;; An instance that trapped is not entered again.
(assert_trap (invoke "outside") "cannot enter")
