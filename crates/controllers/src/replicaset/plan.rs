//! How many pods are missing or too many, which go first, which to adopt or release, and the status to report.
//!
//! Pure. Follows the behaviour of Kubernetes' ReplicaSet controller: counts active pods only, deletes the pods that
//! matter least first, and never acts on pods it does not control.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod as WholePod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::pod::Pod;
use reconcile::{ApiAction, Narration, Plan};
use serde_json::json;

use crate::conditions::{self, Condition};
use crate::pods::{
    availability, controller_of, controller_reference, is_active, is_controlled_by, is_ready, phase, ready_since,
    restarts, selecting,
};

/// Pods created or deleted by one plan; the next plan goes on.
pub const BURST_MAX: usize = 500;
/// Annotation of a pod: lower goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The last attempt's failure, for the condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

pub struct Observed {
    pub replica_set: Arc<ReplicaSet>,
    /// Pods of the namespace which it controls or selects.
    pub pods: Vec<Arc<Pod>>,
    /// Uids of pods already deleted, whose end the cache may not show yet.
    pub deleted: HashSet<String>,
    pub failure: Option<Failure>,
    pub now: Timestamp,
}

#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let replica_set = observed.replica_set.as_ref();
    let Some(spec) = &replica_set.spec else { return Plan::nothing("no spec") };
    let mut claimed = claim(observed, spec);
    let mut actions = std::mem::take(&mut claimed.actions);
    let desired = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let have = claimed.active.len();
    let deleting = replica_set.metadata.deletion_timestamp.is_some();
    let scaling = if deleting { Vec::new() } else { scale(observed, spec, &claimed.active, desired) };
    let why = why(deleting, desired, have, scaling.len());
    if observed.failure.is_none() {
        claimed.without(&scaling);
    }
    let (status, requeue_after) = status(observed, spec, &claimed);
    let status = (Some(&status) != replica_set.status.as_ref()).then(|| {
        let changed = ReplicaSet { status: Some(status), ..replica_set.clone() };
        ApiAction::update_status(&changed)
    });
    // Pods first, they are what users wait for; but a failing create must not keep its own condition from being told.
    if observed.failure.is_some() {
        actions.extend(status);
        actions.extend(scaling);
    } else {
        actions.extend(scaling);
        actions.extend(status);
    }
    Plan { actions, why, requeue_after }
}

fn why(deleting: bool, desired: usize, have: usize, acting: usize) -> String {
    match have.cmp(&desired) {
        _ if deleting => "being deleted".to_owned(),
        Ordering::Less => format!("{have} of {desired} pods, creating {acting}"),
        Ordering::Greater => format!("{have} of {desired} pods, deleting {acting}"),
        Ordering::Equal => format!("{have} of {desired} pods"),
    }
}

/// The pods that are its own.
#[derive(Default)]
struct Claimed {
    active: Vec<Arc<Pod>>,
    /// Adoptions and releases.
    actions: Vec<ApiAction>,
}

impl Claimed {
    /// Takes out the pods which `actions` delete: the status is written after them, and a Deployment that relied on
    /// the availability of pods already sent away would go below its minimum.
    fn without(&mut self, actions: &[ApiAction]) {
        let deleted: HashSet<&str> = actions.iter().filter_map(deleted_uid).collect();
        self.active.retain(|pod| pod.metadata.uid.as_deref().is_none_or(|uid| !deleted.contains(uid)));
    }
}

fn deleted_uid(action: &ApiAction) -> Option<&str> {
    match action {
        ApiAction::Delete { uid, .. } => uid.as_deref(),
        ApiAction::Create { .. }
        | ApiAction::Patch { .. }
        | ApiAction::DeleteCollection { .. }
        | ApiAction::UpdateStatus { .. }
        | ApiAction::Event(_) => None,
    }
}

fn claim(observed: &Observed, spec: &ReplicaSetSpec) -> Claimed {
    let selects = selecting(&spec.selector);
    let uid = observed.replica_set.metadata.uid.as_deref().unwrap_or_default();
    let deleting = observed.replica_set.metadata.deletion_timestamp.is_some();
    let mut claimed = Claimed::default();
    for pod in &observed.pods {
        let ours = is_controlled_by(&pod.metadata, uid);
        let gone = pod.metadata.uid.as_ref().is_some_and(|uid| observed.deleted.contains(uid));
        match (ours, selects(&pod.metadata)) {
            (true, false) => {
                if !deleting && is_active(pod) {
                    claimed.actions.push(release(pod, uid));
                }
            }
            (true, true) if !gone && is_active(pod) => claimed.active.push(Arc::clone(pod)),
            (true, true) => {}
            (false, true) => {
                if !deleting && !gone && is_active(pod) && controller_of(&pod.metadata).is_none() {
                    claimed.actions.push(adopt(&observed.replica_set, pod));
                    claimed.active.push(Arc::clone(pod));
                }
            }
            (false, false) => {}
        }
    }
    claimed
}

