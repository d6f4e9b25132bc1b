//! A pod's RuntimeClass must exist; its overhead and node selection are taken over.

use api::status::Status;
use serde_json::{Map, Value};

use super::{Operation, Plugin, Review};
use crate::core::key;
use crate::object::encode::decode;

pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods") {
            return Ok(());
        }
        let name = object.pointer("/spec/runtimeClassName").and_then(Value::as_str).unwrap_or("").to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let kind =
            api::kinds::lookup("node.k8s.io", "v1", "runtimeclasses").expect("RuntimeClass is in the kinds table");
        let Some(entry) = review.view.get(&key(kind, "", &name)) else {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(review.refuse(&why));
        };
        apply(&decode(&entry.value), object).map_err(|why| review.refuse(&why))
    }
}

fn apply(class: &Value, pod: &mut Value) -> Result<(), String> {
    if let Some(overhead) = class.pointer("/overhead/podFixed") {
        pod["spec"]["overhead"] = overhead.clone();
    }
    let Some(wanted) = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object) else { return Ok(()) };
    let selector = pod["spec"].as_object_mut().ok_or("spec is no object")?.entry("nodeSelector");
    let selector = selector.or_insert_with(|| Value::Object(Map::new()));
    for (key, value) in wanted {
        match selector.get(key) {
            Some(present) if present != value => {
                return Err(format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}"));
            }
            _ => selector[key] = value.clone(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn takes_over_overhead_and_selection() {
        let class = json!({ "overhead": { "podFixed": { "memory": "1Mi" } },
            "scheduling": { "nodeSelector": { "a": "b" } } });
        let mut pod = json!({ "spec": { "nodeSelector": { "c": "d" } } });
        apply(&class, &mut pod).unwrap();
        let expect = json!({ "spec": { "nodeSelector": { "a": "b", "c": "d" }, "overhead": { "memory": "1Mi" } } });
        assert_eq!(pod, expect);
        assert!(apply(&class, &mut json!({ "spec": { "nodeSelector": { "a": "x" } } })).is_err());
    }
}
