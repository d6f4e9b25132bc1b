//! Transactions: what may be proposed, and what comes back. Owns the limits of a transaction.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, Revision};

pub const KEY_BYTES_MAX: usize = 4 * 1024;
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Keys and values of one transaction together.
pub const TXN_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const TXN_OPS_MAX: usize = 4096;

/// All guards must hold, else nothing happens; all ops then happen at once and share one revision.
///
/// Guards see the state before the ops. A key may appear in one op only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
    pub durability: Durability,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    Absent { key: Bytes },
    ModRevision { key: Bytes, revision: Revision },
    Exists { key: Bytes },
}

impl Guard {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Absent { key } | Self::ModRevision { key, .. } | Self::Exists { key } => key,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `stamp_at`: the decimal commit revision is inserted at that byte offset of `value` when it is applied, so
    /// that an object can carry its own revision without being written twice.
    Put {
        key: Bytes,
        value: Bytes,
        stamp_at: Option<u32>,
    },
    Delete {
        key: Bytes,
    },
}

impl Op {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// When an answer may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// After an fsync on a majority: survives power loss.
    #[default]
    Synced,
    /// After a write to the operating system: survives the death of the process (`kill -9`), not a power cut
    /// within about a second. For leases and events, which are rewritten all the time. A relaxed transaction
    /// never overtakes: whatever synced transaction is answered later makes all earlier ones durable too. Holds in
    /// a cluster of one member; with more, everything is synced.
    Relaxed,
}

pub enum TxnOutcome<F> {
    /// `entries` has one element per op: the new entry of a put, the deleted one of a delete (`None`: the key was
    /// absent). A transaction that changes nothing takes no revision of its own and answers the current one.
    Applied { revision: Revision, entries: Vec<Option<Arc<Entry<F>>>> },
    /// The first guard that did not hold, and what its key has now.
    GuardFailed { index: usize, current: Option<Arc<Entry<F>>> },
}

impl<F> Clone for TxnOutcome<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { revision, entries } => Self::Applied { revision: *revision, entries: entries.clone() },
            Self::GuardFailed { index, current } => Self::GuardFailed { index: *index, current: current.clone() },
        }
    }
}

impl<F> fmt::Debug for TxnOutcome<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied { revision, entries } => {
                f.debug_struct("Applied").field("revision", revision).field("entries", entries).finish()
            }
            Self::GuardFailed { index, current } => {
                f.debug_struct("GuardFailed").field("index", index).field("current", current).finish()
            }
        }
    }
}

/// Why a transaction cannot be proposed, by anyone, ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTxn {
    #[error("a key has {bytes} bytes, allowed are 1 to {KEY_BYTES_MAX}")]
    KeyLength { bytes: usize },
    #[error("a value has {bytes} bytes, allowed are {VALUE_BYTES_MAX}")]
    ValueTooLong { bytes: usize },
    #[error("the transaction has {bytes} bytes, allowed are {TXN_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the transaction has {count} guards and ops, allowed are {TXN_OPS_MAX}")]
    TooManyOps { count: usize },
    #[error("two ops name the key {key:?}")]
    DuplicateKey { key: Bytes },
    #[error("the revision is to be stamped at byte {offset} of a value of {bytes} bytes")]
    StampOutside { offset: u32, bytes: usize },
}

/// Checked before a proposal, so that `apply` is total. Answers the bytes of all keys and values.
pub(crate) fn check(txn: &Txn) -> Result<usize, InvalidTxn> {
    let count = txn.guards.len() + txn.ops.len();
    if count > TXN_OPS_MAX {
        return Err(InvalidTxn::TooManyOps { count });
    }
    let bytes: usize =
        txn.ops.iter().map(Op::bytes).sum::<usize>() + txn.guards.iter().map(|g| g.key().len()).sum::<usize>();
    if bytes > TXN_BYTES_MAX {
        return Err(InvalidTxn::TooLong { bytes });
    }
    for guard in &txn.guards {
        check_key(guard.key())?;
    }
    let mut seen = HashSet::with_capacity(txn.ops.len());
    for op in &txn.ops {
        check_key(op.key())?;
        if let Op::Put { value, stamp_at, .. } = op {
            if value.len() > VALUE_BYTES_MAX {
                return Err(InvalidTxn::ValueTooLong { bytes: value.len() });
            }
            if let Some(offset) = *stamp_at
                && offset as usize > value.len()
            {
                return Err(InvalidTxn::StampOutside { offset, bytes: value.len() });
            }
        }
        if !seen.insert(op.key()) {
            return Err(InvalidTxn::DuplicateKey { key: op.key().clone() });
        }
    }
    Ok(bytes)
}

fn check_key(key: &Bytes) -> Result<(), InvalidTxn> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        bytes => Err(InvalidTxn::KeyLength { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: usize, stamp_at: Option<u32>) -> Op {
        Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: vec![b'v'; value].into(), stamp_at }
    }

    fn given(ops: Vec<Op>) -> Result<(), InvalidTxn> {
        check(&Txn { ops, ..Txn::default() }).map(drop)
    }

    #[test]
    fn limits_are_exact() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(given(vec![put("a", VALUE_BYTES_MAX, Some(3))]), Ok(()));
        assert_eq!(given(vec![put("a", 3, Some(3))]), Ok(()));
        assert_eq!(given(vec![put("a", 3, Some(4))]), Err(InvalidTxn::StampOutside { offset: 4, bytes: 3 }));
        assert_eq!(given(vec![put("", 1, None)]), Err(InvalidTxn::KeyLength { bytes: 0 }));
        assert_eq!(given(vec![put(&long, 1, None)]), Err(InvalidTxn::KeyLength { bytes: KEY_BYTES_MAX + 1 }));
        assert_eq!(
            given(vec![put("a", VALUE_BYTES_MAX + 1, None)]),
            Err(InvalidTxn::ValueTooLong { bytes: VALUE_BYTES_MAX + 1 })
        );
        assert_eq!(
            given(vec![put("a", 1, None), Op::Delete { key: "a".into() }]),
            Err(InvalidTxn::DuplicateKey { key: "a".into() })
        );
        let three = ["a", "b", "c"].map(|key| put(key, VALUE_BYTES_MAX, None)).to_vec();
        assert_eq!(given(three), Err(InvalidTxn::TooLong { bytes: 3 * VALUE_BYTES_MAX + 3 }));
        let many = (0..=TXN_OPS_MAX).map(|i| put(&i.to_string(), 0, None)).collect();
        assert_eq!(given(many), Err(InvalidTxn::TooManyOps { count: TXN_OPS_MAX + 1 }));
    }
}