/// Becomes the controller of `pod`; the uid makes sure it is still the same pod.
fn adopt(replica_set: &ReplicaSet, pod: &Pod) -> ApiAction {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.push(controller_reference(replica_set));
    ApiAction::merge_patch(
        pod,
        json!({ "metadata": {
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "ownerReferences": owners,
    } }),
    )
}

fn release(pod: &Pod, uid: &str) -> ApiAction {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| owner.uid != uid);
    ApiAction::merge_patch(
        pod,
        json!({ "metadata": {
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "ownerReferences": owners,
    } }),
    )
}

fn scale(observed: &Observed, spec: &ReplicaSetSpec, pods: &[Arc<Pod>], desired: usize) -> Vec<ApiAction> {
    let replica_set = &observed.replica_set;
    if pods.len() < desired {
        let Some(pod) = new_pod(replica_set, spec) else { return Vec::new() };
        let create = ApiAction::create(&pod).narrated(narration(replica_set, "Create", "Created"));
        return vec![create; (desired - pods.len()).min(BURST_MAX)];
    }
    let surplus = pods.len() - desired;
    if surplus == 0 {
        return Vec::new();
    }
    let delete = |pod: &Arc<Pod>| {
        let mut story = narration(replica_set, "Delete", "Deleted");
        story.done_message = format!("Deleted pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
        ApiAction::delete(pod.as_ref()).narrated(story)
    };
    ranked(pods, observed.now).into_iter().take(surplus.min(BURST_MAX)).map(delete).collect()
}

fn narration(replica_set: &ReplicaSet, verb: &'static str, done: &str) -> Narration {
    let (done_reason, failed_reason, doing) = match verb {
        "Create" => ("SuccessfulCreate", "FailedCreate", "creating"),
        _ => ("SuccessfulDelete", "FailedDelete", "deleting"),
    };
    Narration {
        regarding: reconcile::events::reference(replica_set),
        done_reason,
        done_message: format!("{done} pod: {{name}}"),
        failed_reason,
        failed_message: format!("Error {doing}: {{error}}"),
    }
}

fn new_pod(replica_set: &ReplicaSet, spec: &ReplicaSetSpec) -> Option<WholePod> {
    let template = spec.template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    Some(WholePod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", replica_set.metadata.name.as_deref().unwrap_or_default())),
            namespace: replica_set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(replica_set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    })
}

/// The pods in the order in which they may go: unassigned, pending, not ready, cheap, crowded, freshly ready, often
/// restarted, young.
pub fn ranked(pods: &[Arc<Pod>], now: Timestamp) -> Vec<&Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in pods {
        *on_node.entry(node_of(pod)).or_insert(0) += 1;
    }
    let rank = |pod: &Pod| {
        let running = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST)?.parse::<i32>().ok());
        let crowd = on_node.get(node_of(pod)).copied().unwrap_or(0);
        (!node_of(pod).is_empty(), running, is_ready(pod), cost.unwrap_or(0), std::cmp::Reverse(crowd))
    };
    let newest_first = |a: Option<Timestamp>, b: Option<Timestamp>| b.unwrap_or(now).cmp(&a.unwrap_or(now));
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut ranked: Vec<_> = pods.iter().collect();
    ranked.sort_by(|a, b| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| newest_first(ready_since(a), ready_since(b)))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| newest_first(created(a), created(b)))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    ranked
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn status(observed: &Observed, spec: &ReplicaSetSpec, claimed: &Claimed) -> (ReplicaSetStatus, Option<Duration>) {
    let template_labels = spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let min_ready = Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let (mut labeled, mut ready, mut available, mut again) = (0, 0, 0, None::<Duration>);
    for pod in &claimed.active {
        labeled += i32::from(has_labels(pod, template_labels));
        ready += i32::from(is_ready(pod));
        match availability(pod, min_ready, observed.now) {
            Ok(()) => available += 1,
            Err(Some(rest)) => again = Some(again.map_or(rest, |sooner| sooner.min(rest))),
            Err(None) => {}
        }
    }
    let count = |number: i32| (number > 0).then_some(number);
    let before = observed.replica_set.status.as_ref();
    let mut conditions = before.and_then(|status| status.conditions.clone());
    match &observed.failure {
        Some(Failure { reason, message }) => {
            let failure = ReplicaSetCondition::new("ReplicaFailure", "True", reason, message, observed.now);
            conditions::set(&mut conditions, failure);
        }
        None => conditions::remove(&mut conditions, "ReplicaFailure"),
    }
    let status = ReplicaSetStatus {
        replicas: clamped(claimed.active.len()),
        fully_labeled_replicas: count(labeled),
        ready_replicas: count(ready),
        available_replicas: count(available),
        // Would cost a write for each pod that ends, and nobody waits for it.
        terminating_replicas: None,
        observed_generation: observed.replica_set.metadata.generation,
        conditions,
    };
    (status, again)
}

fn clamped(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn has_labels(pod: &Pod, wanted: Option<&BTreeMap<String, String>>) -> bool {
    let labels = pod.metadata.labels.as_ref();
    wanted.into_iter().flatten().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
