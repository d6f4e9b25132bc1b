//! openraft's state machine on our `Machine`: applies what was committed, answers who waits, and turns frozen
//! states into snapshot files and back.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::log_store::{self, Growth};
use super::progress::Progress;
use super::registry::Registry;
use super::types::{
    Command, LogId, SnapshotHead, SnapshotMeta, StoredMembership, Types, decode_snapshot_head, encode_snapshot_head,
};
use crate::log::WalBarrier;
use crate::log::disk::Disk;
use crate::machine::{Frozen, Machine, Reply};
use crate::mutation::{Mutation, is_active};
use crate::seal::Vault;
use crate::snapshot::{FORMAT, SnapshotError, SnapshotReader, SnapshotWriter};
use crate::txn::{Op, Txn};
use crate::types::MemberId;
use crate::workers::Workers;

pub(super) const DIRECTORY: &str = "snapshots";
const SUFFIX: &str = ".snap";
/// Transactions applied before readers see them; the next ones are usually seen together.
const PUBLISH_EVERY: usize = 256;

type Snapshot = alias::SnapshotOf<Types, SnapshotData>;

/// A snapshot file somewhere, ours or one received from another member.
#[derive(Clone)]
pub(super) struct SnapshotData {
    vault: Vault,
    name: String,
}

impl SnapshotData {
    pub fn new(vault: Vault, name: String) -> Self {
        Self { vault, name }
    }

    /// In plain text: another member has other keys.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.vault.read(&self.name)
    }

    /// With what the file says about itself.
    pub fn with_meta(self) -> io::Result<Snapshot> {
        let reader = SnapshotReader::open(FORMAT, self.open()?).map_err(io::Error::other)?;
        let SnapshotHead { meta, .. } = decode_snapshot_head(reader.head())?;
        Ok(Snapshot { meta, snapshot: self })
    }
}

/// What it takes to write a snapshot beside a running store.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub vault: Vault,
    pub barrier: WalBarrier,
    pub growth: Arc<Growth>,
    /// The least growth of the log that is worth a snapshot.
    pub log_bytes_min: u64,
    pub workers: Workers,
}

pub(super) struct StateMachine {
    machine: Box<dyn Machine>,
    snapshots: Snapshots,
    applied: Option<LogId>,
    membership: StoredMembership,
    registry: Registry,
    progress: Arc<Progress>,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot find the newest snapshot")]
    Find(#[source] io::Error),
    #[error("cannot restore {name}")]
    Restore { name: String, source: SnapshotError },
}

impl StateMachine {
    /// Restores the newest snapshot, if there is one.
    pub fn open(
        mut machine: Box<dyn Machine>,
        snapshots: Snapshots,
        progress: Arc<Progress>,
    ) -> Result<Self, RestoreError> {
        let mut head = SnapshotHead { meta: SnapshotMeta::default(), registry: Registry::default() };
        if let Some(name) = newest(snapshots.vault.disk.as_ref()).map_err(RestoreError::Find)? {
            let restored = load(&snapshots.vault, &name, machine.as_mut());
            let restored = restored.and_then(|head| if name_of(&head.meta) == name { Ok(head) } else { Err(MISNAMED) });
            head = restored.map_err(|source| RestoreError::Restore { name, source })?;
        }
        let (applied, membership) = (None, StoredMembership::default());
        let mut this = Self { machine, snapshots, applied, membership, registry: Registry::default(), progress };
        this.adopt(head);
        Ok(this)
    }

    /// After the machine was restored.
    fn adopt(&mut self, head: SnapshotHead) {
        self.applied = head.meta.last_log_id;
        self.membership = head.meta.last_membership;
        self.registry = head.registry;
        self.snapshots.rearm(self.machine.freeze().bytes());
        self.progress.set_registry(&self.registry);
        self.publish();
    }

    fn publish(&mut self) {
        self.machine.publish();
        self.progress.publish(self.applied.map_or(0, |id| id.index + 1));
    }

    fn apply_payload(&mut self, payload: EntryPayload<Command, u64, super::types::Peer>, id: LogId) -> Reply {
        match payload {
            EntryPayload::Blank => Reply::empty(),
            EntryPayload::Normal(Command::Txn(txn)) if is_active(Mutation::ApplyDiverges(self.progress.me)) => {
                self.machine.apply(&astray(&txn))
            }
            EntryPayload::Normal(Command::Txn(txn)) => self.machine.apply(&txn),
            EntryPayload::Normal(Command::ReserveMember) => {
                let reserved = self.registry.reserve();
                self.progress.set_registry(&self.registry);
                Reply::new(MemberId(reserved))
            }
            EntryPayload::Membership(membership) => {
                self.registry.saw(membership.nodes().map(|(id, _)| *id));
                self.progress.set_registry(&self.registry);
                self.membership = StoredMembership::new(Some(id), membership);
                Reply::empty()
            }
        }
    }

