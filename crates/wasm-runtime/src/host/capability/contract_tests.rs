//! The interfaces as their authors wrote them: what is linked has these very types.

use wasmtime::component::Component;

use super::{CAPABILITIES, import_name};
use crate::engine::compile_engine;
use crate::offer::component_linker;

const CONFIG_STORE: &str = r#"
  (type $error' (variant (case "upstream" string) (case "io" string)))
  (export "error" (type $error (eq $error')))
  (export "get" (func (param "key" string) (result (result (option string) (error $error)))))
  (export "get-all" (func (result (result (list (tuple string string)) (error $error)))))"#;

const LOGGING: &str = r#"
  (type $level' (enum "trace" "debug" "info" "warn" "error" "critical"))
  (export "level" (type $level (eq $level')))
  (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))"#;

/// `CURSOR` is `u64` in the first draft and `string` in the second.
const STORE: &str = r#"
  (export "bucket" (type $bucket (sub resource)))
  (type $error' (variant (case "no-such-store") (case "access-denied") (case "other" string)))
  (export "error" (type $error (eq $error')))
  (type $page' (record (field "keys" (list string)) (field "cursor" (option CURSOR))))
  (export "key-response" (type $page (eq $page')))
  (export "open" (func (param "identifier" string) (result (result (own $bucket) (error $error)))))
  (export "[method]bucket.get" (func (param "self" (borrow $bucket)) (param "key" string)
    (result (result (option (list u8)) (error $error)))))
  (export "[method]bucket.set" (func (param "self" (borrow $bucket)) (param "key" string)
    (param "value" (list u8)) (result (result (error $error)))))
  (export "[method]bucket.delete" (func (param "self" (borrow $bucket)) (param "key" string)
    (result (result (error $error)))))
  (export "[method]bucket.exists" (func (param "self" (borrow $bucket)) (param "key" string)
    (result (result bool (error $error)))))
  (export "[method]bucket.list-keys" (func (param "self" (borrow $bucket)) (param "cursor" (option CURSOR))
    (result (result $page (error $error)))))"#;

/// What `use store.{bucket, error}` becomes.
const USES: &str = r#"
  (alias outer 1 $bucket (type $bucket'))
  (export "bucket" (type $bucket (eq $bucket')))
  (alias outer 1 $error (type $error'))
  (export "error" (type $error (eq $error')))"#;

const ATOMICS_DRAFT: &str = r#"
  (export "increment" (func (param "bucket" (borrow $bucket)) (param "key" string) (param "delta" u64)
    (result (result u64 (error $error)))))"#;

const ATOMICS_DRAFT2: &str = r#"
  (export "cas" (type $cas (sub resource)))
  (type $cas-error' (variant (case "store-error" $error) (case "cas-failed" (own $cas))))
  (export "cas-error" (type $cas-error (eq $cas-error')))
  (export "[static]cas.new" (func (param "bucket" (borrow $bucket)) (param "key" string)
    (result (result (own $cas) (error $error)))))
  (export "[method]cas.current" (func (param "self" (borrow $cas))
    (result (result (option (list u8)) (error $error)))))
  (export "increment" (func (param "bucket" (borrow $bucket)) (param "key" string) (param "delta" s64)
    (result (result s64 (error $error)))))
  (export "swap" (func (param "cas" (own $cas)) (param "value" (list u8))
    (result (result (error $cas-error)))))"#;

const BATCH: &str = r#"
  (export "get-many" (func (param "bucket" (borrow $bucket)) (param "keys" (list string))
    (result (result (list (option (tuple string (list u8)))) (error $error)))))
  (export "set-many" (func (param "bucket" (borrow $bucket)) (param "key-values" (list (tuple string (list u8))))
    (result (result (error $error)))))
  (export "delete-many" (func (param "bucket" (borrow $bucket)) (param "keys" (list string))
    (result (result (error $error)))))"#;

/// A component that imports the interface with all its types.
fn importer(package: &str, interface: &str, version: &str) -> String {
    let import = |name: &str, body: &str| {
        format!("(import \"{}\" (instance ${name} {body}))", import_name(package, name, version))
    };
    match (package, interface) {
        ("wasi:config", "store") => import("store", CONFIG_STORE),
        ("wasi:logging", "logging") => import("logging", LOGGING),
        ("wasi:keyvalue", _) => {
            let is_draft = version == "0.2.0-draft";
            let store = import("store", &STORE.replace("CURSOR", if is_draft { "u64" } else { "string" }));
            let own = match interface {
                "atomics" if is_draft => ATOMICS_DRAFT,
                "atomics" => ATOMICS_DRAFT2,
                "batch" => BATCH,
                _ => return store,
            };
            let types = r#"(alias export $store "bucket" (type $bucket)) (alias export $store "error" (type $error))"#;
            format!("{store} {types} {}", import(interface, &format!("{USES}{own}")))
        }
        other => panic!("{other:?} has no contract here"),
    }
}

#[test]
fn every_capability_has_the_types_of_its_interface() {
    let engine = compile_engine().unwrap();
    let linker = component_linker(&engine).unwrap();
    for capability in CAPABILITIES {
        for version in capability.versions {
            for interface in capability.interfaces {
                let text = format!("(component {})", importer(capability.package, interface.name, version));
                let component = Component::new(&engine, &text).unwrap_or_else(|error| panic!("{text}\n{error:?}"));
                let linked = linker.instantiate_pre(&component);
                let name = import_name(capability.package, interface.name, version);
                assert!(linked.is_ok(), "{name}: {:?}", linked.err());
            }
        }
    }
}
