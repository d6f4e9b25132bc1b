//! Tells sandbox hosts what the node's network knows: where Services lead, and who may call whom.
//!
//! Owns: what each host was told last. A host is told of what concerns its pods, whenever that changes. May not know: who
//! makes the tables, what is in them, what a host does with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::NetworkAttachment;
use tokio::sync::watch;

use crate::owned::Owned;
use crate::protocol::{Request, Response};
use crate::runtime::host_link::HostLink;
use crate::runtime::hosts::State;

/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(5);
/// With thousands of pods a look takes as long as that: then it is taken less often.
const GATHER_MAX: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

/// What one kind of table is to hosts.
pub struct Told<T> {
    /// Of what a host is told, for whoever reads the log.
    pub what: &'static str,
    /// What concerns the host of these pods.
    pub part: fn(&T, &BTreeSet<IpAddr>) -> T,
    pub request: fn(T) -> Request,
}

/// Until whoever makes the table ends. `moved` tells of new hosts and of pods that came.
pub async fn run<T: Clone + PartialEq>(
    told: Told<T>,
    mut table: watch::Receiver<Arc<T>>,
    state: Owned<State>,
    mut moved: watch::Receiver<u64>,
) {
    let mut last = BTreeMap::<String, (HostLink, T)>::new();
    // Not to say the same every second of a host that an older agent started.
    let mut deaf = BTreeMap::<String, HostLink>::new();
    // Before the first table nobody knows: hosts of an agent before this one keep what that one said.
    if table.changed().await.is_err() {
        return;
    }
    let mut took = Duration::ZERO;
    loop {
        tokio::time::sleep(gather(took)).await;
        let began = Instant::now();
        let newest = Arc::clone(&table.borrow_and_update());
        moved.mark_unchanged();
        let hosts = state.with(|state| hosts(state)).await;
        let is_there = |name: &String| hosts.iter().any(|(host, ..)| host == name);
        last.retain(|name, _| is_there(name));
        deaf.retain(|name, _| is_there(name));
        let mut missed = false;
        for (name, link, pods) in hosts {
            let part = (told.part)(&newest, &pods);
            if last.get(&name).is_some_and(|(to, what)| *to == link && *what == part) {
                continue;
            }
            match link.call(&(told.request)(part.clone()), &[]).await {
                Ok(Response::Done) => drop(last.insert(name, (link, part))),
                answered => {
                    missed = true;
                    if deaf.get(&name) != Some(&link) {
                        tracing::warn!(?answered, host = name, "a sandbox host was not told {}", told.what);
                        deaf.insert(name, link);
                    }
                }
            }
        }
        took = began.elapsed();
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            changed = moved.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if missed => {}
        }
    }
}

/// At most a quarter of the time goes into looking.
fn gather(took: Duration) -> Duration {
    (3 * took).clamp(GATHER, GATHER_MAX)
}

/// The hosts, and the addresses of their pods. A pod with a network namespace of its own is reached through the kernel.
fn hosts(state: &State) -> Vec<(String, HostLink, BTreeSet<IpAddr>)> {
    let mut pods = BTreeMap::<String, BTreeSet<IpAddr>>::new();
    for sandbox in state.records.sandboxes().values().filter(|sandbox| !sandbox.stopped) {
        if let NetworkAttachment::Shared { ip } = sandbox.config.network {
            pods.entry(sandbox.host()).or_default().insert(ip);
        }
    }
    let with_pods = |(name, link): (&String, &HostLink)| {
        let pods = pods.remove(name).unwrap_or_default();
        (name.clone(), link.clone(), pods)
    };
    state.links.iter().map(with_pods).collect()
}
