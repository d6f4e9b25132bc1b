//! What the state machine has applied, for those who wait for it or look something up. Written by the state
//! machine alone.

use std::sync::Arc;

use arc_swap::ArcSwap;
use openraft::async_runtime::watch::{WatchReceiver, WatchSender};

use super::registry::Registry;
use super::watch_channel::{self, Receiver, Sender};
use crate::types::MemberId;

pub(super) struct Progress {
    /// Whose it is.
    pub me: MemberId,
    /// Entries before this index are applied and visible.
    applied: Sender<u64>,
    /// Keeps the channel open.
    _watching: Receiver<u64>,
    registry: ArcSwap<Registry>,
}

impl Progress {
    pub fn new(me: MemberId) -> Arc<Self> {
        let (applied, watching) = watch_channel::channel(0);
        Arc::new(Self { me, applied, _watching: watching, registry: ArcSwap::default() })
    }

    pub fn publish(&self, applied: u64) {
        self.applied.send_if_greater(applied);
    }

    pub fn set_registry(&self, registry: &Registry) {
        self.registry.store(Arc::new(registry.clone()));
    }

    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Returns when the entry at `index` is applied and visible.
    pub async fn wait_for(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        while *applied.borrow_watched() <= index {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }
}
