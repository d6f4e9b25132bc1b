//! Resize in place: which cpu and memory the containers of a pod were granted, and how running ones get there. Pure.
//!
//! The specification says what is wanted. What is granted is what the node agreed to last: everything else here sees
//! pods with granted resources in place of wanted ones (`effective`), so that a container that starts again has no
//! more than that. May not know: how a runtime changes limits, nor what other pods have.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::{Amount, together};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerResizePolicy, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::spec::PodView;

/// Why a pod waits for what it wants, as its condition says.
pub const DEFERRED: &str = "Deferred";
pub const INFEASIBLE: &str = "Infeasible";

/// The two resources of a running container that can change.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Resources by container.
pub type Grants = BTreeMap<String, ResourceRequirements>;

/// What a pod asks of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

impl Amounts {
    fn of(resources: Option<&ResourceRequirements>) -> Self {
        let mut amounts = Self::default();
        amounts.set(resources);
        amounts
    }

    /// Replaces what is asked for here.
    fn set(&mut self, resources: Option<&ResourceRequirements>) {
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let read = |name: &str| Quantity::parse(&requests?.get(name)?.0).ok();
        if let Some(cpu) = read("cpu") {
            self.cpu_millis = u64::try_from(cpu.as_millis()).unwrap_or(0);
        }
        if let Some(memory) = read("memory") {
            self.memory_bytes = memory.as_bytes();
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }
}

impl Amount for Amounts {
    fn add(&mut self, more: &Self) {
        *self = self.plus(*more);
    }

    fn raise_to(&mut self, least: &Self) {
        self.cpu_millis = self.cpu_millis.max(least.cpu_millis);
        self.memory_bytes = self.memory_bytes.max(least.memory_bytes);
    }
}

/// How a running container gets other resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Live,
    /// Its `resizePolicy` says so for a resource that changes.
    Restart,
}

/// What the specification says.
pub fn wanted(pod: &Pod) -> Grants {
    let all = PodView::new(pod).containers();
    all.map(|(container, _)| (container.name.clone(), container.resources.clone().unwrap_or_default())).collect()
}

/// What was granted of a pod that the agent sees for the first time: what its status says. Without one the pod is as
/// the scheduler bound it.
pub fn granted(pod: &Pod) -> Grants {
    let mut grants = wanted(pod);
    let Some(status) = &pod.status else { return grants };
    for container in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        let (Some(grant), Some(told)) = (grants.get_mut(&container.name), &container.resources) else { continue };
        let requests = container.allocated_resources.clone().or_else(|| told.requests.clone());
        let told = ResourceRequirements { claims: grant.claims.clone(), limits: told.limits.clone(), requests };
        if !same(grant, &told) {
            *grant = told;
        }
    }
    grants
}

/// What is wanted, if that is something else than what is granted.
pub fn change(pod: &Pod, granted: &Grants) -> Option<Grants> {
    let wanted = wanted(pod);
    let differs = |(name, wanted): (&String, &ResourceRequirements)| {
        granted.get(name).is_some_and(|granted| !same(granted, wanted))
    };
    wanted.iter().any(differs).then_some(wanted)
}

/// The pod with what is granted.
pub fn effective(pod: &Arc<Pod>, granted: &Grants) -> Arc<Pod> {
    if change(pod, granted).is_none() { Arc::clone(pod) } else { Arc::new(with(pod, granted)) }
}

fn with(pod: &Pod, grants: &Grants) -> Pod {
    let mut pod = pod.clone();
    let Some(spec) = &mut pod.spec else { return pod };
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(granted) = grants.get(&container.name) {
            container.resources = Some(granted.clone());
        }
    }
    pod
}

/// What the pod occupies of its node, with these resources: what it says itself, else what its containers come to.
pub fn requested(pod: &Pod, grants: &Grants) -> Amounts {
    let pod = with(pod, grants);
    let pod = PodView::new(&pod);
    let mut total: Amounts =
        together(pod.turns().map(|(turn, container)| (turn, Amounts::of(container.resources.as_ref()))));
    total.set(pod.shared_resources());
    total
}

/// An absent list and an empty one, `1` and `1000m` are the same.
pub fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    list(&a.limits) == list(&b.limits) && list(&a.requests) == list(&b.requests)
}

