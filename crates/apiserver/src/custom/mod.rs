//! Custom kinds in the server: the catalog that requests read, and what the leader does about definitions.
//!
//! Owns: keeping `api::custom::Catalog` in step with the store ([`catalog`]), definitions' conditions and the removal
//! of their objects ([`keeper`]), the form in which custom objects are kept ([`form`]) and asking those who convert them
//! ([`convert`]).
//! May not know: HTTP.

pub mod catalog;
pub mod convert;
pub mod form;
pub mod keeper;

use api::kinds::Kind;

/// Where definitions are kept.
pub const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

pub fn definition_kind() -> &'static Kind {
    api::kinds::lookup(api::custom::GROUP, "v1", "customresourcedefinitions").expect("a built-in kind")
}
