//! `ResourceQuota`: what an object takes of a namespace's share, and whether there is enough left.
//!
//! Follows `pkg/quota/v1/evaluator/core` and `plugin/resourcequota` of k8s.io/apiserver. Pure: what is used is a value
//! that comes in and goes out; who keeps it is the server's matter.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::amounts::{Amounts, Side, add, containers, of_container, of_pod, read, shown};
use crate::kinds::Kind;
use crate::pod::{qos_class, says_of_itself};
use crate::quantity::Quantity;
use crate::selector::{LabelSelector, Requirement};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What each container has to name when a quota limits it.
const NAMED_BY_CONTAINERS: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Counted under their plain name too.
const PLAIN_COUNTS: [&str; 6] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// Objects of these kinds are never counted: there are many, and they go by themselves.
pub fn is_ignored(kind: &'static Kind) -> bool {
    matches!((kind.group, kind.resource), ("" | "events.k8s.io", "events"))
}

/// `count/deployments.apps`
pub fn count_name(kind: &'static Kind) -> String {
    format!("count/{}", kind.stored().qualified_resource())
}

/// What an object takes.
pub fn usage(kind: &'static Kind, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut usage = Amounts::from([(count_name(kind), one)]);
    if kind.group.is_empty() {
        if PLAIN_COUNTS.contains(&kind.resource) {
            usage.insert(kind.resource.to_owned(), one);
        }
        match kind.resource {
            "pods" => usage.extend(pod(object)),
            "services" => usage.extend(service(object)),
            "persistentvolumeclaims" => usage.extend(claim(object)),
            _ => {}
        }
    }
    usage
}

/// Kinds whose objects may come to take more or less after they were made.
pub fn is_mutable(kind: &'static Kind) -> bool {
    kind.group.is_empty() && matches!(kind.resource, "pods" | "services" | "persistentvolumeclaims")
}

/// One that has ended takes nothing but its place in the list of objects.
fn is_over(pod: &Value) -> bool {
    matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"))
}

fn pod(object: &Value) -> Amounts {
    if is_over(object) {
        return Amounts::new();
    }
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let mut usage = of_amounts(&of_pod(spec, Side::Requests, true), &of_pod(spec, Side::Limits, true));
    usage.insert("pods".to_owned(), Quantity::from_units(1));
    usage
}

/// The names under which amounts of containers are limited.
fn of_amounts(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::new();
    for (name, amount) in requests {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        usage.insert(format!("requests.{name}"), *amount);
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn service(object: &Value) -> Amounts {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let given =
        ports.iter().filter(|port| port.get("nodePort").and_then(Value::as_u64).is_some_and(|n| n != 0)).count();
    let kind = object.pointer("/spec/type").and_then(Value::as_str).unwrap_or("");
    let allocates = object.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let (node_ports, balancers) = match kind {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if allocates => (ports.len(), 1),
        "LoadBalancer" => (given, 1),
        _ => (0, 0),
    };
    let count = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX));
    Amounts::from([
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

fn claim(object: &Value) -> Amounts {
    let class = crate::meta::annotation(object, BETA_CLASS)
        .or_else(|| object.pointer("/spec/storageClassName").and_then(Value::as_str))
        .unwrap_or("");
    let one = Quantity::from_units(1);
    let mut usage = Amounts::new();
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one);
    }
    let mut asked = read(object.pointer("/spec/resources/requests")).get("storage").copied();
    // What was given already counts when it is more.
    let given = read(object.pointer("/status/allocatedResources")).get("storage").copied();
    asked = asked.max(given);
    if let Some(asked) = asked {
        usage.insert("requests.storage".to_owned(), asked);
        if !class.is_empty() {
            usage.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), asked);
        }
    }
    usage
}

