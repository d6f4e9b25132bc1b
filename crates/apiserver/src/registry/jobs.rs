//! Jobs: a selector that no other Job has, and the labels that it selects.

use api::meta;
use serde_json::{Map, Value, json};

use super::Strategy;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same by the names of old, which people's selectors still use.
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";

pub struct Jobs;

impl Strategy for Jobs {
    fn identify(&self, object: &mut Value) {
        let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
        if spec.get("manualSelector") == Some(&Value::Bool(true)) {
            return;
        }
        let Some(template) = spec.get_mut("template").and_then(Value::as_object_mut) else { return };
        if let Some(labels) = nested(template, "metadata").and_then(|metadata| nested(metadata, "labels")) {
            for key in [JOB_NAME, LEGACY_JOB_NAME] {
                labels.insert(key.to_owned(), name.clone().into());
            }
            for key in [CONTROLLER_UID, LEGACY_CONTROLLER_UID] {
                labels.insert(key.to_owned(), uid.clone().into());
            }
        }
        // A label that the user chose stays, and is refused by validation.
        if let Some(wanted) = nested(spec, "selector").and_then(|selector| nested(selector, "matchLabels")) {
            wanted.entry(CONTROLLER_UID).or_insert(uid.into());
        }
    }
}

/// The object under `key`, made when it is absent.
fn nested<'a>(fields: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = fields.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_its_own_pods() {
        let mut job = json!({
            "metadata": { "name": "once", "uid": "u-1" },
            "spec": { "template": { "metadata": { "labels": { "app": "x" } } } },
        });
        Jobs.identify(&mut job);
        assert_eq!(job["spec"]["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": "u-1" } }));
        let labels = json!({ "app": "x", "job-name": "once", "controller-uid": "u-1",
            "batch.kubernetes.io/job-name": "once", "batch.kubernetes.io/controller-uid": "u-1" });
        assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    }

    #[test]
    fn a_manual_selector_is_left_alone() {
        let spec = json!({ "manualSelector": true, "selector": { "matchLabels": { "a": "b" } }, "template": {} });
        let mut job = json!({ "metadata": { "name": "once", "uid": "u-1" }, "spec": spec });
        Jobs.identify(&mut job);
        assert_eq!(job["spec"], spec);
    }
}
