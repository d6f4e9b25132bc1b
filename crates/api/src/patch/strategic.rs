//! Strategic merge patch: JSON merge, but lists of known items are merged item by item.
//!
//! Owns: the algorithm of apimachinery `pkg/util/strategicpatch` with its directives `$patch`
//! (`replace`, `delete`, `merge`), `$retainKeys`, `$deleteFromPrimitiveList/<field>` and
//! `$setElementOrder/<field>`. The schema says which lists merge and by which key.
//! May not know: storage, conflicts.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::PatchError;
use crate::kinds::Kind;
use crate::list_rules::Patch;
use crate::schema::Cursor;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
/// Deepest nesting of a patch that is followed.
const DEPTH_MAX: u32 = 128;

/// Applies a strategic merge patch to an object of a built-in kind.
pub fn strategic(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Decode { why: "a strategic merge patch of an object is an object".to_owned() });
    };
    let original = original.as_object().cloned().unwrap_or_default();
    merge_object(original, patch, Some(Cursor::of_kind(kind)), 0).map(Value::Object)
}

fn bad(why: impl Into<String>) -> PatchError {
    PatchError::Decode { why: why.into() }
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "replace" | "delete" | "merge") => Ok(Some(text)),
        Some(other) => Err(bad(format!("{DIRECTIVE} is {other}, expected replace, delete or merge"))),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn merge_object(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    at: Option<Cursor>,
    depth: u32,
) -> Result<Map<String, Value>, PatchError> {
    if depth > DEPTH_MAX {
        return Err(bad(format!("the patch is nested deeper than {DEPTH_MAX}")));
    }
    match directive(patch)? {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    if let Some(retain) = patch.get(RETAIN_KEYS) {
        let names: BTreeSet<&str> = strings(retain, RETAIN_KEYS)?.into_iter().collect();
        original.retain(|key, _| names.contains(key.as_str()));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from(&mut original, field, value)?;
        } else if !key.starts_with('$') {
            merge_field(&mut original, key, value, at.and_then(|c| c.field(key)), depth)?;
        }
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(ORDER) {
            set_order(&mut original, field, order, at.and_then(|c| c.field(field)))?;
        }
    }
    Ok(original)
}

fn strings<'a>(value: &'a Value, what: &str) -> Result<Vec<&'a str>, PatchError> {
    let list = value.as_array().ok_or_else(|| bad(format!("{what} is no list")))?;
    list.iter().map(|v| v.as_str().ok_or_else(|| bad(format!("{what} holds {v}, expected strings")))).collect()
}

