//! Guests in Wasm text, so that the tests need no toolchain.

/// As much of the interface as guests here use.
const HTTP_TYPES: &str = r#"(import "wasi:http/types@0.2.0" (instance $types
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $size' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $size (eq $size')))
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
    (export "error-code" (type $error (eq $error')))
    (type $header-error' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header-error (eq $header-error')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func (param "self" (borrow $fields)) (param "name" string)
      (param "value" (list u8)) (result (result (error $header-error)))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[static]response-outparam.set"
      (func (param "param" (own $outparam)) (param "response" (result (own $response) (error $error)))))))"#;

/// A component that answers HTTP: its core function `handle` gets the response-outparam and may
/// call `answer`, which sends an empty 200.
pub fn http(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
  {HTTP_TYPES}
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $memory (memory (export "memory") 1) (data (i32.const 1024) "x-flood"))
  (core instance $memory (instantiate $memory))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append") (memory (core memory $memory "memory"))))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $set (canon lower (func $types "[static]response-outparam.set") (memory (core memory $memory "memory"))))
  (core module $guest
    (import "http" "fields" (func $fields (result i32)))
    (import "http" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "http" "response" (func $response (param i32) (result i32)))
    (import "http" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (memory 1)
    (func $answer (param $out i32)
      (call $set (local.get $out) (i32.const 0) (call $response (call $fields))
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (func $handle (export "handle") (param $request i32) (param $out i32) {body}))
  (core instance $guest (instantiate $guest
    (with "http" (instance
      (export "fields" (func $fields)) (export "append" (func $append))
      (export "response" (func $response)) (export "set" (func $set))))))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (component $shape
    (import "request" (type $request (sub resource)))
    (import "outparam" (type $outparam (sub resource)))
    (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
    (export "handle" (func $handle)))
  (instance $exported (instantiate $shape
    (with "request" (type $request)) (with "outparam" (type $outparam)) (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $exported)))"#
    );
    wat::parse_str(text).expect("the HTTP fixture is valid")
}

pub fn http_ok() -> Vec<u8> {
    http("(call $answer (local.get $out))")
}

pub fn http_trap() -> Vec<u8> {
    http("unreachable")
}

pub fn http_spin() -> Vec<u8> {
    http("(loop $again (br $again))")
}

/// Wants 64 MiB, and traps when it does not get them.
pub fn http_grow() -> Vec<u8> {
    http(
        "(if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable)) (call $answer (local.get $out))",
    )
}

/// A component whose import nobody offers.
pub fn missing_import() -> Vec<u8> {
    let text = r#"(component (import "acme:db/store@1.2.0" (instance))
        (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
    wat::parse_str(text).expect("valid")
}

/// A component that calls an interface by the right name with the wrong type.
pub fn wrong_import_type() -> Vec<u8> {
    let text = r#"(component (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result string))))))"#;
    wat::parse_str(text).expect("valid")
}

/// `wasi:cli/run` that answers ok (0) or error (1).
pub fn run_component(result: i32) -> Vec<u8> {
    let text = format!(
        r#"(component
          (core module $m (func (export "run") (result i32) (i32.const {result})))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $e (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $e)))"#
    );
    wat::parse_str(text).expect("valid")
}

/// A plugin: `add(a, b)`, and `spin()` which never returns.
pub fn plugin() -> Vec<u8> {
    let text = r#"(component
        (core module $m
          (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
          (func (export "spin") (loop $again (br $again))))
        (core instance $i (instantiate $m))
        (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (func (export "spin") (canon lift (core func $i "spin"))))"#;
    wat::parse_str(text).expect("valid")
}

/// A WASI 0.1 module with `text` in memory at 64, running `body`; `$print fd` writes the text.
pub fn module(text: &str, body: &str) -> Vec<u8> {
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let length = text.len();
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (table 1 funcref)
          (data (i32.const 64) "{escaped}")
          (data (i32.const 4096) "greeting.txt")
          (func $print (param $fd i32)
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {length}))
            (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func $start (export "_start") {body}))"#
    );
    wat::parse_str(text).expect("the module fixture is valid")
}

