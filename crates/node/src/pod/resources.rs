//! What runtimes are told of CPU and memory: for a container, and for the pod around it. Pure.
//!
//! Owns: what holds where a container says nothing. Follows KEP-2837 and the kubelet's `ResourceConfigForPod`. May not
//! know: cgroups and hosts, nor what a resize changes.

use std::collections::BTreeMap;

use api::pod::{Amount, together};
use api::quantity::Quantity;
use cri::Resources;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::spec::PodView;

/// Limits and requests of one container. Where it has no limit, that of the pod as a whole holds: a program that asks its
/// cgroup how much there is has to hear of it.
pub fn of_container(pod: PodView<'_>, container: &Container) -> Resources {
    let own = read(container.resources.as_ref());
    let Some(shared) = pod.shared_resources() else { return own };
    let shared = read(Some(shared));
    Resources {
        memory_limit_bytes: own.memory_limit_bytes.or(shared.memory_limit_bytes),
        cpu_limit_millis: own.cpu_limit_millis.or(shared.cpu_limit_millis),
        // Of what the pod asks for nothing was meant for this container in particular: those who ask come first.
        cpu_request_millis: own.cpu_request_millis.or(Some(0)),
        pids_limit: None,
    }
}

/// The whole pod: what it says itself; else a limit only where every container has one.
pub fn of_pod(pod: PodView<'_>) -> Resources {
    let shared = read(pod.shared_resources());
    let sum: Sum = together(pod.turns().map(|(turn, container)| (turn, Sum::of(&read(container.resources.as_ref())))));
    Resources {
        memory_limit_bytes: shared.memory_limit_bytes.or(sum.memory_limit_bytes),
        cpu_limit_millis: shared.cpu_limit_millis.or(sum.cpu_limit_millis),
        cpu_request_millis: shared.cpu_request_millis.or(Some(sum.cpu_request_millis)),
        pids_limit: None,
    }
}

/// A limit of nothing is no limit; a limit without a request is a request as well.
fn read(resources: Option<&ResourceRequirements>) -> Resources {
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let bytes = |quantity: Quantity| Some(quantity.as_bytes());
    let millis = |quantity: Quantity| u64::try_from(quantity.as_millis()).ok();
    let cpu_limit = amount(limits, "cpu").and_then(millis).filter(|limit| *limit > 0);
    Resources {
        memory_limit_bytes: amount(limits, "memory").and_then(bytes).filter(|limit| *limit > 0),
        cpu_limit_millis: cpu_limit,
        cpu_request_millis: amount(requests, "cpu").and_then(millis).or(cpu_limit),
        pids_limit: None,
    }
}

fn amount(map: Option<&BTreeMap<String, Written>>, name: &str) -> Option<Quantity> {
    Quantity::parse(&map?.get(name)?.0).ok()
}

/// Of several containers. Together they have no limit when one has none.
struct Sum {
    memory_limit_bytes: Option<u64>,
    cpu_limit_millis: Option<u64>,
    cpu_request_millis: u64,
}

impl Sum {
    fn of(container: &Resources) -> Self {
        Self {
            memory_limit_bytes: container.memory_limit_bytes,
            cpu_limit_millis: container.cpu_limit_millis,
            cpu_request_millis: container.cpu_request_millis.unwrap_or(0),
        }
    }

    fn merge(&mut self, other: &Self, merge: fn(u64, u64) -> u64) {
        let limits = |a: Option<u64>, b: Option<u64>| Some(merge(a?, b?));
        self.memory_limit_bytes = limits(self.memory_limit_bytes, other.memory_limit_bytes);
        self.cpu_limit_millis = limits(self.cpu_limit_millis, other.cpu_limit_millis);
        self.cpu_request_millis = merge(self.cpu_request_millis, other.cpu_request_millis);
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self { memory_limit_bytes: Some(0), cpu_limit_millis: Some(0), cpu_request_millis: 0 }
    }
}

impl Amount for Sum {
    fn add(&mut self, more: &Self) {
        self.merge(more, u64::saturating_add);
    }

    fn raise_to(&mut self, least: &Self) {
        self.merge(least, u64::max);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn resources(memory_limit: Option<u64>, cpu_limit: Option<u64>, cpu_request: Option<u64>) -> Resources {
        Resources {
            memory_limit_bytes: memory_limit,
            cpu_limit_millis: cpu_limit,
            cpu_request_millis: cpu_request,
            pids_limit: None,
        }
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_container_has_the_limits_of_its_pod_where_it_has_none() {
        let check = |of_pod: Value, of_container: Value, expect: Resources| {
            let pod = pod(json!({"resources": of_pod, "containers": [{"name": "c", "resources": of_container}]}));
            let view = PodView::new(&pod);
            assert_eq!(super::of_container(view, &view.main_containers()[0]), expect, "{of_pod} {of_container}");
        };
        let (none, limits) = (|| json!({}), |amounts: Value| json!({"limits": amounts}));
        check(none(), none(), resources(None, None, None));
        check(none(), limits(json!({"cpu": "1", "memory": "0"})), resources(None, Some(1000), Some(1000)));
        check(limits(json!({"cpu": "2", "memory": "64"})), none(), resources(Some(64), Some(2000), Some(0)));
        check(limits(json!({"cpu": "2"})), limits(json!({"memory": "32"})), resources(Some(32), Some(2000), Some(0)));
        check(
            limits(json!({"cpu": "2", "memory": "64"})),
            json!({"limits": {"cpu": "1", "memory": "32"}, "requests": {"cpu": "500m"}}),
            resources(Some(32), Some(1000), Some(500)),
        );
        check(json!({"requests": {"memory": "64"}}), none(), resources(None, None, Some(0)));
    }

    #[test]
    fn a_pod_has_what_it_says_or_what_its_containers_come_to() {
        let check = |of_pod: Value, init: &[Value], main: &[Value], expect: Resources| {
            let pod = pod(json!({"resources": of_pod, "initContainers": init, "containers": main}));
            assert_eq!(super::of_pod(PodView::new(&pod)), expect, "{of_pod} {init:?} {main:?}");
        };
        let container =
            |memory: &str, cpu: &str| json!({"name": "c", "resources": {"limits": {"memory": memory, "cpu": cpu}}});
        let sidecar = |memory: &str, cpu: &str| {
            let mut container = container(memory, cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        let unlimited = || json!({"name": "c"});
        let (a, b) = (container("10", "1"), container("20", "2"));
        check(json!({}), &[], &[a.clone(), b.clone()], resources(Some(30), Some(3000), Some(3000)));
        check(json!({}), &[], &[a.clone(), unlimited()], resources(None, None, Some(1000)));
        check(json!({}), &[unlimited()], std::slice::from_ref(&a), resources(None, None, Some(1000)));
        check(json!({}), &[container("50", "1")], &[a.clone(), b.clone()], resources(Some(50), Some(3000), Some(3000)));
        let two = [sidecar("10", "1"), sidecar("10", "1"), container("25", "1")];
        check(json!({}), &two, std::slice::from_ref(&a), resources(Some(45), Some(3000), Some(3000)));
        let shared = json!({"limits": {"memory": "100", "cpu": "4"}, "requests": {"cpu": "500m"}});
        check(shared.clone(), &[], &[a.clone(), unlimited()], resources(Some(100), Some(4000), Some(500)));
        check(shared, &[], &[unlimited()], resources(Some(100), Some(4000), Some(500)));
        let memory = json!({"limits": {"memory": "100"}, "requests": {"memory": "50"}});
        check(memory, &[], &[a, unlimited()], resources(Some(100), None, Some(1000)));
    }
}
