//! Namespaces: held back by `spec.finalizers` until their content is gone.

use api::kinds::Kind;
use serde_json::{Value, json};
use store::Op;

use super::Strategy;
use super::strategy::copy_member;
use super::write::Part;
use crate::quota::record_key;

/// The finalizer that the namespace controller removes last.
const FINALIZER: &str = "kubernetes";
/// Every namespace carries its own name as this label.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct Namespaces;

fn label_with_name(object: &mut Value) {
    let name = api::meta::name(object).to_owned();
    if !name.is_empty() {
        let metadata = api::meta::metadata_mut(object);
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if !labels.is_object() {
            *labels = json!({});
        }
        labels[NAME_LABEL] = name.into();
    }
}

impl Strategy for Namespaces {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        object["spec"] = json!({ "finalizers": [FINALIZER] });
        object["status"] = json!({ "phase": "Active" });
        label_with_name(object);
    }

    /// Only `/finalize` changes the finalizers of the spec.
    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "spec");
        copy_member(new, old, "status");
        label_with_name(new);
    }

    fn unowned(&self, _kind: &Kind, part: Part) -> &'static [&'static [&'static str]] {
        match part {
            Part::Main => &[&["spec"], &["status"]],
            Part::Status => &[&["spec"]],
            Part::Whole => &[],
        }
    }

    fn holds_back(&self, object: &Value) -> bool {
        object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    fn begin_deletion(&self, object: &mut Value) {
        object["status"]["phase"] = "Terminating".into();
    }

    fn release(&self, object: &Value) -> Vec<Op> {
        vec![Op::Delete { key: record_key(api::meta::name(object)) }]
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life() {
        let mut namespace = json!({ "metadata": { "name": "a" }, "status": { "phase": "Terminating" } });
        Namespaces.prepare_for_create(crate::core::core_kind("namespaces"), &mut namespace);
        assert_eq!(namespace["metadata"]["labels"][NAME_LABEL], "a");
        assert_eq!(namespace["status"]["phase"], "Active");
        assert!(Namespaces.holds_back(&namespace));
        Namespaces.begin_deletion(&mut namespace);
        assert_eq!(namespace["status"]["phase"], "Terminating");
        namespace["spec"]["finalizers"] = json!([]);
        assert!(!Namespaces.holds_back(&namespace));
    }
}
