//! A pod's priority comes from its PriorityClass, or from the one that is the cluster's default.

use api::kinds::{self, Kind};
use api::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::{Operation, Plugin, Review};
use crate::core::{key, prefix};
use crate::object::encode::{decode, decode_as};

pub struct PodPriority;

fn priority_classes() -> &'static Kind {
    kinds::lookup("scheduling.k8s.io", "v1", "priorityclasses").expect("PriorityClass is in the kinds table")
}

impl Plugin for PodPriority {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "pods") || !object["spec"].is_object() {
            return Ok(());
        }
        let name = object.pointer("/spec/priorityClassName").and_then(Value::as_str).unwrap_or("").to_owned();
        let class = if name.is_empty() {
            default_class(review)
        } else {
            let entry = review
                .view
                .get(&key(priority_classes(), "", &name))
                .ok_or_else(|| review.refuse(&format!("no PriorityClass with name {name} was found")))?;
            Some(decode(&entry.value))
        };
        let spec = &mut object["spec"];
        spec["priority"] = class.as_ref().and_then(|c| c.get("value")).cloned().unwrap_or(0.into());
        let policy = class.as_ref().and_then(|c| c.get("preemptionPolicy")).cloned();
        spec["preemptionPolicy"] = policy.unwrap_or("PreemptLowerPriority".into());
        if let Some(class) = class {
            spec["priorityClassName"] = api::meta::name(&class).into();
        }
        Ok(())
    }
}

/// What of a class every pod without one asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    global_default: Option<bool>,
    value: Option<i64>,
}

fn default_class(review: &Review<'_>) -> Option<Value> {
    let prefix = prefix(priority_classes(), "");
    let classes = review.view.range(&prefix, None).map(|entry| (decode_as::<Class>(&entry.value), entry));
    let defaults = classes.filter(|(class, _)| class.global_default == Some(true));
    defaults.min_by_key(|(class, _)| class.value).map(|(_, entry)| decode(&entry.value))
}
