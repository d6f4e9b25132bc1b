//! What clients saw, as values.

use std::collections::BTreeMap;
use std::time::Instant;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the resource version that was answered.
    Acknowledged(u64),
    Refused,
    Unknown,
}

/// An object at a resource version; the counter has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub resource_version: u64,
    pub number: Option<u64>,
}

/// What writers, counters and readers saw.
#[derive(Debug, Default)]
pub struct Record {
    /// Every object that a writer tried to make, by its name, which is never used again.
    pub creations: BTreeMap<String, Ending>,
    /// Increments that were acknowledged: the number and its resource version.
    pub increments: Vec<(u64, u64)>,
    pub increments_unknown: u64,
    /// Reads that answered a smaller number than was known before they began.
    pub stale: Vec<String>,
    pub reads: u64,
    /// Answers that cannot be, such as that a name is taken that nobody else uses.
    pub absurd: Vec<String>,
    /// When anything was acknowledged.
    pub acknowledgements: Vec<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub change: Change,
    pub name: String,
    pub version: Version,
}

/// What one watcher saw, over all its connections.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    pub events: Vec<Seen>,
    /// How often it went on at another server.
    pub resumed: u64,
    /// How often it was told that its resource version is too old.
    pub expired: u64,
}

/// Everything, for the judge.
#[derive(Debug)]
pub struct Evidence {
    pub record: Record,
    /// Name of the counter.
    pub counter: String,
    /// The resource version after which watches began.
    pub began: u64,
    /// The last object's.
    pub end: u64,
    /// What earlier loads left and must be there.
    pub kept: BTreeMap<String, u64>,
    /// What each server lists at the end.
    pub lists: Vec<BTreeMap<String, Version>>,
    pub watched: Vec<Watched>,
}
