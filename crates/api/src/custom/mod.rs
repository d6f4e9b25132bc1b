//! Kinds that users define: CustomResourceDefinitions and what follows from them.
//!
//! ```text
//! definition object ─► validate (structural, cel)           may it be written?
//!                   ─► names                                what does its status say?
//!                   ─► definition (schema, columns, kinds)  how are its objects served?   ─► catalog ─► openapi
//! object ─► prune ─► default ─► check, cel                  what of it is stored?
//! ```
//!
//! Owns: all of that, as pure functions on JSON. May not know: storage, requests, clocks.

mod catalog;
mod check;
mod columns;
pub mod conversion;
mod definition;
pub mod format;
pub mod names;
mod openapi;
mod prune;
mod schema;
mod structural;
mod validate;

pub use catalog::Catalog;
pub use check::counterpart;
pub use columns::Column;
pub use definition::{Custom, Definition, Scale, Version, reachable_kind};
pub use schema::{Checks, ListType, Schema, Type, pattern};
pub use validate::{defaults, validate, validate_update};

/// The group of definitions themselves.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Holds a definition back until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
