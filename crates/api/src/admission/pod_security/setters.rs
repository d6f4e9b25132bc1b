//! Who set something forbidden: the pod, containers, with names in messages.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Subject, Violation};

/// Every container of any sort, in Kubernetes' order.
pub fn containers<'a>(pod: &Subject<'a>) -> impl Iterator<Item = &'a Value> {
    let spec = pod.spec;
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| spec.get(list).and_then(Value::as_array).into_iter().flatten())
}

pub fn name(container: &Value) -> String {
    container.get("name").and_then(Value::as_str).unwrap_or("").to_owned()
}

/// The names of the containers for which this holds.
pub fn those(pod: &Subject<'_>, mut bad: impl FnMut(&Value) -> bool) -> Vec<String> {
    containers(pod).filter(|container| bad(container)).map(name).collect()
}

pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

pub fn plural(one: &'static str, more: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { more }
}

/// `container "a"`, `containers "a", "b"`
pub fn named(containers: &[String]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// `pod and containers "a", "b"`; `None` when nobody did.
pub fn setters(pod: bool, containers: &[String]) -> Option<String> {
    let mut all = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !containers.is_empty() {
        all.push(named(containers));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

pub fn violation(reason: &str, detail: impl Into<String>) -> Violation {
    Violation { reason: reason.to_owned(), detail: detail.into() }
}

/// A member of `securityContext`, when it is set.
pub fn security<'a>(of: &'a Value, pointer: &str) -> Option<&'a Value> {
    of.get("securityContext")?.pointer(pointer).filter(|value| !value.is_null())
}

pub fn security_text<'a>(of: &'a Value, pointer: &str) -> Option<&'a str> {
    security(of, pointer).and_then(Value::as_str)
}

pub fn security_list<'a>(of: &'a Value, pointer: &str) -> Vec<&'a str> {
    security(of, pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn is_windows(pod: &Subject<'_>) -> bool {
    pod.spec.pointer("/os/name").and_then(Value::as_str) == Some("windows")
}

/// Root within a user namespace of its own is nobody outside.
pub fn has_user_namespace(pod: &Subject<'_>) -> bool {
    pod.spec.get("hostUsers") == Some(&Value::Bool(false))
}

/// Texts, sorted and each once.
pub type Words = BTreeSet<String>;
