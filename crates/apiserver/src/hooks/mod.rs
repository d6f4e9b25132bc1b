//! What users register to take part in admission: policies in CEL and webhooks.
//!
//! Owns: which of them are about a request, what they are shown, calling them, and what their answers mean.
//! Compiled forms are kept by one task that follows the store (`upkeep`); a request loads a pointer and, where nothing
//! is registered, does nothing else. May not know: how a write goes on.

pub mod attributes;
mod authorizer;
pub mod client;
pub mod function;
pub mod mutations;
pub mod policies;
mod registered;
mod review;
pub mod upkeep;
pub mod webhooks;

/// The group of the registrations; requests about them are never shown to anybody.
pub const GROUP: &str = "admissionregistration.k8s.io";
