//! Where buckets' contents are in the store. Pure.
//!
//! ```text
//! /buckets/<uid of the Bucket>/usage              how much there is: a guard of every write
//! /buckets/<uid of the Bucket>/entries/<key>      the value, as it is
//! /deleted-buckets/<uid of the Bucket>            its contents are still to be removed
//! ```
//!
//! Outside of `/registry/`, so that no watch of any kind sees them. By uid and not by name: a bucket that was
//! deleted and made again is empty at once, whatever of the old one is still there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

const BUCKETS: &str = "/buckets/";
pub const DELETED: &str = "/deleted-buckets/";

/// What a bucket holds. Absent is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Keys and values.
    pub bytes: u64,
    pub entries: u64,
}

impl Usage {
    /// From its record; one that does not read is a bug, and nothing is the answer that lets the bucket be used.
    pub fn read(record: &[u8]) -> Self {
        serde_json::from_slice(record).unwrap_or_else(|error| {
            tracing::error!(%error, "a bucket's usage record does not read");
            Self::default()
        })
    }

    pub fn record(&self) -> Bytes {
        serde_json::to_vec(self).expect("two numbers encode into memory").into()
    }
}

pub fn usage_key(uid: &str) -> Bytes {
    format!("{BUCKETS}{uid}/usage").into()
}

pub fn entries_prefix(uid: &str) -> Bytes {
    format!("{BUCKETS}{uid}/entries/").into()
}

pub fn entry_key(uid: &str, key: &str) -> Bytes {
    format!("{BUCKETS}{uid}/entries/{key}").into()
}

pub fn deleted_key(uid: &str) -> Bytes {
    format!("{DELETED}{uid}").into()
}

/// Everything of one bucket, its usage too.
pub fn whole_prefix(uid: &str) -> Bytes {
    format!("{BUCKETS}{uid}/").into()
}
