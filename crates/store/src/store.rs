//! The handle everybody holds: proposals in, views and watches out. The composition of the crate.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::backup::{Backup, BackupError};
use crate::config::StoreConfig;
use crate::identity::{self, IdentityError};
use crate::log::disk::{Disk, OsDisk, replace};
use crate::machine::Replica;
use crate::mvcc::{Compacted, State, StateHash, Timeline, View};
use crate::outcome;
use crate::peer::{self, PeerStream, ServeError};
use crate::raft::{
    Alarm, Answer, MemberChange, MemberError, Members, Node, NodeError, Proposer, RotateError, Typed, WriteError,
};
use crate::seal::KeysInUse;
use crate::txn::{self, InvalidTxn, Txn, TxnOutcome};
use crate::types::{Facets, MemberId, Revision};
use crate::watch::{Watch, spawn_hub};

/// How long a shutdown waits for the disk to be let go of.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process has the store directory {dir}")]
    Locked { dir: String },
    #[error("cannot open the store directory {dir}")]
    Directory { dir: String, source: io::Error },
    #[error("the store directory is not ours")]
    Identity(#[from] IdentityError),
    #[error("the member's state differed from that of the majority; it has to be replaced by an empty one")]
    Quarantined,
    #[error("cannot start the store member")]
    Start(#[from] NodeError),
}

#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error("the transaction is not valid")]
    Invalid(#[source] InvalidTxn),
    /// Ask the named member. Nothing was written here.
    #[error("this member does not lead")]
    NotLeader { leader: Option<MemberId> },
    #[error("no majority confirms that this member leads")]
    NoMajority,
    /// Nothing was written.
    #[error("the leader cannot be asked")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The transaction was applied, or not, or will be.
    #[error("what became of the transaction is not known")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was written.
    #[error("this member's state differs from that of the majority")]
    Quarantined,
    /// A transaction under way may or may not have been applied.
    #[error("the store was shut down")]
    Shutdown,
    /// Likewise.
    #[error("the store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<WriteError> for ProposeError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotLeader { leader } => Self::NotLeader { leader },
            WriteError::NoMajority => Self::NoMajority,
            WriteError::Unreachable(source) => Self::Unreachable(source),
            WriteError::Unknown(source) => Self::Unknown(source),
            WriteError::Quarantined => Self::Quarantined,
            WriteError::Stopped => Self::Shutdown,
            WriteError::Failed(source) => Self::Failed(source),
        }
    }
}

/// Written when the member differed from the majority: it does not forget that by a restart.
const QUARANTINE: &str = "QUARANTINE";

/// The hash of the state at any revision in the window, for [`Alarm`]s.
fn hashes<F: Facets>(
    published: Arc<ArcSwap<Timeline<F>>>,
) -> Arc<dyn Fn(Revision) -> (Revision, Option<StateHash>) + Send + Sync> {
    Arc::new(move |asked| {
        let timeline = published.load();
        let revision = asked.min(timeline.revision());
        (revision, timeline.hash_at(revision))
    })
}

/// A member in quarantine ends its watches and does not start again.
async fn keep_quarantine(mut alarms: watch::Receiver<Alarm>, disk: Weak<dyn Disk>, stop: watch::Sender<bool>) {
    let quarantined = |alarm: &Alarm| matches!(alarm, Alarm::Quarantined { .. });
    let Ok(why) = alarms.wait_for(quarantined).await.map(|alarm| format!("{:?}\n", *alarm)) else { return };
    stop.send_replace(true);
    if let Some(disk) = disk.upgrade()
        && let Err(error) = replace(disk.as_ref(), QUARANTINE, why.as_bytes())
    {
        tracing::error!(%error, "the quarantine cannot be written down");
    }
}

/// A cheap handle of the running store.
pub struct Store<F> {
    inner: Arc<Inner<F>>,
}

struct Inner<F> {
    published: Arc<ArcSwap<Timeline<F>>>,
    hub: crate::watch::HubHandle<F>,
    node: Node,
    stop: watch::Sender<bool>,
    /// Gone when nothing of ours can touch the disk any more.
    disk: Weak<dyn Disk>,
}

