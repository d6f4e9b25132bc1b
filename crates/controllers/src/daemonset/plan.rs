//! One round of a DaemonSet: nodes without a pod get one, pods that are wrong go, then the update moves on. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::Node;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Note, Plan};

use super::eligible::{Eligibility, eligibility};
use super::pod::{is_updated, new_pod, node_of, tolerant};
use super::{status, update};
use crate::claim::{claim, creation, deletion};
use crate::history::{History, history};
use crate::memory::Recalled;
use crate::pods::{availability, is_ready, is_terminating, phase};

/// Pods created or deleted by one plan; the next plan goes on.
const BURST_MAX: usize = 250;
/// The wait before a failed pod of a node is replaced: doubling.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(900);
const UNSEEN_WAIT: Duration = Duration::from_secs(1);

/// Per node: failed pods that were deleted, and when the last one was.
pub type Attempts = HashMap<String, (u32, Timestamp)>;

pub struct Observed {
    pub set: Arc<DaemonSet>,
    /// Pods of the namespace which it controls or selects.
    pub pods: Vec<Arc<Pod>>,
    pub nodes: Vec<Arc<Node>>,
    /// All of the namespace: those of others matter for names.
    pub revisions: Vec<Arc<ControllerRevision>>,
    pub recalled: Recalled,
    pub attempts: Attempts,
    pub now: Timestamp,
}

/// A node as the set sees it.
pub struct Place {
    pub node: String,
    pub eligibility: Eligibility,
    /// Its pods, oldest first.
    pub pods: Vec<Arc<Pod>>,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let set = observed.set.as_ref();
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let claimed = claim(set, &spec.selector, &observed.pods, |_| true);
    let salt = set.status.as_ref().and_then(|status| status.collision_count);
    let mut history = history(set, &spec.template, &observed.revisions, salt);
    let mut actions = claimed.actions;
    actions.append(&mut history.actions);
    let (places, strays) = places(observed, spec, claimed.pods);
    let desired = places.iter().filter(|place| place.eligibility == Eligibility::Runs).count();
    let mut round = Round {
        observed,
        set,
        spec,
        history,
        places,
        desired,
        deleted: Vec::new(),
        created: Vec::new(),
        events: Vec::new(),
        requeue: None,
    };
    let deleting = set.metadata.deletion_timestamp.is_some();
    if !deleting && !round.history.collided {
        round.deleted.extend(strays);
        round.populate();
        if update::is_rolling(spec) && round.deleted.is_empty() && round.created.is_empty() {
            update::update(&mut round);
        }
    }
    round.into_plan(actions, deleting)
}

/// The nodes with their pods, and pods for nodes that are no more.
fn places(observed: &Observed, spec: &DaemonSetSpec, pods: Vec<Arc<Pod>>) -> (Vec<Place>, Vec<Arc<Pod>>) {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    let mut strays = Vec::new();
    for pod in pods {
        match node_of(&pod) {
            Some(node) => by_node.entry(node.to_owned()).or_default().push(pod),
            None => strays.push(pod),
        }
    }
    let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let template = tolerant(&spec.template);
    let mut places = Vec::new();
    for node in &observed.nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut pods = by_node.remove(&name).unwrap_or_default();
        pods.sort_by_key(|pod| (created(pod), pod.metadata.name.clone()));
        places.push(Place { node: name, eligibility: eligibility(&template, node), pods });
    }
    // A pod that is bound to a lost node is the node's matter; one that waits for it waits in vain.
    let waits =
        |pod: &Arc<Pod>| pod.spec.as_ref().is_none_or(|spec| spec.node_name.as_deref().is_none_or(str::is_empty));
    strays.extend(by_node.into_values().flatten().filter(waits));
    strays.retain(|pod| !is_terminating(pod));
    (places, strays)
}

pub struct Round<'a> {
    pub observed: &'a Observed,
    pub set: &'a DaemonSet,
    pub spec: &'a DaemonSetSpec,
    pub history: History,
    pub places: Vec<Place>,
    /// Nodes that should have a pod.
    pub desired: usize,
    pub deleted: Vec<Arc<Pod>>,
    /// Nodes that get a pod.
    pub created: Vec<String>,
    events: Vec<Note>,
    requeue: Option<Duration>,
}

