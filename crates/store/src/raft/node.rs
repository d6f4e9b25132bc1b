//! One running member: starts raft over the disk and the transport, and holds what the other files of this folder
//! work with.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{InitializeError, RaftError};
use openraft::type_config::async_runtime::WatchReceiver;
use openraft::{Config, Raft, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Mutex, Notify, Semaphore, watch};

use super::address_book::AddressBook;
use super::alone::Alone;
use super::audit::{Alarm, HashAt, audit};
use super::forward_rounds::{self, ForwardRounds};
use super::incoming::{self, Incoming};
use super::log_store::{Growth, LogStore};
use super::network::Caller;
use super::progress::Progress;
use super::read_rounds::{self, ReadRounds};
use super::rotation::{self, Rotation};
use super::state_machine::{RestoreError, Snapshots, StateMachine};
use super::types::{Peer, Types};
use super::upkeep;
use crate::config::{Start, StoreConfig};
use crate::log::disk::Disk;
use crate::log::{LogError, SEGMENT_BYTES, Wal};
use crate::machine::{Machine, Reply};
use crate::seal::Vault;
use crate::types::MemberId;

const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS_MIN: u64 = 300;
const ELECTION_MS_MAX: u64 = 600;
/// How long a lone member may take to lead and to apply its log.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Proposals under way, in shares of [`SHARE_BYTES`]; proposers wait beyond that. So at most 4096 transactions and
/// about 64 MiB wait for the disk.
const SHARES_MAX: usize = 4096;
const SHARE_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot open the log")]
    Log(#[from] LogError),
    #[error("cannot read the log")]
    ReadLog(#[source] io::Error),
    #[error("cannot restore the state")]
    Restore(#[from] RestoreError),
    #[error("cannot remove what another member had begun to send")]
    ClearIncoming(#[source] io::Error),
    #[error("cannot start raft")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the member did not become ready within {} s", START_TIMEOUT.as_secs())]
    NotReady(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What needs to know the facets' type.
pub(crate) struct Typed {
    pub encode_outcome: fn(Reply) -> Option<Bytes>,
    pub hash_at: HashAt,
}

/// Handle of a running member.
#[derive(Clone)]
pub(crate) struct Node(pub(super) Arc<Core>);

/// What a member's parts share. Nothing here is written by two.
pub(super) struct Core {
    pub me: MemberId,
    pub raft: Raft<Types, StateMachine>,
    pub caller: Caller,
    pub progress: Arc<Progress>,
    pub leadership: watch::Receiver<bool>,
    /// Raft was asked to end.
    pub stopping: Arc<AtomicBool>,
    /// Turns the outcome of a transaction into bytes for the member that proposed it.
    pub encode_outcome: fn(Reply) -> Option<Bytes>,
    pub hash_at: HashAt,
    pub alarm: watch::Sender<Alarm>,
    pub shares: Semaphore,
    pub alone: Alone,
    pub read_rounds: ReadRounds,
    pub forward_rounds: ForwardRounds,
    /// Held while the membership is changed: one change at a time.
    pub changes: Mutex<()>,
    pub incoming: Mutex<Incoming>,
    /// Told when a member announced new addresses.
    pub news: Notify,
    pub rotation: Rotation,
}

pub(super) fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> Box<dyn std::error::Error + Send + Sync> {
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
        // Nothing is purged by raft's own rule, but by `upkeep::purge_behind_snapshots`: the rule forgets that a
        // rotation of keys has asked for more, when that waits for another member.
        max_in_snapshot_log_to_keep: u64::MAX,
        // A restarted leader may have lost entries that it had not synced but already sent; in its old term it
        // would number other entries the same. It is elected anew instead.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(|error| NodeError::Start(boxed(error)))?))
}

impl Node {
    /// Recovers and starts. A lone member returns when it leads and everything it had acknowledged is applied; a
    /// member of several returns when it takes part.
    pub async fn start(
        config: &StoreConfig,
        disk: Arc<dyn Disk>,
        machine: Box<dyn Machine>,
        typed: Typed,
    ) -> Result<Self, NodeError> {
        incoming::clear(disk.as_ref()).map_err(NodeError::ClearIncoming)?;
        let (keys, workers) = (&config.keys, &config.workers);
        let incoming = Mutex::new(Incoming::new(Arc::downgrade(&disk), keys.clone(), workers.clone()));
        let growth = Arc::new(Growth::default());
        let wal = Wal::open(disk.clone(), SEGMENT_BYTES, config.fatal.clone(), workers, keys)?;
        let rotation = Rotation::new(&disk, wal.segments(), keys, workers);
        let log_store = LogStore::open(wal, growth.clone()).map_err(NodeError::ReadLog)?;
        let log_bytes = growth.bytes.load(Ordering::Relaxed);
        let alone = log_store.alone();
        let snapshots = Snapshots {
            vault: Vault { disk, keys: keys.clone() },
            barrier: log_store.barrier(),
            growth: growth.clone(),
            log_bytes_min: config.snapshot_log_bytes,
            workers: workers.clone(),
        };
        let progress = Progress::new(config.member_id);
        let state_machine = StateMachine::open(machine, snapshots, progress.clone())?;
        growth.bytes.store(log_bytes, Ordering::Relaxed);

        let caller = Caller {
            transport: config.peers.transport.clone(),
            book: Arc::new(AddressBook::new(&config.peers.addresses)),
            workers: workers.clone(),
            transfers: Arc::new(AtomicU64::new(1)),
        };
        let id = config.member_id.0;
        let raft = Raft::new(id, raft_config()?, caller.clone(), log_store, state_machine)
            .await
            .map_err(|error| NodeError::Start(boxed(error)))?;
        begin(&raft, config).await?;
        let stopping = Arc::new(AtomicBool::new(false));
        let leadership = upkeep::watch_over(&raft, &caller.book, alone, (stopping.clone(), config.fatal.clone()));
        tokio::spawn(upkeep::snapshot_when_due(raft.clone(), growth));
        tokio::spawn(upkeep::purge_behind_snapshots(raft.clone(), config.log_entries_kept));
        let (read_rounds, asked) = ReadRounds::new();
        let (forward_rounds, forwarded) = ForwardRounds::new();
        let core = Arc::new(Core {
            me: config.member_id,
            raft,
            caller,
            progress,
            leadership,
            stopping,
            encode_outcome: typed.encode_outcome,
            hash_at: typed.hash_at,
            alarm: watch::Sender::new(Alarm::None),
            shares: Semaphore::new(SHARES_MAX),
            alone: Alone::default(),
            read_rounds,
            forward_rounds,
            changes: Mutex::new(()),
            incoming,
            news: Notify::new(),
            rotation,
        });
        tokio::spawn(upkeep::keep_members(core.clone(), config.peers.advertise.clone()));
        tokio::spawn(audit(core.clone(), config.audit_every));
        tokio::spawn(read_rounds::run(asked, Arc::downgrade(&core)));
        tokio::spawn(forward_rounds::run(forwarded, Arc::downgrade(&core)));
        tokio::spawn(rotation::rotate_until_done(core.clone()));
        Ok(Self(core))
    }

    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.0.leadership.clone()
    }

    /// No member id up to this one is given out again.
    pub fn ids_given_out(&self) -> u64 {
        self.0.progress.registry().newest()
    }

    pub fn alarms(&self) -> watch::Receiver<Alarm> {
        self.0.alarm.subscribe()
    }

    /// Ends raft; the log is synced and closed when the last handle is gone.
    pub async fn shutdown(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.shares.close();
        if self.0.raft.shutdown().await.is_err() {
            tracing::error!("raft ended in a panic");
        }
    }
}

impl Core {
    /// The member this one believes to lead.
    pub fn leader(&self) -> Option<MemberId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(MemberId)
    }
}

/// How many shares a transaction of so many bytes takes.
pub(super) fn shares_of(bytes: usize) -> u32 {
    (bytes / SHARE_BYTES + 1) as u32
}

/// Founds a cluster where one is to be founded, and lets a lone member lead at once.
async fn begin(raft: &Raft<Types, StateMachine>, config: &StoreConfig) -> Result<(), NodeError> {
    let id = config.member_id.0;
    let initialized = raft.is_initialized().await.map_err(|error| NodeError::Start(boxed(error)))?;
    if !initialized {
        match config.start {
            // Waits to be added.
            Start::Join => return Ok(()),
            Start::Found => found(raft, id, Peer { addresses: config.peers.advertise.clone() }).await?,
        }
    }
    // Metrics tell it too, a little later.
    let voters = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>());
    if voters.await.map_err(|error| NodeError::Start(boxed(error)))? != [id] {
        return Ok(());
    }
    if initialized && !raft.is_leader() {
        // Nobody else can have been elected, so there is nothing to wait for.
        raft.trigger().elect(false).await.map_err(|error| NodeError::Start(boxed(error)))?;
    }
    raft.wait(Some(START_TIMEOUT))
        .metrics(|metrics| metrics.current_leader == Some(id), "to lead")
        .await
        .map_err(|error| NodeError::NotReady(boxed(error)))?;
    raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|error| NodeError::NotReady(boxed(error)))?;
    Ok(())
}

async fn found(raft: &Raft<Types, StateMachine>, id: u64, peer: Peer) -> Result<(), NodeError> {
    match raft.initialize(BTreeMap::from([(id, peer)])).await {
        // A log that was begun but never led is initialized by what it holds.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(NodeError::Start(boxed(error))),
    }
}
