//! A client that has seen a revision never sees an older one, through whichever member; and what it writes later is
//! later.

use std::collections::BTreeMap;

use crate::linearizable::Action;
use crate::record::Record;

pub fn check(record: &Record) -> Vec<String> {
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    let mut faults = Vec::new();
    for done in &record.operations {
        // A swap that failed tells no revision.
        let Some((_, revision)) = done.returned.filter(|(_, revision)| *revision > 0 || done.action == Action::Read(0))
        else {
            continue;
        };
        let seen = newest.entry(done.client).or_default();
        let is_read = matches!(done.action, Action::Read(_));
        if revision < *seen || (revision == *seen && !is_read) {
            faults.push(format!("client {} was at {seen}, then {:?} at {revision}", done.client, done.action));
        }
        *seen = revision.max(*seen);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::given::done;
    use super::*;

    fn faults(given: &[(usize, Action, u64)]) -> usize {
        let operations = given.iter().map(|(client, action, revision)| done(*client, *action, 1, Some((2, *revision))));
        check(&Record { operations: operations.collect(), ..Record::default() }).len()
    }

    #[test]
    fn finds_a_step_back() {
        use Action::{Read, Swap, Write};
        assert_eq!(faults(&[(1, Write(1), 4), (1, Read(1), 4), (2, Read(0), 2), (1, Write(2), 5)]), 0);
        assert_eq!(faults(&[(1, Write(1), 4), (1, Swap { from: 1, to: 2, swapped: Some(false) }, 0)]), 0);
        assert_eq!(faults(&[(1, Read(1), 4), (1, Read(0), 3)]), 1);
        assert_eq!(faults(&[(1, Read(1), 4), (1, Write(9), 4)]), 1);
        assert_eq!(faults(&[(1, Read(1), 4), (1, Read(0), 0)]), 1);
    }
}
