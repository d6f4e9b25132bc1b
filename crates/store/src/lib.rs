//! The replicated multi-version key-value store. It knows bytes and revisions and no Kubernetes kind.
//!
//! A [`Txn`] is proposed, agreed on and made durable, applied to the state in memory, published to readers as an
//! immutable [`View`], and handed to every [`Watch`] of its keys. Reads never touch the disk.
//!
//! - `types`, `txn`: the vocabulary and its limits
//! - `mvcc`: the deterministic core, without tokio or files
//! - `watch`: the hub that fans changes out
//! - `raft`: agreement; the only place that names openraft
//! - `peer`: how bytes get to other members; `peer::Transport` is the seam a simulator replaces
//! - `outcome`: the outcome of a transaction on its way to another member
//! - `backup`: the state as one file, and a cluster that begins with one
//! - `log`, `snapshot`, `identity`: the disk; `log::disk` is the seam a simulator replaces
//! - `seal`: encryption of what is on it
//! - `machine`: what raft drives, with the facets' type erased
//! - `workers`: where work runs that waits for the disk; the other seam of a simulator
//! - `mutation`: bugs on demand, for the simulation
//! - `store`: the handle that ties them together

mod backup;
mod config;
mod identity;
mod log;
mod machine;
mod mutation;
mod mvcc;
mod outcome;
mod peer;
mod raft;
mod seal;
mod snapshot;
mod store;
mod txn;
mod types;
mod watch;
mod workers;

pub use backup::{
    Backup, BackupError, BackupSummary, HEADER_BYTES_MAX, REVISION_BUMP, RestoreBackupError, Restored, restore,
    restore_on, verify_backup,
};
pub use config::{FatalHook, Start, StoreConfig};
pub use identity::{IdentityError, member_of};
pub use log::LogError;
pub use log::disk::{Disk, DiskFile};
#[cfg(feature = "mutations")]
pub use mutation::{Mutation, mutate};
pub use mvcc::{Compacted, HistoryLimits, View};
pub use peer::{
    CallError, Destination, Dial, FRAME_BYTES_MAX, PeerStream, PeersConfig, ServeError, StreamTransport, Transport,
};
pub use raft::{Alarm, Member, MemberError, Members, NodeError, RestoreError, Role, RotateError, seed_randomness};
pub use seal::{Key, KeyId, KeyRing, KeysInUse, SealError};
pub use snapshot::SnapshotError;
pub use store::{OpenError, ProposeError, Store};
pub use txn::{
    Durability, Guard, InvalidTxn, KEY_BYTES_MAX, Op, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, TxnOutcome, VALUE_BYTES_MAX,
};
pub use types::{Change, Entry, Facets, MemberId, Revision, WatchEvent};
pub use watch::{Watch, WatchClosed};
pub use workers::Workers;
