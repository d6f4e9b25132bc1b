//! Which of the waiting writes happen, and what that makes of the bucket. Pure: no store, no clock.
//!
//! Writes that go into one transaction share its revision. That is why a key is put or deleted at most once in one:
//! a client that was told revision 7 may overwrite what revision 7 holds, and that must be its own value. Additions
//! to the same key are folded into one, since nobody is told their revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::layout::Usage;

/// What a writer wants the entry to be before it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    Revision(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        value: Bytes,
        expect: Expect,
    },
    Delete {
        expect: Expect,
    },
    /// The value is a whole number in decimal digits; absent is 0.
    Add {
        delta: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub change: Change,
}

impl Write {
    pub fn bytes(&self) -> usize {
        match &self.change {
            Change::Put { value, .. } => self.key.len() + value.len(),
            Change::Delete { .. } | Change::Add { .. } => self.key.len(),
        }
    }
}

/// An entry as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub value: Bytes,
    pub revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub bytes: u64,
    pub entries: u64,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Put { created: bool },
    Deleted,
    Added(i64),
}

/// Why a write did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoBucket,
    NoEntry,
    /// The entry is not what the writer expected.
    Expectation,
    OverBytes(Quota),
    OverEntries(Quota),
    NotANumber,
    OutOfRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Happens(Done),
    Refused(Refusal),
    /// It has to wait for the next transaction.
    Later,
}

/// One transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// New values; `None` is a deletion.
    pub entries: BTreeMap<String, Option<Bytes>>,
    pub usage: Usage,
    /// One per write.
    pub verdicts: Vec<Verdict>,
}

impl Plan {
    /// Whether some write was answered with what the state is, and so on the state's age.
    pub fn refuses(&self) -> bool {
        self.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refused(_)))
    }
}

/// How a key was touched by the writes before.
enum Touched {
    Written,
    Added(i64),
}

pub fn plan(writes: &[&Write], usage: Usage, quota: Quota, find: impl Fn(&str) -> Option<Present>) -> Plan {
    let mut plan = Plan { usage, ..Plan::default() };
    let mut touched: BTreeMap<&str, Touched> = BTreeMap::new();
    for write in writes {
        let before = match (touched.get(write.key.as_str()), &write.change) {
            (None, _) => find(&write.key),
            (Some(Touched::Added(sum)), Change::Add { .. }) => Some(Present { value: decimal(*sum), revision: 0 }),
            (Some(_), _) => {
                plan.verdicts.push(Verdict::Later);
                continue;
            }
        };
        let decided = decide(&write.change, before.as_ref()).and_then(|(after, done)| {
            fit(&plan.usage, quota, write, before.as_ref(), after.as_ref()).map(|usage| (after, usage, done))
        });
        plan.verdicts.push(match decided {
            Ok((after, usage, done)) => {
                let how = match done {
                    Done::Added(sum) => Touched::Added(sum),
                    Done::Put { .. } | Done::Deleted => Touched::Written,
                };
                touched.insert(&write.key, how);
                plan.usage = usage;
                plan.entries.insert(write.key.clone(), after);
                Verdict::Happens(done)
            }
            Err(refusal) => Verdict::Refused(refusal),
        });
    }
    plan
}

/// The value after the change (`None`: gone), regardless of quota.
fn decide(change: &Change, before: Option<&Present>) -> Result<(Option<Bytes>, Done), Refusal> {
    match change {
        Change::Put { value, expect } => {
            check(*expect, before)?;
            Ok((Some(value.clone()), Done::Put { created: before.is_none() }))
        }
        Change::Delete { expect } => {
            check(*expect, before)?;
            before.map(|_| (None, Done::Deleted)).ok_or(Refusal::NoEntry)
        }
        Change::Add { delta } => {
            let present = before.map_or(Some(0), |entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
            let sum: i64 = present.ok_or(Refusal::NotANumber)?;
            let sum = sum.checked_add(*delta).ok_or(Refusal::OutOfRange)?;
            Ok((Some(decimal(sum)), Done::Added(sum)))
        }
    }
}

fn check(expect: Expect, before: Option<&Present>) -> Result<(), Refusal> {
    let holds = match expect {
        Expect::Anything => true,
        Expect::Absent => before.is_none(),
        Expect::Present => before.is_some(),
        Expect::Revision(revision) => before.is_some_and(|entry| entry.revision == revision),
    };
    if holds { Ok(()) } else { Err(Refusal::Expectation) }
}

/// The usage after the write. What makes a bucket smaller is never refused, even where the quota was lowered.
fn fit(
    usage: &Usage,
    quota: Quota,
    write: &Write,
    before: Option<&Present>,
    after: Option<&Bytes>,
) -> Result<Usage, Refusal> {
    let size = |value: Option<&Bytes>| value.map_or(0, |value| (write.key.len() + value.len()) as u64);
    let (old, new) = (size(before.map(|entry| &entry.value)), size(after));
    let then = Usage {
        bytes: usage.bytes.saturating_sub(old) + new,
        entries: usage.entries.saturating_sub(u64::from(before.is_some())) + u64::from(after.is_some()),
    };
    if then.entries > usage.entries && then.entries > quota.entries {
        return Err(Refusal::OverEntries(quota));
    }
    if then.bytes > usage.bytes && then.bytes > quota.bytes {
        return Err(Refusal::OverBytes(quota));
    }
    Ok(then)
}

fn decimal(number: i64) -> Bytes {
    number.to_string().into()
}
