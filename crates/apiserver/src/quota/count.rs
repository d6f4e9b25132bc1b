//! Counting what a namespace's objects take of a quota, in one snapshot.

use std::collections::BTreeSet;

use api::admission::amounts::{Amounts, add};
use api::admission::quota;
use api::custom::Catalog;
use api::kinds::{KINDS, Kind};
use serde_json::Value;

use crate::core::{Snapshot, prefix};
use crate::object::encode::decode;

/// The kind of a group and resource, in whatever version it is kept.
fn kind_of(catalog: &Catalog, group: &str, resource: &str) -> Option<&'static Kind> {
    let built_in = KINDS.iter().find(|kind| kind.group == group && kind.resource == resource && kind.is_stored());
    let custom = || catalog.definition(&format!("{resource}.{group}"))?.versions.first().map(|version| version.kind);
    built_in.map(Kind::stored).or_else(custom)
}

/// What is used of a quota in its namespace.
pub fn used(view: &Snapshot, catalog: &Catalog, namespace: &str, quota: &Value) -> Amounts {
    let hard = quota::hard(quota);
    let kinds: BTreeSet<(&str, &str)> = hard.keys().filter_map(|name| quota::counted_under(name)).collect();
    let mut total = Amounts::new();
    for (group, resource) in kinds {
        let Some(kind) = kind_of(catalog, group, resource).filter(|kind| kind.namespaced) else { continue };
        for entry in view.range(&prefix(kind, namespace), None) {
            let object = decode(&entry.value);
            if quota::in_scope(quota, kind, &object) {
                add(&mut total, &quota::usage(kind, &object));
            }
        }
    }
    total.retain(|name, _| hard.contains_key(name));
    total
}
