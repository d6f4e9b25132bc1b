//! Whether what clients saw can be.
//!
//! Owns: the rules, as a pure function. May not know: servers, faults, time.

use std::collections::BTreeMap;

use crate::load::record::{Change, Ending, Evidence, Seen, Version, Watched};

/// Sentences for each broken rule, and what was seen in numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub acknowledged: u64,
    pub unknown: u64,
    pub reads: u64,
    pub events: u64,
    pub resumed: u64,
    /// Acknowledged writes that are not there.
    pub lost: Vec<String>,
    /// Versions that a watcher did not see, or not in order, or twice.
    pub gaps: Vec<String>,
    pub stale: Vec<String>,
    /// Everything else that cannot be.
    pub absurd: Vec<String>,
}

impl Verdict {
    pub fn faults(&self) -> Vec<&String> {
        [&self.lost, &self.gaps, &self.stale, &self.absurd].into_iter().flatten().collect()
    }
}

pub fn judge(evidence: &Evidence) -> Verdict {
    let record = &evidence.record;
    let mut verdict = Verdict { reads: record.reads, stale: record.stale.clone(), ..Verdict::default() };
    verdict.absurd.clone_from(&record.absurd);
    let count = |wanted: fn(&Ending) -> bool| record.creations.values().filter(|ending| wanted(ending)).count() as u64;
    verdict.acknowledged = count(|ending| matches!(ending, Ending::Acknowledged(_))) + record.increments.len() as u64;
    verdict.unknown = count(|ending| *ending == Ending::Unknown) + record.increments_unknown;
    lists(evidence, &mut verdict);
    counter(evidence, &mut verdict);
    for (index, watched) in evidence.watched.iter().enumerate() {
        verdict.events += watched.events.len() as u64;
        verdict.resumed += watched.resumed;
        watcher(evidence, index, watched, &mut verdict);
    }
    verdict
}

/// All servers list the same: everything acknowledged and nothing refused.
fn lists(evidence: &Evidence, verdict: &mut Verdict) {
    let Some(first) = evidence.lists.first() else { return };
    for (server, list) in evidence.lists.iter().enumerate() {
        if list != first {
            let differing = |(name, version): &(&String, &Version)| first.get(*name) != Some(*version);
            let odd: Vec<_> = list.iter().filter(differing).take(3).collect();
            let counts = (list.len(), first.len());
            verdict.absurd.push(format!("server {server} and server 0 list {counts:?} objects, {odd:?} differ"));
        }
    }
    for (name, ending) in &evidence.record.creations {
        match (ending, first.get(name)) {
            (Ending::Acknowledged(at), None) => verdict.lost.push(format!("{name}, acknowledged at {at}")),
            (Ending::Acknowledged(at), Some(there)) if there.resource_version != *at => {
                verdict.absurd.push(format!("{name} was acknowledged at {at} and is {there:?}"));
            }
            (Ending::Refused, Some(there)) => verdict.absurd.push(format!("{name} was refused and is {there:?}")),
            _ => {}
        }
    }
    for (name, at) in &evidence.kept {
        if first.get(name).map(|there| there.resource_version) != Some(*at) {
            verdict.lost.push(format!("{name}, there in an earlier round at {at}: {:?}", first.get(name)));
        }
    }
}

/// Each acknowledged increment counted once, each unknown one at most once.
fn counter(evidence: &Evidence, verdict: &mut Verdict) {
    let record = &evidence.record;
    let there = evidence.lists.first().and_then(|list| list.get(&evidence.counter)?.number);
    let number = there.unwrap_or_default();
    let least = record.increments.len() as u64;
    if number < least {
        verdict.lost.push(format!("the counter is {there:?} after {least} acknowledged increments"));
    }
    if number > least + record.increments_unknown {
        let unknown = record.increments_unknown;
        verdict.absurd.push(format!("the counter is {number} after {least} increments and {unknown} unknown ones"));
    }
    let mut by_number: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, at) in &record.increments {
        if let Some(other) = by_number.insert(*number, *at) {
            verdict.lost.push(format!("two increments to {number} were acknowledged, at {other} and {at}"));
        }
    }
}

/// Every version once and in order, and the same for all watchers.
fn watcher(evidence: &Evidence, index: usize, watched: &Watched, verdict: &mut Verdict) {
    let mut gap = |text: String| verdict.gaps.push(format!("watcher {index}: {text}"));
    if watched.expired > 0 {
        gap(format!("was told {} times that its resource version is too old", watched.expired));
    }
    let pairs = watched.events.windows(2);
    for pair in pairs.filter(|pair| pair[0].version.resource_version >= pair[1].version.resource_version) {
        gap(format!("{:?} after {:?}", pair[1], pair[0]));
    }
    let until_end = |events: &[Seen]| -> Vec<Seen> {
        events.iter().filter(|seen| seen.version.resource_version <= evidence.end).cloned().collect()
    };
    let (own, first) = (until_end(&watched.events), until_end(&evidence.watched[0].events));
    if own != first {
        let at = own.iter().zip(&first).position(|(one, other)| one != other).unwrap_or(own.len().min(first.len()));
        gap(format!("{:?} where watcher 0 saw {:?}; {} and {}", own.get(at), first.get(at), own.len(), first.len()));
    }
    let seen: BTreeMap<u64, &Seen> = own.iter().map(|seen| (seen.version.resource_version, seen)).collect();
    let mut must = |name: &str, at: u64, change: Change, number: Option<u64>| {
        let version = Version { resource_version: at, number };
        let expected = Seen { change, name: name.to_owned(), version };
        if at > evidence.began && at <= evidence.end && seen.get(&at) != Some(&&expected) {
            gap(format!("{expected:?} was acknowledged; it saw {:?}", seen.get(&at)));
        }
    };
    for (name, ending) in &evidence.record.creations {
        if let Ending::Acknowledged(at) = ending {
            must(name, *at, Change::Added, None);
        }
    }
    for (number, at) in &evidence.record.increments {
        must(&evidence.counter, *at, Change::Modified, Some(*number));
    }
}

#[cfg(test)]
mod tests;
