//! A pod stays on a node that is not ready or unreachable for five minutes unless it says otherwise.

use api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};

const SECONDS: u32 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerations;

impl Plugin for DefaultTolerations {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation == Operation::Create && review.is("", "pods") {
            tolerate(object);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let entry = spec.entry("tolerations").or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    let Some(tolerations) = entry.as_array_mut() else { return };
    for taint in TAINTS {
        let named = |t: &Value, field: &str| t.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
        let tolerated = tolerations.iter().any(|t| {
            matches!(named(t, "key").as_str(), key if key == taint || key.is_empty())
                && matches!(named(t, "effect").as_str(), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_is_missing() {
        let check = |tolerations: Value, expect: usize| {
            let mut pod = json!({ "spec": { "tolerations": tolerations } });
            tolerate(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), expect, "{tolerations}");
        };
        check(json!([]), 2);
        check(json!([{ "operator": "Exists" }]), 1);
        check(json!([{ "key": TAINTS[0], "effect": "NoExecute" }]), 2);
        check(json!([{ "key": TAINTS[0], "effect": "NoSchedule" }]), 3);
    }
}
