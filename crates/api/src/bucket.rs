//! `Bucket` of `knarr.dev/v1alpha1`: a named set of keys and values that Wasm guests share.
//!
//! Owns: the type, its schema, the limits of buckets and their entries, and the annotation that grants a pod a
//! bucket. Entries are no objects: they have a revision and bytes, and are reached through `buckets/NAME/entries`.
//! May not know: how entries are stored, who may use them.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::own::own_kind;

/// Pods carry it: `cache,sessions=prod-sessions` lets a guest open `cache` (the bucket of that name) and
/// `sessions` (the bucket `prod-sessions`). Without it a pod has no bucket.
pub const GRANT_ANNOTATION: &str = "knarr.dev/buckets";

/// As text, in UTF-8.
pub const KEY_BYTES_MAX: usize = 512;
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

pub const QUOTA_BYTES_DEFAULT: &str = "16Mi";
pub const QUOTA_ENTRIES_DEFAULT: i64 = 10_000;
/// The state is in the memory of every server, so that no bucket may be as large as it likes.
pub const QUOTA_BYTES_MAX: u64 = 1 << 30;
pub const QUOTA_ENTRIES_MAX: i64 = 1_000_000;

/// A named set of keys and values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Bucket {
    pub metadata: ObjectMeta,
    pub spec: BucketSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<BucketStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketSpec {
    pub quota: BucketQuota,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketQuota {
    pub max_bytes: Option<Quantity>,
    pub max_entries: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketStatus {
    pub usage: BucketUsage,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketUsage {
    pub bytes: i64,
    pub entries: i64,
}

own_kind!(Bucket, "buckets");

impl JsonSchema for Bucket {
    fn schema_name() -> Cow<'static, str> {
        "dev.knarr.v1alpha1.Bucket".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut metadata = generator.subschema_for::<ObjectMeta>();
        metadata.insert("description".to_owned(), "Standard object's metadata.".into());
        let mut spec = generator.subschema_for::<BucketSpec>();
        spec.insert("description".to_owned(), "What the bucket shall be.".into());
        let mut status = generator.subschema_for::<BucketStatus>();
        status.insert("description".to_owned(), "What was seen of it. Written by the server.".into());
        json_schema!({
            "description": "Bucket is a named set of keys and values, replicated as all state of the cluster is. Wasm \
                guests use it through wasi:keyvalue when annotation knarr.dev/buckets of their pod grants it; others \
                through the subresource entries.",
            "type": "object",
            "required": ["metadata"],
            "properties": {
                "apiVersion": { "description": "APIVersion defines the versioned schema of this representation of an object.",
                    "type": "string" },
                "kind": { "description": "The REST resource this object represents.", "type": "string" },
                "metadata": metadata,
                "spec": spec,
                "status": status,
            },
        })
    }
}

impl JsonSchema for BucketSpec {
    fn schema_name() -> Cow<'static, str> {
        "dev.knarr.v1alpha1.BucketSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut quota = generator.subschema_for::<BucketQuota>();
        quota.insert("description".to_owned(), "How much it may hold.".into());
        json_schema!({ "description": "BucketSpec is what a bucket shall be.", "type": "object",
            "properties": { "quota": quota } })
    }
}

impl JsonSchema for BucketQuota {
    fn schema_name() -> Cow<'static, str> {
        "dev.knarr.v1alpha1.BucketQuota".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut max_bytes = generator.subschema_for::<Quantity>();
        let about = "Most bytes of all keys and values together. Default 16Mi, at most 1Gi.";
        max_bytes.insert("description".to_owned(), about.into());
        json_schema!({ "description": "BucketQuota limits a bucket. A write that would go over it is refused.",
            "type": "object", "properties": {
                "maxBytes": max_bytes,
                "maxEntries": { "description": "Most entries. Default 10000, at most 1000000.", "type": "integer",
                    "format": "int64" } } })
    }
}

impl JsonSchema for BucketStatus {
    fn schema_name() -> Cow<'static, str> {
        "dev.knarr.v1alpha1.BucketStatus".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut usage = generator.subschema_for::<BucketUsage>();
        let about = "What it held a moment ago. The quota is kept exactly all the same.";
        usage.insert("description".to_owned(), about.into());
        json_schema!({ "description": "BucketStatus is what was seen of a bucket.", "type": "object",
            "properties": { "usage": usage } })
    }
}

impl JsonSchema for BucketUsage {
    fn schema_name() -> Cow<'static, str> {
        "dev.knarr.v1alpha1.BucketUsage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = |about: &str| json_schema!({ "description": about, "type": "integer", "format": "int64" });
        json_schema!({ "description": "BucketUsage is what a bucket holds.", "type": "object", "properties": {
            "bytes": number("Bytes of all keys and values."), "entries": number("Number of entries.") } })
    }
}

/// One bucket that a pod may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// What the guest opens.
    pub opened_as: &'a str,
    /// The bucket, in the pod's namespace.
    pub bucket: &'a str,
}

/// Reads the value of [`GRANT_ANNOTATION`].
pub fn grants(annotation: &str) -> impl Iterator<Item = Grant<'_>> {
    annotation.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (opened_as, bucket) = part.split_once('=').unwrap_or((part, part));
        Grant { opened_as: opened_as.trim(), bucket: bucket.trim() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_names_with_or_without_a_bucket() {
        let check = |annotation: &str, expect: &[(&str, &str)]| {
            let found: Vec<_> = grants(annotation).map(|grant| (grant.opened_as, grant.bucket)).collect();
            assert_eq!(found, expect, "{annotation:?}");
        };
        check("", &[]);
        check(" , ", &[]);
        check("cache", &[("cache", "cache")]);
        check("cache, sessions = prod-sessions", &[("cache", "cache"), ("sessions", "prod-sessions")]);
        check("=cache", &[("", "cache")]);
    }

    #[test]
    fn objects_read_as_the_type() {
        let text = r#"{"apiVersion":"knarr.dev/v1alpha1","kind":"Bucket","metadata":{"name":"a"},
            "spec":{"quota":{"maxBytes":"1Mi"}},"status":{"usage":{"entries":3}}}"#;
        let bucket: Bucket = serde_json::from_str(text).expect("a bucket");
        assert_eq!(bucket.spec.quota.max_bytes, Some(Quantity("1Mi".to_owned())));
        assert_eq!(bucket.status.expect("a status").usage, BucketUsage { bytes: 0, entries: 3 });
    }
}
