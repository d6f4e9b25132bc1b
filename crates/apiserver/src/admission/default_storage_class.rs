//! A claim that names no class gets the cluster's default one.

use api::kinds::Kind;
use api::meta;
use api::status::Status;
use serde_json::Value;

use super::{Operation, Plugin, Review};
use crate::core::prefix;
use crate::object::encode::decode;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass;

fn class_kind() -> &'static Kind {
    api::kinds::lookup("storage.k8s.io", "v1", "storageclasses").expect("StorageClass is in the kinds table")
}

impl Plugin for DefaultStorageClass {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is("", "persistentvolumeclaims") || names_class(object) {
            return Ok(());
        }
        let prefix = prefix(class_kind(), "");
        let classes: Vec<Value> = review.view.range(&prefix, None).map(|entry| decode(&entry.value)).collect();
        if let (Some(name), Some(spec)) = (default_class(&classes), object.get_mut("spec").filter(|s| s.is_object())) {
            spec["storageClassName"] = name.into();
        }
        Ok(())
    }
}

/// An empty name is one: it asks for no class at all.
fn names_class(claim: &Value) -> bool {
    claim.pointer("/spec/storageClassName").is_some_and(Value::is_string)
        || meta::annotation(claim, BETA_CLASS).is_some()
}

/// The newest of those that say they are it; of several of one age, the first by name.
fn default_class(classes: &[Value]) -> Option<&str> {
    let marked = |class: &&Value| DEFAULT.iter().any(|key| meta::annotation(class, key) == Some("true"));
    let order =
        |class: &&Value| (meta::creation_timestamp(class).to_owned(), std::cmp::Reverse(meta::name(class).to_owned()));
    classes.iter().filter(marked).max_by_key(order).map(meta::name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, made: &str, default: &str| json!({ "metadata": { "name": name, "creationTimestamp": made, "annotations": { DEFAULT[0]: default } } });
        let check = |classes: &[Value], expect: Option<&str>| assert_eq!(default_class(classes), expect);
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        check(&[class("a", old, "true"), class("b", new, "true"), class("c", new, "false")], Some("b"));
        check(&[class("b", old, "true"), class("a", old, "true")], Some("a"));
        check(&[class("a", old, "false")], None);
        assert!(names_class(&json!({ "spec": { "storageClassName": "" } })) && !names_class(&json!({ "spec": {} })));
    }
}
