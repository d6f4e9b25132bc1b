//! Kubernetes objects and their pure rules, on untyped JSON.
//!
//! Owns: what an object is (kinds, schemas), how it is defaulted, validated, selected, patched, owned,
//! shown and decoded. May not know: tokio, files, network, clocks, randomness, logging, storage.

pub mod admission;
pub mod apply;
pub mod bucket;
pub mod cel;
pub mod cron;
pub mod custom;
pub mod defaults;
pub mod function;
pub mod idle;
pub mod kinds;
pub mod list_rules;
pub mod meta;
pub mod openapi;
pub mod own;
pub mod patch;
pub mod pod;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod usage;
pub mod validate;
