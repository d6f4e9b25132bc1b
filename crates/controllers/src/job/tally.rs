//! The books of a Job: which ends of pods are counted, which are on their way to being counted, which are new. Pure.
//!
//! A finished pod goes through three steps, each of which survives a crash: its uid is written into
//! `uncountedTerminatedPods` (or its index into `completedIndexes`); its finalizer is removed; its uid is replaced by
//! one more in the count. A pod without the finalizer is never looked at again, so nothing is counted twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods};
use reconcile::ApiAction;
use reconcile::pod::Pod;

use super::indexes::{self, Indexes};
use super::pod::{attempts_before, ends_its_index, finished_at, index, is_failed, is_tracked, untrack};
use super::policy::{Verdict, verdict};
use crate::pods::{is_active, phase};

/// Uids in the books at a time; the rest waits for the next round.
const UNCOUNTED_MAX: usize = 500;

/// The pods of the Job as its books see them.
pub struct Tally {
    /// All that are the Job's.
    pub pods: Vec<Arc<Pod>>,
    /// Neither ended nor ending.
    pub active: Vec<Arc<Pod>>,
    /// Asked to end, and not ended.
    pub terminating: usize,
    /// In the books or about to be.
    pub succeeded: usize,
    pub failed: usize,
    pub indexed: Option<Indexed>,
    counted: (usize, usize),
    uncounted: (BTreeSet<String>, BTreeSet<String>),
    /// Uids of pods whose finalizer is there, as far as is known.
    tracked: HashSet<String>,
}

/// What an Indexed Job has of its indexes.
pub struct Indexed {
    pub completions: i32,
    pub succeeded: Indexes,
    pub failed: Indexes,
    recorded: Indexes,
    /// The last failed pod of each index that is to be tried again: kept until its successor is there, because it
    /// carries the number of failures.
    pub predecessors: Vec<(i32, Arc<Pod>)>,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn number(count: Option<i32>) -> usize {
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

impl Tally {
    /// `deleted` were asked to end already, `patched` have lost their finalizer already, whatever `pods` show.
    pub fn new(
        spec: &JobSpec,
        status: &JobStatus,
        pods: Vec<Arc<Pod>>,
        deleted: &HashSet<String>,
        patched: &HashSet<String>,
    ) -> Self {
        let runs = |pod: &&Arc<Pod>| is_active(pod) && !deleted.contains(uid(pod));
        let active: Vec<_> = pods.iter().filter(runs).cloned().collect();
        let terminating = pods.iter().filter(|pod| !matches!(phase(pod), "Succeeded" | "Failed")).count();
        let tracked = pods.iter().filter(|pod| is_tracked(pod) && !patched.contains(uid(pod)));
        let tracked = tracked.map(|pod| uid(pod).to_owned()).collect();
        let mut tally = Self {
            terminating: terminating - active.len(),
            active,
            succeeded: 0,
            failed: 0,
            indexed: None,
            counted: (number(status.succeeded), number(status.failed)),
            uncounted: Default::default(),
            tracked,
            pods,
        };
        tally.settle(status.uncounted_terminated_pods.as_ref());
        tally.look_at_indexes(spec, status);
        tally.estimate(spec);
        tally
    }

    /// Uids whose pod has lost its finalizer become numbers.
    fn settle(&mut self, uncounted: Option<&UncountedTerminatedPods>) {
        let Some(uncounted) = uncounted else { return };
        for uid in uncounted.succeeded.iter().flatten() {
            if self.tracked.contains(uid) {
                self.uncounted.0.insert(uid.clone());
            } else {
                self.counted.0 += 1;
            }
        }
        for uid in uncounted.failed.iter().flatten() {
            if self.tracked.contains(uid) {
                self.uncounted.1.insert(uid.clone());
            } else {
                self.counted.1 += 1;
            }
        }
    }

    fn look_at_indexes(&mut self, spec: &JobSpec, status: &JobStatus) {
        if spec.completion_mode.as_deref() != Some("Indexed") {
            return;
        }
        let completions = spec.completions.unwrap_or(0);
        let recorded = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let mut succeeded = recorded.clone();
        let mut failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
        for pod in self.pods.iter().filter(|pod| self.tracked.contains(uid(pod))) {
            let Some(index) = index(pod).filter(|index| *index < completions) else { continue };
            if phase(pod) == "Succeeded" {
                succeeded.insert(index);
            } else if is_failed(spec, pod) && ends_its_index(spec, pod) {
                failed.insert(index);
            }
        }
        let mut indexed = Indexed { completions, succeeded, failed, recorded, predecessors: Vec::new() };
        if spec.backoff_limit_per_index.is_some() {
            indexed.predecessors = self.predecessors(spec, &indexed);
        }
        self.indexed = Some(indexed);
    }

    fn predecessors(&self, spec: &JobSpec, indexed: &Indexed) -> Vec<(i32, Arc<Pod>)> {
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| index(pod)).collect();
        let mut last: std::collections::BTreeMap<i32, &Arc<Pod>> = std::collections::BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| self.tracked.contains(uid(pod)) && is_failed(spec, pod)) {
            let Some(index) = index(pod).filter(|index| *index < indexed.completions) else { continue };
            if active.contains(&index) || indexed.succeeded.contains(&index) || indexed.failed.contains(&index) {
                continue;
            }
            let order = |pod: &Pod| (attempts_before(pod), finished_at(pod));
            let seen = last.entry(index).or_insert(pod);
            if order(pod) > order(seen) {
                *seen = pod;
            }
        }
        last.into_iter().map(|(index, pod)| (index, Arc::clone(pod))).collect()
    }

