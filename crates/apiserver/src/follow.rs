//! Keeping something in memory in step with a part of the store.
//!
//! Owns: watching on, and reading anew after falling behind. May not know: what is kept.

use bytes::Bytes;
use store::{Revision, Store, WatchClosed, WatchEvent};

use crate::object::facets::ObjectFacets;

/// What is kept, by one task.
pub trait Follower {
    /// Below which key its objects are.
    const PREFIX: &'static str;
    /// Said in the log when it is to be read anew.
    const FELL_BEHIND: &'static str;

    /// Takes one change in.
    fn take(&mut self, event: &WatchEvent<ObjectFacets>);

    /// Takes everything in anew, as of the revision that is the answer.
    fn read(&mut self) -> Revision;
}

/// Takes in every change after a revision, until the store shuts down.
pub async fn follow<F: Follower>(store: Store<ObjectFacets>, mut after: Revision, mut follower: F) {
    loop {
        match store.watch(Bytes::from_static(F::PREFIX.as_bytes()), after) {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(event) => follower.take(&event),
                    Err(WatchClosed::Shutdown) => return,
                    Err(WatchClosed::Lagged(_)) => break,
                }
            },
            Err(compacted) => tracing::warn!(%compacted, "{}", F::FELL_BEHIND),
        }
        after = follower.read();
    }
}
