//! Forgetting old revisions forgets no live key: the state at the end is what all changes together make.

use std::collections::BTreeMap;

use crate::record::{Changes, Record};

/// Key to value and the revisions of its creation and last change.
type State = BTreeMap<String, (String, u64, u64)>;

fn replay(log: &BTreeMap<u64, Changes>, upto: u64) -> State {
    let mut state = State::new();
    for (revision, changes) in log.range(..=upto) {
        for (key, value) in changes {
            match value {
                Some(value) => {
                    let created = state.get(key).map_or(*revision, |(_, created, _)| *created);
                    state.insert(key.clone(), (value.clone(), created, *revision));
                }
                None => drop(state.remove(key)),
            }
        }
    }
    state
}

pub fn check(record: &Record) -> Vec<String> {
    let log = record.log();
    let mut faults = Vec::new();
    for last in &record.finals {
        let is_whole = (1..=last.revision).all(|revision| log.contains_key(&revision));
        if is_whole && replay(&log, last.revision) != last.entries {
            faults.push(format!("member {} does not have what all changes up to {} make", last.member, last.revision));
        }
        // Where nobody watched all along, at least nothing is older than what was seen.
        for (revision, changes) in log.range(..=last.revision) {
            for (key, value) in changes {
                let found = last.entries.get(key).map_or(0, |(_, _, changed)| *changed);
                if value.is_some() && found < *revision && !deleted_since(&log, key, *revision) && is_whole {
                    faults.push(format!("{key} at {revision} is not at member {}", last.member));
                }
            }
        }
    }
    faults
}

fn deleted_since(log: &BTreeMap<u64, Changes>, key: &str, revision: u64) -> bool {
    log.range(revision + 1..)
        .any(|(_, changes)| changes.iter().any(|(changed, value)| changed == key && value.is_none()))
}

#[cfg(test)]
mod tests {
    use super::super::given::{event, last, watched};
    use super::*;

    fn faults(entries: &[(&str, &str, u64, u64)]) -> usize {
        let seen =
            vec![event(1, "a", "1"), event(2, "b", "2"), event(3, "a", "3"), event(4, "b", ""), event(5, "b", "5")];
        let mut record = watched(&[(1, seen)]);
        record.finals = vec![last(1, 5, entries)];
        check(&record).len()
    }

    #[test]
    fn finds_a_hidden_key() {
        assert_eq!(faults(&[("a", "3", 1, 3), ("b", "5", 5, 5)]), 0);
        assert!(faults(&[("b", "5", 5, 5)]) > 0, "hidden");
        assert!(faults(&[("a", "1", 1, 1), ("b", "5", 5, 5)]) > 0, "old");
        assert!(faults(&[("a", "3", 1, 3), ("b", "5", 2, 5)]) > 0, "made anew, not changed");
        assert!(faults(&[("a", "3", 1, 3), ("b", "5", 5, 5), ("c", "1", 1, 1)]) > 0, "from nowhere");
    }
}
