//! Keeps the rules of policies at what the API server says: observe (three caches, and the addresses given out here),
//! compile (pure), apply. Then those who judge for themselves are told.
//!
//! One task owns the rules. Pods and namespaces are followed only once there is a policy. A new pod waits for the rules
//! that cover it before anything of it runs ([`KnownPolicies::cover`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use cri::{NetworkAttachment, NetworkError, PolicyTable};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use reconcile::Cache;
use reconcile::pod::Pod;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::facts::{PodFacts, cluster_dns, pod_facts};
use super::rules::Warning;
use super::tables::Tables;
use super::{PolicyRules, compile, publish};
use crate::pods::PodsHandle;

/// Changes are collected this long after the first.
const GATHER: Duration = Duration::from_millis(5);
/// Whether our table is still there is looked up this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);
/// A pod that is not covered by then is not connected; who asked for it asks again.
const COVER_TIME_MAX: Duration = Duration::from_secs(5);

/// What the loop follows.
pub(crate) struct PolicyCaches {
    pub(crate) policies: Cache<NetworkPolicy>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) pods: Cache<Pod>,
    /// Begins to fill the latter two.
    pub(crate) follow: Option<Box<dyn FnOnce() + Send>>,
}

/// What the kernel enforces.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) tables: Tables,
    covered: Covered,
}

/// Which pods of this node the rules know.
#[derive(Debug, Default, PartialEq, Eq)]
enum Covered {
    /// There is nothing to know.
    #[default]
    All,
    /// By uid ([`cri::linux_address_of`] one, too), at these addresses.
    These(BTreeMap<String, Ipv4Addr>),
    /// The rules are not made yet.
    None,
}

/// Read by whoever judges; clones share it.
#[derive(Clone, Default)]
pub(crate) struct KnownPolicies {
    newest: watch::Sender<Arc<Known>>,
    /// Counts addresses given out and taken back.
    moved: watch::Sender<u64>,
}

impl KnownPolicies {
    pub(crate) fn get(&self) -> Arc<Known> {
        Arc::clone(&self.newest.borrow())
    }

    /// From now on somebody makes rules.
    pub(crate) fn expect_rules(&self) {
        self.newest.send_replace(Arc::new(Known { tables: Tables::default(), covered: Covered::None }));
    }

    /// An address was taken back.
    pub(crate) fn pod_left(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    /// Returns when the rules know the pod at its address: it is isolated before it does anything.
    pub(crate) async fn cover(&self, uid: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let is_covered = |known: &Arc<Known>| match &known.covered {
            Covered::All => true,
            Covered::These(pods) => pods.get(uid) == Some(&address),
            Covered::None => false,
        };
        if is_covered(&self.newest.borrow()) {
            return Ok(());
        }
        self.moved.send_modify(|count| *count += 1);
        let mut newest = self.newest.subscribe();
        match timeout(COVER_TIME_MAX, newest.wait_for(is_covered)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NetworkError::Kernel {
                attempt: format!("isolate pod {uid} as network policies say"),
                why: format!("its rules were not there after {COVER_TIME_MAX:?}"),
            }),
        }
    }
}

/// What the loop works with.
pub(crate) struct PolicySync {
    pub(crate) caches: PolicyCaches,
    pub(crate) pods: PodsHandle,
    pub(crate) dns: Ipv4Addr,
    pub(crate) known: KnownPolicies,
    pub(crate) table: watch::Sender<Arc<PolicyTable>>,
}

/// The rules as they should be.
struct Compiled {
    tables: Tables,
    covered: Covered,
}

/// Why the loop goes on.
enum Woken {
    Changed,
    CheckDue,
    RetryDue,
    Ended,
}