/// The kind that is counted under a name: group and resource. `None` for a name that nothing is counted under.
pub fn counted_under(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, resource));
    }
    match name {
        _ if PLAIN_COUNTS.contains(&name) => Some(("", name)),
        "services.nodeports" | "services.loadbalancers" => Some(("", "services")),
        "requests.storage" => Some(("", "persistentvolumeclaims")),
        _ if name.contains(CLASS_SUFFIX) => Some(("", "persistentvolumeclaims")),
        "pods" | "cpu" | "memory" | "ephemeral-storage" => Some(("", "pods")),
        _ if ["requests.", "limits.", "hugepages-"].iter().any(|head| name.starts_with(head)) => Some(("", "pods")),
        _ => None,
    }
}

/// Whether every scope of a quota holds for an object.
pub fn in_scope(quota: &Value, kind: &'static Kind, object: &Value) -> bool {
    let plain = quota.pointer("/spec/scopes").and_then(Value::as_array).into_iter().flatten();
    let mut plain = plain.filter_map(Value::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selected = quota.pointer("/spec/scopeSelector/matchExpressions").and_then(Value::as_array);
    let mut selected = selected.into_iter().flatten().map(|expression| {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or("");
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        (text("scopeName"), text("operator"), values.filter_map(Value::as_str).collect())
    });
    let holds = |(scope, operator, values): (&str, &str, Vec<&str>)| holds(kind, object, (scope, operator, &values));
    plain.all(holds) && selected.all(holds)
}

fn holds(kind: &'static Kind, object: &Value, (scope, operator, values): (&str, &str, &[&str])) -> bool {
    let of_pods = kind.group.is_empty() && kind.resource == "pods";
    let of_claims = kind.group.is_empty() && kind.resource == "persistentvolumeclaims";
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let has_deadline =
        || object.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => of_pods && has_deadline(),
        "NotTerminating" => of_pods && !has_deadline(),
        "BestEffort" => of_pods && qos_class(object) == "BestEffort",
        "NotBestEffort" => of_pods && qos_class(object) != "BestEffort",
        "CrossNamespacePodAffinity" => of_pods && crosses_namespaces(object),
        "PriorityClass" => of_pods && selects(text("/spec/priorityClassName"), operator, values),
        "VolumeAttributesClass" => of_claims && selects(text("/spec/volumeAttributesClassName"), operator, values),
        _ => false,
    }
}

fn selects(present: &str, operator: &str, values: &[&str]) -> bool {
    let key = || "name".to_owned();
    let values = || values.iter().map(|value| (*value).to_owned()).collect();
    let requirement = match operator {
        "In" => Requirement::In { key: key(), values: values() },
        "NotIn" => Requirement::NotIn { key: key(), values: values() },
        "Exists" => Requirement::Exists { key: key() },
        "DoesNotExist" => Requirement::DoesNotExist { key: key() },
        _ => return false,
    };
    let mut selector = LabelSelector::everything();
    selector.requirements.push(requirement);
    selector.matches(|_| Some(present).filter(|present| !present.is_empty()))
}

fn crosses_namespaces(pod: &Value) -> bool {
    let list = |pointer: String| pod.pointer(&pointer).and_then(Value::as_array).into_iter().flatten();
    let crosses = |term: &Value| {
        term.get("namespaces").and_then(Value::as_array).is_some_and(|all| !all.is_empty())
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
        let base = format!("/spec/affinity/{affinity}");
        list(format!("{base}/requiredDuringSchedulingIgnoredDuringExecution")).any(crosses)
            || list(format!("{base}/preferredDuringSchedulingIgnoredDuringExecution"))
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(crosses))
    })
}

/// What a quota allows at most.
pub fn hard(quota: &Value) -> Amounts {
    read(quota.pointer("/spec/hard"))
}

/// What is used, by the quota's own status.
pub fn used(quota: &Value) -> Amounts {
    read(quota.pointer("/status/used"))
}

/// The status of a quota with these amounts used; names that it does not limit are left out.
pub fn status(quota: &Value, used: &Amounts) -> Value {
    let hard = hard(quota);
    let used: BTreeMap<&String, String> =
        hard.keys().map(|name| (name, used.get(name).copied().unwrap_or(Quantity::ZERO).to_string())).collect();
    json!({ "hard": quota.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({})), "used": used })
}

