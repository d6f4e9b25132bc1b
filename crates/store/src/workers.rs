//! Where work runs that waits for the disk: on threads, or, for simulations, inline and in virtual time. The one
//! seam; nothing else of the store starts a thread.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Default)]
pub enum Workers {
    /// A thread for the log, and tokio's threads for snapshots.
    #[default]
    Threads,
    /// On the executor the member runs on, each piece after a delay of the caller's choice: how long the disk
    /// takes. Nothing then depends on how threads are scheduled.
    Inline(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Inline(_) => "Inline",
        })
    }
}

impl Workers {
    /// Runs one piece of work that blocks.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
            Self::Inline(delay) => {
                tokio::time::sleep(delay()).await;
                work()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_kinds_answer_and_inline_takes_virtual_time() {
        assert_eq!(Workers::Threads.run(|| Ok(1)).await.unwrap(), 1);
        let inline = Workers::Inline(Arc::new(|| Duration::from_secs(3600)));
        let began = tokio::time::Instant::now();
        assert!(inline.run(|| Err::<(), _>(io::Error::other("no"))).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(3600));
    }
}
