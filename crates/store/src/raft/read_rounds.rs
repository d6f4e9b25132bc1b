//! Read barriers that many ask for and few rounds answer. A round that began after a barrier was asked for serves
//! it, so whoever comes while a round is under way waits for the next one, together with all others who do.
//!
//! May not know: what a round is made of; that is `forward`.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};

use super::forward::WriteError;
use super::node::{Core, boxed};

/// Barriers that wait; whoever asks beyond that waits to ask.
const WAITING_MAX: usize = 4096;

pub(super) type Ask = oneshot::Sender<Result<u64, Arc<WriteError>>>;

#[derive(Clone)]
pub(super) struct ReadRounds {
    asks: mpsc::Sender<Ask>,
}

impl ReadRounds {
    /// The other end is for [`run`].
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        (Self { asks }, asked)
    }

    /// The index up to which everything has to be applied where it is read.
    pub async fn ask(&self) -> Result<u64, WriteError> {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).await.map_err(|_| WriteError::Stopped)?;
        answer.await.map_err(|_| WriteError::Stopped)?.map_err(|error| unshared(&error))
    }
}

/// Ends with the last handle of the member.
pub(super) async fn run(mut asked: mpsc::Receiver<Ask>, core: Weak<Core>) {
    while let Some(first) = asked.recv().await {
        let mut round = vec![first];
        while let Ok(ask) = asked.try_recv() {
            round.push(ask);
        }
        let Some(core) = core.upgrade() else { return };
        let answer = core.read_index().await.map_err(Arc::new);
        for ask in round {
            // Whoever gave up meanwhile does not listen.
            let _ = ask.send(answer.clone());
        }
    }
}

/// One of several copies of an error's cause.
#[derive(Debug)]
struct Shared(Arc<WriteError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()?.source()
    }
}

fn unshared(error: &Arc<WriteError>) -> WriteError {
    let cause = || boxed(Shared(error.clone()));
    match &**error {
        WriteError::NotLeader { leader } => WriteError::NotLeader { leader: *leader },
        WriteError::NoMajority => WriteError::NoMajority,
        WriteError::Unreachable(_) => WriteError::Unreachable(cause()),
        WriteError::Unknown(_) => WriteError::Unknown(cause()),
        WriteError::Quarantined => WriteError::Quarantined,
        WriteError::Stopped => WriteError::Stopped,
        WriteError::Failed(_) => WriteError::Failed(cause()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no way there")]
    struct Cause;

    #[test]
    fn every_copy_of_an_error_has_its_cause() {
        let error = Arc::new(WriteError::Unreachable(boxed(Cause)));
        for _ in 0..2 {
            let copy = unshared(&error);
            assert!(matches!(copy, WriteError::Unreachable(_)));
            assert_eq!(copy.source().map(ToString::to_string).as_deref(), Some("no way there"));
        }
    }
}