fn delete_from(original: &mut Map<String, Value>, field: &str, values: &Value) -> Result<(), PatchError> {
    let gone = values.as_array().ok_or_else(|| bad(format!("{DELETE_FROM}{field} is no list")))?;
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    at: Option<Cursor>,
    depth: u32,
) -> Result<(), PatchError> {
    let rule = at.and_then(Cursor::rule).map_or(Patch::Default, |rule| rule.patch);
    match value {
        Value::Null => {
            original.remove(key);
        }
        Value::Object(patch) => {
            let existing = match original.remove(key) {
                Some(Value::Object(map)) if rule != Patch::Replace => map,
                _ => Map::new(),
            };
            let deleted = directive(patch)? == Some("delete");
            let merged = merge_object(existing, patch, at, depth + 1)?;
            if !deleted {
                original.insert(key.to_owned(), Value::Object(merged));
            }
        }
        Value::Array(patch) => {
            let existing = match original.remove(key) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            let merged = match rule {
                Patch::MergeByKey { key: by, .. } => merge_list(existing, patch, by, at, depth)?,
                Patch::MergeSet => unite(existing, patch),
                Patch::Default | Patch::RetainKeys | Patch::Replace => patch.clone(),
            };
            original.insert(key.to_owned(), Value::Array(merged));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            original.insert(key.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn unite(mut existing: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for item in patch {
        if !existing.contains(item) {
            existing.push(item.clone());
        }
    }
    existing
}

fn merge_list(
    existing: Vec<Value>,
    patch: &[Value],
    by: &str,
    at: Option<Cursor>,
    depth: u32,
) -> Result<Vec<Value>, PatchError> {
    let item_at = at.and_then(Cursor::item);
    let is_replace = |item: &Value| item.as_object().is_some_and(|o| directive(o).is_ok_and(|d| d == Some("replace")));
    // A lone `{$patch: replace}` in the list replaces the list by its other items.
    if patch.iter().any(|item| is_replace(item) && item.get(by).is_none()) {
        return Ok(patch.iter().filter(|item| item.get(by).is_some()).map(strip).collect());
    }
    let mut items = existing;
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(bad(format!("a list that merges by {by:?} holds {item}, expected objects")));
        };
        let Some(wanted) = fields.get(by) else {
            return Err(bad(format!("map: {item} does not contain declared merge key: {by}")));
        };
        let found = items.iter().position(|candidate| candidate.get(by) == Some(wanted));
        match (directive(fields)?, found) {
            (Some("delete"), _) => items.retain(|candidate| candidate.get(by) != Some(wanted)),
            (_, Some(index)) => {
                let old = items[index].as_object().cloned().unwrap_or_default();
                items[index] = Value::Object(merge_object(old, fields, item_at, depth + 1)?);
            }
            (_, None) => {
                // Merging into nothing also drops nulls and directives inside the new item.
                items.push(Value::Object(merge_object(Map::new(), fields, item_at, depth + 1)?));
            }
        }
    }
    Ok(items)
}

fn strip(item: &Value) -> Value {
    item.as_object().map_or_else(|| item.clone(), |fields| Value::Object(without_directives(fields)))
}

/// Orders a merged list: items named in the order come in that order; each other item keeps its
/// place after the named item it followed.
fn set_order(
    original: &mut Map<String, Value>,
    field: &str,
    order: &Value,
    at: Option<Cursor>,
) -> Result<(), PatchError> {
    let order = order.as_array().ok_or_else(|| bad(format!("{ORDER}{field} is no list")))?;
    let Some(Value::Array(items)) = original.get_mut(field) else { return Ok(()) };
    let by = match at.and_then(Cursor::rule).map(|rule| rule.patch) {
        Some(Patch::MergeByKey { key, .. }) => Some(key),
        _ => None,
    };
    let identity = |item: &Value| by.map_or_else(|| item.clone(), |key| item.get(key).cloned().unwrap_or_default());
    let rank = |item: &Value| order.iter().position(|named| identity(named) == identity(item));
    let mut last = 0;
    // (rank of the named item this one follows, 0 for the named one itself, original place)
    let mut ranked: Vec<((usize, u8, usize), Value)> = Vec::with_capacity(items.len());
    for (place, item) in std::mem::take(items).into_iter().enumerate() {
        let key = match rank(&item) {
            Some(rank) => {
                last = rank + 1;
                (rank + 1, 0, place)
            }
            None => (last, 1, place),
        };
        ranked.push((key, item));
    }
    ranked.sort_by_key(|(key, _)| *key);
    items.extend(ranked.into_iter().map(|(_, item)| item));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;
    use serde_json::json;

    fn check(kind: &str, original: Value, patch: Value, expect: Value) {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let kind = by_kind(group, "v1", kind).expect("a row");
        assert_eq!(strategic(kind, &original, &patch).unwrap(), expect, "{patch}");
    }

    fn pod(containers: Value) -> Value {
        json!({ "spec": { "containers": containers } })
    }

    #[test]
    fn containers_merge_by_name() {
        check(
            "Pod",
            pod(json!([{ "name": "a", "image": "x:1", "env": [{ "name": "E", "value": "1" }] }, { "name": "b" }])),
            pod(json!([{ "name": "a", "image": "x:2", "env": [{ "name": "F", "value": "2" }] }, { "name": "c" }])),
            pod(json!([
                { "name": "a", "image": "x:2", "env": [{ "name": "E", "value": "1" }, { "name": "F", "value": "2" }] },
                { "name": "b" }, { "name": "c" },
            ])),
        );
    }

    #[test]
    fn directives() {
        let two = || pod(json!([{ "name": "a" }, { "name": "b" }]));
        check("Pod", two(), pod(json!([{ "name": "a", "$patch": "delete" }])), pod(json!([{ "name": "b" }])));
        check("Pod", two(), pod(json!([{ "$patch": "replace" }, { "name": "z" }])), pod(json!([{ "name": "z" }])));
        check(
            "Pod",
            two(),
            json!({ "spec": { "$patch": "replace", "nodeName": "n" } }),
            json!({ "spec": { "nodeName": "n" } }),
        );
        check("Pod", two(), json!({ "spec": { "$patch": "delete" } }), json!({}));
        check(
            "Pod",
            json!({ "metadata": { "finalizers": ["a", "b", "c"] } }),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"] } }),
            json!({ "metadata": { "finalizers": ["a", "c", "d"] } }),
        );
    }

    #[test]
    fn retained_keys_and_order() {
        check(
            "Deployment",
            json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } }),
            json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } }),
            json!({ "spec": { "strategy": { "type": "Recreate" } } }),
        );
        check(
            "Pod",
            pod(json!([{ "name": "a" }, { "name": "x" }, { "name": "b" }])),
            json!({ "spec": {
                "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }],
                "containers": [{ "name": "b", "image": "i" }],
            } }),
            pod(json!([{ "name": "b", "image": "i" }, { "name": "a" }, { "name": "x" }])),
        );
    }

    #[test]
    fn plain_fields_and_nulls() {
        check(
            "Pod",
            json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "tolerations": [{ "key": "x" }] } }),
            json!({ "metadata": { "labels": { "a": null, "c": "3" } }, "spec": { "tolerations": [{ "key": "y" }] } }),
            json!({ "metadata": { "labels": { "b": "2", "c": "3" } }, "spec": { "tolerations": [{ "key": "y" }] } }),
        );
    }

    #[test]
    fn bad_patches_are_refused() {
        let kind = by_kind("", "v1", "Pod").expect("a row");
        let original = pod(json!([{ "name": "a" }]));
        for patch in [
            json!([]),
            pod(json!([{ "image": "no key" }])),
            pod(json!(["text"])),
            json!({ "spec": { "$patch": "explode" } }),
            json!({ "spec": { "$retainKeys": 1 } }),
            json!({ "spec": { "$setElementOrder/containers": {} } }),
        ] {
            assert!(strategic(kind, &original, &patch).is_err(), "{patch}");
        }
    }
}
