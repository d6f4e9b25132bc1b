//! One round of a StatefulSet. Pure.
//!
//! Ordered sets take one step at a time: the lowest missing pod first, and nothing goes on while a pod before it is
//! not available. A name is used by one pod at a time: a new pod is made only when the old one is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use reconcile::pod::Pod;
use reconcile::{ApiAction, Note, Plan};

use super::identity::{self, creation, deletion, name, new_pod, ordinal, set_name};
use super::{status, storage, update};
use crate::claim::claim;
use crate::history::{self, History, history};
use crate::memory::Recalled;
use crate::pods::{availability, is_terminal, is_terminating, phase};

pub struct Observed {
    pub set: Arc<StatefulSet>,
    /// Pods of the namespace which it controls or selects.
    pub pods: Vec<Arc<Pod>>,
    /// Claims whose names it gives.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// All of the namespace: those of others matter for names.
    pub revisions: Vec<Arc<ControllerRevision>>,
    pub recalled: Recalled,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let set = observed.set.as_ref();
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let mut claimed = claim(set, &spec.selector, &observed.pods, |pod| ordinal(set, pod).is_some());
    claimed.pods.retain(|pod| identity::ordinal(set, pod).is_some());
    let salt = set.status.as_ref().and_then(|status| status.collision_count);
    let history = history(set, &spec.template, &observed.revisions, salt);
    let mut round = Round::new(observed, spec, history);
    round.sort(claimed.pods);
    round.actions = claimed.actions;
    round.actions.append(&mut round.history.actions);
    let why = round.advance();
    round.into_plan(why)
}

/// How a pod is, as far as the order of steps is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ended, to be made anew.
    Ended,
    /// Asked to end.
    Ending,
    /// Not there yet: not running, not ready, or not ready for long enough.
    Waiting,
    Available,
}

pub struct Round<'a> {
    pub observed: &'a Observed,
    pub set: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    pub history: History,
    /// The revision whose pods stay below a partition, and its template.
    pub current: (String, PodTemplateSpec),
    /// One place for each ordinal that is wanted, from the start on.
    pub replicas: Vec<Option<Arc<Pod>>>,
    /// Pods of ordinals that are not wanted, highest first.
    pub condemned: Vec<Arc<Pod>>,
    pub actions: Vec<ApiAction>,
    events: Vec<Note>,
    requeue: Option<Duration>,
}

impl<'a> Round<'a> {
    fn new(observed: &'a Observed, spec: &'a StatefulSetSpec, history: History) -> Self {
        let set = observed.set.as_ref();
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let found = history.owned.iter().find(|one| Some(history::name(one)) == named);
        let current = found.and_then(|one| Some((history::name(one).to_owned(), history::template(one)?)));
        let current = current.unwrap_or_else(|| (history.present.name.clone(), spec.template.clone()));
        Self {
            observed,
            set,
            spec,
            history,
            current,
            replicas: Vec::new(),
            condemned: Vec::new(),
            actions: Vec::new(),
            events: Vec::new(),
            requeue: None,
        }
    }

    fn sort(&mut self, pods: Vec<Arc<Pod>>) {
        let count = usize::try_from(self.spec.replicas.unwrap_or(1)).unwrap_or(0);
        self.replicas = vec![None; count];
        for pod in pods {
            let place = identity::ordinal(self.set, &pod).map(|ordinal| ordinal - identity::start(self.spec));
            let place = place.and_then(|place| usize::try_from(place).ok());
            match place.and_then(|place| self.replicas.get_mut(place)) {
                Some(place) => *place = Some(pod),
                None => self.condemned.push(pod),
            }
        }
        self.condemned.sort_by_key(|pod| std::cmp::Reverse(identity::ordinal(self.set, pod)));
    }

    pub fn ordinal_at(&self, place: usize) -> i32 {
        identity::start(self.spec) + i32::try_from(place).unwrap_or(i32::MAX)
    }