/// Takes what an object comes to (`more`, of which only increases count) from a quota.
///
/// `None` when the quota has nothing to do with it.
///
/// # Errors
/// What Kubernetes says when too little is left, or when a container does not name what is limited.
pub fn charge(
    quota: &Value,
    kind: &'static Kind,
    object: &Value,
    before: Option<&Value>,
) -> Result<Option<Amounts>, String> {
    let hard = hard(quota);
    let name = crate::meta::name(quota);
    if !in_scope(quota, kind, object) {
        return Ok(None);
    }
    if before.is_none() && kind.group.is_empty() && kind.resource == "pods" {
        check_named(&hard, object).map_err(|why| format!("failed quota: {name}: {why}"))?;
    }
    let was = before.filter(|old| in_scope(quota, kind, old)).map(|old| usage(kind, old)).unwrap_or_default();
    let mut requested = Amounts::new();
    for (name, amount) in usage(kind, object) {
        let delta = amount.sub(was.get(&name).copied().unwrap_or(Quantity::ZERO));
        if hard.contains_key(&name) && !delta.is_zero() && !delta.is_negative() {
            requested.insert(name, delta);
        }
    }
    if requested.is_empty() {
        return Ok(None);
    }
    let used = used(quota);
    let mut total = used.clone();
    add(&mut total, &requested);
    let exceeded: BTreeSet<&String> = requested.keys().filter(|name| total[*name] > hard[*name]).collect();
    if exceeded.is_empty() {
        return Ok(Some(total));
    }
    let only = |amounts: &Amounts| -> Amounts {
        let zero = Quantity::ZERO;
        exceeded.iter().map(|name| ((*name).clone(), amounts.get(*name).copied().unwrap_or(zero))).collect()
    };
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        shown(&only(&requested)),
        shown(&only(&used)),
        shown(&only(&hard))
    ))
}

