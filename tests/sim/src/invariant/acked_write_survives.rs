//! A write that was acknowledged is in the log at the revision the client was told, and nothing older is in its
//! place at the end.

use crate::linearizable::Action;
use crate::record::Record;

pub fn check(record: &Record) -> Vec<String> {
    let log = record.log();
    let mut lost = Vec::new();
    for done in &record.operations {
        let value = match done.action {
            Action::Write(value) | Action::Swap { to: value, swapped: Some(true), .. } => value.to_string(),
            Action::Read(_) | Action::Swap { .. } => continue,
        };
        let Some((_, revision)) = done.returned else { continue };
        if let Some(changes) = log.get(&revision)
            && !changes.contains(&(done.key.clone(), Some(value.clone())))
        {
            lost.push(format!("{} = {value} was acknowledged at {revision}, which is {changes:?}", done.key));
        }
        for last in &record.finals {
            let found = last.entries.get(&done.key).map_or(0, |(_, _, changed)| *changed);
            if found < revision {
                lost.push(format!("{} = {value} at {revision} is not at member {}: {found}", done.key, last.member));
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::super::given::{done, event, last, watched};
    use super::*;

    fn faults(acked_at: u64, last_change: u64) -> usize {
        let mut record = watched(&[(1, vec![event(1, "k", "7"), event(2, "k", "8")])]);
        record.operations = vec![done(1, Action::Write(8), 1, Some((2, acked_at)))];
        record.finals = vec![last(1, 2, &[("k", "8", 1, last_change)])];
        check(&record).len()
    }

    #[test]
    fn finds_what_is_lost() {
        assert_eq!(faults(2, 2), 0);
        assert_eq!(faults(2, 5), 0, "written again since");
        assert_eq!(faults(2, 1), 1, "gone at the end");
        assert_eq!(faults(1, 2), 1, "another write has its revision");
    }
}