impl Round<'_> {
    pub fn min_ready(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    pub fn is_available(&self, pod: &Pod) -> bool {
        availability(pod, self.min_ready(), self.observed.now).is_ok()
    }

    pub fn is_new(&self, pod: &Pod) -> bool {
        is_updated(pod, &self.history.present.hash)
    }

    pub fn is_ending(&self, pod: &Pod) -> bool {
        is_terminating(pod) || pod.metadata.uid.as_ref().is_some_and(|uid| self.observed.recalled.deleted.contains(uid))
    }

    /// Gives every node what it should have, whatever the revision.
    fn populate(&mut self) {
        if self.observed.recalled.unseen > 0 {
            self.requeue = Some(UNSEEN_WAIT);
            return;
        }
        let places = std::mem::take(&mut self.places);
        for place in &places {
            match (place.eligibility, place.pods.is_empty()) {
                (Eligibility::Runs, true) => self.created.push(place.node.clone()),
                (Eligibility::Runs | Eligibility::Stays, false) => self.tend(place),
                (Eligibility::Stays | Eligibility::Never, true) => {}
                (Eligibility::Never, false) => {
                    let gone: Vec<_> = place.pods.iter().filter(|pod| !self.is_ending(pod)).cloned().collect();
                    self.deleted.extend(gone);
                }
            }
        }
        self.places = places;
    }

    /// Ended pods go, and all but one of those that run; a surge has two for a while.
    fn tend(&mut self, place: &Place) {
        let mut running: Vec<&Arc<Pod>> = Vec::new();
        let stays: Vec<&Arc<Pod>> = place.pods.iter().filter(|pod| !self.is_ending(pod)).collect();
        for pod in stays {
            match phase(pod) {
                "Failed" => self.replace_failed(place, pod),
                "Succeeded" => {
                    self.narrate("SucceededDaemonPod", "succeeded", ("delete", place), pod);
                    self.deleted.push(Arc::clone(pod));
                }
                _ => running.push(pod),
            }
        }
        if running.len() < 2 {
            return;
        }
        if update::surge_max(self) == 0 {
            self.deleted.extend(running.into_iter().skip(1).cloned());
            return;
        }
        let new = running.iter().copied().find(|pod| self.is_new(pod));
        let old = running.iter().copied().find(|pod| !self.is_new(pod));
        let mut kept: Vec<&Arc<Pod>> = new.into_iter().chain(old).collect();
        if let (Some(new), Some(old)) = (new, old)
            && (!is_ready(old) || self.is_available(new))
        {
            kept.retain(|pod| !Arc::ptr_eq(pod, old));
        }
        let surplus = running.into_iter().filter(|pod| !kept.iter().any(|kept| Arc::ptr_eq(kept, pod)));
        self.deleted.extend(surplus.cloned());
    }

    fn replace_failed(&mut self, place: &Place, pod: &Arc<Pod>) {
        if let Some((count, at)) = self.observed.attempts.get(&place.node) {
            let wait = BACKOFF_FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(BACKOFF_LONGEST);
            let rest = wait.saturating_sub(elapsed(*at, self.observed.now));
            if !rest.is_zero() {
                self.requeue = Some(self.requeue.map_or(rest, |sooner| sooner.min(rest)));
                return;
            }
        }
        self.narrate("FailedDaemonPod", "failed", ("kill", place), pod);
        self.deleted.push(Arc::clone(pod));
    }

    fn narrate(&mut self, reason: &str, how: &str, (verb, place): (&str, &Place), pod: &Pod) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let message =
            format!("Found {how} daemon pod {namespace}/{name} on node {}, will try to {verb} it", place.node);
        self.events.push(match how {
            "failed" => Note::warning(self.set, reason, message),
            _ => Note::normal(self.set, reason, message),
        });
    }

    fn into_plan(self, mut actions: Vec<ApiAction>, deleting: bool) -> Plan {
        let (status, again) = status::status(&self);
        let why = match (self.created.len(), self.deleted.len()) {
            _ if deleting => "being deleted".to_owned(),
            (0, 0) => format!("{} nodes have what they should", status.desired_number_scheduled),
            (created, deleted) => format!("creating {created}, deleting {deleted}"),
        };
        let hash = &self.history.present.hash;
        let deletions = self.deleted.iter().take(BURST_MAX).map(|pod| deletion(self.set, pod));
        let creations = self.created.iter().take(BURST_MAX).map(|node| {
            let pod = new_pod(self.set, &self.spec.template, node, hash);
            ApiAction::create(&pod).narrated(creation(self.set))
        });
        let changed = (self.set.status.as_ref() != Some(&status))
            .then(|| ApiAction::update_status(&DaemonSet { status: Some(status), ..self.set.clone() }));
        // Pods first; but a refusal must not keep the status from being written.
        let failing = self.observed.recalled.failure.is_some();
        actions.extend(changed.clone().filter(|_| failing));
        actions.extend(deletions.chain(creations));
        actions.extend(changed.filter(|_| !failing));
        let labels = self.places.iter().flat_map(|place| &place.pods).filter_map(|pod| pod.metadata.labels.as_ref());
        let used: BTreeSet<String> =
            labels.filter_map(|labels| labels.get(crate::history::REVISION_HASH).cloned()).collect();
        if !deleting {
            actions.extend(self.history.truncated(&used, self.spec.revision_history_limit));
        }
        actions.extend(self.events.into_iter().map(ApiAction::Event));
        let requeue_after = [self.requeue, again].into_iter().flatten().min();
        Plan { actions, why, requeue_after }
    }
}
