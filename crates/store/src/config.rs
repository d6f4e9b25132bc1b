//! What an operator may choose about a store.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::mvcc::HistoryLimits;
use crate::peer::PeersConfig;
use crate::seal::KeyRing;
use crate::types::MemberId;
use crate::workers::Workers;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Everything the store keeps is below this directory, which it alone may touch.
    pub dir: PathBuf,
    pub member_id: MemberId,
    /// What files are sealed with. A new current key takes effect when the store is opened: everything written with
    /// another one is then replaced in the background, see `Store::rotate`.
    pub keys: KeyRing,
    pub history: HistoryLimits,
    /// A snapshot is taken when the log has grown by this much and by as much as the state itself is big.
    pub snapshot_log_bytes: u64,
    /// Entries of the log kept behind a snapshot, for members that are a little behind.
    pub log_entries_kept: u64,
    /// How often members compare the hashes of their states.
    pub audit_every: Duration,
    pub fatal: FatalHook,
    pub workers: Workers,
    pub start: Start,
    pub peers: PeersConfig,
}

/// What a member does with an empty directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Founds a cluster of one.
    #[default]
    Found,
    /// Waits until a cluster adds it. Its id is one the cluster has reserved for it.
    Join,
}

impl StoreConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            member_id: MemberId(1),
            keys: KeyRing::default(),
            history: HistoryLimits::default(),
            snapshot_log_bytes: 32 * 1024 * 1024,
            log_entries_kept: 500,
            audit_every: Duration::from_secs(30),
            fatal: FatalHook::default(),
            workers: Workers::default(),
            start: Start::default(),
            peers: PeersConfig::default(),
        }
    }
}

/// What happens when the disk fails: by default the process ends at once, because nobody knows any more what the
/// disk holds, and a retried fsync lies. Tests replace it; the store then refuses everything from there on.
#[derive(Clone)]
pub struct FatalHook(Arc<dyn Fn(&str) + Send + Sync>);

impl FatalHook {
    pub fn new(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn call(&self, why: &str) {
        (self.0)(why);
    }
}

impl Default for FatalHook {
    fn default() -> Self {
        Self::new(|why| {
            tracing::error!(why, "the store cannot go on; the process ends");
            eprintln!("store: {why}; the process ends");
            std::process::abort();
        })
    }
}

impl fmt::Debug for FatalHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FatalHook")
    }
}
