//! A guest of `wasi:http/service` 0.3 in Wasm text: its `handle` is async, so one instance can have many requests.
//!
//! It answers with status 400 + N, where N is how many requests its instance has had: that shows which requests
//! shared one. What else it does depends on the method.

/// The types that both the import and the export are made of.
const ERROR: &str = r#"
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (NAMED "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (NAMED "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $size' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (NAMED "field-size-payload" (type $size (eq $size')))
    (type $error' (variant
      (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited")
      (case "destination-IP-unroutable") (case "connection-refused") (case "connection-terminated")
      (case "connection-timeout") (case "connection-read-timeout") (case "connection-write-timeout")
      (case "connection-limit-reached") (case "TLS-protocol-error") (case "TLS-certificate-error")
      (case "TLS-alert-received" $tls) (case "HTTP-request-denied")
      (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid")
      (case "HTTP-request-URI-too-long") (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $size))
      (case "HTTP-request-trailer-section-size" (option u32))
      (case "HTTP-request-trailer-size" $size) (case "HTTP-response-incomplete")
      (case "HTTP-response-header-section-size" (option u32)) (case "HTTP-response-header-size" $size)
      (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32))
      (case "HTTP-response-trailer-size" $size) (case "HTTP-response-transfer-coding" (option string))
      (case "HTTP-response-content-coding" (option string)) (case "HTTP-response-timeout")
      (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (NAMED "error-code" (type $error (eq $error')))"#;

const GUEST: &str = r#"(component
  (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
    (export "wait-for" (func async (param "how-long" u64)))))
  (import "wasi:http/types@0.3.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "request" (type $request (sub resource)))
    (export "response" (type $response (sub resource)))
    EXPORTED-ERROR
    (type $method' (variant (case "get") (case "head") (case "post") (case "put") (case "delete") (case "connect")
      (case "options") (case "trace") (case "patch") (case "other" string)))
    (export "method" (type $method (eq $method')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]request.get-method" (func (param "self" (borrow $request)) (result $method)))
    (export "[static]response.new" (func (param "headers" (own $fields)) (param "contents" (option (stream u8)))
      (param "trailers" (future (result (option (own $fields)) (error $error))))
      (result (tuple (own $response) (future (result (error $error)))))))
    (export "[method]response.set-status-code" (func (param "self" (borrow $response)) (param "status-code" u16)
      (result (result))))))
  (alias export $types "fields" (type $fields))
  (alias export $types "request" (type $request))
  (alias export $types "response" (type $response))
  (alias export $types "DNS-error-payload" (type $dns))
  (alias export $types "TLS-alert-received-payload" (type $tls))
  (alias export $types "field-size-payload" (type $size))
  (alias export $types "error-code" (type $error))
  (type $trailers (future (result (option (own $fields)) (error $error))))
  (type $sent (future (result (error $error))))
  (core module $libc
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $method (canon lower (func $types "[method]request.get-method") (memory $memory) (realloc $realloc)))
  (core func $response (canon lower (func $types "[static]response.new") (memory $memory)))
  (core func $status (canon lower (func $types "[method]response.set-status-code")))
  (core func $wait-for (canon lower (func $clock "wait-for") async (memory $memory)))
  (core func $drop-request (canon resource.drop $request))
  (core func $future-new (canon future.new $trailers))
  (core func $future-write (canon future.write $trailers async (memory $memory)))
  (core func $drop-sent (canon future.drop-readable $sent))
  (core func $return (canon task.return (result (result (own $response) (error $error))) (memory $memory)))
  (core func $set-new (canon waitable-set.new))
  (core func $join (canon waitable.join))
  (core func $subtask-drop (canon subtask.drop))
  (core module $guest
    (import "libc" "memory" (memory 2))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "method" (func $method (param i32 i32)))
    (import "host" "response" (func $response (param i32 i32 i32 i32 i32)))
    (import "host" "status" (func $status (param i32 i32) (result i32)))
    (import "host" "wait-for" (func $wait-for (param i64) (result i32)))
    (import "host" "drop-request" (func $drop-request (param i32)))
    (import "host" "future-new" (func $future-new (result i64)))
    (import "host" "future-write" (func $future-write (param i32 i32) (result i32)))
    (import "host" "drop-sent" (func $drop-sent (param i32)))
    (import "host" "return" (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "host" "set-new" (func $set-new (result i32)))
    (import "host" "join" (func $join (param i32 i32)))
    (import "host" "subtask-drop" (func $subtask-drop (param i32)))
    (global $count (mut i32) (i32.const 0))
    (func $answer
      (local $ends i64) (local $made i32)
      (local.set $ends (call $future-new))
      (call $response (call $fields) (i32.const 0) (i32.const 0) (i32.wrap_i64 (local.get $ends)) (i32.const 64))
      (local.set $made (i32.load (i32.const 64)))
      (call $drop-sent (i32.load (i32.const 68)))
      (drop (call $status (local.get $made) STATUS))
      (call $return (i32.const 0) (local.get $made)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      ;; No trailers: zeros, which is what is there.
      (drop (call $future-write (i32.wrap_i64 (i64.shr_u (local.get $ends) (i64.const 32))) (i32.const 1024))))
    ;; Answers WAIT (2) with the set, or EXIT (0).
    (func $handle (export "handle") (param $request i32) (result i32)
      (local $method i32) (local $waiting i32) (local $set i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (call $method (local.get $request) (i32.const 128))
      (local.set $method (i32.load8_u (i32.const 128)))
      (call $drop-request (local.get $request))
      (if (i32.eq (local.get $method) (i32.const 2)) (then unreachable))
      (if (i32.eq (local.get $method) (i32.const 4)) (then (drop (memory.grow (i32.const 64)))))
      (if (i32.eq (local.get $method) (i32.const 6)) (then (loop $again (br $again))))
      (if (i32.or (i32.eq (local.get $method) (i32.const 3)) (i32.eq (local.get $method) (i32.const 8))) (then
        (local.set $waiting (call $wait-for
          (select (i64.const 300000000) (i64.const 3600000000000) (i32.eq (local.get $method) (i32.const 3)))))
        (local.set $set (call $set-new))
        (call $join (i32.shr_u (local.get $waiting) (i32.const 4)) (local.get $set))
        (return (i32.or (i32.const 2) (i32.shl (local.get $set) (i32.const 4))))))
      (call $answer)
      (i32.const 0))
    (func (export "callback") (param $event i32) (param $of i32) (param $state i32) (result i32)
      (call $join (local.get $of) (i32.const 0))
      (call $subtask-drop (local.get $of))
      (call $answer)
      (i32.const 0)))
  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "fields" (func $fields)) (export "method" (func $method)) (export "response" (func $response))
      (export "status" (func $status)) (export "wait-for" (func $wait-for))
      (export "drop-request" (func $drop-request)) (export "future-new" (func $future-new))
      (export "future-write" (func $future-write)) (export "drop-sent" (func $drop-sent))
      (export "return" (func $return)) (export "set-new" (func $set-new)) (export "join" (func $join))
      (export "subtask-drop" (func $subtask-drop))))))
  (func $handle async (param "request" (own $request)) (result (result (own $response) (error $error)))
    (canon lift (core func $guest "handle") async (memory $memory) (callback (core func $guest "callback"))))
  (component $shape
    (import "request" (type $request (sub resource)))
    (import "response" (type $response (sub resource)))
    IMPORTED-ERROR
    (import "handle" (func $handle async (param "request" (own $request))
      (result (result (own $response) (error $error)))))
    (export "handle" (func $handle)))
  (instance $exported (instantiate $shape
    (with "request" (type $request)) (with "response" (type $response)) (with "DNS-error-payload" (type $dns))
    (with "TLS-alert-received-payload" (type $tls)) (with "field-size-payload" (type $size))
    (with "error-code" (type $error)) (with "handle" (func $handle))))
  (export "wasi:http/handler@0.3.0" (instance $exported)))"#;

/// GET and DELETE answer at once, and DELETE takes 4 MiB more before. PUT answers after 0.3 seconds, PATCH after an
/// hour. POST traps, OPTIONS spins.
pub fn service() -> Vec<u8> {
    guest("(i32.add (i32.const 400) (global.get $count))")
}

/// The same, but every answer is a plain 200.
pub fn service_ok() -> Vec<u8> {
    guest("(i32.const 200)")
}

fn guest(status: &str) -> Vec<u8> {
    let text = GUEST
        .replace("EXPORTED-ERROR", &ERROR.replace("NAMED", "export"))
        .replace("IMPORTED-ERROR", &ERROR.replace("NAMED", "import"))
        .replace("STATUS", status);
    wat::parse_str(text).unwrap_or_else(|error| panic!("the 0.3 fixture is valid: {error}"))
}
