//! What is in buckets: keys, values and the exact sum of both.
//!
//! ```text
//! PUT …/buckets/cache/entries/KEY ─► subresource/entries ─► queue of the bucket ─► plan ─► one transaction
//!                                                                  guarded by the bucket and its usage record
//! ```
//!
//! Owns: where entries are in the store, how writes become transactions, and what is left to do when a bucket is
//! gone. May not know: HTTP, who may use a bucket.

pub mod layout;
mod plan;
#[cfg(test)]
mod plan_tests;
mod queue;
pub mod upkeep;

pub use plan::{Change, Done, Expect, Refusal, Write};
pub use queue::{Bucket, BucketName, BucketQueues, WriteError};