pub fn prints_and_exits(code: i32) -> Vec<u8> {
    let body = format!("(call $print (i32.const 1)) (call $print (i32.const 2)) (call $exit (i32.const {code}))");
    module("first\nsecond", &body)
}

pub fn module_traps() -> Vec<u8> {
    module("", "unreachable")
}

pub fn module_spins() -> Vec<u8> {
    module("", "(loop $again (br $again))")
}

pub fn module_grows() -> Vec<u8> {
    module("", "(if (i32.eq (memory.grow (i32.const 4096)) (i32.const -1)) (then unreachable))")
}

/// Prints the file `greeting.txt` of its first mount, then tries to create a file there: exits 0
/// when that is refused, 9 when it works.
pub fn reads_its_mount() -> Vec<u8> {
    module(
        "",
        r#"(local $fd i32)
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 4096) (i32.const 12) (i32.const 0)
              (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)) (then (call $exit (i32.const 7))))
        (local.set $fd (i32.load (i32.const 16)))
        (i32.store (i32.const 0) (i32.const 8192)) (i32.store (i32.const 4) (i32.const 1024))
        (if (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $exit (i32.const 8))))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 4096) (i32.const 5) (i32.const 1)
              (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 16))) (then (call $exit (i32.const 9))))"#,
    )
}

/// A WASI 0.1 command of this body, whose function is `$start` and which has a table.
pub fn start(body: &str) -> Vec<u8> {
    module("", body)
}

