//! What a run tries: how big, how long, which faults how often. All of it follows from a seed, or from a test.

use std::time::Duration;

use store::HistoryLimits;

use crate::chance::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    PowerCut,
    PowerCutOfAll,
    FailedSync,
    FullDisk,
    CorruptPage,
    Partition,
    OneWayPartition,
    BadWeather,
    TransferLeader,
    AddMember,
    RemoveMember,
    ReplaceDead,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub members: u64,
    pub clients: usize,
    pub keys: u64,
    pub duration: Duration,
    /// A pause between two faults is at most so long.
    pub calm_ms_max: u64,
    /// Each as often as it is named.
    pub faults: Vec<Fault>,
    pub history: HistoryLimits,
    pub snapshot_log_bytes: u64,
    pub disks_lie: bool,
    /// How often a disk takes its time.
    pub disk_slow_per_mille: u64,
    /// Members seal their files, and are given a new key once in a while.
    pub sealed: bool,
}

impl Plan {
    pub fn of_seed(seed: u64) -> Self {
        use Fault::{
            AddMember, BadWeather, CorruptPage, FailedSync, FullDisk, Kill, OneWayPartition, Partition, PowerCut,
            PowerCutOfAll, RemoveMember, ReplaceDead, TransferLeader,
        };
        let mut chance = Chance::new(seed).fork();
        let all = [
            (Kill, 4),
            (PowerCut, 4),
            (PowerCutOfAll, 1),
            (FailedSync, 1),
            (FullDisk, 1),
            (CorruptPage, 1),
            (Partition, 3),
            (OneWayPartition, 3),
            (BadWeather, 3),
            (TransferLeader, 2),
            (AddMember, 2),
            (RemoveMember, 1),
            (ReplaceDead, 1),
        ];
        // A run in which everything happens finds less than many in each of which some things do.
        let mut faults = Vec::new();
        for (fault, weight) in all {
            if chance.per_mille(550) {
                faults.extend(std::iter::repeat_n(fault, weight));
            }
        }
        let small = chance.per_mille(300);
        Self {
            members: if chance.per_mille(300) { 5 } else { 3 },
            clients: chance.between(3, 6) as usize,
            keys: chance.between(2, 6),
            duration: Duration::from_secs(chance.between(8, 20)),
            calm_ms_max: chance.between(300, 3000),
            faults,
            history: if small { HistoryLimits { revisions: 30, bytes: 1 << 20 } } else { HistoryLimits::default() },
            snapshot_log_bytes: if chance.per_mille(700) { 4000 } else { 1 << 20 },
            disks_lie: false,
            disk_slow_per_mille: if chance.per_mille(300) { 200 } else { 10 },
            sealed: seed.is_multiple_of(2),
        }
    }
}
