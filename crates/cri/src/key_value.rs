//! The seam to replicated keys and values, which guests of a runtime may be granted.
//!
//! Owns: what a runtime asks for in a guest's name. The composition root says who answers. May not know: how and
//! where values are kept, Kubernetes objects.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One bucket, and the pod in whose name it is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketUse {
    pub namespace: String,
    pub pod: String,
    pub bucket: String,
}

/// A value as it was at a revision. A new value has a new revision, also one that is equal to the old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    pub value: Vec<u8>,
    pub revision: u64,
}

/// What an entry has to be for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpectEntry {
    Anything,
    Absent,
    Revision(u64),
}

/// Some keys of a bucket, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    pub keys: Vec<String>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum KeyValueError {
    #[error("there is no such bucket")]
    NoSuchBucket,
    #[error("the bucket was not granted")]
    AccessDenied,
    /// The entry is not what the write expects.
    #[error("the entry was written meanwhile")]
    Unexpected,
    /// The request can never succeed as it is: a key or value that is too long, a sum of what is no number.
    #[error("{why}")]
    Invalid { why: String },
    #[error("{why}")]
    OverQuota { why: String },
    /// Nothing was written.
    #[error("the bucket cannot be reached: {why}")]
    Unavailable { why: String },
    /// Nobody knows whether it was written.
    #[error("what became of the write is not known: {why}")]
    Unknown { why: String },
}

/// Keys and values in buckets. Reads see every write that was answered before they began.
#[async_trait]
pub trait KeyValueStore: fmt::Debug + Send + Sync {
    async fn get(&self, bucket: &BucketUse, key: &str) -> Result<Option<Versioned>, KeyValueError>;

    async fn set(
        &self,
        bucket: &BucketUse,
        key: &str,
        value: Vec<u8>,
        expect: ExpectEntry,
    ) -> Result<(), KeyValueError>;

    /// A key that is not there is no error.
    async fn delete(&self, bucket: &BucketUse, key: &str) -> Result<(), KeyValueError>;

    /// The keys after those of the page that said `from`.
    async fn keys(&self, bucket: &BucketUse, from: Option<&str>) -> Result<Keys, KeyValueError>;

    /// Adds to a number in decimal digits and answers the sum; what is not there is 0.
    async fn increment(&self, bucket: &BucketUse, key: &str, delta: i64) -> Result<i64, KeyValueError>;
}