/// The imports of [`uses_capabilities`], as far as it calls them.
const CAPABILITY_IMPORTS: &str = r#"
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:config/store@0.2.0-rc.1" (instance $config
    (type $error' (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $error')))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
  (import "wasi:keyvalue/store@0.2.0-draft" (instance $store
    (export "bucket" (type $bucket (sub resource)))
    (type $error' (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $error')))
    (export "open" (func (param "identifier" string) (result (result (own $bucket) (error $error)))))
    (export "[method]bucket.set" (func (param "self" (borrow $bucket)) (param "key" string)
      (param "value" (list u8)) (result (result (error $error)))))))
  (alias export $store "bucket" (type $bucket))
  (alias export $store "error" (type $error))
  (import "wasi:keyvalue/atomics@0.2.0-draft" (instance $atomics
    (alias outer 1 $bucket (type $bucket'))
    (export "bucket" (type $bucket (eq $bucket')))
    (alias outer 1 $error (type $error'))
    (export "error" (type $error (eq $error')))
    (export "increment" (func (param "bucket" (borrow $bucket)) (param "key" string) (param "delta" u64)
      (result (result u64 (error $error)))))))"#;

/// A command that opens the store `store`, sets `mode` to what `wasi:config` says it is, adds 5 to `runs`, and logs
/// what came of it. It answers with an error when something was refused.
pub fn uses_capabilities(store: &str) -> Vec<u8> {
    let length = store.len();
    let text = format!(
        r#"(component {CAPABILITY_IMPORTS}
  (core module $memory
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $log (canon lower (func $logging "log") (memory (core memory $memory "memory"))))
  (core func $get (canon lower (func $config "get")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $open (canon lower (func $store "open")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $set (canon lower (func $store "[method]bucket.set")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $increment (canon lower (func $atomics "increment")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $guest
    (import "memory" "memory" (memory 1))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "open" (func $open (param i32 i32 i32)))
    (import "host" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
    (import "host" "increment" (func $increment (param i32 i32 i32 i64 i32)))
    (data (i32.const 64) "{store}")
    (data (i32.const 128) "mode")
    (data (i32.const 144) "runs")
    (data (i32.const 160) "counted")
    (data (i32.const 176) "access denied")
    (data (i32.const 192) "no such store")
    (data (i32.const 208) "other")
    (func $say (param $level i32) (param $text i32) (param $length i32) (result i32)
      (call $log (local.get $level) (i32.const 128) (i32.const 4) (local.get $text) (local.get $length))
      (i32.const 1))
    ;; An error at $at: its case, and for the last a text.
    (func $refused (param $at i32) (result i32)
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0))
        (then (return (call $say (i32.const 4) (i32.const 192) (i32.const 13)))))
      (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 1))
        (then (return (call $say (i32.const 4) (i32.const 176) (i32.const 13)))))
      (call $say (i32.const 4) (i32.load (i32.add (local.get $at) (i32.const 4)))
        (i32.load (i32.add (local.get $at) (i32.const 8)))))
    (func (export "run") (result i32)
      (local $bucket i32)
      (call $open (i32.const 64) (i32.const {length}) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then (return (call $refused (i32.const 4)))))
      (local.set $bucket (i32.load (i32.const 4)))
      (call $get (i32.const 128) (i32.const 4) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then unreachable))
      (if (i32.eqz (i32.load8_u (i32.const 4))) (then unreachable))
      (call $set (local.get $bucket) (i32.const 128) (i32.const 4)
        (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then (return (call $refused (i32.const 4)))))
      (call $increment (local.get $bucket) (i32.const 144) (i32.const 4) (i64.const 5) (i32.const 0))
      (if (i32.load8_u (i32.const 0)) (then (return (call $refused (i32.const 8)))))
      (drop (call $say (i32.const 2) (i32.const 160) (i32.const 7)))
      (i32.const 0)))
  (core instance $guest (instantiate $guest
    (with "memory" (instance $memory))
    (with "host" (instance (export "log" (func $log)) (export "get" (func $get)) (export "open" (func $open))
      (export "set" (func $set)) (export "increment" (func $increment))))))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    );
    wat::parse_str(text).unwrap_or_else(|error| panic!("the capability fixture is valid: {error}"))
}

/// A plugin with typed exports, bare and in an interface: sums, an error of its own, text, a counter that shows
/// whether an instance is fresh, and every way to go wrong.
pub fn typed_plugin() -> Vec<u8> {
    let text = r#"(component
        (core module $m
          (memory (export "memory") 1)
          (global $count (mut i32) (i32.const 0))
          (global $free (mut i32) (i32.const 1024))
          (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $free))
            (global.set $free (i32.add (global.get $free) (local.get 3)))
            (local.get $at))
          (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
          (func (export "half") (param i32) (result i32)
            (i32.store8 (i32.const 0) (i32.and (local.get 0) (i32.const 1)))
            (i32.store (i32.const 4)
              (select (local.get 0) (i32.shr_u (local.get 0) (i32.const 1)) (i32.and (local.get 0) (i32.const 1))))
            (i32.const 0))
          (func (export "echo") (param i32 i32) (result i32)
            (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16))
          (func (export "count") (result i32)
            (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
          (func (export "nothing"))
          (func $inner-most unreachable)
          (func $outer-most (export "trap") (call $inner-most))
          (func (export "spin") (loop $again (br $again)))
          (func (export "grow")
            (loop $again
              (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
              (br $again))))
        (core instance $i (instantiate $m))
        (alias core export $i "memory" (core memory $memory))
        (alias core export $i "realloc" (core func $realloc))
        (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (func (export "half") (param "a" u32) (result (result u32 (error u32)))
          (canon lift (core func $i "half") (memory $memory)))
        (func (export "count") (result u32) (canon lift (core func $i "count")))
        (func (export "nothing") (canon lift (core func $i "nothing")))
        (func (export "trap") (canon lift (core func $i "trap")))
        (func (export "spin") (canon lift (core func $i "spin")))
        (func (export "grow") (canon lift (core func $i "grow")))
        (func $echo (param "text" string) (result string)
          (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
        (instance $tools (export "echo" (func $echo)))
        (export "acme:math/tools@1.0.0" (instance $tools)))"#;
    wat::parse_str(text).expect("valid")
}
