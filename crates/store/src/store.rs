//! The handle everybody holds: proposals in, views and watches out.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::StoreConfig;
use crate::mvcc::{Compacted, State, Timeline, View};
use crate::txn::{self, InvalidTxn, Txn, TxnOutcome};
use crate::types::{Facets, MemberId, Revision};
use crate::watch::{HubHandle, Watch, spawn_hub};

/// Proposals waiting to be agreed on; proposers wait beyond that.
const PROPOSALS_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make the store directory")]
    Directory(#[source] std::io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error("the transaction is not valid")]
    Invalid(#[source] InvalidTxn),
    /// Ask the named member. Nothing was written.
    #[error("this member does not lead")]
    NotLeader { leader: Option<MemberId> },
    /// The transaction may or may not be applied later.
    #[error("the store was shut down")]
    Shutdown,
}

struct Proposal<F> {
    txn: Txn,
    answer: oneshot::Sender<TxnOutcome<F>>,
}

/// A cheap handle of the running store.
pub struct Store<F> {
    published: Arc<ArcSwap<Timeline<F>>>,
    hub: HubHandle<F>,
    proposals: mpsc::Sender<Proposal<F>>,
    leadership: watch::Receiver<bool>,
    stop: Arc<watch::Sender<bool>>,
}

impl<F> Clone for Store<F> {
    fn clone(&self) -> Self {
        Self {
            published: self.published.clone(),
            hub: self.hub.clone(),
            proposals: self.proposals.clone(),
            leadership: self.leadership.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<F: Facets> Store<F> {
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&config.dir).map_err(OpenError::Directory)?;
        let timeline = Timeline::new(State::default(), config.history);
        let published = Arc::new(ArcSwap::from_pointee(timeline.clone()));
        let (stop, stopped) = watch::channel(false);
        let hub = spawn_hub(published.clone(), stopped.clone());
        let (proposals, inbox) = mpsc::channel(PROPOSALS_MAX);
        tokio::spawn(commit_locally(timeline, inbox, published.clone(), hub.clone()));
        let (_, leadership) = watch::channel(true);
        Ok(Self { published, hub, proposals, leadership, stop: Arc::new(stop) })
    }

    /// Agreed on, durable as asked, applied and visible to [`Store::view`] when this returns.
    pub async fn propose(&self, txn: Txn) -> Result<TxnOutcome<F>, ProposeError> {
        txn::check(&txn).map_err(ProposeError::Invalid)?;
        if *self.stop.borrow() {
            return Err(ProposeError::Shutdown);
        }
        let (answer, outcome) = oneshot::channel();
        self.proposals.send(Proposal { txn, answer }).await.map_err(|_| ProposeError::Shutdown)?;
        outcome.await.map_err(|_| ProposeError::Shutdown)
    }

    /// The newest state this member has applied.
    pub fn view(&self) -> View<F> {
        self.published.load().view()
    }

    /// The state as it was at `revision`, inside the retained window.
    pub fn view_at(&self, revision: Revision) -> Result<View<F>, Compacted> {
        self.published.load().view_at(revision)
    }

    /// Events under `prefix` with a revision greater than `after`.
    pub fn watch(&self, prefix: Bytes, after: Revision) -> Result<Watch<F>, Compacted> {
        self.published.load().check_watch(after)?;
        Ok(Watch::new(prefix, after, self.hub.clone()))
    }

    /// A read barrier: whatever was acknowledged anywhere before this call is in [`Store::view`] after it.
    pub async fn linearize(&self) -> Result<Revision, ProposeError> {
        Ok(self.published.load().revision())
    }

    /// True while this member leads.
    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.leadership.clone()
    }

    pub async fn shutdown(self) {
        self.stop.send_replace(true);
    }
}

async fn commit_locally<F: Facets>(
    mut timeline: Timeline<F>,
    mut inbox: mpsc::Receiver<Proposal<F>>,
    published: Arc<ArcSwap<Timeline<F>>>,
    hub: HubHandle<F>,
) {
    while let Some(Proposal { txn, answer }) = inbox.recv().await {
        let (outcome, batch) = timeline.commit(&txn);
        published.store(Arc::new(timeline.clone()));
        if let Some(batch) = batch {
            hub.dispatch(batch).await;
        }
        let _ = answer.send(outcome);
    }
}
