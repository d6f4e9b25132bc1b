;; An asynchronous export that answers by a callback, and one that is called and waited for.

(component
  (core module $m
    (import "" "return" (func $return (param i32)))
    (func (export "answer") (param i32) (result i32)
      (call $return (i32.add (local.get 0) (i32.const 1)))
      (i32.const 0))
    (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
  (core func $return (canon task.return (result u32)))
  (core instance $i (instantiate $m (with "" (instance (export "return" (func $return))))))
  (func (export "answer") async (param "x" u32) (result u32)
    (canon lift (core func $i "answer") async (callback (core func $i "callback")))))

(assert_return (invoke "answer" (u32.const 41)) (u32.const 42))

;; It ends without an answer.
(component
  (core module $m
    (func (export "answer") (param i32) (result i32) (i32.const 0))
    (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
  (core instance $i (instantiate $m))
  (func (export "answer") async (param "x" u32) (result u32)
    (canon lift (core func $i "answer") async (callback (core func $i "callback")))))

(assert_trap (invoke "answer" (u32.const 41)) "failed to produce a result")
