//! Facts about a pod that more than one part needs: its class of service, and what its containers come to.
//!
//! Owns: how one amount comes of those of many containers. May not know: in which form an amount is kept.

use serde_json::Value;

use crate::quantity::Quantity;

/// An amount of one or of several resources. The default is nothing.
pub trait Amount: Default {
    fn add(&mut self, more: &Self);
    fn raise_to(&mut self, least: &Self);
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Together with all others that stay.
    Main,
    /// From its place among the init containers on; stays.
    Sidecar,
    /// Alone with the sidecars before it.
    Step,
}

impl Turn {
    /// Of an init container with this `restartPolicy`.
    pub fn of_init(restart_policy: Option<&str>) -> Self {
        if restart_policy == Some("Always") { Self::Sidecar } else { Self::Step }
    }
}

/// What the containers of a pod come to: those that run together, or the largest step before that, whichever is more
/// (KEP-753). Init containers in their order.
pub fn together<A: Amount>(containers: impl IntoIterator<Item = (Turn, A)>) -> A {
    let (mut staying, mut sidecars, mut largest_step) = (A::default(), A::default(), A::default());
    for (turn, mut amount) in containers {
        match turn {
            Turn::Main => staying.add(&amount),
            Turn::Sidecar => {
                staying.add(&amount);
                sidecars.add(&amount);
            }
            Turn::Step => {
                amount.add(&sidecars);
                largest_step.raise_to(&amount);
            }
        }
    }
    staying.raise_to(&largest_step);
    staying
}

/// Guaranteed, Burstable or BestEffort, from the resources of all containers, or of the pod itself where it has some:
/// those of containers do not count then (KEP-2837).
pub fn qos_class(pod: &Value) -> &'static str {
    let Some(spec) = pod.get("spec") else { return class_of([]) };
    if says_of_itself(spec) {
        return class_of(bounds(spec));
    }
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| spec.get(list)?.as_array());
    class_of(lists.flatten().flat_map(bounds))
}

/// Whether a pod has requests or limits of its own, beside those of its containers.
pub fn says_of_itself(spec: &Value) -> bool {
    ["/resources/requests", "/resources/limits"]
        .iter()
        .any(|side| spec.pointer(side).and_then(Value::as_object).is_some_and(|amounts| !amounts.is_empty()))
}

/// Request and limit of each of the two resources that make the class.
fn bounds(holder: &Value) -> [(Option<&str>, Option<&str>); 2] {
    let of = |side: &str, name: &str| holder.pointer(&format!("/resources/{side}/{name}")).and_then(Value::as_str);
    ["cpu", "memory"].map(|name| (of("requests", name), of("limits", name)))
}

/// The class of service of holders with these requests and limits, as they are written, of CPU and memory.
pub fn class_of<'a>(bounds: impl IntoIterator<Item = (Option<&'a str>, Option<&'a str>)>) -> &'static str {
    let amount = |text: Option<&str>| text.and_then(|text| Quantity::parse(text).ok());
    let is_some = |amount: Option<Quantity>| amount.is_some_and(|amount| !amount.is_zero());
    let (mut any, mut all_equal) = (false, true);
    for (request, limit) in bounds {
        let (request, limit) = (amount(request), amount(limit));
        any |= is_some(request) || is_some(limit);
        all_equal &= is_some(limit) && (request.is_none() || request == limit);
    }
    match (any, all_equal) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quality_of_service() {
        let check = |of_pod: Value, of_container: Value, expect: &str| {
            let pod = json!({ "spec": { "resources": of_pod, "containers": [{ "resources": of_container }] } });
            assert_eq!(qos_class(&pod), expect, "{of_pod} {of_container}");
        };
        let none = || json!({});
        let full = || json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m" } });
        check(none(), none(), "BestEffort");
        check(none(), json!({ "requests": { "cpu": "1" } }), "Burstable");
        check(none(), json!({ "limits": { "cpu": "1" } }), "Burstable");
        check(none(), json!({ "limits": { "cpu": "0" } }), "BestEffort");
        check(none(), full(), "Guaranteed");
        check(none(), json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }), "Burstable");
        check(none(), json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "0" } }), "Burstable");
        check(full(), none(), "Guaranteed");
        check(full(), json!({ "requests": { "cpu": "1m" } }), "Guaranteed");
        check(json!({ "requests": { "cpu": "1" } }), full(), "Burstable");
        check(json!({ "requests": {}, "limits": {} }), full(), "Guaranteed");
        assert_eq!(qos_class(&json!({})), "BestEffort");
    }

    impl Amount for i64 {
        fn add(&mut self, more: &Self) {
            *self += more;
        }

        fn raise_to(&mut self, least: &Self) {
            *self = (*self).max(*least);
        }
    }

    #[test]
    fn containers_together() {
        use Turn::{Main, Sidecar, Step};
        let check = |containers: &[(Turn, i64)], expect: i64| {
            assert_eq!(together(containers.iter().copied()), expect, "{containers:?}");
        };
        check(&[], 0);
        check(&[(Main, 1), (Main, 2)], 3);
        check(&[(Step, 2), (Main, 1)], 2);
        check(&[(Step, 9), (Sidecar, 1), (Step, 5), (Main, 2)], 9);
        check(&[(Sidecar, 1), (Step, 5), (Sidecar, 3), (Main, 2)], 6);
        check(&[(Sidecar, 1), (Step, 5), (Sidecar, 4), (Main, 3)], 8);
        assert_eq!(Turn::of_init(Some("Always")), Sidecar);
        assert_eq!(Turn::of_init(None), Step);
    }
}
