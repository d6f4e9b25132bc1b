//! When nothing is under way any more, every member has the same state and knows the same members.

use crate::record::Record;

pub fn check(record: &Record) -> Vec<String> {
    let Some(first) = record.finals.first() else { return Vec::new() };
    let others = record.finals.iter().skip(1);
    let different = others.filter(|last| (last.revision, &last.entries) != (first.revision, &first.entries));
    let strangers = record.finals.iter().filter(|last| last.membership != first.membership).map(|last| {
        let (one, other) = (&first.membership, &last.membership);
        format!("to member {} the members are {one:?}, to member {} {other:?}", first.member, last.member)
    });
    different
        .map(|last| {
            format!(
                "members {} (at {}) and {} (at {}) differ",
                first.member, first.revision, last.member, last.revision
            )
        })
        .chain(strangers)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::given::last;
    use super::*;

    #[test]
    fn finds_a_difference() {
        let faults = |entries: &[(&str, &str, u64, u64)], revision| {
            let finals = vec![last(1, 2, &[("a", "1", 1, 2)]), last(2, revision, entries)];
            check(&Record { finals, ..Record::default() }).len()
        };
        assert_eq!(faults(&[("a", "1", 1, 2)], 2), 0);
        assert_eq!(faults(&[("a", "1", 1, 2)], 3), 1);
        assert_eq!(faults(&[("a", "1", 2, 2)], 2), 1);
        assert_eq!(faults(&[], 2), 1);
        let stranger = crate::record::Final { membership: vec![(1, true), (2, true)], ..last(2, 2, &[]) };
        assert_eq!(check(&Record { finals: vec![last(1, 2, &[]), stranger], ..Record::default() }).len(), 1);
    }
}
