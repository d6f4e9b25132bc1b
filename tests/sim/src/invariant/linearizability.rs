//! To the clients the cluster is one register per key, changed one operation after another between its call and
//! its answer. Over all keys the revisions are that order.

use std::collections::BTreeMap;

use crate::linearizable::{Action, Operation, Verdict, check as linearize};
use crate::record::{Done, Record};

pub fn check(record: &Record) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for Done { key, action, invoked, returned, .. } in &record.operations {
        let returned = returned.map(|(moment, _)| moment);
        by_key.entry(key).or_default().push(Operation { action: *action, invoked: *invoked, returned });
    }
    let mut faults = Vec::new();
    for (key, operations) in by_key {
        match linearize(&operations) {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable => faults.push(format!("no order explains what was read of {key}")),
            Verdict::Undecided => faults.push(format!("too much happened to {key} at once to decide")),
        }
    }
    faults.extend(revisions(&record.operations));
    faults
}

/// What was called after an answer is at no earlier revision, and a write at a later one.
fn revisions(operations: &[Done]) -> Vec<String> {
    let mut ends: Vec<(u64, u64)> = operations.iter().filter_map(|done| done.returned).collect();
    ends.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut ends {
        newest = newest.max(*revision);
        *revision = newest;
    }
    let mut faults = Vec::new();
    for done in operations {
        let Some((_, revision)) = done.returned else { continue };
        let before = match ends.partition_point(|(moment, _)| *moment < done.invoked) {
            0 => continue,
            earlier => ends[earlier - 1].1,
        };
        let is_late_enough = match done.action {
            Action::Read(_) => revision >= before,
            Action::Write(_) | Action::Swap { swapped: Some(true), .. } => revision > before,
            Action::Swap { .. } => true,
        };
        if !is_late_enough {
            faults.push(format!("{:?} of {} is at {revision}, after {before} was answered", done.action, done.key));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::given::done;
    use super::*;

    /// What, when it was called, and the moment and revision of its answer.
    type Given = (Action, u64, Option<(u64, u64)>);

    fn faults(given: &[Given]) -> usize {
        let operations = given.iter().enumerate().map(|(client, (action, at, end))| done(client, *action, *at, *end));
        check(&Record { operations: operations.collect(), ..Record::default() }).len()
    }

    #[test]
    fn finds_what_no_order_explains() {
        use Action::{Read, Write};
        assert_eq!(faults(&[(Write(1), 1, Some((2, 1))), (Read(1), 3, Some((4, 1)))]), 0);
        assert_eq!(faults(&[(Write(1), 1, None), (Read(1), 3, Some((4, 1)))]), 0);
        assert_eq!(faults(&[(Write(1), 1, Some((2, 1))), (Read(0), 3, Some((4, 1)))]), 1, "a lost write");
        assert_eq!(faults(&[(Write(1), 1, Some((2, 5))), (Write(2), 3, Some((4, 5)))]), 1, "one revision for two");
        assert_eq!(faults(&[(Write(1), 1, Some((2, 5))), (Read(1), 3, Some((4, 3)))]), 1, "an old revision");
    }
}
