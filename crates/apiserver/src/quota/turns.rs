//! Writes that lost a race for a quota go one after another, so that each loses once and not again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// One queue per namespace, for as long as somebody waits in it.
#[derive(Default)]
pub struct Turns {
    queues: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl Turns {
    /// Returns when it is this write's turn, which lasts until the value is dropped.
    pub async fn take(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.queues.lock().expect("nothing panics while it holds the queues");
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            queues.entry(namespace.to_owned()).or_default().clone()
        };
        queue.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), turns.take("a")).await;
        assert!(waits.is_err());
        let other = turns.take("b").await;
        drop((first, other));
        let last = turns.take("c").await;
        assert_eq!(turns.queues.lock().unwrap().len(), 1);
        drop(last);
    }
}
