//! What Deployments, nodes and the control loop say to each other about going to zero replicas.
//!
//! Owns: the annotations and their forms. A Deployment says when ([`AFTER`]); a node says on its Lease which of them nobody
//! uses through it ([`UNUSED`]); the control loop marks one that nobody uses at all ([`MARK`]). See
//! `docs/decisions/0040`. May not know: how use is seen, or who decides.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::custom::format;

/// Of a Deployment: how long no connection may be open, and none may come, until it has no replicas any more: `30s`,
/// `5m`, `1h`; `never` only wakes.
pub const AFTER: &str = "knarr.dev/scale-to-zero-after";
/// Of a Deployment that is about to have no replicas: a [`Mark`]. Every node leads its connections past itself then.
pub const MARK: &str = "knarr.dev/scale-to-zero-mark";
/// Of a node's Lease: an [`Unused`].
pub const UNUSED: &str = "knarr.dev/unused-deployments";
/// Deployments that one node names at most; of more it says nothing, and they stay.
pub const UNUSED_MAX: usize = 512;

/// When a Deployment may go to zero by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Never,
    Idle(Duration),
}

impl After {
    /// As Go writes durations, above zero, or `never`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "never" {
            return Some(Self::Never);
        }
        let nanos = u64::try_from(format::duration(text)?).ok()?;
        (nanos > 0).then(|| Self::Idle(Duration::from_nanos(nanos)))
    }
}

/// Names one attempt to bring a Deployment to zero: when it began, in milliseconds since 1970.
pub type Mark = u64;

/// What a node says of a Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Says {
    /// Nobody used it for the time given.
    Quiet,
    /// And since this mark all its connections come to us first, and none came. One that comes now waits until the mark
    /// is gone or the replicas are.
    Alone(Mark),
}

/// What a node says, by the uids of Deployments: `UID`, or `UID@MARK`, joined by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unused(BTreeMap<String, Says>);

impl Unused {
    /// Of too many, those go first that the others may wait for.
    pub fn of(says: impl IntoIterator<Item = (String, Says)>) -> Self {
        let mut all: Vec<(String, Says)> = says.into_iter().collect();
        if all.len() > UNUSED_MAX {
            all.sort_by(|(a, says_a), (b, says_b)| says_b.cmp(says_a).then(a.cmp(b)));
            all.truncate(UNUSED_MAX);
        }
        Self(all.into_iter().collect())
    }

    /// What is not understood is left out: nothing is said of it.
    pub fn parse(text: &str) -> Self {
        let entry = |entry: &str| match entry.split_once('@') {
            None if entry.is_empty() => None,
            None => Some((entry.to_owned(), Says::Quiet)),
            Some((uid, mark)) => Some((uid.to_owned(), Says::Alone(mark.parse().ok()?))),
        };
        Self(text.split(',').filter_map(entry).take(UNUSED_MAX).collect())
    }

    pub fn get(&self, uid: &str) -> Option<Says> {
        self.0.get(uid).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The uids of which something else is said than `before`.
    pub fn news<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let changed = self.0.iter().filter(|(uid, says)| before.0.get(*uid) != Some(*says));
        let gone = before.0.iter().filter(|(uid, _)| !self.0.contains_key(*uid));
        changed.chain(gone).map(|(uid, _)| uid.as_str())
    }
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (uid, says)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match says {
                Says::Quiet => write!(f, "{comma}{uid}")?,
                Says::Alone(mark) => write!(f, "{comma}{uid}@{mark}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expect: Option<After>| assert_eq!(After::parse(text), expect, "{text}");
        let idle = |seconds| Some(After::Idle(Duration::from_secs(seconds)));
        check("30s", idle(30));
        check(" 1h30m ", idle(5400));
        check("never", Some(After::Never));
        for wrong in ["", "s", "0s", "5", "-5m", "5d", "5é", "99999999999999999999h", "soon"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_said_is_read_back() {
        let said = Unused::of([("b".to_owned(), Says::Alone(1_800_000_000_000)), ("a".to_owned(), Says::Quiet)]);
        assert_eq!(said.to_string(), "a,b@1800000000000");
        assert_eq!(Unused::parse(&said.to_string()), said);
        assert_eq!((said.get("a"), said.get("c")), (Some(Says::Quiet), None));
        assert!(Unused::parse("").is_empty() && Unused::default().to_string().is_empty());
        // What nobody wrote says nothing.
        assert_eq!(Unused::parse(",a,b@x,,c@").to_string(), "a");
    }

    #[test]
    fn news_is_what_changed() {
        let said = Unused::parse("a,b@1,c");
        let check = |now: &str, expect: &[&str]| {
            assert_eq!(Unused::parse(now).news(&said).collect::<Vec<_>>(), expect, "{now}");
        };
        check("a,b@1,c", &[]);
        check("a,b@2,c", &["b"]);
        check("a,c,d", &["d", "b"]);
        check("", &["a", "b", "c"]);
    }

    #[test]
    fn of_too_many_the_urgent_are_named() {
        let quiet = (0..UNUSED_MAX + 9).map(|number| (format!("{number:04}"), Says::Quiet));
        let said = Unused::of(quiet.chain([("zz".to_owned(), Says::Alone(1))]));
        assert_eq!(said.get("zz"), Some(Says::Alone(1)));
        assert_eq!((said.get("0000"), said.0.len()), (Some(Says::Quiet), UNUSED_MAX));
    }
}
