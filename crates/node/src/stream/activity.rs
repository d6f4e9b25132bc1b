//! How long nothing passed: connections that everybody forgot end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// As the kubelet's `streamingConnectionIdleTimeout`.
pub const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);

/// Counts what passes. Clones count together.
#[derive(Clone)]
pub struct Activity {
    begin: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Activity {
    pub fn new() -> Self {
        Self { begin: Instant::now(), last_millis: Arc::default() }
    }

    pub fn touch(&self) {
        let millis = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Waits until nothing has passed for this long.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let deadline = self.begin + Duration::from_millis(self.last_millis.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_passes_delays_the_end() {
        let (begin, activity) = (Instant::now(), Activity::new());
        let other = activity.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            other.touch();
        });
        activity.idle_for(Duration::from_millis(300)).await;
        assert!(begin.elapsed() >= Duration::from_millis(390), "{:?}", begin.elapsed());
    }
}