/// Every container has to name what of cpu and memory a quota limits, unless the pod says what they have together.
fn check_named(hard: &Amounts, pod: &Value) -> Result<(), String> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    if says_of_itself(spec) {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers(spec, "containers").iter().chain(containers(spec, "initContainers")) {
        let named = of_amounts(&of_container(container, Side::Requests), &of_container(container, Side::Limits));
        for limited in NAMED_BY_CONTAINERS.into_iter().filter(|name| hard.contains_key(*name)) {
            if !named.contains_key(limited) {
                let name = container.get("name").and_then(Value::as_str).unwrap_or("");
                missing.entry(limited).or_default().insert(name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing
        .into_iter()
        .map(|(limited, containers)| format!("{limited} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    Err(format!("must specify {}", list.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(resource: &str) -> &'static Kind {
        crate::kinds::lookup("", "v1", resource).unwrap()
    }

    fn pod_of(requests: Value) -> Value {
        json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": requests } }] } })
    }

    #[test]
    fn what_objects_take() {
        let check = |resource: &str, object: Value, expect: &str| {
            assert_eq!(shown(&usage(kind(resource), &object)), expect, "{object}");
        };
        check("secrets", json!({}), "count/secrets=1,secrets=1");
        check("pods", pod_of(json!({ "cpu": "1" })), "count/pods=1,cpu=1,pods=1,requests.cpu=1");
        check("pods", json!({ "status": { "phase": "Failed" } }), "count/pods=1");
        check(
            "services",
            json!({ "spec": { "type": "NodePort", "ports": [{}, {}] } }),
            "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2",
        );
        check(
            "persistentvolumeclaims",
            json!({ "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } } } }),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
        );
        let deployments = crate::kinds::lookup("apps", "v1", "deployments").unwrap();
        assert_eq!(shown(&usage(deployments, &json!({}))), "count/deployments.apps=1");
    }

    #[test]
    fn scopes() {
        let check = |spec: Value, pod: Value, expect: bool| {
            assert_eq!(in_scope(&json!({ "spec": spec }), kind("pods"), &pod), expect, "{spec} {pod}");
        };
        check(json!({}), json!({}), true);
        check(json!({ "scopes": ["BestEffort"] }), pod_of(json!({})), true);
        check(json!({ "scopes": ["BestEffort"] }), pod_of(json!({ "cpu": "1" })), false);
        let together = json!({ "spec": { "resources": { "limits": { "memory": "1Gi" } } } });
        check(json!({ "scopes": ["NotBestEffort"] }), together, true);
        check(json!({ "scopes": ["Terminating"] }), json!({ "spec": { "activeDeadlineSeconds": 5 } }), true);
        check(json!({ "scopes": ["Terminating"] }), json!({}), false);
        let class = |operator: &str, values: Value| {
            json!({ "scopeSelector": { "matchExpressions": [
                { "scopeName": "PriorityClass", "operator": operator, "values": values }] } })
        };
        let high = || json!({ "spec": { "priorityClassName": "high" } });
        check(class("In", json!(["high"])), high(), true);
        check(class("NotIn", json!(["high"])), high(), false);
        check(class("In", json!(["low"])), high(), false);
        check(class("Exists", Value::Null), high(), true);
        check(class("DoesNotExist", Value::Null), json!({}), true);
        let affine = json!({ "spec": { "affinity": { "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{ "namespaces": ["b"] }] } } } });
        check(json!({ "scopes": ["CrossNamespacePodAffinity"] }), affine, true);
        assert!(!in_scope(&json!({ "spec": { "scopes": ["BestEffort"] } }), kind("secrets"), &json!({})));
    }

    #[test]
    fn charging() {
        let quota = |hard: Value, used: Value| json!({ "metadata": { "name": "q" }, "spec": { "hard": hard }, "status": { "used": used } });
        let check = |quota: Value, object: Value, before: Option<Value>, expect: Result<&str, &str>| {
            let found = charge(&quota, kind("pods"), &object, before.as_ref());
            let found = found.map(|total| total.as_ref().map(shown).unwrap_or_default());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{quota} {object}");
        };
        let cpu = |amount: &str| pod_of(json!({ "cpu": amount }));
        check(quota(json!({ "secrets": "1" }), json!({})), cpu("1"), None, Ok(""));
        check(quota(json!({ "pods": "2" }), json!({ "pods": "1" })), cpu("1"), None, Ok("pods=2"));
        check(
            quota(json!({ "pods": "1", "requests.cpu": "2" }), json!({ "pods": "1", "requests.cpu": "1500m" })),
            cpu("1"),
            None,
            Err("exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=1500m, limited: \
                 pods=1,requests.cpu=2"),
        );
        check(
            quota(json!({ "limits.cpu": "1", "memory": "1" }), json!({})),
            cpu("1"),
            None,
            Err("failed quota: q: must specify limits.cpu for: c; memory for: c"),
        );
        let together = json!({ "spec": { "containers": [{ "name": "c" }], "resources": {
            "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "cpu": "2", "memory": "1Gi" } } } });
        check(
            quota(json!({ "cpu": "4", "limits.cpu": "4", "memory": "2Gi" }), json!({ "limits.cpu": "1" })),
            together.clone(),
            None,
            Ok("cpu=1,limits.cpu=3,memory=1Gi"),
        );
        check(
            quota(json!({ "limits.cpu": "1" }), json!({})),
            together,
            None,
            Err("exceeded quota: q, requested: limits.cpu=2, used: limits.cpu=0, limited: limits.cpu=1"),
        );
        check(quota(json!({ "cpu": "3" }), json!({ "cpu": "2" })), cpu("2"), Some(cpu("1")), Ok("cpu=3"));
        check(quota(json!({ "cpu": "1" }), json!({ "cpu": "2" })), cpu("1"), Some(cpu("2")), Ok(""));
    }

    #[test]
    fn names() {
        let check = |name: &str, expect: Option<(&str, &str)>| assert_eq!(counted_under(name), expect, "{name}");
        check("count/jobs.batch", Some(("batch", "jobs")));
        check("count/widgets.example.com", Some(("example.com", "widgets")));
        check("count/pods", Some(("", "pods")));
        check("requests.storage", Some(("", "persistentvolumeclaims")));
        check("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims")));
        check("requests.example.com/gpu", Some(("", "pods")));
        check("services.nodeports", Some(("", "services")));
        check("nonsense", None);
    }
}