    pub fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    pub fn health(&self, pod: &Pod) -> Health {
        let deleted = pod.metadata.uid.as_ref().is_some_and(|uid| self.observed.recalled.deleted.contains(uid));
        if is_terminating(pod) || deleted {
            return Health::Ending;
        }
        if is_terminal(pod) {
            return Health::Ended;
        }
        let min_ready = Duration::from_secs(u64::try_from(self.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
        let running = phase(pod) == "Running";
        match availability(pod, min_ready, self.observed.now) {
            Ok(()) if running => Health::Available,
            Ok(()) | Err(_) => Health::Waiting,
        }
    }

    /// The first step that is due.
    fn advance(&mut self) -> String {
        if self.set.metadata.deletion_timestamp.is_some() {
            return "being deleted".to_owned();
        }
        if self.history.collided {
            return "the name of the new revision is taken".to_owned();
        }
        let mut done = self.keep_claims();
        done.extend(self.fill());
        if let Some(wait) = self.blocked() {
            done.push(wait);
        } else {
            match self.shrink() {
                Some(step) => done.push(step),
                None => done.extend(update::update(self)),
            }
        }
        if done.is_empty() { "all pods are as they should be".to_owned() } else { done.join(", ") }
    }

    fn keep_claims(&mut self) -> Vec<String> {
        let patches = storage::owned(self.set, self.spec, &self.observed.claims, &self.condemned);
        let done = (!patches.is_empty()).then(|| "claims change owners".to_owned());
        self.actions.extend(patches);
        done.into_iter().collect()
    }

    /// Makes missing pods, and ends those that have ended by themselves.
    fn fill(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for place in 0..self.replicas.len() {
            let ordinal = self.ordinal_at(place);
            let step = match self.replicas[place].clone() {
                None => self.create(ordinal),
                Some(pod) => self.tend(&pod, ordinal),
            };
            done.extend(step);
            let available = self.replicas[place].as_ref().is_some_and(|pod| self.health(pod) == Health::Available);
            if self.is_ordered() && !available {
                break;
            }
        }
        done
    }

    fn create(&mut self, ordinal: i32) -> Option<String> {
        if storage::is_ending(self.set, self.spec, ordinal, &self.observed.claims) {
            return Some(format!("a claim of {ordinal} is ending"));
        }
        let claims = storage::missing(self.set, self.spec, ordinal, &self.observed.claims);
        self.actions.extend(claims);
        let from = if update::is_below_partition(self.spec, ordinal) {
            (&self.current.1, self.current.0.as_str())
        } else {
            (&self.spec.template, self.history.present.name.as_str())
        };
        let pod = new_pod(self.set, self.spec, from, ordinal);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let what = format!("Pod {name}");
        self.actions.push(ApiAction::create(&pod).narrated(creation(self.set, &what)));
        Some(format!("creating {name}"))
    }

    fn tend(&mut self, pod: &Arc<Pod>, ordinal: i32) -> Option<String> {
        match self.health(pod) {
            Health::Ended => {
                let set_key =
                    format!("{}/{}", self.set.metadata.namespace.as_deref().unwrap_or_default(), set_name(self.set));
                let (reason, how) = match phase(pod) {
                    "Failed" => ("RecreatingFailedPod", "failed"),
                    _ => ("RecreatingTerminatedPod", "terminated"),
                };
                let message = format!("StatefulSet {set_key} is recreating {how} Pod {}", name(pod));
                self.events.push(match how {
                    "failed" => Note::warning(self.set, reason, message),
                    _ => Note::normal(self.set, reason, message),
                });
                self.actions.push(deletion(self.set, pod));
                Some(format!("{} has ended", name(pod)))
            }
            Health::Ending => None,
            Health::Waiting | Health::Available => {
                if phase(pod) == "Pending" {
                    let claims = storage::missing(self.set, self.spec, ordinal, &self.observed.claims);
                    self.actions.extend(claims);
                }
                self.actions.extend(identity::repaired(pod, ordinal));
                None
            }
        }
    }

    /// In an ordered set: the first pod that the next step has to wait for.
    fn blocked(&self) -> Option<String> {
        if !self.is_ordered() {
            return None;
        }
        for (place, pod) in self.replicas.iter().enumerate() {
            match pod {
                None => return Some(format!("waiting for {}-{}", set_name(self.set), self.ordinal_at(place))),
                Some(pod) if self.health(pod) != Health::Available => {
                    return Some(format!("waiting for {}", name(pod)));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Deletes pods that are not wanted, from the highest ordinal down.
    fn shrink(&mut self) -> Option<String> {
        let mut deleted = Vec::new();
        let unhealthy = self.condemned.iter().rev().find(|pod| self.health(pod) != Health::Available).cloned();
        for pod in self.condemned.clone() {
            if self.health(&pod) == Health::Ending {
                if self.is_ordered() {
                    return Some(format!("waiting for the end of {}", name(&pod)));
                }
                continue;
            }
            let is_first_unhealthy = unhealthy.as_ref().is_some_and(|first| Arc::ptr_eq(first, &pod));
            if self.is_ordered() && unhealthy.is_some() && self.health(&pod) != Health::Available && !is_first_unhealthy
            {
                return Some(format!("waiting for {}", name(&pod)));
            }
            self.actions.push(deletion(self.set, &pod));
            deleted.push(name(&pod).to_owned());
            if self.is_ordered() {
                break;
            }
        }
        (!deleted.is_empty()).then(|| format!("deleting {}", deleted.join(" ")))
    }

    fn into_plan(mut self, why: String) -> Plan {
        let (status, again) = status::status(&self);
        self.requeue = again;
        let used: BTreeSet<String> = self
            .replicas
            .iter()
            .flatten()
            .chain(&self.condemned)
            .map(|pod| identity::revision(pod).to_owned())
            .chain(status.current_revision.clone())
            .chain(status.update_revision.clone())
            .collect();
        let changed = (self.set.status.as_ref() != Some(&status))
            .then(|| ApiAction::update_status(&StatefulSet { status: Some(status), ..self.set.clone() }));
        let mut actions = Vec::new();
        // Pods first; but a refusal must not keep the status from being written.
        if self.observed.recalled.failure.is_some() {
            actions.extend(changed);
            actions.append(&mut self.actions);
        } else {
            actions.append(&mut self.actions);
            actions.extend(changed);
        }
        actions.extend(self.history.truncated(&used, self.spec.revision_history_limit));
        actions.extend(self.events.into_iter().map(ApiAction::Event));
        Plan { actions, why, requeue_after: self.requeue }
    }
}
