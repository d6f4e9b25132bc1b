//! The replicated multi-version key-value store. It knows bytes and revisions and no Kubernetes kind.
//!
//! A [`Txn`] is proposed, agreed on and made durable, applied to the state in memory, published to readers as an
//! immutable [`View`], and handed to every [`Watch`] of its keys. Reads never touch the disk.
//!
//! - `types`, `txn`: the vocabulary and its limits
//! - `mvcc`: the deterministic core, without tokio or files
//! - `watch`: the hub that fans changes out
//! - `store`: the handle that ties them together

mod config;
mod mvcc;
mod store;
mod txn;
mod types;
mod watch;

pub use config::StoreConfig;
pub use mvcc::{Compacted, HistoryLimits, View};
pub use store::{OpenError, ProposeError, Store};
pub use txn::{
    Durability, Guard, InvalidTxn, KEY_BYTES_MAX, Op, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, TxnOutcome, VALUE_BYTES_MAX,
};
pub use types::{Change, Entry, Facets, MemberId, Revision, WatchEvent};
pub use watch::{Watch, WatchClosed};