    fn answer(&mut self, answers: &mut Vec<(ApplyResponder<Types>, Reply)>) {
        // First visible, then answered: who was answered reads its own write.
        self.publish();
        for (responder, reply) in answers.drain(..) {
            responder.send(reply);
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let reply = self.apply_payload(entry.payload, entry.log_id);
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, reply)));
            if answers.len() >= PUBLISH_EVERY {
                self.answer(&mut answers);
            }
        }
        self.answer(&mut answers);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            frozen: Some(self.machine.freeze()),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            registry: self.registry.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let name = name_of(meta);
        let temporary = format!("{name}.tmp");
        let vault = self.snapshots.vault.clone();
        let (from, to) = (snapshot, temporary.clone());
        self.snapshots.workers.run(move || copy(&from, &vault, &to)).await?;
        // Read whole before it counts: a damaged one changes nothing, here or on the disk.
        let installed = load(&self.snapshots.vault, &temporary, self.machine.as_mut());
        let installed = installed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let disk = self.snapshots.vault.disk.as_ref();
        disk.rename(&temporary, &name)?;
        remove_others(disk, &name)?;
        let before = self.membership.clone();
        self.adopt(installed);
        if is_active(Mutation::SnapshotWithoutMembership) {
            self.membership = before;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let vault = &self.snapshots.vault;
        let Some(name) = newest(vault.disk.as_ref())? else { return Ok(None) };
        SnapshotData::new(vault.clone(), name).with_meta().map(Some)
    }
}

pub(super) struct SnapshotBuilder {
    frozen: Option<Box<dyn Frozen>>,
    meta: SnapshotMeta,
    registry: Registry,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        // A snapshot never knows more than the log: what it holds may have been answered as relaxed.
        log_store::sync(&self.snapshots.barrier).await?;
        let frozen = self.frozen.take().ok_or_else(|| io::Error::other("a builder builds one snapshot"))?;
        let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
        let head = encode_snapshot_head(&meta, &self.registry)?;
        let workers = snapshots.workers.clone();
        let work = move || {
            let name = name_of(&meta);
            let bytes = frozen.bytes();
            write(&snapshots.vault, &name, &head, frozen.as_ref())?;
            remove_others(snapshots.vault.disk.as_ref(), &name)?;
            snapshots.rearm(bytes);
            Ok(Snapshot { meta, snapshot: SnapshotData { vault: snapshots.vault, name } })
        };
        workers.run(work).await
    }
}

impl Snapshots {
    /// The next snapshot is due when the log has grown by as much as this one is big, so that the cost of
    /// snapshots stays in proportion to the writes.
    fn rearm(&self, state_bytes: u64) {
        self.growth.bytes.store(0, Ordering::Relaxed);
        self.growth.threshold.store(self.log_bytes_min.max(state_bytes), Ordering::Relaxed);
    }
}

/// A bug on demand: every value but the first loses its last byte.
fn astray(txn: &Txn) -> Txn {
    let mut txn = txn.clone();
    for op in txn.ops.iter_mut().skip(1) {
        if let Op::Put { value, .. } = op {
            value.truncate(value.len().saturating_sub(1));
        }
    }
    txn
}

const MISNAMED: SnapshotError = SnapshotError::Damaged("it has the name of another one");

/// Sorts by log position.
pub(super) fn name_of(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{DIRECTORY}/{index:016x}-{term:016x}{SUFFIX}")
}

/// Files left over from an interrupted snapshot are removed.
fn newest(disk: &dyn Disk) -> io::Result<Option<String>> {
    let mut newest = None;
    for name in disk.list(DIRECTORY)? {
        if name.ends_with(SUFFIX) {
            newest = newest.max(Some(name));
        }
    }
    Ok(newest.map(|name| format!("{DIRECTORY}/{name}")))
}

fn remove_others(disk: &dyn Disk, keep: &str) -> io::Result<()> {
    for name in disk.list(DIRECTORY)? {
        let path = format!("{DIRECTORY}/{name}");
        if path != keep {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

fn write(vault: &Vault, name: &str, head: &[u8], frozen: &dyn Frozen) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let mut file = vault.create(&temporary)?;
    let to: &mut dyn io::Write = &mut file;
    let mut writer = SnapshotWriter::begin(FORMAT, to, head)?;
    frozen.write(&mut writer)?;
    writer.finish()?;
    file.finish()?;
    vault.disk.rename(&temporary, name)
}

fn load(vault: &Vault, name: &str, machine: &mut dyn Machine) -> Result<SnapshotHead, SnapshotError> {
    let file = vault.read(name).map_err(SnapshotError::Read)?;
    let file: Box<dyn Read + Send> = Box::new(io::BufReader::new(file));
    let mut reader = SnapshotReader::open(FORMAT, file)?;
    let head = decode_snapshot_head(reader.head()).map_err(|_| SnapshotError::Damaged("an unreadable head"))?;
    machine.restore(&mut reader)?;
    Ok(head)
}

fn copy(from: &SnapshotData, vault: &Vault, name: &str) -> io::Result<()> {
    let mut to = vault.create(name)?;
    io::copy(&mut from.open()?, &mut to)?;
    to.finish()
}