    /// Ends nobody has written down.
    fn fresh(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| {
            let uid = uid(pod);
            self.tracked.contains(uid) && !self.uncounted.0.contains(uid) && !self.uncounted.1.contains(uid)
        })
    }

    fn estimate(&mut self, spec: &JobSpec) {
        let succeeded = self.fresh().filter(|pod| phase(pod) == "Succeeded").count();
        let failed = self.fresh().filter(|pod| is_failed(spec, pod) && verdict(spec, pod) != Verdict::Ignore).count();
        self.succeeded = match &self.indexed {
            Some(indexed) => indexed.succeeded.len(),
            None => self.counted.0 + self.uncounted.0.len() + succeeded,
        };
        self.failed = self.counted.1 + self.uncounted.1.len() + failed;
    }

    /// The sentence of the first failed pod that fails the whole Job.
    pub fn fatal(&self, spec: &JobSpec) -> Option<String> {
        spec.pod_failure_policy.as_ref()?;
        let failed = self.pods.iter().filter(|pod| is_failed(spec, pod));
        failed.map(|pod| verdict(spec, pod)).find_map(|verdict| match verdict {
            Verdict::FailJob(reason) => Some(reason),
            Verdict::Count | Verdict::Ignore | Verdict::FailIndex => None,
        })
    }

    /// Whether all that ended is a number.
    pub fn is_settled(&self) -> bool {
        self.uncounted.0.is_empty() && self.uncounted.1.is_empty()
    }

    /// Writes new ends into the books, and says which pods may lose their finalizer once the books are kept.
    pub fn enter(&mut self, spec: &JobSpec, ending: Ending) -> Vec<ApiAction> {
        let mut untracked = Vec::new();
        let pods: Vec<Arc<Pod>> = self.pods.iter().filter(|pod| self.tracked.contains(uid(pod))).cloned().collect();
        let mut room = UNCOUNTED_MAX.saturating_sub(self.uncounted.0.len() + self.uncounted.1.len());
        for pod in pods {
            let known = self.uncounted.0.contains(uid(&pod)) || self.uncounted.1.contains(uid(&pod));
            if !known && (room == 0 || !self.may_go(spec, &pod, ending)) {
                continue;
            }
            if !known && self.enter_one(spec, &pod, ending) {
                room -= 1;
            }
            untracked.push(untrack(&pod));
        }
        untracked
    }

    fn may_go(&self, spec: &JobSpec, pod: &Pod, ending: Ending) -> bool {
        if ending != Ending::No || phase(pod) == "Succeeded" {
            return true;
        }
        let kept = self.indexed.iter().flat_map(|indexed| &indexed.predecessors).any(|(_, last)| uid(last) == uid(pod));
        is_failed(spec, pod) && !kept
    }

    /// Says whether the books grew.
    fn enter_one(&mut self, spec: &JobSpec, pod: &Pod, ending: Ending) -> bool {
        let index = index(pod);
        if let Some(indexed) = &mut self.indexed {
            let Some(index) = index.filter(|index| *index < indexed.completions) else { return false };
            if phase(pod) == "Succeeded" {
                return indexed.recorded.insert(index);
            }
        }
        if phase(pod) == "Succeeded" {
            return self.uncounted.0.insert(uid(pod).to_owned());
        }
        // Of a Job that failed, or goes, what still runs counts as failed.
        let counts = is_failed(spec, pod) || ending == Ending::Failed;
        counts && verdict(spec, pod) != Verdict::Ignore && self.uncounted.1.insert(uid(pod).to_owned())
    }

    /// Puts the books into the status.
    pub fn write(&self, spec: &JobSpec, status: &mut JobStatus) {
        let count = |number: usize| (number > 0).then(|| i32::try_from(number).unwrap_or(i32::MAX));
        let list = |uids: &BTreeSet<String>| (!uids.is_empty()).then(|| uids.iter().cloned().collect());
        status.succeeded = count(self.counted.0);
        status.failed = count(self.counted.1);
        status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: list(&self.uncounted.0), failed: list(&self.uncounted.1) });
        if let Some(indexed) = &self.indexed {
            status.succeeded = count(indexed.recorded.len());
            status.completed_indexes = Some(indexes::render(&indexed.recorded)).filter(|text| !text.is_empty());
            status.failed_indexes = spec.backoff_limit_per_index.map(|_| indexes::render(&indexed.failed));
        }
    }
}

/// Whether the Job is about to end, and so its running pods with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    No,
    Succeeded,
    Failed,
    /// The Job is being deleted.
    Deleted,
}
