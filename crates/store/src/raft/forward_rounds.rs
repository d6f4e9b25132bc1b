//! Writes sent on to the leader, many in one request: what comes while enough requests are under way waits, and goes
//! with the next one. Few streams carry all of it, however many ask.
//!
//! May not know: when a write is tried again; that is `forward`. What the leader does with it; that is `answer`.

use std::sync::{Arc, Weak};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::forward::{FORWARD_TIMEOUT, WriteError};
use super::message::{Proposed, Refusal, Request, Response};
use super::network::{AskError, Caller};
use super::node::Core;
use crate::txn::Txn;
use crate::types::MemberId;

/// Writes that wait; whoever asks beyond that waits to ask.
const WAITING_MAX: usize = 4096;
/// Requests under way. With one, a write would wait for the answer to others that it does not go with; with many,
/// few would go together.
const REQUESTS_MAX: usize = 4;
const TXNS_MAX: usize = 256;
/// Keys and values of one request, unless one transaction alone has more.
const TXNS_BYTES_MAX: usize = 1 << 20;

pub(super) struct Ask {
    leader: MemberId,
    txn: Arc<Txn>,
    /// Of its keys and values.
    bytes: usize,
    answer: oneshot::Sender<Result<Proposed, WriteError>>,
}

#[derive(Clone)]
pub(super) struct ForwardRounds {
    asks: mpsc::Sender<Ask>,
}

impl ForwardRounds {
    /// The other end is for [`run`].
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        (Self { asks }, asked)
    }

    /// Where in the log the transaction is, and what came of it. Sent at most once. When this is cancelled it may
    /// still be sent.
    pub async fn ask(&self, leader: MemberId, txn: Arc<Txn>, bytes: usize) -> Result<Proposed, WriteError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { leader, txn, bytes, answer };
        self.asks.send(ask).await.map_err(|_| WriteError::Stopped)?;
        answered.await.map_err(|_| WriteError::Stopped)?
    }
}

/// Ends with the last handle of the member.
pub(super) async fn run(mut asked: mpsc::Receiver<Ask>, core: Weak<Core>) {
    let free = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(ask) => ask,
            None => match asked.recv().await {
                Some(ask) => ask,
                None => return,
            },
        };
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        let round = gather(first, || asked.try_recv().ok());
        left = round.1;
        let Some(caller) = core.upgrade().map(|core| core.caller.clone()) else { return };
        tokio::spawn(async move {
            send(&caller, round.0).await;
            drop(permit);
        });
    }
}

/// What goes with `first`, and what came next and does not.
fn gather(first: Ask, mut next: impl FnMut() -> Option<Ask>) -> (Vec<Ask>, Option<Ask>) {
    let (leader, mut bytes) = (first.leader, first.bytes);
    let mut round = vec![first];
    while round.len() < TXNS_MAX
        && let Some(ask) = next()
    {
        // Nobody waits for it any more, and nothing was done.
        if ask.answer.is_closed() {
            continue;
        }
        bytes += ask.bytes;
        if ask.leader != leader || bytes > TXNS_BYTES_MAX {
            return (round, Some(ask));
        }
        round.push(ask);
    }
    (round, None)
}

async fn send(caller: &Caller, round: Vec<Ask>) {
    let leader = round[0].leader;
    let txns = round.iter().map(|ask| Txn::clone(&ask.txn)).collect();
    let answers = match caller.ask(leader, Request::Propose(txns), FORWARD_TIMEOUT).await {
        Ok(Response::Proposed(answers)) if answers.len() == round.len() => Ok(answers),
        Ok(_) => Err(AskError::Garbled { member: leader }),
        Err(error) => Err(error),
    };
    match answers {
        Ok(answers) => {
            for (ask, answer) in round.into_iter().zip(answers) {
                let refused = |source: Refusal| AskError::Refused { member: leader, source }.into();
                // Whoever gave up meanwhile does not listen.
                let _ = ask.answer.send(answer.map_err(refused));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for ask in round {
                let _ = ask.answer.send(Err(error.clone().into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for the answer.
    type Waiting = oneshot::Receiver<Result<Proposed, WriteError>>;

    fn ask(leader: u64, bytes: usize) -> (Ask, Waiting) {
        let (answer, answered) = oneshot::channel();
        (Ask { leader: MemberId(leader), txn: Arc::default(), bytes, answer }, answered)
    }

    #[test]
    fn what_fits_goes_together() {
        // Leader and bytes of each; how many go with the first; whether one is left that came with them.
        let check = |asks: &[(u64, usize)], together: usize, left: bool| {
            let (asks, _waiting): (Vec<_>, Vec<_>) = asks.iter().map(|(leader, bytes)| ask(*leader, *bytes)).unzip();
            let mut asks = asks.into_iter();
            let first = asks.next().unwrap();
            let (round, rest) = gather(first, || asks.next());
            assert_eq!((round.len(), rest.is_some()), (together, left));
        };
        check(&[(1, 10)], 1, false);
        check(&[(1, 10), (1, 10), (1, 10)], 3, false);
        check(&[(1, 10), (1, 10), (2, 10), (1, 10)], 2, true);
        check(&[(1, TXNS_BYTES_MAX - 1), (1, 1), (1, 1)], 2, true);
        check(&[(1, TXNS_BYTES_MAX * 2), (1, 1)], 1, true);
        check(&vec![(1, 1); TXNS_MAX + 2], TXNS_MAX, false);
    }

    #[test]
    fn who_gave_up_is_left_out() {
        let (first, _waiting) = ask(1, 1);
        let (gone, _) = ask(1, 1);
        let (last, _waiting) = ask(1, 1);
        let mut asks = [gone, last].into_iter();
        assert_eq!(gather(first, || asks.next()).0.len(), 2);
    }
}
