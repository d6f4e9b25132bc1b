//! Tells the others what is not used here: one annotation of the node's own Lease, written when it changes.
//!
//! Owns: when it is written. What is said while nothing changes costs nothing, and changes are gathered: at most one write
//! in [`APART`]. May not know: what the words mean.

use std::sync::Arc;
use std::time::Duration;

use api::idle::Unused;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::scale::Scale;

/// Between two writes. Somebody who is held may have to wait for the second.
const APART: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub(super) async fn run(scale: Arc<dyn Scale>, mut says: watch::Receiver<Unused>, shutdown: CancellationToken) {
    // An earlier process may have said something.
    says.mark_changed();
    let mut free = Instant::now();
    let mut said: Option<Unused> = None;
    loop {
        let due = async {
            let changed = says.changed().await;
            sleep_until(free).await;
            changed
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = due => if changed.is_err() { return },
        }
        let now = says.borrow_and_update().clone();
        if said.as_ref() == Some(&now) {
            continue;
        }
        let pause = match scale.say(&now).await {
            Ok(()) => {
                said = Some(now);
                APART
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%error, cause, "trying again");
                says.mark_changed();
                RETRY
            }
        };
        free = Instant::now() + pause;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tokio::sync::mpsc;

    use super::*;
    use crate::activator::scale::{SayError, ScaleError};

    /// Refuses the first, and tells the test what it heard.
    struct Heard(Mutex<usize>, mpsc::UnboundedSender<String>);

    #[async_trait]
    impl Scale for Heard {
        async fn set(&self, _: &str, name: &str, _: &str, _: i32) -> Result<(), ScaleError> {
            panic!("{name} is not to be scaled");
        }

        async fn say(&self, unused: &Unused) -> Result<(), SayError> {
            self.1.send(unused.to_string()).expect("the test listens");
            let mut times = self.0.lock().expect("nobody panicked");
            *times += 1;
            if *times == 1 { Err(SayError { source: "no server".into() }) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn changes_are_told_once_and_together() {
        let (tell, mut heard) = mpsc::unbounded_channel();
        let (sender, says) = watch::channel(Unused::default());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(Arc::new(Heard(Mutex::default(), tell)), says, shutdown.clone()));
        let say = |words: &str| {
            sender.send_replace(Unused::parse(words));
        };
        // What an earlier process said is taken back, and what was refused is said again.
        assert_eq!(heard.recv().await.as_deref(), Some(""));
        assert_eq!(heard.recv().await.as_deref(), Some(""));
        say("a");
        assert_eq!(heard.recv().await.as_deref(), Some("a"));
        let began = Instant::now();
        say("a,b");
        tokio::task::yield_now().await;
        say("b");
        assert_eq!(heard.recv().await.as_deref(), Some("b"));
        assert!(began.elapsed() > APART / 2, "{:?}", began.elapsed());
        // What was taken back before it was told, and what is no news, is told by nobody.
        say("c");
        tokio::task::yield_now().await;
        say("b");
        assert!(tokio::time::timeout(APART * 3, heard.recv()).await.is_err());
        shutdown.cancel();
        running.await.expect("it ends");
    }
}
