//! Amounts of what nodes have and pods ask for, as whole numbers. Pure.

use std::collections::BTreeMap;

use api::pod::{Amount, Turn, together};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, PodCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use reconcile::pod::{Container, PodSpec, PodStatus};

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub const PODS: &str = "pods";

/// Taken for scoring when a container asks for nothing, so that such pods spread too.
const SCORED_CPU_MILLIS: i64 = 100;
const SCORED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// cpu in thousandths, memory and storage in bytes, everything else in its units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Extended resources (`example.com/gpu`, `hugepages-2Mi`).
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    pub fn from_map(map: Option<&BTreeMap<String, Written>>) -> Self {
        let mut resources = Self::default();
        resources.set(map);
        resources
    }

    /// Replaces what is named.
    fn set(&mut self, map: Option<&BTreeMap<String, Written>>) {
        for (name, written) in map.into_iter().flatten() {
            // The API server validates quantities; an unreadable one can only be asked of nobody.
            let Ok(quantity) = Quantity::parse(&written.0) else { continue };
            match name.as_str() {
                CPU => self.cpu_millis = quantity.as_millis(),
                MEMORY => self.memory_bytes = quantity.as_units(),
                EPHEMERAL_STORAGE => self.ephemeral_bytes = quantity.as_units(),
                PODS => {}
                _ => {
                    self.other.insert(name.clone(), quantity.as_units());
                }
            }
        }
    }

    /// What a pod occupies: what it says itself (KEP-2837), else what its containers come to.
    pub fn asked(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        Self::asked_with(spec, |container| Self::of(container, status))
    }

    /// A container that is being resized occupies the larger of what it wants and what its node granted; if that node
    /// will never have what it wants, only the latter.
    fn of(container: &Container, status: Option<&PodStatus>) -> Self {
        let mut wanted = Self::from_map(requests(container));
        let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let mut all = lists.into_iter().flatten().flatten().flatten();
        let granted = all.find(|told| told.name == container.name).and_then(|told| told.allocated_resources.as_ref());
        let Some(granted) = granted.map(|granted| Self::from_map(Some(granted))) else { return wanted };
        if status.is_some_and(is_infeasible) {
            return granted;
        }
        wanted.raise_to(&granted);
        wanted
    }

    /// The same with a floor per container.
    pub fn asked_for_scoring(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        Self::asked_with(spec, |container| {
            let mut resources = Self::of(container, status);
            if resources.cpu_millis == 0 {
                resources.cpu_millis = SCORED_CPU_MILLIS;
            }
            if resources.memory_bytes == 0 {
                resources.memory_bytes = SCORED_MEMORY_BYTES;
            }
            resources
        })
    }

    fn asked_with(spec: &PodSpec, of: impl Fn(&Container) -> Self) -> Self {
        let init = spec.init_containers.iter().flatten();
        let init = init.map(|container| (Turn::of_init(container.restart_policy.as_deref()), of(container)));
        let mut total: Self = together(init.chain(spec.containers.iter().map(|one| (Turn::Main, of(one)))));
        total.set(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        total.add(&Self::from_map(spec.overhead.as_ref()));
        total
    }

    pub fn add(&mut self, other: &Self) {
        self.cpu_millis += other.cpu_millis;
        self.memory_bytes += other.memory_bytes;
        self.ephemeral_bytes += other.ephemeral_bytes;
        for (name, amount) in &other.other {
            *self.other.entry(name.clone()).or_insert(0) += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.cpu_millis -= other.cpu_millis;
        self.memory_bytes -= other.memory_bytes;
        self.ephemeral_bytes -= other.ephemeral_bytes;
        for (name, amount) in &other.other {
            *self.other.entry(name.clone()).or_insert(0) -= amount;
        }
        self.other.retain(|_, amount| *amount != 0);
    }
}

impl Amount for Resources {
    fn add(&mut self, more: &Self) {
        Self::add(self, more);
    }

    fn raise_to(&mut self, least: &Self) {
        self.cpu_millis = self.cpu_millis.max(least.cpu_millis);
        self.memory_bytes = self.memory_bytes.max(least.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(least.ephemeral_bytes);
        for (name, amount) in &least.other {
            let present = self.other.entry(name.clone()).or_insert(0);
            *present = (*present).max(*amount);
        }
    }
}

fn is_infeasible(status: &PodStatus) -> bool {
    let refused = |condition: &PodCondition| condition.reason.as_deref() == Some("Infeasible");
    status.conditions.iter().flatten().any(|one| one.type_ == "PodResizePending" && refused(one))
}

fn requests(container: &Container) -> Option<&BTreeMap<String, Written>> {
    container.resources.as_ref()?.requests.as_ref()
}

/// What a node offers to pods, and how many of them.
pub fn allocatable(node: &Node) -> (Resources, i64) {
    let status = node.status.as_ref();
    let map = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    let pods = map.and_then(|map| map.get(PODS)).and_then(|written| Quantity::parse(&written.0).ok());
    (Resources::from_map(map), pods.map_or(0, |pods| pods.as_units()))
}

/// `amount` of `resource` as people write it.
pub fn written(resource: &str, amount: i64) -> String {
    match resource {
        CPU => Quantity::from_millis(amount).to_string(),
        MEMORY | EPHEMERAL_STORAGE => Quantity::from_bytes(amount.max(0).unsigned_abs()).to_string(),
        _ => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_their_largest_and_sidecars_stay() {
        let ask = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory } });
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                { "name": "big", "resources": ask("2", "1Gi") },
                { "name": "side", "restartPolicy": "Always", "resources": ask("100m", "10Mi") },
                { "name": "late", "resources": ask("1", "2Gi") },
            ],
            "containers": [{ "name": "a", "resources": ask("500m", "1Gi") }, { "name": "b" }],
            "overhead": { "memory": "1Mi" },
        }))
        .unwrap();
        let asked = Resources::asked(&spec, None);
        assert_eq!(asked.cpu_millis, 2000);
        let mebibyte = 1024 * 1024;
        assert_eq!(asked.memory_bytes, (2048 + 10 + 1) * mebibyte);
        assert_eq!(Resources::asked_for_scoring(&spec, None).cpu_millis, 2000);
    }

    #[test]
    fn what_a_pod_says_of_itself_counts_before_its_containers() {
        let check = |of_pod: serde_json::Value, of_container: serde_json::Value, expect: (i64, i64, i64)| {
            let resources = |requests: serde_json::Value| json!({ "requests": requests });
            let spec: PodSpec = serde_json::from_value(json!({
                "resources": resources(of_pod), "overhead": { "cpu": "50m" },
                "initContainers": [{ "name": "i", "resources": { "requests": { "cpu": "9" } } }],
                "containers": [{ "name": "a", "resources": resources(of_container) }],
            }))
            .unwrap();
            let asked = Resources::asked(&spec, None);
            let pages = asked.other.get("hugepages-2Mi").copied().unwrap_or_default();
            assert_eq!((asked.cpu_millis, asked.memory_bytes, pages), expect, "{spec:?}");
        };
        check(json!({}), json!({ "memory": "10" }), (9050, 10, 0));
        check(json!({ "cpu": "2" }), json!({ "cpu": "1", "memory": "10" }), (2050, 10, 0));
        check(json!({ "cpu": "2", "memory": "20" }), json!({ "memory": "10" }), (2050, 20, 0));
        check(json!({ "cpu": "2", "hugepages-2Mi": "4" }), json!({ "hugepages-2Mi": "2" }), (2050, 0, 4));
        let spec = json!({ "resources": { "requests": { "cpu": "10m" } }, "containers": [{ "name": "a" }] });
        let scored = Resources::asked_for_scoring(&serde_json::from_value(spec).unwrap(), None);
        assert_eq!((scored.cpu_millis, scored.memory_bytes), (10, SCORED_MEMORY_BYTES));
    }

    #[test]
    fn a_pod_that_is_resized_occupies_the_larger() {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": [{ "name": "c",
            "resources": { "requests": { "cpu": "2", "memory": "10" } } }] }))
        .unwrap();
        let check = |status: serde_json::Value, expect: (i64, i64)| {
            let status: PodStatus = serde_json::from_value(status).unwrap();
            let asked = Resources::asked(&spec, Some(&status));
            assert_eq!((asked.cpu_millis, asked.memory_bytes), expect, "{status:?}");
        };
        let granted = json!([{ "name": "c", "allocatedResources": { "cpu": "500m", "memory": "20" } }]);
        check(json!({}), (2000, 10));
        check(json!({ "containerStatuses": granted }), (2000, 20));
        let pending = |reason: &str| json!([{ "type": "PodResizePending", "status": "True", "reason": reason }]);
        check(json!({ "containerStatuses": granted, "conditions": pending("Deferred") }), (2000, 20));
        check(json!({ "containerStatuses": granted, "conditions": pending("Infeasible") }), (500, 20));
    }
}
