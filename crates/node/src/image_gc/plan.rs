//! Which image is removed next. Pure: how full the disk is, what containers have and the time come in as values.
//!
//! As the kubelet does it: from a high mark on, the image that was not used for the longest time, until a low mark is
//! reached. One after another, since how much goes with an image is known when it is gone: what it shares with others
//! stays, and it is larger unpacked.

use std::collections::{BTreeMap, BTreeSet};

use cri::{CachedImage, FileSystemUsage};
use jiff::{SignedDuration, Timestamp};

/// When images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How full the disk may be, in percent.
    pub high_percent: u64,
    /// How full it is after images were removed.
    pub low_percent: u64,
    /// An image stays for so long after it was first seen.
    pub min_age: SignedDuration,
}

/// What was seen of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first: Timestamp,
    /// When a container last had it.
    used: Option<Timestamp>,
}

/// What was seen of images since the agent started.
#[derive(Debug, Default)]
pub struct Sightings(BTreeMap<String, Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// There is room.
    Nothing,
    Remove(String),
    /// There is no room, and no image may be removed. So much is too much.
    Stuck {
        wanted_bytes: u64,
    },
    /// The disk cannot be of this size.
    NoCapacity,
}

impl Sightings {
    /// `in_use`: manifests that containers have. What is not there any more is forgotten.
    pub fn note(&mut self, images: &[CachedImage], in_use: &BTreeSet<String>, now: Timestamp) {
        self.0.retain(|digest, _| images.iter().any(|image| image.digest == *digest));
        for image in images {
            let seen = self.0.entry(image.digest.clone()).or_insert(Seen { first: now, used: None });
            if is_used(image, in_use) {
                seen.used = Some(now);
            }
        }
    }
}

fn is_used(image: &CachedImage, in_use: &BTreeSet<String>) -> bool {
    image.manifests.iter().any(|manifest| in_use.contains(manifest))
}

/// Bytes that must be freed for the disk to be this full.
fn excess(usage: FileSystemUsage, percent: u64) -> u64 {
    let used = usage.capacity_bytes.saturating_sub(usage.available_bytes);
    // In this order, so that a small disk has marks too; a disk of exabytes is none.
    used.saturating_sub(usage.capacity_bytes.saturating_mul(percent) / 100)
}

/// Whether images have to go, and until what is free.
pub fn is_full(policy: Policy, usage: FileSystemUsage) -> bool {
    excess(usage, policy.high_percent) > 0
}

/// `sightings` are of now. Begun at the high mark, this goes on to the low one.
pub fn plan(
    policy: Policy,
    usage: FileSystemUsage,
    images: &[CachedImage],
    sightings: &Sightings,
    now: Timestamp,
) -> Plan {
    if usage.capacity_bytes == 0 {
        return Plan::NoCapacity;
    }
    let wanted_bytes = excess(usage, policy.low_percent);
    if wanted_bytes == 0 {
        return Plan::Nothing;
    }
    let removable = images.iter().filter_map(|image| {
        let seen = sightings.0.get(&image.digest)?;
        let is_young = now.duration_since(seen.first) < policy.min_age;
        let is_used = seen.used == Some(now);
        // What no container ever had goes first, oldest first.
        (!is_young && !is_used).then_some((seen.used, seen.first, &image.digest))
    });
    match removable.min() {
        Some((_, _, digest)) => Plan::Remove(digest.clone()),
        None => Plan::Stuck { wanted_bytes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { high_percent: 85, low_percent: 80, min_age: SignedDuration::from_secs(120) };

    fn usage(used: u64) -> FileSystemUsage {
        FileSystemUsage { capacity_bytes: 1000, available_bytes: 1000 - used }
    }

    /// `a` has the manifest `a`; `b+c` is an index of `c`.
    fn image(text: &str) -> CachedImage {
        let manifests: Vec<String> = text.split('+').map(str::to_owned).collect();
        CachedImage { digest: manifests[0].clone(), manifests, size_bytes: 1 }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// What was seen: a second, the images there were, and those in use.
    fn seen(passes: &[(i64, &str, &str)]) -> (Vec<CachedImage>, Sightings, Timestamp) {
        let mut sightings = Sightings::default();
        let (mut images, mut now) = (Vec::new(), at(0));
        for (second, there, used) in passes {
            now = at(*second);
            images = there.split_whitespace().map(image).collect();
            let used: BTreeSet<String> = used.split_whitespace().map(str::to_owned).collect();
            sightings.note(&images, &used, now);
        }
        (images, sightings, now)
    }

    #[test]
    fn what_goes_next() {
        let check = |used: u64, passes: &[(i64, &str, &str)], expect: Plan| {
            let (images, sightings, now) = seen(passes);
            assert_eq!(plan(POLICY, usage(used), &images, &sightings, now), expect, "{used} {passes:?}");
        };
        let remove = |digest: &str| Plan::Remove(digest.to_owned());
        let stuck = |wanted_bytes| Plan::Stuck { wanted_bytes };
        // Between the marks it goes on, below the low one it ends.
        check(800, &[(0, "a", ""), (300, "a", "")], Plan::Nothing);
        check(801, &[(0, "a", ""), (300, "a", "")], remove("a"));
        check(900, &[(0, "a", ""), (300, "a", "")], remove("a"));
        check(900, &[(300, "", "")], stuck(100));
        // What is in use stays, and what is young.
        check(900, &[(0, "a b", ""), (300, "a b", "a")], remove("b"));
        check(900, &[(0, "a b", ""), (300, "a b", "a b")], stuck(100));
        check(900, &[(0, "a", ""), (119, "a", "")], stuck(100));
        check(900, &[(0, "a", ""), (120, "a", "")], remove("a"));
        check(900, &[(0, "a", ""), (200, "a b", ""), (300, "a b", "a")], stuck(100));
        // An index is in use with any manifest of it.
        check(900, &[(0, "a+x b+y", ""), (300, "a+x b+y", "y")], remove("a"));
        // The least recently used first, never used before all, and of these the oldest.
        check(900, &[(0, "a b", "a b"), (100, "a b", "a"), (300, "a b", "")], remove("b"));
        check(900, &[(0, "b", "b"), (100, "a b", "b"), (300, "a b", "")], remove("a"));
        check(900, &[(0, "b", ""), (100, "a b", ""), (300, "a b", "")], remove("b"));
        // Who is gone and comes back is young again.
        check(900, &[(0, "a", ""), (200, "", ""), (300, "a", "")], stuck(100));
    }

    #[test]
    fn when_it_begins() {
        for (used, expect) in [(0, false), (850, false), (851, true), (1000, true)] {
            assert_eq!(is_full(POLICY, usage(used)), expect, "{used}");
        }
        let none = FileSystemUsage { capacity_bytes: 0, available_bytes: 0 };
        assert_eq!(plan(POLICY, none, &[], &Sightings::default(), at(0)), Plan::NoCapacity);
        assert!(!is_full(POLICY, none));
    }
}
