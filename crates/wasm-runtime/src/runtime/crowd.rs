//! Which of its namespace's hosts a sandbox goes to.
//!
//! Owns: how many sandboxes each host has. One host serves a namespace until it has as many files open as a process
//! may; then there is another one beside it. May not know: when a host is full, it says so itself.

use std::collections::{BTreeMap, BTreeSet};

/// Sandboxes that share hosts with others of their namespace.
#[derive(Debug, Default)]
pub struct Crowds {
    /// By namespace and number of the host. No entry is zero.
    counts: BTreeMap<String, BTreeMap<u32, usize>>,
}

impl Crowds {
    pub fn add(&mut self, namespace: &str, host: u32) {
        *self.counts.entry(namespace.to_owned()).or_default().entry(host).or_default() += 1;
    }

    pub fn remove(&mut self, namespace: &str, host: u32) {
        let Some(hosts) = self.counts.get_mut(namespace) else { return };
        if let Some(count) = hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&host);
            }
        }
        if hosts.is_empty() {
            self.counts.remove(namespace);
        }
    }

    pub fn count(&self, namespace: &str, host: u32) -> usize {
        self.counts.get(namespace).and_then(|hosts| hosts.get(&host)).copied().unwrap_or(0)
    }

    /// The host of the fewest, except those that are `full`; a new one where all are.
    pub fn place(&self, namespace: &str, full: &BTreeSet<u32>) -> u32 {
        let none = BTreeMap::new();
        let hosts = self.counts.get(namespace).unwrap_or(&none);
        let with_room = hosts.iter().filter(|(host, _)| !full.contains(host));
        let fewest = with_room.min_by_key(|(host, count)| (**count, **host)).map(|(host, _)| *host);
        let unused = || (0..u32::MAX).find(|host| !hosts.contains_key(host) && !full.contains(host));
        fewest.or_else(unused).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_goes_where_the_fewest_are() {
        let check = |hosts: &[(u32, usize)], full: &[u32], expect: u32| {
            let mut crowds = Crowds::default();
            for (host, count) in hosts {
                (0..*count).for_each(|_| crowds.add("a", *host));
            }
            crowds.add("b", 7);
            assert_eq!(crowds.place("a", &full.iter().copied().collect()), expect, "{hosts:?} {full:?}");
        };
        check(&[], &[], 0);
        check(&[(0, 900)], &[], 0);
        check(&[(0, 900)], &[0], 1);
        check(&[(0, 900), (1, 3)], &[], 1);
        check(&[(0, 900), (1, 3)], &[1], 0);
        check(&[(0, 2), (1, 2)], &[], 0);
        check(&[(0, 900), (2, 900)], &[0, 2], 1);
        check(&[], &[0], 1);
    }

    #[test]
    fn a_host_without_sandboxes_is_forgotten() {
        let mut crowds = Crowds::default();
        crowds.add("a", 0);
        crowds.add("a", 0);
        crowds.remove("a", 0);
        assert_eq!(crowds.count("a", 0), 1);
        crowds.remove("a", 0);
        assert_eq!(crowds.count("a", 0), 0);
        crowds.remove("a", 0);
        assert!(crowds.counts.is_empty());
    }
}
