//! One running member: starts raft over the disk, takes proposals, watches over leadership and health.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError};
use openraft::type_config::async_runtime::WatchReceiver;
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use tokio::sync::watch;

use super::log_store::{Growth, LogStore};
use super::network::NoNetwork;
use super::state_machine::{RestoreError, Snapshots, StateMachine};
use super::types::{Command, Peer, Types};
use crate::config::{FatalHook, StoreConfig};
use crate::log::disk::Disk;
use crate::log::{LogError, SEGMENT_BYTES, Wal};
use crate::machine::{Machine, Reply};
use crate::txn::Txn;
use crate::types::MemberId;

const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS_MIN: u64 = 300;
const ELECTION_MS_MAX: u64 = 600;
/// Entries kept behind a snapshot, for members that are a little behind.
const KEPT_BEHIND_SNAPSHOT: u64 = 500;
/// How long a lone member may take to lead and to apply its log.
const START_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot open the log")]
    Log(#[from] LogError),
    #[error("cannot read the log")]
    ReadLog(#[source] io::Error),
    #[error("cannot restore the state")]
    Restore(#[from] RestoreError),
    #[error("cannot start raft")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the member did not become ready within {} s", START_TIMEOUT.as_secs())]
    NotReady(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("member {leader:?} leads")]
    NotLeader { leader: Option<MemberId> },
    #[error("no majority confirms that this member leads")]
    NoMajority,
    #[error("the member was stopped")]
    Stopped,
    #[error("raft failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Clone)]
pub(crate) struct Node {
    raft: Raft<Types, StateMachine>,
    leadership: watch::Receiver<bool>,
}

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(error)
}

fn raft_config() -> Result<Arc<Config>, NodeError> {
    let config = Config {
        cluster_name: "knarr".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        enable_pre_vote: Some(true),
        // Snapshots follow the bytes of the log, not the number of its entries: see `Growth`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: KEPT_BEHIND_SNAPSHOT,
        purge_batch_size: 256,
        // A restarted leader may have lost entries that it had not synced but already sent; in its old term it
        // would number other entries the same. It is elected anew instead.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(|error| NodeError::Start(boxed(error)))?))
}

impl Node {
    /// Recovers and starts; a member of a new directory founds a cluster of one. Returns when this member leads
    /// and everything it had acknowledged is applied.
    pub async fn start(
        config: &StoreConfig,
        disk: Arc<dyn Disk>,
        machine: Box<dyn Machine>,
    ) -> Result<Self, NodeError> {
        let growth = Arc::new(Growth::default());
        let wal = Wal::open(disk.clone(), SEGMENT_BYTES, config.fatal.clone(), &config.workers)?;
        let log_store = LogStore::open(wal, growth.clone()).map_err(NodeError::ReadLog)?;
        let log_bytes = growth.bytes.load(Ordering::Relaxed);
        let alone = log_store.alone();
        let snapshots = Snapshots {
            disk,
            barrier: log_store.barrier(),
            growth: growth.clone(),
            log_bytes_min: config.snapshot_log_bytes,
            workers: config.workers.clone(),
        };
        let state_machine = StateMachine::open(machine, snapshots)?;
        growth.bytes.store(log_bytes, Ordering::Relaxed);

        let id = config.member_id.0;
        let raft = Raft::new(id, raft_config()?, NoNetwork, log_store, state_machine)
            .await
            .map_err(|error| NodeError::Start(boxed(error)))?;
        found_or_lead(&raft, id).await?;
        raft.wait(Some(START_TIMEOUT))
            .metrics(|metrics| metrics.current_leader == Some(id), "to lead")
            .await
            .map_err(|error| NodeError::NotReady(boxed(error)))?;
        raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|error| NodeError::NotReady(boxed(error)))?;
        if raft.voter_ids().chain(raft.learner_ids()).eq([id]) {
            alone.store(true, Ordering::Relaxed);
            // Nobody to send heartbeats to and nobody to be deposed by: an idle lone member sleeps.
            raft.runtime_config().tick(false);
        }

        tokio::spawn(snapshot_when_due(raft.clone(), growth));
        let leadership = watch_over(&raft, config.fatal.clone());
        Ok(Self { raft, leadership })
    }

    /// Agreed on, durable as asked, applied.
    pub async fn propose(&self, txn: Txn) -> Result<Reply, WriteError> {
        let response = self.raft.client_write(Command(Arc::new(txn))).await.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                WriteError::NotLeader { leader: forward.leader_id.map(MemberId) }
            }
            RaftError::APIError(other) => WriteError::Failed(boxed(other)),
            RaftError::Fatal(fatal) => failed(fatal),
        })?;
        Ok(response.data)
    }

    /// Confirms with a majority that this member leads, then waits until everything committed is applied. Read
    /// index, not lease: safe whatever the clocks do.
    pub async fn linearize(&self) -> Result<(), WriteError> {
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        read.map(drop).map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                WriteError::NotLeader { leader: forward.leader_id.map(MemberId) }
            }
            RaftError::APIError(_) => WriteError::NoMajority,
            RaftError::Fatal(fatal) => failed(fatal),
        })
    }

    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.leadership.clone()
    }

    /// Ends raft; the log is synced and closed when the last handle is gone.
    pub async fn shutdown(&self) {
        if self.raft.shutdown().await.is_err() {
            tracing::error!("raft ended in a panic");
        }
    }
}

fn failed(fatal: Fatal<Types>) -> WriteError {
    match fatal {
        Fatal::Stopped => WriteError::Stopped,
        fatal => WriteError::Failed(boxed(fatal)),
    }
}

async fn found_or_lead(raft: &Raft<Types, StateMachine>, id: u64) -> Result<(), NodeError> {
    let start = |error| NodeError::Start(error);
    if !raft.is_initialized().await.map_err(|error| start(boxed(error)))? {
        let founded = raft.initialize(std::collections::BTreeMap::from([(id, Peer::default())])).await;
        return match founded {
            // A log that was begun but never led is initialized by what it holds.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(start(boxed(error))),
        };
    }
    let alone = raft.voter_ids().eq([id]);
    if alone && !raft.is_leader() {
        // Nobody else can have been elected, so there is nothing to wait for.
        raft.trigger().elect(false).await.map_err(|error| start(boxed(error)))?;
    }
    Ok(())
}

/// Publishes whether this member leads, and ends the process when raft has died of something else than a shutdown.
fn watch_over(raft: &Raft<Types, StateMachine>, fatal: FatalHook) -> watch::Receiver<bool> {
    let id = *raft.node_id();
    let mut metrics = raft.server_metrics();
    let health = raft.metrics();
    let leads = move |leader: Option<u64>| leader == Some(id);
    let (leading, leadership) = watch::channel(leads(metrics.borrow_watched().current_leader));
    tokio::spawn(async move {
        // These metrics change with leadership and membership, not with every write, and end with raft.
        while metrics.changed().await.is_ok() {
            let now = leads(metrics.borrow_and_update().current_leader);
            leading.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
        leading.send_replace(false);
        match &health.borrow_watched().running_state {
            Ok(()) | Err(Fatal::Stopped) => {}
            Err(error) => fatal.call(&format!("raft failed: {error}")),
        }
    });
    leadership
}

async fn snapshot_when_due(raft: Raft<Types, StateMachine>, growth: Arc<Growth>) {
    loop {
        growth.due.notified().await;
        // Begins anew at once, so that a log that keeps growing meanwhile does not ask again.
        growth.bytes.store(0, Ordering::Relaxed);
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
