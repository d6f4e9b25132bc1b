//! Guests that are made to be expensive: for the compiler, for the host, for whoever reads what is wrong with them.

use crate::fixtures::{http, module, start};

const MAGIC: &[u8] = b"\0asm";
const MODULE: &[u8] = b"\x01\0\0\0";
const COMPONENT: &[u8] = b"\x0d\0\x01\0";
const TYPE_SECTION: u8 = 1;
const IMPORT_SECTION: u8 = 2;
const FUNCTION_SECTION: u8 = 3;
const NESTED_COMPONENT_SECTION: u8 = 4;
const CODE_SECTION: u8 = 10;
/// `(type (func))`
const FUNC_TYPE: &[u8] = &[0x60, 0, 0];

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("7 bits");
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A section of `count` things that are all the same.
fn vector(id: u8, count: usize, one: &[u8]) -> Vec<u8> {
    section(id, &[leb(count), one.repeat(count)].concat())
}

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("the fixture is well-formed: {error}"))
}

/// Opens the file `greeting.txt` of its first mount until that fails: exits 0 then, and 9 when it never does.
pub fn opens_without_end() -> Vec<u8> {
    module(
        "",
        r#"(local $opened i32)
        (loop $more
          (if (call $open (i32.const 3) (i32.const 0) (i32.const 4096) (i32.const 12) (i32.const 0)
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)) (then (call $exit (i32.const 0))))
          (local.set $opened (i32.add (local.get $opened) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $opened) (i32.const 50000))))
        (call $exit (i32.const 9))"#,
    )
}

/// Answers HTTP with nothing but resources of the host's, without end.
pub fn http_takes_handles() -> Vec<u8> {
    http("(loop $more (drop (call $fields)) (br $more))")
}

/// Fills one header with 94 MiB of values, which the host keeps as far as it does, and answers.
pub fn http_fills_fields() -> Vec<u8> {
    http(
        "(local $fields i32) (local $count i32) (local.set $fields (call $fields))
        (loop $more
          (call $append (local.get $fields) (i32.const 1024) (i32.const 7) (i32.const 2048) (i32.const 32768) (i32.const 0))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $count) (i32.const 3000))))
        (call $answer (local.get $out))",
    )
}

/// One function of many variables that all depend on each other: much work for little Wasm.
pub fn of_variables() -> Vec<u8> {
    const VARIABLES: usize = 200;
    let step = |n: usize| {
        let [to, a, b] = [n * 7919, n * 104_729 + 1, n * 31 + 2].map(|k| k % VARIABLES);
        format!("(local.set {to} (i64.add (local.get {a}) (local.get {b})))")
    };
    let steps: String = (0..5_000).map(step).collect();
    start(&format!("(local {}) (loop $again {steps} (br_if $again (i64.eqz (local.get 0))))", "i64 ".repeat(VARIABLES)))
}

/// Blocks in blocks in blocks.
pub fn of_blocks(depth: usize) -> Vec<u8> {
    let body = [&[0][..], &[0x02, 0x40].repeat(depth), &[0x0b].repeat(depth), &[0x0b]].concat();
    let code = [leb(1), leb(body.len()), body].concat();
    [
        MAGIC,
        MODULE,
        &vector(TYPE_SECTION, 1, FUNC_TYPE),
        &vector(FUNCTION_SECTION, 1, &[0]),
        &section(CODE_SECTION, &code),
    ]
    .concat()
}

/// Components in components in components.
pub fn of_components(depth: usize) -> Vec<u8> {
    let empty = [MAGIC, COMPONENT].concat();
    (0..depth).fold(empty.clone(), |inner, _| [&empty[..], &section(NESTED_COMPONENT_SECTION, &inner)].concat())
}

/// More types than a module may have.
pub fn of_types() -> Vec<u8> {
    [MAGIC, MODULE, &vector(TYPE_SECTION, 1_000_001, FUNC_TYPE)].concat()
}

/// A parameter whose type has twice as many numbers with every line.
pub fn of_tuples() -> Vec<u8> {
    let lines: String = (1..40).map(|n| format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1)).collect();
    parse(&format!(
        "(component (type $t0 (tuple u32 u32)) {lines}
          (core module $m (memory (export \"memory\") 1)
            (func (export \"f\") (param i32)) (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) unreachable))
          (core instance $i (instantiate $m))
          (func (export \"f\") (param \"x\" $t39)
            (canon lift (core func $i \"f\") (memory (core memory $i \"memory\")) (realloc (core func $i \"realloc\")))))"
    ))
}

/// One component instantiated twice by the next, and so on.
pub fn of_instances(doublings: usize) -> Vec<u8> {
    let lines: String = (1..=doublings)
        .map(|n| {
            let inner = n - 1;
            format!(
                "(component $c{n} (alias outer 1 $c{inner} (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))"
            )
        })
        .collect();
    parse(&format!(
        "(component (core module $m (memory 1)) (component $c0 (alias outer 1 $m (core module $m)) (core instance (instantiate $m)))
          {lines} (instance (instantiate $c{doublings})) (core module $r (func (export \"run\") (result i32) (i32.const 0)))
          (core instance $i (instantiate $r)) (func $run (result (result)) (canon lift (core func $i \"run\")))
          (instance $e (export \"run\" (func $run))) (export \"wasi:cli/run@0.2.0\" (instance $e)))"
    ))
}

/// Imports that nobody offers, with long names.
pub fn of_imports(count: usize) -> Vec<u8> {
    let name = [leb(200), vec![b'x'; 200]].concat();
    let import = [&name[..], &name, &[0, 0]].concat();
    [MAGIC, MODULE, &vector(TYPE_SECTION, 1, FUNC_TYPE), &vector(IMPORT_SECTION, count, &import)].concat()
}

/// The engine says what is wrong with a name of this length, and quotes it.
pub fn of_a_name(length: usize) -> Vec<u8> {
    let name = "x".repeat(length);
    parse(&format!("(component (import \"wasi:random/random@0.2.0\" (instance (export \"{name}\" (func)))))"))
}

/// A command whose first memory, or table, is as large as can be.
pub fn that_begins_large(what: &str) -> Vec<u8> {
    parse(&format!("(module {what} (func (export \"_start\")))"))
}

/// Keeps every object it makes, without end, in the heap that the engine collects.
pub fn of_objects() -> Vec<u8> {
    parse(
        r#"(module
          (type $bytes (array (mut i8)))
          (type $node (struct (field (ref null $node)) (field (ref $bytes))))
          (global $list (mut (ref null $node)) (ref.null $node))
          (func (export "_start")
            (loop $more
              (global.set $list
                (struct.new $node (global.get $list) (array.new_default $bytes (i32.const 65536))))
              (br $more))))"#,
    )
}

/// One object as large as can be asked for.
pub fn of_one_object() -> Vec<u8> {
    parse(
        r#"(module
          (type $bytes (array (mut i8)))
          (func (export "_start") (drop (array.new_default $bytes (i32.const 0x3fffffff)))))"#,
    )
}

/// Asks to be woken at as many times as fit into its memory.
pub fn of_subscriptions() -> Vec<u8> {
    parse(
        r#"(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 800)
          (func (export "_start")
            ;; All are zero: user data 0, a clock, the realtime one, at time 0.
            (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 500000) (i32.const 0)))))"#,
    )
}
