//! A client: reads, writes and swaps registers through one member after another, and notes what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{Durability, Guard, Op, ProposeError, Revision, Store, Txn, TxnOutcome};

use crate::chance::Chance;
use crate::linearizable::Action;
use crate::record::Done;
use crate::world::World;

/// No operation takes longer: every wait in the store has an end.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Together with the register something else is written, so that logs grow and transactions have parts.
const FILLER_BYTES: u64 = 300;

pub struct Client {
    pub number: usize,
    pub world: World,
    pub chance: Chance,
    pub stop: Arc<AtomicBool>,
    pub values: Arc<AtomicU32>,
    /// Key, value and revision last read.
    known: Option<(String, u32, Revision)>,
}

/// Result of a try.
enum Told {
    /// What became of it, and at which revision.
    Done(Action, u64),
    Nothing,
    /// Perhaps done.
    Unknown(Action),
}

pub fn key(number: u64) -> String {
    format!("/r/{number}")
}

impl Client {
    pub fn new(number: usize, world: World, stop: Arc<AtomicBool>, values: Arc<AtomicU32>) -> Self {
        let chance = world.draw(Chance::fork);
        Self { number, world, chance, stop, values, known: None }
    }

    pub async fn run(mut self) {
        let mut member = None;
        while !self.stop.load(Ordering::Relaxed) {
            if member.is_none() || self.chance.per_mille(250) {
                member = self.chance.pick(&self.world.ids()).copied();
            }
            let store = member.and_then(|id| self.world.store(id));
            if let (Some(id), Some(store)) = (member, store) {
                let done = tokio::time::timeout(OPERATION_TIMEOUT, self.operate(id, store)).await;
                if done.is_err() {
                    self.world.recorder.fail(format!("an operation of client {} never ended", self.number));
                }
            } else {
                member = None;
            }
            tokio::time::sleep(self.chance.millis(1, 150)).await;
        }
    }

    async fn operate(&mut self, member: u64, store: Store<()>) {
        let invoked = self.world.recorder.moment();
        let key = key(self.chance.below(self.world.plan.keys));
        let (key, told) = match self.chance.below(10) {
            0..4 => (key.clone(), self.read(&store, &key).await),
            4..8 => (key.clone(), self.write(&store, &key).await),
            _ => match self.known.take() {
                Some((key, from, at)) => (key.clone(), self.swap(&store, &key, from, at).await),
                None => (key.clone(), self.read(&store, &key).await),
            },
        };
        let (action, returned) = match told {
            Told::Done(action, revision) => (action, Some((self.world.recorder.moment(), revision))),
            Told::Unknown(action) => (action, None),
            Told::Nothing => return,
        };
        let done = Done { client: self.number, member, key, action, invoked, returned };
        self.world.recorder.record().operations.push(done);
    }

    async fn read(&mut self, store: &Store<()>, key: &str) -> Told {
        let Ok(revision) = store.linearize().await else { return Told::Nothing };
        let view = store.view();
        if view.revision() < revision {
            self.world.recorder.fail(format!("a view at {} after a barrier at {revision}", view.revision()));
        }
        let entry = view.get(key.as_bytes());
        let value = entry.map_or(0, |entry| number(&entry.value));
        let at = entry.map_or(Revision::ZERO, |entry| entry.mod_revision);
        self.known = Some((key.to_owned(), value, at));
        Told::Done(Action::Read(value), view.revision().0)
    }

    fn txn(&mut self, key: &str, value: u32, guards: Vec<Guard>) -> Txn {
        let put = |key: String, value: String| Op::Put { key: key.into(), value: value.into(), stamp_at: None };
        let filler = format!("/f/{}", self.number);
        let filler = if self.chance.per_mille(200) {
            Op::Delete { key: filler.into() }
        } else {
            put(filler, "x".repeat(self.chance.below(FILLER_BYTES) as usize))
        };
        let durability = if self.chance.per_mille(100) { Durability::Relaxed } else { Durability::Synced };
        Txn { guards, ops: vec![put(key.to_owned(), value.to_string()), filler], durability }
    }

    async fn write(&mut self, store: &Store<()>, key: &str) -> Told {
        let value = self.values.fetch_add(1, Ordering::Relaxed) + 1;
        let txn = self.txn(key, value, vec![]);
        let action = Action::Write(value);
        match store.propose(txn).await {
            Ok(TxnOutcome::Applied { revision, .. }) => {
                self.seen(store, revision);
                Told::Done(action, revision.0)
            }
            Ok(TxnOutcome::GuardFailed { .. }) => unreachable!("there was no guard"),
            Err(error) => untold(&error, action),
        }
    }

    async fn swap(&mut self, store: &Store<()>, key: &str, from: u32, at: Revision) -> Told {
        let to = self.values.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = Bytes::from(key.to_owned());
        let guard = match from {
            0 => Guard::Absent { key: bytes },
            _ => Guard::ModRevision { key: bytes, revision: at },
        };
        let txn = self.txn(key, to, vec![guard]);
        match store.propose(txn).await {
            Ok(TxnOutcome::Applied { revision, .. }) => {
                self.seen(store, revision);
                Told::Done(Action::Swap { from, to, swapped: Some(true) }, revision.0)
            }
            Ok(TxnOutcome::GuardFailed { .. }) => Told::Done(Action::Swap { from, to, swapped: Some(false) }, 0),
            Err(error) => untold(&error, Action::Swap { from, to, swapped: None }),
        }
    }

    /// Who was answered reads its own write at the same member.
    fn seen(&self, store: &Store<()>, revision: Revision) {
        let view = store.view().revision();
        if view < revision {
            self.world.recorder.fail(format!("a view at {view} after a write at {revision}"));
        }
    }
}

fn number(value: &[u8]) -> u32 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)
}

/// The store promises to tell what certainly did not happen from what may have.
fn untold(error: &ProposeError, action: Action) -> Told {
    match error {
        ProposeError::Unknown(_) | ProposeError::Shutdown | ProposeError::Failed(_) => Told::Unknown(action),
        _ => Told::Nothing,
    }
}
