//! What happened in a run, as it was seen from outside: the members' clients, watches and the world's own faults.
//! Written by all, judged by `invariant` afterwards. One thread, so one order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::linearizable::Action;

/// Key, and its value or its deletion.
pub type Changes = Vec<(String, Option<String>)>;

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Done {
    pub client: usize,
    pub member: u64,
    pub key: String,
    pub action: Action,
    pub invoked: u64,
    /// With the revision it was done at. `None`: nobody knows.
    pub returned: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Begun after this revision.
    From(u64),
    Event(u64, String, Option<String>),
    /// Told that it fell behind the window, and begun anew from this revision.
    Lagged(u64),
}

/// What one member said about leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    pub member: u64,
    pub incarnation: u64,
    pub term: u64,
    pub leader: Option<u64>,
    pub applied: u64,
}

/// One member's state at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    pub member: u64,
    pub revision: u64,
    /// Who votes and who only listens, as it knows.
    pub membership: Vec<(u64, bool)>,
    /// Key to value, the revision of its creation and of its last change.
    pub entries: BTreeMap<String, (String, u64, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Record {
    pub operations: Vec<Done>,
    /// By member and incarnation.
    pub watches: BTreeMap<(u64, u64), Vec<Watched>>,
    pub beliefs: Vec<Belief>,
    pub finals: Vec<Final>,
    /// Members that differed from a majority, and since when they serve nothing.
    pub quarantined: Vec<(u64, u64)>,
    /// What the world did, and what must not happen and did.
    pub events: Vec<String>,
    pub failures: Vec<String>,
    /// The newest moment.
    pub moment: u64,
}

#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

impl Recorder {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment that no other operation begins or ends at.
    pub fn moment(&self) -> u64 {
        let mut record = self.record();
        record.moment += 1;
        record.moment
    }

    pub fn event(&self, at: std::time::Duration, what: String) {
        self.record().events.push(format!("{:>9.3} {what}", at.as_secs_f64()));
    }

    pub fn fail(&self, what: String) {
        self.record().failures.push(what);
    }
}

impl Record {
    /// All that was seen, in one number: two runs of one seed have the same.
    pub fn fingerprint(&self) -> u64 {
        let Self { operations, watches, beliefs, finals, quarantined, events, failures, moment } = self;
        let text =
            format!("{operations:?}{watches:?}{beliefs:?}{finals:?}{quarantined:?}{events:?}{failures:?}{moment}");
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// What was changed at which revision, as the first watch that saw it said.
    pub fn log(&self) -> BTreeMap<u64, Changes> {
        let mut log: BTreeMap<u64, (u64, u64, Changes)> = BTreeMap::new();
        for (&(member, incarnation), watched) in &self.watches {
            for seen in watched {
                let Watched::Event(revision, key, value) = seen else { continue };
                let (by, since, changes) = log.entry(*revision).or_insert((member, incarnation, Vec::new()));
                if (*by, *since) == (member, incarnation) {
                    changes.push((key.clone(), value.clone()));
                }
            }
        }
        log.into_iter().map(|(revision, (_, _, changes))| (revision, changes)).collect()
    }
}
