//! The metadata of objects as control loops see it, and objects of which nothing else is read.
//!
//! Owns: what of the metadata is passed over. May not know: kinds.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{ApiResource, NamespaceResourceScope};
use serde::{Deserialize, Deserializer};

use crate::pod::exact_or_none;

/// `metadata` without `managedFields`, which are half of an object and of no use to a control loop.
pub fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        deletion_timestamp: Option<Time>,
        finalizers: Option<Vec<String>>,
        generate_name: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        name: Option<String>,
        namespace: Option<String>,
        #[serde(default, deserialize_with = "exact_or_none")]
        owner_references: Option<Vec<OwnerReference>>,
        resource_version: Option<String>,
        uid: Option<String>,
    }
    let read = Read::deserialize(deserializer)?;
    Ok(ObjectMeta {
        annotations: read.annotations,
        creation_timestamp: read.creation_timestamp,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        deletion_timestamp: read.deletion_timestamp,
        finalizers: read.finalizers,
        generate_name: read.generate_name,
        generation: read.generation,
        labels: read.labels,
        managed_fields: None,
        name: read.name,
        namespace: read.namespace,
        owner_references: read.owner_references,
        resource_version: read.resource_version,
        self_link: None,
        uid: read.uid,
    })
}

/// An object of any kind as the garbage collector sees it: who it is, whose it is, whether it goes.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Head {
    #[serde(deserialize_with = "bare")]
    pub metadata: ObjectMeta,
}

/// Labels and annotations are for others.
fn bare<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    metadata(deserializer).map(|meta| ObjectMeta { labels: None, annotations: None, ..meta })
}

impl Resource for Head {
    type DynamicType = ApiResource;
    type Scope = NamespaceResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_head_is_read() {
        let object = json!({ "kind": "ConfigMap", "data": { "a": "b" }, "metadata": {
            "name": "c", "namespace": "n", "uid": "u", "labels": { "a": "b" }, "finalizers": ["f"],
            "managedFields": [{ "manager": "m" }] } });
        let head: Head = serde_json::from_value(object).unwrap();
        let expect = ObjectMeta {
            name: Some("c".into()),
            namespace: Some("n".into()),
            uid: Some("u".into()),
            finalizers: Some(vec!["f".into()]),
            ..ObjectMeta::default()
        };
        assert_eq!(head.metadata, expect);
    }
}
