//! Does the simulation find what it is for? Bugs that consensus libraries and disks had are switched on, and each
//! is found within a few seeds.

#![allow(clippy::unwrap_used)] // in helpers of tests, where it is allowed as it is in tests

use std::time::Duration;

use sim::plan::{Fault, Plan};
use store::{MemberId, Mutation, mutate};

/// Seeds until something is found. `None`: nothing was.
fn seeds_until_found(mutation: Option<Mutation>, seeds_max: u64, plan: impl Fn(Plan) -> Plan) -> Option<(u64, String)> {
    mutate(mutation);
    let found = (1..=seeds_max).find_map(|seed| {
        let record = sim::run::run(seed, plan(Plan::of_seed(seed)));
        let faults = sim::invariant::check(&record);
        faults.first().map(|fault| (seed, fault.clone()))
    });
    mutate(None);
    found
}

fn check(name: &str, found: Option<(u64, String)>) {
    let (seed, fault) = found.unwrap_or_else(|| panic!("{name} was not found"));
    println!("{name}: found at seed {seed}: {fault}");
}

fn power_cuts(plan: Plan) -> Plan {
    use Fault::{Kill, PowerCut, PowerCutOfAll};
    Plan {
        faults: vec![PowerCutOfAll, PowerCutOfAll, PowerCut, Kill],
        calm_ms_max: 1500,
        disk_slow_per_mille: 300,
        ..plan
    }
}

/// A quorum whose members have not written what they said.
#[test]
fn disks_that_lie_about_fsync() {
    check("lying disks", seeds_until_found(None, 20, |plan| Plan { disks_lie: true, ..power_cuts(plan) }));
}

/// Committed without a quorum that has it: each member answers before its disk does.
#[test]
fn an_append_reported_before_it_is_durable() {
    check("early reports", seeds_until_found(Some(Mutation::AppendReportedEarly), 40, power_cuts));
}

/// A member that restores a snapshot and keeps the membership it had before.
#[test]
fn a_snapshot_restored_without_its_membership() {
    use Fault::{AddMember, Kill, PowerCut};
    let plan = |plan| Plan {
        members: 3,
        clients: 6,
        faults: vec![AddMember, Kill, Kill, Kill, PowerCut],
        calm_ms_max: 1000,
        snapshot_log_bytes: 1000,
        duration: Duration::from_secs(20),
        ..plan
    };
    check("stale membership", seeds_until_found(Some(Mutation::SnapshotWithoutMembership), 40, plan));
}

/// A member that applies something else than the others: it is found by comparing hashes, serves nothing from there
/// on, and is replaced. The rest of the cluster is as if nothing had been.
#[test]
fn a_member_that_diverges_is_quarantined() {
    const BROKEN: u64 = 2;
    mutate(Some(Mutation::ApplyDiverges(MemberId(BROKEN))));
    for seed in 1..=3 {
        let plan = Plan { members: 3, faults: vec![Fault::Kill], calm_ms_max: 6000, ..Plan::of_seed(seed) };
        let record = sim::run::run(seed, Plan { duration: Duration::from_secs(20), ..plan });
        let who: Vec<u64> = record.quarantined.iter().map(|(member, _)| *member).collect();
        assert_eq!(who, [BROKEN], "seed {seed}: {:?}", record.failures);
        let (_, since) = record.quarantined[0];
        let served = |done: &&sim::record::Done| done.member == BROKEN && done.invoked > since;
        assert_eq!(record.operations.iter().filter(served).count(), 0, "seed {seed}: it went on serving");
        assert!(record.operations.iter().any(|done| done.invoked > since && done.returned.is_some()));
    }
    mutate(None);
}

/// The same faults, and no bug: what is found above is the bug.
#[test]
fn nothing_is_found_where_there_is_nothing() {
    assert_eq!(seeds_until_found(None, 5, power_cuts), None);
}
