;; Records, variants, options, results, tuples, flags, lists: as parameters, flat, and as results, in memory.

(component
  (core module $m
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "swap") (param i32 i64) (result i32)
      (i64.store (i32.const 16) (local.get 1)) (i32.store (i32.const 24) (local.get 0)) (i32.const 16))
    ;; (case, payload): a list's sum, or nothing.
    (func (export "sum") (param $at i32) (param $count i32) (result i32)
      (local $sum i32)
      (i32.store8 (i32.const 16) (i32.ne (local.get $count) (i32.const 0)))
      (block $done
        (loop $more
          (br_if $done (i32.eqz (local.get $count)))
          (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $at))))
          (local.set $at (i32.add (local.get $at) (i32.const 4)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $more)))
      (i32.store (i32.const 20) (local.get $sum))
      (i32.const 16))
    (func (export "half") (param $x i32) (result i32)
      (i32.store8 (i32.const 16) (i32.and (local.get $x) (i32.const 1)))
      (i32.store (i32.const 20)
        (select (local.get $x) (i32.shr_u (local.get $x) (i32.const 1)) (i32.and (local.get $x) (i32.const 1))))
      (i32.const 16))
    (func (export "same") (param i32) (result i32) (local.get 0))
    (func (export "no-case") (result i32) (i32.const 9)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "realloc" (core func $realloc))
  (type $color' (enum "red" "green" "blue"))
  (export $color "color" (type $color'))
  (type $rights' (flags "read" "write" "run"))
  (export $rights "rights" (type $rights'))
  (func (export "swap") (param "pair" (tuple u32 u64)) (result (tuple u64 u32))
    (canon lift (core func $i "swap") (memory $memory)))
  (func (export "sum") (param "numbers" (list u32)) (result (option u32))
    (canon lift (core func $i "sum") (memory $memory) (realloc $realloc)))
  (func (export "half") (param "x" u32) (result (result u32 (error u32)))
    (canon lift (core func $i "half") (memory $memory)))
  (func (export "paint") (param "x" $color) (result $color) (canon lift (core func $i "same")))
  (func (export "grant") (param "x" $rights) (result $rights) (canon lift (core func $i "same")))
  (func (export "no-case") (result $color) (canon lift (core func $i "no-case"))))

(assert_return (invoke "swap" (tuple.const (u32.const 1) (u64.const 2))) (tuple.const (u64.const 2) (u32.const 1)))
(assert_return (invoke "sum" (list.const (u32.const 1) (u32.const 2) (u32.const 39))) (option.some (u32.const 42)))
(assert_return (invoke "sum" (list.const)) (option.none))
(assert_return (invoke "half" (u32.const 8)) (result.ok (u32.const 4)))
(assert_return (invoke "half" (u32.const 7)) (result.err (u32.const 7)))
(assert_return (invoke "paint" (enum.const "blue")) (enum.const "blue"))
(assert_return (invoke "grant" (flags.const "read" "run")) (flags.const "read" "run"))
(assert_trap (invoke "no-case") "discriminant")

;; A list that is said to be longer than memory.
(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "long") (result i32)
      (i32.store (i32.const 16) (i32.const 0)) (i32.store (i32.const 20) (i32.const -1)) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func (export "long") (result (list u64)) (canon lift (core func $i "long") (memory (core memory $i "memory")))))
(assert_trap (invoke "long") "out of bounds")

;; Two of one name, a name that is none, a type that is not there.
(assert_invalid (component (import "a" (func)) (import "a" (func))) "conflicts")
(assert_invalid (component (type (record (field "a" u8) (field "A" u8)))) "conflicts")
(assert_invalid (component (type (record))) "at least one field")
(assert_invalid (component (import "Not_Kebab" (func))) "kebab")
