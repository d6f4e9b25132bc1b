//! Who leads is decided once. A leadership is a term and a member, in this order: in a split vote the greater
//! member of a term may take over from the lesser, never the other way. No process ever goes back to an earlier
//! leadership than one it has followed, nor un-applies anything.

use std::collections::BTreeMap;

use crate::record::{Belief, Record};

pub fn check(record: &Record) -> Vec<String> {
    let mut before: BTreeMap<(u64, u64), ((u64, u64), u64)> = BTreeMap::new();
    let mut faults = Vec::new();
    for belief in &record.beliefs {
        let &Belief { member, incarnation, term, leader, applied } = belief;
        let (led, was_applied) = before.get(&(member, incarnation)).copied().unwrap_or_default();
        // Nobody: the term alone.
        let leads = (term, leader.unwrap_or_default());
        if leads.0 < led.0 || (leader.is_some() && leads < led) {
            faults.push(format!("member {member} followed {led:?} and then {leads:?}"));
        }
        if applied < was_applied {
            faults.push(format!("member {member} had applied {was_applied} and then {applied}"));
        }
        before.insert((member, incarnation), (leads.max(led), applied));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(given: &[(u64, Option<u64>, u64)]) -> usize {
        let beliefs =
            given.iter().map(|&(term, leader, applied)| Belief { member: 1, incarnation: 1, term, leader, applied });
        check(&Record { beliefs: beliefs.collect(), ..Record::default() }).len()
    }

    #[test]
    fn finds_a_step_back() {
        assert_eq!(faults(&[(1, Some(2), 3), (1, None, 3), (2, None, 3), (2, Some(1), 4), (2, Some(3), 4)]), 0);
        assert_eq!(faults(&[(2, Some(1), 3), (1, Some(3), 3)]), 1);
        assert_eq!(faults(&[(2, Some(3), 3), (2, Some(1), 3)]), 1);
        assert_eq!(faults(&[(2, Some(3), 3), (2, Some(3), 2)]), 1);
    }
}
