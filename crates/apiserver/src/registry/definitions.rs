//! CustomResourceDefinitions: what the server adds to one, and the objects that they define.

use api::custom::CLEANUP_FINALIZER;
use api::kinds::Kind;
use api::meta;
use serde_json::{Value, json};

use super::Strategy;
use super::strategy::copy_member;

pub struct Definitions;

/// The version in which objects are kept from now on.
fn storage_version(object: &Value) -> Option<&str> {
    let versions = object.pointer("/spec/versions")?.as_array()?;
    versions.iter().find(|version| version["storage"] == true)?["name"].as_str()
}

impl Strategy for Definitions {
    fn prepare_for_create(&self, _kind: &Kind, object: &mut Value) {
        let stored: Vec<&str> = storage_version(object).into_iter().collect();
        object["status"] = json!({ "storedVersions": stored, "acceptedNames": { "kind": "", "plural": "" } });
        let mut finalizers: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
        if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.to_owned());
        }
        meta::set(object, "finalizers", json!(finalizers));
    }

    /// A version that was ever stored stays listed until somebody says that nothing of it is left.
    fn prepare_for_update(&self, _kind: &Kind, new: &mut Value, old: &Value) {
        copy_member(new, old, "status");
        let Some(storage) = storage_version(new).map(str::to_owned) else { return };
        let stored = new.pointer("/status/storedVersions").and_then(Value::as_array).cloned().unwrap_or_default();
        if !stored.iter().any(|version| *version == storage) {
            let stored: Vec<Value> = stored.into_iter().chain([storage.into()]).collect();
            new["status"]["storedVersions"] = stored.into();
        }
    }
}

/// Objects of custom kinds.
pub struct Customs;

impl Strategy for Customs {
    fn prepare_for_create(&self, kind: &Kind, object: &mut Value) {
        if kind.has_status()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_versions_are_remembered() {
        let versions = |storage: &str| json!([{ "name": "v1", "storage": storage == "v1" }, { "name": "v2", "storage": storage == "v2" }]);
        let kind = crate::custom::definition_kind();
        let mut old = json!({ "metadata": { "name": "x" }, "spec": { "versions": versions("v1") } });
        Definitions.prepare_for_create(kind, &mut old);
        assert_eq!(old["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(old["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
        let mut new = old.clone();
        new["spec"]["versions"] = versions("v2");
        new["status"] = json!({ "storedVersions": [] });
        Definitions.prepare_for_update(kind, &mut new, &old);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    }
}