fn list(amounts: &Option<BTreeMap<String, Written>>) -> BTreeMap<&str, Result<i64, &str>> {
    let milli = |written: &'_ Written| Quantity::parse(&written.0).map(|quantity| quantity.as_millis());
    let all = amounts.iter().flatten();
    all.map(|(name, written)| (name.as_str(), milli(written).map_err(|_| written.0.as_str()))).collect()
}

/// By the container's policy for each resource that changes. What it has is not known after some restarts of the
/// agent: telling the runtime again changes nothing.
pub fn way(container: &Container, has: Option<&ResourceRequirements>, granted: &ResourceRequirements) -> Way {
    let Some(has) = has else { return Way::Live };
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    let of = |name: &str| policies.iter().find(|policy: &&ContainerResizePolicy| policy.resource_name == name);
    let restarts = |name: &&str| of(name).is_some_and(|policy| policy.restart_policy == "RestartContainer");
    let changes = |name: &&str| {
        list(&has.limits).get(*name) != list(&granted.limits).get(*name)
            || list(&has.requests).get(*name) != list(&granted.requests).get(*name)
    };
    if RESIZABLE.iter().any(|name| restarts(name) && changes(name)) { Way::Restart } else { Way::Live }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: &Value, status: &Value) -> Arc<Pod> {
        let spec = json!({"containers": [{"name": "c", "image": "i", "resources": resources}]});
        let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
            "restartCount": 0, "resources": status, "allocatedResources": status["requests"]}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap())
    }

    #[test]
    fn what_was_granted_stays_until_the_node_agrees() {
        let before = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}});
        let after = json!({"limits": {"cpu": "2"}, "requests": {"cpu": "600m"}});
        let same_pod = pod(&before, &json!({"limits": {"cpu": "1000m"}, "requests": {"cpu": "0.5"}}));
        assert_eq!(change(&same_pod, &granted(&same_pod)), None);
        assert!(Arc::ptr_eq(&effective(&same_pod, &granted(&same_pod)), &same_pod));
        let resized = pod(&after, &before);
        let grants = granted(&resized);
        assert_eq!(change(&resized, &grants), Some(wanted(&resized)));
        let seen = effective(&resized, &grants);
        assert_eq!(serde_json::to_value(&seen.spec.as_ref().unwrap().containers[0].resources).unwrap(), before);
        assert_eq!(requested(&resized, &grants).cpu_millis, 500);
        assert_eq!(requested(&resized, &wanted(&resized)).cpu_millis, 600);
    }

    #[test]
    fn a_pod_occupies_what_runs_or_its_largest_step_before() {
        let of = |name: &str, cpu: &str, policy: &str| {
            let mut container = json!({"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}});
            if !policy.is_empty() {
                container["restartPolicy"] = json!(policy);
            }
            container
        };
        let check = |init: &[Value], main: &[Value], expect: u64| {
            let pod = json!({"metadata": {"name": "p"}, "spec": {"initContainers": init, "containers": main}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(requested(&pod, &wanted(&pod)).cpu_millis, expect, "{init:?} {main:?}");
        };
        check(&[], &[of("a", "1", ""), of("b", "200m", "")], 1200);
        check(&[of("i", "2", "")], &[of("a", "1", "")], 2000);
        check(&[of("s", "500m", "Always"), of("i", "1", "")], &[of("a", "800m", "")], 1500);
        let whole = json!({"metadata": {"name": "p"}, "spec": {"resources": {"requests": {"cpu": "3"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "9"}}}]}});
        let whole: Pod = serde_json::from_value(whole).unwrap();
        assert_eq!(requested(&whole, &wanted(&whole)), Amounts { cpu_millis: 3000, memory_bytes: 9 });
    }

    #[test]
    fn policies_say_which_changes_restart() {
        let container: Container = serde_json::from_value(json!({"name": "c", "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": "RestartContainer"}]}))
        .unwrap();
        let resources =
            |value: Value| -> ResourceRequirements { serde_json::from_value(json!({"limits": value})).unwrap() };
        let has = resources(json!({"cpu": "1", "memory": "1Gi"}));
        let check = |now: Value, expect: Way| {
            assert_eq!(way(&container, Some(&has), &resources(now.clone())), expect, "{now}");
        };
        check(json!({"cpu": "2", "memory": "1024Mi"}), Way::Live);
        check(json!({"cpu": "1", "memory": "2Gi"}), Way::Restart);
        assert_eq!(way(&container, None, &has), Way::Live);
    }
}
