//! openraft's own storage suite over the real log, on a real disk.

use std::sync::Arc;

use arc_swap::ArcSwap;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::watch;

use super::log_store::{Growth, LogStore};
use super::progress::Progress;
use super::state_machine::{Snapshots, StateMachine};
use super::types::Types;
use crate::config::FatalHook;
use crate::log::Wal;
use crate::log::disk::OsDisk;
use crate::machine::Replica;
use crate::mvcc::{HistoryLimits, State, Timeline};
use crate::seal::{Key, KeyId, KeyRing, Vault};
use crate::types::MemberId;
use crate::watch::spawn_hub;
use crate::workers::Workers;

/// Keeps the directory and the hub.
struct Guard {
    _dir: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

struct Builder {
    segment_bytes: u64,
    keys: KeyRing,
}

impl StoreBuilder<Types, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(OsDisk::open(dir.path()).unwrap());
        let growth = Arc::new(Growth::default());
        let fatal = FatalHook::new(|why| panic!("{why}"));
        let wal = Wal::open(disk.clone(), self.segment_bytes, fatal, &Workers::Threads, &self.keys).unwrap();
        let log_store = LogStore::open(wal, growth.clone()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let limits = HistoryLimits::default();
        let timeline = Timeline::<()>::new(State::default(), limits);
        let hub = spawn_hub(Arc::new(ArcSwap::from_pointee(timeline)), stopped);
        let snapshots = Snapshots {
            vault: Vault { disk, keys: self.keys.clone() },
            barrier: log_store.barrier(),
            growth,
            log_bytes_min: u64::MAX,
            workers: Workers::Threads,
        };
        let machine =
            StateMachine::open(Box::new(Replica::new(limits, hub)), snapshots, Progress::new(MemberId(1))).unwrap();
        Ok((Guard { _dir: dir, _stop: stop }, log_store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_storage_suite() {
    Suite::test_all(Builder { segment_bytes: crate::log::SEGMENT_BYTES, keys: KeyRing::default() }).await.unwrap();
}

/// The same with a new segment for nearly every write, and sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_storage_suite_with_tiny_segments() {
    Suite::test_all(Builder { segment_bytes: 64, keys: KeyRing::new(KeyId(1), Key::new([1; 32])) }).await.unwrap();
}