impl PolicySync {
    /// Runs until `shutdown`; the rules stay, for the next process to adopt.
    pub(crate) async fn run(mut self, rules: PolicyRules, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = self.caches.policies.ready() => if !ready { return },
        }
        let (mut policies, mut moved) = (self.caches.policies.changes(), self.known.moved.subscribe());
        let (mut namespaces, mut pods) = (self.caches.namespaces.changes(), self.caches.pods.changes());
        let mut check = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut rules, mut warned) = (Some(rules), Vec::new());
        let mut woken = Woken::Changed;
        loop {
            let compiled = match woken {
                Woken::Ended => return,
                Woken::CheckDue => None,
                Woken::Changed | Woken::RetryDue => {
                    moved.mark_unchanged();
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        compiled = self.compile(&mut warned) => match compiled {
                            Some(compiled) => Some(compiled),
                            None => return,
                        },
                    }
                }
            };
            let Some(retry) = self.step(&mut rules, compiled).await else { return };
            let changed = |alive: bool| if alive { Woken::Changed } else { Woken::Ended };
            let is_followed = self.caches.follow.is_none() && !self.caches.policies.snapshot().is_empty();
            woken = tokio::select! {
                () = shutdown.cancelled() => Woken::Ended,
                alive = policies.changed() => changed(alive),
                alive = namespaces.changed(), if is_followed => changed(alive),
                alive = pods.changed(), if is_followed => changed(alive),
                alive = moved.changed(), if is_followed => changed(alive.is_ok()),
                _ = check.tick() => Woken::CheckDue,
                () = sleep(RETRY), if retry => Woken::RetryDue,
            };
            if matches!(woken, Woken::Changed) {
                sleep(GATHER).await;
            }
        }
    }

    /// `None`: what it follows has ended.
    async fn compile(&mut self, warned: &mut Vec<Warning>) -> Option<Compiled> {
        let policies: Vec<Arc<NetworkPolicy>> = self.caches.policies.snapshot().iter().cloned().collect();
        if policies.is_empty() {
            warned.clear();
            return Some(Compiled { tables: Tables::default(), covered: Covered::All });
        }
        if let Some(follow) = self.caches.follow.take() {
            follow();
        }
        if !(self.caches.namespaces.ready().await && self.caches.pods.ready().await) {
            return None;
        }
        let here = addresses(&self.pods).await?;
        let namespaces: Vec<Arc<Namespace>> = self.caches.namespaces.snapshot().iter().cloned().collect();
        let pods = self.caches.pods.snapshot();
        let mut facts: Vec<PodFacts> = pod_facts(pods.iter(), &here);
        facts.push(cluster_dns(self.dns));
        let (tables, mut warnings) = compile(&policies, &namespaces, &facts);
        warnings.sort();
        for warning in warnings.iter().filter(|warning| !warned.contains(warning)) {
            let Warning { namespace, policy, message } = warning;
            tracing::warn!(namespace, policy, message, "a network policy is not enforced as written");
        }
        *warned = warnings;
        let seen = pods.iter().filter_map(|pod| pod.metadata.uid.clone());
        let names = seen.flat_map(|uid| [cri::linux_address_of(&uid), uid]);
        let covered = names.filter_map(|name| here.get(&name).map(|address| (name.clone(), *address))).collect();
        Some(Compiled { tables, covered: Covered::These(covered) })
    }

    /// Checks the kernel's table, or changes it and says so. Returns whether to come back soon; `None` when the rules are
    /// lost (their thread panicked).
    async fn step(&mut self, rules: &mut Option<PolicyRules>, compiled: Option<Compiled>) -> Option<bool> {
        let mut taken = rules.take()?;
        let work = tokio::task::spawn_blocking(move || {
            let outcome = match &compiled {
                Some(compiled) => taken.apply(&compiled.tables),
                None => taken.check().map(|()| 0),
            };
            (taken, compiled, outcome)
        });
        let (taken, compiled, outcome) = work.await.ok()?;
        let stale = taken.is_stale();
        *rules = Some(taken);
        match (outcome, compiled) {
            (Ok(elements), Some(compiled)) => {
                tracing::debug!(elements, "the rules of policies are up to date");
                self.tell(compiled);
            }
            (Ok(_), None) => {}
            (Err(error), _) => tracing::error!(%error, "the rules of policies could not be changed; trying again"),
        }
        Some(stale)
    }

    fn tell(&self, Compiled { tables, covered }: Compiled) {
        let before = self.known.get();
        let is_same_rules = before.tables.blocks == tables.blocks
            && before.tables.ingress.grants == tables.ingress.grants
            && before.tables.egress.grants == tables.egress.grants;
        let last = self.table.borrow().revision;
        // The first one is told whatever it says: hosts may know one of a process before this one.
        let revision = (last + u64::from(!is_same_rules)).max(1);
        let table = match &covered {
            Covered::These(pods) => publish::publish(&tables, pods.values().copied(), revision),
            Covered::All | Covered::None => PolicyTable { revision, ..PolicyTable::default() },
        };
        self.table.send_if_modified(|known| {
            let changed = **known != table;
            if changed {
                *known = Arc::new(table);
            }
            changed
        });
        self.known.newest.send_replace(Arc::new(Known { tables, covered }));
    }
}

/// What this node gave out, by uid ([`cri::linux_address_of`] one, too). `None`: the pods' thread has ended.
async fn addresses(pods: &PodsHandle) -> Option<BTreeMap<String, Ipv4Addr>> {
    let list = pods.list().await.ok()?;
    let address = |attachment: &NetworkAttachment| match attachment {
        NetworkAttachment::Namespace { ip: IpAddr::V4(ip), .. } | NetworkAttachment::Shared { ip: IpAddr::V4(ip) } => {
            Some(*ip)
        }
        _ => None,
    };
    Some(list.into_iter().filter_map(|one| Some((one.pod_uid, address(&one.attachment)?))).collect())
}
