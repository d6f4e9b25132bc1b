//! What a pod asks for and may take, by name of the resource.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::pod::{Amount, Turn, together};
use crate::quantity::Quantity;

/// Quantities by name: `cpu`, `requests.storage`, `count/secrets`.
pub type Amounts = BTreeMap<String, Quantity>;

/// `requests` or `limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// A map of quantities. What cannot be read is left out: validation refuses it.
pub fn read(map: Option<&Value>) -> Amounts {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?))).collect()
}

/// Of a container; also what a pod says of itself, which has the same form.
pub fn of_container(container: &Value, side: Side) -> Amounts {
    read(container.pointer(&format!("/resources/{}", side.name())))
}

pub fn containers<'a>(spec: &'a Value, list: &str) -> &'a [Value] {
    spec.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).copied().unwrap_or(Quantity::ZERO).add(*amount);
        total.insert(name.clone(), sum);
    }
}

impl Amount for Amounts {
    fn add(&mut self, more: &Self) {
        add(self, more);
    }

    fn raise_to(&mut self, least: &Self) {
        for (name, amount) in least {
            if self.get(name).is_none_or(|present| present < amount) {
                self.insert(name.clone(), *amount);
            }
        }
    }
}

/// What all containers of a pod come to, whatever the pod says of itself.
pub fn of_containers(spec: &Value, side: Side) -> Amounts {
    let turn = |container: &Value| Turn::of_init(container.get("restartPolicy").and_then(Value::as_str));
    let init = containers(spec, "initContainers").iter().map(|one| (turn(one), of_container(one, side)));
    together(init.chain(containers(spec, "containers").iter().map(|one| (Turn::Main, of_container(one, side)))))
}

/// What a pod comes to. What it says itself counts before its containers (KEP-2837).
pub fn of_pod(spec: &Value, side: Side, with_overhead: bool) -> Amounts {
    let mut total = of_containers(spec, side);
    total.extend(of_container(spec, side));
    if with_overhead {
        let overhead = read(spec.get("overhead"));
        match side {
            Side::Requests => add(&mut total, &overhead),
            // What has no limit gets none by this.
            Side::Limits => {
                let limited = overhead.into_iter().filter(|(name, _)| total.contains_key(name)).collect();
                add(&mut total, &limited);
            }
        }
    }
    total
}

/// `cpu=1,memory=2Gi`
pub fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_pods() {
        let container = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu } } });
        let sidecar = json!({ "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } });
        let check = |spec: Value, expect: &str| {
            assert_eq!(shown(&of_pod(&spec, Side::Requests, true)), expect, "{spec}");
        };
        check(json!({ "containers": [container("1"), container("500m")] }), "cpu=1500m");
        check(json!({ "containers": [container("1")], "initContainers": [container("3")] }), "cpu=3");
        check(json!({ "containers": [container("1")], "initContainers": [sidecar, container("2")] }), "cpu=2100m");
        check(
            json!({ "containers": [container("1")], "overhead": { "cpu": "1", "memory": "1Mi" } }),
            "cpu=2,memory=1Mi",
        );
        let of_pod = |requests: Value| json!({ "requests": requests });
        check(json!({ "containers": [container("1")], "resources": of_pod(json!({ "cpu": "4" })) }), "cpu=4");
        check(
            json!({ "containers": [container("1")], "initContainers": [container("9")],
                "resources": of_pod(json!({ "memory": "1Gi" })), "overhead": { "memory": "1Gi" } }),
            "cpu=9,memory=2Gi",
        );
    }
}