impl<F> Drop for Inner<F> {
    /// Without a [`Store::shutdown`] the member still ends when the last handle goes, a little later.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let node = self.node.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { node.shutdown().await });
        }
    }
}

impl<F> Clone for Store<F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<F: Facets> Store<F> {
    /// Opens or founds the store below `config.dir`. Returns when everything ever acknowledged is readable and
    /// proposals are taken.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let dir = config.dir.display().to_string();
        let disk = OsDisk::open(&config.dir).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { dir },
            _ => OpenError::Directory { dir, source },
        })?;
        Self::open_on(Arc::new(disk), config).await
    }

    /// As [`Store::open`], on a disk of the caller's.
    pub async fn open_on(disk: Arc<dyn Disk>, config: StoreConfig) -> Result<Self, OpenError> {
        identity::claim(disk.as_ref(), config.member_id, config.keys.current().is_some())?;
        let published = Arc::new(ArcSwap::from_pointee(Timeline::new(State::default(), config.history)));
        let (stop, stopped) = watch::channel(false);
        let hub = spawn_hub(published.clone(), stopped);
        let replica = Box::new(Replica::new(config.history, hub.clone()));
        let in_use = Arc::downgrade(&disk);
        let typed = Typed { encode_outcome: outcome::encode::<F>, hash_at: hashes(published.clone()) };
        if disk.exists(QUARANTINE).map_err(IdentityError::Io)? {
            return Err(OpenError::Quarantined);
        }
        let quarantine = Arc::downgrade(&disk);
        let node = Node::start(&config, disk, replica, typed).await?;
        tokio::spawn(keep_quarantine(node.alarms(), quarantine, stop.clone()));
        Ok(Self { inner: Arc::new(Inner { published, hub, node, stop, disk: in_use }) })
    }

    /// Agreed on, durable as asked, applied and visible to [`Store::view`] when this returns. When it is
    /// cancelled the transaction may still be applied.
    pub async fn propose(&self, txn: Txn) -> Result<TxnOutcome<F>, ProposeError> {
        self.propose_by(txn, Proposer::Anyone).await
    }

    /// As [`Store::propose`], where this member leads, and refused as `NotLeader` where it does not. What a former
    /// leader still proposes this way is never applied after its follower's first transaction.
    pub async fn propose_leading(&self, txn: Txn) -> Result<TxnOutcome<F>, ProposeError> {
        self.propose_by(txn, Proposer::Leader).await
    }

    async fn propose_by(&self, txn: Txn, proposer: Proposer) -> Result<TxnOutcome<F>, ProposeError> {
        let bytes = txn::check(&txn).map_err(ProposeError::Invalid)?;
        // Cheap: keys and values are shared.
        let proposed = txn.clone();
        match self.inner.node.propose(proposed, bytes, proposer).await? {
            Answer::Here(reply) => {
                Ok(reply.take().expect("the machine answers a transaction with an outcome of its own facets"))
            }
            Answer::Forwarded(sent) => outcome::decode(&sent, &txn, &self.inner.published.load())
                .map_err(|gone| ProposeError::Unknown(Box::new(gone))),
        }
    }

    /// The newest state this member has applied. Never goes back. It is as old as this member is behind, and must not
    /// be shown while [`Store::alarms`] says that this member is in quarantine.
    pub fn view(&self) -> View<F> {
        self.inner.published.load().view()
    }

    /// The state as it was at `revision`, inside the retained window.
    pub fn view_at(&self, revision: Revision) -> Result<View<F>, Compacted> {
        self.inner.published.load().view_at(revision)
    }

    /// Events under `prefix` with a revision greater than `after`, which may also be still to come.
    pub fn watch(&self, prefix: Bytes, after: Revision) -> Result<Watch<F>, Compacted> {
        self.inner.published.load().check_watch(after)?;
        Ok(Watch::new(prefix, after, self.inner.hub.clone()))
    }

    /// A read barrier: whatever was acknowledged anywhere before this call is in [`Store::view`] after it.
    pub async fn linearize(&self) -> Result<Revision, ProposeError> {
        self.inner.node.linearize().await?;
        Ok(self.inner.published.load().revision())
    }

    /// The whole state at one revision that holds all that was acknowledged before this call, as a stream of bytes that
    /// [`restore`](crate::restore) takes. Writes go on meanwhile. It is plain text. The `header` is the caller's.
    pub async fn backup(&self, header: Bytes) -> Result<Backup<F>, BackupError> {
        self.linearize().await.map_err(BackupError::Linearize)?;
        Backup::begin(self.view(), self.inner.node.ids_given_out(), header)
    }

    /// The members as this one sees them.
    pub fn members(&self) -> Members {
        self.inner.node.members()
    }

    /// Answers one request of the member that is known to be `from`. For a transport of the caller's.
    pub async fn serve_peer(&self, from: MemberId, request: &[u8]) -> Bytes {
        self.inner.node.answer(from, request).await
    }

    /// Answers another member's requests on a stream it opened, until one of the two closes it. Whoever accepted the
    /// stream knows that the other end is member `from`.
    pub async fn serve_stream(&self, from: MemberId, stream: impl PeerStream) -> Result<(), ServeError> {
        peer::serve(stream, |request: Bytes| async move { self.serve_peer(from, &request).await }).await
    }

    /// Takes an id for a member that is to join. No id is ever given out twice.
    pub async fn reserve_member(&self) -> Result<MemberId, MemberError> {
        self.inner.node.change(MemberChange::Reserve).await
    }

    /// Adds a member under an id that was reserved for it. It is sent everything and does not vote yet.
    pub async fn add_learner(&self, member: MemberId, addresses: Vec<String>) -> Result<(), MemberError> {
        self.change(MemberChange::AddLearner { member, addresses }).await
    }

    /// Lets a learner vote, once it has caught up.
    pub async fn promote(&self, member: MemberId) -> Result<(), MemberError> {
        self.change(MemberChange::Promote { member }).await
    }

    /// Removes a member for good. Its id stays used.
    pub async fn remove_member(&self, member: MemberId) -> Result<(), MemberError> {
        self.change(MemberChange::Remove { member }).await
    }

    /// Puts a learner that has caught up in the place of a voter that is gone for good.
    pub async fn replace_dead(&self, dead: MemberId, by: MemberId) -> Result<(), MemberError> {
        self.change(MemberChange::ReplaceDead { dead, by }).await
    }

    pub async fn set_addresses(&self, member: MemberId, addresses: Vec<String>) -> Result<(), MemberError> {
        self.change(MemberChange::SetAddresses { member, addresses }).await
    }

    /// Returns when the other member leads.
    pub async fn transfer_leadership(&self, to: MemberId) -> Result<(), MemberError> {
        self.change(MemberChange::TransferLeader { to }).await
    }

    async fn change(&self, change: MemberChange) -> Result<(), MemberError> {
        self.inner.node.change(change).await.map(drop)
    }

    /// Returns when nothing on this member's disk needs another key than the current one. Opening the store under a
    /// new key begins that by itself; this waits for it. A member that is behind has to catch up first.
    pub async fn rotate(&self) -> Result<(), RotateError> {
        self.inner.node.rotate().await
    }

    /// What it takes to read this member's disk, as its files say.
    pub async fn keys_in_use(&self) -> Result<KeysInUse, RotateError> {
        self.inner.node.keys_in_use().await
    }

    /// What comparing the members' states found.
    pub fn alarms(&self) -> watch::Receiver<Alarm> {
        self.inner.node.alarms()
    }

    /// How often this member has made something durable since it was opened.
    pub fn syncs(&self) -> u64 {
        self.inner.disk.upgrade().map_or(0, |disk| disk.syncs())
    }

    /// True while this member leads.
    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.inner.node.leadership()
    }

    /// Everything acknowledged, relaxed or not, is on the disk when this returns, and the directory may be opened
    /// again. Watches end; other handles can still read and refuse to write.
    pub async fn shutdown(self) {
        self.inner.node.shutdown().await;
        self.inner.stop.send_replace(true);
        // raft's last tasks let go of the disk a moment after raft itself has ended.
        let released = async {
            while self.inner.disk.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, released).await.is_err() {
            tracing::error!("the store directory is still held after shutdown");
        }
    }
}
