use super::*;
use crate::load::record::Record;

fn version(resource_version: u64, number: Option<u64>) -> Version {
    Version { resource_version, number }
}

fn seen(change: Change, name: &str, at: u64, number: Option<u64>) -> Seen {
    Seen { change, name: name.to_owned(), version: version(at, number) }
}

/// One object made at 11, one refused, one unknown that was made at 13; the counter went to 1 at 12.
fn good() -> Evidence {
    let list: BTreeMap<String, Version> = [
        ("a".to_owned(), version(11, None)),
        ("u".to_owned(), version(13, None)),
        ("counter".to_owned(), version(12, Some(1))),
        ("old".to_owned(), version(5, None)),
    ]
    .into();
    let events = vec![
        seen(Change::Added, "a", 11, None),
        seen(Change::Modified, "counter", 12, Some(1)),
        seen(Change::Added, "u", 13, None),
    ];
    let watched = Watched { events, resumed: 1, expired: 0 };
    let creations = [
        ("a".to_owned(), Ending::Acknowledged(11)),
        ("r".to_owned(), Ending::Refused),
        ("u".to_owned(), Ending::Unknown),
    ];
    Evidence {
        record: Record { creations: creations.into(), increments: vec![(1, 12)], ..Record::default() },
        counter: "counter".to_owned(),
        began: 10,
        end: 13,
        kept: [("old".to_owned(), 5)].into(),
        lists: vec![list.clone(), list],
        watched: vec![watched.clone(), watched],
    }
}

/// How many faults of each kind a change to good evidence makes: lost, gaps, absurd.
fn check(change: impl Fn(&mut Evidence), expect: (usize, usize, usize)) {
    let mut evidence = good();
    change(&mut evidence);
    let verdict = judge(&evidence);
    assert_eq!((verdict.lost.len(), verdict.gaps.len(), verdict.absurd.len()), expect, "{verdict:#?}");
}

/// All servers list an object like this, or not at all.
fn set(evidence: &mut Evidence, name: &str, there: Option<Version>) {
    for list in &mut evidence.lists {
        list.retain(|other, _| other != name);
        list.extend(there.map(|version| (name.to_owned(), version)));
    }
}

#[test]
fn good_evidence_is_good() {
    let verdict = judge(&good());
    assert_eq!(verdict.faults(), Vec::<&String>::new());
    assert_eq!((verdict.acknowledged, verdict.unknown, verdict.events, verdict.resumed), (2, 1, 6, 2));
}

#[test]
fn lost_and_risen_writes_are_found() {
    check(|evidence| set(evidence, "a", None), (1, 0, 0));
    check(|evidence| set(evidence, "old", None), (1, 0, 0));
    check(|evidence| set(evidence, "r", Some(version(13, None))), (0, 0, 1));
    check(|evidence| set(evidence, "counter", Some(version(12, Some(0)))), (1, 0, 0));
    check(|evidence| set(evidence, "counter", Some(version(12, Some(2)))), (0, 0, 1));
    check(|evidence| evidence.record.increments_unknown = 1, (0, 0, 0));
    // Only one server has lost it.
    check(|evidence| evidence.lists[1].retain(|name, _| name != "a"), (0, 0, 1));
}

#[test]
fn gaps_doubles_and_disorder_are_found() {
    // Both watchers differ from what was acknowledged.
    check(|evidence| evidence.watched.iter_mut().for_each(|watched| drop(watched.events.remove(0))), (0, 2, 0));
    // An unknown write's event that only one of them saw.
    check(|evidence| drop(evidence.watched[1].events.remove(2)), (0, 1, 0));
    // Twice is out of order, and differs from the other watcher.
    check(|evidence| evidence.watched[1].events.push(seen(Change::Added, "u", 13, None)), (0, 2, 0));
    check(|evidence| evidence.watched[0].expired = 1, (0, 1, 0));
    // After the end, watchers may differ.
    check(|evidence| evidence.watched[1].events.push(seen(Change::Added, "late", 14, None)), (0, 0, 0));
}
