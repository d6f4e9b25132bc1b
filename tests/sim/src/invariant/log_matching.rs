//! A revision is the same change at every member and in every life of it.

use std::collections::BTreeMap;

use crate::record::{Changes, Record, Watched};

pub fn check(record: &Record) -> Vec<String> {
    let log = record.log();
    let mut faults = Vec::new();
    for ((member, incarnation), watched) in &record.watches {
        let mut revisions: BTreeMap<u64, Changes> = BTreeMap::new();
        for seen in watched {
            if let Watched::Event(revision, key, value) = seen {
                revisions.entry(*revision).or_default().push((key.clone(), value.clone()));
            }
        }
        // The newest may have been cut off in its middle by the end of the process.
        let newest = revisions.pop_last();
        for (revision, changes) in &revisions {
            // Whoever saw a revision first may be the one that was cut off.
            if log.get(revision).is_some_and(|first| !changes.starts_with(first)) {
                faults.push(format!("revision {revision} at member {member} ({incarnation}) is {changes:?}"));
            }
        }
        if let Some((revision, changes)) = newest
            && log.get(&revision).is_some_and(|first| !first.starts_with(&changes) && !changes.starts_with(first))
        {
            faults.push(format!("revision {revision} at member {member} ({incarnation}) is {changes:?}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::given::{event, watched};
    use super::*;

    #[test]
    fn finds_a_difference() {
        let one = || vec![event(1, "a", "1"), event(2, "b", "2"), event(3, "c", "3")];
        let faults = |other: Vec<Watched>| check(&watched(&[(1, one()), (2, other)])).len();
        assert_eq!(faults(one()), 0);
        assert_eq!(faults(vec![event(2, "b", "2")]), 0);
        assert_eq!(faults(vec![event(2, "b", "other"), event(3, "c", "3")]), 1);
        assert_eq!(faults(vec![event(3, "other", "3")]), 1);
    }
}
