//! How many pods a Job needs now, which are too many, and which wait for their back-off. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use reconcile::ApiAction;
use reconcile::clock::elapsed;
use reconcile::pod::Pod;

use super::outcome::is_suspended;
use super::pod::untrack;
use super::pod::{attempts_before, backoff, finished_at, index, is_failed, is_tracked, new_pod, replaces_failed_only};
use super::tally::{Indexed, Tally};
use crate::claim::{creation, deletion};
use crate::pods::phase;
use crate::replicaset::ranked;

/// Pods created or deleted by one plan; the next plan goes on.
const BURST_MAX: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, Default)]
pub struct Scaling {
    pub actions: Vec<ApiAction>,
    pub created: usize,
    pub deleted: Vec<Arc<Pod>>,
    /// Pods are due after this time.
    pub after: Option<Duration>,
}

pub fn scale(job: &Job, spec: &JobSpec, tally: &Tally, now: Timestamp) -> Scaling {
    let active = tally.active.len();
    let wanted = if is_suspended(spec) { 0 } else { wanted(spec, tally) };
    let surplus = surplus(tally, active.saturating_sub(wanted), now);
    if !surplus.is_empty() {
        return remove(job, surplus);
    }
    let ending = if replaces_failed_only(spec) { tally.terminating } else { 0 };
    let missing = wanted.saturating_sub(ending + active).min(BURST_MAX);
    if missing == 0 {
        return Scaling::default();
    }
    match &tally.indexed {
        None => match rest_of_backoff(spec, tally, now) {
            Duration::ZERO => {
                let action = ApiAction::create(&new_pod(job, spec, None, None)).narrated(creation(job));
                Scaling { actions: vec![action; missing], created: missing, ..Scaling::default() }
            }
            rest => Scaling { after: Some(rest), ..Scaling::default() },
        },
        Some(indexed) => add_indexes(job, spec, (tally, indexed), missing, now),
    }
}

fn wanted(spec: &JobSpec, tally: &Tally) -> usize {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let Some(completions) = spec.completions.and_then(|number| usize::try_from(number).ok()) else {
        // Any success is enough: who runs goes on, nobody new begins.
        return if tally.succeeded > 0 { tally.active.len() } else { parallelism };
    };
    let failed = tally.indexed.as_ref().map_or(0, |indexed| indexed.failed.len());
    completions.saturating_sub(tally.succeeded + failed).min(parallelism)
}

/// At least `count` pods that should go: first those of no, or of a doubled, index.
fn surplus(tally: &Tally, count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let ranked: Vec<&Arc<Pod>> = ranked(&tally.active, now);
    let Some(indexed) = &tally.indexed else { return ranked.into_iter().take(count.min(BURST_MAX)).cloned().collect() };
    let mut seen = BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    // The most valuable of each index stays.
    for pod in ranked.into_iter().rev() {
        let valid = index(pod).is_some_and(|index| index < indexed.completions && !indexed.succeeded.contains(&index));
        if valid && index(pod).is_some_and(|index| seen.insert(index)) {
            rest.push(Arc::clone(pod));
        } else {
            first.push(Arc::clone(pod));
        }
    }
    rest.sort_by_key(|pod| std::cmp::Reverse(index(pod)));
    let more = count.saturating_sub(first.len());
    first.extend(rest.into_iter().take(more));
    first.truncate(BURST_MAX);
    first
}

/// Deletes pods without counting them as failed: their finalizer goes first.
fn remove(job: &Job, pods: Vec<Arc<Pod>>) -> Scaling {
    let mut actions: Vec<ApiAction> = pods.iter().filter(|pod| is_tracked(pod)).map(|pod| untrack(pod)).collect();
    actions.extend(pods.iter().map(|pod| deletion(job, pod)));
    Scaling { actions, deleted: pods, ..Scaling::default() }
}

/// What is left of the wait that the failures since the last success ask for.
fn rest_of_backoff(spec: &JobSpec, tally: &Tally, now: Timestamp) -> Duration {
    let ended = |succeeded: bool| {
        let is = move |pod: &&Arc<Pod>| if succeeded { phase(pod) == "Succeeded" } else { is_failed(spec, pod) };
        tally.pods.iter().filter(is).filter_map(|pod| finished_at(pod))
    };
    let last_success = ended(true).max();
    let failures: Vec<Timestamp> =
        ended(false).filter(|failed| last_success.is_none_or(|success| *failed > success)).collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    backoff(failures.len()).saturating_sub(elapsed(*last, now))
}

fn add_indexes(
    job: &Job,
    spec: &JobSpec,
    (tally, indexed): (&Tally, &Indexed),
    missing: usize,
    now: Timestamp,
) -> Scaling {
    let per_index = spec.backoff_limit_per_index.is_some();
    if !per_index {
        let rest = rest_of_backoff(spec, tally, now);
        if !rest.is_zero() {
            return Scaling { after: Some(rest), ..Scaling::default() };
        }
    }
    let mut taken: BTreeSet<i32> = tally.active.iter().filter_map(|pod| index(pod)).collect();
    if replaces_failed_only(spec) {
        let ending = tally.pods.iter().filter(|pod| !matches!(phase(pod), "Succeeded" | "Failed"));
        taken.extend(ending.filter_map(|pod| index(pod)));
    }
    let open =
        |index: &i32| !taken.contains(index) && !indexed.succeeded.contains(index) && !indexed.failed.contains(index);
    let mut scaling = Scaling::default();
    for index in (0..indexed.completions).filter(open).take(missing) {
        let before = indexed.predecessors.iter().find(|(of, _)| *of == index).map(|(_, pod)| pod.as_ref());
        let rest = before.filter(|_| per_index).map_or(Duration::ZERO, |before| rest_of_index(before, now));
        if rest.is_zero() {
            let pod = new_pod(job, spec, Some(index), before);
            scaling.actions.push(ApiAction::create(&pod).narrated(creation(job)));
            scaling.created += 1;
        } else {
            scaling.after = Some(scaling.after.map_or(rest, |sooner| sooner.min(rest)));
        }
    }
    scaling
}

fn rest_of_index(before: &Pod, now: Timestamp) -> Duration {
    let failures = usize::try_from(attempts_before(before)).unwrap_or(0) + 1;
    finished_at(before).map_or(Duration::ZERO, |at| backoff(failures).saturating_sub(elapsed(at, now)))
}
