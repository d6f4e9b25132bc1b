//! Replaces what lies on the disk under other keys than the current one: a snapshot under the new key, then the old
//! segments are purged. The log itself left the old keys when it was opened. Asks the files, and remembers nothing.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::node::{Core, Node};
use super::{incoming, state_machine};
use crate::log::disk::Disk;
use crate::log::{self, WalSegments};
use crate::seal::{KeyRing, KeysInUse, keys_in_use};
use crate::workers::Workers;

/// How long [`Node::rotate`] tries.
const ROTATE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one snapshot and one purge are waited for before they are asked for again.
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("cannot look through the store directory")]
    Look(#[source] io::Error),
    #[error("cannot replace files under other keys: the store was shut down")]
    Shutdown,
    /// It goes on in the background.
    #[error(
        "files under other keys ({in_use:?}) are not replaced after {} s: the member may be behind, or have something \
         in its log that is not agreed on yet",
        ROTATE_TIMEOUT.as_secs()
    )]
    Late { in_use: KeysInUse },
}

pub(super) struct Rotation {
    /// Whoever only waits does not keep the directory locked.
    disk: Weak<dyn Disk>,
    segments: WalSegments,
    keys: KeyRing,
    workers: Workers,
    one_at_a_time: Mutex<()>,
}

impl Rotation {
    pub fn new(disk: &Arc<dyn Disk>, segments: WalSegments, keys: &KeyRing, workers: &Workers) -> Self {
        let (disk, keys, workers) = (Arc::downgrade(disk), keys.clone(), workers.clone());
        Self { disk, segments, keys, workers, one_at_a_time: Mutex::new(()) }
    }

    async fn look(&self, directories: &'static [&'static str]) -> Result<KeysInUse, RotateError> {
        let disk = self.disk.upgrade().ok_or(RotateError::Shutdown)?;
        self.workers.run(move || keys_in_use(disk.as_ref(), directories)).await.map_err(RotateError::Look)
    }

    async fn in_use(&self) -> Result<KeysInUse, RotateError> {
        self.look(&[log::DIRECTORY, state_machine::DIRECTORY, incoming::DIRECTORY]).await
    }

    async fn is_done(&self, directories: &'static [&'static str]) -> Result<bool, RotateError> {
        Ok(self.look(directories).await?.is_at_most(self.keys.current()))
    }
}

impl Core {
    async fn rotate(&self) -> Result<(), RotateError> {
        let _one = self.rotation.one_at_a_time.lock().await;
        let began = Instant::now();
        loop {
            let in_use = self.rotation.in_use().await?;
            if in_use.is_at_most(self.rotation.keys.current()) {
                return Ok(());
            }
            if began.elapsed() > ROTATE_TIMEOUT {
                return Err(RotateError::Late { in_use });
            }
            self.round().await?;
        }
    }

    /// Ends when nothing is left to do, or when it should have been done.
    async fn round(&self) -> Result<(), RotateError> {
        let rotation = &self.rotation;
        let last = rotation.segments.last_index_not_under(rotation.keys.current());
        if let Some(last) = last {
            // Only what was applied is in a snapshot, and only what is in a snapshot can be purged.
            drop(timeout(ROUND_TIMEOUT, self.progress.wait_for(last)).await);
        }
        self.raft.trigger().snapshot().await.map_err(|_| RotateError::Shutdown)?;
        let began = Instant::now();
        while began.elapsed() < ROUND_TIMEOUT && !rotation.is_done(&[state_machine::DIRECTORY]).await? {
            sleep(LOOK_EVERY).await;
        }
        while began.elapsed() < ROUND_TIMEOUT && !rotation.is_done(&[log::DIRECTORY]).await? {
            if let Some(last) = last {
                // Not done while another member is being sent these entries, or while raft has not heard of the
                // snapshot.
                self.raft.trigger().purge_log(last).await.map_err(|_| RotateError::Shutdown)?;
            }
            sleep(LOOK_EVERY).await;
        }
        // A snapshot on its way to us ends by itself.
        if !rotation.is_done(&[incoming::DIRECTORY]).await? {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Node {
    /// Returns when nothing on the disk needs another key than the current one.
    pub async fn rotate(&self) -> Result<(), RotateError> {
        self.0.rotate().await
    }

    pub async fn keys_in_use(&self) -> Result<KeysInUse, RotateError> {
        self.0.rotation.in_use().await
    }
}

/// At a start under a new key, for as long as it takes. Ends with raft.
pub(super) async fn rotate_until_done(core: Arc<Core>) {
    loop {
        match core.rotate().await {
            Ok(()) | Err(RotateError::Shutdown) => return,
            Err(error @ (RotateError::Late { .. } | RotateError::Look(_))) => {
                tracing::warn!(%error, "files under old keys remain");
                sleep(ROTATE_TIMEOUT).await;
            }
        }
    }
}
