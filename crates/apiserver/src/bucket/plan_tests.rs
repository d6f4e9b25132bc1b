//! Given entries, a quota and waiting writes: the transaction.

use bytes::Bytes;

use super::layout::Usage;
use super::plan::{Change, Done, Expect, Plan, Present, Quota, Refusal, Verdict, Write, plan};

const QUOTA: Quota = Quota { bytes: 20, entries: 3 };

fn put(key: &str, value: &str, expect: Expect) -> Write {
    Write { key: key.to_owned(), change: Change::Put { value: Bytes::copy_from_slice(value.as_bytes()), expect } }
}

fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.to_owned(), change: Change::Delete { expect } }
}

fn add(key: &str, delta: i64) -> Write {
    Write { key: key.to_owned(), change: Change::Add { delta } }
}

/// Over a bucket that holds `n` = 7 (revision 1) and `t` = text (revision 2).
fn planned(writes: &[Write]) -> Plan {
    let find = |key: &str| match key {
        "n" => Some(Present { value: "7".into(), revision: 1 }),
        "t" => Some(Present { value: "text".into(), revision: 2 }),
        _ => None,
    };
    plan(&writes.iter().collect::<Vec<_>>(), Usage { bytes: 7, entries: 2 }, QUOTA, find)
}

/// `expect`: verdicts, `key=value` or `key-` of what is written, bytes and entries after.
#[track_caller]
fn check(writes: &[Write], verdicts: &[Verdict], entries: &str, usage: (u64, u64)) {
    let plan = planned(writes);
    assert_eq!(plan.verdicts, verdicts, "{writes:?}");
    let written = plan.entries.iter().map(|(key, value)| match value {
        Some(value) => format!("{key}={}", String::from_utf8_lossy(value)),
        None => format!("{key}-"),
    });
    assert_eq!(written.collect::<Vec<_>>().join(" "), entries, "{writes:?}");
    assert_eq!((plan.usage.bytes, plan.usage.entries), usage, "{writes:?}");
}

const CREATED: Verdict = Verdict::Happens(Done::Put { created: true });
const REPLACED: Verdict = Verdict::Happens(Done::Put { created: false });
const DELETED: Verdict = Verdict::Happens(Done::Deleted);
const UNEXPECTED: Verdict = Verdict::Refused(Refusal::Expectation);

#[test]
fn expectations() {
    let any = Expect::Anything;
    check(&[put("a", "1", any)], &[CREATED], "a=1", (9, 3));
    check(&[put("n", "12", any)], &[REPLACED], "n=12", (8, 2));
    check(&[put("n", "8", Expect::Revision(1))], &[REPLACED], "n=8", (7, 2));
    check(&[put("n", "8", Expect::Revision(2))], &[UNEXPECTED], "", (7, 2));
    check(&[put("a", "8", Expect::Revision(1))], &[UNEXPECTED], "", (7, 2));
    check(&[put("n", "8", Expect::Absent)], &[UNEXPECTED], "", (7, 2));
    check(&[put("a", "8", Expect::Present)], &[UNEXPECTED], "", (7, 2));
    check(&[put("a", "8", Expect::Absent)], &[CREATED], "a=8", (9, 3));
    check(&[delete("n", Expect::Revision(1))], &[DELETED], "n-", (5, 1));
    check(&[delete("n", Expect::Revision(9))], &[UNEXPECTED], "", (7, 2));
    check(&[delete("a", any)], &[Verdict::Refused(Refusal::NoEntry)], "", (7, 2));
}

#[test]
fn numbers() {
    let added = |sum| Verdict::Happens(Done::Added(sum));
    check(&[add("n", 3), add("n", -20)], &[added(10), added(-10)], "n=-10", (9, 2));
    check(&[add("a", 1)], &[added(1)], "a=1", (9, 3));
    check(&[add("t", 1)], &[Verdict::Refused(Refusal::NotANumber)], "", (7, 2));
    let far = [add("a", i64::MAX), add("a", 1)];
    let out = Verdict::Refused(Refusal::OutOfRange);
    let find = |_: &str| None;
    let roomy = Quota { bytes: 100, entries: 3 };
    assert_eq!(plan(&far.iter().collect::<Vec<_>>(), Usage::default(), roomy, find).verdicts, [added(i64::MAX), out]);
}

#[test]
fn a_key_is_put_once_in_a_transaction() {
    let any = Expect::Anything;
    check(&[put("n", "1", any), put("n", "2", any)], &[REPLACED, Verdict::Later], "n=1", (7, 2));
    check(&[add("n", 1), delete("n", any)], &[Verdict::Happens(Done::Added(8)), Verdict::Later], "n=8", (7, 2));
    check(&[delete("n", any), add("n", 1)], &[DELETED, Verdict::Later], "n-", (5, 1));
    // A refused write touches nothing.
    check(&[put("n", "1", Expect::Absent), put("n", "2", any)], &[UNEXPECTED, REPLACED], "n=2", (7, 2));
}

#[test]
fn quotas_are_exact() {
    let any = Expect::Anything;
    let over_entries = Verdict::Refused(Refusal::OverEntries(QUOTA));
    let over_bytes = Verdict::Refused(Refusal::OverBytes(QUOTA));
    check(&[put("a", "", any), put("b", "", any)], &[CREATED, over_entries], "a=", (8, 3));
    check(&[put("a", "123456789012", any)], &[CREATED], "a=123456789012", (20, 3));
    check(&[put("a", "1234567890123", any)], &[over_bytes], "", (7, 2));
    // What a deletion frees is free for the next.
    let swap = [delete("t", any), put("a", "", any), put("b", "", any)];
    check(&swap, &[DELETED, CREATED, CREATED], "a= b= t-", (4, 3));
    // Over a lowered quota, smaller is allowed.
    let find = |key: &str| (key == "t").then(|| Present { value: "text".into(), revision: 2 });
    let low = Quota { bytes: 1, entries: 1 };
    let used = Usage { bytes: 5, entries: 1 };
    let verdict = |value: &str| plan(&[&put("t", value, any)], used, low, find).verdicts[0];
    assert_eq!(verdict("tex"), REPLACED);
    assert_eq!(verdict("texts"), Verdict::Refused(Refusal::OverBytes(low)));
}
